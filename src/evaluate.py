"""Stage `evaluate`: hold the runs against the rules; tidy tables, one summary per arm, and the verdict on each claim.

metrics/claims.json       the nine claims with what decides them, see `bnstudy.analysis.claim`
metrics/summary/*.json    one file per arm, which `dvc metrics show` shows
metrics/environment.json  on what and with what the runs were made
plots/curves.csv          the history of each arm and seed; `note_batch_norm` are the runs that carry the averages
plots/dip.csv             accuracy by the averages of each decay, less that by precise statistics; over the seeds
plots/mechanism.csv       accuracy of finished networks with a part of the start mixed in; over the seeds
plots/ladder.csv          accuracy of each rung, and what changed from the one that it is compared with
plots/rates.csv           the sweep; tolerance.csv: the contest's networks at each rate
plots/batch.csv           the contest's networks at each batch size
"""

import json
import math
import platform
from importlib.metadata import version
from itertools import product
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd

from bnstudy import run
from bnstudy.analysis import headline
from bnstudy.analysis.claim import CLAIMS_FILE, Results, judge
from bnstudy.analysis.claims import CLAIMS, at_step, distance, paired
from bnstudy.analysis.inference import estimate
from bnstudy.files import forget_finished, write
from bnstudy.params import AVERAGES_ARM, Batch, Params, load
from bnstudy.records import (
    read_averages,
    read_averages_histories,
    read_batch,
    read_environment,
    read_histories,
    read_mechanism,
    read_sweep,
    read_tolerance,
)
from bnstudy.settings import SETTINGS, read_json, read_setting, to_json
from bnstudy.tuning import Choices, edge_of

PATH = {  # from the note's network to the tuned batch norm; each rung is compared with the last one before it
    "note_plain": "The note's network without batch norm",
    "plain_own_rate": "Its own rate",
    "baseline": "The best initial weights, tuned",
    "same_rate": "Batch norm, same rate",
    "own_rate": "Batch norm, its own rate",
    "everywhere": "Batch norm of the logits too",
}
ASIDE = {"he": "He's initial weights", "he_ramp": "… and the rate ramped up"}  # compared with the first rung


def over_seeds(table: pd.DataFrame, keys: list[str], column: str) -> pd.DataFrame:
    """Mean, least and most of `column` over the seeds, for each value of `keys`."""
    found = table.groupby(keys, sort=False)[column].agg(["count", "mean", "min", "max"])
    return found.rename(columns={"count": "seeds", "mean": column, "min": "low", "max": "high"})


def dip_table(averages: pd.DataFrame) -> pd.DataFrame:
    precise = averages[averages["statistics"] == "precise"].set_index(["seed", "step"])["accuracy"]
    table = averages[averages["decay"].between(0, 1, inclusive="neither")].copy()
    at = pd.MultiIndex.from_frame(table[["seed", "step"]])
    table["difference"] = table["accuracy"] - precise.reindex(at).to_numpy()
    table["distance"] = distance(table)
    keys = ["statistics", "decay", "step"]
    found = over_seeds(table, keys, "difference")
    found["distance"] = table.groupby(keys, sort=False)["distance"].mean()
    found = found.reset_index()
    found.insert(3, "age", [-math.log(decay) * step for decay, step in zip(found["decay"], found["step"], strict=True)])
    return found


def mechanism_table(mechanism: pd.DataFrame) -> pd.DataFrame:
    keys = ["where", "what", "start_weight"]
    start = mechanism[mechanism["start_weight"] == 0].set_index(["seed", "where", "what"])["accuracy"]
    at = pd.MultiIndex.from_frame(mechanism[["seed", "where", "what"]])
    table = mechanism.assign(difference=mechanism["accuracy"] - start.reindex(at).to_numpy())
    found = over_seeds(table, keys, "difference")
    found.insert(1, "accuracy", table.groupby(keys, sort=False)["accuracy"].mean())
    return found.reset_index()


