"""The nine claims: what each says, its endpoint, the rule that judges it, and how it is measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from bnstudy.analysis.claim import FACTOR, POINTS, RATIO, Claim, Measured, Results, Unit, too_few
from bnstudy.analysis.crossing import Crossing, crossing, geometric_mean, ratio
from bnstudy.analysis.inference import Estimate, Rule, equivalence_p, estimate
from bnstudy.engine.rows import AveragesRow
from bnstudy.params import AVERAGES_ARM

UPDATES, WEIGHT = Unit(",.0f"), Unit("#.4g")
DISTANCES = [name for name in AveragesRow._fields if name.endswith(("_mean", "_deviation"))]
ARM_OF = {"hidden": "own_rate", "everywhere": "everywhere"}  # the arm in which a finalist with batch norm competes
PAIRED = "geometric mean over the seeds, each time known to lie between two evaluations"


def points(fraction: float) -> str:
    return f"{100 * fraction:g} point{'' if fraction == 0.01 else 's'}"


def at_step(results: Results, arm: str, step: int, column: str = "validation_accuracy") -> "pd.Series[float]":
    """A column of each seed after `step` updates, by seed; empty where there is no such evaluation."""
    curves = results.curves
    return curves[(curves["arm"] == arm) & (curves["step"] == step)].set_index("seed")[column].sort_index()


def distance(table: pd.DataFrame, layer: str = "") -> "pd.Series[float]":
    """Of each row of averages from precise statistics, in sigma: root mean square over layers, means and deviations."""
    squares = table[[name for name in DISTANCES if name.startswith(layer)]] ** 2
    root: pd.Series[float] = squares.mean(axis=1) ** 0.5
    return root


def spread(values: Sequence[float], form: str = ".2g") -> str:
    least, most = (format(end(values), form) for end in (min, max))
    return least if least == most else f"{least} to {most}"


def last_test(results: Results, *arms: str) -> int:
    """The last step after which all runs of `arms` evaluated the test split; if there is none, most of them."""
    curves = results.curves[results.curves["arm"].isin(arms)].dropna(subset="test_accuracy")
    runs = curves.groupby("step").size()
    return int(runs.index[runs == runs.max()].max())


# 1 and 2: speed


def ends(results: Results, *arms: str) -> dict[int, int]:
    """For each seed, the last update that its runs of all `arms` have in common."""
    curves = results.curves[results.curves["arm"].isin(arms)]
    last = curves.groupby(["seed", "arm"])["step"].max().groupby("seed").min()
    return {int(str(seed)): int(step) for seed, step in last.items()}


def times(results: Results, arm: str, target: float, until: dict[int, int]) -> list[Crossing]:
    """When each seed reached `target`, in the first so many updates."""
    found = []
    for seed, rows in results.curves[results.curves["arm"] == arm].groupby("seed"):
        used = rows[rows["step"] <= until[int(str(seed))]]
        found.append(crossing(list(used["step"]), list(used["validation_accuracy"]), target))
    return found


def speed(
    results: Results, with_it: str, without: str, target: float, below: float, names: tuple[str, str]
) -> Measured | None:
    """The ratio of updates to `target`, with batch norm over without, over the seeds."""
    if not {with_it, without} <= set(results.curves["arm"]):
        return None
    until = ends(results, with_it, without)

    def compared(target: float, exactly: bool = False) -> Estimate:
        a, b = (times(results, arm, target, until) for arm in (with_it, without))
        return ratio(*([time.point() if exactly else time for time in side] for side in (a, b)), null=below)

    def reached(arm: str) -> str:
        runs = times(results, arm, target, until)
        there = sum(math.isfinite(run.by) for run in runs)
        if there < len(runs):
            all_runs = f"{len(runs)} runs" if len(runs) > 1 else "1 run"
            return f"{there or 'none'} of {all_runs} of {spread(list(until.values()), ',')} updates"
        return f"{UPDATES.estimate(geometric_mean(runs))} updates"

    def at_target(other: float) -> str:
        found = compared(other)
        interval = RATIO.interval(found)
        return f"{RATIO.estimate(found)}{f' ({interval})' if interval else ''} at {other:.0%}"

    def tests(step: int, seeds: list[int]) -> str:
        accuracies = (at_step(results, arm, step, "test_accuracy").reindex(seeds).mean() for arm in (with_it, without))
        return "{:.2%} with batch norm, {:.2%} without".format(*accuracies)

    found, last = compared(target), last_test(results, with_it, without)
    others = [other for other in (0.9, 0.95, 0.97, 0.98, 0.99) if other != target]
    end = max(until.values())
    longest = [seed for seed, step in until.items() if step == end]
    further = f"; after {end:,}, over those trained on ({len(longest)}): {tests(end, longest)}" if end > last else ""
    return Measured(
        [(f"updates to {target:.0%}", found, FACTOR, Rule(below=below))],
        f"{names[0]} reaches {target:.0%} validation accuracy in {reached(with_it)}, {names[1]} in {reached(without)}: "
        + (
            f"a ratio of {RATIO.text(found)}{fewer(found)}."
            if found.value
            else f"nothing bounds the ratio{since(found)}."
        ),
        found.p,
        (
            f"With times interpolated between evaluations: {RATIO.text(compared(target, exactly=True))}.",
            f"At other targets, with their intervals: {'; '.join(at_target(t) for t in others)}.",
            f"Test accuracy after {last:,} updates, mean over the seeds: {tests(last, list(until))}{further}.",
        ),
    )


def fewer(found: Estimate) -> str:
    """A ratio of updates as a number of times."""
    value = found.value or 1.0
    bound, opposite = {"at most": ("at most ", "at least "), "at least": ("at least ", "at most ")}.get(
        found.bound, ("", "")
    )
    if value < 1:
        return f", {opposite}{RATIO.number(1 / value)} times fewer"
    return f", {bound}{RATIO.number(value)} times as many"


def since(*found: Estimate) -> str:
    """Why there is no interval, or not for each."""
    few = [one.n for one in found if too_few(one.n)]
    return f" ({f'for {len(few)} of them, ' if len(few) < len(found) else ''}{too_few(few[0])})" if few else ""


def by_precise(results: Results, target: float) -> tuple[str, ...]:
    """When the note's network with batch norm reaches `target` by precise statistics, and by averages, on some images.

    Those on which all kinds of statistics are evaluated are fewer than those of the curves.
    """
    averages = results.params.averages

    def time(statistics: str, decay: float) -> str:
        runs = [run for (_, *kind), run in results.series.items() if kind == [statistics, decay]]
        return UPDATES.estimate(geometric_mean([crossing(list(run.index), list(run), target) for run in runs]))

    decay = results.params.train.decay
    if decay not in averages.decays:
        return ()
    return (
        f"On the first {averages.images:,} validation images batch norm reaches {target:.0%} in "
        f"{time('precise', -1.0)} updates by precise statistics, which need no warming up, and in "
        f"{time('moving', decay)} by its averages.",
    )


def note(results: Results) -> Claim:
    target = results.params.rules.note_target
    names = "The note's network with batch norm", "the one without it"
    averages = results.params.averages
    theirs = (averages.network, averages.rate) == ("batch_norm", "note")
    measured = speed(results, AVERAGES_ARM, "note_plain", target, 1.0, names) if theirs else None
    return Claim(
        1,
        "The note: batch norm converges faster, in its own setting.",
        f"Ratio of the updates until three evaluations in a row reach {target:.0%} validation accuracy, with batch "
        f"norm over without, {PAIRED}.",
        "below 1",
        measured and replace(measured, described=(*measured.described, *by_precise(results, target))),
    )


def contest(results: Results) -> Claim:
    rules, arm = results.params.rules, ARM_OF.get(results.choices.contest.get("with", ""), "")
    names = "Batch norm", "the tuned network without it"
    return Claim(
        2,
        "Tuned against tuned, batch norm still converges faster.",
        f"Ratio of the updates until three evaluations in a row reach {rules.contest_target:.0%} validation accuracy, "
        f"the best network with batch norm over the best without, each at its own rate, {PAIRED}.",
        f"below {rules.contest_ratio:g}",
        speed(results, arm, "baseline", rules.contest_target, rules.contest_ratio, names),
    )


# 3 and 4: the ladder


def paired(results: Results, a: str, b: str, column: str = "validation_accuracy", after: int = 0) -> list[float]:
    """Arm `a` minus arm `b`, by seed, after so many updates, else `rules.after`; empty where these were not made."""
    sides = [at_step(results, arm, after or results.params.rules.after, column) for arm in (a, b)]
    return (sides[0] - sides[1]).dropna().tolist()


def larger_rate(results: Results) -> Claim:
    rules = results.params.rules
    within, gain = rules.equal_within, rules.own_rate_gain
    claim = partial(
        Claim,
        3,
        "What batch norm buys is the larger rate.",
        f"Validation accuracy after {rules.after} updates: batch norm, but for the logits, at the baseline's rate "
        "minus the baseline, and at its own rate minus that.",
        f"within {points(within)} (two one-sided tests), and at least {points(gain)}",
    )
    steps = ("same_rate", "baseline"), ("own_rate", "same_rate")
    pairs = [paired(results, *arms) for arms in steps]
    if not all(pairs):
        return claim(None)
    same, own = estimate(pairs[0]), estimate(pairs[1], null=gain)
    batch = [POINTS.estimate(estimate(paired(results, *arms, "batch_accuracy"))) for arms in steps]
    errors = {arm: 1 - at_step(results, arm, rules.after).mean() for arms in steps for arm in arms}
    left = [f"{errors[arm] / errors[base]:.0%}" if errors[base] else "none" for arm, base in steps]
    return claim(
        Measured(
            [
                ("at the baseline's rate", same, POINTS, Rule(above=-within, below=within)),
                ("its own rate adds", own, POINTS, Rule(above=gain)),
            ],
            f"After {rules.after} updates, batch norm but for the logits, at the rate of the tuned network without it, "
            f"changes accuracy by {POINTS.text(same)}; its own rate adds {POINTS.text(own)}.",
            max(equivalence_p(pairs[0], within), own.p or 0.0),
            (
                f"Batch norm at the baseline's rate leaves {left[0]} of the baseline's errors, its own rate {left[1]} "
                f"of those: it could have added {POINTS.number(errors['same_rate'])} points at most.",
                f"On the training batch of the last update: {' and '.join(batch)}.",
                *still_warming(results),
            ),
        )
    )


def still_warming(results: Results) -> tuple[str, ...]:
    """What averages cost when the ladder is looked at, in the network of which both are known."""
    after, decay = results.params.rules.after, results.params.train.decay
    gaps = [gap(results, seed, decay) for seed, *kind in results.series if kind == ["moving", decay]]
    costs = [apart[after] for apart in gaps if after in apart]
    if not costs:
        return ()
    return (
        "Batch norm is evaluated by its averages, which may not be warm by then: in the note's network they change "
        f"accuracy by {POINTS.number(float(np.mean(costs)))} points against precise statistics, mean over the seeds.",
    )


def initial_weights(results: Results) -> Claim:
    rules = results.params.rules
    claim = partial(
        Claim,
        4,
        "The initial weights are not what ails the note's plain network.",
        f"Validation accuracy after {rules.after} updates at the note's rate, with He's initial weights minus the "
        "note's, without batch norm.",
        f"at most {points(rules.he_gain)}",
    )
    pairs = paired(results, "he", "note_plain")
    if not pairs:
        return claim(None)
    found = estimate(pairs, null=rules.he_gain)
    means = [at_step(results, arm, rules.after).mean() for arm in ("he", "note_plain")]
    return claim(
        Measured(
            [("He minus the note's", found, POINTS, Rule(below=rules.he_gain))],
            f"After {rules.after} updates at the note's rate, He's initial weights come to {means[0]:.1%}, the note's "
            f"to {means[1]:.1%}: {POINTS.text(found)}.",
            found.p,
            ramped(results),
        )
    )


def ramped(results: Results) -> tuple[str, ...]:
    """He's initial weights with the rate ramped up: when the ladder is looked at, and at the end."""
    arms = "he_ramp", "note_plain"
    early, after = paired(results, *arms), results.params.rules.after
    if not early:
        return ()
    last = min(ends(results, *arms).values())
    late = paired(results, *arms, after=last)
    later = f"; after {last:,}, {POINTS.text(estimate(late))}" if last > after else ""
    return (f"With the rate ramped up besides: {POINTS.text(estimate(early))} after {after}{later}.",)


