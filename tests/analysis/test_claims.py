"""Made-up runs that support, refute and leave open each of the nine claims; and how little it takes not to hold."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnstudy.analysis import headline
from bnstudy.analysis.claim import POINTS, Finding, Results, judge
from bnstudy.analysis.claims import CLAIMS, DISTANCES, bottom, contest, exit_time, gap, largest_rate, note
from bnstudy.analysis.crossing import Crossing
from bnstudy.analysis.inference import equivalence_p, estimate
from bnstudy.engine.grid import grid
from bnstudy.engine.rows import AveragesRow, HistoryRow
from bnstudy.tuning import Choices, Final, digits
from conftest import PARAMS as STUDY

SEEDS, LONG = list(range(10, 20)), list(range(10, 16))
PARAMS = STUDY.model_copy(
    update={
        "study": STUDY.study.model_copy(update={"seeds": SEEDS}),
        "long": STUDY.long.model_copy(update={"averages_seeds": LONG}),
    }
)
RULES = PARAMS.rules
FINAL = Final(network="plain_he", rate=0.018, updates=None, edge=None, overruled=False)
CHOICES = Choices(
    networks={},
    finalists={"without": FINAL, "hidden": FINAL.model_copy(update={"network": "batch_norm_hidden_he"})},
    contest={"without": "without", "with": "hidden"},
)
STEPS = sorted({*grid(2000), 100, 200, 500, 1000})
# Updates until each arm reaches 95%, about: the errors fall as one over the updates.
TO_95 = {
    "note_batch_norm": 100,
    "note_plain": 700,
    "he": 690,
    "he_ramp": 500,
    "baseline": 100,
    "same_rate": 98,
    "own_rate": 40,
}


@cache
def jitter(number: int) -> float:
    """A fixed factor for each seed, about 1 and ten percent wide, that no two arms share."""
    return float(np.random.default_rng([7, number]).uniform(0.95, 1.05))


def curves(**to_95: float) -> pd.DataFrame:
    rows = []
    for number, (arm, updates) in enumerate((TO_95 | to_95).items()):
        for seed in SEEDS:
            for step in STEPS:
                accuracy = max(0.1, 1 - 0.05 * updates * jitter(100 * number + seed) / step)
                row = HistoryRow(step, 0.1, 0.1, 0.1, accuracy, 0.1, accuracy, 0.1, accuracy)
                rows.append((arm, seed, *row))
    return pd.DataFrame(rows, columns=["arm", "seed", *HistoryRow._fields])


def averages(
    at: float = math.log(4), width: float = 0.46, slow: float = 0.02, frozen: float = 0.3, depth: float = 0.5
) -> pd.DataFrame:
    """Averages whose dip is `depth` deep at the age `at`, and that are `slow` (0.999) or 0.05 sigma off at the end.

    With the width 0.46 they are within a point from the age 5 on.
    """
    rows = []
    for seed in SEEDS:
        last = 10_000 if seed in LONG else 2000
        for step in sorted({*grid(last), 100, 200, 500, 1000, 2000}):
            rows.append((seed, *AveragesRow(step, "precise", None, 0.1, 0.97)))
            rows.append((seed, *AveragesRow(step, "batch", None, 0.1, 0.965)))
            rows.append((seed, *AveragesRow(step, "moving", 1.0, 9.9, frozen * jitter(seed))))
            for decay in RULES.judged_decays:
                age = -math.log(decay) * step
                dip = depth * math.exp(-(math.log(age / at / jitter(seed)) ** 2) / (2 * width**2))
                off = dict.fromkeys(DISTANCES, (slow if decay == 0.999 else 0.05) * jitter(seed))
                rows.append((seed, *AveragesRow(step, "moving", decay, 0.1, 0.97 - dip)))
                rows.append((seed, *AveragesRow(step, "corrected", decay, 0.1, 0.97, **off)))
    return pd.DataFrame(rows, columns=["seed", *AveragesRow._fields])


def tolerance(with_it: Callable[[int], float], without: Callable[[int], float]) -> pd.DataFrame:
    """Runs that reach 95% up to a rate of their own."""
    rows = [
        (contestant, seed, rate, 0, 0.96 if rate <= up_to(seed) else 0.3)
        for contestant, up_to in (("with", with_it), ("without", without))
        for seed in SEEDS
        for rate in PARAMS.tolerance.learning_rates
    ]
    return pd.DataFrame(rows, columns=["contestant", "seed", "learning_rate", "diverged", "validation_accuracy"])


WIDE = tolerance(lambda _: 1.0, lambda _: 0.032)
TUNING = WIDE.assign(network=WIDE["contestant"].map({"with": "batch_norm_hidden_he", "without": "plain_he"}))
HELD = Results(curves(), averages(), WIDE, TUNING, CHOICES, PARAMS)


def findings(**changes: Any) -> dict[int, Finding]:
    tables = {"curves": HELD.curves, "averages": HELD.averages, "tolerance": HELD.tolerance} | changes
    found = judge(CLAIMS, Results(**{"sweep": TUNING} | tables, choices=CHOICES, params=PARAMS))
    assert [finding.id for finding in found] == list(range(1, 10))
    return {finding.id: finding for finding in found}


@cache
def held() -> dict[int, Finding]:
    """Of the runs that support all nine claims."""
    return findings()


@pytest.mark.parametrize(
    ("claim", "runs", "verdict"),
    [
        *((claim, {}, "holds") for claim in range(1, 10)),
        (1, {"curves": curves(note_batch_norm=700, note_plain=100)}, "refuted"),
        (1, {"curves": curves(note_batch_norm=700)}, "not shown"),
        (2, {"curves": curves(own_rate=130)}, "refuted"),
        (2, {"curves": curves(own_rate=80)}, "not shown"),
        (3, {"curves": curves(same_rate=60)}, "refuted"),  # two points better at the same rate
        (3, {"curves": curves(own_rate=90)}, "refuted"),  # half a point by its own
        (3, {"curves": curves(own_rate=58)}, "not shown"),
        (4, {"curves": curves(he=400)}, "refuted"),
        (4, {"curves": curves(he=600)}, "not shown"),
        (5, {"averages": averages(width=0.7)}, "refuted"),
        (5, {"averages": averages(width=0.53)}, "not shown"),
        (6, {"averages": averages(at=0.5)}, "refuted"),
        (6, {"averages": averages(at=0.92)}, "not shown"),
        (6, {"averages": averages(depth=0.005)}, "not shown"),  # there is no dip
        (7, {"averages": averages(slow=0.1)}, "refuted"),
        (7, {"averages": averages(slow=0.05)}, "not shown"),
        (8, {"averages": averages(frozen=0.9)}, "refuted"),
        (8, {"averages": averages(frozen=0.865)}, "not shown"),
        (9, {"tolerance": tolerance(lambda _: 0.01, lambda _: 0.032)}, "refuted"),
        (
            9,
            {"tolerance": tolerance(lambda _: 0.032, lambda _: 0.032)},
            "not shown",
        ),  # the rates lie a factor 3.2 apart
        (9, {"tolerance": tolerance(lambda _: 3.2, lambda _: 0.0)}, "holds"),  # a bound is enough: at least 320
    ],
)
def test_a_claim_can_come_out_either_way(claim: int, runs: dict[str, pd.DataFrame], verdict: str) -> None:
    finding = (findings(**runs) if runs else held())[claim]
    assert finding.verdict == verdict, finding.model_dump_json(indent=1)
    assert finding.sentence.endswith(".")
    assert not {"nan", "inf"} & {*finding.sentence.lower().split(), *" ".join(finding.described).split()}


@pytest.mark.parametrize(("width", "clear"), [(0.46, 7), (0.515, 1), (0.53, 0)])
def test_interpolated_times_of_warming_up_are_told_with_the_rule(width: float, clear: int) -> None:
    told = findings(averages=averages(width=width))[5].described[0]
    intervals = [(float(low), float(high)) for low, high in re.findall(r"([\d.]+) to ([\d.]+) at", told)]
    within = [RULES.warm_from < low <= high < RULES.warm_to for low, high in intervals]
    assert len(intervals) == len(RULES.judged_decays)
    assert sum(within) == clear
    assert re.search(rf"; {clear} of these 7 clears? the rule\.$", told)


def test_what_is_left_out_is_not_measured() -> None:
    few = HELD.curves[HELD.curves["arm"].isin(["note_plain"])]
    found = findings(curves=few, tolerance=WIDE[WIDE["contestant"] == "with"])
    assert {claim: finding.verdict for claim, finding in found.items() if finding.verdict != "holds"} == dict.fromkeys(
        (1, 2, 3, 4, 9), "not measured"
    )


def test_with_fewer_than_six_seeds_nothing_is_shown() -> None:
    five = SEEDS[:5]
    found = findings(**{n: t[t["seed"].isin(five)] for n, t in vars(HELD).items() if isinstance(t, pd.DataFrame)})
    assert {finding.verdict for finding in found.values()} == {"not shown"}
    assert "5 seeds are too few for an interval" in found[2].sentence
    assert headline.result(list(found.values())).count("5 seeds are too few for an interval.") == 1


def test_the_lines_fit_a_screen_and_the_result_says_the_ratio() -> None:
    found = list(held().values())
    lines = headline.lines(found)
    assert len(lines) == 9
    assert max(map(len, lines)) <= 120
    assert (
        "Batch norm reaches 98% validation accuracy in 99 updates, the tuned network without it in 250 updates: "
        "a ratio of 0.396" in headline.result(found)
    )
    assert "Of 9 claims, 9 hold." in headline.result(found)
    words = ["refuted", *["not shown"] * 2, "not measured"]
    mixed = [one.model_copy(update={"verdict": word}) for one, word in zip(found, words, strict=False)]
    tally = "Of 9 claims, 5 hold, 1 is refuted, 2 are not shown, 1 is not measured."
    assert headline.result([*mixed, *found[4:]]).endswith(tally)


@settings(max_examples=30)
@given(
    st.sampled_from(["note_batch_norm", "own_rate"]),
    st.sampled_from([40, 60, 78, 85, 110, 130, 800]),
    st.lists(st.tuples(st.sampled_from(SEEDS), st.integers(0, len(STEPS) - 1)), min_size=1),
)
def test_taking_successes_away_from_batch_norm_never_helps_it(
    arm: str, to_95: float, lost: list[tuple[int, int]]
) -> None:
    """Wherever its runs stand, and whichever of their evaluations, or of all that follow, no longer succeed."""
    before = curves(**{"note_plain": 110, arm: to_95})
    after = before.copy()
    for number, (seed, at) in enumerate(lost):
        steps = STEPS[at:] if number % 2 else [STEPS[at]]
        gone = (after["arm"] == arm) & (after["seed"] == seed) & after["step"].isin(steps)
        after.loc[gone, "validation_accuracy"] = 0.5
    claim = {"note_batch_norm": note, "own_rate": contest}[arm]
    ranks = [
        ["refuted", "not shown", "holds"].index(judge([claim], replace(HELD, curves=table))[0].verdict)
        for table in (before, after)
    ]
    assert ranks[1] <= ranks[0]


def test_where_some_runs_never_reach_the_target_the_claim_does_not_hold() -> None:
    lost = HELD.curves.copy()
    lost.loc[lost["arm"].isin(["note_batch_norm", "own_rate"]) & (lost["seed"] == 12), "validation_accuracy"] = 0.5
    found = findings(curves=lost)
    assert [found[claim].verdict for claim in (1, 2)] == ["not shown"] * 2
    assert [found[claim].parts[0].bound for claim in (1, 2)] == ["at least"] * 2
    assert "9 of 10 runs" in found[2].sentence
    assert found[2].parts[0].agree == 9
    assert found[2].why == "Its interval does not clear the rule, nor lie beyond it."
    assert re.search(r"at least [\d.]+ \(.*\), at most [\d.]+ times fewer\.$", found[2].sentence)


def test_what_decides_a_verdict_is_said_in_words() -> None:
    found = held()
    assert re.fullmatch(r"Its interval clears the rule, and the adjusted p is 0\.\d+\.", found[2].why)
    assert found[5].why == "All its intervals clear the rule."
    assert all(part.agree == part.runs for finding in found.values() for part in finding.parts)
    six = {n: t[t["seed"].isin(SEEDS[:6])] for n, t in vars(HELD).items() if isinstance(t, pd.DataFrame)}
    few = findings(**six)[2]
    assert (few.verdict, few.why) == ("not shown", "Its interval clears the rule, but the adjusted p is 0.22.")
    assert findings(averages=averages(at=0.5))[6].why.startswith("In 10 of 10 seeds the least lies beyond the rule")
    assert findings(averages=averages(width=0.7))[5].why == "All its intervals lie beyond the rule."
    assert findings(curves=curves(same_rate=60, own_rate=57))[3].why == "Both its intervals lie beyond the rule."
    few_long = HELD.averages[(HELD.averages["step"] <= 2000) | (HELD.averages["seed"] < 14)]
    some = findings(averages=few_long)[5]
    assert some.why == "All its intervals clear the rule, but 2 of its estimates have none."
    assert some.sentence.endswith("0.998, 0.999 (for 2 of them, 4 seeds are too few for an interval).")
    assert some.verdict == "not shown"
    assert findings(**{n: t[t["seed"] == 10] for n, t in six.items()})[2].why == ""


def test_a_ratio_is_told_as_a_number_of_times_too() -> None:
    sentences = [findings(curves=curves(own_rate=to_98, baseline=250))[2].sentence for to_98 in (50, 500)]
    for sentence, value, words in zip(sentences, (5, 2), ("fewer", "as many"), strict=True):
        told = re.search(rf"\), ([\d.]+) times {words}\.$", sentence)
        assert told
        assert float(told[1]) == pytest.approx(value, rel=0.1)


def test_runs_are_compared_up_to_the_end_that_both_of_a_pair_have() -> None:
    """Without batch norm 10,000 updates reach the target, and 2,000 do not: what comes after these proves nothing."""
    slow = curves(note_plain=4000)
    longer = slow[(slow["arm"] == "note_plain") & (slow["step"] == 2000)]
    later = [longer.assign(step=step, validation_accuracy=0.99) for step in (5000, 7000, 10_000)]
    parts = [findings(curves=table)[1].parts[0] for table in (slow, pd.concat([slow, *later]))]
    assert parts[0] == parts[1]
    assert (parts[0].bound, parts[0].verdict) == ("at most", "holds")


def test_accuracy_at_the_end_of_the_longest_pairs_is_described_over_their_seeds_alone() -> None:
    table = HELD.curves
    ends = table[(table["step"] == 2000) & table["seed"].isin(SEEDS[:2])]
    later = pd.concat(
        ends[ends["arm"] == arm].assign(step=10_000, test_accuracy=accuracies)
        for arm, accuracies in (("note_batch_norm", [0.99, 0.98]), ("note_plain", [0.97, 0.94]))
    )
    tests = findings(curves=pd.concat([table, later]))[1].described[2]
    assert tests.startswith(held()[1].described[2].removesuffix("."))
    assert tests.endswith("; after 10,000, over those trained on (2): 98.50% with batch norm, 95.50% without.")
    alone = findings(curves=pd.concat([table, later[later["arm"] == "note_plain"]]))[1].described[2]
    assert alone == held()[1].described[2]


def test_what_is_described_beside_the_judgement() -> None:
    found = held()
    exactly, others, tests, precise = found[1].described
    ratios = re.findall(r"(0\.\d+)(?: \(9| \([^)]*\) at 9[07]%)", exactly + others)
    assert [float(ratio) for ratio in ratios] == pytest.approx([100 / 700] * 3, rel=0.05)
    bounds = re.findall(r"≤ (0\.\d+) \(up to", others)  # at 98% and 99%, which not every run reaches
    assert [float(bound) for bound in bounds] == pytest.approx([100 / 700, 200 / 700], rel=0.25)
    for value, low, high, target in re.findall(r"([\d.]+) \(([\d.]+) to ([\d.]+)\) at (\d\d)%", others):
        assert float(low) < float(value) < float(high), target
    times = re.search(r"first 1,000 .* reaches 95% in (\d+) updates by precise .* in (\d+) by its averages\.", precise)
    assert times
    assert times.groups() == ("2", "2")  # at the first evaluation, and above 95% in the next two
    ends = re.search(r"interval (0\.\d+) to (0\.\d+)\)", exactly)
    assert ends
    low, high = found[1].parts[0].low, found[1].parts[0].high
    assert low and high and low < float(ends[1]) - 0.01 < float(ends[2]) + 0.01 < high  # noqa: PT018 (one order)
    # Errors of 0.05 * 100 / 2,000 and 0.05 * 700 / 2,000, but for what the seeds add.
    assert re.search(r"2,000 updates, .* 99\.7\d% with batch norm, 98\.[23]\d% without", tests)
    same, own = (part.estimate for part in found[3].parts)  # all accuracies of these runs are alike
    # Errors after 100 updates are as the updates to 95%: 98 of 100, and 40 of 98.
    left = re.match(
        r"Batch norm .* leaves (\d+)% of .* rate (\d+)% of those: it .* \+([\d.]+) points", found[3].described[0]
    )
    assert left
    assert [float(one) for one in left.groups()] == pytest.approx([98, 41, 4.9], abs=3)
    assert found[3].described[1] == f"On the training batch of the last update: {same} and {own}."
    dip = 0.5 * math.exp(-(math.log(-math.log(0.95) * 100 / math.log(4)) ** 2) / (2 * 0.46**2))
    warming = re.search(r"change accuracy by −([\d.]+) points against precise", found[3].described[2])
    assert warming
    assert float(warming[1]) == pytest.approx(100 * dip, rel=0.1)
    ramped = re.search(r": \+([\d.]+) points .* after 100; after 2,000, \+([\d.]+) points", found[4].described[0])
    assert ramped
    for step, points in zip((100, 2000), ramped.groups(), strict=True):
        assert float(points) == pytest.approx(100 * 0.05 * (700 - 500) / step, rel=0.1)
    # A dip of the width 0.46 is down to half and twice a point at these ages.
    ages = [math.log(4) * math.exp(0.46 * math.sqrt(2 * math.log(0.5 / within))) for within in (0.005, 0.02)]
    numbers = re.findall(r"after (\d\.\d) to (\d\.\d)", found[5].described[1])
    for age, its in zip(ages, numbers, strict=True):
        assert [float(end) for end in its] == pytest.approx([age, age], rel=0.1)
    exits = [float(end) for end in re.findall(r"(\d\.\d+) to|to (\d\.\d+) at", found[5].described[0])[0] if end]
    assert exits[0] == pytest.approx(math.log(4) * math.exp(0.46 * math.sqrt(2 * math.log(50))), rel=0.05)
    assert re.findall(r"−4(\d)\.\d+ at 0.9,", found[6].described[2]) == ["9"]  # of 50, between two evaluations
    assert found[7].described[1] == "By layer: conv1 0.400, conv2 0.400, fc1 0.400, logits 0.400."
    assert found[7].described[2] == "Accuracy by the averages themselves, then: 97.00% with 0.999, 97.00% with 0.95."
    means = [30 * np.mean([jitter(seed) for seed in seeds]) for seeds in (SEEDS, LONG)]
    assert found[8].described == (
        f"By never-updated averages it is useless, below 50%, in 10 of 10 seeds after 2,000 updates (mean "
        f"{means[0]:.1f}%) and in 6 of 6 seeds after 10,000 updates (mean {means[1]:.1f}%).",
    )
    tuned = findings(sweep=TUNING.assign(validation_accuracy=TUNING["validation_accuracy"] - 0.02))[9]
    lower = "The lower end of the range is not judged."
    assert found[9].described == (
        "In the sweep, on the tuning seeds: batch_norm_hidden_he 1; plain_he 0.032.",
        lower,
    )
    assert tuned.described[0] == "In the sweep, on the tuning seeds: batch_norm_hidden_he none; plain_he none."


def test_p_is_adjusted_for_all_comparisons_that_the_study_measures() -> None:
    """There are seven. Six have the least p that 10 seeds can give; claim 7 has 6 seeds, and so comes last."""
    least = 2 / 2 ** len(SEEDS)
    found = held()
    assert found[1].p == found[9].p == pytest.approx(least, rel=1e-5)
    assert found[7].p == found[7].adjusted_p == 2 / 2**6
    assert found[5].p is found[6].adjusted_p is None
    assert found[1].adjusted_p == pytest.approx(7 * least, rel=1e-5)
    left_out = findings(tolerance=WIDE[WIDE["contestant"] == "with"])
    assert left_out[1].adjusted_p == pytest.approx(6 * least, rel=1e-5)
    found = findings(curves=HELD.curves.assign(validation_accuracy=HELD.curves["validation_accuracy"].clip(upper=0.94)))
    assert found[1].adjusted_p == found[2].adjusted_p == 1  # no run of either side ever gets there
    assert found[9].adjusted_p == pytest.approx(7 * least, rel=1e-5)


@pytest.mark.parametrize(("key", "value"), [("rate", "own"), ("network", "batch_norm_he")])
def test_the_notes_pair_is_the_notes(key: str, value: str) -> None:
    other = PARAMS.model_copy(update={"averages": PARAMS.averages.model_copy(update={key: value})})
    verdicts = [finding.verdict for finding in judge(CLAIMS, replace(HELD, params=other))]
    assert verdicts == ["not measured", *["holds"] * 8]


@pytest.mark.parametrize(("to_95", "second"), [({"same_rate": 80, "own_rate": 20}, False), ({"own_rate": 58}, True)])
def test_the_third_claims_p_is_the_larger_of_its_two(to_95: dict[str, float], second: bool) -> None:
    table = curves(**to_95)
    baseline, same_rate, own_rate = (
        table[(table["arm"] == arm) & (table["step"] == RULES.after)]["validation_accuracy"].to_numpy()
        for arm in ("baseline", "same_rate", "own_rate")
    )
    p_values = [
        equivalence_p(same_rate - baseline, RULES.equal_within),
        estimate(own_rate - same_rate, null=RULES.own_rate_gain).p or 0.0,
    ]
    assert findings(curves=table)[3].p == pytest.approx(p_values[second], rel=1e-5)
    assert p_values[second] > p_values[not second]


def test_the_eighth_claims_p_is_of_the_gain_that_it_claims() -> None:
    p = findings(averages=averages(frozen=0.865))[8].p
    assert p is not None
    assert p > 0.05


@pytest.mark.parametrize(
    ("claim", "rule", "runs"),
    [
        (2, "contest_ratio", {"curves": curves(own_rate=80)}),
        (9, "tolerance_ratio", {"tolerance": tolerance(lambda seed: 0.1 if seed < 13 else 0.32, lambda _: 0.032)}),
    ],
)
def test_the_p_of_a_ratio_is_of_the_one_that_the_rule_names(claim: int, rule: str, runs: dict[str, Any]) -> None:
    """These ratios lie between 1 and the rule: they speak against 1, and do not speak for the claim."""
    other = PARAMS.model_copy(update={"rules": RULES.model_copy(update={rule: 1.0})})
    p, against_1 = (judge(CLAIMS, replace(HELD, params=params, **runs))[claim - 1].p for params in (PARAMS, other))
    assert p == 1
    assert against_1 is not None
    assert against_1 < 0.05


def test_rates_that_are_known_on_one_side_alone() -> None:
    """Where no rate works, the largest that does may be any small one."""
    (part,) = findings(tolerance=tolerance(lambda _: 0.0, lambda _: 0.0))[9].parts
    assert (part.value, part.low, part.high, part.verdict) == (None, 0, None, "not shown")


def test_a_slow_decay_is_judged_by_the_long_runs_alone() -> None:
    parts = {part.part: part for part in held()[5].parts}
    assert {name: part.runs for name, part in parts.items() if part.runs < 10} == {"decay 0.998": 6, "decay 0.999": 6}
    short = HELD.averages[HELD.averages["step"] <= 2000]
    last = findings(averages=short)[5].parts[-1]  # 2 / -ln(0.999) updates are too few to be warm
    assert (last.runs, last.bound, last.verdict) == (10, "at least", "not shown")
    assert last.value == pytest.approx(2000 * -math.log(0.999), rel=1e-4)


def test_a_seed_beyond_the_rule_refutes_what_another_cannot_show() -> None:
    """One seed has no dip; in another it lies where 0.6 of the start is left."""
    tables = [averages(), averages(depth=0.005), averages(at=0.5)]
    mixed = [table[table["seed"].isin(seeds)] for table, seeds in zip(tables, [SEEDS[2:], [10], [11]], strict=True)]
    assert findings(averages=pd.concat(mixed))[6].verdict == "refuted"
    assert findings(averages=pd.concat([mixed[0], mixed[1]]))[6].verdict == "not shown"


def test_a_least_before_the_averages_first_rise_is_named_and_looked_past() -> None:
    """In one seed, accuracy is least before that rise: its dip lies where the others' do."""
    early = HELD.averages.copy()
    its = (early["seed"] == 10) & (early["statistics"] == "moving") & early["decay"].isin([0.98, 0.99])
    for step, accuracy in {5: 0.3, 6: 0.2, 7: 0.05}.items():
        early.loc[its & (early["step"] == step), "accuracy"] = accuracy
    found = findings(averages=early)[6]
    assert found.verdict == "refuted"
    assert (
        found.described[0]
        == "Beyond the rule, the first of each decay in the table: seed 10 at 0.98, 0.99 (least after 7 updates)."
    )
    assert found.why == "In 1 of 10 seeds the least lies beyond the rule, and one is enough."
    assert [part.part for part in found.parts if "seed" in part.part] == [f"decay {d}, seed 10" for d in (0.98, 0.99)]
    assert "(in 68 of 70 cases, one per seed and decay) or 0.87 to 0.93 of the start is left" in found.sentence
    flat = findings(averages=averages(at=0.5, depth=0.005))[6]  # far from a quarter, but no dip
    assert held()[6].described[0] == flat.described[0] == "Beyond the rule: no seed, at no decay."
    assert found.described[1:] == held()[6].described[1:]  # the depths too are those of the dips
    ends = re.search(r"left: (0\.\d+) to (0\.\d+),", found.described[1])
    assert ends
    assert float(ends[1]) < 0.25 < float(ends[2])


