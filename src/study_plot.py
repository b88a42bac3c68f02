"""Stage `plot`: the study's four pictures, drawn from `study/plots/` alone. Each file's title says what is seen.

study/report/figures/dip.svg     what the start of moving averages costs, by their age: dip.csv, theory.csv
study/report/figures/cause.svg   the same from other starts, and with standardized pixels: dip.csv, theory.csv
study/report/figures/ladder.svg  from the note's network to the tuned one with batch norm, step by step: ladder.csv
study/report/figures/rates.svg   accuracy against learning rate: rates.csv

A table without rows, of runs that are not there yet, has no picture.
"""

import math
from typing import Any

import numpy as np
import pandas as pd

from bnstudy import run
from bnstudy.files import whole_folder, write
from bnstudy.params import Plot
from bnstudy.study.params import Entry, Study, load
from bnstudy.study.style import BLUE, GREEN, RED, STUDY, styled, table
from bnstudy.style import COLORS, EDGE, GREY, INK, MARKERS, blank, error_axis, error_of, shade, ticks, to_svg

YOUNG, LATE = (0.8, 2.2), (5.0, 7.0)  # ages at which the dip is lowest, and at which it has just passed
AGES, POINTS = (0.045, 10.0), (-95.0, 10.0)  # the axes of the dip
WEIGHTS = [0.95, 0.75, 0.5, 0.25, 0.05, 0.001]  # of the start, labeled above the dip
CHANCE = 0.1  # accuracy of a diverged run: its losses are not finite, its answers one class
CAUSES = [
    ("note_batch_norm", 10.0, RED, "start variance 10"),
    ("note_batch_norm", 1.0, INK, "start variance 1, the note's"),
    ("note_batch_norm", 0.1, BLUE, "start variance 0.1"),
    ("standardized", 1.0, GREEN, "1, standardized pixels"),
]
COVER = {"facecolor": "#ffffff", "edgecolor": "none", "pad": 0.5}  # behind a text
DASHED = {"linewidth": 1.6, "linestyle": (0, (4, 2))}

Drawn = tuple[Any, str] | None  # with what is seen, in words


def points(difference: float) -> str:
    """A difference of accuracies in percentage points, with its sign."""
    return f"{100 * difference:+z.1f}".replace("-", "−")


def span(values: "pd.Series[float]", form: str) -> str:
    low, high = form.format(values.min()), form.format(values.max())
    return low if low == high else f"{low} to {high}"


def gap_axes(plot: Plot) -> tuple[Any, Any, Any]:
    """Axes of gap against age, with the start's share above; and the theory's, on the right.

    The theory's axis points down, so that what is subtracted too much stands where accuracy is lost; 50% of it are as
    high as 20 points of accuracy, which is a choice of the picture and no part of the theory.
    """
    drawn, axes = blank(plot.width, plot.height)
    axes.set(xscale="log", xlim=AGES, ylim=POINTS, xlabel="age of the averages: −ln(decay) · updates")
    axes.set_ylabel("accuracy by averages minus\nby precise statistics, points")
    ages, losses = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10], [0, 20, 40, 60, 80]
    ticks(axes.xaxis, ages, [f"{age:g}" for age in ages])
    ticks(axes.yaxis, [-loss for loss in losses], [f"−{loss}" if loss else "0" for loss in losses])
    axes.axhline(0, color=EDGE, linewidth=0.8)
    above, right = axes.secondary_xaxis("top"), axes.twinx()
    ticks(above.xaxis, [-math.log(weight) for weight in WEIGHTS], [f"{100 * weight:g}%" for weight in WEIGHTS])
    above.set_xlabel("share r of the start that is left in them", color=GREY)
    right.set_ylim(-POINTS[0] / 40, -POINTS[1] / 40)
    right.grid(visible=False)
    ticks(right.yaxis, [loss / 40 for loss in losses], [f"{2.5 * loss:.0f}%" for loss in losses])
    right.set_ylabel("theory: subtracted too much, O(r)", color=GREY)
    return drawn, axes, right


def band(axes: Any, rows: pd.DataFrame, color: str) -> None:
    """From the least to the most of the seeds, over all decays in `rows`."""
    ages = np.geomspace(*AGES, 300)
    ends = {"low": [], "high": []}  # type: dict[str, list[Any]]
    for _, part in rows.sort_values("age").groupby("decay"):
        for end, values in ends.items():
            values.append(np.interp(ages, part["age"], 100 * part[end], left=np.nan, right=np.nan))
    low, high = pd.DataFrame(ends["low"]).min(), pd.DataFrame(ends["high"]).max()
    axes.fill_between(ages, low, high, color=color, alpha=0.13, linewidth=0)