# 5 to 8: the averages


def gap(results: Results, seed: int, decay: float) -> "pd.Series[float]":
    """Accuracy by moving averages minus that by precise statistics, by step, to 9 decimals."""
    return (results.series[seed, "moving", decay] - results.series[seed, "precise", -1.0]).round(9)


def run_lengths(results: Results) -> dict[int, int]:
    """The last step of each seed's run that carries the averages."""
    return {int(str(seed)): int(step) for seed, step in results.averages.groupby("seed")["step"].max().items()}


def judged(results: Results) -> tuple[list[float], str]:
    """The judged decays, none if the runs do not carry all of them, and their names."""
    decays = results.params.rules.judged_decays
    carried = set(decays) <= set(results.params.averages.decays)
    return decays if carried else [], ", ".join(f"{decay:g}" for decay in decays)


def exit_time(apart: "pd.Series[float]", within: float) -> Crossing:
    """From which update on the gap stays within `within`: after the last evaluation beyond it, by the next one."""
    steps, far = list(apart.index), np.flatnonzero(apart.abs() > within)
    if not far.size:
        return Crossing(0.0, float(steps[0]))
    after, rest = steps[far[-1]], steps[far[-1] + 1 :]
    if not rest:
        return Crossing(float(after), math.inf)
    beyond, inside = abs(apart[after]), abs(apart[rest[0]])
    interpolated = after * (rest[0] / after) ** ((beyond - within) / (beyond - inside))
    return Crossing(float(after), float(rest[0]), float(interpolated))


