"""Stage `plot`: the figures, drawn from the tidy tables alone.

plots/figures/accuracy.svg, loss.svg    plots/curves.csv against updates: mean and range over the seeds
plots/figures/confusion.svg             plots/confusion.csv: which digit is taken for which
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure

from bnstudy import BadInput, run
from bnstudy.analysis import style
from bnstudy.files import write
from bnstudy.params import Plot, load
from bnstudy.records import read_tidy

BLUES = LinearSegmentedColormap.from_list("mistakes", ["#f7fafd", "#6aaed6", "#08407f"])
BEND = 100  # updates: the horizontal axis is linear well below, logarithmic well above


def font_size(plot: Plot) -> float:
    """Points: as much smaller as there is less width."""
    return min(9.0, 1.28 * plot.width)


def seeds_of(curves: pd.DataFrame) -> str:
    count = curves["seed"].nunique()
    return "one seed" if count == 1 else f"mean of {count} seeds, in a band from lowest to highest"


def draw_curves(axes: Axes, table: pd.DataFrame, column: str) -> None:
    """Draw `column` against updates, one color per variant."""
    for variant, look in style.looks(table["variant"]).items():
        style.line(axes, table[table["variant"] == variant], column, color=look["color"], label=variant)
    style.against_updates(axes, table)
    end = max(int(table["step"].max()), 2)
    axes.set_xscale("asinh", linear_width=BEND)  # evaluations lie evenly: a logarithm would stretch the first gap
    style.ticks(axes.xaxis, [1, *(10**power for power in range(2, 9) if 10**power <= end / 2), end], "{:,.0f}")


def accuracy_figure(curves: pd.DataFrame, plot: Plot) -> Figure:
    """Test accuracy against updates."""
    drawn, axes = style.blank(f"Test accuracy, logarithmic in the error; {seeds_of(curves)}", size=plot)
    draw_curves(axes, curves.assign(error=style.error_of(curves["test_accuracy"])), "error")
    style.error_axis(axes)
    axes.set_ylabel("accuracy on the test split")
    return style.legend(drawn, axes)


def loss_figure(curves: pd.DataFrame, plot: Plot) -> Figure:
    """Training and test loss against updates, side by side on one logarithmic scale."""
    drawn, [[left, right]] = style.blank(f"Loss; {seeds_of(curves)}", 1, 2, size=plot, sharey=True)
    draw_curves(left, curves, "train_loss")
    draw_curves(right, curves, "test_loss")
    left.set_yscale("log")
    style.ticks(left.yaxis, style.POWERS, "{:g}")  # of both: they share it
    left.set_title("on training batches, in training mode")
    right.set_title("on the test split")
    left.set_ylabel("cross-entropy (nats)")
    return style.legend(drawn, left)


def confusion_figure(confusion: pd.DataFrame, plot: Plot) -> Figure:
    """One matrix per variant: how many images of each digit were taken for which other one."""
    variants = list(confusion["variant"].unique())
    columns = min(2, len(variants))
    rows = math.ceil(len(variants) / columns)
    title = "Which digit is taken for which: test images, summed over the seeds; blue: mistakes, grey: right"
    size = plot.model_copy(update={"height": plot.height * rows})
    drawn, grid = style.blank(title, rows, columns, size=size)
    wrong = confusion["count"].where(confusion["actual"] != confusion["predicted"])
    norm = PowerNorm(0.5, 0, max(wrong.max(), 1))
    cell = 7.2 * min(0.85 * plot.width / columns, 0.7 * plot.height)  # about, in points
    fontsize = min(8.0, 1.4 * cell / len(str(confusion["count"].max())))
    panels = np.ravel(grid)
    for axes in panels[len(variants) :]:
        axes.set_axis_off()
    for variant, axes in zip(variants, panels, strict=False):
        table = confusion[confusion["variant"] == variant]
        counts_AP = np.zeros((10, 10), int)
        counts_AP[table["actual"], table["predicted"]] = table["count"]
        cells = np.where(np.eye(10), np.nan, counts_AP)  # centered on whole numbers
        axes.pcolormesh(np.arange(10), np.arange(10), cells, cmap=BLUES, norm=norm, edgecolors="white", linewidth=0.5)
        axes.set(facecolor=style.PALE, aspect="equal")
        axes.invert_yaxis()
        axes.grid(visible=False)
        for (actual, predicted), count in np.ndenumerate(counts_AP):
            color = style.GREY if actual == predicted else "white" if norm(count) > 0.6 else style.INK
            if count:
                axes.text(predicted, actual, count, color=color, fontsize=fontsize, ha="center", va="center")
        axes.set_title(f"{variant}: {np.trace(counts_AP) / counts_AP.sum():.2%} right")
        axes.set(xlabel="predicted digit", ylabel="actual digit", xticks=range(10), yticks=range(10))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return drawn


def draw(plot: Plot) -> None:
    """Write the three figures."""
    curves = read_tidy(Path("plots/curves.csv"), ["seed", "step", "train_loss", "test_loss", "test_accuracy"])
    confusion = read_tidy(Path("plots/confusion.csv"), ["actual", "predicted", "count"])
    if confusion.isna().any(axis=None) or set(confusion.groupby("variant").size()) != {100}:
        raise BadInput("plots/confusion.csv: does not have 100 whole rows per variant; `dvc repro` writes it anew")

    with style.styled(font_size(plot)):
        figures = {
            "accuracy": accuracy_figure(curves, plot),
            "loss": loss_figure(curves, plot),
            "confusion": confusion_figure(confusion, plot),
        }
        for name, drawn in figures.items():
            write(Path("plots/figures", f"{name}.svg"), style.to_svg(drawn))
    print("drew plots/figures/accuracy.svg, loss.svg and confusion.svg")


def main() -> None:
    params = load()
    draw(params.plot)


if __name__ == "__main__":
    run(main)
