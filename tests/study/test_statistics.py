"""Each statistic against an independent oracle; the error rates of test and interval, enumerated."""

import math
from itertools import combinations, product
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import permutation_test

from bnstudy.study.statistics import (
    Estimate,
    Rule,
    estimate,
    every_seed,
    holm,
    interval,
    p_below,
    together,
    verdict,
)


def scipy_p(values: NDArray[np.float64], null: float, alternative: Literal["two-sided", "less", "greater"]) -> float:
    """SciPy adds signs in all 2^n ways, too; of whole numbers, so that equal sums are equal."""
    test = permutation_test(
        [values - null], np.sum, permutation_type="samples", n_resamples=2**values.size, alternative=alternative
    )
    return float(test.pvalue)


@pytest.mark.parametrize("n", [2, 3, 6, 9])
@pytest.mark.parametrize("center", [-2, 0, 1, 4])
def test_sign_flip_p_is_that_of_scipy(n: int, center: int) -> None:
    values = np.random.default_rng(n).integers(center - 4, center + 5, n).astype(float)
    assert estimate(values, null=1).p == pytest.approx(scipy_p(values, 1, "two-sided"))
    assert p_below(values, 1) == pytest.approx(scipy_p(values, 1, "less"))


def test_least_p() -> None:
    assert [estimate([0.1] * n, null=0).p for n in (1, 5, 6, 10)] == [1, 2 / 32, 2 / 64, 2 / 1024]
    assert estimate([0.0] * 10, null=0).p == 1
    assert estimate([0.1] * 10).p is None
    assert p_below([-1, math.inf]) == 1


def test_sums_that_differ_by_rounding_alone_are_equal() -> None:
    assert p_below([0.1, 0.2, -0.3]) == p_below([1, 2, -3])
    assert p_below([-0.1, -0.2, 0.3]) == p_below([-1, -2, 3])


@pytest.mark.parametrize("n", [6, 7, 10])
def test_interval_is_that_of_the_means_of_all_subsets(n: int) -> None:
    values = np.random.default_rng(n).normal(3, 2, n)
    means = sorted(np.mean(subset) for size in range(1, n + 1) for subset in combinations(values, size))
    k = {6: 1, 7: 2, 10: 20}[n]
    assert interval(values) == pytest.approx((means[k - 1], means[-k]))


@pytest.mark.parametrize("n", [6, 8])
def test_interval_holds_the_centers_that_scipys_test_does_not_reject(n: int) -> None:
    values = np.random.default_rng(n).exponential(size=n)
    low, high = interval(values)
    inside, outside = [low + 1e-6, high - 1e-6], [low - 1e-6, high + 1e-6]
    assert all(scipy_p(values, center, "two-sided") > 0.04 for center in inside)
    assert all(scipy_p(values, center, "two-sided") <= 0.04 for center in outside)


def test_intervals_of_few_equal_and_unbounded_values() -> None:
    assert interval([0.1] * 6) == (0.1, 0.1)
    assert interval([0.3, 0.1, 0.2, 0.1, 0.1]) == (-math.inf, math.inf)
    assert interval([math.inf, *[1.0] * 9]) == (-math.inf, math.inf)


@pytest.mark.parametrize(("n", "outside", "rejected"), [(6, 2, 2), (10, 40, 50)])
def test_error_rates_are_exact_for_values_of_any_size_and_random_sign(n: int, outside: int, rejected: int) -> None:
    """All samples that differ in signs alone, hence any mixture of symmetric distributions around 0."""
    sizes = np.random.default_rng(n).exponential(size=n)
    samples = [sizes * signs for signs in product([-1, 1], repeat=n)]
    found = [estimate(sample, null=0) for sample in samples]
    assert sum(not result.low <= 0 <= result.high for result in found) == outside
    assert sum(result.p is not None and result.p < 0.05 for result in found) == rejected <= 0.05 * 2**n


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=10), st.integers(0, 9), st.integers(0, 50))
def test_raising_a_value_raises_every_end(values: list[int], place: int, by: int) -> None:
    raised = list(values)
    raised[place % len(values)] += by
    before, after = estimate(values), estimate(raised)
    assert after.low >= before.low
    assert after.high >= before.high
    assert p_below(raised) >= p_below(values)


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=10))
def test_interval_lies_among_the_values_around_their_mean(values: list[float]) -> None:
    found = estimate(values)
    assert found.value is not None
    assert min(values) - 1e-9 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= max(values) + 1e-9