def warm_up(results: Results) -> Claim:
    """A decay is judged by the runs long enough to tell that it takes longer than the rule; if none is, by all."""
    rules, (decays, names) = results.params.rules, judged(results)
    claim = partial(
        Claim,
        5,
        "Averages need about 5 / (1 − decay) updates, not “about 1,000”.",
        f"Updates from which on accuracy by moving averages stays within {points(rules.warm_within)} of that by "
        "precise statistics, times −ln(decay), geometric mean over the seeds, each known between two evaluations.",
        f"between {rules.warm_from:g} and {rules.warm_to:g} for each of the decays {names}",
    )
    if not decays:
        return claim(None)
    lengths = run_lengths(results)

    def found(decay: float, within: float, exactly: bool = False) -> Estimate:
        rate = -math.log(decay)
        seeds = [seed for seed, last in lengths.items() if last * rate >= rules.warm_to] or list(lengths)
        exits = [exit_time(gap(results, seed, decay), within) for seed in seeds]
        return geometric_mean([time.point() for time in exits] if exactly else exits, factor=rate)

    within, rule = rules.warm_within, Rule(above=rules.warm_from, below=rules.warm_to)
    all_found = {limit: [found(decay, limit) for decay in decays] for limit in (within / 2, within, within * 2)}

    def warm(within: float) -> str:
        bound = "at least " if any(one.bound == "at least" for one in all_found[within]) else ""
        values = [one.value for one in all_found[within] if one.value]
        return f"{points(within)} of precise statistics after {bound}{spread(values)}"

    parts = [(f"decay {decay:g}", one, RATIO, rule) for decay, one in zip(decays, all_found[within], strict=True)]
    exact = {decay: found(decay, within, exactly=True) for decay in decays}
    told = ", ".join(f"{RATIO.interval(one) or RATIO.estimate(one)} at {decay:g}" for decay, one in exact.items())
    if not since(*exact.values()):
        clear = sum(rule.allows(one.low, one.high) for one in exact.values())
        told += f"; {clear} of these {len(exact)} clear{'s' if clear == 1 else ''} the rule"
    return claim(
        Measured(
            parts,
            f"Averages are within {warm(within)} times 1 / −ln(decay) updates, at the decays {names}"
            f"{since(*all_found[within])}.",
            described=(
                f"With times interpolated between evaluations: {told}.",
                f"In the same units, within {warm(within / 2)}, and within {warm(within * 2)}.",
            ),
        )
    )


