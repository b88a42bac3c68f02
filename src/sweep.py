"""Stages `sweep_rates` and `sweep_batches`: short runs of a variant at another learning rate or batch size.

python src/sweep.py plain --learning-rate 0.03
python src/sweep.py plain --batch-size 256
"""

import argparse
from pathlib import Path

from bnstudy import run
from bnstudy.engine.network import build
from bnstudy.engine.resume import Checkpoint
from bnstudy.engine.rows import SweepRow, to_csv
from bnstudy.engine.run import Run
from bnstudy.engine.training import Diverged, at_rate, evaluate, history, tensors
from bnstudy.params import BatchSize, Positive, Train, Variant, argument, load


def last_row(variant: Variant, train: Train, seed: int, checkpoint: Checkpoint) -> SweepRow:
    """The end of one short run.

    A loss that is no longer finite is an outcome here: `diverged` is 1, and the accuracies are those of what is left.
    """
    network = build(variant, seed, checkpoint.device)
    setting = (seed, train.batch_size, train.learning_rate.initial)
    try:
        last = history(network, train, seed, checkpoint)[-1]
    except Diverged as diverged:
        splits = [tensors(split, checkpoint.device) for split in ("validation", "test")]
        return SweepRow(*setting, diverged.step, 1, None, *(evaluate(network, *split)[1] for split in splits))
    return SweepRow(*setting, last.step, 0, last.train_loss, last.validation_accuracy, last.test_accuracy)


def main() -> None:
    params = load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", choices=params.variants, help="a name under `variants` in params.yaml")
    setting = parser.add_mutually_exclusive_group(required=True)
    setting.add_argument("--learning-rate", type=argument(Positive), help="in place of the variant's own")
    setting.add_argument("--batch-size", type=argument(BatchSize), help="in place of train.batch_size")
    arguments = parser.parse_args()
    name, rate, batch_size, sweep = arguments.variant, arguments.learning_rate, arguments.batch_size, params.sweep
    variant = params.variants[name]
    train = at_rate(params.train, rate or params.rates[name])
    changes = {"steps": sweep.steps, "evaluate_every": sweep.steps, "batch_size": batch_size or train.batch_size}
    train = train.model_copy(update=changes)

    runs = Run(f"sweep/{name}/" + (f"rate_{rate}" if rate else f"batch_{batch_size}"), params.runtime)
    rows = []
    for seed in sweep.seeds:
        determinants = [variant.model_dump(), train.model_dump(), seed]
        rows.append(last_row(variant, train, seed, runs.checkpoint(f"{runs.name}/{seed}", train.steps, determinants)))

    accuracies = ", ".join(f"{row.validation_accuracy:.2%}" for row in rows)
    runs.finish({Path("metrics", f"{runs.name}.csv"): to_csv(rows)}, f"validation accuracy {accuracies}")


if __name__ == "__main__":
    run(main)
