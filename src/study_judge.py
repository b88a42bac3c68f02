"""Stage `judge` of the study: hold the runs against the rules; tidy tables, and the verdict on each claim.

    python src/study_judge.py

Reads study/runs/, no weights and no images. Imports no PyTorch. The same runs give the same bytes. Fractions and losses
to 6 significant digits; an empty cell: unknown, as the ends of an interval of fewer than 6 seeds. All below study/:

metrics/claims.json        list of `bnstudy.study.claim.Finding`, the twelve claims in order
metrics/summary/<arm>.json test_accuracy, test_loss: mean over the seeds after the arm's last update; updates_to_95,
                           updates_to_98: geometric mean of interpolated times by validation accuracy, averages less
                           their start; absent where a seed never got there
metrics/environment.json   list of {torch, numpy, numba, llvmlite, machine, processor, device, gpu, threads,
                           deterministic, runs}: with what and on what the named runs were made; the last one, {python,
                           numpy, pandas, mixed_seeds}, of this stage: mixed_seeds were made on two kinds of machines

plots/curves.csv     arm, seed, and the columns of a history (`engine.rows.HistoryRow`); of arms, of the networks whose
                     averages are followed, and of the long arms
plots/dip.csv        network (note_batch_norm | standardized), statistics (moving | corrected | means_corrected), decay,
                     start_variance (1; 10 or 0.1: moving averages had they started there), step, age (-step * ln
                     decay), start_weight (decay ** step), seeds; over the seeds, of accuracy minus that by precise
                     statistics: difference (mean), low, high (least and most of a seed); loss_difference (mean);
                     conv1_variance, conv2_variance: mean precise variances at that step
plots/theory.csv     network, start_variance, conv1_variance, conv2_variance (v1 and v2, medians over seeds and moments
                     of the dip), age, start_weight, excess: O(r) of `study.theory`, at 200 ages from 0.02 to 10
plots/ladder.csv     rung, label, from, seeds, accuracy (validation, averages less their start, after
                     `rules.ladder.after` updates), change (from rung `from`), low, high (96% interval), side (1: beside
                     the ladder)
plots/rates.csv      entry, learning_rate, seed, diverged, accuracy (validation, averages less their start, after the
                     last update), updates_to_98 (where 98% was reached, interpolated), best (1: the entry's best rate
                     by its criterion, mean over the seeds)
plots/mechanism.csv  where, what, start_weight, seeds, accuracy, difference (from start_weight 0), low, high
"""

import json
import math
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bnstudy import run
from bnstudy.files import forget_finished, whole_folder, write
from bnstudy.study import theory
from bnstudy.study.claim import MARKS, digits, judge
from bnstudy.study.claims import CLAIMS, NOTE, STANDARDIZED, times
from bnstudy.study.crossing import crossing, geometric_mean
from bnstudy.study.params import Entry, Study, load
from bnstudy.study.records import Results, read_environments, read_results
from bnstudy.study.statistics import estimate

STUDY = Path("study")
LADDER = {  # from the note's network to tuned batch norm; each rung is compared with the last one before it
    "note_plain": "the note's network without batch norm",
    "plain_own_rate": "its own rate",
    "baseline": "He's initial weights, tuned",
    "same_rate": "batch norm on all layers but the last, same rate",
    "own_rate": "its own rate",
    "everywhere": "on the last layer too",
}
ASIDE = {"he": "He's initial weights", "he_ramp": "and the rate ramped up"}  # compared with the first rung
LINES = [(NOTE, 1.0), (NOTE, 10.0), (NOTE, 0.1), (STANDARDIZED, 1.0)]
MACHINE = ("machine", "processor", "device", "gpu", "threads", "torch", "numpy", "numba", "llvmlite")
DIP = [
    *("network", "statistics", "decay", "start_variance", "step", "age", "start_weight", "seeds", "difference", "low"),
    *("high", "loss_difference", "conv1_variance", "conv2_variance"),
]
VARIANCES = ["conv1_variance", "conv2_variance"]


