"""The note's own code lies where our seeds lie."""

import math

import pandas as pd
import pytest
from scipy.stats import t

import original


@pytest.fixture
def curves() -> pd.DataFrame:
    if not original.CURVES.exists():
        pytest.skip("no results are committed")
    return pd.read_csv(original.CURVES)


def test_it_is_set_beside_our_seeds(curves: pd.DataFrame) -> None:
    page = original.PAGE.read_text()
    assert original.written(page, curves) == page


def test_the_nearest_evaluation_of_the_test_split_stands_beside_it() -> None:
    rows = [(arm, seed, step, step / 1000 + seed / 100 if step != 150 else None)
            for arm in original.ORIGINAL for seed in (1, 2) for step in (100, 150, 200, 700)]  # fmt: skip
    curves = pd.DataFrame(rows, columns=["arm", "seed", "step", "test_accuracy"])
    lines = original.table(curves).splitlines()
    assert lines[0].endswith("| here, 2 seeds, lowest to highest |")
    assert "| `note_batch_norm` | 100 | 96.3% and 96.0% | 11.0% to 12.0% |" in lines
    assert "| `note_plain` | 760 | 91.7% | 71.0% to 72.0% |" in lines


def test_it_lies_where_one_more_of_our_seeds_would(curves: pd.DataFrame) -> None:
    """In the prediction intervals of our seeds at the nearest evaluation: of 95% for all of its accuracies together."""
    level = 1 - 0.05 / sum(len(accuracies) for arm in original.ORIGINAL.values() for accuracies in arm.values())
    for (arm, step), ours in original.ours(curves).items():
        if len(ours) < 2:
            pytest.skip("one seed has no interval")
        half = t.ppf((1 + level) / 2, len(ours) - 1) * ours.std() * math.sqrt(1 + 1 / len(ours))
        for accuracy in original.ORIGINAL[arm][step]:
            assert ours.mean() - half < accuracy < ours.mean() + half, (arm, step)
