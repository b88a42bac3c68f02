"""Stage `sweep` of the study: short trainings of one network at every rate, from every seed of the entry.

    python src/study_sweep.py plain

study/runs/sweep/<entry>.csv    one row per evaluation, see `bnstudy.engine.rows.SweepRow`
study/runs/sweep/<entry>.json   with what it was made: parameters, versions, machine
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from bnstudy import run
from bnstudy.engine.data import expect
from bnstudy.engine.history import History
from bnstudy.engine.network import build
from bnstudy.engine.rows import HistoryRow, SweepRow, to_csv
from bnstudy.engine.run import Run
from bnstudy.engine.schedule import When, geometric
from bnstudy.engine.training import tensors
from bnstudy.params import load_runtime
from bnstudy.study.crossing import IN_A_ROW
from bnstudy.study.params import load


def main() -> None:
    study = load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entry", choices=study.sweep, help="one of `sweep` in study/params.yaml")
    name = parser.parse_args().entry
    entry, evaluation = study.sweep[name], study.evaluation
    expect(study.data.sha256)

    sweep, rows = Run(f"study/sweep/{name}", load_runtime()), list[SweepRow]()
    images, validation = (tensors(split, sweep.device) for split in ("train", "validation"))
    grid = geometric(entry.steps, evaluation.first, evaluation.per_decade)
    # By averages less their start, and after the last update by moving averages too.
    when = When(coarse=[entry.steps], tested=[], fine=grid if entry.target else [], corrected=True)

    def end(evaluated: Sequence[HistoryRow]) -> bool:
        """No longer finite; or at the target in so many evaluations in a row that no later one counts."""
        last = [row.corrected_accuracy or 0.0 for row in evaluated[-IN_A_ROW:]]
        there = entry.target is not None and len(last) == IN_A_ROW and min(last) >= entry.target
        return there or not math.isfinite(evaluated[-1].train_loss)

    for rate in entry.learning_rates:
        arm = study.arm(entry, rate)
        for seed in entry.seeds:
            network = build(arm.network, seed, sweep.device)
            progress = sweep.progress(arm, f"{rate:g}-{seed}")
            history = History(network, arm, when, (images, validation, None), progress.evaluated, end=end)
            more = [evaluation.model_dump(), entry.target]
            sweep.train(network, arm, seed, images, [history], progress, more).save_rows()
            for row in history.rows:
                finite = math.isfinite(row.train_loss)
                found = (row.train_loss, row.validation_loss, row.validation_accuracy, row.corrected_accuracy)
                rows.append(SweepRow(seed, rate, row.step, int(not finite), *(found if finite else [None] * 4)))

    best = max((row for row in rows if not row.diverged), key=lambda row: row.corrected_accuracy or 0.0, default=None)
    path = Path("study/runs/sweep", f"{name}.csv")
    sweep.finish(
        {path: to_csv(rows), path.with_suffix(".json"): sweep.record(study.definition("sweep", name))},
        f"best validation accuracy {best.corrected_accuracy:.2%}, at the rate {best.learning_rate:g}"
        if best
        else "all diverged",
    )


if __name__ == "__main__":
    run(main)
