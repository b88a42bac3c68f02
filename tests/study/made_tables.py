"""What `judge` leaves for pictures and report, of made-up runs with which all claims hold; and a made-up ladder."""

import json
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

import study_judge
from bnstudy.study.claim import Finding, judge
from bnstudy.study.claims import CLAIMS
from made_up import ENVIRONMENT, STUDY, held

ROOT = Path(__file__).parents[2]
LADDER: list[tuple[str, str, str | None, float, float | None]] = [
    ("note_plain", "the note's network without batch norm (0.1)", None, 0.641, None),
    ("plain_own_rate", "its own rate (0.01)", "note_plain", 0.934, 0.293),
    ("baseline", "He's initial weights, tuned (0.018)", "plain_own_rate", 0.962, 0.028),
    ("same_rate", "batch norm, same rate (0.018)", "baseline", 0.955, -0.007),
    ("own_rate", "its own rate (0.1)", "same_rate", 0.983, 0.028),
    ("everywhere", "on the last layer too (0.179)", "own_rate", 0.982, -0.001),
    ("he", "He's initial weights (0.1)", "note_plain", 0.592, -0.049),
    ("he_ramp", "and the rate ramped up (0.1)", "note_plain", 0.702, 0.061),
]
MADE = [{**ENVIRONMENT, "runs": ["train/he/22"]}, {**ENVIRONMENT, "gpu": "B", "runs": ["train/he/23", "sweep/plain"]}]


@cache
def findings() -> tuple[Finding, ...]:
    return tuple(judge(CLAIMS, held()))


@cache
def tables() -> dict[str, pd.DataFrame]:
    dip, ladder = study_judge.dip_table(held().averages), pd.DataFrame(LADDER)
    ladder.columns = pd.Index(["rung", "label", "from", "accuracy", "change"])
    side = ladder["rung"].str.startswith("he").astype(int)
    return {
        "dip": dip,
        "theory": study_judge.theory_table(dip, STUDY.rules.dip.ages),
        "ladder": ladder.assign(seeds=10, low=ladder["change"] - 0.02, high=ladder["change"] + 0.02, side=side),
        "rates": study_judge.rates_table(held().sweep, STUDY.sweep, STUDY.rules.tuned.target),
    }


def write(folder: Path, *, empty: bool = False, seeds: int = 10, **plot: float) -> None:
    """`folder`/study: parameters, tables (without rows if `empty`), metrics, and what earlier versions had said."""
    study = folder / "study"
    (study / "plots").mkdir(parents=True, exist_ok=True)
    for name, table in tables().items():
        rows = table[:0] if empty else table
        rows.to_csv(study / f"plots/{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    params = yaml.safe_load((ROOT / "study/params.yaml").read_text(encoding="utf-8"))
    params |= {"plot": params["plot"] | plot, "seeds": params["registered"][:seeds], "entries": [*params["sweep"]]}
    (study / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    shutil.copytree(ROOT / "study/earlier", study / "earlier", dirs_exist_ok=True)
    write_metrics(folder, findings())


def write_metrics(folder: Path, found: Sequence[Finding], mixed: Sequence[int] = ()) -> None:
    metrics: dict[str, list[Any]] = {
        "claims": [one.model_dump() for one in found],
        "environment": [*MADE, {"python": "3.11", "mixed_seeds": [*mixed]}],
    }
    (folder / "study/metrics").mkdir(parents=True, exist_ok=True)
    for name, content in metrics.items():
        (folder / f"study/metrics/{name}.json").write_text(json.dumps(content))
