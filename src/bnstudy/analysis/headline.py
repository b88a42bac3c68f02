"""One row per arm, which `dvc metrics show` prints, and the study in a few sentences.

`metrics/summary/<arm>.json` holds three named values, which DVC shows: one row per arm in `dvc metrics show`, but one
column per arm and value in `dvc exp show`, hence no more than three.
"""

import math
from collections import Counter
from pathlib import Path
from textwrap import shorten
from typing import Any

import pandas as pd

from bnstudy.analysis.claim import MARKS, Finding, Results, too_few
from bnstudy.analysis.claims import at_step, ends, last_test, times
from bnstudy.analysis.crossing import geometric_mean
from bnstudy.files import whole_folder, write
from bnstudy.settings import to_json
from bnstudy.tuning import digits

SUMMARIES = Path("metrics/summary")


def summary(results: Results, arm: str) -> dict[str, Any]:
    """Means over the seeds of one arm, and the geometric mean of its updates to the contest's target."""
    rules = results.params.rules
    after, last = at_step(results, arm, rules.after), at_step(results, arm, last_test(results, arm), "test_accuracy")
    reached = times(results, arm, rules.contest_target, ends(results, arm))
    there, mean = sum(math.isfinite(time.by) for time in reached), geometric_mean(reached).value
    return {
        f"accuracy_after_{rules.after}": None if after.empty else digits(after.mean()),
        "test_accuracy": digits(last.mean()),
        f"updates_to_{100 * rules.contest_target:g}": f"{there} of {len(reached)}"
        if mean is None or there < len(reached)
        else digits(mean),
    }


def write_summaries(results: Results) -> None:
    """Write the folder whole, so that no removed arm stays."""
    with whole_folder(SUMMARIES) as folder:
        for arm in results.curves["arm"].unique():
            write(folder / f"{arm}.json", to_json(summary(results, arm)))


def result(findings: list[Finding]) -> str:
    """The study in a few sentences: the contest, what batch norm buys, and how many claims hold."""
    counts = Counter[str](finding.verdict for finding in findings)
    first = [finding for finding in findings if finding.id in (2, 3) and finding.parts]
    text = " ".join(finding.sentence for finding in first)
    for few in {too_few(part.runs) for finding in first for part in finding.parts} - {""}:  # once, not each time
        text = text.replace(f" ({few})", "") + f" So far, {few}."
    verbs = {word: (f"is {word}", f"are {word}") for word in MARKS} | {"holds": ("holds", "hold")}
    said = [f"{n} {words[n > 1]}" for word, words in verbs.items() if (n := counts[word])]
    return f"{text} Of {len(findings)} claims, {', '.join(said)}.".lstrip()


def lines(findings: list[Finding]) -> list[str]:
    """One line per claim: its verdict, and its first estimate with the same verdict; at most 120 characters."""
    deciding = [next((p for p in one.parts if p.verdict == one.verdict), None) for one in findings]
    shown = [f"{part.estimate} ({part.interval or 'no interval'})" if part else "" for part in deciding]
    width = min(120 - len("1 ✓ not measured  ") - max(map(len, shown)), 71)
    table = []
    for one, text in zip(findings, shown, strict=True):
        claim = shorten(one.claim, width, placeholder=" …")
        table.append(f"{one.id} {MARKS[one.verdict]} {one.verdict:12} {claim:{width}} {text}".rstrip())
    return table


def ladder_lines(ladder: pd.DataFrame, after: int) -> list[str]:
    """One line per rung of `plots/ladder.csv`: accuracy, and the change from the rung that it is held against."""
    table = [f"The ladder: validation accuracy after {after} updates, and the change in points"] if len(ladder) else []
    for label, accuracy, change in zip(
        ladder["label"], ladder["accuracy"], ladder["change"].astype(float), strict=True
    ):
        text = "" if math.isnan(change) else f"{100 * change:+z7.1f}"
        table.append(f"  {label:48} {accuracy:6.1%} {text}".rstrip().replace("-", "−"))
    return table


def dip_lines(dip: pd.DataFrame) -> list[str]:
    """One line per decay of `plots/dip.csv`: where moving averages cost most accuracy, and what they cost at last."""
    table = ["The dip: accuracy by moving averages minus that by precise statistics, in points"] if len(dip) else []
    for decay, rows in dip[(dip["statistics"] == "moving") & (dip["seeds"] == dip["seeds"].max())].groupby("decay"):
        low, last = (rows.to_dict("records")[at] for at in (int(rows["difference"].argmin()), -1))
        text = (
            f"  decay {decay:<6g} {100 * low['difference']:+z6.1f} at update {low['step']:,.0f}, with "
            f"{math.exp(-low['age']):.0%} of the start left; {100 * last['difference']:+z.1f} at update "
            f"{last['step']:,.0f}"
        )
        table.append(text.replace("-", "−"))
    return table
