"""Stage `summarize`: every run of the study as a few files, a headline table, and the verdict on each claim.

metrics/summary.json      a variant: mean and interval over its seeds, and steps to each target accuracy
metrics/claims.json       the nine claims with what decides them, see `bnstudy.claims`
metrics/environment.json  on what and with what the runs were trained
plots/curves.csv          a row a variant, seed and recorded step: the histories
plots/confusion.csv       a row a variant, actual and predicted digit: test images, summed over the seeds
plots/warmup.csv          a row a seed, step, kind of statistics and decay
plots/sweep.csv           a row a variant, learning rate or batch size, and seed

Only what the parameters name is read: files of removed variants and seeds may still lie beside theirs.
"""

import json
import math
import platform
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from bnstudy.claims import Claim, best_rate, decades_that_work, digits, judge, percent
from bnstudy.params import Study, Summarize, Sweep, Warmup, load
from bnstudy.stage import forget_finished, run, write
from bnstudy.tables import Run, read_histories, read_runs, read_sweep, read_warmup


def interval(values: list[float], confidence: float) -> dict[str, float | None]:
    """Mean of `values` and Student's t interval of it; `low` and `high` are None where there is one value."""
    count, mean = len(values), float(np.mean(values))
    if count == 1:
        return {"mean": digits(mean), "low": None, "high": None}
    half = float(t.ppf((1 + confidence) / 2, count - 1)) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return {"mean": digits(mean), "low": digits(mean - half), "high": digits(mean + half)}


def reached(steps: list[int | None]) -> dict[str, float | None]:
    """How many runs reached a target, and the median of their steps; None where it falls on one that never did."""
    middle = median(math.inf if step is None else step for step in steps)
    return {"median": None if math.isinf(middle) else middle, "reached": sum(step is not None for step in steps)}


def summary(runs: list[Run], confidence: float) -> dict[str, Any]:
    """What `metrics/summary.json` says of one variant. The targets are the keys of `steps_to`, here in percent."""
    return {
        "runs": len(runs),
        **{
            name: interval([getattr(record, name) for record in runs], confidence)
            for name in ("test_accuracy", "test_loss")
        },
        "steps_to": {
            percent(target): reached([record.steps_to[target] for record in runs]) for target in runs[0].steps_to
        },
    }


def confusion(variant: str, runs: list[Run]) -> pd.DataFrame:
    """100 rows: variant, actual, predicted, count (of test images, over all seeds), share (of the actual digit's)."""
    counts_AP = np.sum([record.confusion for record in runs], axis=0)
    actual, predicted = np.indices((10, 10))
    share_AP = counts_AP / np.maximum(counts_AP.sum(axis=1, keepdims=True), 1)
    columns = {"actual": actual, "predicted": predicted, "count": counts_AP, "share": share_AP}
    table = pd.DataFrame({name: column.ravel() for name, column in columns.items()})
    table.insert(0, "variant", variant)
    return table


def environments(runs: dict[str, list[Run]]) -> list[dict[str, Any]]:
    """An entry an environment in which runs were trained, with their names, and one for this process.

    A list, since `dvc metrics show` would take the values of a mapping for metrics.
    """
    trained: dict[str, list[str]] = {}
    for variant, records in runs.items():
        for record in records:
            trained.setdefault(json.dumps(record.environment), []).append(f"{variant}-{record.seed}")
    entries = [{"stage": "train", **json.loads(facts), "runs": names} for facts, names in trained.items()]
    packages = {name: version(name) for name in ("dvc", "torchvision", "numpy", "scipy", "pandas")}
    return [*entries, {"stage": "summarize", "python": platform.python_version(), **packages}]


def to_json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def to_csv(table: pd.DataFrame) -> bytes:
    """`table`, its fractions and losses to 6 significant digits."""
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()


def headline(summaries: dict[str, dict[str, Any]], confidence: float) -> str:
    """A line a variant: test accuracy with its interval, and the median step at which each target was reached."""
    rows = []
    for variant, values in summaries.items():
        accuracy = values["test_accuracy"]
        low, high = accuracy["low"], accuracy["high"]
        cells = {
            "variant": variant,
            "test accuracy": f"{accuracy['mean']:.2%}",
            f"{percent(confidence)} interval": "one seed" if low is None else f"{low:.2%} to {high:.2%}",
        }
        for target, steps in values["steps_to"].items():
            count, middle = steps["reached"], steps["median"]
            some = f" ({count} of {values['runs']} runs)" if 0 < count < values["runs"] else ""
            cells[f"steps to {target}"] = (f"{middle:.10g}" if middle is not None else "-" if count else "never") + some
        rows.append(cells)
    return pd.DataFrame(rows).to_string(index=False)


def short(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def claim_line(claim: Claim) -> list[str]:
    """Number, claim, verdict, and the estimate of the first part with that verdict."""
    line = [str(claim["id"]), claim["claim"], claim["verdict"]]
    for part in claim["parts"]:
        if part["verdict"] == claim["verdict"]:
            bound = "" if part["bound"] in ("exact", "none") else f"{part['bound']} "
            value, low, high = (short(part[name]) for name in ("estimate", "low", "high"))
            return [*line, f"{part['quantity']} {bound}{value} ({low} to {high}), {part['part']}"]
    return line


def summarize_study(study: Study, summarize: Summarize, warmup: Warmup, sweep: Sweep) -> None:
    """Write three files of metrics and four tables, and print the headline table and a line a claim."""
    runs, curves = read_runs(study), read_histories(study)
    averages, settings = read_warmup(warmup), read_sweep(sweep)
    claims = judge(runs, curves, averages, warmup.variant, settings, sweep, summarize)
    summaries = {variant: summary(records, summarize.confidence) for variant, records in runs.items()}
    for variant in [variant for variant in runs if variant in sweep.variants and len(sweep.learning_rates) > 1]:
        widths = interval(decades_that_work(variant, settings, sweep), summarize.confidence)
        summaries[variant] |= {"best_rate": best_rate(variant, settings), "decades_that_work": widths}
    write(Path("metrics/summary.json"), to_json(summaries))
    write(Path("metrics/claims.json"), to_json(claims))
    write(Path("metrics/environment.json"), to_json(environments(runs)))
    write(Path("plots/curves.csv"), to_csv(curves))
    write(
        Path("plots/confusion.csv"), to_csv(pd.concat(confusion(variant, records) for variant, records in runs.items()))
    )
    write(Path("plots/warmup.csv"), to_csv(averages))
    write(Path("plots/sweep.csv"), to_csv(settings))
    for stage in ("warmup", "sweep"):
        forget_finished(stage)
    lines = [claim_line(claim) for claim in claims]
    width = max(len(line[1]) for line in lines)
    print(headline(summaries, summarize.confidence), end="\n\n")
    for number, text, verdict, *estimate in lines:
        print(" ".join([number, text.ljust(width), verdict.ljust(12), *estimate]).rstrip())


def main() -> None:
    params = load()
    summarize_study(params.study, params.summarize, params.warmup, params.sweep)


if __name__ == "__main__":
    run(main)
