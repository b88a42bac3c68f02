"""The figures of `report`, one a claim and one more: pure functions of the tidy tables, in the style of `plot`.

`look` gives each variant the same colour and marker in all of them.
"""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bnstudy.claims import FLOOR, SETTINGS, late_spread, percent
from bnstudy.params import Plot, Summarize
from bnstudy.plot import COLORS, ERRORS, GREY, INK, LEAST_ERROR, PALE, styled, to_svg

SIZE = Plot(width=4.9, height=3.4)  # read beside a text, and whole on a phone
FONT = 9  # points
LINK = "#c3cad1"
# What a dark system shows in place of each colour; figures bring their own background.
DARK = {"#ffffff": "#161b21", INK: "#dfe5ea", GREY: "#9aa5b1", "#9aa3ad": "#68727d", PALE: "#2a323b", LINK: "#4a545f"}
DARK |= {"#0072b2": "#4aa8e0", "#d55e00": "#ee7d2b", "#666666": "#a0a0a0"}
MARKERS = "osD^vPX*"
POWERS = [10.0**power for power in range(-9, 10)]
Look = dict[str, dict[str, str]]  # of each variant: colour and marker, in every figure the same


def blank(title: str, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    drawn = Figure(figsize=(SIZE.width, SIZE.height), layout=ConstrainedLayoutEngine(wspace=0.08))
    drawn.suptitle(title, x=0.01, ha="left", fontsize="medium", color=GREY)
    grid = drawn.subplots(rows, columns, squeeze=False, subplot_kw={"axisbelow": True}, **options)
    for axes in grid.flat:
        axes.grid()
    return drawn, grid if rows * columns > 1 else grid[0, 0]


def legend(drawn: Figure, columns: int = 3, loc: Any = "outside lower center") -> Figure:
    drawn.legend(loc=loc, ncols=columns, frameon=False, handlelength=1.6, columnspacing=1.4)
    return drawn


def ticks(axis: Any, values: list[float], form: str = "{:,g}") -> None:
    axis.set_major_locator(FixedLocator(values))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: form.format(value)))


def against_updates(axes: Axes, table: pd.DataFrame) -> None:
    axes.set(xscale="log", xlabel="updates", xlim=(1, max(int(table["step"].max()), 2)))
    ticks(axes.xaxis, POWERS)


def line(axes: Axes, table: pd.DataFrame, y: str, **style: Any) -> None:
    """Mean of `y` over the seeds against updates, in a band from lowest to highest."""
    curve = table.dropna(subset=y).groupby("step")[y].agg(["mean", "min", "max"])
    axes.fill_between(curve.index, curve["min"], curve["max"], color=style["color"], alpha=0.18, linewidth=0)
    axes.plot(curve["mean"], linewidth=1.5, **style)


def steps_figure(curves: pd.DataFrame, variants: tuple[str, str], targets: list[float], look: Look) -> Figure:
    """Claims 1 and 2: the first step at each target that a run reached, the two runs of a seed joined."""
    drawn, axes = blank("Updates until the validation accuracy reaches a target; a line a seed")
    limit, seeds = int(curves["step"].max()), list(curves["seed"].unique())
    rows = curves[curves["variant"].isin(variants)]
    found = {
        target: rows[rows["validation_accuracy"] >= target].groupby(["variant", "seed"])["step"].min()
        for target in targets
        if (rows["validation_accuracy"] >= target).any()
    }
    for row, reached in enumerate(found.values()):
        for seed, shift in zip(seeds, np.linspace(-0.13, 0.13, len(seeds)), strict=True):
            steps = [reached.get((variant, seed)) for variant in variants]
            heights = [row - 0.22 + shift, row + 0.22 + shift]
            axes.plot([step or limit for step in steps], heights, color=LINK, linewidth=1, zorder=1)
            for variant, step, height in zip(variants, steps, heights, strict=True):
                style = look[variant] if step else {**look[variant], "marker": ">"}
                axes.plot(step or limit, height, markersize=5, clip_on=False, **style)
    for variant in variants:
        axes.plot([], [], label=variant, linestyle="none", **look[variant])
    if any(len(reached) < 2 * len(seeds) for reached in found.values()):
        axes.plot([], [], label=f"not within {limit:,}", linestyle="none", marker=">", color=GREY)
    against_updates(axes, rows)
    axes.set_xlim(left=max(1, 0.7 * min((int(reached.min()) for reached in found.values()), default=1)))
    axes.set_yticks(range(len(found)), [percent(target) for target in found])
    axes.set_ylim(max(len(found), 1) - 0.5, -0.5)
    return legend(drawn)


