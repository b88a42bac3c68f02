"""The nine claims on made-up runs whose verdicts are known."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bnstudy.analysis.claim import Claim, Results, Runs
from bnstudy.analysis.claims import CLAIMS, averages, training
from bnstudy.analysis.claims import sweep as sweeps
from bnstudy.params import Summarize, Sweep
from bnstudy.records import Run

RULES = Summarize(
    confidence=0.95,
    minimum_runs=5,
    accuracy_margin=0.001,
    warm_within=0.01,
    slow_decay=0.999,
    slow_steps=[500, 2000],
    fast_decay=0.95,
    fast_steps=100,
    useless_accuracy=0.5,
    fine_accuracy=0.95,
)
SWEEP = Sweep(
    variants=["batch_norm", "plain", "batch_norm_hidden", "plain_he"],
    seeds=[0, 1, 2, 3, 4],
    steps=300,
    learning_rates=[0.01, 0.1, 1.0],
    batch_sizes=[64, 256, 1024],
    target_accuracy=0.95,
)
PART = [
    *("part", "quantity", "estimate", "low", "high", "bound", "p", "probability_better"),
    *("runs", "censored_a", "censored_b", "rule", "verdict"),
]
LIMIT = 1000
NOISE = np.array([-0.1, 0.0, 0.1, -0.05, 0.05])  # of five seeds; its mean is 0


def make_runs(reached: Mapping[str, Sequence[int | None]], accuracies: Mapping[str, Any] | None = None) -> Runs:
    """Runs by variant that reached 97% at these steps; none reached 99%."""
    confusion = np.eye(10, dtype=int).tolist()
    runs: Runs = {}
    for variant, steps in reached.items():
        found = [0.9] * len(steps) if accuracies is None else accuracies[variant]
        runs[variant] = [
            Run(
                seed=seed,
                test_accuracy=value,
                test_loss=0.1,
                steps_to={0.97: step, 0.99: None},
                confusion=confusion,
                environment={},
            )
            for seed, (step, value) in enumerate(zip(steps, found, strict=True))
        ]
    return runs


def make_curves(least: Mapping[str, Sequence[float]], rate: float = 0.1) -> pd.DataFrame:
    """Histories whose training loss falls to the `least` of a run, and rises again."""
    return pd.DataFrame(
        {"variant": variant, "seed": seed, "step": step, "learning_rate": rate * 0.5**number, "train_loss": loss}
        for variant, losses in least.items()
        for seed, lowest in enumerate(losses)
        for number, (step, loss) in enumerate([(1, lowest + 2), (500, lowest), (LIMIT, lowest + 0.1)])
    )


def make_warmup(steps: Sequence[int], *seeds: Mapping[tuple[str, float | None], Sequence[float]]) -> pd.DataFrame:
    """A table of test accuracies, from one mapping per seed: (statistics, decay) to values at `steps`."""
    return pd.DataFrame(
        {"seed": seed, "step": step, "statistics": statistics, "decay": decay, "test_accuracy": accuracy}
        for seed, series in enumerate(seeds)
        for (statistics, decay), accuracies in series.items()
        for step, accuracy in zip(steps, accuracies, strict=True)
    ).astype({"decay": float})


def make_sweep(kind: str, accuracies: Mapping[str, Mapping[float, Sequence[float]]]) -> pd.DataFrame:
    """Runs of the sweep by variant and learning rate or batch size, one per seed; both accuracies are the same."""
    return pd.DataFrame(
        {"variant": variant, "kind": kind, "seed": seed, {"rate": "learning_rate", "batch": "batch_size"}[kind]: value}
        | {"diverged": 0, "validation_accuracy": accuracy, "test_accuracy": accuracy}
        for variant, by_value in accuracies.items()
        for value, by_seed in by_value.items()
        for seed, accuracy in enumerate(by_seed)
    )


def judge(
    claim: Claim,
    runs: Runs | None = None,
    curves: pd.DataFrame | None = None,
    warmup: pd.DataFrame | None = None,
    sweep: pd.DataFrame | None = None,
    settings: Sweep = SWEEP,
) -> dict[str, Any]:
    """What is found of `claim`, as in metrics/claims.json. It gets only the tables that it reads."""
    tables = [pd.DataFrame() if table is None else table for table in (curves, warmup, sweep)]
    results = Results(*tables, targets=[0.97, 0.99], averaged="batch_norm", settings=settings, rules=RULES)
    return claim.judge(results, runs or {}).model_dump(mode="json")


def only(claim: dict[str, Any]) -> dict[str, Any]:
    """The one part of a claim, which decides it."""
    (part,) = claim["parts"]
    assert list(part) == PART
    assert claim["verdict"] == part["verdict"]
    return dict(part)


# 1 and 2: steps


def steps_claim(a: Sequence[int | None], b: Sequence[int | None]) -> dict[str, Any]:
    runs = make_runs({"batch_norm": a, "plain": b})
    curves = make_curves({"batch_norm": [0.3] * len(a), "plain": [0.1] * len(b)})
    return judge(training.ORIGINAL, runs, curves)


def test_fewer_steps_are_faster() -> None:
    found = only(steps_claim([101, 201, 101, 101, 201], [401, 401, 301, 501, 401]))
    expected = math.exp(np.mean(np.log([101 / 401, 201 / 401, 101 / 301, 101 / 501, 201 / 401])))
    assert found["verdict"] == "supported"
    assert found["estimate"] == pytest.approx(expected, rel=1e-5)
    assert 101 / 501 < found["low"] < expected < found["high"] < 0.502  # 201 / 401 is the highest
    assert (found["p"], found["probability_better"], found["runs"]) == (2 / 2**5, 1, 5)
    assert (found["part"], found["rule"], found["bound"]) == ("to 97%, original", "below 1×", "exact")


@pytest.mark.parametrize(
    ("a", "b", "verdict", "bound"),
    [
        ([401, 401, 301, 501, 401], [101, 201, 101, 101, 201], "refuted", "exact"),
        ([101, 401, 101, 401, 201], [401, 101, 201, 101, 201], "not decided", "exact"),
        ([101] * 4, [401] * 4, "not decided", "exact"),  # too few runs
        ([101, 201, 101, 101, 201], [None] * 5, "supported", "at most"),
        ([None] * 5, [101, 201, 101, 101, 201], "refuted", "at least"),
        ([101, 201, 101, 101, None], [401, None, 301, 501, 401], "not decided", "none"),
    ],
)
def test_steps(a: Sequence[int | None], b: Sequence[int | None], verdict: str, bound: str) -> None:
    found = only(steps_claim(a, b))
    assert (found["verdict"], found["bound"]) == (verdict, bound)
    assert (found["censored_a"], found["censored_b"]) == (a.count(None), b.count(None))


def test_a_target_that_no_run_reached_is_left_out() -> None:
    assert steps_claim([None] * 5, [None] * 5)["verdict"] == "not measured"


FAIR = ("batch_norm_hidden", "plain_he")


def test_the_fair_comparison_names_the_rates_and_the_best_ones() -> None:
    runs = make_runs(dict.fromkeys(FAIR, [101] * 5))
    curves = pd.concat([make_curves({"batch_norm_hidden": [0.1]}, rate=0.3), make_curves({"plain_he": [0.1]}, 0.1)])
    # Equal means, but for rounding: the smaller rate is the best one.
    hidden = {0.1: [0.955, 0.955], 0.3: [0.98, 0.93], 1.0: [0.5, 0.99]}
    table = make_sweep("rate", {"batch_norm_hidden": hidden, "plain_he": {0.1: [0.99, 0.95], 0.3: [0.97, 0.96]}})
    measured = judge(training.FAIR, runs, curves, sweep=table)["measured"]
    assert (
        "batch_norm_hidden at the rate 0.3, not the sweep's best, 0.1; plain_he at the rate 0.1, the sweep's best."
        in (measured)
    )
    measured = judge(training.FAIR, runs, curves, sweep=table[table["variant"] == "plain_he"])["measured"]
    assert "batch_norm_hidden at the rate 0.3, not swept; plain_he at the rate 0.1, the sweep's best." in measured


# 3: final accuracy


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (0.003 + 0.01 * NOISE, "supported"),
        (-0.003 + 0.01 * NOISE, "supported"),
        (0.004 * NOISE, "refuted"),
        (0.001 + 0.01 * NOISE, "not decided"),
        (0.1 * NOISE, "not decided"),
    ],
)
def test_final_accuracy_differs_beyond_the_margin(difference: Sequence[float], verdict: str) -> None:
    accuracies = {"batch_norm": 0.9 + np.asarray(difference), "plain": [0.9] * 5}
    found = only(judge(training.FINAL_ACCURACY, make_runs(dict.fromkeys(accuracies, [1] * 5), accuracies)))
    assert (found["part"], found["verdict"], found["rule"]) == ("original", verdict, "below -0.1 or above 0.1 points")
    assert found["estimate"] == pytest.approx(np.mean(difference), rel=1e-5)


def test_one_refuted_part_refutes_and_one_undecided_leaves_open() -> None:
    def verdict(original: Any, fair: Any) -> str:
        by_variant = {"batch_norm": original, "plain": 0 * NOISE, FAIR[0]: fair, FAIR[1]: 0 * NOISE}
        accuracies = {variant: 0.9 + values for variant, values in by_variant.items()}
        found = judge(training.FINAL_ACCURACY, make_runs(dict.fromkeys(accuracies, [1] * 5), accuracies))
        assert [part["part"] for part in found["parts"]] == ["original", "fair"]
        return str(found["verdict"])

    differs, same, open_ = 0.003 + 0.01 * NOISE, 0.004 * NOISE, 0.1 * NOISE
    assert verdict(differs, differs) == "supported"
    assert verdict(differs, same) == verdict(open_, same) == "refuted"
    assert verdict(differs, open_) == "not decided"


# 4: lag


@given(
    data=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 400), st.integers(0, 400)), min_size=1, max_size=12),
    within=st.integers(1, 300),
)
@example(data=[(1, 9700, 9600)], within=100)  # as floats, more than 0.01 apart
def test_lag_by_definition(data: list[tuple[int, int, int]], within: int) -> None:
    """In whole ten-thousandths of accuracy: the least step from which on no evaluation is farther apart."""
    steps = list(np.cumsum([gap for gap, _, _ in data]))
    moving, precise = ([row[side] for row in data] for side in (1, 2))
    warm = [
        step
        for step in steps
        if all(abs(m - p) <= within for at, m, p in zip(steps, moving, precise, strict=True) if at >= step)
    ]
    series = {("moving", 0.9): np.divide(moving, 10_000), ("precise", None): np.divide(precise, 10_000)}
    other = {
        ("moving", 0.5): [0.7] * len(data),
        ("corrected", 0.9): [0.7] * len(data),
        ("batch", None): [0.7] * len(data),
    }
    table = make_warmup(steps, {**series, **other}, other)
    assert averages.lag(table, 0, 0.9, within / 10_000) == min(warm, default=None)


WARM_STEPS = [1, 10, 50, 200, 600, 1000, 1500, 3000]


def warming(*lags: tuple[int | None, int | None]) -> pd.DataFrame:
    """Averages that reach the precise statistics' 0.95 at these steps, one pair per seed: of decays 0.999 and 0.95."""
    return make_warmup(
        WARM_STEPS,
        *[
            {
                **{
                    ("moving", decay): [0.95 if lag and step >= lag else 0.1 for step in WARM_STEPS]
                    for decay, lag in [(0.999, slow), (0.95, fast)]
                },
                ("precise", None): [0.95] * len(WARM_STEPS),
            }
            for slow, fast in lags
        ],
    )


