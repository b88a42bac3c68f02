"""Stage `summarize`: every run of the study as a few files, a headline table, and the verdict on each claim.

metrics/summary/*.json    one file per variant, which `dvc metrics show` shows, see `bnstudy.analysis.headline`
metrics/claims.json       the nine claims with what decides them, see `bnstudy.analysis.claim`
metrics/environment.json  on what and with what the runs were trained
plots/curves.csv          one row per variant, seed and recorded step: the histories
plots/confusion.csv       one row per variant, actual and predicted digit: test images, summed over the seeds
plots/warmup.csv          one row per seed, step, kind of statistics and decay
plots/sweep.csv           one row per variant, learning rate or batch size, and seed
"""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bnstudy import run
from bnstudy.analysis import headline
from bnstudy.analysis.claim import Results, Runs, write_findings
from bnstudy.analysis.claims import CLAIMS
from bnstudy.analysis.claims.sweep import best_rate, decades_that_work
from bnstudy.files import forget_finished, write
from bnstudy.params import Study, Summarize, Sweep, Warmup, load
from bnstudy.records import Run, read_histories, read_runs, read_sweep, read_warmup, to_json


def confusion(variant: str, runs: list[Run]) -> pd.DataFrame:
    """100 rows: variant, actual, predicted, count (of test images, over all seeds), share (of the actual digit's)."""
    counts_AP = np.sum([record.confusion for record in runs], axis=0)
    actual, predicted = np.indices((10, 10))
    share_AP = counts_AP / np.maximum(counts_AP.sum(axis=1, keepdims=True), 1)
    columns = {"actual": actual, "predicted": predicted, "count": counts_AP, "share": share_AP}
    table = pd.DataFrame({name: column.ravel() for name, column in columns.items()})
    table.insert(0, "variant", variant)
    return table


def environments(runs: Runs) -> list[dict[str, Any]]:
    """One entry per environment in which runs were trained, with the names of these runs, and one for this process."""
    trained: dict[str, list[str]] = {}
    for variant, records in runs.items():
        for record in records:
            trained.setdefault(json.dumps(record.environment), []).append(f"{variant}-{record.seed}")
    entries = [{"stage": "train", **json.loads(facts), "runs": names} for facts, names in trained.items()]
    packages = {name: version(name) for name in ("dvc", "numpy", "scipy", "pandas")}
    return [*entries, {"stage": "summarize", "python": platform.python_version(), **packages}]


def summarize_runs(runs: Runs, results: Results) -> dict[str, headline.Summary]:
    """The summary of each variant, with what the sweep says of its learning rates."""
    confidence, settings = results.rules.confidence, results.settings
    summaries = {variant: headline.summarized(records, confidence) for variant, records in runs.items()}
    for variant in [variant for variant in runs if variant in settings.variants and len(settings.learning_rates) > 1]:
        widths = headline.mean(decades_that_work(variant, results.sweep, settings), confidence)
        swept = {"best_rate": best_rate(variant, results.sweep), "decades_that_work": widths}
        summaries[variant] = summaries[variant].model_copy(update=swept)
    return summaries


def write_table(name: str, table: pd.DataFrame) -> None:
    """`plots/<name>.csv`, fractions and losses to 6 significant digits."""
    write(Path("plots", f"{name}.csv"), table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())


def summarize_study(study: Study, rules: Summarize, warmup: Warmup, sweep: Sweep) -> None:
    """Write the metrics and the tables, and print the headline table with one line per claim."""
    runs = read_runs(study)
    results = Results(
        curves=read_histories(study),
        warmup=read_warmup(warmup),
        sweep=read_sweep(sweep),
        targets=sorted(runs[study.variants[0]][0].steps_to),
        averaged=warmup.variant,
        settings=sweep,
        rules=rules,
    )
    claims = [(claim, claim.judge(results, runs)) for claim in CLAIMS]
    summaries = summarize_runs(runs, results)

    headline.write_summaries(summaries)
    write_findings([finding for _, finding in claims])
    write(Path("metrics/environment.json"), to_json(environments(runs)))
    write_table("curves", results.curves)
    write_table("confusion", pd.concat(confusion(variant, records) for variant, records in runs.items()))
    write_table("warmup", results.warmup)
    write_table("sweep", results.sweep)
    for stage in ("warmup", "sweep"):
        forget_finished(stage)
    print(headline.text_headline(summaries, claims))


def main() -> None:
    params = load()
    summarize_study(params.study, params.summarize, params.warmup, params.sweep)


if __name__ == "__main__":
    run(main)
