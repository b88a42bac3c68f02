"""The twelve claims: what each says, its endpoint, the rule that judges it, and how it is measured and told.

Each function takes the runs and the claim's block of `rules` in study/params.yaml, where its expectation stands too.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from bnstudy.study import rules, theory
from bnstudy.study.claim import (
    AGE,
    COST,
    FACTOR,
    LOSS,
    POINTS,
    SHARE,
    SHIFT,
    SPEED,
    UPDATES,
    WEIGHT,
    Demand,
    Measured,
    Missing,
    Unit,
    claim,
    points,
)
from bnstudy.study.crossing import Crossing, crossing, exactly, geometric_mean, log_ends, ratio
from bnstudy.study.records import Results
from bnstudy.study.statistics import Estimate, Rule, estimate

NOTE, STANDARDIZED = "note_batch_norm", "standardized"  # the networks whose averages are followed
WITH, WITHOUT = "tolerance_batch_norm_hidden_he", "tolerance_plain_he"  # entries of the sweep
TARGETS = (0.9, 0.95, 0.97, 0.98, 0.985)
IN_A_ROW = "until three evaluations in a row reach {r.target:.0%} validation accuracy"
MEAN = "geometric mean over the seeds, at the adverse ends of the two evaluations between which each time lies"
IN_UPDATES = replace(SPEED, sign=" times as fast, in updates")


def span(values: Iterable[float], unit: Unit) -> str:
    """From the first value to the last, as they are ordered; one where both read the same."""
    texts = [unit.number(value) for value in values]
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def least_to_most(values: Sequence[float], rule: Rule, p: float | None = None) -> Estimate:
    """Of a claim about every seed: the value nearest to breaking the rule, and the least and most of them."""
    worst = min(values) if rule.above is not None else max(values)
    return Estimate(worst, min(values), max(values), p, len(values), ends=tuple((value, value) for value in values))


def mean_at(results: Results, arm: str, step: int, column: str) -> float:
    """Mean over the seeds after `step` updates; NaN where it was not evaluated."""
    runs = pd.concat(results.runs(arm).values())
    return float(runs.loc[runs["step"] == step, column].mean())


def last_step(results: Results, arm: str) -> int:
    """The last update that all runs of the arm have."""
    return min(int(run["step"].max()) for run in results.runs(arm).values())


# Is it faster?


def times(results: Results, arm: str, target: float, corrected: bool = True) -> list[Crossing]:
    """When each seed reached `target`, by averages less their start or, on the coarse grid, by the averages."""
    found = []
    for run in results.runs(arm).values():
        used = run if corrected else run[run["batch_accuracy"].notna()]
        accuracies = used["corrected_accuracy" if corrected else "validation_accuracy"]
        found.append(crossing(list(used["step"]), list(accuracies), target))
    return found


def reached(results: Results, arm: str, runs: list[Crossing]) -> str:
    """After how many updates, or that some never did."""
    there, end = sum(math.isfinite(run.by) for run in runs), last_step(results, arm)
    if there < len(runs):
        if len(runs) == 1:
            return f"not within {end:,} updates"
        return f"in {there or 'none'} of {len(runs)} runs of {end:,} updates"
    return f"after {UPDATES.estimate(geometric_mean(runs))}"


def speed(
    results: Results, r: rules.Speed, arms: tuple[str, str], names: tuple[str, str], *, corrected: bool = True
) -> Measured:
    """The ratio of updates to the target, of the first arm, with batch norm, over the second, without."""

    def compared(target: float, point: bool = False) -> Estimate:
        sides = [times(results, arm, target, corrected) for arm in arms]
        return ratio(*([time.point() if point else time for time in side] for side in sides), null=r.below)

    def at(target: float) -> str:
        found = compared(target)
        interval = SPEED.interval(found.low, found.high)
        return f"{SPEED.estimate(found)}{f' ({interval})' if interval else ''} to {100 * target:g}%"

    found = compared(r.target)
    told = [reached(results, arm, times(results, arm, r.target, corrected)) for arm in arms]
    tests = [f"{mean_at(results, arm, end, 'test_accuracy'):.2%} after {end:,} updates {name} batch norm"
             for arm, name in zip(arms, ("with", "without"), strict=True)
             for end in [last_step(results, arm)]]  # fmt: skip
    end = IN_UPDATES.text(found) if found.value else f"nothing bounds the ratio ({found.n} runs)"
    return Measured(
        [Demand(f"updates to {r.target:.0%}", found, SPEED, Rule(below=r.below))],
        f"{names[0]} reaches {r.target:.0%} validation accuracy {told[0]}, {names[1]} {told[1]}: {end}.",
        found.p,
        (
            f"With times interpolated between evaluations: {SPEED.text(compared(r.target, point=True))}.",
            f"At other targets: {'; '.join(at(target) for target in TARGETS if target != r.target)}.",
            f"Test accuracy, mean over the seeds: {' and '.join(tests)}.",
        ),
    )


@claim(
    *("note", "faster", "In the note's setting, batch norm is faster."),
    f"Updates {IN_A_ROW}, with batch norm over without, by the note's own averages; {MEAN}.",
    "with it less than {r.below:.0%} of the updates, over the whole interval",
)
def note(results: Results, r: rules.Speed) -> Measured:
    names = "The note's network with batch norm", "the one without it"
    return speed(results, r, (NOTE, "note_plain"), names, corrected=False)


@claim(
    *("tuned", "faster", "With both tuned, batch norm is faster."),
    f"Updates {IN_A_ROW}, with batch norm on all layers but the last over without, each at its own rate; {MEAN}.",
    "with it less than {r.below:.0%} of the updates, over the whole interval",
)
def tuned(results: Results, r: rules.Speed) -> Measured:
    names = "Batch norm on all layers but the last", "the tuned network without it"
    return speed(results, r, ("own_rate", "baseline"), names)


@claim(
    *("share", "faster", "Part of that needs no larger rate, and part does."),
    f"Share of the speed-up that batch norm has at the baseline's rate, of logarithms of the updates {IN_A_ROW}; mean "
    "over the seeds, at the adverse ends of the three times.",
    "the whole interval lies between {r.above:.0%} and {r.below:.0%}",
)
def share(results: Results, r: rules.Share) -> Measured:
    arms = ("baseline", "same_rate", "own_rate")

    def found(target: float, point: bool = False) -> Estimate:
        runs = zip(*(times(results, arm, target) for arm in arms), strict=True)
        shares = [share_of(*((time.point() if point else time) for time in three)) for three in runs]
        values, lows, highs = zip(*shares, strict=True)
        return estimate(values, lows=lows, highs=highs)

    judged = found(r.target)
    told = [reached(results, arm, times(results, arm, r.target)) for arm in arms]
    others = "; ".join(f"{SHARE.estimate(found(target))} at {100 * target:g}%" for target in (0.97, 0.985))
    after = results.params.rules.ladder.after
    accuracies = [mean_at(results, arm, after, "corrected_accuracy") for arm in arms]
    return Measured(
        [Demand("at the baseline's rate", judged, SHARE, Rule(above=r.above, below=r.below))],
        f"The tuned network without batch norm reaches {r.target:.0%} {told[0]}, batch norm at the same rate "
        f"{told[1]}, at its own rate {told[2]}: {SHARE.text(judged)} of the speed-up needs no larger rate.",
        described=(
            f"With times interpolated between evaluations: {SHARE.text(found(r.target, point=True))}.",
            f"At other targets: {others}.",
            f"Validation accuracy after {after} updates: {', '.join(f'{one:.1%}' for one in accuracies)}.",
        )[: 3 if all(map(math.isfinite, accuracies)) else 2],
    )


def share_of(baseline: Crossing, same_rate: Crossing, own_rate: Crossing) -> tuple[float, float, float]:
    """(ln baseline - ln same_rate) / (ln baseline - ln own_rate): the best guess, and the least and most it can be.

    In each time it rises or falls throughout, so that its extremes lie at ends of the three; nothing bounds it where
    own_rate may be no faster than the baseline.
    """
    base, same, own = (log_ends(run, 1.0) for run in (baseline, same_rate, own_rate))
    if base[0] <= own[2]:
        return 0.0, -math.inf, math.inf

    def of(b: float, s: float, o: float) -> float:
        return -math.inf if math.isinf(s) else 1.0 if math.isinf(b) else (b - s) / (b - o)

    corners = [of(b, s, o) for b in base for s in same for o in own]
    return of(base[1], same[1], own[1]), min(corners), max(corners)


@claim(
    *("momentum", "faster", "It is not of Adagrad's making: with SGD and momentum, too, batch norm is faster."),
    f"Updates {IN_A_ROW}, with batch norm on all layers but the last over without, both tuned with SGD and momentum; "
    f"{MEAN}.",
    "with it less than {r.below:.0%} of the updates, over the whole interval",
)
def momentum(results: Results, r: rules.Speed) -> Measured:
    names = "With SGD and momentum, batch norm on all layers but the last", "the tuned network without it"
    return speed(results, r, ("sgd_batch_norm", "sgd_baseline"), names)


def largest_rate(rates: Sequence[float], accuracies: Sequence[float], target: float) -> Crossing:
    """The largest of the ascending rates that reaches `target`, as an interval between it and the next that was tried.

    None of them: between 0 and the lowest. The highest: between it and infinity.
    """
    reaching = [rate for rate, accuracy in zip(rates, accuracies, strict=True) if accuracy >= target]
    ends = [0.0, *rates, math.inf]
    last = ends.index(reaching[-1]) if reaching else 0
    return Crossing(ends[last], ends[last + 1])


def largest_rates(table: pd.DataFrame, target: float) -> list[Crossing]:
    """Of each seed of a sweep's entry, after its last update; a run that diverged is at 0."""
    last = table.groupby(["seed", "learning_rate"])["corrected_accuracy"].last().fillna(0.0)
    runs = [run.droplevel("seed") for _, run in last.groupby("seed")]
    return [largest_rate(list(run.index), list(run), target) for run in runs]