@pytest.mark.parametrize(
    ("slow", "fast", "verdicts", "verdict"),
    [
        ([600, 1000, 1000, 1500, 1000], [10, 50, 50, 10, 50], ["supported", "supported"], "supported"),
        ([50, 200, 200, 200, 50], [10, 50, 50, 10, 50], ["refuted", "supported"], "refuted"),
        ([3000] * 5, [10] * 5, ["refuted", "supported"], "refuted"),
        ([None] * 5, [200] * 5, ["refuted", "refuted"], "refuted"),  # later than 3,000, and than 2,000 thus
        ([600, 1000, 1000, 1500, None], [10, 50, 50, 10, 50], ["not decided", "supported"], "not decided"),
        ([1000] * 4, [10] * 4, ["not decided", "not decided"], "not decided"),
    ],
)
def test_warm_up(slow: list[int | None], fast: list[int | None], verdicts: list[str], verdict: str) -> None:
    found = judge(averages.WARM_UP, warmup=warming(*zip(slow, fast, strict=True)))
    assert [part["verdict"] for part in found["parts"]] == verdicts
    assert [part["rule"] for part in found["parts"]] == ["at least 500 and at most 2000 updates", "at most 100 updates"]
    assert found["verdict"] == verdict
    for part, lags in zip(found["parts"], (slow, fast), strict=True):
        assert part["censored_a"] == lags.count(None)
        assert part["estimate"] == pytest.approx(math.exp(np.mean([np.log(lag or 3001) for lag in lags])), rel=1e-5)
        assert part["bound"] == ("at least" if None in lags else "exact")
        assert part["p"] is part["probability_better"] is None


