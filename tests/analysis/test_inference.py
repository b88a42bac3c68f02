"""Each statistic against an independent oracle; the error rates of test and interval, enumerated and simulated."""

import math
from collections.abc import Callable
from itertools import combinations, product
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import permutation_test, ttest_1samp

from bnstudy.analysis.inference import (
    Estimate,
    Rule,
    equivalence_p,
    estimate,
    holm,
    interval,
    p_below,
    sign_patterns,
    together,
    verdict,
)

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


def normal(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return rng.normal(size=n)


def exponential(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return rng.exponential(size=n) - 1  # its mean, too, is 0


def skewed_pairs(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return rng.exponential(size=n) - rng.exponential(size=n)


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
    margin_p = max(scipy_p(values, 3, "less"), scipy_p(values, -3, "greater"))
    assert equivalence_p(values, 3) == pytest.approx(margin_p)


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


SIMULATIONS = 4_000


@pytest.mark.parametrize("draw", [normal, skewed_pairs])
@pytest.mark.parametrize(("n", "coverage", "error"), [(6, 1 - 2 / 64, 2 / 64), (10, 1 - 40 / 1024, 50 / 1024)])
def test_simulated_error_rates_are_the_exact_ones(n: int, coverage: float, error: float, draw: Draw) -> None:
    """Within 3 standard errors of the rates enumerated above, which are 93% to 97% and at most 5%."""
    rng = np.random.default_rng(16)
    found = [estimate(draw(rng, n), null=0) for _ in range(SIMULATIONS)]
    assert 0.93 <= coverage <= 0.97
    assert error <= 0.05
    slack = 3 / math.sqrt(SIMULATIONS)
    covered = np.mean([result.low <= 0 <= result.high for result in found])
    rejected = np.mean([result.p is not None and result.p < 0.05 for result in found])
    assert covered == pytest.approx(coverage, abs=slack * math.sqrt(coverage * (1 - coverage)))
    assert rejected == pytest.approx(error, abs=slack * math.sqrt(error * (1 - error)))


@pytest.mark.parametrize(("n", "least", "expected"), [(6, 0.92, 0.934), (10, 0.91, 0.917)])
def test_simulated_coverage_of_exponential_values(n: int, least: float, expected: float) -> None:
    rng = np.random.default_rng(16)
    intervals = [interval(exponential(rng, n)) for _ in range(2 * SIMULATIONS)]
    covered = np.mean([low <= 0 <= high for low, high in intervals])
    assert covered >= least
    assert covered == pytest.approx(expected, abs=0.01)


def test_of_many_values_a_closed_half_of_patterns_keeps_the_test_exact() -> None:
    patterns = sign_patterns(30)
    codes = set(patterns.astype(int) @ (1 << np.arange(30)))
    assert len(codes) == 2**14
    some = sorted(codes)[:: 2**14 // 50]
    assert all(a ^ b in codes for a in some for b in some)

    values = np.random.default_rng(16).normal(0.3, size=30)
    found, students = estimate(values, null=0), ttest_1samp(values, 0)
    assert found.p == pytest.approx(students.pvalue, abs=0.01)
    expected = students.confidence_interval(0.96)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.03)


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


@pytest.mark.parametrize(("center", "certain"), [(0.0, True), (0.3, True), (0.9, False), (1.5, False)])
def test_equivalence_agrees_with_two_of_students_tests(center: float, certain: bool) -> None:
    values = np.random.default_rng(16).normal(center, 0.5, 10)
    students = max(
        ttest_1samp(values, 1, alternative="less").pvalue, ttest_1samp(values, -1, alternative="greater").pvalue
    )
    assert equivalence_p(values, 1) == pytest.approx(students, abs=0.03)
    assert (equivalence_p(values, 1) < 0.05) == (students < 0.05) == certain


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
