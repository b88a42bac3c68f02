"""Stage `train`: train one model from one seed.

    python src/train.py batch_norm 10

models/<model>/<seed>.safetensors   the weights
curves/<model>/<seed>.csv           loss and accuracy on the last batch, the validation and the test split

300 updates take two minutes on one core of a laptop. Ctrl-C keeps what is done; the same command goes on.
"""

import argparse
from pathlib import Path

from bnstudy import run
from bnstudy.engine.history import History, refuse_divergence
from bnstudy.engine.models import to_bytes
from bnstudy.engine.network import build
from bnstudy.engine.rows import to_csv
from bnstudy.engine.run import Run
from bnstudy.engine.schedule import When, geometric
from bnstudy.engine.training import tensors
from bnstudy.params import Seed, argument, load

NOT_HERE = ("corrected_loss", "corrected_accuracy")  # the study's


def main() -> None:
    params = load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=params.models, help="one of `models` in params.yaml")
    parser.add_argument("seed", type=argument(Seed))
    arguments = parser.parse_args()
    model, seed, arm = arguments.model, arguments.seed, params.arm(arguments.model)

    training = Run(f"train/{model}/{seed}", params.runtime)
    images, validation, test = (tensors(split, training.device) for split in ("train", "validation", "test"))
    network = build(arm.network, seed, training.device)
    evaluated = geometric(arm.steps, 1, params.train.evaluations_per_decade)
    progress = training.progress(arm)
    when, splits = When(evaluated, evaluated), (images, validation, test)
    history = History(network, arm, when, splits, progress.evaluated, end=refuse_divergence)

    training.train(network, arm, seed, images, [history], progress, more=evaluated)

    training.finish(
        {
            Path("models", model, f"{seed}.safetensors"): to_bytes(network, model, arm, seed, training.device),
            Path("curves", model, f"{seed}.csv"): to_csv(history.rows, NOT_HERE),
        },
        f"{arm.steps} updates, test accuracy {history.rows[-1].test_accuracy:.2%}",
    )


if __name__ == "__main__":
    run(main)
