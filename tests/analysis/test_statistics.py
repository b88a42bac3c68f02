"""Statistics on made-up data whose answers are known: by enumeration, by construction, or by simulation."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from bnstudy import BadInput
from bnstudy.analysis.statistics import (
    Comparison,
    Rule,
    alone,
    expanded,
    interval,
    paired_difference,
    paired_ratio,
    probability_better,
    sign_flip_p,
    verdict,
)

LIMIT = 1000
numbers = st.integers(-20, 20)
counts = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8).map(
    lambda pairs: tuple(zip(*pairs, strict=True))
)
# Steps up to twice the limit: those above it are what a run would have needed, had it gone on.
latent = st.integers(1, 2 * LIMIT)
latents = st.lists(st.tuples(latent, latent), min_size=1, max_size=8).map(lambda pairs: tuple(zip(*pairs, strict=True)))
fast = settings(max_examples=60, deadline=None)


def observed(steps):
    return [value if value <= LIMIT else None for value in steps]


def ratio(a, b, **keys):
    return paired_ratio(observed(a), observed(b), LIMIT, confidence=0.95, **keys)


def result(low, high, pairs=5):
    return Comparison(0.0, low, high, 1.0, 0.5, pairs)


# The interval


def exact_bca(values, confidence):
    """Expanded BCa levels and bootstrap means from all n**n resamples (Efron and Tibshirani 1993, section 14.3)."""
    means = np.array([sum(chosen) for chosen in itertools.product(values, repeat=len(values))]) / len(values)
    mean = sum(values) / len(values)
    z0 = stats.norm.ppf(((means < mean).mean() + (means <= mean).mean()) / 2)
    deviations = np.array(values) - mean
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    # Means spread by the factor sqrt((n - 1) / n) too little, and Student's quantiles lie farther out.
    n = len(values)
    z = z0 + stats.t(n - 1).ppf([(1 - confidence) / 2, (1 + confidence) / 2]) / math.sqrt((n - 1) / n)
    return stats.norm.cdf(z0 + z / (1 - acceleration * z)), means


@pytest.mark.parametrize("values", [(1, 2, 4, 8, 16, 32), (-3, -1, 0, 2, 2, 9), (0, 0, 0, 1, 1, 5)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_interval_ends_lie_at_the_levels_of_full_enumeration(values, confidence):
    levels, means = exact_bca(values, confidence)
    for end, level in zip(interval(values, confidence=confidence), levels, strict=True):
        # Three standard errors of 9,999 resamples, of the level itself and through z0.
        slack = 3 * math.sqrt(2 * level * (1 - level) / 9999) + 0.002
        assert (means < end - 1e-9).mean() - slack <= level <= (means <= end + 1e-9).mean() + slack


@pytest.mark.parametrize(
    ("draw", "true_mean", "n", "known"),
    [
        ("normal", 0, 5, 0.916),
        ("normal", 0, 10, 0.944),
        ("normal", 0, 20, 0.948),
        ("exponential", 1, 5, 0.889),
        ("exponential", 1, 10, 0.926),
        ("exponential", 1, 20, 0.938),
    ],
)
def test_coverage_is_the_documented_one(draw, true_mean, n, known):
    """`known`: that of 95% intervals with 9,999 resamples in 4,000 simulations of another seed."""
    samples = getattr(np.random.default_rng(7), draw)(size=(800, n))
    ends = np.array(
        [interval(values, confidence=0.95, resamples=999, random_state=i) for i, values in enumerate(samples)]
    )
    coverage = ((ends[:, 0] <= true_mean) & (true_mean <= ends[:, 1])).mean()
    assert abs(coverage - known) < 3 * math.sqrt(known * (1 - known) * (1 / 800 + 1 / 4000))


@pytest.mark.parametrize(("n", "tail"), [(5, 0.0010), (10, 0.0086), (20, 0.0159)])
def test_the_expanded_level_by_hand(n, tail):
    """Student's 97.5% points with 4, 9 and 19 degrees of freedom are 2.7764, 2.2622 and 2.0930."""
    z = math.sqrt(n / (n - 1)) * {5: 2.7764, 10: 2.2622, 20: 2.0930}[n]
    assert expanded(0.95, n, 10**6) == pytest.approx(math.erf(z / math.sqrt(2)), abs=1e-5)
    assert (1 - expanded(0.95, n, 10**6)) / 2 == pytest.approx(tail, abs=6e-5)


@fast
@given(st.integers(2, 30), st.floats(0.5, 0.9999), st.integers(99, 9999))
def test_the_level_is_expanded_as_far_as_the_resamples_reach(n, confidence, resamples):
    level = expanded(confidence, n, resamples)
    assert level == 1 - 2 / resamples or confidence < level < 1 - 2 / resamples


