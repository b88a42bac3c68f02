"""Crossing times are known to an interval only: the truth never leaves it, and every verdict respects it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnstudy.engine.schedule import geometric
from bnstudy.study.crossing import Crossing, crossing, exactly, geometric_mean, ratio
from bnstudy.study.statistics import Estimate, Rule, estimate, interval, verdict

NEVER = math.inf
STEPS = [5, 10, 20, 40, 80, 160]
steps_of_a_run = st.lists(st.integers(1, 2000), min_size=1, max_size=25, unique=True).map(sorted)


@pytest.mark.parametrize(
    ("accuracies", "after", "by"),
    [
        ([0.1, 0.5, 0.9, 0.95, 0.97, 0.98], 10, 20),
        ([0.9, 0.9, 0.9, 0.1, 0.1, 0.1], 0, 5),  # reached, whatever follows
        ([0.1, 0.9, 0.1, 0.9, 0.9, 0.9], 20, 40),  # one lucky evaluation
        ([0.1, 0.9, 0.9, 0.1, 0.9, 0.9], 40, NEVER),  # two, and two at the end: it may have been after 40
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.9], 80, NEVER),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 160, NEVER),
    ],
)
def test_first_of_three_in_a_row(accuracies: list[float], after: float, by: float) -> None:
    found = crossing(STEPS, accuracies, 0.9)
    assert (found.after, found.by) == (after, by)
    assert (found.interpolated is None) == (after == 0 or by == NEVER)


@given(steps_of_a_run, st.integers(0, 2**25 - 1))
def test_against_a_plain_loop(steps: list[int], luck: int) -> None:
    accuracies = [float(luck >> i & 1) for i in range(len(steps))]
    by = NEVER
    for i in range(2, len(steps)):
        if accuracies[i - 2] == accuracies[i - 1] == accuracies[i] == 1:
            by = steps[i - 2]
            break
    found = crossing(steps, accuracies, 1.0)
    assert found.by == by
    assert found.after == max(
        (step for step, accuracy in zip(steps, accuracies, strict=True) if accuracy == 0 and step < by), default=0
    )


@given(st.floats(0.5, 3000), steps_of_a_run, steps_of_a_run)
def test_a_finer_grid_narrows_the_interval_around_the_truth(truth: float, coarse: list[int], more: list[int]) -> None:
    fine = sorted({*coarse, *more})
    of_coarse, of_fine = (crossing(steps, [step >= truth for step in steps], 1) for steps in (coarse, fine))
    for found in (of_coarse, of_fine):
        assert found.after < truth <= found.by
    assert of_coarse.after <= of_fine.after < of_fine.by <= of_coarse.by


@given(st.floats(6, 1000), st.integers(4, 64))
def test_interpolated_is_exact_where_accuracy_is_linear_in_the_logarithm(truth: float, per_decade: int) -> None:
    steps = geometric(5000, 5, per_decade)
    found = crossing(steps, [0.5 + 0.1 * math.log(step / truth) for step in steps], 0.5)
    assert found.interpolated == pytest.approx(truth)
    point = found.point()
    assert point.after == point.by == found.interpolated


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def test_raising_accuracies_never_makes_the_crossing_later(pairs: list[tuple[float, float]]) -> None:
    steps = geometric(2000, 5, 16)[: len(pairs)]
    lower = crossing(steps, [min(pair) for pair in pairs], 0.5)
    higher = crossing(steps, [max(pair) for pair in pairs], 0.5)
    assert higher.after <= lower.after
    assert higher.by <= lower.by
    if lower.interpolated and higher.interpolated:
        assert higher.interpolated <= lower.interpolated * (1 + 1e-12)


def exact(times: list[float]) -> list[Crossing]:
    return [exactly(time) for time in times]


def test_ratio_of_exact_times_is_that_of_their_logarithms() -> None:
    a, b = [20.0, 25, 40, 22, 31, 28, 27], [60.0, 50, 55, 80, 45, 90, 61]
    found = ratio(exact(a), exact(b))
    logs = np.log(a) - np.log(b)
    assert found.value == pytest.approx(np.exp(logs.mean()))
    assert (found.low, found.high) == pytest.approx(np.exp(interval(logs)))
    assert found.p == 2 / 2**7
    assert (found.n, found.bound) == (7, "exact")
    assert ratio(exact(a), exact(b), null=0.5).p == estimate(logs, null=math.log(0.5)).p != found.p


def test_equal_intervals_keep_their_width() -> None:
    found = ratio([Crossing(89, 103, 96)] * 10, [Crossing(281, 325, 300)] * 10)
    assert (found.low, found.value, found.high) == pytest.approx((89 / 325, 96 / 300, 103 / 281))


def test_a_run_that_never_gets_there_bounds_the_ratio() -> None:
    reached, never = Crossing(89, 103, 96), Crossing(2000, NEVER)
    fast, mixed = [reached] * 6, [*[reached] * 5, never]

    unbounded_below = ratio(fast, [never] * 6)
    assert (unbounded_below.low, unbounded_below.high) == pytest.approx((0, 103 / 2000))
    assert unbounded_below.bound == "at most"
    assert unbounded_below.value == pytest.approx(103 / 2000)
    assert verdict(unbounded_below, Rule(below=1), unbounded_below.p) == "holds"

    unbounded_above = ratio(mixed, fast)
    assert unbounded_above.low > 0
    assert unbounded_above.high == NEVER
    assert (unbounded_above.bound, unbounded_above.p) == ("at least", 1)
    assert unbounded_above.value == pytest.approx(((89 / 103) ** 5 * 2000 / 103) ** (1 / 6))

    assert ratio(mixed, mixed) == Estimate(None, 0, NEVER, 1, 6, "none")


def test_a_target_reached_at_once_was_reached_after_the_first_update_at_the_earliest() -> None:
    at_once, later = [Crossing(0, 5)] * 6, exact([50] * 6)
    found = ratio(at_once, later)
    assert (found.low, found.high) == pytest.approx((1 / 50, 5 / 50))
    assert found.value is not None
    assert found.low < found.value < found.high
    rates = ratio(at_once, later, floor=0)  # a rate may be any small number
    assert (rates.low, rates.high) == pytest.approx((0, 5 / 50))
    assert rates.bound == "at most"


def test_geometric_mean() -> None:
    found = geometric_mean([Crossing(4, 5, 4.5)] * 6)
    assert (found.low, found.value, found.high) == pytest.approx((4, 4.5, 5))
    assert found.p is None
    assert geometric_mean([Crossing(0, 0.5)] * 6).low == 1
    assert geometric_mean([Crossing(0, 0.5)] * 6, floor=0).low == 0


evaluations = st.integers(0, 30)  # the crossing lies after this one of the grid's


def run(index: int) -> Crossing:
    """A crossing after the grid's `index`-th evaluation; in the last few places: never."""
    steps = [0, *geometric(700, 5, 16)[:28]]
    if index >= len(steps) - 1:
        return Crossing(steps[-1], NEVER)
    after, by = steps[index : index + 2]
    return Crossing(after, by, math.sqrt(after * by) or None)


