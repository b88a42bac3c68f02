"""Stage `sweep`: short runs of one network at every learning rate, from the tuning seeds.

python src/sweep.py plain
"""

import argparse
from pathlib import Path

from bnstudy import run
from bnstudy.engine.rows import to_csv
from bnstudy.engine.run import Run
from bnstudy.params import load
from bnstudy.settings import read_setting


def main() -> None:
    params = load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=params.sweep.networks, help="one of `sweep.networks` in params.yaml")
    name = parser.parse_args().network
    setting = read_setting(f"sweep/{name}")

    runs, rows = Run(f"sweep/{name}", params.runtime), []
    for rate in params.sweep.learning_rates:
        for seed in params.sweep.seeds:
            rows += runs.short(setting.at(rate), seed, f"{rate}-{seed}")

    best = max(rows, key=lambda row: row.validation_accuracy)
    runs.finish(
        {Path("metrics", f"{runs.name}.csv"): to_csv(rows)},
        f"best validation accuracy {best.validation_accuracy:.2%}, at the rate {best.learning_rate:g}",
    )


if __name__ == "__main__":
    run(main)
