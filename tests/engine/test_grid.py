import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnstudy.engine.grid import grid


def test_grid_of_a_short_training() -> None:
    assert grid(60) == [5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 21, 24, 28, 32, 37, 43, 50, 58, 60]


@pytest.mark.parametrize("steps", [1, 4, 5])
def test_a_training_that_ends_before_the_grid_is_evaluated_once(steps: int) -> None:
    assert grid(steps) == [steps]


@given(st.integers(6, 200_000), st.integers(1, 100), st.integers(1, 20))
def test_grid_is_even_in_the_logarithm_to_whole_updates(steps: int, per_decade: int, first: int) -> None:
    found = grid(steps, per_decade, first)
    assert found[-1] == steps
    assert found[0] == min(first, steps)
    assert all(isinstance(step, int) for step in found)
    for step, following in pairwise(found):
        assert step < following <= (step + 0.5) * 10 ** (1 / per_decade) + 0.5
    assert len(found) <= per_decade * math.log10(max(steps / first, 1)) + 2
