"""Stage `evaluate`: what one trained model reaches.

    python src/evaluate.py batch_norm 10

metrics/<model>/<seed>.json
    test_accuracy, test_loss   of the saved weights, on all test images; a fraction, and nats
    updates_to_95              until validation accuracy is 95%, interpolated in the curve; absent where it never is
    curve                      the curve's columns, for `plot`; `dvc metrics` passes over lists
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from bnstudy import BadInput, run
from bnstudy.engine import device
from bnstudy.engine.models import from_file
from bnstudy.engine.training import evaluate, tensors
from bnstudy.files import write
from bnstudy.params import Seed, argument, load

TARGET = 0.95


def main() -> None:
    params = load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=params.models, help="one of `models` in params.yaml")
    parser.add_argument("seed", type=argument(Seed))
    arguments = parser.parse_args()
    model, seed = arguments.model, arguments.seed

    on = device.prepare(params.runtime)
    path = Path("models", model, f"{seed}.safetensors")
    network = from_file(path, model, params.arm(model), seed)
    loss, accuracy = evaluate(network.to(on), tensors("test", on))
    curve = read_curve(Path("curves", model, f"{seed}.csv"))
    found: dict[str, Any] = {"test_accuracy": accuracy, "test_loss": loss}
    if reached := updates_to(TARGET, curve["step"].tolist(), curve["validation_accuracy"].tolist()):
        found["updates_to_95"] = reached
    found = {name: float(f"{value:.6g}") for name, value in found.items()}
    found["curve"] = [{"column": str(column), "values": curve[column].tolist()} for column in curve]
    write(Path("metrics", model, f"{seed}.json"), (json.dumps(found, indent=1) + "\n").encode())
    print(
        f"{model} {seed}: test accuracy {accuracy:.2%}, 95% after {reached:.0f} updates"
        if reached
        else f"{model} {seed}: test accuracy {accuracy:.2%}, 95% not reached"
    )


def read_curve(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); `dvc repro` brings it") from None


def updates_to(target: float, steps: list[int], accuracies: list[float]) -> float | None:
    """After how many updates the accuracy is first at `target`, interpolated by the logarithm of the updates.

    None if it never is. At the first evaluation already: that one's updates.
    """
    for place, (step, accuracy) in enumerate(zip(steps, accuracies, strict=True)):
        if accuracy >= target:
            if place == 0:
                return float(step)
            before, low = steps[place - 1], accuracies[place - 1]
            return float(before * math.exp(math.log(step / before) * (target - low) / (accuracy - low)))
    return None


if __name__ == "__main__":
    run(main)