@claim(
    *("tolerance", "faster", "It bears larger rates."),
    "Largest rate tried that reaches {r.target:.0%} validation accuracy, with batch norm on all layers but the last "
    "over without; geometric mean over the seeds, each rate known up to the next one tried.",
    "the whole interval is at least {r.at_least:g}",
)
def tolerance(results: Results, r: rules.Tolerance) -> Measured:
    def rates(found: list[Crossing], table: pd.DataFrame) -> str:
        low, high = min(table["learning_rate"]), max(table["learning_rate"])
        named = {0.0: "none", low: f"{low:g} (the lowest)", high: f"{high:g} (the highest)"}
        return " or ".join(named.get(rate, f"{rate:g}") for rate in sorted({one.after for one in found}))

    tables = {str(entry): rows for entry, rows in results.sweep.groupby("entry", sort=False)}
    for entry in (WITH, WITHOUT):
        if entry not in tables:
            raise Missing(f"no entry {entry} of the sweep")
    sides = [largest_rates(tables[entry], r.target) for entry in (WITH, WITHOUT)]
    least = r.at_least * (1 - 1e-9)  # it is enough itself
    found, steps = ratio(sides[0], sides[1], null=least, floor=0.0), tables[WITH]["step"].max()
    told = [rates(side, tables[entry]) for side, entry in zip(sides, (WITH, WITHOUT), strict=True)]
    others = [
        f"{entry} {rates(largest_rates(rows, r.target), rows)}"
        for entry, rows in tables.items()
        if entry not in (WITH, WITHOUT) and not entry.startswith("tuning")
    ]
    return Measured(
        [Demand("largest rate, with over without", found, FACTOR, Rule(above=least))],
        f"Of the rates tried, the largest that reaches {r.target:.0%} in {steps} updates is {told[0]} with batch norm, "
        f"{told[1]} without: {FACTOR.text(found)}.",
        found.p,
        (f"In other entries of the sweep: {'; '.join(others)}.",) if others else (),
    )


