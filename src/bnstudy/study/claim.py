"""What a claim is and what became of it: its record in `study/metrics/claims.json`, and how its numbers are worded.

The claims themselves stand in `bnstudy.study.claims`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bnstudy.params import Section
from bnstudy.study.statistics import SIGNIFICANT, Bound, Estimate, Rule, Verdict, every_seed, holm, together, verdict

if TYPE_CHECKING:
    from bnstudy.study.records import Results

MARKS = {"holds": "✓", "refuted": "✗", "not shown": "?", "not measured": "–"}
INTERVAL, SPREAD = "96% interval", "least to most of the seeds"  # see `statistics.interval`, `statistics.every_seed`

Question = Literal["faster", "averages", "update_ops"]


class Part(Section):
    """One number over the seeds, held against a rule: `value`, `low` and `high`, and as they are written."""

    part: str  # as "decay 0.9"
    estimate: str  # as "4.5 times as fast", "−56.5 points", "age 4.6"
    interval: str  # as "3.5 to 5.6"; empty: unknown
    level: str  # INTERVAL or SPREAD: what `interval` is
    rule: str  # as "below −30 points"
    value: float | None  # fractions of accuracy, ratios of updates, ages: not what `estimate` makes of them
    low: float | None  # None: unbounded
    high: float | None
    bound: Bound
    runs: int
    agree: int  # of them, those whose own value lies within the rule, wherever between two evaluations it is
    against: tuple[int, ...]  # where every seed must agree: the seeds that do not
    verdict: Verdict

    def spoken(self) -> str:
        """The interval; and what it is, if it is not the one that is meant where nothing is said."""
        return f"{self.interval}, {self.level}" if self.interval and self.level != INTERVAL else self.interval


class Finding(Section):
    """What became of a claim: the parts judge it, `described` does not. `adjusted_p`: by Holm's method."""

    id: int  # 1 to 12
    name: str  # under `rules` in study/params.yaml
    question: Question
    claim: str  # the statement
    endpoint: str  # what is measured
    rule: str  # when it holds
    expected: str  # before the runs, as "at least 10 times as fast"
    because: str  # why
    verdict: Verdict
    estimate: str  # for a table: that of its one part, or of its parts together
    interval: str
    sentence: str  # what was found, in plain words, with its interval
    why: str  # what decides the verdict, in a sentence
    p: float | None  # None: no comparison
    adjusted_p: float | None
    parts: tuple[Part, ...]  # none if not measured
    described: tuple[str, ...]  # sentences


class Missing(Exception):
    """The study leaves out what a claim takes; says what."""


@dataclass(frozen=True)
class Unit:
    """How a number is written: `scale` times it in the format `form`, then `sign`.

    `inverse`: one over it, as the speed that belongs to a ratio of updates. `positive`: 0 is no bound from below.
    A `scale` below 0 makes a loss of a difference.
    """

    form: str  # a digit: so many significant ones
    sign: str = ""
    scale: float = 1
    before: str = ""
    inverse: bool = False
    positive: bool = True

    def number(self, value: float) -> str:
        """`value` without its sign; empty where it is no bound."""
        if not np.isfinite(value) or (self.positive and not value):
            return ""
        value = 1 / value if self.inverse else self.scale * value
        text = f"{float(f'{value:.{self.form}g}'):g}" if self.form.isdigit() else format(value, self.form)
        return text.replace("-", "−")

    def interval(self, low: float, high: float) -> str:
        """Empty where nothing is known."""
        ends = self.number(low), self.number(high)
        first, last = ends[::-1] if self.inverse or self.scale < 0 else ends
        return f"{first} to {last}" if first and last else f"from {first}" if first else f"up to {last}" if last else ""

    def estimate(self, found: Estimate) -> str:
        if found.value is None:
            return "no estimate"
        bound = {"at least": "at least ", "at most": "at most "}.get(found.bound, "")
        if self.inverse and bound:
            bound = "at most " if found.bound == "at least" else "at least "
        return bound + self.before + self.number(found.value) + self.sign

    def text(self, found: Estimate) -> str:
        """The estimate, with its interval; alone while there are too few seeds for one."""
        if too_few(found.n):
            return self.estimate(found)
        interval = self.interval(found.low, found.high)
        return f"{self.estimate(found)} ({f'{INTERVAL} {interval}' if interval else 'no interval'})"

    def rule(self, rule: Rule) -> str:
        """The rule, in the same words."""
        above, below = ("" if end is None else self.number(end) for end in (rule.above, rule.below))
        if above and below:
            return f"between {above} and {below}{self.sign}"
        if self.inverse:
            return "faster" if rule.below == 1 else f"more than {below}{self.sign}"
        return (f"above {above}" if above else f"below {below}") + self.sign