def test_the_rules_of_claim_4_include_their_ends() -> None:
    table = warming(*[(3000, 50)] * 5).replace({"step": {3000: 2000, 50: 100}})
    assert [part["verdict"] for part in judge(averages.WARM_UP, warmup=table)["parts"]] == ["supported"] * 2


def test_averages_that_are_cold_where_the_rule_ends_take_longer() -> None:
    cold = warming(*[(None, 10)] * 5)
    slow, _ = judge(averages.WARM_UP, warmup=cold.replace({"step": {3000: 2000}}))["parts"]
    assert (slow["bound"], slow["low"], slow["high"], slow["verdict"]) == ("at least", 2001, None, "refuted")
    slow, _ = judge(averages.WARM_UP, warmup=cold.replace({"step": {3000: 1999}}))["parts"]
    assert slow["verdict"] == "not decided"


def test_a_decay_that_was_not_run_is_left_out() -> None:
    table = warming(*[(1000, 10)] * 5)
    fast_only = table[table["decay"] != 0.999]
    assert only(judge(averages.WARM_UP, warmup=fast_only))["part"] == "decay 0.95"
    assert judge(averages.STABILITY, warmup=fast_only)["verdict"] == "not measured"
    assert judge(averages.NO_UPDATES, warmup=table)["verdict"] == "not measured"


