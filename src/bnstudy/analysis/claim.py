"""What a claim is and what became of it: its record in `metrics/claims.json`, and how the numbers in it are worded.

The claims themselves stand in `bnstudy.analysis.claims`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from bnstudy.analysis.inference import SIGNIFICANT, Bound, Estimate, Rule, holm, together, verdict
from bnstudy.params import Params, Section
from bnstudy.tuning import Choices, digits

CLAIMS_FILE = Path("metrics/claims.json")
MARKS = {"holds": "✓", "refuted": "✗", "not shown": "?", "not measured": "–"}
LEVEL = "96% interval"  # see `inference.interval`

Verdict = Literal["holds", "refuted", "not shown", "not measured"]


class Part(Section):
    """One comparison over the seeds, held against a rule; `estimate` and `interval` as they are written."""

    part: str
    estimate: str
    interval: str
    value: float | None
    low: float | None  # None: unbounded
    high: float | None
    bound: Bound
    runs: int
    agree: int  # of them, those whose own value lies within the rule, wherever between two evaluations it is
    verdict: Verdict


class Finding(Section):
    """What became of a claim: the parts judge it, `described` does not. `adjusted_p`: by Holm's method."""

    id: int
    claim: str
    endpoint: str
    rule: str
    verdict: Verdict
    p: float | None
    adjusted_p: float | None
    sentence: str
    why: str
    level: str
    parts: tuple[Part, ...]
    described: tuple[str, ...]


@dataclass(frozen=True)
class Results:
    """What the claims are judged by: tables as `bnstudy.records` reads them, the choices of `tune`, the parameters.

    `curves` holds the histories of all arms, and as `AVERAGES_ARM` those of the runs that carry the averages.
    """

    curves: pd.DataFrame
    averages: pd.DataFrame
    tolerance: pd.DataFrame
    sweep: pd.DataFrame
    choices: Choices
    params: Params

    @cached_property
    def series(self) -> dict[tuple[int, str, float], "pd.Series[float]"]:
        """Accuracy by step for each seed, kind of statistics and decay, -1 where the kind has none."""
        table = self.averages.fillna({"decay": -1.0}).set_index("step")
        return {key: rows["accuracy"] for key, rows in table.groupby(["seed", "statistics", "decay"])}  # type: ignore[misc]


@dataclass(frozen=True)
class Unit:
    """How a number is written: `scale` times it in the format `form`, then `sign`."""

    form: str
    sign: str = ""
    scale: float = 1

    def number(self, value: float) -> str:
        """`value` without its sign."""
        return format(self.scale * value, self.form).rstrip(".").replace("-", "−")

    def interval(self, found: Estimate) -> str:
        """Empty where nothing is known: of a ratio or a time, 0 is no bound from below."""
        low = self.number(found.low) if np.isfinite(found.low) and (found.low or "+" in self.form) else ""
        high = self.number(found.high) if np.isfinite(found.high) else ""
        return f"{low} to {high}" if low and high else f"from {low}" if low else f"up to {high}" if high else ""

    def estimate(self, found: Estimate) -> str:
        if found.value is None:
            return "no estimate"
        return {"at least": "≥ ", "at most": "≤ "}.get(found.bound, "") + self.number(found.value) + self.sign

    def text(self, found: Estimate) -> str:
        """The estimate, with its interval."""
        interval = self.interval(found)
        value = self.estimate(found).replace("≥", "at least").replace("≤", "at most")
        return f"{value} ({too_few(found.n) or (f'{LEVEL} {interval}' if interval else 'no interval')})"


RATIO, POINTS, FACTOR = Unit("#.3g"), Unit("+z.2f", " points", 100), Unit("#.3g", "×")


def too_few(seeds: int) -> str:
    """Why there is no interval, see `inference.interval`; empty where there may be one."""
    return "" if seeds >= 6 else f"{seeds} seed{'s are' if seeds > 1 else ' is'} too few for an interval"


@dataclass(frozen=True)
class Measured:
    """A claim's estimates, each with its label, unit and rule; `p` over all of them, None if it is no comparison."""

    parts: list[tuple[str, Estimate, Unit, Rule]]
    sentence: str
    p: float | None = None
    described: tuple[str, ...] = ()
    level: str = LEVEL  # what stands as the interval of each estimate
    why: str = ""  # what decides the verdict, where `decided` would not say it


@dataclass(frozen=True)
class Claim:
    """One claim, how it is measured and judged, and the measurement; None where the study leaves out what it takes."""

    id: int
    claim: str
    endpoint: str
    rule: str
    measured: Measured | None


def judge(claims: Iterable[Callable[[Results], Claim]], results: Results) -> list[Finding]:
    """Every claim's finding; the p of those that are comparisons are adjusted together."""
    found = [claim(results) for claim in claims]
    adjusted = holm({str(one.id): one.measured.p for one in found if one.measured and one.measured.p is not None})
    return [finding(claim, adjusted.get(str(claim.id))) for claim in found]


def finding(claim: Claim, adjusted_p: float | None) -> Finding:
    """`claim` with its verdict."""
    measured = claim.measured or Measured([], "The study leaves out runs or evaluations that this takes.")
    verdicts = [verdict(found, rule, adjusted_p) for _, found, _, rule in measured.parts]
    return Finding(
        id=claim.id,
        claim=claim.claim,
        endpoint=claim.endpoint,
        rule=claim.rule,
        verdict=together(verdicts) if claim.measured else "not measured",
        p=None if measured.p is None else digits(measured.p),
        adjusted_p=None if adjusted_p is None else digits(adjusted_p),
        sentence=measured.sentence,
        why=measured.why or decided(measured, adjusted_p),
        level=measured.level,
        parts=tuple(
            Part(
                part=label,
                estimate=unit.estimate(found),
                interval=unit.interval(found),
                value=None if found.value is None else digits(found.value),
                low=digits(found.low) if np.isfinite(found.low) else None,
                high=digits(found.high) if np.isfinite(found.high) else None,
                bound=found.bound,
                runs=found.n,
                agree=sum(rule.allows(*ends) for ends in found.ends),
                verdict=one,
            )
            for (label, found, unit, rule), one in zip(measured.parts, verdicts, strict=True)
        ),
        described=measured.described,
    )


def decided(measured: Measured, adjusted_p: float | None) -> str:
    """What decides the verdict, in a sentence; empty where there is no interval, which is told with the estimate."""
    judged = [(found, rule) for _, found, _, rule in measured.parts if not too_few(found.n)]
    if not judged:
        return ""

    def intervals(count: int) -> str:
        if len(measured.parts) == 1:
            return "Its interval"
        some = f"{count} of its {len(judged)} intervals"
        return some if count < len(judged) else "Both its intervals" if count == 2 else "All its intervals"

    if beyond := sum(rule.excludes(found.low, found.high) for found, rule in judged):
        return f"{intervals(beyond)} lie{'s' if beyond == 1 else ''} beyond the rule."
    if unclear := sum(not rule.allows(found.low, found.high) for found, rule in judged):
        return f"{intervals(unclear)} {'does' if unclear == 1 else 'do'} not clear the rule, nor lie beyond it."
    clear = f"{intervals(len(judged))} clear{'s' if len(measured.parts) == 1 else ''} the rule"
    if len(judged) < len(measured.parts):
        return f"{clear}, but {len(measured.parts) - len(judged)} of its estimates have none."
    if adjusted_p is None:
        return f"{clear}."
    return f"{clear}, {'and' if adjusted_p < SIGNIFICANT else 'but'} the adjusted p is {adjusted_p:.2g}."