def bottom(apart: "pd.Series[float]", decay: float) -> tuple[float, float, float]:
    """The start's weight at the least gap, and the least and most it can be between the evaluations beside it."""
    steps, at = [0, *apart.index, math.inf], np.flatnonzero(apart == apart.min()) + 1
    low, value, high = (decay**step for step in (steps[at[-1] + 1], steps[at[0]], steps[at[0] - 1]))
    return value, low, high


def risen(apart: "pd.Series[float]", weights: Sequence[float], left: float) -> "pd.Series[float]":
    """The gaps from the averages' first rise on: the highest while more than `left` of the start is left.

    `weights`: what is left of the start at each gap, from most to least.
    """
    early = apart[[weight > left for weight in weights]]
    return apart if early.empty else apart.loc[early.idxmax() :]


def least_gaps(gaps: Mapping[float, Mapping[int, "pd.Series[float]"]], rule: Rule, depth: float) -> pd.DataFrame:
    """One row per decay and seed: the update of the least gap, and the start's weight there, as `bottom` has it.

    `flat`: there is no dip, the gap never being below -`depth`; `beyond`: there is, and all that its weight can be lies
    beyond the rule.
    """
    rows = []
    for decay, its in gaps.items():
        for seed, apart in its.items():
            weight, low, high = bottom(apart, decay)
            flat = bool(apart.min() >= -depth)
            beyond = not flat and rule.excludes(low, high)
            rows.append((decay, seed, int(str(apart.idxmin())), weight, low, high, flat, beyond))
    return pd.DataFrame(rows, columns=["decay", "seed", "step", "weight", "low", "high", "flat", "beyond"])