def test_one_lucky_evaluation_is_no_crossing() -> None:
    lucky = HELD.curves.copy()
    lucky.loc[(lucky["arm"] == "note_plain") & (lucky["step"] == 10), "validation_accuracy"] = 0.99
    before, after = held()[1].parts[0], findings(curves=lucky)[1].parts[0]
    assert (after.low, after.high) == (before.low, before.high)


@given(st.floats(0.5, 0.999), st.floats(0.3, 5), st.integers(5, 40))
def test_the_bottom_lies_between_the_evaluations_beside_it(decay: float, at: float, per_decade: int) -> None:
    """Whatever the grid: the true bottom of a smooth dip is in the interval."""
    steps = grid(10_000, per_decade)
    apart = pd.Series({step: -math.exp(-(math.log(-math.log(decay) * step / at) ** 2)) for step in steps})
    weight, low, high = bottom(apart, decay)
    assert low <= weight <= high
    true = math.exp(-at)
    if decay ** steps[-1] < true < decay ** steps[0]:
        assert low <= true <= high


def test_exit_from_the_gap() -> None:
    apart = pd.Series([-0.5, 0.001, -0.02, 0.01, -0.01], index=[5, 10, 20, 40, 80])
    assert exit_time(apart, 0.01) == Crossing(20, 40, 40)
    assert exit_time(apart, 0.015) == Crossing(20, 40, 20 * 2**0.5)  # half way from 0.02 to 0.01
    assert exit_time(apart, 0.6) == Crossing(0, 5)
    assert exit_time(-apart, 0.01) == Crossing(20, 40, 40)  # better than by precise statistics is as far off
    assert exit_time(apart, 0.001) == Crossing(80, math.inf)


