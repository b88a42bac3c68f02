"""Claims 4, 5 and 6, from the warm-up: how long moving averages lag, how steady they are, and what if never updated."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bnstudy.analysis import style
from bnstudy.analysis.claim import Claim, Measured, Part, Quantity, Results, Runs, judged, percent
from bnstudy.analysis.statistics import Rule, alone, paired_difference, paired_ratio

STEPS = Quantity("lag", ",.0f", " updates")
SPREADS = Quantity("ratio of standard deviations", "#.3g", "×")
SPREAD_DIFFERENCE = Quantity("difference of standard deviations", "+z.2f", " points", scale=100)
ACCURACY = Quantity("accuracy", ".2f", "%", scale=100)


def under(warmup: pd.DataFrame, seed: int, statistics: str, decay: float | None = None) -> "pd.Series[float]":
    """Test accuracy by step under one kind of statistics."""
    rows = warmup[(warmup["seed"] == seed) & (warmup["statistics"] == statistics)]
    return (rows if decay is None else rows[rows["decay"] == decay]).set_index("step")["test_accuracy"]


# 4: warm-up


def lag(warmup: pd.DataFrame, seed: int, decay: float, within: float) -> int | None:
    """The first evaluated step from which on moving averages stay near precise statistics; None if there is none.

    Near: at most `within` apart in test accuracy, to 9 decimals, since a difference of just `within` is common.
    """
    apart = (under(warmup, seed, "moving", decay) - under(warmup, seed, "precise")).abs().round(9)
    last_far = max(apart.index[apart > within], default=0)
    return next((int(step) for step in apart.index if step > last_far), None)


def measure_lag(results: Results, _: Runs) -> Measured:
    warmup, rules, parts = results.warmup, results.rules, list[Part]()
    end = int(warmup["step"].max())
    for decay, rule in (
        (rules.slow_decay, Rule(above=rules.slow_steps[0], below=rules.slow_steps[1], inclusive=True)),
        (rules.fast_decay, Rule(below=rules.fast_steps, inclusive=True)),
    ):
        if decay in set(warmup["decay"]):
            lags = [lag(warmup, seed, decay, rules.warm_within) for seed in warmup["seed"].unique()]
            found = paired_ratio(lags, [1] * len(lags), end + 1, confidence=rules.confidence)
            parts.append(judged(f"decay {decay:g}", STEPS, alone(found), rule, rules))
    how = (
        f"Updates to the first evaluation from which on the test accuracy of {results.averaged} under moving averages "
        f"stays within {rules.warm_within:g} of that under precise statistics, geometric mean over the seeds; a run "
        "that is cold at its end counts as one update more"
    )
    return Measured(how, parts)


def draw_lag(results: Results, _: style.Looks) -> Figure:
    """Test accuracy under each decay's averages, mean over the seeds, beside precise statistics."""
    drawn, axes = style.blank("Test accuracy under moving averages, by decay; mean over the seeds")
    warmup, rules = results.warmup.fillna({"decay": -1}), results.rules
    mean = warmup.groupby(["statistics", "decay", "step"])["test_accuracy"].mean()
    decays = list(mean["moving"].index.unique("decay"))
    for decay, shade in zip(decays, np.linspace(0.3, 0.85, len(decays)), strict=True):
        color = mpl.colormaps["plasma"](shade)
        is_judged = decay in (rules.slow_decay, rules.fast_decay)
        axes.plot(mean["moving", decay], color=color, linewidth=2.6 if is_judged else 1.1, label=f"{decay:g}")
        if decay == rules.slow_decay and ("corrected", decay) in mean:
            axes.plot(mean["corrected", decay], color=color, linestyle=":", label=f"{decay:g}, corrected")
    axes.plot(mean["precise", -1], color=style.INK, linewidth=1.2, linestyle="--", label="precise")
    style.against_updates(axes, warmup)
    style.percent_axis(axes)
    return style.legend(drawn, axes, 1, "outside right center")


WARM_UP = Claim(
    id=4,
    statement="A decay of {slow_decay:g} needs about 1,000 steps of warm-up; {fast_decay:g} learns the statistics "
    "quickly.",
    supported="Both decays warmed up as the note says",
    refuted="One decay or both did not warm up as the note says",
    quantities=(STEPS,),
    measure=measure_lag,
    draw=draw_lag,
)


# 5: stability


def late_spread(warmup: pd.DataFrame, seed: int, decay: float) -> float:
    """Standard deviation of the change from one evaluation to the next in the second half; nan for fewer than three."""
    accuracy = under(warmup, seed, "moving", decay)
    return round(float(accuracy[accuracy.index >= accuracy.index.max() / 2].diff().std()), 12)