def ladder_table(results: Results) -> pd.DataFrame:
    after, rows, last = results.params.rules.after, list[tuple[Any, ...]](), ""
    for rung, label in (PATH | ASIDE).items():
        accuracies = at_step(results, rung, after)
        if accuracies.empty:
            continue
        base = last if rung in PATH else "note_plain"
        pairs = paired(results, rung, base)
        found = estimate(pairs) if pairs else None
        rate = read_setting(f"train/{rung}/{results.params.study.seeds[0]}").learning_rate.initial
        change = (found.value, found.low, found.high) if found else (None, None, None)
        row = (rung, f"{label} ({rate:g})", base if found else "", len(accuracies), accuracies.mean())
        rows.append((*row, *change, int(rung in ASIDE)))
        last = rung if rung in PATH else last
    columns = ["rung", "label", "from", "seeds", "accuracy", "change", "low", "high", "side"]
    return pd.DataFrame(rows, columns=columns).replace([np.inf, -np.inf], np.nan)


def batch_table(table: pd.DataFrame, batch: Batch) -> pd.DataFrame:
    """The judged runs of each batch size. `edge`: their rate is the lowest or highest of those tried at this size."""
    cells = []
    for _, rows in table.groupby(["contestant", "batch_size"], sort=False):
        judged, tuning = (rows[rows["seed"].isin(seeds)] for seeds in (batch.seeds, batch.tuning_seeds))
        edge = edge_of(judged["learning_rate"].iloc[0], tuning["learning_rate"])
        cells.append(judged.assign(edge=edge or ""))
    return pd.concat(cells)[["contestant", "batch_size", "learning_rate", "seed", "validation_accuracy", "edge"]]


def environments(params: Params) -> list[dict[str, Any]]:
    """One entry per environment in which runs were made, with the names of these runs, and one for this process."""
    seeds = params.study.seeds
    runs = [
        *product(["sweep"], params.sweep.networks),
        *product(["refine"], params.refine.finalists, params.refine.factors),
        *product(["train"], params.study.arms, seeds),
        *product(["averages"], seeds),
        *product(["mechanism"], params.mechanism.seeds),
        *product(["tolerance"], params.tolerance.contestants, seeds),
        *product(["batch"], params.batch.contestants, params.batch.sizes),
    ]
    made: dict[str, list[str]] = {}
    for name in ("/".join(map(str, parts)) for parts in runs):
        made.setdefault(json.dumps(read_environment(name)), []).append(name)
    entries = [{"stage": "runs", **json.loads(facts), "runs": names} for facts, names in made.items()]
    packages = {name: version(name) for name in ("dvc", "numpy", "pandas")}
    return [*entries, {"stage": "evaluate", "python": platform.python_version(), **packages}]


def write_table(name: str, table: pd.DataFrame) -> None:
    """`plots/<name>.csv`, fractions and losses to 6 significant digits."""
    write(Path("plots", f"{name}.csv"), table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())


def main() -> None:
    params = load()
    averages, sweep = read_averages(params.averages, params.study), read_sweep(params.sweep)
    tolerance, mechanism = read_tolerance(params.tolerance, params.study), read_mechanism(params.mechanism)
    batch = read_batch(params.batch)
    carried = read_averages_histories(params.study).assign(arm=AVERAGES_ARM)
    curves = pd.concat([read_histories(params.study), carried], ignore_index=True)
    results = Results(curves, averages, tolerance, sweep, read_json(SETTINGS / "choices.json", Choices), params)
    findings = judge(CLAIMS, results)
    made = environments(params)

    headline.write_summaries(results)
    write(CLAIMS_FILE, to_json([finding.model_dump() for finding in findings]))
    write(Path("metrics/environment.json"), to_json(made))
    write_table("curves", curves)
    dip, ladder = dip_table(averages), ladder_table(results)
    write_table("dip", dip)
    write_table("mechanism", mechanism_table(mechanism))
    write_table("ladder", ladder)
    rates = ["learning_rate", "seed", "diverged", "validation_accuracy"]
    write_table("rates", sweep[["network", *rates]])
    write_table("tolerance", tolerance[["contestant", *rates]])
    write_table("batch", batch_table(batch, params.batch))
    for stage in ("sweep", "refine", "train", "averages", "mechanism", "tolerance", "batch"):
        forget_finished(stage)
    shown = [*headline.ladder_lines(ladder, params.rules.after), "", *headline.dip_lines(dip)]
    print("\n".join([*shown, "", *headline.lines(findings), "", fill(headline.result(findings), 118)]))


if __name__ == "__main__":
    run(main)