def bottoms(least: pd.DataFrame) -> Estimate:
    """Over the seeds of one decay, the geometric mean, the least and the most of what the bottom's weight can be.

    Those of one seed alone where it lies beyond the rule; no ends where a seed has no dip, or with fewer than 6 seeds.
    """
    beyond, ends = least[least["beyond"]], tuple(zip(least["low"], least["high"], strict=True))
    used = least if beyond.empty else beyond[:1]
    value = math.exp(np.mean([math.log(weight) for weight in used["weight"]]))
    if len(least) < 6 or (least["flat"].any() and beyond.empty):
        return Estimate(value, -math.inf, math.inf, None, len(least), ends=ends)
    return Estimate(value, float(used["low"].min()), float(used["high"].max()), None, len(least), ends=ends)


def weights(least: pd.DataFrame) -> str:
    """Of the start at the least gaps: those beyond the rule apart from the others, if there are both."""
    sides = [list(side) for _, side in least.groupby("beyond")["weight"]]
    most = f" (in {len(sides[0])} of {len(least)} cases, one per seed and decay)" if len(sides) > 1 else ""
    return spread(sides[0]) + most + "".join(f" or {spread(side)}" for side in sides[1:])


def dip(results: Results) -> Claim:
    rules, (decays, names) = results.params.rules, judged(results)
    claim = partial(
        Claim,
        6,
        "Any decay's dip lies where the start's weight is about a quarter.",
        "decay ^ updates where accuracy by moving averages minus that by precise statistics is least, over the seeds.",
        f"between {rules.dip_from:g} and {rules.dip_to:g} for each of the decays {names}, in every seed",
    )
    if not decays:
        return claim(None)
    rule = Rule(above=rules.dip_from, below=rules.dip_to)
    runs = run_lengths(results)
    gaps = {decay: {seed: gap(results, seed, decay) for seed in runs} for decay in decays}
    least = least_gaps(gaps, rule, rules.warm_within)
    found = {decay: bottoms(least[least["decay"] == decay]) for decay in decays}
    after_rise = {
        decay: {seed: risen(apart, [decay**step for step in apart.index], rules.dip_to) for seed, apart in its.items()}
        for decay, its in gaps.items()
    }
    late = [bottom(apart, decay)[0] for decay, its in after_rise.items() for apart in its.values()]
    beyond = least[least["beyond"]]
    alone = {decay: f", seed {seed}" for decay, seed in beyond.groupby("decay")["seed"].first().items()}
    listed = [
        f"seed {seed} at {', '.join(f'{decay:g}' for decay in rows['decay'])} (least after {step:,} updates)"
        for (seed, step), rows in beyond.groupby(["seed", "step"])
    ]
    depths = ", ".join(
        f"{POINTS.number(max(apart.min() for apart in its.values()))} at {d:g}" for d, its in after_rise.items()
    )
    seeds = beyond["seed"].nunique()
    return claim(
        Measured(
            [(f"decay {decay:g}{alone.get(decay, '')}", one, WEIGHT, rule) for decay, one in found.items()],
            f"At the decays {names}, accuracy by averages loses most where {weights(least)} of the start is left"
            f"{since(found[decays[0]])}.",
            described=(
                f"Beyond the rule{', the first of each decay in the table' if listed else ''}: "
                f"{'; '.join(listed) or 'no seed, at no decay'}.",
                "Looked for after the averages' first rise alone, their best while more than "
                f"{rules.dip_to:g} of the start is left: {spread(late)}, over all seeds and decays.",
                f"Its depth in points after that rise, in the seed where it is shallowest: {depths}.",
            ),
            level="least to most",
            why=f"In {seeds} of {len(runs)} seeds the least lies beyond the rule, and one is enough."
            if seeds and not too_few(len(runs))
            else "",
        )
    )


