"""The one style of all figures, of `plot` and of `report`: colors, axes, and how a figure becomes an SVG file."""

import io
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bnstudy.params import Plot

# Told apart with any color vision (Okabe and Ito 2008; a darker yellow, grey for black). The same in .dvc/plots/.
COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666", "#b8a800"]
MARKERS = "osD^vPX*"
INK, GREY, PALE, EDGE, LINK = "#1d2733", "#5b6570", "#e8ebee", "#9aa3ad", "#c3cad1"
# What a dark system shows in place of each color, the background's included.
DARK = {"#ffffff": "#161b21", INK: "#dfe5ea", GREY: "#9aa5b1", EDGE: "#68727d", PALE: "#2a323b", LINK: "#4a545f"}
DARK |= {"#0072b2": "#4aa8e0", "#d55e00": "#ee7d2b", "#666666": "#a0a0a0"}
STYLE = {
    "svg.hashsalt": "bnstudy",  # the ids in a file are random without it
    "svg.fonttype": "path",  # letters as outlines look alike everywhere
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.edgecolor": EDGE,
    "xtick.color": EDGE,
    "ytick.color": EDGE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "axes.titlecolor": GREY,
    "axes.axisbelow": True,
    "grid.color": PALE,
}
ERRORS = [0.9, 0.5, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.002, 0.001]
LEAST_ERROR = 0.0005  # drawn for less: a logarithm has no 0
SIZE, FONT = Plot(width=4.9, height=3.4), 9.0  # of a claim's figure: read beside a text, and whole on a phone
POWERS = [10.0**power for power in range(-9, 10)]

Looks = dict[str, dict[str, Any]]  # color and marker of each variant, the same in every figure of a page


def looks(variants: Iterable[str]) -> Looks:
    return {
        variant: {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}
        for index, variant in enumerate(dict.fromkeys(variants))
    }


def styled(font_size: float) -> AbstractContextManager[None]:
    """The settings to draw in: from matplotlib's defaults, so that no matplotlibrc changes the bytes."""
    return matplotlib.style.context(["default", STYLE, {"font.size": font_size}])


def blank(title: str, rows: int = 1, columns: int = 1, *, size: Plot = SIZE, **options: Any) -> tuple[Figure, Any]:
    """A figure with a title above; its axes, as an array if there are several."""
    drawn = Figure(figsize=(size.width, size.height), layout=ConstrainedLayoutEngine(wspace=0.08))
    drawn.suptitle(title, x=0.01, ha="left", fontsize="medium", color=GREY)
    grid = drawn.subplots(rows, columns, squeeze=False, subplot_kw={"axisbelow": True}, **options)
    for axes in grid.flat:
        axes.grid()
    return drawn, grid if rows * columns > 1 else grid[0, 0]


def legend(drawn: Figure, axes: Axes, columns: int = 3, loc: Any = "outside lower center") -> Figure:
    """`drawn` with a legend of what is drawn in `axes`."""
    handles = axes.get_legend_handles_labels()
    drawn.legend(*handles, loc=loc, ncols=columns, frameon=False, handlelength=1.6, columnspacing=1.4)
    return drawn


def ticks(axis: Any, values: Sequence[float], form: str = "{:,g}") -> None:
    axis.set_major_locator(FixedLocator(values))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: form.format(value)))


def against_updates(axes: Axes, table: pd.DataFrame) -> None:
    axes.set(xscale="log", xlabel="updates", xlim=(1, max(int(table["step"].max()), 2)))
    ticks(axes.xaxis, POWERS)


def percent_axis(axes: Axes) -> None:
    """Accuracies from 0 to 100%, linear."""
    axes.set_ylim(0, 1)
    ticks(axes.yaxis, [0, 0.2, 0.4, 0.6, 0.8, 1], "{:.0%}")


def error_of(accuracy: "pd.Series[float]") -> "pd.Series[float]":
    return (1 - accuracy).clip(lower=LEAST_ERROR)


def error_axis(axes: Axes) -> None:
    """Of `error_of` accuracies, labeled as accuracies; logarithmic: from 90 to 99% is as far as to 99.9%."""
    axes.set_yscale("log")
    axes.invert_yaxis()
    ticks(axes.yaxis, ERRORS)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{100 * (1 - error):g}%"))


def line(axes: Axes, table: pd.DataFrame, y: str, **style: Any) -> None:
    """Mean of `y` over the seeds against updates, in a band from lowest to highest."""
    curve = table.dropna(subset=y).groupby("step")[y].agg(["mean", "min", "max"])
    axes.fill_between(curve.index, curve["min"], curve["max"], color=style["color"], alpha=0.18, linewidth=0)
    axes.plot(curve["mean"], linewidth=1.5, **style)


def to_svg(drawn: Figure) -> bytes:
    content = io.BytesIO()
    drawn.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue()


def adaptive(svg: bytes) -> bytes:
    """`svg` without its indents, and with a second set of colors for where the reader's system is dark."""
    rules = [
        f'[style*="{what}: {light}"]{{{what}:{dark} !important}}'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    ]
    style = f"@media (prefers-color-scheme: dark) {{{''.join(rules)}}}</style>"
    return b"\n".join(map(bytes.strip, svg.splitlines())).replace(b"</style>", style.encode(), 1) + b"\n"