# 5: stability

LATE_STEPS = [1, 999, 1000, 1200, 1400, 1600, 1800, 2000]


def shaking(slow: Sequence[float], fast: Sequence[float], start: float = 0.95) -> pd.DataFrame:
    """Test accuracies that go up and down by `slow` and `fast` of a seed, from step 1000 on; before, at `start`."""
    signs = np.array([0, 0, 1, -1, 1, -1, 1, -1]) / 2
    early = np.where(np.array(LATE_STEPS) < 1000, start - 0.95, 0)
    return make_warmup(
        LATE_STEPS,
        *[
            {
                ("moving", 0.999): 0.95 + signs * a + early,
                ("moving", 0.95): 0.95 + signs * b,
                ("precise", None): [0.95] * len(LATE_STEPS),
            }
            for a, b in zip(slow, fast, strict=True)
        ],
    )


@pytest.mark.parametrize(
    ("slow", "fast", "verdict"),
    [
        (0.001 * (1 + NOISE), 0.004 * (1 - NOISE), "supported"),
        (0.004 * (1 + NOISE), 0.001 * (1 - NOISE), "refuted"),
        (0.003 * (1 + NOISE), 0.003 * (1 - NOISE), "not decided"),
    ],
)
def test_stability(slow: Sequence[float], fast: Sequence[float], verdict: str) -> None:
    """Changes of ±d, five in the second half, have a standard deviation in proportion to d."""
    claim = judge(averages.STABILITY, warmup=shaking(slow, fast))
    found = only(claim)
    assert (found["verdict"], found["quantity"]) == (verdict, "ratio of standard deviations")
    assert found["estimate"] == pytest.approx(math.exp(np.mean(np.log(slow) - np.log(fast))), rel=1e-5)
    assert "warm" not in claim["measured"]
    assert claim["open_because"] is None