# The note's first remark: averages


def at(run: "pd.Series[float]", step: int, what: str) -> float:
    if step not in run.index or math.isnan(run[step]):
        raise Missing(f"no {what} after {step:,} updates")
    return float(run[step])


@claim(
    *("thousand", "averages", "Averages of decay 0.999 are not ready at “about 1,000” updates."),
    "Accuracy by averages of decay {r.decay:g} minus that by precise statistics, after {r.step:,} updates; mean over "
    "the seeds.",
    "the whole interval lies below {p.below}",
)
def thousand(results: Results, r: rules.Thousand) -> Measured:
    gaps = [at(gap, r.step, f"averages of decay {r.decay:g}") for gap in results.gaps(NOTE, r.decay).values()]
    found = estimate(gaps, null=r.below)
    return Measured(
        [Demand(f"after {r.step:,} updates", found, POINTS, Rule(below=r.below))],
        f"After {r.step:,} updates, averages of decay {r.decay:g} cost {COST.text(found)} of accuracy against precise "
        "statistics.",
        found.p,
        (f"In single seeds: {span(sorted(gaps), POINTS)} points.",),
    )


def by_age(gap: "pd.Series[float]", decay: float) -> "pd.Series[float]":
    """The same gaps by age: updates times -ln(decay)."""
    return pd.Series(gap.to_numpy(), index=-math.log(decay) * gap.index.to_numpy(np.float64))


