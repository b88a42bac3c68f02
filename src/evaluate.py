"""Stage `evaluate`: measure the trained networks of one variant on the test split, one record per seed.

python src/evaluate.py batch_norm
"""

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from bnstudy import BadInput, run
from bnstudy.engine import device as devices
from bnstudy.engine.models import from_file
from bnstudy.engine.training import confusion, loss_and_accuracy, predict, tensors
from bnstudy.files import forget_finished, write
from bnstudy.params import Variant, load


def steps_to(path: Path, targets: list[float]) -> dict[str, int | None]:
    """The first step in the history `path` with at least each validation accuracy of `targets`; None where none is."""
    try:
        history = pd.read_csv(path)
        reached = {target: history.loc[history["validation_accuracy"] >= target, "step"] for target in targets}
        return {str(target): None if steps.empty else int(steps.iloc[0]) for target, steps in reached.items()}
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise BadInput(f"{path}: is not a history of this study ({error}); remove it and run `dvc repro`") from None


def main() -> None:
    params = load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", choices=params.study.variants, help="one of `study.variants` in params.yaml")
    name = parser.parse_args().variant
    device = devices.prepare(params.runtime)
    validation, (images_NHW, labels_N) = tensors("validation", device), tensors("test", device)

    runs: list[dict[str, Any]] = []
    for seed in params.study.seeds:
        network, trained_in = from_file(Path("models", name, f"{seed}.safetensors"), name, seed, Variant.model_validate)
        network.to(device)
        logits = predict(network, images_NHW)
        test_loss, test_accuracy = loss_and_accuracy(logits, labels_N)
        validation_loss, validation_accuracy = loss_and_accuracy(predict(network, validation[0]), validation[1])
        runs.append(
            {
                "seed": seed,
                "test_accuracy": test_accuracy,
                "test_loss": test_loss,
                "validation_accuracy": validation_accuracy,
                "validation_loss": validation_loss,
                "steps_to": steps_to(Path("metrics/history", name, f"{seed}.csv"), params.evaluate.targets),
                "confusion": confusion(logits, labels_N),  # images of the test split, [actual][predicted]
                "environment": trained_in,
            }
        )

    text = json.dumps({"variant": name, "runs": runs}, indent=1, allow_nan=False)
    write(Path("metrics/evaluation", f"{name}.json"), (text + "\n").encode())
    forget_finished(f"train/{name}")
    print(f"{name}: test accuracy", ", ".join(f"{run['test_accuracy']:.2%}" for run in runs))


if __name__ == "__main__":
    run(main)