def stability(results: Results) -> Claim:
    rules, steps, table = results.params.rules, results.params.long.steps, results.averages
    claim = partial(
        Claim,
        7,
        "Once warm, a larger decay is more stable.",
        f"Distance of the bias-corrected averages from precise statistics after {steps:,} updates, in standard "
        f"deviations (root mean square over layers, means and deviations), decay {rules.slow_decay:g} over "
        f"{rules.fast_decay:g}, geometric mean over the seeds.",
        "below 1",
    )
    at_end = table[(table["statistics"] == "corrected") & (table["step"] == steps)]
    by_decay = at_end.set_index(["decay", "seed"])
    if not {rules.slow_decay, rules.fast_decay} <= set(at_end["decay"]):
        return claim(None)

    def sides(layer: str = "") -> list["pd.Series[float]"]:
        off = distance(by_decay, layer)
        return [off.xs(decay) for decay in (rules.slow_decay, rules.fast_decay)]

    def compared(layer: str = "") -> Estimate:
        return ratio(*([Crossing(value, value, value) for value in side] for side in sides(layer)))

    found, (slow, fast) = compared(), (math.exp(side.map(math.log).mean()) for side in sides())
    moving = table[(table["statistics"] == "moving") & (table["step"] == steps)].groupby("decay")["accuracy"].mean()
    layers = dict.fromkeys(name.split("_")[0] for name in DISTANCES if at_end[name].notna().any())
    return claim(
        Measured(
            [(f"{rules.slow_decay:g} over {rules.fast_decay:g}", found, FACTOR, Rule(below=1.0))],
            f"After {steps:,} updates the averages of {rules.slow_decay:g} are off by {slow:.3g} σ, those of "
            f"{rules.fast_decay:g} by {fast:.3g} σ: a ratio of {RATIO.text(found)}.",
            found.p,
            (
                "The distance counts lag behind the weights, which still move, as well as noise; that of the precise "
                "statistics is in both, and draws the ratio toward 1.",
                "By layer: " + ", ".join(f"{layer} {RATIO.estimate(compared(layer))}" for layer in layers) + ".",
                f"Accuracy by the averages themselves, then: {moving[rules.slow_decay]:.2%} with {rules.slow_decay:g}, "
                f"{moving[rules.fast_decay]:.2%} with {rules.fast_decay:g}.",
            ),
        )
    )