def test_a_gap_of_a_point_is_within_a_point() -> None:
    """Though 0.97 - 0.96 is more, as computers subtract."""
    kinds = ("precise", None, 0.97), ("moving", 0.9, 0.96)
    rows = [(10, *AveragesRow(5, name, decay, 0.1, accuracy)) for name, decay, accuracy in kinds]
    results = replace(HELD, averages=pd.DataFrame(rows, columns=HELD.averages.columns))
    assert exit_time(gap(results, 10, 0.9), 0.01) == Crossing(0, 5)


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([0.99, 0.99, 0.9, 0.9], (0.1, 1.0)),
        ([0.99, 0.95, 0.9, 0.9], (0.1, 1.0)),  # the target itself is enough
        ([0.9, 0.99, 0.9, 0.98], (0.1, 1.0)),  # the last is luck
        ([0.98, 0.9, 0.99, 0.9], (1.0, 10.0)),  # the second is bad luck
        ([0.9, 0.9, 0.9, 0.9], (0.0, 0.01)),
        ([0.99, 0.99, 0.99, 0.99], (10.0, math.inf)),
    ],
)
def test_the_largest_rate_is_an_interval(accuracies: list[float], expected: tuple[float, float]) -> None:
    table = pd.DataFrame({"learning_rate": [0.01, 0.1, 1.0, 10.0], "validation_accuracy": accuracies})
    found = largest_rate(table, 0.95)
    assert (found.after, found.by) == expected


