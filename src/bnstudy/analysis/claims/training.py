"""Claims 1, 2, 3 and 7, from the trainings: speed, final accuracy, and a floor under the training loss."""

import math
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bnstudy.analysis import style
from bnstudy.analysis.claim import (
    SETTINGS,
    Claim,
    Measured,
    Part,
    Quantity,
    Results,
    Runs,
    judged,
    judged_by_setting,
    percent,
)
from bnstudy.analysis.claims.sweep import best_rate
from bnstudy.analysis.statistics import Rule, alone, paired_difference, paired_ratio

RATIO = Quantity("ratio of steps", "#.3g", "×")
DIFFERENCE = Quantity("difference of test accuracy", "+z.2f", " points", scale=100)
# Nats. Of mean 0 and variance 1 over ten balanced classes, a logit is at best 3 for its own and -1/3 for the others.
FLOOR = math.log(1 + 9 * math.exp(-10 / 3))
NATS = Quantity("training loss minus the floor", "+z.4f", " nats")
FLOOR_RULES = {"batch_norm": Rule(above=0), "batch_norm_hidden": Rule(below=0)}


# 1 and 2: speed


def measure_speed(setting: str, results: Results, runs: Runs) -> Measured:
    """One part for each target that a run of either variant reached; in the fair setting, also the rates."""
    limit, variants, parts = int(results.curves["step"].max()), SETTINGS[setting], []
    for target in runs[variants[0]][0].steps_to if runs.keys() >= set(variants) else ():
        a, b = ([record.steps_to[target] for record in runs[variant]] for variant in variants)
        if any(step is not None for step in a + b):
            found = paired_ratio(a, b, limit, confidence=results.rules.confidence)
            parts.append(judged(f"to {percent(target)}, {setting}", RATIO, found, Rule(below=1), results.rules))
    how = (
        f"Updates to the first evaluation with that validation accuracy, {' over '.join(variants)}, geometric mean "
        f"over the seeds; a run that did not get there counts as {limit}, its end"
    )
    if setting == "fair" and parts:
        how = "; ".join([how, *(rate_used(variant, results) for variant in variants)])
    return Measured(how, parts)


def rate_used(variant: str, results: Results) -> str:
    """At which rate `variant` was trained, and which one the sweep found best."""
    rates = results.curves.loc[results.curves["variant"] == variant, "learning_rate"]
    used, best = float(rates.iloc[0]), best_rate(variant, results.sweep)
    if best is None:
        return f"{variant} at the rate {used:g}, not swept"
    agrees = math.isclose(used, best, rel_tol=1e-6)
    return f"{variant} at the rate {used:g}, " + ("the sweep's best" if agrees else f"not the sweep's best, {best:g}")


def draw_speed(setting: str, results: Results, look: style.Looks) -> Figure | None:
    """The first step at each target that a run reached, the two runs of a seed joined."""
    curves, variants = results.curves, SETTINGS[setting]
    if not set(variants) <= set(curves["variant"]):
        return None
    drawn, axes = style.blank("Updates until the validation accuracy reaches a target; one line per seed")
    limit, seeds = int(curves["step"].max()), list(curves["seed"].unique())
    rows = curves[curves["variant"].isin(variants)]
    found = first_steps(rows, results.targets)
    for row, reached in enumerate(found.values()):
        for seed, shift in zip(seeds, np.linspace(-0.13, 0.13, len(seeds)), strict=True):
            steps = [reached.get((variant, seed)) for variant in variants]
            heights = [row - 0.22 + shift, row + 0.22 + shift]
            axes.plot([step or limit for step in steps], heights, color=style.LINK, linewidth=1, zorder=1)
            for variant, step, height in zip(variants, steps, heights, strict=True):
                marks = look[variant] if step else {**look[variant], "marker": ">"}
                axes.plot(step or limit, height, markersize=5, clip_on=False, **marks)
    for variant in variants:
        axes.plot([], [], label=variant, linestyle="none", **look[variant])
    if any(len(reached) < 2 * len(seeds) for reached in found.values()):
        axes.plot([], [], label=f"not within {limit:,}", linestyle="none", marker=">", color=style.GREY)
    style.against_updates(axes, rows)
    axes.set_xlim(left=max(1, 0.7 * min((int(reached.min()) for reached in found.values()), default=1)))
    axes.set_yticks(range(len(found)), [percent(target) for target in found])
    axes.set_ylim(max(len(found), 1) - 0.5, -0.5)
    return style.legend(drawn, axes)


def first_steps(rows: pd.DataFrame, targets: list[float]) -> dict[float, "pd.Series[int]"]:
    """For each target that a run reached: the first step there, by variant and seed."""
    reached = {target: rows[rows["validation_accuracy"] >= target] for target in targets}
    return {
        target: there.groupby(["variant", "seed"])["step"].min() for target, there in reached.items() if not there.empty
    }


ORIGINAL = Claim(
    id=1,
    statement="Batch norm converges faster, in the original's setting.",
    supported="Batch norm got to each target in fewer updates than the network without",
    refuted="To one target or more, batch norm took more updates than the network without",
    quantities=(RATIO,),
    measure=partial(measure_speed, "original"),
    draw=partial(draw_speed, "original"),
)
FAIR = Claim(
    id=2,
    statement="Batch norm still converges faster, against a fair baseline.",
    supported="Batch norm got to each target in fewer updates than the fair baseline, too",
    refuted="To one target or more, batch norm took more updates than the fair baseline",
    quantities=(RATIO,),
    measure=partial(measure_speed, "fair"),
    draw=partial(draw_speed, "fair"),
)


# 3: final accuracy


