"""Stage `train`: train one arm from one seed; keep its weights and its history.

python src/train.py note_plain 10
"""

import argparse
from pathlib import Path

from bnstudy import run
from bnstudy.engine.grid import evaluations, tested
from bnstudy.engine.models import to_bytes
from bnstudy.engine.network import build
from bnstudy.engine.rows import to_csv
from bnstudy.engine.run import Run
from bnstudy.engine.training import history
from bnstudy.params import Name, Seed, argument, load
from bnstudy.settings import read_setting


def main() -> None:
    params = load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", type=argument(Name), help="one of `study.arms` in params.yaml")
    parser.add_argument("seed", type=argument(Seed))
    arguments = parser.parse_args()
    arm, seed = arguments.arm, arguments.seed
    setting = read_setting(f"train/{arm}/{seed}")

    training = Run(f"train/{arm}/{seed}", params.runtime)
    checkpoint = training.checkpoint(training.name, setting.steps, [setting.model_dump(), seed])
    if params.runtime.tensorboard:
        checkpoint.progress.to_tensorboard()
    network = build(setting.network, seed, training.device)
    rows = history(network, setting, seed, checkpoint, evaluations(setting), tested(setting))

    training.finish(
        {
            Path("metrics", f"{training.name}.csv"): to_csv(rows),
            Path("models", f"{training.name}.safetensors"): to_bytes(
                network, arm, setting.network, seed, training.device
            ),
        },
        f"{setting.steps} updates, test accuracy {rows[-1].test_accuracy:.2%}",
    )


if __name__ == "__main__":
    run(main)