def exit_age(gap: "pd.Series[float]", within: float) -> Crossing:
    """From which age on the gap stays within `within`: after the last evaluation beyond it, by the next one."""
    ages, far = list(gap.index), np.flatnonzero(gap.abs() > within)
    if not far.size:
        return Crossing(0.0, ages[0])
    after, rest = ages[far[-1]], ages[far[-1] + 1 :]
    if not rest:
        return Crossing(after, math.inf)
    beyond, inside = abs(gap[after]), abs(gap[rest[0]])
    return Crossing(after, rest[0], after * (rest[0] / after) ** ((beyond - within) / (beyond - inside)))


@claim(
    *("ready", "averages", "Averages are ready after about 5 times 1 / −ln(decay) updates, not “about 1,000”."),
    "Last age, updates times −ln(decay), at which accuracy by averages is more than {p.within} from that by "
    "precise statistics, interpolated between evaluations; geometric mean over the seeds, for each decay.",
    "all intervals lie between {r.above:g} and {r.below:g}",
)
def ready(results: Results, r: rules.Ready) -> Measured:
    def found(decay: float, within: float) -> Estimate:
        gaps = [by_age(gap, decay) for gap in results.gaps(NOTE, decay).values()]
        if short := [gap.index[-1] for gap in gaps if gap.index[-1] < r.below]:
            raise Missing(f"averages of decay {decay:g} are followed to the age {short[0]:.2g} only")
        return geometric_mean([exit_age(gap, within).point() for gap in gaps], floor=0.0)

    def largest_to_smallest(all_found: Iterable[Estimate]) -> str:
        return span(sorted((one.value or math.nan for one in all_found), reverse=True), AGE)

    all_found = {decay: found(decay, r.within) for decay in r.decays}
    ages, rule = largest_to_smallest(all_found.values()), Rule(above=r.above, below=r.below)
    values = [one.value or math.nan for one in all_found.values()]
    updates = [f"{value / -math.log(decay):,.0f} at {decay:g}" for decay, value in zip(r.decays, values, strict=True)]
    others = [
        f"within {points(limit)} after {largest_to_smallest(found(decay, limit) for decay in r.decays)}"
        for limit in (r.within / 2, r.within * 2)
    ]
    return Measured(
        [Demand(f"decay {decay:g}", one, AGE, rule) for decay, one in all_found.items()],
        f"Averages are within {points(r.within)} of precise statistics for good after {ages} times "
        f"1 / −ln(decay) updates, at decays from {r.decays[0]:g} to {r.decays[-1]:g}: {', '.join(updates)}.",
        described=(f"In the same units, {' and '.join(others)}.",),
        estimate=f"age {ages}",
        interval=all_within(all_found.values(), AGE),
    )


def all_within(found: Iterable[Estimate], unit: Unit) -> str:
    """What the intervals of several parts hold together."""
    found = list(found)
    return unit.interval(min(one.low for one in found), max(one.high for one in found))


def bottom(gap: "pd.Series[float]", ages: Sequence[float]) -> tuple[float, float]:
    """Age and gap where a parabola in the logarithm of the age, through the gaps between two ages, is least.

    The least of the gaps themselves, where the parabola has no minimum between these ages.
    """
    part = gap[(gap.index >= ages[0]) & (gap.index <= ages[1])]
    if len(part) < 3:
        raise Missing(f"fewer than three evaluations between the ages {ages[0]:g} and {ages[1]:g}")
    logs, values = np.log(part.index.to_numpy(np.float64)), part.to_numpy()
    curvature, slope, height = map(float, np.polyfit(logs, values, 2))
    lowest = -slope / (2 * curvature) if curvature > 1e-9 else math.nan
    if not logs[0] <= lowest <= logs[-1]:
        return math.exp(logs[values.argmin()]), float(values.min())
    return math.exp(lowest), height + slope * lowest / 2