SPEED, FACTOR = Unit("2", " times as fast", inverse=True), Unit("2", " times as large")
AGE, WEIGHT, UPDATES = Unit(".2f", before="age "), Unit(".3f", before="r = "), Unit(",.0f", " updates")
POINTS, LOSS = Unit("+z.1f", " points", 100, positive=False), Unit("z.1f", " points", 100, positive=False)
COST, SHARE = replace(LOSS, scale=-100), Unit("z.0f", "%", 100, positive=False)
SHIFT = Unit("+z.2f", " in age", positive=False)


def points(fraction: float) -> str:
    """A difference of accuracies, in words."""
    return f"{100 * fraction:g} point{'s' * (fraction != 0.01)}".replace("-", "−")


def too_few(seeds: int) -> str:
    """Why there is no interval, see `statistics.interval`; empty where there may be one."""
    return "" if seeds >= 6 else f"{seeds} seed{'s are' if seeds > 1 else ' is'} too few for an interval"


@dataclass(frozen=True)
class Demand:
    """What one number must be for the claim to hold; with `seeds`, in every one of them, in the order of its ends."""

    part: str
    found: Estimate
    unit: Unit
    rule: Rule
    seeds: tuple[int, ...] = ()

    def against(self) -> tuple[int, ...]:
        """The seeds that are not as every one must be."""
        ends = dict(zip(self.seeds, self.found.ends, strict=True)) if self.seeds else {}
        return tuple(seed for seed, its in ends.items() if not self.rule.allows(*its))

    def verdict(self, adjusted_p: float | None) -> Verdict:
        if self.seeds:
            return every_seed(len(self.against()), len(self.seeds))
        return verdict(self.found, self.rule, adjusted_p)

    def record(self, adjusted_p: float | None) -> Part:
        found = self.found
        return Part(
            part=self.part,
            estimate=self.unit.estimate(found),
            interval=self.unit.interval(found.low, found.high),
            level=SPREAD if self.seeds else INTERVAL,
            rule=self.unit.rule(self.rule),
            value=None if found.value is None else digits(found.value),
            low=digits(found.low) if np.isfinite(found.low) else None,
            high=digits(found.high) if np.isfinite(found.high) else None,
            bound=found.bound,
            runs=found.n,
            agree=sum(self.rule.allows(*ends) for ends in found.ends),
            against=self.against(),
            verdict=self.verdict(adjusted_p),
        )


