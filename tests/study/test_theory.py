"""The formula of the dip against numbers worked by hand, brute force, and its limits."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bnstudy.study.theory import LIMIT, bottom, condition, excess, later, zero

variances = st.floats(0.01, 20)
starts = st.floats(0.05, 20)
GRID = np.linspace(0, 1, 20_001)


def brute(v1: float, v2: float, s0: float = 1.0) -> Any:
    """O on a fine grid of r."""
    shrunk = np.sqrt(v1 / (s0 * GRID + (1 - GRID) * v1)) * np.sqrt(v2 / (s0 * GRID + (1 - GRID) * v2))
    return (1 - GRID) / shrunk - 1


def test_excess_by_hand() -> None:
    """v1 = 0.04 and v2 = 4 with half of the start left: deviations sqrt(0.52) and sqrt(2.5) in place of 0.2 and 2."""
    assert excess(0.5, 0.04, 4.0) == pytest.approx(0.5 * math.sqrt(0.52 * 2.5 / 0.16) - 1)
    assert excess(0.5, 0.04, 4.0) == pytest.approx(0.425219, abs=1e-6)
    assert excess(0.5, 0.04, 4.0, s0=10) == pytest.approx(0.5 * math.sqrt(5.02 * 7 / 0.16) - 1)
    assert excess(0.0, 0.04, 4.0) == 0
    assert excess(1.0, 0.04, 4.0) == -1
    assert excess(0.3, 1.0, 1.0) == pytest.approx(-0.3)  # variances at their start: the means alone are too small


def test_condition_by_hand() -> None:
    assert condition(0.025, 5) == pytest.approx(40.2)
    assert condition(0.025, 5, 0.1) == pytest.approx(4.02)
    assert condition(0.3, 4.5) == pytest.approx(3.5556, abs=1e-4)
    assert condition(0.5, 0.5) == 4
    assert bottom(0.5, 0.5) is None
    assert zero(0.5, 0.5) is None


def test_bottom_and_zero_by_hand() -> None:
    """With v1 = v2 = v and s0 = 1 the formula is (1 - r)(r + (1 - r) v) / v - 1 = r ((1 - 2 v) - (1 - v) r) / v."""
    v = 0.1
    assert zero(v, v) == pytest.approx((1 - 2 * v) / (1 - v))
    assert bottom(v, v) == pytest.approx((1 - 2 * v) / (1 - v) / 2)


@given(variances, variances, starts)
def test_there_is_a_dip_if_and_only_if_the_condition_says_so(v1: float, v2: float, s0: float) -> None:
    assume(abs(condition(v1, v2, s0) - 4) > 0.01)
    assert (brute(v1, v2, s0).max() > 0) == (condition(v1, v2, s0) > 4) == (bottom(v1, v2, s0) is not None)


@given(variances, variances, starts)
def test_bottom_and_zero_are_those_of_brute_force(v1: float, v2: float, s0: float) -> None:
    assume(condition(v1, v2, s0) > 4.05)
    values, lowest, early = brute(v1, v2, s0), bottom(v1, v2, s0), zero(v1, v2, s0)
    assert lowest is not None
    assert early is not None
    assert excess(lowest, v1, v2, s0) >= values.max() - 1e-9
    assert lowest == pytest.approx(GRID[values.argmax()], abs=1e-4)
    assert excess(early, v1, v2, s0) == pytest.approx(0, abs=1e-6)
    assert lowest < early < 1
    assert early == pytest.approx(GRID[np.flatnonzero(values > 1e-12)[-1]], abs=1e-3)


def test_the_bottom_tends_to_a_quarter_for_a_small_and_a_large_variance() -> None:
    limit = GRID * (1 - GRID) ** 3
    assert GRID[limit.argmax()] == pytest.approx(LIMIT, abs=1e-4)
    found = [bottom(v1, v2) for v1, v2 in ((0.025, 5), (0.001, 100), (1e-6, 1e6))]
    assert found == pytest.approx([0.2478, 0.2501, LIMIT], abs=1e-4)
    assert found[2] == pytest.approx(LIMIT, abs=1e-5)
    v1, v2 = 1e-9, 1e9
    assert (1 + excess(0.4, v1, v2)) ** 2 * v1 == pytest.approx(0.4 * 0.6**3, rel=1e-6)


@pytest.mark.parametrize(
    ("v1", "v2", "expected"),  # the range of v1 and v2 in the note's network, and what the protocol says of it
    [(0.021, 4.0, (0.255, 0.748)), (0.025, 4.75, (0.249, 0.718)), (0.035, 5.5, (0.238, 0.663))],
)
def test_of_the_notes_network(v1: float, v2: float, expected: tuple[float, float]) -> None:
    assert (bottom(v1, v2), zero(v1, v2)) == pytest.approx(expected, abs=5e-4)
    assert 2.39 < (later(0.01, v1, v2, 10.0) or 0) < 2.48


@given(st.floats(0.01, 0.1), st.floats(1, 20), st.floats(1.5, 20), st.floats(0.001, 0.1))
def test_a_larger_start_moves_the_late_side_to_where_the_excess_is_the_same(
    v1: float, v2: float, s0: float, r: float
) -> None:
    usual = bottom(v1, v2)
    assume(usual is not None and r < usual)
    shift = later(r, v1, v2, s0)
    assert shift is not None
    assert shift > 0
    assert excess(r * math.exp(-shift), v1, v2, s0) == pytest.approx(excess(r, v1, v2), rel=1e-6)


def test_the_shift_tends_to_the_ratio_of_slopes_and_then_of_starts() -> None:
    v1, v2 = 0.025, 4.75
    slopes = [condition(v1, v2, s0) / 2 - 2 for s0 in (1.0, 10.0)]
    assert later(1e-6, v1, v2, 10.0) == pytest.approx(math.log(slopes[1] / slopes[0]), abs=1e-4)
    assert later(math.exp(-40), v1, v2, 10.0) == pytest.approx(math.log(slopes[1] / slopes[0]))
    assert later(1e-9, 1e-7, 1e3, 10.0) == pytest.approx(math.log(10), abs=1e-4)
    assert later(0.01, v1, v2, 1.0) == pytest.approx(0, abs=1e-9)
    assert (later(0.01, v1, v2, 0.5) or 0) < 0


def test_there_is_no_shift_where_there_is_no_late_side() -> None:
    assert later(0.01, 0.3, 4.5, 10.0) is None  # no dip at the usual start
    assert later(0.01, 0.025, 5.0, 0.09) is None  # none at the other
    assert later(0.5, 0.025, 5.0, 10.0) is None  # before the bottom
    assert later(0.2, 0.025, 5.0, 0.2) is None  # the other's never comes so high


def test_a_network_with_planted_variances_subtracts_as_much_too_much_as_the_formula_says() -> None:
    """Odd kernels make the means of conv1 and conv2 about 0, and are scaled so that their variances are v1 and v2."""
    torch = pytest.importorskip("torch")
    from bnstudy.engine.averages import precise_statistics, set_statistics, start_of
    from bnstudy.engine.network import build
    from bnstudy.params import Design

    design = Design(
        normalization="batch", normalize_logits=True, decay=0.0, epsilon=1e-7, initializer="truncated_normal"
    )
    network, (v1, v2) = build(design, 1, torch.device("cpu")), (0.03, 5.0)
    images_NHW = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (300, 28, 28)).astype(np.uint8))
    with torch.no_grad():
        for layer, start, end, planted in ((network.conv1, 0, 16, v1), (network.conv2, 16, 48, v2)):
            layer.weight -= layer.weight.flip(2, 3)
            variances_C = precise_statistics(network, images_NHW, 1.0, 1)[1, start:end]
            layer.weight *= (planted / variances_C).sqrt().view(-1, 1, 1, 1)
    precise_2C = precise_statistics(network, images_NHW, 1.0, 1)
    assert precise_2C[1, :48].numpy() == pytest.approx([v1] * 16 + [v2] * 32, rel=1e-3)

    network.eval()
    for r in (0.02, 0.25, 0.6):
        mixed_2C = r * start_of(precise_2C) + (1 - r) * precise_2C
        raw_2C = mixed_2C.clone()
        raw_2C[0, 48:1072], raw_2C[1, 48:1072] = 0.0, 1.0  # fc1 then passes on what enters its normalization
        set_statistics(network, raw_2C)
        entering_C = network.hidden_input(images_NHW).detach().mean(0)
        shrunk = float((entering_C / precise_2C[0, 48:1072]).median())
        assert (1 - r) / shrunk - 1 == pytest.approx(excess(r, v1, v2), abs=0.03)
