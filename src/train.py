"""Stage `train`: train one variant from one seed; keep its weights and its history.

python src/train.py batch_norm 0
"""

import argparse
from pathlib import Path

from bnstudy import run
from bnstudy.engine.models import to_bytes
from bnstudy.engine.network import build
from bnstudy.engine.rows import to_csv
from bnstudy.engine.run import Run
from bnstudy.engine.training import at_rate, history
from bnstudy.params import Seed, argument, load


def main() -> None:
    params = load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", choices=params.variants, help="a name under `variants` in params.yaml")
    parser.add_argument("seed", type=argument(Seed))
    arguments = parser.parse_args()
    name, seed = arguments.variant, arguments.seed
    variant, train = params.variants[name], at_rate(params.train, params.rates[name])

    training = Run(f"train/{name}/{seed}", params.runtime)
    checkpoint = training.checkpoint(training.name, train.steps, [variant.model_dump(), train.model_dump(), seed])
    network = build(variant, seed, training.device)
    rows = history(network, train, seed, checkpoint)

    training.finish(
        {
            Path("metrics/history", name, f"{seed}.csv"): to_csv(rows),
            Path("models", name, f"{seed}.safetensors"): to_bytes(network, name, variant, seed, training.device),
        },
        f"{train.steps} updates, test accuracy {rows[-1].test_accuracy:.2%}",
    )


if __name__ == "__main__":
    run(main)
