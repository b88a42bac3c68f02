"""Stage `evaluate`: what the trained networks of one variant do on the test split, a record a seed.

python -m bnstudy.evaluate --variant batch_norm
"""

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open

from bnstudy import device as devices
from bnstudy.network import Network
from bnstudy.params import BadInput, Evaluate, Runtime, Variant, load
from bnstudy.stage import arguments_of_stage, forget_finished, run, write
from bnstudy.training import loss_and_accuracy, predict, tensors


def load_network(path: Path, name: str, seed: int) -> tuple[Network, dict[str, object]]:
    """Rebuild the network that `train` wrote to `path`, and tell in what environment (`bnstudy.device`).

    Raises `BadInput` unless it is that of `name` and `seed`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {})["bnstudy"])
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if (record["variant"], record["seed"]) != (name, seed):
            raise BadInput(f"{path}: holds {record['variant']} seed {record['seed']}, not {name} seed {seed}")
        network = Network(Variant.model_validate(record["network"]))
        network.load_state_dict(state)
        environment = dict(record["environment"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{path}: is not a model of this study ({reason}); remove it and run `dvc repro`") from None
    return network, environment


def steps_to(history: pd.DataFrame, target: float) -> int | None:
    """The first recorded step at which the validation accuracy is at least `target`; None if none is."""
    reached = history.loc[history["validation_accuracy"] >= target, "step"]
    return None if reached.empty else int(reached.iloc[0])


def evaluate_run(name: str, seed: int, evaluate: Evaluate, device: torch.device) -> dict[str, object]:
    """The record of one run. `confusion` counts test images [actual, predicted]; `steps_to` has a key a target."""
    network, environment = load_network(Path("models", name, f"{seed}.safetensors"), name, seed)
    network.to(device)
    images_NHW, labels_N = tensors("test", device)
    logits = predict(network, images_NHW)
    test_loss, test_accuracy = loss_and_accuracy(logits, labels_N)
    validation_images, validation_labels = tensors("validation", device)
    validation_loss, validation_accuracy = loss_and_accuracy(predict(network, validation_images), validation_labels)
    pairs = (labels_N * 10 + logits.argmax(1)).cpu()
    path = Path("metrics/history", name, f"{seed}.csv")
    try:
        history = pd.read_csv(path)
        steps = {str(target): steps_to(history, target) for target in evaluate.targets}
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise BadInput(f"{path}: is not a history of this study ({error}); remove it and run `dvc repro`") from None
    return {
        "seed": seed,
        "test_accuracy": test_accuracy,
        "test_loss": test_loss,
        "validation_accuracy": validation_accuracy,
        "validation_loss": validation_loss,
        "steps_to": steps,
        "confusion": torch.bincount(pairs, minlength=100).reshape(10, 10).tolist(),
        "environment": environment,
    }


def evaluate_variant(name: str, seeds: list[int], evaluate: Evaluate, runtime: Runtime) -> None:
    """Write `metrics/evaluation/<name>.json`, with the seeds in the order of `study.seeds`."""
    device = devices.prepare(runtime)
    runs = [evaluate_run(name, seed, evaluate, device) for seed in seeds]
    text = json.dumps({"variant": name, "runs": runs}, indent=1, allow_nan=False)
    write(Path("metrics/evaluation", f"{name}.json"), (text + "\n").encode())
    forget_finished(f"train/{name}")
    accuracies = ", ".join(f"{run['test_accuracy']:.2%}" for run in runs)
    print(f"{name}: test accuracy {accuracies}")


def main() -> None:
    params = load()  # before the arguments, which come from it where DVC runs this
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", required=True, help="a name under `variants` in params.yaml")
    arguments = parser.parse_args(arguments_of_stage("variant"))
    evaluate_variant(arguments.variant, params.study.seeds, params.evaluate, params.runtime)


if __name__ == "__main__":
    run(main)
