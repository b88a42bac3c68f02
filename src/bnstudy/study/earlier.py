"""What the first and second version of this study had said, computed from their tables in `study/earlier/`.

Nothing here judges; their seeds are not judged again.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd

from bnstudy import BadInput
from bnstudy.study.crossing import crossing
from bnstudy.study.statistics import interval

EARLIER = Path("study/earlier")
# A claim of today, by its rules' name: its number and deciding part in the first version, its number in the second.
NUMBERS = {
    "note": (1, 0, 1),
    "tuned": (2, 2, 2),
    "share": (0, 0, 3),
    "tolerance": (8, 1, 9),
    "ready": (4, 0, 5),
    "dip": (0, 0, 6),
    "update_ops": (6, 0, 8),
}


def read(name: str) -> Any:
    """`study/earlier/<name>`, a table or JSON."""
    path = EARLIER / name
    try:
        return pd.read_csv(path) if path.suffix == ".csv" else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); `git restore {path}` brings it back") from None


def said() -> dict[str, tuple[str, str]]:
    """Of each claim of today that an earlier version made too, by its rules' name: what the two said, in a cell."""
    first, second = ({one["id"]: one for one in read(f"{version}/claims.json")} for version in ("first", "second"))
    return {
        name: (first_said(first[old], part) if old else "–", second_said(second[new]))
        for name, (old, part, new) in NUMBERS.items()
    }


def first_said(claim: dict[str, Any], place: int) -> str:
    part = claim["parts"][place]
    rule, value = part["rule"], part["estimate"]
    unit = re.sub("[^×%]", "", rule) or f" {rule.split()[-1]}"
    number = f"{100 * value:.0f}" if unit == "%" else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{number}{unit}; rule: {rule}; {claim['verdict']}"


def second_said(claim: dict[str, Any]) -> str:
    """Of the parts by decay, from the least to the most."""
    parts, rule = claim["parts"], claim["rule"].partition(" for each")[0].replace(" (two one-sided tests)", "")
    found = " and ".join(part["estimate"] for part in parts)
    if len(parts) > 2:
        values = [part["value"] for part in parts]
        found = f"{min(values):.2g} to {max(values):.2g}"
    return f"{found}; rule: {rule}; {claim['verdict']}"


def mended() -> dict[str, Any]:
    """Why the second version's verdicts mislead: figures of its tables."""
    dip, curves, claims = read("second/dip.csv"), read("second/curves.csv"), read("second/claims.json")
    moving = dip[dip["statistics"] == "moving"]
    claim = {one["id"]: one for one in claims}
    slow = moving[(moving["decay"] == 0.999) & (moving["step"] == 1000)].iloc[0]
    warm = moving[(moving["decay"] == 0.95) & moving["step"].between(58, 100)]
    risen = moving[(moving["decay"] >= 0.9) & moving["age"].between(0.8, 2.2)]
    bottoms = risen.loc[risen.groupby("decay")["difference"].idxmin()]
    settled = moving[moving["step"] == moving["step"].max()].set_index("decay")["distance"]
    he = claim[4]["parts"][0]
    averages = read("first/warmup.csv").groupby(["statistics", "decay", "step"], dropna=False)["test_accuracy"].mean()
    last = read("first/warmup.csv")["step"].max()
    return {
        "shares": {target: share(curves, target) for target in (0.97, 0.98, 0.985)},
        "close_from": close_from(curves, 0.01),
        "warm": list(zip(warm["step"], -100 * warm["difference"], strict=True)),
        "he": (50 * (he["high"] - he["low"]), 100 * read("second/rules.json")["he_gain"]),
        "slow": (-100 * slow["difference"], -100 * slow["high"]),
        "bottoms": 100 * (-bottoms["age"]).map(math.exp),
        "distances": settled,
        "never": 100 * averages["moving", 1.0, last],
        "never_lost": 100 * (averages["batch"].xs(last, level="step").iloc[0] - averages["moving", 1.0, last]),
        "first_seeds": read("first/warmup.csv")["seed"].nunique(),
    }


def times(curves: pd.DataFrame, arm: str, target: float) -> "pd.Series[float]":
    """The logarithm of the updates to `target`, interpolated, by seed."""
    runs = curves[curves["arm"] == arm].groupby("seed")
    found = {seed: crossing(list(run["step"]), list(run["validation_accuracy"]), target) for seed, run in runs}
    return pd.Series({seed: math.log(time.interpolated or math.nan) for seed, time in found.items()})


def share(curves: pd.DataFrame, target: float) -> float:
    """Of the logarithm of the speed-up from `baseline` to `own_rate`, what batch norm at the same rate has."""
    baseline, same, own = (times(curves, arm, target).mean() for arm in ("baseline", "same_rate", "own_rate"))
    return float((baseline - same) / (baseline - own))


def close_from(curves: pd.DataFrame, within: float) -> int:
    """The update from which on batch norm at the baseline's rate stays within so much of it, by its interval."""
    table = curves.pivot_table(index="step", columns=["arm", "seed"], values="validation_accuracy")
    gains = (table["same_rate"] - table["baseline"]).dropna()
    beyond = [step for step, row in gains.iterrows() if interval(list(row))[1] >= within]
    return int(min(step for step in gains.index if step > max(beyond)))
