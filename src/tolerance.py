"""Stage `tolerance`: short runs of one network of the contest at every learning rate, from one seed.

python src/tolerance.py with 10
"""

import argparse
from pathlib import Path

from bnstudy import run
from bnstudy.engine.rows import to_csv
from bnstudy.engine.run import Run
from bnstudy.params import Seed, argument, load
from bnstudy.settings import read_setting


def main() -> None:
    params = load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contestant", choices=params.tolerance.contestants, help="without or with batch norm")
    parser.add_argument("seed", type=argument(Seed))
    arguments = parser.parse_args()
    setting = read_setting(f"contest/{arguments.contestant}")

    runs, rows = Run(f"tolerance/{arguments.contestant}/{arguments.seed}", params.runtime), []
    for rate in params.tolerance.learning_rates:
        rows += runs.short(setting.at(rate), arguments.seed, f"{rate}")

    accuracies = ", ".join(f"{row.validation_accuracy:.2%}" for row in rows)
    runs.finish({Path("metrics", f"{runs.name}.csv"): to_csv(rows)}, f"validation accuracy {accuracies}")


if __name__ == "__main__":
    run(main)