def test_late_spread_by_hand() -> None:
    """From step 1,000 on the changes are -d, d, -d, d, -d: mean -d/5, sum of squares about it 24/5 d²."""
    table = shaking([0.01], [0.002], start=0.1)
    assert averages.late_spread(table, 0, 0.999) == pytest.approx(0.01 * math.sqrt(4.8 / 4))
    assert averages.late_spread(table, 0, 0.95) == pytest.approx(0.002 * math.sqrt(4.8 / 4))


def test_without_any_change_differences_are_compared() -> None:
    found = only(judge(averages.STABILITY, warmup=shaking([0] * 5, 0.004 * (1 + NOISE))))
    assert (found["verdict"], found["quantity"]) == ("supported", "difference of standard deviations")
    assert found["estimate"] == pytest.approx(0.004 * math.sqrt(4.8 / 4), rel=1e-5)
    assert only(judge(averages.STABILITY, warmup=shaking([0.004] * 5, [0] * 5)))["verdict"] == "refuted"
    assert only(judge(averages.STABILITY, warmup=shaking([0] * 5, [0] * 5)))["verdict"] == "not decided"


def test_averages_that_were_not_warm_decide_nothing() -> None:
    table = shaking(0.004 * (1 + NOISE), 0.001 * (1 - NOISE))
    table.loc[table["decay"] == 0.999, "test_accuracy"] -= 0.05
    claim = judge(averages.STABILITY, warmup=table)
    assert claim["verdict"] == only(claim)["verdict"] == "not decided"


def test_averages_that_were_not_warm_are_said_to_be() -> None:
    cold = warming((3000, 10), (1000, 10), (None, 10))  # the second half begins at 1,500
    claim = judge(averages.STABILITY, warmup=cold)
    assert "in 2 of 3 seeds 0.999 was not warm" in claim["measured"]
    assert claim["open_because"] == "0.999 was not warm in time"


def test_too_few_evaluations_have_no_spread() -> None:
    table = shaking([0.001] * 5, [0.002] * 5)
    assert judge(averages.STABILITY, warmup=table[table["step"] <= 999])["verdict"] == "not measured"


# 6: without update ops


@pytest.mark.parametrize(
    ("moving", "batch", "verdict"),
    [
        (0.1 + 0.1 * NOISE, 0.98 + 0.1 * NOISE, "supported"),
        (0.97 + 0.1 * NOISE, 0.98 + 0.1 * NOISE, "refuted"),
        (0.1 + 0.1 * NOISE, 0.5 + 0.1 * NOISE, "refuted"),
        (0.5 + NOISE, 0.98 + 0.1 * NOISE, "not decided"),
    ],
)
def test_without_updates(moving: Sequence[float], batch: Sequence[float], verdict: str) -> None:
    seeds = [
        {("moving", 1.0): [0.7, m], ("batch", None): [0.7, b], ("moving", 0.9): [1, 1]}
        for m, b in zip(moving, batch, strict=True)
    ]
    found = judge(averages.NO_UPDATES, warmup=make_warmup([1, 2000], *seeds))
    assert found["verdict"] == verdict
    assert [part["estimate"] for part in found["parts"]] == pytest.approx([np.mean(moving), np.mean(batch)], rel=1e-5)
    assert [part["rule"] for part in found["parts"]] == ["below 50%", "above 95%"]


