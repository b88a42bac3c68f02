"""Made-up runs with which each of the twelve claims holds, is refuted and is not shown; and how they are told."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnstudy.study.claim import Finding, judge
from bnstudy.study.claims import CLAIMS, bottom, exit_age, largest_rate, share_of
from bnstudy.study.crossing import Crossing, exactly
from bnstudy.study.records import Results
from made_up import SEEDS, STUDY, averages, curves, held, sweep

TABLES = ("curves", "averages", "sweep", "mechanism")


def findings(results: Results) -> dict[str, Finding]:
    found = judge(CLAIMS, results)
    assert [one.id for one in found] == list(range(1, 13))
    return {one.name: one for one in found}


@cache
def holding() -> dict[str, Finding]:
    return findings(held())


def some_up_to(rate: float, others: float) -> Callable[[int], float]:
    return lambda seed: rate if seed < SEEDS[4] else others


@pytest.mark.parametrize(
    ("claim", "runs", "verdict"),
    [
        *((name, {}, "holds") for name in type(STUDY.rules).model_fields if name != "ladder"),
        ("note", {"curves": {"note_batch_norm": 900, "note_plain": 88}}, "refuted"),
        ("note", {"curves": {"note_batch_norm": 420, "note_plain": 410}}, "not shown"),
        ("tuned", {"curves": {"own_rate": 100}}, "refuted"),  # faster, but not twice as fast
        ("tuned", {"curves": {"own_rate": 72}}, "not shown"),
        ("share", {"curves": {"same_rate": 130}}, "refuted"),  # nearly all needs the larger rate
        ("share", {"curves": {"same_rate": 34}}, "refuted"),  # nearly none does
        ("share", {"curves": {"same_rate": 48}}, "not shown"),
        ("share", {"curves": {"own_rate": 150}}, "not shown"),  # there is no speed-up to share
        ("momentum", {"curves": {"sgd_batch_norm": 160}}, "refuted"),
        ("momentum", {"curves": {"sgd_batch_norm": 121}}, "not shown"),
        ("tolerance", {"sweep": {"with_it": lambda seed: 0.01}}, "refuted"),
        ("tolerance", {"sweep": {"with_it": some_up_to(0.1, 0.32)}}, "not shown"),
        ("tolerance", {"sweep": {"with_it": lambda seed: 0.32}}, "holds"),  # ten times is enough
        ("tolerance", {"sweep": {"without": None}}, "holds"),  # nothing works: the ratio is at least 3,200
        ("thousand", {"averages": {"depth": 0.25}}, "refuted"),
        ("thousand", {"averages": {"depth": 0.36}}, "not shown"),
        ("ready", {"averages": {"power": 1.1}}, "refuted"),
        ("ready", {"averages": {"power": 1.32}}, "not shown"),
        ("dip", {"averages": {"stretch": 0.7}}, "refuted"),  # at r = 0.14
        ("dip", {"averages": {"stretch": 1.13}}, "not shown"),
        ("dip", {"averages": {"depth": 0.2}}, "refuted"),  # where it should, but shallow
        ("dip", {"averages": {"depth": 0.3}}, "not shown"),
        ("cause", {"averages": {"large": 30.0}}, "refuted"),  # as if ln 3 later than the formula says
        ("cause", {"averages": {"large": 18.0}}, "not shown"),
        ("cause", {"averages": {"small": {22: 0.1}}}, "not shown"),
        ("cause", {"averages": {"small": {22: 0.1, 30: 0.06}}}, "refuted"),
        ("cause", {"averages": {"means": 0.3}}, "refuted"),
        ("cause", {"averages": {"means": 0.4}}, "not shown"),
        ("cause", {"averages": {"depth": 0.0}}, "not shown"),  # without a dip, nothing moves
        ("standardized", {"averages": {"standardized": 0.2}}, "refuted"),
        ("standardized", {"averages": {"standardized": 0.1}}, "not shown"),
        ("correction", {"averages": {"corrected": {22: 0.021}}}, "not shown"),
        ("correction", {"averages": {"corrected": {22: 0.021, 23: 0.03}}}, "refuted"),
        ("correction", {"averages": {"corrected": dict.fromkeys(SEEDS, 0.02)}}, "holds"),  # at most
        ("update_ops", {"averages": {"frozen": 0.9}}, "refuted"),
        ("update_ops", {"averages": {"frozen": 0.865}}, "not shown"),
    ],
)  # fmt: skip
def test_a_claim_can_come_out_either_way(claim: str, runs: dict[str, Any], verdict: str) -> None:
    makers: dict[str, Callable[..., pd.DataFrame]] = {"curves": curves, "averages": averages, "sweep": sweep}
    changed: Any = {table: makers[table](**how) for table, how in runs.items()}
    alone = [one for one in CLAIMS if one.name == claim]
    finding = judge(alone, replace(held(), **changed))[0] if runs else holding()[claim]
    assert finding.verdict == verdict, finding.model_dump_json(indent=1)
    assert finding.expected
    assert finding.because
    assert finding.sentence.endswith(".")
    told = " ".join([finding.sentence, finding.endpoint, finding.rule, finding.why, *finding.described])
    assert not {"nan", "inf", "none%"} & {*re.split(r"[\s%,;.]", told.lower())}
    assert "{" not in told


@settings(max_examples=15)
@given(
    st.sampled_from(["note_batch_norm", "own_rate", "sgd_batch_norm"]),
    st.sampled_from([40, 72, 100, 800]),
    st.lists(st.tuples(st.sampled_from(SEEDS), st.integers(0, 60)), min_size=1, max_size=5),
)
def test_taking_successes_away_from_batch_norm_never_helps_it(
    arm: str, to_95: float, lost: list[tuple[int, int]]
) -> None:
    """Wherever its runs stand, and whichever of their evaluations, or of all that follow, no longer succeed."""
    before = made(arm, to_95)
    after = before.copy()
    for number, (seed, at) in enumerate(lost):
        steps = sorted(after.loc[(after["arm"] == arm) & (after["seed"] == seed), "step"])
        place = at % len(steps)
        gone = steps[place:] if number % 2 else [steps[place]]
        chosen = (after["arm"] == arm) & (after["seed"] == seed) & after["step"].isin(gone)
        after.loc[chosen, ["validation_accuracy", "corrected_accuracy"]] = 0.5
    claim = [one for one in CLAIMS if one.name == {"note_batch_norm": "note", "own_rate": "tuned"}.get(arm, "momentum")]
    ranks = [
        ["refuted", "not shown", "holds"].index(judge(claim, replace(held(), curves=table))[0].verdict)
        for table in (before, after)
    ]
    assert ranks[1] <= ranks[0]


@cache
def made(arm: str, to_95: float) -> pd.DataFrame:
    return curves(STUDY, **{"note_plain": 110, arm: to_95})


def test_what_is_left_out_is_not_measured() -> None:
    few = held().curves[held().curves["arm"] == "note_plain"]
    table = held().averages
    gone = table[(table["network"] != "standardized") & (table["decay"] != 0.998) & (table["step"] <= 900)]
    found = findings(replace(held(), curves=few, averages=gone, sweep=held().sweep[:0]))
    assert {name for name, one in found.items() if one.verdict != "not measured"} == {"cause"}
    assert found["tuned"].sentence == "Not measured: no runs of own_rate."
    assert found["standardized"].sentence == "Not measured: no precise statistics in standardized."
    assert found["update_ops"].sentence == "Not measured: no moving statistics after 2,000 updates."
    assert found["ready"].why == found["ready"].estimate == ""
    emptied: Any = {name: getattr(held(), name)[:0] for name in TABLES}
    none = replace(held(), **emptied)
    assert {one.verdict for one in findings(none).values()} == {"not measured"}


def test_runs_that_are_too_short_to_be_ready_are_not_measured() -> None:
    short = held().averages[held().averages["step"] <= 2000]
    assert findings(replace(held(), averages=short))["ready"].sentence == (
        "Not measured: averages of decay 0.998 are followed to the age 4 only."
    )


def of_seeds(seeds: list[int]) -> Results:
    tables = {name: getattr(held(), name) for name in TABLES}
    kept = {"entry": lambda t: t["seed"].isin(seeds) | ~t["entry"].str.startswith("tolerance")}
    return replace(
        held(),
        **{
            name: table[kept["entry"](table) if "entry" in table else table["seed"].isin(seeds)]
            for name, table in tables.items()
        },
    )


def test_with_fewer_than_six_seeds_nothing_is_shown() -> None:
    found = findings(of_seeds(SEEDS[:5]))
    assert {one.verdict for one in found.values()} == {"not shown"}
    assert {one.why for one in found.values()} == {"5 seeds are too few for an interval."}
    assert [(part.low, part.high) for part in found["tuned"].parts] == [(0.0, None)]
    assert found["tuned"].sentence.endswith(" times as fast, in updates.")
    two = findings(of_seeds(SEEDS[:2]))
    assert two["note"].why == "2 seeds are too few for an interval."
    assert findings(of_seeds(SEEDS[:1]))["note"].why == "1 seed is too few for an interval."


def test_below_nine_seeds_no_comparison_holds_after_correction() -> None:
    """There are seven; places and shares are judged by their intervals alone."""
    compared = {name for name, one in holding().items() if one.p is not None}
    assert compared == {"note", "tuned", "momentum", "tolerance", "thousand", "standardized", "update_ops"}
    least = 2 / 2 ** len(SEEDS)
    assert holding()["note"].p == pytest.approx(least, rel=1e-5)
    assert holding()["note"].adjusted_p == pytest.approx(7 * least, rel=1e-5)
    eight, nine = (findings(of_seeds(SEEDS[:count])) for count in (8, 9))
    assert {one.verdict for name, one in eight.items() if name in compared} == {"not shown"}
    assert eight["tuned"].why == "Chance is not ruled out: with 7 comparisons, corrected for them, p is 0.055."
    assert {one.verdict for one in nine.values()} == {"holds"}


def test_what_decides_a_verdict_is_said_in_words() -> None:
    assert {one.why for one in holding().values()} == {"All that the runs leave possible agrees with the claim."}
    refuted = findings(replace(held(), averages=averages(stretch=0.7, corrected={22: 0.03, 24: 0.03})))
    assert refuted["dip"].why.startswith("All that the runs leave possible contradicts the claim (where, decay 0.9, wh")
    assert refuted["correction"].why == "It should be so in every seed, and is not in seeds 22, 24."
    assert refuted["correction"].parts[0].against == (22, 24)
    assert refuted["correction"].parts[0].agree == 8
    unclear = findings(replace(held(), averages=averages(small={25: 0.07}), curves=curves(own_rate=72)))
    assert unclear["cause"].why == "It should be so in every seed, and is not in seed 25 (start variance 0.1: loss)."
    assert unclear["tuned"].why.startswith("The runs leave it open: ")
    assert [part.verdict for part in unclear["cause"].parts] == ["holds", "not shown", "holds"]


def test_numbers_are_told_in_plain_words() -> None:
    found = holding()
    assert re.fullmatch(
        r"Batch norm on all layers but the last reaches 98% validation accuracy after \d+ updates, the tuned network "
        r"without it after \d+ updates: 4\.\d times as fast, in updates \(96% interval [\d.]+ to [\d.]+\)\.",
        found["tuned"].sentence,
    )
    assert found["tuned"].parts[0].rule == "more than 2 times as fast"
    assert (
        "in none of 10 runs of 1,000 updates: at least 8.7 times as fast, in updates (96% i" in found["note"].sentence
    )
    assert (found["note"].parts[0].low, found["note"].parts[0].bound) == (0.0, "at most")  # of the ratio of updates
    assert found["note"].parts[0].rule == "faster"
    assert re.search(
        r"is 3\.2 \(the highest\) with batch norm, 0\.01 without: at least 100 ti", found["tolerance"].sentence
    )
    assert re.search(r"cost 4\d\.\d points \(96% interval \d\d\.\d to \d\d\.\d\) of", found["thousand"].sentence)
    assert found["thousand"].rule == "the whole interval lies below −30 points"
    assert found["thousand"].estimate.startswith("−4")
    assert "later by 2.4 in age; the formula says 2.4." in found["cause"].sentence
    assert found["ready"].interval == "4.38 to 4.59"
    values = [part.value for part in found["dip"].parts if part.part.startswith("where")]
    assert values == pytest.approx([0.257] * 7, abs=0.01)
    assert (
        "bottom lies at r = 0.249, or 0.254 by the same parabola, and the dip begins at 0.718"
        in found["dip"].described[1]
    )
    assert re.match(r"One curve .* explains (9\d|100)(% | to 100% )", found["dip"].described[0])
    assert "> 4 is 3.54 there" in found["standardized"].sentence
    lost = holding()["share"].sentence
    assert re.search(r": 49% \(96% interval 4\d to 5\d\) of the speed-up needs no larger rate\.$", lost)


def test_the_notes_claim_is_judged_by_its_own_averages_and_the_others_by_corrected_ones() -> None:
    table = held().curves.copy()
    later = table["arm"].isin(["note_batch_norm", "own_rate"]) & table["step"].between(0, 200)
    for column, claim, other in (
        ("validation_accuracy", "note", "tuned"),
        ("corrected_accuracy", "tuned", "note"),
    ):
        changed = table.copy()
        changed.loc[later & changed[column].notna(), column] = 0.5
        found = findings(replace(held(), curves=changed))
        assert found[claim].parts != holding()[claim].parts
        assert found[other].parts == holding()[other].parts


def test_a_run_that_never_gets_there_bounds_the_ratio() -> None:
    lost = held().curves.copy()
    lost.loc[(lost["arm"] == "own_rate") & (lost["seed"] == 24), "corrected_accuracy"] = 0.5
    found = findings(replace(held(), curves=lost))["tuned"]
    assert (found.verdict, found.parts[0].bound, found.parts[0].agree) == ("not shown", "at least", 9)
    assert "in 9 of 10 runs of 500 updates" in found.sentence
    assert "at most " in found.estimate


times = st.tuples(st.floats(2, 900), st.floats(0, 1)).map(lambda at: Crossing(at[0], at[0] * (1 + at[1]), at[0]))
places = st.floats(0, 1)


@given(times, times, times, places, places, places)
def test_the_share_lies_within_its_ends_wherever_the_times_are(
    base: Crossing, same: Crossing, own: Crossing, x: float, y: float, z: float
) -> None:
    value, low, high = share_of(base, same, own)
    b, s, o = (
        math.log(run.after) + place * math.log(run.by / run.after)
        for run, place in zip((base, same, own), (x, y, z), strict=True)
    )
    if math.isinf(low):
        assert base.after <= own.by
        return
    assert low - 1e-9 <= (b - s) / (b - o) <= high + 1e-9
    assert low <= value <= high


def test_the_share_by_hand() -> None:
    """From 400 updates to 100 in equal factors: half of the way at 200."""
    assert share_of(exactly(400), exactly(200), exactly(100)) == pytest.approx((0.5, 0.5, 0.5))
    base, same, own = Crossing(320, 400, 400), Crossing(180, 200, 200), Crossing(90, 100, 100)
    low, high = math.log(320 / 200) / math.log(320 / 90), math.log(400 / 180) / math.log(400 / 100)
    assert share_of(base, same, own) == pytest.approx((0.5, low, high))
    never = Crossing(1000, math.inf)
    assert share_of(never, same, own)[2] == 1
    assert share_of(base, never, own)[1] == -math.inf
    assert share_of(base, same, never) == (0.0, -math.inf, math.inf)


def test_exit_from_the_gap() -> None:
    gap = pd.Series([-0.5, 0.001, -0.02, 0.01, -0.01], index=[0.5, 1.0, 2.0, 4.0, 8.0])
    assert exit_age(gap, 0.01) == Crossing(2, 4, 4)
    assert exit_age(gap, 0.015).interpolated == pytest.approx(2 * 2**0.5)  # half way from 0.02 to 0.01
    assert exit_age(gap, 0.6) == Crossing(0, 0.5)
    assert exit_age(-gap, 0.01) == Crossing(2, 4, 4)  # better than by precise statistics is as far off
    assert exit_age(gap, 0.001) == Crossing(8, math.inf)


@given(st.floats(1, 2), st.floats(0.1, 3), st.integers(15, 40))
def test_the_bottom_of_a_parabola_is_found_exactly(at: float, curvature: float, count: int) -> None:
    ages = [0.5 + 3 * place / count for place in range(count + 1)]
    gap = pd.Series([curvature * math.log(age / at) ** 2 - 0.6 for age in ages], ages)
    assert bottom(gap, [0.8, 2.2]) == pytest.approx((at, -0.6))


def test_the_bottom_where_a_parabola_has_none_is_the_least_gap() -> None:
    ages = [0.9, 1.2, 1.5, 1.8, 2.1]
    assert bottom(pd.Series([-0.1, -0.2, -0.3, -0.4, -0.5], ages), [0.8, 2.2]) == pytest.approx((2.1, -0.5))
    assert bottom(pd.Series(0.0, ages), [0.8, 2.2]) == (0.9, 0.0)


def test_an_earlier_low_is_looked_past() -> None:
    """Before the first rise accuracy may be lower still: that is no part of the dip."""
    early = held().averages.copy()
    its = (early["statistics"] == "moving") & early["decay"].isin([0.98, 0.99])
    early.loc[its & (early["step"] < 20), "accuracy"] = 0.05
    assert findings(replace(held(), averages=early))["dip"].parts == holding()["dip"].parts


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([0.99, 0.99, 0.9, 0.9], (0.1, 1.0)),
        ([0.99, 0.95, 0.9, 0.9], (0.1, 1.0)),  # the target itself is enough
        ([0.98, 0.9, 0.99, 0.9], (1.0, 10.0)),  # whatever lower ones do
        ([0.9, 0.9, 0.9, 0.9], (0.0, 0.01)),
        ([0.99, 0.99, 0.99, 0.99], (10.0, math.inf)),
    ],
)
def test_the_largest_rate_is_an_interval(accuracies: list[float], expected: tuple[float, float]) -> None:
    found = largest_rate([0.01, 0.1, 1.0, 10.0], accuracies, 0.95)
    assert (found.after, found.by) == expected