@dataclass(frozen=True)
class Measured:
    """What a claim demands of the runs, and what they say; `p` over all parts, None if it is no comparison."""

    demands: Sequence[Demand]
    sentence: str
    p: float | None = None
    described: tuple[str, ...] = field(default=())
    estimate: str = ""  # of the parts together, where there are several; and their interval
    interval: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim before the runs; `endpoint` and `rule` name values of its block as `{r.key}`, in points as `{p.key}`."""

    name: str  # its block under `rules`
    question: Question
    claim: str
    endpoint: str
    rule: str
    measure: Callable[["Results", Any], Measured]  # raises `Missing`


def claim(name: str, question: Question, claim: str, endpoint: str, rule: str) -> Callable[[Any], Claim]:
    """Makes a claim of the function that measures it: of the runs and its block of rules, what they say."""
    return partial(Claim, name, question, claim, endpoint, rule)


def judge(claims: Iterable[Claim], results: "Results") -> list[Finding]:
    """Every claim's finding; the p of those that are comparisons are adjusted together."""
    measured: dict[str, Measured] = {}
    missing: dict[str, str] = {}
    claims = list(claims)
    for one in claims:
        try:
            measured[one.name] = one.measure(results, getattr(results.params.rules, one.name))
        except Missing as what:
            missing[one.name] = f"Not measured: {what}."
    adjusted = holm({name: found.p for name, found in measured.items() if found.p is not None})
    return [
        finding(id, one, measured.get(one.name) or Measured((), missing[one.name]), results, adjusted)
        for id, one in enumerate(claims, 1)
    ]


def finding(id: int, claim: Claim, found: Measured, results: "Results", adjusted: dict[str, float]) -> Finding:
    """`claim` with its verdict."""
    rules, adjusted_p = getattr(results.params.rules, claim.name), adjusted.get(claim.name)
    parts = tuple(demand.record(adjusted_p) for demand in found.demands)
    single = parts[0] if len(parts) == 1 else None
    in_points = SimpleNamespace(**{key: points(value) for key, value in rules if isinstance(value, float)})
    return Finding(
        id=id,
        name=claim.name,
        question=claim.question,
        claim=claim.claim,
        endpoint=claim.endpoint.format(r=rules, p=in_points),
        rule=claim.rule.format(r=rules, p=in_points),
        expected=rules.expected,
        because=rules.because,
        verdict=together(part.verdict for part in parts) if parts else "not measured",
        estimate=found.estimate or (single.estimate if single else ""),
        interval=found.interval or (single.spoken() if single else ""),
        sentence=found.sentence,
        why=decided(found.demands, parts, adjusted_p, len(adjusted)),
        p=None if found.p is None else digits(found.p),
        adjusted_p=None if adjusted_p is None else digits(adjusted_p),
        parts=parts,
        described=found.described,
    )


def decided(demands: Sequence[Demand], parts: Sequence[Part], adjusted_p: float | None, comparisons: int) -> str:
    """What decides the verdict, in a sentence or two."""
    if not parts:
        return ""
    verdicts = together(part.verdict for part in parts)
    if few := next((part.runs for part in parts if part.verdict == "not shown" and too_few(part.runs)), 0):
        return f"{too_few(few)}.".capitalize()
    if verdicts == "holds":
        return "All that the runs leave possible agrees with the claim."
    clear = all(demand.rule.allows(demand.found.low, demand.found.high) for demand in demands)
    if clear and adjusted_p is not None and adjusted_p >= SIGNIFICANT:
        return f"Chance is not ruled out: with {comparisons} comparisons, corrected for them, p is {adjusted_p:.2g}."

    def which(some: Sequence[Part]) -> str:
        return f" ({', '.join(part.part for part in some)})" if len(some) < len(parts) else ""

    said, deciding = [], [part for part in parts if part.verdict == verdicts]
    if some := [part for part in deciding if not part.against]:
        said.append(
            f"All that the runs leave possible contradicts the claim{which(some)}."
            if verdicts == "refuted"
            else "The runs leave it open: some of what they leave possible agrees with the claim, some does "
            f"not{which(some)}."
        )
    if some := [part for part in deciding if part.against]:
        seeds = sorted({seed for part in some for seed in part.against})
        named = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        said.append(f"It should be so in every seed, and is not in {named}{which(some)}.")
    return " ".join(said)


def digits(number: float) -> float:
    """To 6 significant digits, as in the tables; a zero has no minus."""
    return float(f"{number:.6g}") + 0.0