def frozen(results: Results) -> Claim:
    rules, step, seeds = results.params.rules, results.params.rules.frozen_after, run_lengths(results)
    claim = partial(
        Claim,
        8,
        "Without update ops, evaluation is much worse.",
        f"Accuracy by the batch's own statistics minus that by never-updated averages, after {step:,} updates.",
        f"at least {points(rules.frozen_gain)}",
    )
    if not all(
        (seed, "moving", 1.0) in results.series and step in results.series[seed, "moving", 1.0] for seed in seeds
    ):
        return claim(None)
    kinds = ("batch", -1.0), ("moving", 1.0)
    batch, never = (np.array([results.series[seed, *kind][step] for seed in seeds]) for kind in kinds)
    found, long = estimate(batch - never, null=rules.frozen_gain), results.params.long.steps
    at_end = [results.series[seed, "moving", 1.0].get(long) for seed in seeds]

    def useless(accuracies: Sequence[float], after: int) -> str:
        below = sum(accuracy < rules.useless for accuracy in accuracies)
        seeds = f"{len(accuracies)} seed{'s' if len(accuracies) > 1 else ''}"
        return f"in {below} of {seeds} after {after:,} updates (mean {np.mean(accuracies):.1%})"

    told = [useless(list(never), step)]
    if long > step and (late := [accuracy for accuracy in at_end if accuracy is not None]):
        told.append(useless(late, long))
    return claim(
        Measured(
            [("by the batch minus never updated", found, POINTS, Rule(above=rules.frozen_gain))],
            f"After {step:,} updates, accuracy by the batch's statistics is {batch.mean():.1%}, by averages that are "
            f"never updated {never.mean():.1%}: {POINTS.text(found)}.",
            found.p,
            (f"By never-updated averages it is useless, below {rules.useless:.0%}, {' and '.join(told)}.",),
        )
    )


# 9: rates


def largest_rate(table: pd.DataFrame, target: float) -> Crossing:
    """The largest rate that reaches `target`, as an interval between it and the next one that was tried.

    Counted from the most accurate rate up to the first that fails: a lucky run far above is no range, and an unlucky
    one far below is no end. None: between 0 and the lowest rate. All: between the highest and infinity.
    """
    rates, accuracies = list(table["learning_rate"]), list(table["validation_accuracy"])
    best = int(np.argmax(accuracies))
    fails = next((i for i in range(best, len(rates)) if accuracies[i] < target), len(rates))
    if fails == best:
        return Crossing(0.0, rates[0])
    return Crossing(rates[fails - 1], [*rates, math.inf][fails])


def largest_rates(table: pd.DataFrame, target: float) -> list[Crossing]:
    """Of the runs of each seed."""
    return [largest_rate(rows, target) for _, rows in table.groupby("seed")]


def tolerance(results: Results) -> Claim:
    rules, table = results.params.rules, results.tolerance
    target = rules.tolerance_target
    claim = partial(
        Claim,
        9,
        "Batch norm works over a wider range of rates.",
        f"Largest rate that reaches {target:.0%} validation accuracy in {results.params.tolerance.steps:,} updates, "
        "with batch norm over without, geometric mean over the seeds.",
        f"above {rules.tolerance_ratio:g}",
    )
    if set(table["contestant"]) != {"with", "without"}:
        return claim(None)

    def rates(found: list[Crossing], tried: "pd.Series[float]") -> str:
        ends = {0.0: "none", min(tried): f"{min(tried):g} (the lowest)", max(tried): f"{max(tried):g} (the highest)"}
        return " or ".join(ends.get(rate, f"{rate:g}") for rate in sorted({one.after for one in found}))

    sides = [largest_rates(table[table["contestant"] == name], target) for name in ("with", "without")]
    found = ratio(*sides, null=rules.tolerance_ratio, floor=0.0)
    told = [rates(side, table["learning_rate"]) for side in sides]
    tuned = [
        f"{network} {rates(largest_rates(rows, target), rows['learning_rate'])}"
        for network, rows in results.sweep.groupby("network", sort=False)
    ]
    return claim(
        Measured(
            [("with over without", found, FACTOR, Rule(above=rules.tolerance_ratio))],
            f"Of the rates tried, the largest that reaches {target:.0%} is {told[0]} with batch norm, {told[1]} "
            f"without: a ratio of {RATIO.text(found)}.",
            found.p,
            (
                f"In the sweep, on the tuning seeds: {'; '.join(tuned)}.",
                "The lower end of the range is not judged.",
            ),
        )
    )


CLAIMS = (note, contest, larger_rate, initial_weights, warm_up, dip, stability, frozen, tolerance)
