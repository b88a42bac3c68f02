"""Stage `averages`: train the note's network with batch norm, with the moving averages of many decays beside it.

python src/averages.py 10
"""

import argparse
from pathlib import Path

from bnstudy import run
from bnstudy.engine.averages import Carried
from bnstudy.engine.grid import evaluations, tested
from bnstudy.engine.models import to_bytes
from bnstudy.engine.network import build
from bnstudy.engine.rows import to_csv
from bnstudy.engine.run import Run
from bnstudy.engine.training import history
from bnstudy.params import Seed, argument, load
from bnstudy.settings import read_setting


def main() -> None:
    params = load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seed", type=argument(Seed))
    seed, averages = parser.parse_args().seed, params.averages
    setting = read_setting(f"averages/{seed}")

    training = Run(f"averages/{seed}", params.runtime)
    determinants = [setting.model_dump(), averages.model_dump(include={"decays", "images", "precise_images"}), seed]
    checkpoint = training.checkpoint(training.name, setting.steps, determinants)
    if params.runtime.tensorboard:
        checkpoint.progress.to_tensorboard()
    network = build(setting.network.model_copy(update={"decay": 0.0}), seed, training.device)
    carried = Carried(network, setting, averages, seed)
    rows = history(network, setting, seed, checkpoint, evaluations(setting), tested(setting), carried)

    training.finish(
        {
            Path("metrics/averages", f"{seed}.csv"): to_csv(carried.rows),
            Path("metrics/averages/history", f"{seed}.csv"): to_csv(rows),
            Path("models/averages", f"{seed}.safetensors"): to_bytes(
                network, "averages", setting.network, seed, training.device
            ),
        },
        f"{setting.steps} updates, test accuracy {rows[-1].test_accuracy:.2%}",
    )


if __name__ == "__main__":
    run(main)