def measure_accuracy(results: Results, runs: Runs) -> Measured:
    margin = results.rules.accuracy_margin
    accuracies = {variant: [record.test_accuracy for record in records] for variant, records in runs.items()}
    parts = judged_by_setting(accuracies, DIFFERENCE, Rule(-margin, margin, beyond=True), results.rules)
    return Measured("Test accuracy after the last update, with batch norm minus without, mean over the seeds", parts)


def draw_accuracy(results: Results, look: style.Looks) -> Figure | None:
    """The test accuracy of each run after its last update, the two runs of a seed joined."""
    curves = results.curves
    pairs = [pair for pair in SETTINGS.values() if set(pair) <= set(curves["variant"])]
    if not pairs:
        return None
    drawn, axes = style.blank("Test accuracy after the last update; one line per seed")
    last = curves[curves["step"] == curves["step"].max()].pivot_table("test_accuracy", "seed", "variant")
    places = {variant: 2.4 * index + side for index, pair in enumerate(pairs) for side, variant in enumerate(pair)}
    for pair in pairs:
        axes.plot([places[variant] for variant in pair], last[list(pair)].T, color=style.LINK, linewidth=1, zorder=1)
    for variant, place in places.items():
        axes.plot([place] * len(last), last[variant], markersize=5, linestyle="none", **look[variant])
        axes.plot(place, last[variant].mean(), marker="_", markersize=20, markeredgewidth=1.5, color=style.INK)
    axes.set(xlabel="dash: mean over the seeds", xlim=(-0.5, max(places.values()) + 0.5))
    axes.set_xticks(list(places.values()), list(places))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
    return drawn


FINAL_ACCURACY = Claim(
    id=3,
    statement="Batch norm changes the final accuracy.",
    supported="The final accuracies differ by more than {margin}",
    refuted="In one setting or more, the final accuracies differ by less than {margin}",
    quantities=(DIFFERENCE,),
    measure=measure_accuracy,
    draw=draw_accuracy,
)


# 7: the floor


def measure_floor(results: Results, _: Runs) -> Measured:
    parts = list[Part]()
    for variant, rule in FLOOR_RULES.items():
        rows = results.curves[results.curves["variant"] == variant]
        if rows.empty:
            continue
        least = rows.groupby("seed", sort=False)["train_loss"].min() - FLOOR
        found = paired_difference(list(least), [0.0] * len(least), confidence=results.rules.confidence)
        part = judged(variant, NATS, alone(found), rule, results.rules)
        if variant == "batch_norm_hidden" and part.verdict == "refuted":
            part = part.model_copy(update={"verdict": "not decided"})  # above the floor, it may just need more updates
        parts.append(part)
    how = (
        "A run's least training loss, among means from one evaluation to the next, minus ln(1 + 9 exp(-10/3)), mean "
        "over the seeds; without batch norm on the logits it must get below"
    )
    return Measured(how, parts)


def draw_floor(results: Results, look: style.Looks) -> Figure | None:
    """The training loss beside the floor."""
    curves = results.curves
    variants = [variant for variant in FLOOR_RULES if variant in set(curves["variant"])]
    if not variants:
        return None
    drawn, axes = style.blank("Training loss (nats), mean since the evaluation before")
    for variant in variants:
        rows = curves[curves["variant"] == variant]
        style.line(axes, rows, "train_loss", color=look[variant]["color"], label=variant)
    axes.axhline(FLOOR, color=style.INK, linewidth=1, linestyle="--", label=f"floor, {FLOOR:.4f}")
    style.against_updates(axes, curves)
    axes.set_yscale("log")
    style.ticks(axes.yaxis, [digit * power for power in style.POWERS for digit in (1, 3)])
    return style.legend(drawn, axes)


FLOOR_OF_LOSS = Claim(
    id=7,
    statement=f"The logits' batch norm puts a floor of {FLOOR:.4f} under the training loss.",
    supported="The training loss stayed above the floor with normalized logits",
    refuted="The training loss fell below the floor with normalized logits",
    quantities=(NATS,),
    measure=measure_floor,
    draw=draw_floor,
)


# No claim: what enters the hidden layer


def hidden_figure(curves: pd.DataFrame, look: style.Looks) -> Figure:
    """What enters the hidden layer: the 15th, 50th and 85th percentile (after Ioffe & Szegedy 2015, figure 1)."""
    variants = list(curves["variant"].unique())
    columns = min(2, len(variants))
    title = "15th, 50th and 85th percentile of the hidden layer's inputs"
    drawn, grid = style.blank(title, -(-len(variants) // columns), columns, sharex=True, sharey=True)
    panels = list(np.ravel(grid))
    for axes in panels[len(variants) :]:
        axes.set_axis_off()
    for axes, variant in zip(panels, variants, strict=False):
        mean = curves[curves["variant"] == variant].groupby("step")[["hidden_15", "hidden_50", "hidden_85"]].mean()
        color = look[variant]["color"]
        axes.fill_between(mean.index, mean["hidden_15"], mean["hidden_85"], color=color, alpha=0.18, linewidth=0)
        axes.plot(mean, color=color, linewidth=1)
        axes.set_title(variant, color=color)
        axes.set_yscale("asinh", linear_width=1)
        style.against_updates(axes, curves)
        axes.label_outer()
    top = np.abs(panels[0].get_ylim()).max()
    marks = (1, 2, 5) if top < 10 else (10, 100, 1000) if top < 3000 else (100, 10_000, 1_000_000)
    style.ticks(panels[0].yaxis, [0, *marks, *(-mark for mark in marks)])  # of all: they share it
    return drawn