def measure_stability(results: Results, _: Runs) -> Measured:
    warmup, rules, parts, open_because = results.warmup, results.rules, list[Part](), None
    slow, fast = rules.slow_decay, rules.fast_decay
    how = (
        f"Standard deviation of the change in test accuracy of {results.averaged} from one evaluation to the next, in "
        "the second half of the run, paired by seed"
    )
    if not {slow, fast} <= set(warmup["decay"]):
        return Measured(how, parts)
    seeds = warmup["seed"].unique()
    a, b = ([late_spread(warmup, seed, decay) for seed in seeds] for decay in (slow, fast))
    least, most = min(a + b), max(a + b)
    if least > 0:  # in units of the least, since `paired_ratio` wants 1 or more
        a, b = ([spread / least for spread in side] for side in (a, b))
        found = paired_ratio(a, b, most / least, confidence=rules.confidence)
        parts = [judged(f"{slow:g} over {fast:g}", SPREADS, found, Rule(below=1), rules)]
    elif least == 0:  # it has no logarithm
        found = paired_difference(b, a, confidence=rules.confidence)
        parts = [judged(f"{fast:g} minus {slow:g}", SPREAD_DIFFERENCE, found, Rule(above=0), rules)]
    lags = [lag(warmup, seed, slow, rules.warm_within) for seed in seeds]
    cold = sum(steps is None or steps > warmup["step"].max() / 2 for steps in lags)
    if cold:  # what is still on its way says nothing of a warm one
        parts = [part.model_copy(update={"verdict": "not decided"}) for part in parts]
        how += f"; in {cold} of {len(seeds)} seeds {slow:g} was not warm before that half"
        open_because = f"{slow:g} was not warm in time"
    return Measured(how, parts, open_because)


def draw_stability(results: Results, _: style.Looks) -> Figure:
    """The standard deviation of late changes in accuracy by decay, one dot per seed; the judged decays filled."""
    drawn, axes = style.blank("Late change in test accuracy: standard deviation, one dot per seed")
    warmup, rules = results.warmup, results.rules
    decays = [decay for decay in sorted(warmup["decay"].dropna().unique()) if decay < 1]
    for place, decay in enumerate(decays):
        spreads = [late_spread(warmup, seed, decay) for seed in warmup["seed"].unique()]
        fill = "full" if decay in (rules.slow_decay, rules.fast_decay) else "none"
        axes.plot([place] * len(spreads), spreads, "o", color=style.COLORS[0], markersize=6, fillstyle=fill)
    axes.set(yscale="log", xlabel="decay of the moving averages (filled: those of the claim)")
    style.ticks(axes.yaxis, [digit * power for power in style.POWERS for digit in (1, 2, 5)], "{:g}")
    axes.set_xticks(range(len(decays)), [f"{decay:g}" for decay in decays])
    return drawn


STABILITY = Claim(
    id=5,
    statement="A decay of {slow_decay:g} is more stable than {fast_decay:g} once warm.",
    supported="Late in the run, accuracy moved less from evaluation to evaluation under {slow_decay:g}",
    refuted="Late in the run, accuracy moved more from evaluation to evaluation under {slow_decay:g}",
    quantities=(SPREADS, SPREAD_DIFFERENCE),
    measure=measure_stability,
    draw=draw_stability,
)


# 6: averages that are never updated


def measure_no_updates(results: Results, _: Runs) -> Measured:
    warmup, rules, parts = results.warmup, results.rules, list[Part]()
    if 1.0 in set(warmup["decay"]):
        for label, statistics, decay, rule in (
            ("evaluation mode, decay 1", "moving", 1.0, Rule(below=rules.useless_accuracy)),
            ("the batch's own statistics", "batch", None, Rule(above=rules.fine_accuracy)),
        ):
            last = [float(under(warmup, seed, statistics, decay).iloc[-1]) for seed in warmup["seed"].unique()]
            found = paired_difference(last, [0.0] * len(last), confidence=rules.confidence)
            parts.append(judged(label, ACCURACY, alone(found), rule, rules))
    how = f"Test accuracy of {results.averaged} after {warmup['step'].max()} updates, mean over the seeds"
    return Measured(how, parts)


def draw_no_updates(results: Results, _: style.Looks) -> Figure | None:
    """Averages that are never updated, and the same weights under the batch's own statistics."""
    warmup, rules = results.warmup, results.rules
    if not warmup["decay"].eq(1).any():
        return None
    drawn, axes = style.blank("Test accuracy of the same weights in two modes")
    for name, color, dashes, rows in [
        ("the batch's own statistics", style.COLORS[0], "-", warmup["statistics"] == "batch"),
        ("averages never updated", style.COLORS[1], "--", (warmup["statistics"] == "moving") & (warmup["decay"] == 1)),
    ]:
        style.line(axes, warmup[rows], "test_accuracy", color=color, linestyle=dashes, label=name)
    for limit, word in [(rules.useless_accuracy, "useless below"), (rules.fine_accuracy, "fine above")]:
        axes.axhline(limit, color=style.GREY, linewidth=0.8, linestyle=":")
        place = {"xytext": (-3, -3), "textcoords": "offset points", "ha": "right", "va": "top"}
        text = f"{word} {percent(limit)}"
        axes.annotate(text, (1, limit), xycoords=("axes fraction", "data"), color=style.GREY, **place)
    style.against_updates(axes, warmup)
    style.percent_axis(axes)
    return style.legend(drawn, axes)


NO_UPDATES = Claim(
    id=6,
    statement="Without the update ops, evaluation mode is useless while training looks fine.",
    supported="With averages never updated, evaluation mode failed while training mode looked fine",
    refuted="With averages never updated, evaluation mode did not fail, or training mode did not look fine",
    quantities=(ACCURACY,),
    measure=measure_no_updates,
    draw=draw_no_updates,
)