@given(
    st.lists(st.integers(-9, 9), min_size=6, max_size=10),
    st.integers(-5, 5),
)
def test_an_interval_that_clears_a_rule_comes_with_a_small_p(values: list[int], null: int) -> None:
    found = estimate(values, null=null)
    assert found.p is not None
    assert (found.high < null or found.low > null) == (found.p <= 0.04)


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # Wikipedia, "Holm–Bonferroni method"
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),  # R 4: p.adjust((1:5)/100, "holm")
        ([0.5, 0.9], [1, 1]),
        ([], []),
    ],
)
def test_holm_of_published_examples(p_values: list[float], adjusted: list[float]) -> None:
    assert list(holm({str(i): p for i, p in enumerate(p_values)}).values()) == pytest.approx(adjusted)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closure_of_bonferroni(p_values: list[float]) -> None:
    """Marcus, Peritz and Gabriel 1976: reject what every intersection that contains it rejects."""
    names = [str(i) for i in range(len(p_values))]
    intersections = [subset for size in range(1, len(names) + 1) for subset in combinations(range(len(names)), size)]
    adjusted = holm(dict(zip(names, p_values, strict=True)))
    assert list(adjusted) == names
    for i, name in enumerate(names):
        closed = max(min(1, len(subset) * min(p_values[j] for j in subset)) for subset in intersections if i in subset)
        assert adjusted[name] == pytest.approx(closed)


def found_in(low: float, high: float) -> Estimate:
    return Estimate(None, low, high, None, 10)


@pytest.mark.parametrize(
    ("low", "high", "rule", "p", "word"),
    [
        (0.2, 0.7, Rule(below=0.8), 0.01, "holds"),
        (-math.inf, 0.7, Rule(below=0.8), 0.01, "holds"),
        (0.2, 0.7, Rule(below=0.8), 0.05, "not shown"),
        (0.2, 0.7, Rule(below=0.8), None, "holds"),
        (0.2, 0.8, Rule(below=0.8), 0.01, "not shown"),
        (0.2, math.inf, Rule(below=0.8), 1, "not shown"),
        (0.81, math.inf, Rule(below=0.8), 1, "refuted"),
        (3.1, math.inf, Rule(above=3), 0.01, "holds"),
        (1.0, 2.9, Rule(above=3), 0.01, "refuted"),
        (4.1, 5.9, Rule(4, 6), None, "holds"),
        (3.9, 5.9, Rule(4, 6), None, "not shown"),
        (1.0, 3.9, Rule(4, 6), None, "refuted"),
        (6.1, 7.0, Rule(4, 6), None, "refuted"),
        (-math.inf, math.inf, Rule(4, 6), None, "not shown"),
    ],
)
def test_verdict(low: float, high: float, rule: Rule, p: float | None, word: str) -> None:
    assert verdict(found_in(low, high), rule, p) == word


def test_fewer_than_six_runs_show_nothing() -> None:
    assert verdict(estimate([5.0] * 5), Rule(4, 6), None) == "not shown"
    assert verdict(estimate([5.0] * 6), Rule(4, 6), None) == "holds"


def test_each_run_keeps_its_own_ends() -> None:
    assert estimate([1.0, 2.0]).ends == ((1.0, 1.0), (2.0, 2.0))
    assert estimate([1.0, 2.0], lows=[0.5, 1.5], highs=[1.5, math.inf]).ends == ((0.5, 1.5), (1.5, math.inf))
    assert [Rule(4, 6).allows(*ends) for ends in ((4.1, 5.9), (4.0, 5.9), (4.1, 6.0))] == [True, False, False]


def test_several_demands_together() -> None:
    assert together(["holds", "holds"]) == "holds"
    assert together(["holds", "not shown"]) == "not shown"
    assert together(["not shown", "refuted", "holds"]) == "refuted"


@pytest.mark.parametrize(
    ("against", "seeds", "word"),
    [
        (0, 6, "holds"),
        (1, 6, "not shown"),
        (2, 6, "refuted"),
        (10, 10, "refuted"),
        (0, 5, "not shown"),
        (5, 5, "not shown"),
    ],
)
def test_what_every_seed_must_be(against: int, seeds: int, word: str) -> None:
    assert every_seed(against, seeds) == word
