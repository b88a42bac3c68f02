"""Made-up runs of the study, in the form in which runs leave them: as `records.Results`, and as files."""

import json
import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bnstudy.engine.rows import AveragesRow, HistoryRow, MechanismRow, SweepRow
from bnstudy.engine.schedule import ages, fine, geometric
from bnstudy.study.params import Averages, Study, load
from bnstudy.study.records import Results, parameters_of

SEEDS = list(range(22, 32))
STUDY = load(Path(__file__).parents[2] / "study/params.yaml")
LONG = STUDY.long.model_copy(update={"seeds": SEEDS[:2]})
STUDY = STUDY.model_copy(update={"entries": [*STUDY.sweep], "seeds": SEEDS, "long": LONG})
V1, V2 = 0.025, 4.75
ENVIRONMENT = {"torch": "2.8.0", "machine": "x86_64", "processor": "A", "device": "cpu", "gpu": None, "threads": 1}
# Updates until each arm reaches 95%, about: errors fall as one over the updates, so that 98% takes 2.5 times as many.
TO_95 = {
    "note_plain": 900.0,
    "plain_own_rate": 300.0,
    "he": 800.0,
    "he_ramp": 700.0,
    "baseline": 145.0,
    "same_rate": 69.0,
    "own_rate": 32.0,
    "everywhere": 33.0,
    "sgd_baseline": 120.0,
    "sgd_batch_norm": 40.0,
    "note_batch_norm": 88.0,
    "standardized": 60.0,
    "note_plain_long": 1500.0,
    "note_batch_norm_long": 88.0,
}


@cache
def jitter(*numbers: int) -> float:
    """A fixed factor from 0.95 to 1.05."""
    return float(np.random.default_rng([7, *numbers]).uniform(0.95, 1.05))


def history(steps: int, to_95: float, batch_norm: bool, params: Study = STUDY) -> pd.DataFrame:
    when = params.evaluation
    coarse = {*geometric(steps, when.first, when.per_decade), *(step for step in when.moments if step <= steps)}
    between = fine(steps, when.fine.start, when.fine.end, when.fine.factor)
    rows = []
    for step in sorted({*coarse, *between}):
        accuracy = max(0.1, 1 - 0.05 * to_95 / step)
        evaluated: Any = (0.1, accuracy)
        batch = evaluated if step in coarse else (None, None)
        validation = (None, None) if batch_norm and step not in coarse else evaluated
        test = evaluated if step == steps or step in when.moments else (None, None)
        rows.append(HistoryRow(step, 0.1, 0.1, *batch, *validation, *evaluated, *test))
    return pd.DataFrame(rows, columns=HistoryRow._fields).astype(float).astype({"step": int})


def curves(params: Study = STUDY, **to_95: float) -> pd.DataFrame:
    """The histories of all arms; `to_95` in place of TO_95."""
    tables = []
    for number, (arm, updates) in enumerate((TO_95 | to_95).items()):
        defined = ({**params.arms, **params.averages, **params.long.arms}).get(arm)
        if defined is None:
            continue
        batch_norm = defined.network.normalization == "batch"
        for seed in params.long.seeds if arm in params.long.arms else params.seeds:
            table = history(defined.steps, updates * jitter(number, seed), batch_norm, params)
            tables.append(table.assign(arm=arm, seed=seed))
    return pd.concat(tables, ignore_index=True)[["arm", "seed", *HistoryRow._fields]]


def excess(r: Any, s0: float, v1: float = V1) -> Any:
    """O(r), written down once more."""
    return (1 - r) * np.sqrt((s0 * r + (1 - r) * v1) * (s0 * r + (1 - r) * V2) / (v1 * V2)) - 1


def averages(
    params: Study = STUDY,
    *,
    depth: float = 0.56,
    power: float = 2.1,
    stretch: float = 1.0,
    large: float = 10.0,
    small: Mapping[int, float] = {},
    means: float = 0.8,
    standardized: float = 0.0,
    corrected: Mapping[int, float] = {},
    frozen: float = 0.68,
) -> pd.DataFrame:
    """Evaluations whose gaps follow the theory: a loss of `depth` at the bottom, and in proportion to O ** `power`.

    `stretch` above 1 moves all to lower ages. `large`: the start that averages started at 10 act like. `small` and
    `corrected`: what single seeds lose that should lose nothing. `means`, `standardized`: lost there. `frozen`: the
    accuracy by averages that are never updated.
    """
    tables = [pd.DataFrame(columns=["network", "seed", *AveragesRow._fields])]
    for network, defined in params.averages.items():
        for seed in params.seeds:

            def lost(r: Any, s0: float = 1.0, seed: int = seed, network: str = network) -> Any:
                if network == "standardized":
                    return standardized * jitter(seed) * np.ones_like(r)
                over = np.maximum(excess(r ** (stretch * jitter(1, seed)), s0), 0) / excess(0.25, 1.0)
                return np.minimum(depth * jitter(2, seed) ** 5 * over**power, 0.86)

            v1 = 0.3 if network == "standardized" else V1
            tables.append(evaluations(defined, params, lost, v1, seed, large, small, means, corrected, frozen))
            tables[-1].insert(0, "network", network)
            tables[-1].insert(1, "seed", seed)
    return pd.concat(tables[1:] or tables, ignore_index=True)


