"""The pages say what the results come to; the note's own code lies where our seeds lie."""

import math
import re

import pandas as pd
import pytest
from scipy.stats import t

import pages
from conftest import ROOT, run


@pytest.mark.parametrize(("page", "name"), pages.PARTS)
def test_they_hold_what_the_build_writes(page: str, name: str) -> None:
    text = (ROOT / page).read_text()
    assert pages.between(text, name, pages.PARTS[page, name]()) == text


def test_every_marked_part_has_a_writer() -> None:
    """But for the table that `make bench` writes itself."""
    listed = run(ROOT, "git", "ls-files", "*.md").stdout.split()
    texts = {page: (ROOT / page).read_text() for page in listed}
    marked = {(page, name) for page, text in texts.items() for name in re.findall(r"^<!-- /(\w+) -->$", text, re.M)}
    assert marked == {*pages.PARTS, ("benchmarks/README.md", "results")}


def test_the_nearest_evaluation_of_the_test_split_stands_beside_the_original() -> None:
    rows = [(arm, seed, step, step / 1000 + seed / 100 if step != 150 else None)
            for arm in pages.ORIGINAL for seed in (1, 2) for step in (100, 150, 200, 700)]  # fmt: skip
    curves = pd.DataFrame(rows, columns=["arm", "seed", "step", "test_accuracy"])
    lines = pages.original_table(curves).splitlines()
    assert lines[0].endswith("| here, 2 seeds, lowest to highest |")
    assert "| `note_batch_norm` | 100 | 96.3% and 96.0% | 11.0% to 12.0% |" in lines
    assert "| `note_plain` | 760 | 91.7% | 71.0% to 72.0% |" in lines


def test_the_original_lies_where_one_more_of_our_seeds_would() -> None:
    """In the prediction intervals of our seeds at the nearest evaluation: of 95% for all of its accuracies together."""
    curves = pd.read_csv(ROOT / "plots/curves.csv")
    level = 1 - 0.05 / sum(len(accuracies) for arm in pages.ORIGINAL.values() for accuracies in arm.values())
    for (arm, step), ours in pages.beside_original(curves).items():
        half = t.ppf((1 + level) / 2, len(ours) - 1) * ours.std() * math.sqrt(1 + 1 / len(ours))
        for accuracy in pages.ORIGINAL[arm][step]:
            assert ours.mean() - half < accuracy < ours.mean() + half, (arm, step)