# 7: the floor


def test_the_floor_is_the_loss_of_perfect_normalized_logits() -> None:
    logits_NK = np.eye(10)[np.arange(1000) % 10]
    logits_NK = (logits_NK - logits_NK.mean(0)) / logits_NK.std(0)
    log_shares_NK = logits_NK - np.log(np.exp(logits_NK).sum(1, keepdims=True))
    assert pytest.approx(-log_shares_NK.max(1).mean()) == training.FLOOR
    assert f"{training.FLOOR:.4f}" == "0.2784"


@pytest.mark.parametrize(
    ("batch_norm", "hidden", "verdict"),
    [
        (0.29 + 0.01 * NOISE, 0.05 + 0.1 * NOISE, "supported"),
        (0.20 + 0.01 * NOISE, 0.05 + 0.1 * NOISE, "refuted"),
        (0.29 + 0.01 * NOISE, 0.29 + 0.1 * NOISE, "not decided"),  # not there yet
        (0.2784 + 0.1 * NOISE, 0.05 + 0.1 * NOISE, "not decided"),
        (0.29 + 0.01 * NOISE, None, "supported"),
    ],
)
def test_floor(batch_norm: Sequence[float], hidden: Sequence[float] | None, verdict: str) -> None:
    least = {"batch_norm": batch_norm} | ({} if hidden is None else {"batch_norm_hidden": hidden})
    found = judge(training.FLOOR_OF_LOSS, curves=make_curves(least))
    assert found["verdict"] == verdict
    expected = [np.mean(values) - math.log(1 + 9 * math.exp(-10 / 3)) for values in least.values()]
    assert [part["estimate"] for part in found["parts"]] == pytest.approx(expected, rel=1e-4)
    assert [part["rule"] for part in found["parts"]] == ["above 0 nats", "below 0 nats"][: len(least)]


# 8: the range of learning rates


def test_decades_by_hand() -> None:
    assert sweeps.decades([0.01, 0.1, 1.0]) == pytest.approx([1, 1, 1])
    # Logarithms -3, -2.5229, -2; half-way -2.7614, -2.2614.
    assert sweeps.decades([0.001, 0.003, 0.01]) == pytest.approx([0.4771, 0.5, 0.5229], abs=1e-4)


@given(st.lists(st.integers(-400, 100), min_size=2, max_size=8, unique=True).map(sorted))
def test_decades_are_what_is_nearest(hundredths: list[int]) -> None:
    """Counted on a grid of a logarithmic axis, of points half a thousandth off the middles."""
    first, last = hundredths[:2], hundredths[-2:]
    low, high = 10 * first[0] - 5 * (first[1] - first[0]), 10 * last[1] + 5 * (last[1] - last[0])
    grid = np.arange(low, high) + 0.5  # thousandths of a decade
    nearest = np.abs(grid[:, None] - 10 * np.array(hundredths)).argmin(axis=1)
    rates = [10 ** (power / 100) for power in hundredths]
    assert sweeps.decades(rates) == pytest.approx(np.bincount(nearest, minlength=len(rates)) / 1000)


GOOD, BAD = 0.95, 0.9499