def final_figure(curves: pd.DataFrame, pairs: list[tuple[str, str]], look: Look) -> Figure:
    """Claim 3: the test accuracy of each run after its last update, the two runs of a seed joined."""
    drawn, axes = blank("Test accuracy after the last update; a line a seed")
    last = curves[curves["step"] == curves["step"].max()].pivot_table("test_accuracy", "seed", "variant")
    places = {variant: 2.4 * index + side for index, pair in enumerate(pairs) for side, variant in enumerate(pair)}
    for pair in pairs:
        axes.plot([places[variant] for variant in pair], last[list(pair)].T, color=LINK, linewidth=1, zorder=1)
    for variant, place in places.items():
        axes.plot([place] * len(last), last[variant], markersize=5, linestyle="none", **look[variant])
        axes.plot(place, last[variant].mean(), marker="_", markersize=20, markeredgewidth=1.5, color=INK)
    axes.set(xlabel="dash: mean over the seeds", xlim=(-0.5, max(places.values()) + 0.5))
    axes.set_xticks(list(places.values()), list(places))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
    return drawn


def warmup_figure(warmup: pd.DataFrame, rules: Summarize) -> Figure:
    """Claim 4: test accuracy under each decay's averages, mean over the seeds, beside precise statistics."""
    drawn, axes = blank("Test accuracy under moving averages, by decay; mean over the seeds")
    mean = (
        warmup.assign(decay=warmup["decay"].fillna(-1)).groupby(["statistics", "decay", "step"])["test_accuracy"].mean()
    )
    decays = list(mean["moving"].index.unique("decay"))
    for decay, shade in zip(decays, np.linspace(0.3, 0.85, len(decays)), strict=True):
        color = mpl.colormaps["plasma"](shade)
        judged = decay in (rules.slow_decay, rules.fast_decay)
        axes.plot(mean["moving", decay], color=color, linewidth=2.6 if judged else 1.1, label=f"{decay:g}")
        if decay == rules.slow_decay and ("corrected", decay) in mean:
            axes.plot(mean["corrected", decay], color=color, linestyle=":", label=f"{decay:g}, corrected")
    axes.plot(mean["precise", -1], color=INK, linewidth=1.2, linestyle="--", label="precise")
    against_updates(axes, warmup)
    axes.set_ylim(0, 1)
    ticks(axes.yaxis, [0, 0.2, 0.4, 0.6, 0.8, 1], "{:.0%}")
    return legend(drawn, 1, "outside right center")


def stable_figure(warmup: pd.DataFrame, rules: Summarize) -> Figure:
    """Claim 5: the standard deviation of late changes in accuracy by decay, a dot a seed; the judged two filled."""
    drawn, axes = blank("Late change in test accuracy: standard deviation, a dot a seed")
    decays = [decay for decay in sorted(warmup["decay"].dropna().unique()) if decay < 1]
    for place, decay in enumerate(decays):
        spreads = [late_spread(warmup, seed, decay) for seed in warmup["seed"].unique()]
        fill = "full" if decay in (rules.slow_decay, rules.fast_decay) else "none"
        axes.plot([place] * len(spreads), spreads, "o", color=COLORS[0], markersize=6, fillstyle=fill)
    axes.set(yscale="log", xlabel="decay of the moving averages (filled: those of the claim)")
    ticks(axes.yaxis, [digit * power for power in POWERS for digit in (1, 2, 5)], "{:g}")
    axes.set_xticks(range(len(decays)), [f"{decay:g}" for decay in decays])
    return drawn


def modes_figure(warmup: pd.DataFrame, rules: Summarize) -> Figure:
    """Claim 6: averages that are never updated, and the same weights under the batch's own statistics."""
    drawn, axes = blank("Test accuracy of the same weights in two modes")
    for name, color, style, rows in [
        ("the batch's own statistics", COLORS[0], "-", warmup["statistics"] == "batch"),
        ("averages never updated", COLORS[1], "--", (warmup["statistics"] == "moving") & (warmup["decay"] == 1)),
    ]:
        line(axes, warmup[rows], "test_accuracy", color=color, linestyle=style, label=name)
    for limit, word in [(rules.useless_accuracy, "useless below"), (rules.fine_accuracy, "fine above")]:
        axes.axhline(limit, color=GREY, linewidth=0.8, linestyle=":")
        place = {"xytext": (-3, -3), "textcoords": "offset points", "ha": "right", "va": "top"}
        axes.annotate(f"{word} {percent(limit)}", (1, limit), xycoords=("axes fraction", "data"), color=GREY, **place)
    against_updates(axes, warmup)
    axes.set_ylim(0, 1)
    ticks(axes.yaxis, [0, 0.2, 0.4, 0.6, 0.8, 1], "{:.0%}")
    return legend(drawn)


def floor_figure(curves: pd.DataFrame, variants: list[str], look: Look) -> Figure:
    """Claim 7: the training loss beside the floor."""
    drawn, axes = blank("Training loss (nats), mean since the evaluation before")
    for variant in variants:
        rows = curves[curves["variant"] == variant]
        line(axes, rows, "train_loss", color=look[variant]["color"], label=variant)
    axes.axhline(FLOOR, color=INK, linewidth=1, linestyle="--", label=f"floor, {FLOOR:.4f}")
    against_updates(axes, curves)
    axes.set_yscale("log")
    ticks(axes.yaxis, [digit * power for power in POWERS for digit in (1, 3)])
    return legend(drawn)