@fast
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_interval_is_finite_ordered_and_within_the_values(values):
    low, high = interval(values, confidence=0.95)
    slack = 1e-11 * max(map(abs, values))
    assert min(values) - slack <= low <= high <= max(values) + slack


@pytest.mark.parametrize("n", [2, 5, 30])
def test_interval_of_one_outlier_is_finite(n):
    assert all(map(math.isfinite, interval([0] * (n - 1) + [1], confidence=0.95, resamples=99)))


@fast
@given(st.floats(0, 1), st.floats(0, 1))
def test_interval_of_two_accuracies_is_one_of_accuracies(a, b):
    """Student's t gave 64.95% (18.57% to 111.33%)."""
    low, high = interval([a, b], confidence=0.95)
    assert 0 <= low <= high <= 1


def test_interval_of_equal_values_is_the_value():
    assert interval([0.1] * 7, confidence=0.95) == (0.1, 0.1)
    assert interval([0.0] * 7, confidence=0.95) == (0, 0)
    rounded = [0.9913 - 0.9910, 0.0003]
    assert rounded[0] != rounded[1]
    assert interval(rounded, confidence=0.95) == (min(rounded), max(rounded))


# The sign-flip test


def brute_force_p(differences):
    sums = [sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in sign_patterns(len(differences))]
    return sum(abs(value) >= abs(sum(differences)) for value in sums) / len(sums)


def sign_patterns(n):
    return list(itertools.product((1, -1), repeat=n))


@fast
@given(st.lists(numbers, min_size=1, max_size=8))
def test_p_equals_enumeration(differences):
    assert sign_flip_p(differences) == pytest.approx(brute_force_p(differences))
    in_tenthousandths = [difference / 10_000 for difference in differences]
    assert sign_flip_p(in_tenthousandths) == pytest.approx(brute_force_p(differences))


def test_sums_that_rounding_parts_still_tie():
    """Their sum is 0, so every pattern is as extreme; without rounding, p is 0.875."""
    assert sign_flip_p([0.0005, 0.0002, -0.0005, -0.0002]) == 1


def test_random_patterns_count_the_observed_one():
    """No random pattern of 20 equals the observed one: 1 of 200 on each side."""
    assert sign_flip_p([1.0] * 20, resamples=199) == 2 / 200


def test_p_is_exact_up_to_13_pairs():
    assert sign_flip_p([1.0] * 13) == 2 / 2**13


def test_under_the_null_p_is_at_most_alpha_in_exactly_alpha_of_the_patterns():
    """All sign patterns of given sizes are the null hypothesis itself; sizes whose sums differ leave no ties."""
    sizes = np.array([1, 2, 4, 8, 16, 32, 64])
    p_values = np.array([sign_flip_p(sizes * signs) for signs in sign_patterns(7)])
    for k in range(1, 65):
        assert np.mean(p_values <= k / 64) == k / 64