def dip_table(averages: pd.DataFrame) -> pd.DataFrame:
    """One row per network, statistics, start, decay and step: over the seeds, accuracy minus that by precise ones."""
    runs = ["network", "seed", "step"]
    precise = averages[averages["statistics"] == "precise"][[*runs, "accuracy", "loss", *VARIANCES]]
    table = averages[averages["decay"].between(0, 1, inclusive="neither")].drop(columns=VARIANCES)
    table = table.merge(precise, on=runs, suffixes=("", "_precise"))
    start = table["statistics"].str.extract(r"^start_(.*)$")[0].astype(float)
    table["start_variance"] = start.fillna(1.0)
    table["statistics"] = table["statistics"].where(start.isna(), "moving")
    table["difference"] = table["accuracy"] - table["accuracy_precise"]
    table["loss_difference"] = table["loss"] - table["loss_precise"]
    grouped = table.groupby(["network", "statistics", "decay", "start_variance", "step"], sort=False)
    found = grouped["difference"].agg(["count", "mean", "min", "max"]).set_axis(DIP[7:11], axis=1)
    found = found.join(grouped[DIP[11:]].mean()).reset_index()
    found["age"] = -np.log(found["decay"].to_numpy(np.float64)) * found["step"]
    found["start_weight"] = np.exp(-found["age"])
    return found[DIP]


def theory_table(dip: pd.DataFrame, ages: list[float]) -> pd.DataFrame:
    """O(r) with the variances as measured between two ages, at which the dip is."""
    rows = []
    for network, start in LINES:
        its = dip[(dip["network"] == network) & (dip["start_variance"] == start)]
        its = its[its["age"].between(ages[0], ages[1])]
        v1, v2 = its[VARIANCES].median()
        if math.isnan(v1) or math.isnan(v2):
            continue
        for age in np.geomspace(0.02, 10, 200):
            r = math.exp(-age)
            rows.append((network, start, v1, v2, age, r, theory.excess(r, v1, v2, start)))
    return pd.DataFrame(rows, columns=["network", "start_variance", *VARIANCES, "age", "start_weight", "excess"])


def ladder_table(results: Results) -> pd.DataFrame:
    after, rows, last = results.params.rules.ladder.after, list[tuple[Any, ...]](), ""
    by_rung = results.curves[results.curves["step"] == after].pivot_table("corrected_accuracy", "seed", "arm")
    for rung, label in (LADDER | ASIDE).items():
        if rung not in by_rung:
            continue
        base = last if rung in LADDER else "note_plain"
        pairs = (by_rung[rung] - by_rung[base]).dropna() if base in by_rung else by_rung[rung][:0]
        found = estimate(pairs.to_numpy()) if len(pairs) else None
        rate = results.params.arms[rung].learning_rate if rung in results.params.arms else math.nan
        change = (found.value, found.low, found.high) if found else (None, None, None)
        accuracies = by_rung[rung].dropna()
        row = (rung, f"{label} ({rate:g})", base if found else "", len(accuracies), accuracies.mean())
        rows.append((*row, *change, int(rung in ASIDE)))
        last = rung if rung in LADDER else last
    columns = ["rung", "label", "from", "seeds", "accuracy", "change", "low", "high", "side"]
    return pd.DataFrame(rows, columns=columns).replace([np.inf, -np.inf], np.nan)


def rates_table(sweep: pd.DataFrame, entries: dict[str, Entry], target: float) -> pd.DataFrame:
    """One row per run of the sweep; the best rate of each entry by the criterion that it names."""
    keys, rows = ["entry", "learning_rate", "seed"], []
    for (entry, rate, seed), its in sweep.groupby(keys, sort=False):
        reached = crossing(list(its["step"]), list(its["corrected_accuracy"].fillna(0.0)), target).interpolated
        last = its.iloc[-1]
        rows.append((entry, rate, seed, int(last["diverged"]), last["corrected_accuracy"], reached))
    columns = [*keys, "diverged", "accuracy", f"updates_to_{100 * target:g}"]
    table = pd.DataFrame(rows, columns=columns).astype({columns[-1]: float})
    best = {name: best_rate(table[table["entry"] == name], entry.target) for name, entry in entries.items()}
    return table.assign(best=[int(rate == best[entry]) for entry, rate in table[keys[:2]].to_numpy()])