@claim(
    *("dip", "averages", "On the way accuracy collapses, at the same age for every decay."),
    "Where a parabola through accuracy by averages minus that by precise statistics is least, between the ages "
    "{r.ages[0]:g} and {r.ages[1]:g}: weight of the start there, decay ^ updates, geometric mean over the seeds; and "
    "the mean difference there; for each decay.",
    "all intervals of the weight lie between {r.above:g} and {r.below:g}, all of the difference below {p.deep}",
)
def dip(results: Results, r: rules.Dip) -> Measured:
    bottoms = {
        decay: [bottom(by_age(gap, decay), r.ages) for gap in results.gaps(NOTE, decay).values()] for decay in r.decays
    }
    weights = {
        decay: geometric_mean([exactly(math.exp(-age)) for age, _ in its], floor=0.0) for decay, its in bottoms.items()
    }
    depths = {decay: estimate([gap for _, gap in its]) for decay, its in bottoms.items()}
    where, deep = (sorted(one.value or 0.0 for one in found.values()) for found in (weights, depths))
    return Measured(
        [
            *(Demand(f"where, decay {decay:g}", one, WEIGHT, Rule(r.above, r.below)) for decay, one in weights.items()),
            *(Demand(f"depth, decay {decay:g}", one, POINTS, Rule(below=r.deep)) for decay, one in depths.items()),
        ],
        f"On the way averages cost {span(deep[::-1], COST)} points of accuracy, at each decay between {r.decays[0]:g} "
        f"and {r.decays[-1]:g}, where {span(where, SHARE)}% of the start is left.",
        described=(*on_one_curve(results, r), *by_theory(results, r)),
        estimate=f"r = {span(where, WEIGHT)}; {span(deep, POINTS)} points",
        interval="; ".join(filter(None, (all_within(weights.values(), WEIGHT), all_within(depths.values(), POINTS)))),
    )


def on_one_curve(results: Results, r: rules.Dip) -> tuple[str, ...]:
    """How well the gaps of all decays lie on one curve of the age: R squared for each seed."""
    ages, found = np.arange(0.5, 5.05, 0.1), []
    gaps = [results.gaps(NOTE, decay) for decay in r.decays]
    for seed in gaps[0]:
        aged = [by_age(its[seed], decay) for its, decay in zip(gaps, r.decays, strict=True)]
        lines = np.array([np.interp(ages, gap.index, gap, left=np.nan, right=np.nan) for gap in aged])
        mean = np.nanmean(lines, axis=0)
        found.append(1 - np.nanmean((lines - mean) ** 2) / max(float(np.nanvar(lines)), 1e-12))
    return (f"One curve of the age explains {span(sorted(found), SHARE)}% of the variance over decays and ages.",)


def variances(results: Results, network: str, seed: int, step: float) -> tuple[float, float]:
    """v1 and v2, precise variances of conv1 and conv2, means over channels, at the evaluation nearest to `step`."""
    table = results.kind(network, "precise")[seed][["conv1_variance", "conv2_variance"]].dropna()
    if table.empty:
        raise Missing(f"no variances by layer in {network}")
    row = table.iloc[int(np.argmin(np.abs(table.index.to_numpy() - step)))]
    return float(row["conv1_variance"]), float(row["conv2_variance"])


