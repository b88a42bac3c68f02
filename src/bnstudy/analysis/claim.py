"""What a claim is and what became of it: records, the verdict, the words for an estimate, and `metrics/claims.json`.

The claims themselves stand in `bnstudy.analysis.claims`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from pydantic import TypeAdapter

from bnstudy.analysis.statistics import Comparison, Rule, Verdict, paired_difference, verdict
from bnstudy.analysis.style import Looks
from bnstudy.files import write
from bnstudy.params import Summarize, Sweep
from bnstudy.records import Record, Run, read_json, to_json

CLAIMS_FILE = Path("metrics/claims.json")
# The note's own pair of networks, and one in which each network has initial weights and a rate that suit it.
SETTINGS = {"original": ("batch_norm", "plain"), "fair": ("batch_norm_hidden", "plain_he")}
Runs = dict[str, list[Run]]  # of each variant, in the order of the seeds
MARKS = {"supported": "✓", "refuted": "✗", "not decided": "?", "not measured": "–"}


@dataclass(frozen=True)
class Results:
    """What figures are drawn from, and most claims judged by: the tidy tables, and the parameters that matter to them.

    `curves`, `warmup` and `sweep` are as `bnstudy.records` reads them, or as `summarize` wrote them.
    """

    curves: pd.DataFrame
    warmup: pd.DataFrame
    sweep: pd.DataFrame
    targets: list[float]  # validation accuracies to be reached, ascending
    averaged: str  # the variant of `warmup`
    settings: Sweep  # what was run for `sweep`
    rules: Summarize


class Part(Record):
    """One comparison over the seeds, held against a rule of `params.yaml`; numbers to 6 significant digits."""

    part: str
    quantity: str  # the name of a `Quantity`
    estimate: float | None
    low: float | None  # of the estimate's interval; None: unlimited or unknown
    high: float | None
    bound: Literal["exact", "at least", "at most", "none"]
    p: float | None  # with probability_better, None where a variant was compared with a constant
    probability_better: float | None
    runs: int
    censored_a: int  # runs that did not reach their target, with batch norm and without
    censored_b: int
    rule: str
    verdict: Verdict


class Finding(Record):
    """What became of a claim."""

    id: int
    claim: str
    measured: str  # how, in a sentence
    verdict: Verdict | Literal["not measured"]
    open_because: str | None  # why it is not decided, if not by its intervals
    parts: tuple[Part, ...]


class Measured(NamedTuple):
    """What a claim's `measure` returns: the parts whose variants or decays were run, and how they were measured."""

    how: str
    parts: list[Part]
    open_because: str | None = None


class Shown(NamedTuple):
    """A part as text; `missed` says which runs did not get there."""

    estimate: str
    interval: str
    missed: str


@dataclass(frozen=True)
class Quantity:
    """What an estimate measures, and how it is written: `scale` times the number in the format `form`, then `unit`."""

    name: str
    form: str
    unit: str
    scale: float = 1

    def shown(self, part: Part) -> Shown:
        estimate, low, high = (self.number(value) for value in (part.estimate, part.low, part.high))
        bound = {"at least": "≥ ", "at most": "≤ "}.get(part.bound, "")
        sides = ("", "") if part.p is None else (" with batch norm", " without")
        censored = zip((part.censored_a, part.censored_b), sides, strict=True)
        missed = " and ".join(f"{count} of {part.runs} runs{side}" for count, side in censored if count)
        ends = {(True, True): f"{low} to {high}", (True, False): f"from {low}", (False, True): f"up to {high}"}
        return Shown(
            f"{bound}{estimate}{'' if self.unit == '%' else self.unit}" if estimate else "no estimate",
            ends.get((bool(low), bool(high)), "no interval"),
            f"not reached by {missed}" if missed else "",
        )

    def number(self, value: float | None) -> str:
        """`value` without its unit, unless that is percent; empty for None."""
        if value is None:
            return ""
        text = format(self.scale * value, self.form).rstrip(".").replace("-", "−")
        return f"{text}%" if self.unit == "%" else text

    def rule(self, rule: Rule) -> str:
        """`rule` in words, in this unit."""
        low, high = "at least" if rule.inclusive else "above", "at most" if rule.inclusive else "below"
        if rule.beyond:
            low, high = "below", "or above"
        limits = [(low, rule.above), (high, rule.below)]
        words = [f"{word} {self.scale * limit:g}" for word, limit in limits if limit is not None]
        return (" " if rule.beyond else " and ").join(words) + self.unit


