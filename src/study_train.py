"""Stages `train` and `long` of the study: train one arm from one seed.

    python src/study_train.py note_plain 22

study/runs/train/<arm>/<seed>.csv    its history, see `bnstudy.engine.rows.HistoryRow`; of a long arm study/runs/long/…
study/runs/train/<arm>/<seed>.json   with what it was made: parameters, versions, machine
"""

import argparse
from pathlib import Path

from bnstudy import run
from bnstudy.engine.data import expect
from bnstudy.engine.history import History
from bnstudy.engine.network import build
from bnstudy.engine.rows import to_csv
from bnstudy.engine.run import Run
from bnstudy.engine.schedule import when
from bnstudy.engine.training import tensors
from bnstudy.params import Seed, argument, load_runtime
from bnstudy.study.params import load


def main() -> None:
    study = load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=[*study.arms, *study.long.arms], help="an arm of study/params.yaml")
    parser.add_argument("seed", type=argument(Seed))
    arguments = parser.parse_args()
    name, seed = arguments.arm, arguments.seed
    stage, defined = ("train", study.arms[name]) if name in study.arms else ("long", study.long.arms[name])
    arm = study.arm(defined, defined.learning_rate)
    expect(study.data.sha256)

    training = Run(f"study/{stage}/{name}/{seed}", load_runtime())
    images, validation, test = (tensors(split, training.device) for split in ("train", "validation", "test"))
    network = build(arm.network, seed, training.device)
    evaluated = when(study.evaluation, arm.steps)
    progress = training.progress(arm)
    history = History(network, arm, evaluated, (images, validation, test), progress.evaluated)

    training.train(network, arm, seed, images, [history], progress, more=study.evaluation.model_dump())

    path = Path("study/runs", stage, name, f"{seed}.csv")
    training.finish(
        {path: to_csv(history.rows), path.with_suffix(".json"): training.record(study.definition(stage, name))},
        f"{arm.steps} updates, test accuracy {history.rows[-1].test_accuracy:.2%}",
    )


if __name__ == "__main__":
    run(main)
