"""Stage `refine`: runs of one finalist at its rate times one factor, from the tuning seeds.

python src/refine.py without 1.8
"""

import argparse
from pathlib import Path

from bnstudy import run
from bnstudy.engine.rows import to_csv
from bnstudy.engine.run import Run
from bnstudy.params import Rate, argument, load
from bnstudy.settings import read_setting


def main() -> None:
    params = load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("finalist", choices=params.refine.finalists, help="one of `refine.finalists` in params.yaml")
    parser.add_argument("factor", type=argument(Rate), help="of the finalist's learning rate")
    arguments = parser.parse_args()
    finalist, factor = arguments.finalist, arguments.factor
    setting = read_setting(f"refine/{finalist}/{factor}")

    runs, rows = Run(f"refine/{finalist}/{factor}", params.runtime), []
    for seed in params.refine.seeds:
        rows += runs.short(setting, seed, f"{seed}")

    runs.finish(
        {Path("metrics", f"{runs.name}.csv"): to_csv(rows)},
        f"{setting.name} at the rate {setting.learning_rate.initial:g}: "
        f"last validation accuracy {rows[-1].validation_accuracy:.2%}",
    )


if __name__ == "__main__":
    run(main)