def by_theory(results: Results, r: rules.Dip) -> tuple[str, ...]:
    """Where the formula puts the dip's bottom and its early end, with the variances there; and the best before it."""
    bottoms, laid, zeros, seen = [], [], [], []
    ages = np.linspace(r.ages[0], r.ages[1], 15)
    for decay in r.decays:
        for seed, gap in results.gaps(NOTE, decay).items():
            v1, v2 = variances(results, NOTE, seed, math.log(theory.LIMIT) / math.log(decay))
            lowest, early, before = (
                theory.bottom(v1, v2),
                theory.zero(v1, v2),
                gap[gap.index < r.ages[0] / -math.log(decay)],
            )
            if lowest and early and len(before) > 1:
                bottoms.append(lowest)
                laid.append(
                    bottom(pd.Series([-theory.excess(math.exp(-age), v1, v2) for age in ages], ages), r.ages)[0]
                )
                zeros.append(early)
                seen.append(decay ** list(before.index)[before.argmax()])
    if not bottoms:
        return ()
    laid = sorted(math.exp(-age) for age in laid)
    return (
        f"By the formula, with the variances as measured, the bottom lies at r = {span(sorted(bottoms), WEIGHT)}, or "
        f"{span(laid, WEIGHT)} by the same parabola, and the dip begins at {span(sorted(zeros), WEIGHT)}; before that, "
        f"accuracy is best at {span(sorted(seen), WEIGHT)}.",
    )


@claim(
    *("cause", "averages", "The cause is the first layer's start, as the theory says."),
    "Averages of decay {r.decay:g}: by how much in age a start variance of 10 in place of 1 makes them ready later, "
    "minus what the formula says; what a start variance of 0.1 loses at most while {r.small_start[0]:g} to "
    "{r.small_start[1]:g} of the start is left; and, with the means alone less their start, the difference to precise "
    "statistics where {r.weight:g} of it is left.",
    "the first lies within ±{r.shift:g}, the second below {p.small_loss} in every seed, the last below {p.means_below}",
)
def cause(results: Results, r: rules.Cause) -> Measured:
    usual, large, small, means = (
        results.gaps(NOTE, r.decay, kind) for kind in ("moving", "start_10", "start_0.1", "means_corrected")
    )
    lows, highs, said = [], [], []
    for seed, gap in usual.items():
        before, after = (exit_age(by_age(one, r.decay), r.within).point() for one in (gap, large[seed]))
        later = None
        if math.isfinite(before.by):
            v1, v2 = variances(results, NOTE, seed, before.by / -math.log(r.decay))
            later = theory.later(math.exp(-before.by), v1, v2, 10.0)
        said += [] if later is None else [later]
        lows.append(-math.inf if later is None else after.after - before.by - later)
        highs.append(math.inf if later is None else after.by - before.by - later)
    shift = estimate(lows, lows=lows, highs=highs)
    lost = least_to_most(
        [float(-lost_between(gap, r.decay, r.small_start).min()) for gap in small.values()], Rule(below=r.small_loss)
    )
    nearest = min(next(iter(means.values())).index, key=lambda step: abs(r.decay**step - r.weight))
    alone = estimate([at(gap, nearest, "averages with means corrected") for gap in means.values()])
    mean = f"{np.mean(said):.2g}" if said else "nothing"
    bound = "" if shift.bound == "exact" else f"{shift.bound} "
    seen = f"{bound}{shift.value + np.mean(said):.2g} in age" if said and shift.value is not None else "an unknown age"
    worst = LOSS.estimate(lost)
    return Measured(
        [
            Demand("start variance 10: shift minus the formula's", shift, SHIFT, Rule(-r.shift, r.shift)),
            Demand("start variance 0.1: loss", lost, LOSS, Rule(below=r.small_loss), tuple(small)),
            Demand("means alone corrected", alone, POINTS, Rule(below=r.means_below)),
        ],
        f"Started at variance 10 in place of 1, averages of decay {r.decay:g} are ready later by {seen}; the formula "
        f"says {mean}. Started at 0.1, they lose at most {worst} where the dip was. With only the means less "
        f"their start, they cost {COST.text(alone)} where {r.weight:.0%} of it is left.",
        estimate=f"{seen} against {mean}; {worst}; {POINTS.estimate(alone)}",
    )


def lost_between(gap: "pd.Series[float]", decay: float, weights: Sequence[float]) -> "pd.Series[float]":
    """The gaps while so much of the start is left."""
    left = np.array([decay ** int(step) for step in gap.index])
    part = gap[(left >= weights[0]) & (left <= weights[1])].dropna()
    if part.empty:
        raise Missing(f"no evaluation with {weights[0]:g} to {weights[1]:g} of the start left, decay {decay:g}")
    return part


