"""The style of all pictures: colors, axes, and how a figure becomes an SVG file for light and dark systems."""

import io
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

os.environ["MPLBACKEND"] = "svg"  # not a notebook's, which its programs hand on

import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

# Told apart with any color vision (Okabe and Ito 2008), two of a kind beside each other. The same in .dvc/plots/.
COLORS = ["#d55e00", "#e69f00", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#666666", "#b8a800", "#6a3d9a"]
MARKERS = "os^vDP*X"
# An order, from dark to light on white, from light to dark on black: plasma.
SEQUENCE = ["#f89540", "#eb7655", "#da5a6a", "#c43e7f", "#aa2395", "#8a09a5", "#6600a7", "#3f049c", "#0d0887"]
INK, GREY, PALE, EDGE = "#1d2733", "#5b6570", "#e8ebee", "#9aa3ad"
# What a dark system shows in place of each color, the background's included.
DARK = {"#ffffff": "#161b21", INK: "#dfe5ea", GREY: "#9aa5b1", EDGE: "#68727d", PALE: "#2a323b"}
DARK |= {"#d55e00": "#ee7d2b", "#e69f00": "#f2bb45", "#0072b2": "#3a93d6", "#56b4e9": "#9dd6f7", "#009e73": "#2fbf95"}
DARK |= {"#666666": "#a0a0a0"}
LIGHTER = ["#b6308b", "#c7427c", "#d6556d", "#e3685f", "#ee7b51", "#f79143", "#fca835", "#fec029", "#f9dc24"]
DARK |= dict(zip(SEQUENCE, LIGHTER, strict=True))
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
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": PALE,
    "legend.frameon": False,
    "legend.handletextpad": 0.1,
    "legend.columnspacing": 0.8,
}
ERRORS = [0.9, 0.5, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.002, 0.001]
LEAST_ERROR = 0.0005  # drawn for less: a logarithm has no 0


def styled(width: float, **settings: Any) -> AbstractContextManager[None]:
    """The settings to draw a figure of `width` inches in, and these: from matplotlib's defaults, not matplotlibrc's."""
    return matplotlib.style.context(["default", STYLE, {"font.size": min(11.0, 1.5 * width)} | settings])


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure in inches, and its axes."""
    drawn = Figure(figsize=(width, height), layout="constrained")
    return drawn, drawn.subplots()


def shade(place: int, count: int) -> str:
    """The color of the `place`-th of `count` values in an order."""
    return SEQUENCE[round(place * (len(SEQUENCE) - 1) / max(count - 1, 1))]


def ticks(axis: Any, values: Sequence[float], labels: Sequence[str]) -> None:
    texts = dict(zip(values, labels, strict=True))
    axis.set_major_locator(FixedLocator(values))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: texts.get(value, "")))


def error_of(accuracy: "pd.Series[float]") -> "pd.Series[float]":
    return (1 - accuracy).clip(lower=LEAST_ERROR)


def error_axis(axes: Axes) -> None:
    """Of `error_of` accuracies, labeled as accuracies; logarithmic: from 90 to 99% is as far as to 99.9%."""
    axes.set_yscale("log")
    axes.invert_yaxis()
    ticks(axes.yaxis, ERRORS, [f"{100 * (1 - error):g}%" for error in ERRORS])


def to_svg(drawn: Figure, title: str) -> bytes:
    """`drawn` as an SVG file with a `title`, which says what is seen, and with colors for dark systems too."""
    content = io.BytesIO()
    drawn.savefig(content, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
    rules = [
        f'[style*="{what}: {light}"]{{{what}:{dark} !important}}'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    ]
    style = f"@media (prefers-color-scheme: dark) {{{''.join(rules)}}}</style>"
    lines = map(bytes.strip, content.getvalue().splitlines())
    return b"\n".join(lines).replace(b"</style>", style.encode(), 1) + b"\n"
