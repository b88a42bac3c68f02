"""Stage `plot`: the three pictures, drawn from the tidy tables alone. Each file's title says what is seen.

report/figures/dip.svg     what the start in moving averages costs, by their age: plots/dip.csv, mechanism.csv
report/figures/ladder.svg  from the note's network to the tuned batch norm, step by step: plots/ladder.csv
report/figures/rates.svg   accuracy against learning rate, and the rates that work: plots/rates.csv

A table without rows, of runs that the study leaves out, has no picture.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bnstudy import run
from bnstudy.analysis import style
from bnstudy.analysis.style import COLORS, EDGE, GREY, INK
from bnstudy.files import whole_folder, write
from bnstudy.params import Plot, load
from bnstudy.records import read_plot

LATEST = 20.0  # −ln(decay) × updates: a weight of the start of 2e-9
DECADES = [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0]
WEIGHTS = [0.99, 0.95, 0.75, 0.5, 0.25, 0.05]  # of the start, labeled above the dip
FLOOR = 0.1  # the validation accuracy of a diverged run
DASHED = {"color": GREY, "linewidth": 1, "linestyle": (0, (4, 3))}
COVER = {"facecolor": "#ffffff", "edgecolor": "none", "pad": 0.5}  # behind a text

Drawn = tuple[Figure, str] | None  # with what is seen, in words


def points(difference: float) -> str:
    """A difference of accuracies in percentage points, with its sign."""
    return f"{100 * difference:+z.1f}".replace("-", "−")


def span(values: Iterable[float], form: str) -> str:
    ends = list(values)
    low, high = form.format(min(ends)), form.format(max(ends))
    return low if low == high else f"{low} to {high}"


def dip_figure(dip: pd.DataFrame, mechanism: pd.DataFrame, plot: Plot) -> Drawn:
    """Accuracy by moving averages minus that by precise statistics, against the age −ln(decay) × updates."""
    dip = dip[dip["age"] <= LATEST]
    moving, corrected = (dip[dip["statistics"] == kind] for kind in ("moving", "corrected"))
    mixed = mechanism[(mechanism["where"] == "all") & (mechanism["what"] == "both")].sort_values("start_weight")
    if moving.empty:
        return None
    drawn, axes = style.blank(plot.width, plot.height)
    ages = np.geomspace(moving["age"].min() / 1.3, LATEST, 1000)
    for _, rows in corrected.groupby(["decay", "seeds"]):
        axes.plot(rows["age"], 100 * rows["difference"], color=EDGE, linewidth=1.2)
    lines = [Line2D([], [], color=EDGE, linewidth=1.2, label="bias-corrected averages")]
    decays, handles = sorted(moving["decay"].unique()), [Line2D([], [], linestyle="none", label="decay")]
    for place, decay in enumerate(decays):
        rows, color = moving[moving["decay"] == decay], style.shade(place, len(decays))
        axes.vlines(rows["age"], 100 * rows["low"], 100 * rows["high"], color=color, linewidth=0.8, alpha=0.5)
        for seeds, part in rows.groupby("seeds", sort=False):  # of fewer seeds: those that are trained on
            axes.plot(part["age"], 100 * part["difference"], color=color, linewidth=0.7)
            whole = seeds == rows["seeds"].max()
            look = {"color": color, "markersize": 4, "markeredgewidth": 0.7, "label": f"{decay:g}" if whole else "_"}
            look["markerfacecolor"] = color if whole else "#ffffff"
            dots = axes.plot(part["age"], 100 * part["difference"], "o", **look)
            handles += dots if whole else []
    if not mixed.empty:
        curve = np.interp(np.exp(-ages), mixed["start_weight"], mixed["difference"])
        (line,) = axes.plot(ages, 100 * curve, color=INK, linewidth=1.8)
        line.set_label("finished networks with so much of their start mixed in")
        lines = [line, *lines]
    for age, text, side in ((math.log(4), "a quarter of the start is left ", "right"), (5, " age 5", "left")):
        axes.axvline(age, **DASHED)
        axes.text(age, 7, text, ha=side, va="center", color=GREY)
    axes.set(xscale="log", xlim=(ages[0], ages[-1]), xlabel="age of the averages after t updates, −ln(decay) · t")
    axes.set(ylim=(None, 12), ylabel="accuracy minus that by\nprecise statistics, in points")
    style.ticks(axes.xaxis, DECADES, [f"{decade:g}" for decade in DECADES])
    above = axes.secondary_xaxis("top")
    style.ticks(above.xaxis, [-math.log(weight) for weight in WEIGHTS], [f"{weight:.0%}" for weight in WEIGHTS])
    above.set_xlabel("share of the start that is left in them, decayᵗ")
    drawn.legend(handles=handles, loc="outside upper left", ncols=len(handles), markerscale=1.8, handlelength=1)
    drawn.legend(handles=lines, loc="outside lower center", ncols=2, handletextpad=0.6, handlelength=1.4)
    return drawn, dip_seen(moving, corrected)


def dip_seen(moving: pd.DataFrame, corrected: pd.DataFrame) -> str:
    """What the dip shows, in words: of the decays that were measured on both sides of it."""
    together = moving[moving["seeds"] == moving["seeds"].max()]
    ends = together.groupby("decay")["age"].agg(["min", "max"])
    whole = together[together["decay"].isin(ends.index[(ends["min"] < 0.7) & (ends["max"] > 2)])]
    seen = f"Accuracy lost by moving averages against their age, for {moving['decay'].nunique()} decays."
    if not whole.empty:
        bottoms = whole.loc[whole.groupby("decay")["difference"].idxmin()]
        seen += (
            f" Those of {span(whole['decay'], '{:g}')} are at their lowest"
            f" {span(-100 * bottoms['difference'], '{:.0f}')} points down, at ages of {span(bottoms['age'], '{:.2g}')},"
            f" where {span(100 * np.exp(-bottoms['age']), '{:.0f}')}% of the start is left."
        )
    if not corrected.empty:
        seen += f" Bias-corrected averages never lose more than {-100 * corrected['low'].min():.1f} points in any seed."
    return seen


def ladder_figure(ladder: pd.DataFrame, plot: Plot) -> Drawn:
    """A waterfall of validation accuracy, from rung to rung; side steps stand below."""
    if ladder.empty:
        return None
    rows = ladder.sort_values("side", kind="stable").set_index("rung")
    heights = dict(zip(rows.index, np.arange(len(rows)) + 0.8 * rows["side"], strict=True))
    drawn, axes = style.blank(plot.width, plot.height * (len(rows) + 2) / 8)
    ends = [*rows["accuracy"], *(rows["accuracy"] - rows["change"] + rows["low"]).dropna()]
    left = max(math.floor(10 * min(ends) - 0.2) / 10, 0.0)
    right, said = 1 + 0.3 * (1 - left), []
    change_at, accuracy_at = right - 0.15 * (1 - left), right
    for rung, row in rows.iterrows():
        y, accuracy, change = heights[rung], row["accuracy"], row["change"]
        label = row["label"][0].upper() + row["label"][1:]
        axes.text(left, y - 0.27, label, va="bottom", bbox=COVER)
        axes.text(accuracy_at, y, f"{accuracy:.1%}", ha="right", va="center")
        if pd.isna(change):
            axes.plot(accuracy, y, "o", color=INK)
            said.append(f"{label}: {accuracy:.1%}")
            continue
        before, color = accuracy - change, COLORS[0] if points(change).startswith("−") else COLORS[2]
        fill = "none" if row["side"] else color
        axes.vlines(before, heights[row["from"]], y, color=EDGE, linewidth=1, zorder=0.9)
        axes.barh(y, change, 0.36, before, facecolor=fill, edgecolor=color, linewidth=1.4)
        whiskers = [[change - row["low"]], [row["high"] - change]]
        axes.errorbar(accuracy, y, xerr=whiskers, fmt="none", ecolor=INK, elinewidth=1.2, capsize=4)
        axes.text(change_at, y, points(change), ha="right", va="center", weight="bold")
        beside = ", from the first rung" if row["side"] else ""
        said.append(f"{label}{beside}: {points(change)} points to {accuracy:.1%}")
    if rows["side"].any():
        y = min(heights[rung] for rung in rows.index[rows["side"] == 1])
        axes.text(left, y - 0.85, "Beside the path, from the first rung:", va="center", color=GREY, bbox=COVER)
    axes.text(change_at, -0.55, "points", ha="right", color=GREY)
    axes.set(xlim=(left, right), ylim=(max(heights.values()) + 0.5, -0.8), xlabel="validation accuracy")
    percents = [tenth / 10 for tenth in range(round(10 * left), 11)]
    style.ticks(axes.xaxis, percents, [f"{percent:.0%}" for percent in percents])
    style.ticks(axes.yaxis, [], [])
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_bounds(left, 1)
    return drawn, f"Validation accuracy, step by step. {'; '.join(said)}."


def working(rates: Sequence[float], errors: Sequence[float], target: float) -> list[tuple[float, float]]:
    """The ranges of rates whose error is at most 1 - `target`, on the line drawn in logarithms of both."""
    fine = np.geomspace(rates[0], rates[-1], 5000)
    works = np.interp(np.log(fine), np.log(rates), np.log(errors)) <= math.log(1 - target)
    turns = np.flatnonzero(np.diff(np.concatenate([[False], works, [False]])))
    return [(float(fine[start]), float(fine[end - 1])) for start, end in turns.reshape(-1, 2)]


def rates_figure(rates: pd.DataFrame, plot: Plot, target: float) -> Drawn:
    """Error against learning rate, one line per network: the mean over the seeds; below, which rates work."""
    if rates.empty:
        return None
    rates = rates.assign(error=style.error_of(rates["validation_accuracy"].mask(rates["diverged"] == 1, FLOOR)))
    networks, tried = list(rates["network"].unique()), sorted(rates["learning_rate"].unique())
    parts = {"sharex": True, "height_ratios": [7, 0.7 * len(networks)]}
    drawn, (axes, ranges) = style.blank(plot.width, 1.5 * plot.height, rows=2, **parts)
    said, beside = [], ranges.get_yaxis_transform()
    for place, network in enumerate(networks):
        rows, color = rates[rates["network"] == network], COLORS[place % len(COLORS)]
        look = {"color": color, "marker": style.MARKERS[place % len(style.MARKERS)], "markersize": 6}
        mean = rows.groupby("learning_rate")["error"].mean()
        axes.plot(mean, linewidth=1.8, **look)
        axes.plot(rows["learning_rate"], rows["error"], "_", color=color, markersize=10)
        ranges.plot(0.01, place, transform=beside, **look)
        found = working(list(mean.index), list(mean), target)
        for low, high in found:
            ranges.hlines(place, low, high, color=color, linewidth=5)
            for end, side, text in ((low, "right", f"{low:.2g}  "), (high, "left", f"  {high:.2g}")):
                if end in (tried[0], tried[-1]):
                    ranges.plot(end, place, "<" if side == "right" else ">", color=color, markersize=9, clip_on=False)
                else:
                    axes.plot(end, 1 - target, "|", color=INK, markersize=11)
                    ranges.text(end, place, text, ha=side, va="center")
        if not found:
            ranges.text(tried[len(tried) // 2], place, "none of those tried", ha="center", va="center", color=GREY)
        ends = []
        for low, high in found:
            least = f"{low:.2g} or less" if low == tried[0] else f"{low:.2g}"
            ends.append(f"{least} to {high:.2g} or more" if high == tried[-1] else f"{least} to {high:.2g}")
        said.append(f"{network} {' and '.join(ends) or 'at none'}")
    lost = rates[rates["diverged"] == 1]
    if not lost.empty:
        axes.plot(lost["learning_rate"], lost["error"], "x", color=INK, markersize=8)
        axes.text(tried[0], 1 - FLOOR, "× diverged", va="center", color=GREY)
    axes.axhline(1 - target, **DASHED)
    axes.set(xscale="log", ylabel="validation accuracy")
    style.error_axis(axes)
    style.ticks(ranges.xaxis, tried, [f"{rate:g}" for rate in tried])
    style.ticks(ranges.yaxis, range(len(networks)), networks)
    ranges.set(xlabel="learning rate", ylim=(len(networks) - 0.4, -0.6))
    ranges.set_title(f"rates that reach {target:.0%}", loc="left", fontsize="medium", color=GREY)
    ranges.grid(visible=False)
    ranges.spines["left"].set_visible(False)
    ranges.tick_params(axis="y", length=0)
    return drawn, f"Validation accuracy against learning rate. {target:.0%} is reached at rates of: {'; '.join(said)}."


def main() -> None:
    params = load()
    plot = params.plot
    dip, mechanism, ladder, rates = map(read_plot, ("dip", "mechanism", "ladder", "rates"))
    with style.styled(plot.width), whole_folder(Path("report/figures")) as folder:
        figures = {
            "dip": dip_figure(dip, mechanism, plot),
            "ladder": ladder_figure(ladder, plot),
            "rates": rates_figure(rates, plot, params.rules.tolerance_target),
        }
        for name, figure in figures.items():
            if figure:
                write(folder / f"{name}.svg", style.to_svg(*figure))
    print("drew report/figures: " + ", ".join(name for name, figure in figures.items() if figure))


if __name__ == "__main__":
    run(main)