def dip_figure(dip: pd.DataFrame, theory: pd.DataFrame, plot: Plot) -> Drawn:
    """Gap against age: all decays of the note's network, corrected averages, the theory."""
    dip = dip[(dip["network"] == "note_batch_norm") & (dip["start_variance"] == 1) & dip["age"].between(*AGES)]
    moving, corrected = (dip[dip["statistics"] == kind] for kind in ("moving", "corrected"))
    if moving.empty:
        return None
    drawn, axes, right = gap_axes(plot)
    band(axes, moving, INK)
    handles, decays = axes.plot([], [], " ", label="decay"), sorted(moving["decay"].unique())
    for place, decay in enumerate(decays):
        rows = moving[moving["decay"] == decay].sort_values("age")
        look = {"color": shade(place, len(decays)), "markersize": 3, "linewidth": 0.9}
        handles += axes.plot(rows["age"], 100 * rows["difference"], ".-", label=f"{decay:g}", **look)
    for _, rows in corrected.sort_values("age").groupby("decay"):
        axes.plot(rows["age"], 100 * rows["difference"], color=GREEN, linewidth=1.2)
    formula = theory[(theory["network"] == "note_batch_norm") & (theory["start_variance"] == 1)]
    right.plot(formula["age"], formula["excess"], color=INK, **DASHED)
    drawn.legend(handles=handles, loc="outside lower center", ncols=5)
    lines = axes.plot([], [], color=GREEN, label="less their start\n(corrected)")
    lines += axes.plot([], [], color=INK, label="theory, O(r)", **DASHED)
    axes.legend(handles=lines, loc="lower left")
    return drawn, dip_seen(moving, corrected)


def dip_seen(moving: pd.DataFrame, corrected: pd.DataFrame) -> str:
    """What the dip shows, in words: of the decays with many evaluations where it is lowest."""
    seen = f"Accuracy lost by moving averages against their age, for {moving['decay'].nunique()} decays."
    whole = moving[moving["age"].between(*YOUNG)].groupby("decay").filter(lambda rows: len(rows) >= 8)
    if not whole.empty:
        bottoms = whole.loc[whole.groupby("decay")["difference"].idxmin()]
        decays, starts = span(whole["decay"], "{:g}"), span(100 * bottoms["start_weight"], "{:.0f}")
        lost = span(-100 * bottoms["difference"], "{:.0f}")
        seen += f" Those of {decays} are lowest where {starts}% of the start is left, {lost} points down."
    if not corrected.empty:
        seen += f" Less their start, they lose at most {-100 * corrected['low'].min():.1f} points in any seed."
    return seen


def cause_figure(dip: pd.DataFrame, theory: pd.DataFrame, plot: Plot) -> Drawn:
    """Gap against age from three starts, and with standardized pixels; dashed, what the theory says of each."""
    dip = dip[(dip["statistics"] == "moving") & dip["age"].between(*AGES)]
    drawn, axes, right = gap_axes(plot)
    handles, said = [], []
    for network, start, color, label in CAUSES:
        rows = dip[(dip["network"] == network) & (dip["start_variance"] == start)].sort_values("age")
        if network == "note_batch_norm":
            rows = rows[rows["decay"] == 0.99]
        if rows.empty:
            continue
        band(axes, rows, color)
        for _, part in rows.groupby("decay"):
            (line,) = axes.plot(part["age"], 100 * part["difference"], color=color, linewidth=1.6)
        handles.append((line, label))
        formula = theory[(theory["network"] == network) & (theory["start_variance"] == start)]
        right.plot(formula["age"], formula["excess"], color=color, **DASHED)
        lowest = (points(rows[rows["age"].between(*ages)]["difference"].min()) for ages in (YOUNG, LATE))
        said.append(f"{label}: {' and '.join(lowest)}")
    if not handles:
        return None
    drawn.legend(*zip(*handles, strict=True), loc="outside lower center", ncols=2)
    return drawn, (
        "Accuracy lost by moving averages against their age, from several starts. The most at ages "
        f"{YOUNG[0]:g} to {YOUNG[1]:g} and {LATE[0]:g} to {LATE[1]:g}, in points: {'; '.join(said)}."
    )