@dataclass(frozen=True)
class Claim:
    """One claim. Its three texts are format strings over the rules of `params.yaml`, and over `margin` in points.

    `supported` says what held in every part, `refuted` what failed in at least one.
    """

    id: int
    statement: str
    supported: str
    refuted: str
    quantities: tuple[Quantity, ...]
    measure: Callable[[Results, Runs], Measured]
    draw: Callable[[Results, Looks], Figure | None]  # None where this study left out what it would show

    def judge(self, results: Results, runs: Runs) -> Finding:
        """Supported if every part is, refuted if any part is, not measured without parts."""
        measured = self.measure(results, runs)
        verdicts = {part.verdict for part in measured.parts}
        decided: Verdict = "refuted" if "refuted" in verdicts else "not decided"
        return Finding(
            id=self.id,
            claim=filled(self.statement, results.rules),
            measured=f"{measured.how}.",
            verdict="supported" if verdicts == {"supported"} else decided if verdicts else "not measured",
            open_because=measured.open_because,
            parts=tuple(measured.parts),
        )

    def reading(self, finding: Finding, rules: Summarize) -> str:
        """What became of the claim, with its numbers, in one sentence."""
        if not finding.parts:
            return "Not measured: this study leaves out a variant or a run that it takes."
        if finding.verdict == "not decided":
            lead = f"Not decided, since {why_open(finding, rules)}"
        else:
            lead = filled(self.supported if finding.verdict == "supported" else self.refuted, rules)
        shown = [(part.part, self.shown(part)) for part in finding.parts]
        return f"{lead} – " + "; ".join(f"{part}: {text.estimate} ({text.interval})" for part, text in shown) + "."

    def shown(self, part: Part) -> Shown:
        return next(quantity for quantity in self.quantities if quantity.name == part.quantity).shown(part)


def filled(text: str, rules: Summarize) -> str:
    return text.format(**rules.model_dump(), margin=f"{100 * rules.accuracy_margin:g} points")


def why_open(finding: Finding, rules: Summarize) -> str:
    runs = min(part.runs for part in finding.parts)
    if runs < rules.minimum_runs:
        return f"a verdict takes {rules.minimum_runs} runs, not {runs}"
    if all(part.estimate is None for part in finding.parts if part.verdict == "not decided"):
        return "too few runs got that far for an estimate"
    return finding.open_because or "an interval leaves both answers open"


def judged(label: str, quantity: Quantity, found: Comparison, rule: Rule, rules: Summarize) -> Part:
    """The part that holds `found` against `rule`."""
    return Part(
        part=label,
        quantity=quantity.name,
        estimate=digits(found.estimate),
        low=digits(found.low),
        high=digits(found.high),
        bound=found.bound,
        p=digits(found.p),
        probability_better=digits(found.probability_better),
        runs=found.pairs,
        censored_a=found.censored_a,
        censored_b=found.censored_b,
        rule=quantity.rule(rule),
        verdict=verdict(found, rule, rules.minimum_runs),
    )


def judged_by_setting(values: dict[str, list[float]], quantity: Quantity, rule: Rule, rules: Summarize) -> list[Part]:
    """One part for each setting whose two variants have `values`, one per seed: with batch norm minus without."""
    return [
        judged(setting, quantity, paired_difference(values[a], values[b], confidence=rules.confidence), rule, rules)
        for setting, (a, b) in SETTINGS.items()
        if values.keys() >= {a, b}
    ]


def digits(value: float | None) -> float | None:
    """`value` to 6 significant digits, fewer than two machines may differ in; 0 without a sign."""
    return None if value is None else float(f"{value:.6g}") + 0.0


def percent(share: float) -> str:
    return f"{100 * share:.10g}%"


def write_findings(findings: list[Finding]) -> None:
    write(CLAIMS_FILE, to_json([finding.model_dump() for finding in findings]))


def read_findings() -> list[Finding]:
    """What `write_findings` wrote; `BadInput` if it cannot be read or is something else."""
    return read_json(CLAIMS_FILE, TypeAdapter(list[Finding]))
