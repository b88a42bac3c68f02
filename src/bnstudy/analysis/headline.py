"""One row per variant: what `dvc metrics show` prints, and the headline of `summarize`, of the report and of README.md.

`metrics/summary/<variant>.json` holds three named values, which DVC shows: one row per variant in `dvc metrics show`,
but one column per variant and value in `dvc exp show`, hence no more than three. Everything else stands in a list
beside them, `details`, which DVC skips.
"""

from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from bnstudy.analysis.claim import MARKS, Claim, Finding, digits, percent
from bnstudy.analysis.statistics import interval
from bnstudy.files import whole_folder, write
from bnstudy.params import Study
from bnstudy.records import Record, Run, read_json, to_json

SUMMARIES = Path("metrics/summary")
Judged = list[tuple[Claim, Finding]]


class Mean(Record):
    """Over the seeds, with its interval: None for one seed."""

    mean: float
    low: float | None
    high: float | None


class Reached(Record):
    """How many runs reached a target, and the median of their steps: None where it falls on a run that never did."""

    median: int | float | None
    reached: int


class Summary(Record):
    """One variant over its seeds. The keys of `updates_to` are the target accuracies in percent."""

    runs: int
    confidence: float  # of the intervals
    test_accuracy: Mean
    test_loss: Mean
    updates_to: dict[str, Reached]
    best_rate: float | None = None  # with decades_that_work, of a variant in the sweep of two or more rates
    decades_that_work: Mean | None = None

    def updates(self, target: str) -> str:
        """The median of the updates to `target`, or how many runs got there if that was not most of them."""
        found = self.updates_to[target]
        some = f"{found.reached} of {self.runs} runs"
        if found.median is None:
            return some if found.reached else "never"
        return f"{found.median:,.10g}" + (f" ({some})" if found.reached < self.runs else "")


class SummaryFile(Record):
    details: tuple[Summary]


def mean(values: list[float], confidence: float) -> Mean:
    low, high = interval(values, confidence=confidence)
    return Mean(mean=float(f"{np.mean(values):.6g}"), low=digits(low), high=digits(high))


def reached(steps: list[int | None]) -> Reached:
    middle = median(np.inf if step is None else step for step in steps)
    return Reached(median=None if np.isinf(middle) else middle, reached=len(steps) - steps.count(None))


def summarized(runs: list[Run], confidence: float) -> Summary:
    return Summary(
        runs=len(runs),
        confidence=confidence,
        test_accuracy=mean([run.test_accuracy for run in runs], confidence),
        test_loss=mean([run.test_loss for run in runs], confidence),
        updates_to={
            percent(target): reached([run.steps_to[target] for run in runs]) for target in sorted(runs[0].steps_to)
        },
    )


def metrics(summary: Summary) -> dict[str, Any]:
    """What DVC shows: the updates are those to the middle one of the targets, the higher one of two."""
    targets = list(summary.updates_to)
    target = targets[len(targets) // 2]
    middle = summary.updates_to[target].median
    return {
        "test_accuracy": summary.test_accuracy.mean,
        "test_loss": summary.test_loss.mean,
        f"updates_to_{target.removesuffix('%')}": summary.updates(target) if middle is None else middle,
    }


def write_summaries(summaries: dict[str, Summary]) -> None:
    """Write the folder whole, so that no removed variant stays."""
    with whole_folder(SUMMARIES) as folder:
        for variant, summary in summaries.items():
            write(folder / f"{variant}.json", to_json(metrics(summary) | {"details": [summary.model_dump()]}))


def read_summaries(study: Study) -> dict[str, Summary]:
    """What `write_summaries` wrote of the variants of `study`; `BadInput` if it cannot be read or is something else."""
    paths = {variant: SUMMARIES / f"{variant}.json" for variant in study.variants}
    return {variant: read_json(path, TypeAdapter(SummaryFile)).details[0] for variant, path in paths.items()}


def rows(summaries: dict[str, Summary]) -> list[dict[str, str]]:
    """The headline table: one row per variant, by column."""
    table = []
    for variant, summary in summaries.items():
        accuracy = summary.test_accuracy
        ends = "one seed" if accuracy.low is None else f"{accuracy.low:.2%} to {accuracy.high:.2%}"
        row = {"variant": variant, "seeds": str(summary.runs)}
        row[f"test accuracy ({percent(summary.confidence)} interval)"] = f"{accuracy.mean:.2%} ({ends})"
        table.append(row | {f"updates to {target}": summary.updates(target) for target in summary.updates_to})
    return table


def result(claims: Judged) -> str:
    """The study in a sentence or two: how many claims hold, and what the first two say of the highest target."""
    counts = Counter[str](finding.verdict for _, finding in claims)
    text = f"{len(claims)} claims: " + ", ".join(f"{counts[verdict]} {verdict}" for verdict in MARKS if counts[verdict])
    ratios = []
    for (claim, finding), place in zip(
        claims, ("in the original's setting", "against the fair baseline"), strict=False
    ):
        for part in [part for part in finding.parts if part.estimate is not None][-1:]:
            shown = claim.shown(part)
            ratio = shown.estimate.replace("≤", "at most").replace("≥", "at least").replace("×", " times")
            target = part.part.split(",")[0]
            ratios.append(f"{ratio} the updates {target} {place} (interval: {shown.interval}; {part.verdict})")
    return f"{text}. Batch norm took {', and '.join(ratios)}." if ratios else f"{text}."


def markdown_headline(summaries: dict[str, Summary], claims: Judged) -> str:
    """The result and the headline table, in Markdown. README.md quotes it."""
    table = [row | {"variant": f"`{row['variant']}`"} for row in rows(summaries)]
    lines = [list(table[0]), ["---", *["--:"] * (len(table[0]) - 1)], *(row.values() for row in table)]
    return f"{result(claims)}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text_headline(summaries: dict[str, Summary], claims: Judged) -> str:
    """The headline table, and one line per claim: its verdict, and the first part that has the same verdict."""
    width = max(len(finding.claim) for _, finding in claims)
    lines = [pd.DataFrame(rows(summaries)).to_string(index=False), ""]
    for claim, finding in claims:
        line = f"{finding.id} {finding.claim.ljust(width)} {finding.verdict.ljust(12)}"
        for part in [part for part in finding.parts if part.verdict == finding.verdict][:1]:
            shown = claim.shown(part)
            line += f" {part.quantity} {shown.estimate} ({shown.interval}), {part.part}"
        lines.append(line.rstrip())
    return "\n".join(lines)
