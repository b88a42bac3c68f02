"""Write what the study comes to into the pages that quote it: `python tools/pages.py`, after `dvc repro`.

Such a part of a page lies between `<!-- name -->` and `<!-- /name -->`.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

import cost
import scale

ROOT = Path(__file__).resolve().parents[1]
# Test accuracy of the note's own code, run twice in TensorFlow 2.13, after so many updates.
ORIGINAL = {
    "note_batch_norm": {100: [0.963, 0.960], 200: [0.977], 500: [0.984], 700: [0.986]},
    "note_plain": {100: [0.526, 0.501], 200: [0.800, 0.702], 500: [0.886, 0.893], 760: [0.917]},
}


def between(page: str, name: str, content: str) -> str:
    """`page` with `content`, whole lines, between the marks `name`. Raises ValueError where these are not there."""
    before, _, after = re.split(rf"(?<=<!-- {name} -->\n)(.*)(?=<!-- /{name} -->)", page, flags=re.DOTALL)
    return before + content + after


def headline(report: str) -> str:
    """Of report/README.md: the paragraph below the title, the first picture, the verdicts."""
    said = report.partition("\n\n")[2].partition("\n\n")[0].strip()
    pictures = re.findall(r"^!\[.*\]\(figures/\w+\.svg\)$", report, re.MULTILINE)[:1]
    shown = [said, *(picture.replace("](", "](report/") for picture in pictures)]
    verdicts = re.findall(r"^\| (\d+\. .+?) \|.*\| (\S .+?) \|$", report, re.MULTILINE)
    if verdicts:
        rows = [f"|{claim} | {word}|" for claim, word in verdicts]
        shown.append("\n".join(["|claim | verdict|", "|--- | ---|", *rows]))
    return "\n\n".join(shown) + "\n"


def beside_original(curves: pd.DataFrame) -> dict[tuple[str, int], "pd.Series[float]"]:
    """The test accuracies of our seeds beside each of the original's: at the nearest evaluation of the test split."""
    tested, found = curves.dropna(subset="test_accuracy"), {}
    for arm, accuracies in ORIGINAL.items():
        rows = tested[tested["arm"] == arm]
        for step in accuracies:
            nearest = rows["step"].iloc[int((rows["step"] - step).abs().argmin())]
            found[arm, step] = rows.loc[rows["step"] == nearest, "test_accuracy"]
    return found


def original_table(curves: pd.DataFrame) -> str:
    """The note's own code beside our seeds, as Markdown."""
    found = beside_original(curves)
    seeds = len(next(iter(found.values())))
    heading = f"| arm | updates | the note's code | here, {seeds} seeds, lowest to highest |"
    lines = [heading, "| --- | --: | --: | --: |"]
    for (arm, step), values in found.items():
        both = " and ".join(f"{accuracy:.1%}" for accuracy in ORIGINAL[arm][step])
        lines.append(f"| `{arm}` | {step} | {both} | {values.min():.1%} to {values.max():.1%} |")
    return "\n".join(lines) + "\n"


PARTS: dict[tuple[str, str], Callable[[], str]] = {
    ("README.md", "headline"): lambda: headline((ROOT / "report/README.md").read_text()),
    ("README.md", "cost"): lambda: cost.line(cost.read()),
    ("benchmarks/README.md", "cost"): lambda: cost.table(cost.read()),
    ("docs/original.md", "beside"): lambda: original_table(pd.read_csv(ROOT / "plots/curves.csv")),
    ("docs/scale.md", "simulated"): scale.table,
}


if __name__ == "__main__":
    for (page, name), content in PARTS.items():
        path = ROOT / page
        path.write_text(between(path.read_text(), name, content()))