def best_rate(runs: pd.DataFrame, target: float | None) -> float:
    """The rate with the best mean accuracy; with a target, that which reaches it in the fewest updates in all seeds."""
    by_rate = runs.fillna({"accuracy": 0.0}).set_index("learning_rate")
    updates = np.log(by_rate.iloc[:, -1]).groupby(level=0).agg(lambda times: times.mean(skipna=False)).dropna()
    if target and len(updates):
        return float(str(updates.idxmin()))
    return float(str(by_rate["accuracy"].groupby(level=0).mean().idxmax()))


def mechanism_table(mechanism: pd.DataFrame) -> pd.DataFrame:
    keys = ["where", "what", "start_weight"]
    start = mechanism[mechanism["start_weight"] == 0][["seed", *keys[:2], "accuracy"]]
    table = mechanism.merge(start, on=["seed", *keys[:2]], suffixes=("", "_before"))
    table["difference"] = table["accuracy"] - table["accuracy_before"]
    grouped = table.groupby(keys, sort=False)
    found = grouped["difference"].agg(["count", "mean", "min", "max"])
    found.columns = pd.Index(["seeds", "difference", "low", "high"])
    found.insert(1, "accuracy", grouped["accuracy"].mean())
    return found.reset_index()


def summary(results: Results, arm: str) -> dict[str, float]:
    """Means over the seeds of one arm, for `dvc metrics show`; JSON has no word for a loss that is not finite."""
    last = pd.DataFrame([run.iloc[-1] for run in results.runs(arm).values()])
    found = {name: digits(last[name].mean()) for name in ("test_accuracy", "test_loss")}
    for target in (0.95, 0.98):
        reached = times(results, arm, target)
        if all(run.interpolated for run in reached):
            found[f"updates_to_{100 * target:g}"] = digits(geometric_mean(reached).value or math.nan)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def environments(found: dict[str, dict[str, Any]], params: Study) -> list[dict[str, Any]]:
    """One entry per environment in which runs were made, with the names of these runs, and one for this process."""
    made: dict[str, list[str]] = {}
    machines: dict[tuple[bool, int], set[Any]] = {}
    for name, facts in found.items():
        made.setdefault(json.dumps(facts), []).append(name)
        kind = tuple(str(facts.get(key)) for key in MACHINE)
        stage, *_, last = name.split("/")
        tried = stage == "sweep"  # entries of the sweep are compared with each other
        for seed in {*params.sweep[last].seeds} & {*params.registered} if tried else [int(last)]:
            machines.setdefault((tried, seed), set()).add(kind)
    packages = {name: version(name) for name in ("numpy", "pandas")}
    mixed = sorted({seed for (_, seed), kinds in machines.items() if len(kinds) > 1})
    here = {"python": platform.python_version(), **packages, "mixed_seeds": mixed}
    return [*({**json.loads(facts), "runs": names} for facts, names in made.items()), here]


def to_json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def main() -> None:
    params = load()
    results, made = read_results(params), environments(read_environments(params), params)
    findings = judge(CLAIMS, results)
    dip = dip_table(results.averages)
    tables = {
        "curves": results.curves,
        "dip": dip,
        "theory": theory_table(dip, params.rules.dip.ages),
        "ladder": ladder_table(results),
        "rates": rates_table(results.sweep, params.swept, params.rules.tuned.target),
        "mechanism": mechanism_table(results.mechanism),
    }
    with whole_folder(STUDY / "metrics") as folder:
        write(folder / "claims.json", to_json([finding.model_dump() for finding in findings]))
        write(folder / "environment.json", to_json(made))
        for arm in results.curves["arm"].unique():
            write(folder / "summary" / f"{arm}.json", to_json(summary(results, arm)))
    with whole_folder(STUDY / "plots") as folder:
        for name, table in tables.items():
            content = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
            write(folder / f"{name}.csv", content.encode())
    forget_finished("study")
    for one in findings:
        print(f"{one.id:2} {MARKS[one.verdict]} {one.verdict:12} {one.claim}  {one.estimate}".rstrip())
    if mixed := made[-1]["mixed_seeds"]:
        print(f"the runs of seeds {mixed} were made on more than one kind of machine")


if __name__ == "__main__":
    run(main)
