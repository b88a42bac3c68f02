"""Stage `averages` of the study: train a network with batch norm; follow and evaluate averages of many decays.

    python src/study_averages.py note_batch_norm 22

study/runs/averages/<network>/<seed>.csv           by each kind of statistics, see `bnstudy.engine.rows.AveragesRow`
study/runs/averages/<network>/<seed>.history.csv   the history by the averages of the network's own decay
study/runs/averages/<network>/<seed>.json          with what it was made: parameters, versions, machine
study/models/<network>/<seed>.safetensors          the weights, for `mechanism`
"""

import argparse
from pathlib import Path

from bnstudy import run
from bnstudy.engine.averages import Averages, set_statistics
from bnstudy.engine.data import expect
from bnstudy.engine.history import History
from bnstudy.engine.models import to_bytes
from bnstudy.engine.network import build
from bnstudy.engine.rows import to_csv
from bnstudy.engine.run import Run
from bnstudy.engine.schedule import ages, moments, when
from bnstudy.engine.training import tensors
from bnstudy.params import Seed, argument, load_runtime
from bnstudy.study.params import load


def main() -> None:
    study = load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=study.averages, help="one of `averages` in study/params.yaml")
    parser.add_argument("seed", type=argument(Seed))
    arguments = parser.parse_args()
    name, seed = arguments.network, arguments.seed
    defined = study.averages[name]
    arm, other = study.arm(defined, defined.learning_rate), defined.other_starts
    expect(study.data.sha256)

    training = Run(f"study/averages/{name}/{seed}", load_runtime())
    images, validation, test = (tensors(split, training.device) for split in ("train", "validation", "test"))
    # With decay 0 its own averages are the last batch's statistics, which those of every decay follow.
    network = build(arm.network.model_copy(update={"decay": 0.0}), seed, training.device)
    noted = moments(study.evaluation, arm.steps)
    spans = {
        decay: [*defined.ages, *(other.ages if other and decay in other.decays else [])] for decay in defined.decays
    }
    averages = Averages(
        network,
        arm,
        seed,
        when={decay: {*ages(decay, arm.steps, spans[decay]), *noted} for decay in defined.decays},
        moments=noted,
        images=(validation[0][: defined.images], validation[1][: defined.images]),
        precise_NHW=images[0][: defined.precise_images],
        other_starts=other.decays if other else (),
        start_variances=other.variances if other else (),
    )
    progress = training.progress(arm)
    history = History(
        network, arm, when(study.evaluation, arm.steps), (images, validation, test), progress.evaluated, averages.own
    )

    more = [study.evaluation.model_dump(), defined.model_dump()]
    training.train(network, arm, seed, images, [averages, history], progress, more)

    set_statistics(network, averages.own())
    path = Path("study/runs/averages", name, f"{seed}.csv")
    training.finish(
        {
            Path("study/models", name, f"{seed}.safetensors"): to_bytes(network, name, arm, seed, training.device),
            path: to_csv(averages.rows),
            path.with_suffix(".history.csv"): to_csv(history.rows),
            path.with_suffix(".json"): training.record(study.definition("averages", name)),
        },
        f"{arm.steps} updates, test accuracy {history.rows[-1].test_accuracy:.2%}",
    )


if __name__ == "__main__":
    run(main)