def sweep_figure(rows: pd.DataFrame, x: str, split: str, target: float | None, look: Look) -> Figure:
    """Claims 8 and 9: accuracy against what was swept, a dot a seed, through the means; logarithmic in the error."""
    what = x.replace("_", " ")
    drawn, axes = blank(f"{split.capitalize()} accuracy after {rows['step'].max()} updates, by {what}")
    rows = rows.assign(error=(1 - rows[f"{split}_accuracy"]).clip(lower=LEAST_ERROR))
    for variant in rows["variant"].unique():
        own = rows[rows["variant"] == variant]
        axes.plot(own.groupby(x)["error"].mean(), color=look[variant]["color"], linewidth=1.5)
        for diverged, dots in own.groupby("diverged"):
            style = {**look[variant], "marker": "x"} if diverged else look[variant]
            axes.plot(dots[x], dots["error"], markersize=5, linestyle="none", **style)
        axes.plot([], [], label=variant, linewidth=1.5, markersize=5, **look[variant])
    if rows["diverged"].any():
        axes.plot([], [], label="loss not finite", linestyle="none", marker="x", color=GREY)
    if target is not None:
        axes.axhline(1 - target, color=INK, linewidth=1, linestyle="--", label=f"target, {percent(target)}")
    axes.set(xscale="log", yscale="log", xlabel=what)
    axes.invert_yaxis()
    ticks(axes.xaxis, sorted(rows[x].unique()))
    ticks(axes.yaxis, ERRORS)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{100 * (1 - error):g}%"))
    return legend(drawn, 2 if target is None else 3)


def hidden_figure(curves: pd.DataFrame, look: Look) -> Figure:
    """What enters the hidden layer: the 15th, 50th and 85th percentile (after Ioffe & Szegedy 2015, figure 1)."""
    variants = list(curves["variant"].unique())
    columns = min(2, len(variants))
    title = "15th, 50th and 85th percentile of the hidden layer's inputs"
    drawn, grid = blank(title, -(-len(variants) // columns), columns, sharex=True, sharey=True)
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
        against_updates(axes, curves)
        axes.label_outer()
    top = np.abs(panels[0].get_ylim()).max()
    marks = (1, 2, 5) if top < 10 else (10, 100, 1000) if top < 3000 else (100, 10_000, 1_000_000)
    ticks(panels[0].yaxis, [0, *marks, *(-mark for mark in marks)])  # of all: they share it
    return drawn


def draw(
    curves: pd.DataFrame,
    warmup: pd.DataFrame,
    sweep: pd.DataFrame,
    targets: list[float],
    works: float,
    rules: Summarize,
) -> dict[str, bytes]:
    """The figures for which there are runs, by name: `claim_1` … `claim_9` and `hidden`, as SVG."""
    studied, swept = list(curves["variant"].unique()), list(sweep["variant"].unique())
    look = {
        variant: {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}
        for index, variant in enumerate(dict.fromkeys(studied + swept))
    }
    pairs = {number: pair for number, pair in enumerate(SETTINGS.values(), 1) if set(pair) <= set(studied)}
    floored = [variant for variant in ("batch_norm", "batch_norm_hidden") if variant in studied]
    rates, batches = sweep[sweep["kind"] == "rate"], sweep[sweep["kind"] == "batch"]
    with styled(SIZE), mpl.rc_context({"font.size": FONT}):
        drawn = {f"claim_{number}": steps_figure(curves, pair, targets, look) for number, pair in pairs.items()}
        if pairs:
            drawn["claim_3"] = final_figure(curves, list(pairs.values()), look)
        drawn["claim_4"] = warmup_figure(warmup, rules)
        drawn["claim_5"] = stable_figure(warmup, rules)
        if warmup["decay"].eq(1).any():
            drawn["claim_6"] = modes_figure(warmup, rules)
        if floored:
            drawn["claim_7"] = floor_figure(curves, floored, look)
        drawn["claim_8"] = sweep_figure(rates, "learning_rate", "validation", works, look)
        drawn["claim_9"] = sweep_figure(batches, "batch_size", "test", None, look)
        drawn["hidden"] = hidden_figure(curves, look)
        return {name: adaptive(to_svg(figure)) for name, figure in drawn.items()}


def adaptive(svg: bytes) -> bytes:
    """`svg` without its indents, and with a second set of colours for where the reader's system is dark."""
    rules = [
        f'[style*="{what}: {light}"]{{{what}:{dark} !important}}'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    ]
    style = f"@media (prefers-color-scheme: dark) {{{''.join(rules)}}}</style>"
    return b"\n".join(map(bytes.strip, svg.splitlines())).replace(b"</style>", style.encode(), 1) + b"\n"
