"""Stage `warmup`: train one variant with the moving averages of many decays; measure how far each lags.

python src/warmup.py 0
"""

import argparse
from pathlib import Path

from bnstudy import run
from bnstudy.engine.averages import lags
from bnstudy.engine.network import build
from bnstudy.engine.rows import to_csv
from bnstudy.engine.run import Run
from bnstudy.engine.training import at_rate
from bnstudy.params import Seed, argument, load


def main() -> None:
    params = load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seed", type=argument(Seed))
    seed, warmup, name = parser.parse_args().seed, params.warmup, params.warmup.variant
    variant, train = params.variants[name], at_rate(params.train, params.rates[name])

    training = Run(f"warmup/{seed}", params.runtime)
    determinants = [variant.model_dump(), train.model_dump(), warmup.model_dump(exclude={"seeds"}), seed]
    checkpoint = training.checkpoint(training.name, warmup.steps, determinants)
    network = build(variant.model_copy(update={"decay": 0.0}), seed, training.device)
    rows = lags(network, train, warmup, seed, checkpoint)

    training.finish(
        {Path("metrics/warmup", name, f"{seed}.csv"): to_csv(rows)},
        f"{warmup.steps} updates, test accuracy by precise statistics {rows[-1].test_accuracy:.2%}",
    )


if __name__ == "__main__":
    run(main)