def rates_that_work(counts: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """By variant and seed: how many of the rates 0.01, 0.1 and 1 reach the target, from the smallest."""
    works = {
        variant: {
            rate: [GOOD if number < count else BAD for count in by_seed] for number, rate in enumerate((0.01, 0.1, 1.0))
        }
        for variant, by_seed in counts.items()
    }
    return make_sweep("rate", works)


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([3, 3, 2, 3, 3], [1, 2, 1, 1, 1], "supported"),
        ([1, 1, 0, 1, 1], [2, 3, 2, 3, 2], "refuted"),
        ([2, 1, 2, 3, 2], [2, 2, 1, 3, 2], "not decided"),
    ],
)
def test_range_of_rates(a: Sequence[int], b: Sequence[int], verdict: str) -> None:
    """Each of the rates stands for one decade."""
    counts = {"batch_norm": a, "plain": b}
    sweep = SWEEP.model_copy(update={"variants": list(counts)})
    found = only(judge(sweeps.LEARNING_RATES, sweep=rates_that_work(counts), settings=sweep))
    assert (found["verdict"], found["part"], found["quantity"]) == (verdict, "original", "difference of range")
    assert found["estimate"] == pytest.approx(np.mean(np.subtract(a, b)), abs=1e-6)
    measured = judge(sweeps.LEARNING_RATES, sweep=rates_that_work(counts), settings=sweep)["measured"]
    texts = [f"{name} {np.mean(works):.3g} decades, best at 0.01" for name, works in counts.items()]
    assert measured.endswith(f"mean over the seeds; {texts[0]}; {texts[1]}.")
    # The order of rows says nothing.
    assert only(judge(sweeps.LEARNING_RATES, sweep=rates_that_work(counts)[::-1], settings=sweep)) == found


def test_a_diverged_run_does_not_work_and_one_rate_has_no_width() -> None:
    table = rates_that_work({"batch_norm": [3] * 5, "plain": [1] * 5})
    table.loc[(table["variant"] == "batch_norm") & (table["learning_rate"] == 1), "diverged"] = 1
    sweep = SWEEP.model_copy(update={"variants": ["plain", "batch_norm"]})
    assert only(judge(sweeps.LEARNING_RATES, sweep=table, settings=sweep))["estimate"] == pytest.approx(1)
    sweep = sweep.model_copy(update={"learning_rates": [0.1]})
    assert (
        judge(sweeps.LEARNING_RATES, sweep=table[table["learning_rate"] == 0.1], settings=sweep)["verdict"]
        == "not measured"
    )


# 9: the batch size


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (0.01 + 0.05 * NOISE, "supported"),
        (-0.01 + 0.05 * NOISE, "supported"),
        (0.004 * NOISE, "refuted"),
        (0.1 * NOISE, "not decided"),
    ],
)
def test_batch_size(change: Sequence[float], verdict: str) -> None:
    """The advantage is 0.02 at 64 images, and `change` more at 1024; at 256 it is of no account."""
    accuracies = {
        "batch_norm": {64: 0.92 + NOISE, 256: 0.1 + NOISE, 1024: 0.92 + np.asarray(change) + NOISE},
        "plain": dict.fromkeys((64, 256, 1024), 0.9 + NOISE),
    }
    table = make_sweep("batch", accuracies)
    sweep = SWEEP.model_copy(update={"variants": list(accuracies)})
    found = only(judge(sweeps.BATCH_SIZES, sweep=table.sample(frac=1, random_state=0), settings=sweep))
    assert (found["part"], found["verdict"]) == ("original, 1024 against 64 images", verdict)
    assert found["estimate"] == pytest.approx(np.mean(change), abs=1e-6)


def test_batch_sizes_that_one_variant_lacks_are_left_out() -> None:
    """As where one variant's own rate was swept, so that it has a run at `train.batch_size`, and the other's not."""
    accuracies = {
        "batch_norm": {64: 0.92 + NOISE, 256: 0.93 + NOISE, 1024: 0.99 + NOISE},
        "plain": dict.fromkeys((64, 256), 0.9 + NOISE),
    }
    sweep = SWEEP.model_copy(update={"variants": list(accuracies)})
    found = only(judge(sweeps.BATCH_SIZES, sweep=make_sweep("batch", accuracies), settings=sweep))
    assert found["part"] == "original, 256 against 64 images"
    assert found["estimate"] == pytest.approx(0.01, abs=1e-6)
    table = make_sweep("batch", {**accuracies, "plain": {64: 0.9 + NOISE}})
    assert judge(sweeps.BATCH_SIZES, sweep=table, settings=sweep)["verdict"] == "not measured"


