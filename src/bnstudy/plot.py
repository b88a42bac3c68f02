"""Stage `plot`: the figures, drawn from the tidy tables alone.

plots/figures/accuracy.svg, loss.svg    plots/curves.csv against updates: mean and range over the seeds
plots/figures/confusion.svg             plots/confusion.csv: which digit is taken for which
"""

import io
import math
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bnstudy.params import BadInput, Plot, load
from bnstudy.stage import run, write

# Told apart with any colour vision (Okabe and Ito 2008; a darker yellow, grey for black). The same in .dvc/plots/.
COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666", "#b8a800"]
BLUES = LinearSegmentedColormap.from_list("mistakes", ["#f7fafd", "#6aaed6", "#08407f"])
INK, GREY, PALE = "#1d2733", "#5b6570", "#e8ebee"
STYLE = {
    "svg.hashsalt": "bnstudy",  # the ids in a file are random without it
    "svg.fonttype": "path",  # letters as outlines look alike everywhere
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.edgecolor": "#9aa3ad",
    "xtick.color": "#9aa3ad",
    "ytick.color": "#9aa3ad",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "axes.titlecolor": GREY,
    "axes.axisbelow": True,
    "grid.color": PALE,
}
BEND = 100  # updates: the horizontal axis is linear well below, logarithmic well above
ERRORS = [0.9, 0.5, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.002, 0.001]
LEAST_ERROR = 0.0005  # drawn for less: a logarithm has no 0