@pytest.mark.parametrize(("n", "resamples"), [(10, 1024), (20, 999)], ids=["exact", "random"])
def test_under_the_null_p_is_uniform(n, resamples):
    samples = np.random.default_rng(3).normal(size=(400, n))
    p_values = [sign_flip_p(values, resamples=resamples, random_state=i) for i, values in enumerate(samples)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


@fast
@given(latents.filter(lambda pair: len(pair[0]) <= 5))
def test_under_the_null_p_holds_its_level_with_censored_runs(pair):
    """The null hypothesis: in each pair the runs could change places, whether they reached the target or not."""
    swapped = [
        [(y, x) if s < 0 else (x, y) for s, x, y in zip(signs, *pair, strict=True)]
        for signs in sign_patterns(len(pair[0]))
    ]
    p_values = [ratio(*zip(*pairs, strict=True), resamples=99).p for pairs in swapped]
    for alpha in (0.05, 0.125, 0.25, 0.5, 0.75):
        assert np.mean(np.array(p_values) <= alpha) <= alpha


# The probability of being better


@pytest.mark.parametrize(
    ("a", "b", "share"),
    [((2, 2, 2, 2), (1, 1, 1, 3), 0.75), ((1, 1), (1, 1), 0.5), ((3, 1, 2), (1, 1, 2), 2 / 3), ((1,), (2,), 0)],
)
def test_probability_better_counts_wins_and_half_of_ties(a, b, share):
    assert probability_better(a, b) == pytest.approx(share)


# Comparisons


def close(value, expected):
    return value is expected is None or value == pytest.approx(expected, rel=1e-6, abs=1e-9)


def assert_mirrored(one, other, mirror):
    """`other` is `one` with a and b exchanged; `mirror` maps an estimate to the exchanged one."""
    for here, there in [("estimate", "estimate"), ("low", "high"), ("high", "low")]:
        value, expected = getattr(other, there), getattr(one, here)
        assert close(value, None if expected is None else mirror(expected))
    assert other.p == pytest.approx(one.p)
    assert other.probability_better == pytest.approx(1 - one.probability_better)
    assert (one.censored_a, one.censored_b) == (other.censored_b, other.censored_a)


@fast
@given(counts)
def test_swapping_mirrors_a_difference(pair):
    a, b = pair
    one, other = paired_difference(a, b, confidence=0.9), paired_difference(b, a, confidence=0.9)
    assert one.estimate == pytest.approx(np.mean(a) - np.mean(b))
    assert_mirrored(one, other, lambda value: -value)


@fast
@given(latents)
def test_swapping_mirrors_a_ratio(pair):
    one, other = ratio(*pair), ratio(*pair[::-1])
    assert_mirrored(one, other, lambda value: 1 / value)
    assert other.bound == {"at least": "at most", "at most": "at least"}.get(one.bound, one.bound)


@fast
@given(latents, st.integers(2, 9))
def test_a_ratio_does_not_depend_on_the_unit(pair, factor):
    a, b = map(observed, pair)
    scaled = [[value and value * factor for value in side] for side in (a, b)]
    one, other = ratio(*pair), paired_ratio(*scaled, LIMIT * factor, confidence=0.95)
    assert all(close(getattr(other, name), getattr(one, name)) for name in ("estimate", "low", "high", "p"))
    assert other.probability_better == one.probability_better


@fast
@given(latents)
def test_a_censored_estimate_bounds_the_uncensored_one(pair):
    a, b = map(np.array, pair)
    true = stats.gmean(a / b)
    found = ratio(a, b)
    assert (found.censored_a, found.censored_b) == ((a > LIMIT).sum(), (b > LIMIT).sum())
    assert found.pairs == len(a)
    if found.bound == "exact":
        assert found.estimate == pytest.approx(true)
    elif found.bound == "at least":
        assert found.censored_a
        assert found.high is None
        assert found.estimate <= true * (1 + 1e-12)
    elif found.bound == "at most":
        assert found.censored_b
        assert found.low is None
        assert found.estimate >= true * (1 - 1e-12)
    else:
        assert found.censored_a
        assert found.censored_b
        assert found.estimate is found.low is found.high is None


@fast
@given(latents)
def test_the_order_of_runs_is_known_unless_both_are_censored(pair):
    a, b = pair
    assume(not any(x > LIMIT and y > LIMIT for x, y in zip(a, b, strict=True)))
    assert ratio(a, b).probability_better == probability_better([-x for x in a], [-y for y in b])


def test_the_low_end_holds_with_censored_runs():
    """The true ratio is 2 and 8% of the runs of a are cut: `low` passes 2 no oftener than when none is."""
    normal = np.random.default_rng(5).normal(size=(2, 300, 10))
    a, b = LIMIT / 2 * np.exp(0.5 * normal[0]), LIMIT / 4 * np.exp(0.2 * normal[1])
    cut = [ratio(*pair, resamples=199) for pair in zip(a, b, strict=True)]
    whole = [paired_ratio(*pair, 10 * LIMIT, confidence=0.95, resamples=199) for pair in zip(a, b, strict=True)]
    assert sum(found.bound == "at least" for found in cut) > 100
    assert np.mean([found.low > 2 for found in cut]) <= np.mean([found.low > 2 for found in whole]) < 0.1


def test_known_ratio():
    found = paired_ratio([200, 400, None], [400, 400, 250], 500, confidence=0.95)
    assert found.estimate == pytest.approx(1)
    assert (found.low, found.high) == (pytest.approx(0.5), None)
    assert (found.p, found.probability_better, found.pairs) == (1, 0.5, 3)
    assert (found.censored_a, found.censored_b, found.bound) == (1, 0, "at least")


def test_single_seed():
    found = paired_difference([0.99], [0.98], confidence=0.95)
    assert found.estimate == pytest.approx(0.01)
    assert (found.low, found.high, found.p, found.probability_better, found.pairs) == (None, None, 1, 1, 1)
    assert verdict(found, Rule(above=0), minimum_runs=1) == "not decided"
    assert paired_ratio([None], [10], 100, confidence=0.95).estimate == pytest.approx(10)


def test_equal_variants():
    same = [0.99, 0.98, 0.97, 0.99, 0.98]
    found = paired_difference(same, same, confidence=0.95)
    assert (found.estimate, found.low, found.high, found.p, found.probability_better) == (0, 0, 0, 1, 0.5)
    assert verdict(found, Rule(above=0)) == "not decided"
    assert verdict(found, Rule(above=-0.001, below=0.001)) == "supported"


def test_one_variant_alone_has_neither_p_nor_a_probability():
    found = paired_difference([0.9, 0.8], [0, 0], confidence=0.95)
    assert alone(found) == replace(found, p=None, probability_better=None)


def test_random_state_fixes_the_result():
    values = np.random.default_rng(0).normal(size=20)
    for results in (
        [interval(values, confidence=0.95, random_state=state) for state in (1, 1, 2)],
        [sign_flip_p(values, random_state=state) for state in (1, 1, 2)],
    ):
        assert results[0] == results[1] != results[2]


def test_bad_input_is_named():
    for a, b in [([], []), ([1], [1, 2]), ([math.nan], [1]), ([1], [math.inf]), ([1e308], [-1e308])]:
        with pytest.raises(BadInput):
            paired_difference(a, b, confidence=0.95)
    for a, b in [([], []), ([1], [1, 2]), ([0], [1]), ([101], [1]), ([math.nan], [1])]:
        with pytest.raises(BadInput):
            paired_ratio(a, b, 100, confidence=0.95)


# The verdict


@pytest.mark.parametrize(
    ("low", "high", "claim", "expected"),
    [
        (0.1, 0.2, {"above": 0}, "supported"),
        (-0.2, -0.1, {"above": 0}, "refuted"),
        (-0.1, 0.2, {"above": 0}, "not decided"),
        (0.1, 0.2, {"above": 0.15}, "not decided"),
        (0.0, 0.2, {"above": 0}, "not decided"),
        (-0.2, 0.0, {"above": 0}, "not decided"),
        (0.4, 0.9, {"below": 1}, "supported"),
        (1.1, 1.9, {"below": 1}, "refuted"),
        (0.4, 1.9, {"below": 1}, "not decided"),
        (-0.1, 0.1, {"above": -0.2, "below": 0.2}, "supported"),
        (-0.3, 0.1, {"above": -0.2, "below": 0.2}, "not decided"),
        (-0.3, 0.3, {"above": -0.2, "below": 0.2}, "not decided"),
        (0.3, 0.4, {"above": -0.2, "below": 0.2}, "refuted"),
        (-0.4, -0.3, {"above": -0.2, "below": 0.2}, "refuted"),
        # An unlimited end: from "at least", "at most" and "none".
        (1.1, None, {"above": 1}, "supported"),
        (1.1, None, {"below": 1}, "refuted"),
        (0.9, None, {"below": 1}, "not decided"),
        (0.9, None, {"above": 0.5, "below": 1}, "not decided"),
        (None, 0.9, {"below": 1}, "supported"),
        (None, 0.9, {"above": 1}, "refuted"),
        (None, 0.9, {"above": 0.5}, "not decided"),
        (None, None, {"above": 0}, "not decided"),
        (None, None, {"below": 0}, "not decided"),
        # Margins that the claim includes.
        (1, 2, {"above": 1, "below": 2, "inclusive": True}, "supported"),
        (0.9, 2, {"above": 1, "below": 2, "inclusive": True}, "not decided"),
        (1, 2.1, {"above": 1, "below": 2, "inclusive": True}, "not decided"),
        (2, 3, {"below": 2, "inclusive": True}, "not decided"),
        (2.1, 3, {"below": 2, "inclusive": True}, "refuted"),
        (None, 2, {"below": 2, "inclusive": True}, "supported"),
        (1, None, {"above": 1, "inclusive": True}, "supported"),
        (1, None, {"above": 1, "below": 2, "inclusive": True}, "not decided"),
    ],
)
def test_verdict(low, high, claim, expected):
    assert verdict(result(low, high), Rule(**claim)) == expected
    assert verdict(result(low, high, pairs=4), Rule(**claim)) == "not decided"
    assert verdict(result(low, high, pairs=4), Rule(**claim), minimum_runs=4) == expected
    opposite = {"supported": "refuted", "refuted": "supported"}.get(expected, expected)
    assert verdict(result(low, high), Rule(**claim, beyond=True)) == opposite


@pytest.mark.parametrize("claim", [{}, {"above": 1, "below": 1}, {"above": 2, "below": 1}, {"above": math.nan}])
def test_a_claim_that_says_nothing_is_refused(claim):
    with pytest.raises(BadInput):
        verdict(result(0, 1), Rule(**claim))