def ladder_figure(ladder: pd.DataFrame, plot: Plot) -> Drawn:
    """A waterfall of validation accuracy, from step to step; what leaves the path stands below."""
    if ladder.empty:
        return None
    rows = ladder.sort_values("side", kind="stable").set_index("rung")
    heights = dict(zip(rows.index, np.arange(len(rows)) + 0.8 * rows["side"], strict=True))
    drawn, axes = blank(plot.width, plot.height * (len(rows) + 2) / 9)
    ends = [*rows["accuracy"], *(rows["accuracy"] - rows["change"] + rows["low"]).dropna()]
    left = max(math.floor(10 * min(ends) - 0.2) / 10, 0.0)
    right, said = 1 + 0.36 * (1 - left), []
    change_at = right - 0.19 * (1 - left)
    for rung, row in rows.iterrows():
        y, accuracy, change, label = heights[rung], row["accuracy"], row["change"], row["label"]
        axes.text(left, y - 0.27, label[0].upper() + label[1:], va="bottom", bbox=COVER)
        axes.text(right, y, f"{accuracy:.1%}", ha="right", va="center")
        if pd.isna(change):
            axes.plot(accuracy, y, "o", color=INK)
            said.append(f"{label}: {accuracy:.1%}")
            continue
        before, color = accuracy - change, RED if points(change).startswith("−") else BLUE
        fill = "none" if row["side"] else color
        axes.vlines(before, heights[row["from"]], y, color=EDGE, linewidth=1, zorder=0.9)
        axes.barh(y, change, 0.36, before, facecolor=fill, edgecolor=color, linewidth=1.4)
        whiskers = [[change - row["low"]], [row["high"] - change]]
        axes.errorbar(accuracy, y, xerr=whiskers, fmt="none", ecolor=INK, elinewidth=1.2, capsize=4)
        axes.text(change_at, y, points(change), ha="right", va="center", weight="bold")
        said.append(f"{label}{' (beside the path)' * bool(row['side'])}: {points(change)} points to {accuracy:.1%}")
    if rows["side"].any():
        y = min(heights[rung] for rung in rows.index[rows["side"] == 1])
        axes.text(left, y - 0.85, "Beside the path, from its first step:", va="center", color=GREY, bbox=COVER)
    axes.text(change_at, -0.45, "points", ha="right", va="center", color=GREY)
    axes.set(xlim=(left, right), ylim=(max(heights.values()) + 0.5, -0.8), xlabel="validation accuracy")
    tenths = range(round(10 * left), 11, 2)
    ticks(axes.xaxis, [tenth / 10 for tenth in tenths], [f"{10 * tenth}%" for tenth in tenths])
    ticks(axes.yaxis, [], [])
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_bounds(left, 1)
    return drawn, f"Validation accuracy, step by step. {'; '.join(said)}."


def called(entry: Entry) -> str:
    """An entry of the sweep in words, by its network."""
    network = entry.network
    words = [f"{network.normalization} norm".replace("none", "no")]
    words += ["hidden layers"] * (network.normalization != "none" and not network.normalize_logits)
    words += ["note's weights"] * (network.initializer == "truncated_normal")
    return ", ".join(words)


def rates_figure(rates: pd.DataFrame, params: Study) -> Drawn:
    """Error against learning rate, one line per network: the mean over the seeds; dashes are single seeds.

    Of the sweep, the entries that try networks at all rates: not those that tune an arm, or are judged.
    """
    entries = {
        name: called(entry)
        for name, entry in params.swept.items()
        if entry.target is None and not {*entry.seeds} & {*params.registered}
    }
    rates = rates[rates["entry"].isin(entries)]
    if rates.empty:
        return None
    rates = rates.assign(error=error_of(rates["accuracy"].mask(rates["diverged"] == 1, CHANCE)))
    tried, target, said = sorted(rates["learning_rate"].unique()), params.rules.tolerance.target, []
    drawn, axes = blank(params.plot.width, params.plot.height)
    for place, (name, label) in enumerate(entries.items()):
        rows, color = rates[rates["entry"] == name], COLORS[place % len(COLORS)]
        mean = rows.groupby("learning_rate")["error"].mean()
        axes.plot(mean, color=color, marker=MARKERS[place % len(MARKERS)], markersize=5, label=label)
        axes.plot(rows["learning_rate"], rows["error"], "_", color=color, markersize=7)
        works = mean.index[mean <= 1 - target]
        said.append(f"{label}: {span(works.to_series(), '{:g}') if len(works) else 'none'}")
    lost = rates[rates["diverged"] == 1]
    if not lost.empty:
        axes.plot(lost["learning_rate"], lost["error"], "x", color=INK, markersize=7)
        axes.text(tried[0], 1 - CHANCE, "× diverged", va="center", color=GREY)
    axes.axhline(1 - target, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(xscale="log", xlabel="learning rate", ylabel="validation accuracy")
    error_axis(axes)
    ticks(axes.xaxis, tried, [f"{rate:g}" for rate in tried])
    drawn.legend(loc="outside lower center", ncols=2)
    return drawn, f"Validation accuracy against learning rate. Rates tried that reach {target:.0%}: {'; '.join(said)}."


def main() -> None:
    params = load()
    dip, theory, ladder, rates = map(table, ("dip", "theory", "ladder", "rates"))
    with styled(params.plot.width), whole_folder(STUDY / "report/figures") as folder:
        figures = {
            "dip": dip_figure(dip, theory, params.plot),
            "cause": cause_figure(dip, theory, params.plot),
            "ladder": ladder_figure(ladder, params.plot),
            "rates": rates_figure(rates, params),
        }
        for name, figure in figures.items():
            if figure:
                write(folder / f"{name}.svg", to_svg(*figure))
    print("drew study/report/figures:", ", ".join(name for name, figure in figures.items() if figure) or "none")


if __name__ == "__main__":
    run(main)