def read(path: Path, columns: list[str]) -> pd.DataFrame:
    """A table with `variant` and the other, numeric `columns`; infinite values as missing. `BadInput` if none."""
    try:  # "null" is missing to pandas, and could be a variant here
        table = pd.read_csv(path, dtype={"variant": str}, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: is not a table ({' '.join(str(error).split())}); `dvc repro` writes it") from None
    numbers = table.select_dtypes("number").columns
    if table.empty or not set(columns) <= {"variant", *numbers}:
        raise BadInput(f"{path}: has no rows with the numbers {', '.join(columns[1:])}; `dvc repro` writes it anew")
    return table.replace([np.inf, -np.inf], np.nan)


def figure(plot: Plot, title: str, note: str, rows: int = 1) -> Figure:
    """An empty figure, `plot.height` inches a row, with a title above and a note below."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    drawn = Figure(figsize=(plot.width, plot.height * rows), layout=layout)
    drawn.suptitle(title, x=0.08 / plot.width, ha="left", fontsize="x-large", fontweight="bold")
    drawn.supxlabel(note, x=0.08 / plot.width, ha="left", fontsize="medium", color=GREY)
    return drawn


def font_size(plot: Plot) -> float:
    """Points: as much smaller as there is less width."""
    return min(9.0, 1.28 * plot.width)


def styled(plot: Plot) -> AbstractContextManager[None]:
    """The settings to draw in: from matplotlib's defaults, so that no matplotlibrc changes the bytes."""
    return matplotlib.style.context(["default", STYLE, {"font.size": font_size(plot)}])


def line_height(plot: Plot) -> float:
    """Of a line of text, as a share of an axes' height; about, since the layout is not yet known."""
    return 1.3 * font_size(plot) / 72 / (0.65 * plot.height)


def seeds_of(curves: pd.DataFrame) -> str:
    count = curves["seed"].nunique()
    return "One seed" if count == 1 else f"Lines: mean of {count} seeds; bands: lowest to highest"


def draw_curves(axes: Axes, table: pd.DataFrame, column: str) -> list[tuple[float, str, str]]:
    """Draw `column` against updates, a variant a colour. Returns last mean, variant and colour of each that has one."""
    ends = []
    for index, variant in enumerate(table["variant"].unique()):
        rows = table.loc[table["variant"] == variant, ["step", column]].dropna()
        curve = rows.groupby("step")[column].agg(["mean", "min", "max"])
        color = COLORS[index % len(COLORS)]
        axes.fill_between(curve.index, curve["min"], curve["max"], color=color, alpha=0.18, linewidth=0)
        axes.plot(curve.index, curve["mean"], color=color, linewidth=1.5)
        if not curve.empty:
            ends.append((float(curve["mean"].iloc[-1]), str(variant), color))
    end = max(int(table["step"].max()), 2)
    axes.set_xlim(1, end)
    axes.set_xscale("asinh", linear_width=BEND)
    axes.xaxis.set_major_locator(FixedLocator([1, *(10**power for power in range(2, 9) if 10**power <= end / 2), end]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.set_xlabel("updates")
    axes.grid()
    return ends


def label_ends(axes: Axes, ends: list[tuple[float, str, str]], gap: float) -> None:
    """Write (height in data, text, colour) right of `axes`, at least `gap` (of the axes' height) above one another."""
    to_axes = axes.transData + axes.transAxes.inverted()
    right = axes.get_xlim()[1]
    heights = sorted((to_axes.transform((right, height))[1], text, color) for height, text, color in ends)
    height = -math.inf
    for above, (wanted, text, color) in zip(range(len(ends) - 1, -1, -1), heights, strict=True):
        height = min(max(wanted, height + gap), 1 - gap * above)  # the second leaves room for those above
        axes.annotate(text, (1, height), (6, 0), "axes fraction", "offset points", color=color, va="center")


def accuracy_figure(curves: pd.DataFrame, plot: Plot) -> Figure:
    """Test accuracy against updates, logarithmic in the error: from 90 to 99% is as far as to 99.9%."""
    drawn = figure(plot, "Test accuracy", f"{seeds_of(curves)}. The vertical scale is logarithmic in the error.")
    axes = drawn.subplots()
    errors = curves.assign(error=(1 - curves["test_accuracy"]).clip(lower=LEAST_ERROR))
    ends = draw_curves(axes, errors, "error")
    axes.set_yscale("log")
    axes.invert_yaxis()
    axes.yaxis.set_major_locator(FixedLocator(ERRORS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{100 * (1 - error):g}%"))
    axes.set_ylabel("accuracy on the test split")
    texts = [(error, f"{variant} {1 - error:.2%}", color) for error, variant, color in ends]
    label_ends(axes, texts, line_height(plot))
    return drawn


def loss_figure(curves: pd.DataFrame, plot: Plot) -> Figure:
    """Training and test loss against updates, side by side on one logarithmic scale."""
    drawn = figure(plot, "Loss", f"{seeds_of(curves)}.")
    left, right = drawn.subplots(1, 2, sharey=True)
    draw_curves(left, curves, "train_loss")
    ends = draw_curves(right, curves, "test_loss")
    right.set_yscale("log")
    right.yaxis.set_minor_locator(NullLocator())
    right.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
    left.set_title("on training batches, in training mode")
    right.set_title("on the test split")
    left.set_ylabel("cross-entropy (nats)")
    label_ends(right, ends, line_height(plot))
    return drawn


def confusion_figure(confusion: pd.DataFrame, plot: Plot) -> Figure:
    """One matrix a variant: how many images of each digit were taken for which other one."""
    variants = list(confusion["variant"].unique())
    columns = min(2, len(variants))
    rows = math.ceil(len(variants) / columns)
    note = "Test images, summed over the seeds. Blue: mistakes. Grey: right."
    drawn = figure(plot, "Which digit is taken for which", note, rows)
    wrong = confusion["count"].where(confusion["actual"] != confusion["predicted"])
    norm = PowerNorm(0.5, 0, max(wrong.max(), 1))
    cell = 7.2 * min(0.85 * plot.width / columns, 0.7 * plot.height)  # about, in points
    fontsize = min(8.0, 1.4 * cell / len(str(confusion["count"].max())))
    grid = drawn.subplots(rows, columns, squeeze=False).flat
    for axes in grid[len(variants) :]:
        axes.set_axis_off()
    for variant, axes in zip(variants, grid, strict=False):
        table = confusion[confusion["variant"] == variant]
        counts_AP = np.zeros((10, 10), int)
        counts_AP[table["actual"], table["predicted"]] = table["count"]
        cells = np.where(np.eye(10), np.nan, counts_AP)  # centred on whole numbers
        axes.pcolormesh(np.arange(10), np.arange(10), cells, cmap=BLUES, norm=norm, edgecolors="white", linewidth=0.5)
        axes.set(facecolor=PALE, aspect="equal")
        axes.invert_yaxis()
        for (actual, predicted), count in np.ndenumerate(counts_AP):
            color = GREY if actual == predicted else "white" if norm(count) > 0.6 else INK
            if count:
                axes.text(predicted, actual, count, color=color, fontsize=fontsize, ha="center", va="center")
        axes.set_title(f"{variant}: {np.trace(counts_AP) / counts_AP.sum():.2%} right")
        axes.set(xlabel="predicted digit", ylabel="actual digit", xticks=range(10), yticks=range(10))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return drawn


def to_svg(drawn: Figure) -> bytes:
    content = io.BytesIO()
    drawn.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue()


def draw(plot: Plot) -> None:
    """Write the three figures."""
    curves = read(Path("plots/curves.csv"), ["variant", "seed", "step", "train_loss", "test_loss", "test_accuracy"])
    confusion = read(Path("plots/confusion.csv"), ["variant", "actual", "predicted", "count"])
    if confusion.isna().any(axis=None) or set(confusion.groupby("variant").size()) != {100}:
        raise BadInput("plots/confusion.csv: has not 100 whole rows a variant; `dvc repro` writes it anew")
    with styled(plot):
        for name, drawn in {
            "accuracy": accuracy_figure(curves, plot),
            "loss": loss_figure(curves, plot),
            "confusion": confusion_figure(confusion, plot),
        }.items():
            write(Path("plots/figures", f"{name}.svg"), to_svg(drawn))
    print("drew plots/figures/accuracy.svg, loss.svg and confusion.svg")


def main() -> None:
    params = load()
    draw(params.plot)


if __name__ == "__main__":
    run(main)
