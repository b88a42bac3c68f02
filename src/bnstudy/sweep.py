"""Stages `sweep_rates` and `sweep_batches`: short runs of a variant at another learning rate or batch size.

python -m bnstudy.sweep --variant plain --learning-rate 0.03
python -m bnstudy.sweep --variant plain --batch-size 256
"""

import argparse
import os
import time
from pathlib import Path

import torch

from bnstudy import device as devices
from bnstudy.checkpoint import Checkpoint, catch_signals
from bnstudy.network import build
from bnstudy.params import BadInput, BatchSize, Positive, Runtime, Train, Variant, argument, load
from bnstudy.stage import arguments_of_stage, run, write_table
from bnstudy.training import Diverged, at_rate, evaluate, history, tensors

COLUMNS = (
    "seed",
    "batch_size",
    "learning_rate",
    "step",
    "diverged",
    "train_loss",
    "validation_accuracy",
    "test_accuracy",
)


def last_record(
    variant: Variant, train: Train, seed: int, device: torch.device, checkpoint: Checkpoint
) -> tuple[float | int | None, ...]:
    """One short run: its record after the last update, in the order of COLUMNS.

    A loss that is no longer finite is an outcome here: `diverged` is 1, and the accuracies are those of what is left.
    """
    network = build(variant, seed, device)
    setting = (seed, train.batch_size, train.learning_rate.initial)
    try:
        *_, last = history(network, train, seed, device, checkpoint)
    except Diverged as diverged:
        accuracies = (evaluate(network, *tensors(split, device))[1] for split in ("validation", "test"))
        return (*setting, diverged.step, 1, None, *accuracies)
    return (*setting, last.step, 0, last.train_loss, last.validation_accuracy, last.test_accuracy)


def sweep_run(path: Path, variant: Variant, train: Train, seeds: list[int], runtime: Runtime) -> None:
    """Write `path`: the records of one setting, a row a seed."""
    device = devices.prepare(runtime)
    catch_signals()
    started = time.time()
    checkpoints = {
        seed: Checkpoint(
            f"sweep/{path.parent.name}/{path.stem}/{seed}",
            [variant.model_dump(), train.model_dump(), seed],
            device,
            runtime,
        )
        for seed in seeds
    }
    found = [last_record(variant, train, seed, device, checkpoint) for seed, checkpoint in checkpoints.items()]
    write_table(path, COLUMNS, found)
    seconds = devices.log(f"sweep/{path.parent.name}/{path.stem}", device, started)
    for checkpoint in checkpoints.values():
        checkpoint.finish()
    accuracies = ", ".join(f"{record[-2]:.2%}" for record in found)
    print(f"{path}: validation accuracy {accuracies} in {seconds:.0f} s")


def main() -> None:
    params = load()  # before the arguments, which come from it where DVC runs this
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", required=True, help="a name under `variants` in params.yaml")
    setting = parser.add_mutually_exclusive_group(required=True)
    setting.add_argument("--learning-rate", type=argument(Positive), help="in place of the variant's own")
    setting.add_argument("--batch-size", type=argument(BatchSize), help="in place of train.batch_size")
    swept = "batch-size" if os.environ.get("DVC_STAGE", "").startswith("sweep_batches@") else "learning-rate"
    arguments = parser.parse_args(arguments_of_stage("variant", swept))
    name, sweep = arguments.variant, params.sweep
    if name not in params.variants:
        raise BadInput(f"--variant: {name} is not one of {', '.join(params.variants)}")
    train = params.train.model_copy(update={"steps": sweep.steps, "evaluate_every": sweep.steps})
    folder = Path("metrics/sweep", name)
    if arguments.batch_size is None:
        path, train = folder / f"rate_{arguments.learning_rate}.csv", at_rate(train, arguments.learning_rate)
    else:
        path = folder / f"batch_{arguments.batch_size}.csv"
        train = at_rate(train, params.rates[name]).model_copy(update={"batch_size": arguments.batch_size})
    sweep_run(path, params.variants[name], train, sweep.seeds, params.runtime)


if __name__ == "__main__":
    run(main)
