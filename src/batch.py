"""Stage `batch`: one network of the contest with one batch size, at the rate that tuning seeds choose for this cell.

python src/batch.py with 64
"""

import argparse
import math
from pathlib import Path

from bnstudy import run
from bnstudy.engine.rows import to_csv
from bnstudy.engine.run import Run
from bnstudy.engine.short import best_rate
from bnstudy.params import BatchSize, argument, load
from bnstudy.settings import read_setting


def main() -> None:
    params = load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contestant", choices=params.batch.contestants, help="without or with batch norm")
    parser.add_argument("size", type=argument(BatchSize), help="images per update")
    arguments = parser.parse_args()
    size, batch = arguments.size, params.batch
    settings = [read_setting(f"batch/{arguments.contestant}/{factor}") for factor in batch.factors]

    runs, rows = Run(f"batch/{arguments.contestant}/{size}", params.runtime), []
    for setting in settings:
        tuning = setting.at(steps=math.ceil(batch.tuning_images / size), batch_size=size)
        for seed in batch.tuning_seeds:
            rows += runs.short(tuning, seed, f"tuning/{setting.learning_rate.initial:g}-{seed}")
    chosen = settings[0].at(best_rate(rows), steps=math.ceil(batch.images / size), batch_size=size)
    for seed in batch.seeds:
        rows += runs.short(chosen, seed, f"{seed}")

    accuracies = ", ".join(f"{row.validation_accuracy:.2%}" for row in rows[-len(batch.seeds) :])
    runs.finish(
        {Path("metrics", f"{runs.name}.csv"): to_csv(rows)},
        f"rate {chosen.learning_rate.initial:g}, validation accuracy {accuracies}",
    )


if __name__ == "__main__":
    run(main)
