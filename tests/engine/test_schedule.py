import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnstudy.engine.schedule import ages, fine, geometric, when
from bnstudy.study.params import Evaluation, Fine

STEPS = st.integers(1, 200_000)


def test_schedules_by_hand() -> None:
    assert geometric(100, 1, 8) == [1, 2, 3, 4, 6, 7, 10, 13, 18, 24, 32, 42, 56, 75, 100]
    assert geometric(4, 5, 16) == [4]  # a training that ends before is evaluated once
    assert fine(46, 40, 500, 1.05) == [40, 42, 44, 46]
    assert fine(1000, 40, 500, 1.05)[-2:] == [459, 482]
    assert ages(0.95, 1000, [(0.1, 0.3, 0.1), (1.0, 1.0, 0.5)]) == [2, 4, 6, 19]
    assert ages(0.95, 5, [(0.01, 0.3, 0.1)]) == [2, 4]  # no update is near age 0.01


@given(STEPS, st.integers(1, 20), st.integers(1, 100))
def test_geometric_is_even_in_the_logarithm_to_whole_updates(steps: int, first: int, per_decade: int) -> None:
    found = geometric(steps, first, per_decade)
    assert (found[0], found[-1]) == (min(first, steps), steps)
    for step, following in pairwise(found):
        assert step < following <= (step + 0.5) * 10 ** (1 / per_decade) + 0.5
    assert len(found) <= per_decade * math.log10(max(steps / first, 1)) + 2


@given(STEPS, st.integers(1, 100), st.integers(2, 1000), st.floats(1.01, 3))
def test_fine_reaches_from_start_to_end(steps: int, start: int, longer: int, factor: float) -> None:
    found, last = fine(steps, start, start * longer, factor), min(start * longer, steps)
    assert found[:1] == [start][: start <= steps]
    assert all(step < following <= (step + 0.5) * factor + 0.5 for step, following in pairwise(found))
    assert not found or last / factor - 1.5 <= found[-1] <= last


@given(st.floats(0.1, 0.9999), STEPS, st.floats(0.01, 3), st.integers(0, 40), st.floats(0.01, 1))
def test_ages_are_those_of_the_span(decay: float, steps: int, first: float, more: int, by: float) -> None:
    """Each age of a span has the update nearest to it, and each update is the nearest to an age."""
    found, unit = ages(decay, steps, [(first, first + more * by, by)]), -math.log(decay)
    wanted = [(first + place * by) / unit for place in range(more + 1)]
    assert all(any(abs(step - update) <= 0.5 + 1e-6 for update in wanted) for step in found)
    assert all(any(abs(step - update) <= 0.5 + 1e-6 for step in found) for update in wanted if 1 <= update <= steps - 1)
    assert found == sorted({*found})
    assert all(1 <= step <= steps for step in found)


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_averages_that_never_age(decay: float) -> None:
    assert ages(decay, 1000, [(0.1, 3.0, 0.1)]) == []


def test_what_the_study_evaluates_when() -> None:
    """On both grids, and at the moments within the training and after its last update the test split too."""
    evaluation = Evaluation(first=10, per_decade=2, fine=Fine(start=40, end=60, factor=1.2), moments=[15, 50, 100, 200])
    found = when(evaluation, 100)
    assert (found.coarse, found.tested) == ([10, 15, 32, 50, 100], [15, 50, 100])
    assert (found.fine, found.corrected) == ([40, 48, 58], True)
    assert when(evaluation, 40).tested == [15, 40]