def test_the_pictures_in_words() -> None:
    ladder = pd.DataFrame(
        [("note_plain", "The note's (0.1)", 0.641, math.nan), ("he", "He's (0.1)", 0.592, -0.049)],
        columns=["rung", "label", "accuracy", "change"],
    )
    assert [line.split() for line in headline.ladder_lines(ladder, 100)[1:]] == [
        ["The", "note's", "(0.1)", "64.1%"],
        ["He's", "(0.1)", "59.2%", "−4.9"],
    ]
    steps = [7, 14, 50]
    dip = pd.DataFrame(
        {"statistics": "moving", "decay": 0.9, "step": steps, "difference": [-0.1, -0.6, -0.002]}
    ).assign(seeds=2)
    dip["age"] = -math.log(0.9) * dip["step"]
    left = f"{0.9**14:.0%}"
    assert headline.dip_lines(dip)[1:] == [
        f"  decay 0.9     −60.0 at update 14, with {left} of the start left; −0.2 at update 50"
    ]
    assert headline.ladder_lines(ladder[:0], 100) == headline.dip_lines(dip[:0]) == []


def test_a_zero_has_no_minus() -> None:
    assert str(digits(-0.0)) == str(digits(-0.0 * 1e-9)) == "0.0"
    assert POINTS.number(-0.0) == POINTS.number(-1e-6) == "+0.00"
    assert POINTS.number(-1e-4) == "−0.01"
