"""Claims 8 and 9, from the sweep: which learning rates work, and what the batch size does."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

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
from bnstudy.analysis.statistics import Rule, paired_difference
from bnstudy.params import Sweep

DECADES = Quantity("difference of range", "+z.2f", " decades")
ADVANTAGE = Quantity("difference of advantage", "+z.2f", " points", scale=100)


def best_rate(variant: str, sweep: pd.DataFrame) -> float | None:
    """The rate with the highest mean validation accuracy, the smallest of equal ones; None without a sweep."""
    rows = sweep[(sweep["variant"] == variant) & (sweep["kind"] == "rate")]
    means = rows.groupby("learning_rate")["validation_accuracy"].mean().round(9)
    return None if means.empty else float(means.index[int(means.argmax())])


def decades(rates: Sequence[float]) -> NDArray[np.float64]:
    """How much of a logarithmic axis is nearer to each of two or more ascending `rates` than to the others, in decades.

    The first and the last reach as far outwards as inwards.
    """
    logs = np.log10(rates)
    middles = (logs[1:] + logs[:-1]) / 2
    return np.diff([2 * logs[0] - middles[0], *middles, 2 * logs[-1] - middles[-1]])


def decades_that_work(variant: str, table: pd.DataFrame, settings: Sweep) -> list[float]:
    """How wide a range of rates reaches the target, in decades, one number per seed; of two or more rates."""
    rows = table[(table["kind"] == "rate") & (table["variant"] == variant)]
    works = (rows["validation_accuracy"] >= settings.target_accuracy) & (rows["diverged"] == 0)
    works_SR = rows.assign(works=works).pivot_table("works", "seed", "learning_rate")[settings.learning_rates]
    return list(works_SR.to_numpy(float) @ decades(settings.learning_rates))


def measure_rates(results: Results, _: Runs) -> Measured:
    table, settings, widths = results.sweep, results.settings, dict[str, list[float]]()
    if len(settings.learning_rates) > 1:
        widths = {variant: decades_that_work(variant, table, settings) for variant in settings.variants}
    parts = judged_by_setting(widths, DECADES, Rule(above=0), results.rules)
    how = (
        f"Decades of learning rates with {percent(settings.target_accuracy)} validation accuracy after "
        f"{settings.steps} updates, each rate standing for what is nearest to it, with batch norm minus without, mean "
        "over the seeds"
    )
    for variant in widths if parts else ():
        how += f"; {variant} {np.mean(widths[variant]):.3g} decades, best at {best_rate(variant, table):g}"
    return Measured(how, parts)


def measure_batches(results: Results, _: Runs) -> Measured:
    rows = results.sweep[results.sweep["kind"] == "batch"]
    accuracy = {name: own.pivot_table("test_accuracy", "seed", "batch_size") for name, own in rows.groupby("variant")}
    parts, margin = list[Part](), results.rules.accuracy_margin
    for setting, (a, b) in SETTINGS.items():
        if not {a, b} <= set(results.settings.variants):
            continue
        advantage = (accuracy[a] - accuracy[b]).dropna(axis=1)  # at the sizes that both have
        sizes = sorted(advantage.columns.astype(int).tolist())
        if len(sizes) > 1:
            large, small = (list(advantage[size]) for size in (sizes[-1], sizes[0]))
            label = f"{setting}, {sizes[-1]} against {sizes[0]} images"
            found = paired_difference(large, small, confidence=results.rules.confidence)
            parts.append(judged(label, ADVANTAGE, found, Rule(-margin, margin, beyond=True), results.rules))
    how = (
        f"Advantage in test accuracy after {results.settings.steps} updates, with batch norm minus without, at the "
        "largest batch size minus that at the smallest, mean over the seeds"
    )
    return Measured(how, parts)


def draw(kind: str, results: Results, look: style.Looks) -> Figure:
    """Accuracy against what was swept, one dot per seed, through the means; logarithmic in the error."""
    x, split = {"rate": ("learning_rate", "validation"), "batch": ("batch_size", "test")}[kind]
    what = x.replace("_", " ")
    rows = results.sweep[results.sweep["kind"] == kind]
    drawn, axes = style.blank(f"{split.capitalize()} accuracy after {rows['step'].max()} updates, by {what}")
    rows = rows.assign(error=style.error_of(rows[f"{split}_accuracy"]))
    for variant in rows["variant"].unique():
        own = rows[rows["variant"] == variant]
        axes.plot(own.groupby(x)["error"].mean(), color=look[variant]["color"], linewidth=1.5)
        for diverged, dots in own.groupby("diverged"):
            marks = {**look[variant], "marker": "x"} if diverged else look[variant]
            axes.plot(dots[x], dots["error"], markersize=5, linestyle="none", **marks)
        axes.plot([], [], label=variant, linewidth=1.5, markersize=5, **look[variant])
    if rows["diverged"].any():
        axes.plot([], [], label="loss not finite", linestyle="none", marker="x", color=style.GREY)
    if kind == "rate":
        target = results.settings.target_accuracy
        axes.axhline(1 - target, color=style.INK, linewidth=1, linestyle="--", label=f"target, {percent(target)}")
    axes.set(xscale="log", xlabel=what)
    style.ticks(axes.xaxis, sorted(rows[x].unique()))
    style.error_axis(axes)
    return style.legend(drawn, axes, 3 if kind == "rate" else 2)


LEARNING_RATES = Claim(
    id=8,
    statement="Batch norm widens the range of learning rates that work.",
    supported="Batch norm works over a wider range of learning rates",
    refuted="In one setting or more, batch norm works over a narrower range of learning rates",
    quantities=(DECADES,),
    measure=measure_rates,
    draw=partial(draw, "rate"),
)
BATCH_SIZES = Claim(
    id=9,
    statement="The advantage of batch norm depends on the batch size.",
    supported="The advantage changes with the batch size by more than {margin}",
    refuted="In one setting or more, the batch size changes the advantage by less than {margin}",
    quantities=(ADVANTAGE,),
    measure=measure_batches,
    draw=partial(draw, "batch"),
)