def rank(result: Estimate, rule: Rule, rivals: int) -> int:
    """How good a verdict: 0 refuted, 1 not shown, 2 holds."""
    assert result.p is not None
    return ["refuted", "not shown", "holds"].index(verdict(result, rule, min(1, rivals * result.p)))


@given(
    st.lists(st.tuples(evaluations, evaluations), min_size=1, max_size=10),
    st.integers(0, 9),
    st.integers(0, 30),
    st.sampled_from([0.5, 0.8, 1.0, 1.25]),
    st.sampled_from([1, 1.5, 5]),
)
def test_taking_successes_away_never_improves_the_verdict(
    pairs: list[tuple[int, int]], worse: int, later: int, margin: float, rivals: int
) -> None:
    a, b = [run(i) for i, _ in pairs], [run(i + 10) for _, i in pairs]
    worse %= len(a)
    worsened = [*a[:worse], run(pairs[worse][0] + later), *a[worse + 1 :]]
    before, after = ratio(a, b, null=margin), ratio(worsened, b, null=margin)
    assert after.low >= before.low
    assert after.high >= before.high
    assert rank(after, Rule(below=margin), rivals) <= rank(before, Rule(below=margin), rivals)
    assert rank(after, Rule(above=margin), rivals) >= rank(before, Rule(above=margin), rivals)


@given(st.lists(st.tuples(evaluations, evaluations, st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=10))
def test_whatever_the_true_times_their_statistics_lie_within(pairs: list[tuple[int, int, float, float]]) -> None:
    """The whole interval that exact times would give lies inside, and what is significant would be so with them."""

    def true_time(crossed: Crossing, place: float) -> float:
        start, end = max(crossed.after, 1), min(crossed.by, 1e6)
        return start + place * (end - start)

    a, b = [run(i) for i, *_ in pairs], [run(i) for _, i, *_ in pairs]
    truth = ratio(
        exact([true_time(crossed, pair[2]) for crossed, pair in zip(a, pairs, strict=True)]),
        exact([true_time(crossed, pair[3]) for crossed, pair in zip(b, pairs, strict=True)]),
    )
    found = ratio(a, b)
    assert found.low <= truth.low * (1 + 1e-9)
    assert truth.high <= found.high * (1 + 1e-9)
    assert truth.p is not None
    assert found.p is not None
    assert found.p >= truth.p
    assert truth == replace(truth, bound="exact")