@claim(
    *("standardized", "averages", "With standardized pixels, where the theory sees no dip, there is none."),
    "Mean loss of accuracy by averages against precise statistics while {r.weights[0]:g} to {r.weights[1]:g} of the "
    "start is left, over the decays; mean over the seeds.",
    "the whole interval lies below {p.below}",
)
def standardized(results: Results, r: rules.Standardized) -> Measured:
    gaps = [results.gaps(STANDARDIZED, decay) for decay in r.decays]
    by_decay = [
        [-lost_between(gap, decay, r.weights).mean() for gap in its.values()]
        for decay, its in zip(r.decays, gaps, strict=True)
    ]
    found = estimate(np.mean(by_decay, axis=0), null=r.below)
    moments = [math.log(theory.LIMIT) / math.log(decay) for decay in r.decays]
    pairs = [variances(results, STANDARDIZED, seed, moment) for seed in gaps[0] for moment in moments]
    conditions = sorted(theory.condition(*pair) for pair in pairs)
    return Measured(
        [Demand("mean loss", found, LOSS, Rule(below=r.below))],
        f"With standardized pixels averages lose {LOSS.text(found)} where the dip would be; the formula's condition "
        f"s₀ (1/v₁ + 1/v₂) > 4 is {span(conditions, AGE)} there.",
        found.p,
    )


@claim(
    *("correction", "averages", "Correcting the averages for their start is the cure."),
    "Most that averages less their start lose against precise statistics, over all evaluations from update {r.first} "
    "on, of all decays.",
    "at most {p.at_most}, in every seed",
)
def correction(results: Results, r: rules.Correction) -> Measured:
    gaps = {decay: results.gaps(NOTE, decay, "corrected") for decay in r.decays}

    def lost(seed: int, first: int, end: float = math.inf) -> float:
        parts = [its[seed][(its[seed].index >= first) & (its[seed].index < end)] for its in gaps.values()]
        if all(part.empty for part in parts):
            raise Missing(f"no averages less their start from update {first} on")
        return float(-pd.concat(parts).min())

    seeds, rule = tuple(gaps[r.decays[0]]), Rule(below=r.at_most + 1e-9)  # it may be reached
    found = least_to_most([lost(seed, r.first) for seed in seeds], rule)
    last = {decay: pd.concat(run[-1:] for run in results.kind(NOTE, "corrected", decay).values()) for decay in gaps}
    off = {decay: table.filter(regex="_off$").pow(2).mean(axis=1).pow(0.5).mean() for decay, table in last.items()}
    return Measured(
        [Demand("most lost", found, LOSS, rule, seeds)],
        f"From update {r.first} on, averages less their start lose at most {LOSS.estimate(found)}, over all seeds, "
        "decays and evaluations.",
        described=(
            f"Before that, up to {LOSS.number(max(lost(seed, 1, r.first) for seed in seeds))} points.",
            "Distance from precise statistics after the last update, in their standard deviations, by decay: "
            f"{', '.join(f'{value:.2g} at {decay:g}' for decay, value in off.items())}.",
        )
        if min(gaps[r.decays[0]][seeds[0]].index) < r.first
        else (),
    )


# The note's second remark: update ops


@claim(
    *("update_ops", "update_ops", "Without the update ops, evaluation is much worse."),
    "Accuracy by the batch's own statistics minus that by averages that are never updated, after {r.step:,} updates; "
    "mean over the seeds.",
    "the whole interval lies above {p.above}",
)
def update_ops(results: Results, r: rules.UpdateOps) -> Measured:
    never, batch = (
        [at(run["accuracy"], r.step, f"{kind[0]} statistics") for run in results.kind(NOTE, *kind).values()]
        for kind in (("moving", 1.0), ("batch", -1.0))
    )
    found = estimate(np.subtract(batch, never), null=r.above)
    return Measured(
        [Demand("by the batch minus never updated", found, POINTS, Rule(above=r.above))],
        f"After {r.step:,} updates accuracy is {np.mean(batch):.1%} by the batch's statistics and {np.mean(never):.1%} "
        f"by averages that are never updated, a difference of {LOSS.text(found)}.",
        found.p,
    )


CLAIMS = (
    *(note, tuned, share, momentum, tolerance),
    *(thousand, ready, dip, cause, standardized, correction),
    update_ops,
)