def evaluations(
    defined: Averages,
    params: Study,
    lost: Callable[..., Any],
    v1: float,
    seed: int,
    large: float,
    small: Mapping[int, float],
    means: float,
    corrected: Mapping[int, float],
    frozen: float,
) -> pd.DataFrame:
    moments = sorted({*(step for step in params.evaluation.moments if step < defined.steps), defined.steps})
    other = defined.other_starts
    parts, everywhere = [], set(moments)
    for decay in defined.decays:
        spans = [*defined.ages, *(other.ages if other and decay in other.decays else [])]
        steps = np.array(sorted({*ages(decay, defined.steps, spans), *moments}))
        everywhere |= {*steps.tolist()}
        r = np.array([decay ** int(step) for step in steps])
        never = np.full(len(steps), 0.97 - frozen * jitter(3, seed) if decay else 0.0)
        kinds = {"moving": lost(r) if 0 < decay < 1 else never}
        if 0 < decay < 1:
            kinds["corrected"] = np.full(len(steps), corrected.get(seed, 0.001))
        if other and decay in other.decays:
            kinds |= {"start_10": lost(r, large), "start_0.1": lost(r, 0.1) + small.get(seed, 0.0)}
            kinds["means_corrected"] = np.full(len(steps), means * jitter(4, seed))
        parts += [
            pd.DataFrame(
                {"step": steps, "statistics": kind, "decay": decay, "accuracy": 0.97 - its, "conv1_mean_off": 0.01}
            )
            for kind, its in kinds.items()
        ]
    parts.append(pd.DataFrame({"step": moments, "statistics": "batch", "accuracy": 0.965}))
    precise = {"step": sorted(everywhere), "statistics": "precise", "accuracy": 0.97}
    parts.append(pd.DataFrame(precise | {"conv1_variance": v1, "conv2_variance": V2}))
    table = pd.concat(parts, ignore_index=True).assign(loss=0.1)
    return table.reindex(columns=AveragesRow._fields).sort_values("step", kind="stable", ignore_index=True)


def sweep(
    params: Study = STUDY, with_it: Callable[[int], float] = lambda seed: 3.2, without: float | None = 0.01
) -> pd.DataFrame:
    """Runs that reach 95% up to a rate of their own; those of `plain` diverge at the highest."""
    rows = []
    for name, entry in params.swept.items():
        for rate in entry.learning_rates:
            for seed in entry.seeds:
                up_to = with_it(seed) if "batch_norm" in name or "own_rate" in name else without or 0.0
                accuracy = 0.99 - 0.001 * abs(math.log(rate / 0.02)) if rate <= up_to else 0.3
                if name == "plain" and rate == 3.2:
                    rows.append((name, *SweepRow(seed, rate, 9, 1, None, None, None, None)))
                    continue
                grid = geometric(entry.steps, 5, 16) if entry.target else [entry.steps]
                for step in grid:
                    now = accuracy if step > 50 else 0.5
                    rows.append((name, *SweepRow(seed, rate, step, 0, 0.1, 0.1, now, now)))
    return pd.DataFrame(rows, columns=["entry", *SweepRow._fields])


def mechanism(params: Study = STUDY) -> pd.DataFrame:
    rows = [
        (seed, *MechanismRow(where, what, r, 0.1, 0.97 - 0.5 * r))
        for seed in params.mechanism.seeds
        for where, what in (("all", "both"), ("conv1", "variances"))
        for r in np.linspace(0, 1, params.mechanism.points).tolist()
    ]
    return pd.DataFrame(rows, columns=["seed", *MechanismRow._fields])


@cache
def held() -> Results:
    """Runs of ten seeds with which all twelve claims hold."""
    return Results(curves(), averages(), sweep(), mechanism(), STUDY)


def write(results: Results, root: Path) -> None:
    """What runs leave below `root`/study/runs; and environments."""
    runs, params = root / "study/runs", results.params

    def put(name: str, table: pd.DataFrame, environment: bool = True) -> None:
        path = runs / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(table.to_csv(index=False, float_format="%.8g", lineterminator="\n"))
        if environment:
            made = ENVIRONMENT | {"parameters": parameters_of(params, *name.split("/")[:2])}
            path.with_name(f"{path.name.split('.')[0]}.json").write_text(json.dumps(made))

    folders = dict.fromkeys(params.arms, "train") | dict.fromkeys(params.long.arms, "long")
    for (arm, seed), rows in list[Any](results.curves.groupby(["arm", "seed"])):
        folder = folders.get(arm, "averages")
        suffix = ".history" if folder == "averages" else ""
        put(f"{folder}/{arm}/{seed}{suffix}", rows.drop(columns=["arm", "seed"]), not suffix)
    for (network, seed), rows in list[Any](results.averages.groupby(["network", "seed"])):
        put(f"averages/{network}/{seed}", rows.drop(columns=["network", "seed"]))
    for entry, rows in list[Any](results.sweep.groupby("entry")):
        put(f"sweep/{entry}", rows.drop(columns="entry"))
    for seed, rows in list[Any](results.mechanism.groupby("seed")):
        put(f"mechanism/{seed}", rows.drop(columns="seed"))