# All of them


def judge_all(variants: Sequence[str], decay: float, seeds: int = 5) -> list[dict[str, Any]]:
    """The claims on runs that support them all, if `variants` and decays are there."""
    reached = {"batch_norm": [101] * 5, "plain": [401] * 5, "batch_norm_hidden": [101] * 5, "plain_he": [301] * 5}
    final = {"batch_norm": 0.99, "plain": 0.97, "batch_norm_hidden": 0.985, "plain_he": 0.98}
    least = {"batch_norm": 0.3, "plain": 0.01, "batch_norm_hidden": 0.02, "plain_he": 0.01}
    runs = make_runs(
        {variant: reached[variant][:seeds] for variant in variants},
        {variant: [final[variant]] * seeds for variant in variants},
    )
    steps = [1, 50, 600, 1000, 1300, 1600, 2000]
    good = np.array([0.96, 0.96, 0.96, 0.96, 0.961, 0.96, 0.961])
    series: dict[tuple[str, float | None], Any] = {("batch", None): good, ("precise", None): good}
    if decay == 1:
        slow = [0.1, 0.1, 0.96, 0.96, 0.9605, 0.96, 0.9605]
        series |= {("moving", 0.999): slow, ("moving", 0.95): good, ("moving", 1.0): [0.1] * 7}
    wide = {variant: (3 if "batch_norm" in variant else 1) for variant in variants}
    sizes = {
        variant: {64: [0.9] * seeds, 256: [0.9] * seeds, 1024: [0.95 if wide[variant] == 3 else 0.9] * seeds}
        for variant in variants
    }
    table = pd.concat(
        [
            rates_that_work({variant: [count] * seeds for variant, count in wide.items()}).assign(batch_size=1024),
            make_sweep("batch", sizes).assign(learning_rate=0.1),
        ]
    )
    results = Results(
        make_curves({variant: [least[variant]] * seeds for variant in variants}),
        make_warmup(steps, *[series] * seeds),
        table,
        targets=[0.97, 0.99],
        averaged="batch_norm",
        settings=SWEEP.model_copy(update={"variants": list(variants)}),
        rules=RULES,
    )
    return [claim.judge(results, runs).model_dump(mode="json") for claim in CLAIMS]


def test_nine_claims_with_all_their_parts() -> None:
    found = judge_all(SWEEP.variants, decay=1)
    assert [claim["id"] for claim in found] == list(range(1, 10))
    assert [claim["verdict"] for claim in found] == ["supported"] * 9
    assert [len(claim["parts"]) for claim in found] == [1, 1, 2, 2, 1, 2, 2, 2, 2]
    for claim in found:
        assert list(claim) == ["id", "claim", "measured", "verdict", "open_because", "parts"]
        assert claim["claim"].endswith(".")
        assert claim["measured"].endswith(".")
        assert all(list(part) == PART for part in claim["parts"])
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_without_the_original_setting_the_fair_one_is_judged() -> None:
    found = judge_all(FAIR, decay=1)
    verdicts = ["not measured", *["supported"] * 8]
    assert [claim["verdict"] for claim in found] == verdicts
    assert [len(claim["parts"]) for claim in found] == [0, 1, 1, 2, 1, 2, 1, 1, 1]


def test_nothing_to_compare_is_not_measured() -> None:
    found = judge_all(["plain"], decay=0.5)
    assert [(claim["verdict"], claim["parts"]) for claim in found] == [("not measured", [])] * 9


@pytest.mark.parametrize("seeds", [1, 4])
def test_too_few_seeds_decide_nothing(seeds: int) -> None:
    assert {claim["verdict"] for claim in judge_all(SWEEP.variants, decay=1, seeds=seeds)} == {"not decided"}
