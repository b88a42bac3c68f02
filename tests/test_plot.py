"""`plot`: what the three pictures show, on made-up tables, and that their files need nothing but themselves."""

import math
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

import plot
from bnstudy import BadInput
from bnstudy.analysis import style
from bnstudy.params import Plot
from conftest import ROOT, run, write_params
from tables import ACCURACIES, LADDER, NETWORKS, RATES, RUNGS, lost, write_plots, write_table

SIZE = Plot(width=7.0, height=4.0)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the study's parameters and whole tables."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path)
    write_plots()
    return tmp_path


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(f"plots/{name}.csv")


def drawn() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path("report/figures").iterdir())}


def xy(line: Line2D) -> tuple[list[float], list[float]]:
    """The points of a line."""
    return [float(x) for x in np.asarray(line.get_xdata())], [float(y) for y in np.asarray(line.get_ydata())]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_same_bytes_whatever_the_settings_of_the_machine(folder: Path) -> None:
    plot.main()
    first = drawn()
    assert list(first) == ["dip.svg", "ladder.svg", "rates.svg"]
    Path("matplotlibrc").write_text("axes.linewidth: 4\nsvg.fonttype: none\n")
    run(folder, sys.executable, str(ROOT / "src/plot.py"), PYTHONHASHSEED="7", TZ="Asia/Tokyo")
    assert drawn() == first


def test_files_need_nothing_but_themselves_and_say_what_is_seen(folder: Path) -> None:
    plot.main()
    for name, content in drawn().items():
        root = ET.fromstring(content)
        assert root.get("width") == "504pt", name
        assert not root.findall(f".//{SVG}text"), name
        links = {value for node in root.iter() for key, value in node.attrib.items() if key.endswith("href")}
        assert all(link.startswith("#") for link in links), name
        assert len(root.findtext(f"{SVG}title") or "") > 100, name
        assert b"<dc:date>" not in content


def test_every_color_of_a_picture_has_one_for_dark_systems(folder: Path) -> None:
    plot.main()
    for name, content in drawn().items():
        rules = "".join(node.text or "" for node in ET.fromstring(content).iter(f"{SVG}style"))
        body = content.decode().partition("</style>")[2]
        for color in style.DARK:
            for what in ("fill", "stroke"):
                assert f'[style*="{what}: {color}"]' in rules, name
        assert 'style="fill: #ffffff"' in body, name
        assert f"fill: {style.INK}" in body, name


def luminance(color: str) -> float:
    """Relative luminance, of WCAG 2."""
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return float(np.dot([0.2126, 0.7152, 0.0722], channels))


def contrast(a: str, b: str) -> float:
    light, dark = sorted([luminance(a), luminance(b)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colors_stand_out_on_white_and_on_black() -> None:
    for text in (style.INK, style.GREY):
        assert contrast(text, "#ffffff") >= 4.5
        assert contrast(style.DARK[text], style.DARK["#ffffff"]) >= 4.5
    for color in [*style.COLORS[:6], *style.SEQUENCE]:
        assert contrast(color, "#ffffff") >= 1.9
        assert contrast(style.DARK.get(color, color), style.DARK["#ffffff"]) >= 3
    for ordered, sign in ((style.SEQUENCE, -1), ([style.DARK[color] for color in style.SEQUENCE], 1)):
        assert all(sign * step > 0 for step in np.diff([luminance(color) for color in ordered]))


# The dip


def test_the_dips_points_are_the_tables_and_its_line_the_mechanisms(folder: Path) -> None:
    dip = table("dip")
    with style.styled(7.0):
        figure, seen = plot.dip_figure(dip, table("mechanism"), SIZE) or pytest.fail("not drawn")
    lines = figure.axes[0].lines
    points = [line for line in lines if line.get_marker() == "o"]
    moving = dip[(dip["statistics"] == "moving") & (dip["age"] <= plot.LATEST)]
    assert [line.get_label() for line in points] == [f"{decay:g}" for decay in sorted(moving["decay"].unique())]
    for line, (_, rows) in zip(points, moving.groupby("decay"), strict=True):
        ages, differences = xy(line)
        assert ages == list(rows["age"])
        assert differences == pytest.approx(list(100 * rows["difference"]))
    (curve,) = [line for line in lines if line.get_color() == style.INK]
    for age, difference in zip(*xy(curve), strict=True):
        assert difference == pytest.approx(-100 * lost(math.exp(-age)), abs=2)  # between 50 weights
    assert {round(xy(line)[0][0], 6) for line in lines if line.get_linestyle() == "--"} == {1.386294, 5}
    whole = moving[moving["decay"] >= 0.9]
    bottoms = whole.loc[whole.groupby("decay")["difference"].idxmin()]
    assert f"{-100 * bottoms['difference'].max():.0f} to {-100 * bottoms['difference'].min():.0f} points" in seen
    assert f"{100 * math.exp(-bottoms['age'].max()):.0f} to {100 * math.exp(-bottoms['age'].min()):.0f}%" in seen
    assert "Those of 0.9 to 0.999 are at their lowest" in seen


def test_points_of_the_seeds_that_are_trained_on_are_hollow_and_apart(folder: Path) -> None:
    dip = table("dip")
    dip.loc[dip["step"] > 1000, "seeds"] = 3
    dip.loc[dip["step"] > 1000, "difference"] -= 0.3
    figure, seen = plot.dip_figure(dip, table("mechanism"), SIZE) or pytest.fail("not drawn")
    points = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    hollow = [line for line in points if line.get_markerfacecolor() == "#ffffff"]
    later = dip[(dip["statistics"] == "moving") & (dip["age"] <= plot.LATEST) & (dip["seeds"] == 3)]
    assert sorted(age for line in hollow for age in xy(line)[0]) == sorted(later["age"])
    assert len({line.get_label() for line in points} - {"_"}) == 9
    assert max(len(set(xy(line)[0]) & set(later["age"])) for line in figure.axes[0].lines if line in points[:1]) == 0
    assert "0.999" not in seen.partition("are at their lowest")[0]  # no longer measured on both sides


def test_no_mechanism_no_line(folder: Path) -> None:
    figure, _ = plot.dip_figure(table("dip"), table("mechanism")[:0], SIZE) or pytest.fail("not drawn")
    assert not [line for line in figure.axes[0].lines if line.get_color() == style.INK]


# The ladder


def whiskers(figure: Figure) -> list[list[float]]:
    """Both ends of each."""
    bars = [container for container in figure.axes[0].containers if isinstance(container, ErrorbarContainer)]
    segments = [np.asarray(bar.lines[2][0].get_segments()[0]) for bar in bars]
    return [list(segment[:, 0]) for segment in segments if segment.size]


def test_bars_lead_from_rung_to_rung_with_their_intervals(folder: Path) -> None:
    figure, seen = plot.ladder_figure(table("ladder"), SIZE) or pytest.fail("not drawn")
    accuracies = {rung: accuracy for rung, _, _, accuracy, *_ in LADDER}
    bars = [bar for bar in figure.axes[0].patches if isinstance(bar, Rectangle)]
    shown = texts(figure)
    for bar, ends, rung in zip(bars, whiskers(figure), LADDER[1:], strict=True):
        _, label, base, accuracy, change, low, high, side = rung
        assert bar.get_x() == pytest.approx(accuracies[base])
        assert bar.get_x() + bar.get_width() == pytest.approx(accuracy)
        assert ends == pytest.approx([accuracies[base] + float(low), accuracies[base] + float(high)])
        assert (to_rgba(bar.get_facecolor())[3] == 0) == bool(side)
        assert {f"{100 * float(change):+.1f}".replace("-", "−"), f"{accuracy:.1%}"} <= set(shown)
        assert label[1:] in seen
    heights = [bar.get_y() for bar in bars]
    assert heights == sorted(heights)
    assert "64.1%; " in seen
    assert "+29.3 points to 93.4%" in seen


def test_one_seed_has_no_whiskers(folder: Path) -> None:
    rungs = [(*rung[:3], 1, *rung[3:5], "", "", rung[-1]) for rung in LADDER]
    write_table("ladder", RUNGS, rungs)
    figure, _ = plot.ladder_figure(table("ladder"), SIZE) or pytest.fail("not drawn")
    assert len(figure.axes[0].patches) == len(LADDER) - 1
    assert whiskers(figure) == []


def test_arms_that_are_left_out_leave_no_gap(folder: Path) -> None:
    ladder = table("ladder").query("rung in ('plain_own_rate', 'own_rate')")
    ladder.loc[ladder["rung"] == "plain_own_rate", ["from", "change", "low", "high"]] = None
    ladder.loc[ladder["rung"] == "own_rate", "from"] = "plain_own_rate"
    figure, seen = plot.ladder_figure(ladder, SIZE) or pytest.fail("not drawn")
    assert len(figure.axes[0].patches) == 1
    assert not [text for text in texts(figure) if "Beside" in text]
    assert "93.4%" in seen


# The rates


@given(st.lists(st.floats(0.001, 0.9), min_size=2, max_size=8), st.data())
def test_a_rate_works_where_the_drawn_line_lies_above_the_target(errors: list[float], data: st.DataObject) -> None:
    rates = [10.0 ** (place / 2 - 3) for place in range(len(errors))]
    place = data.draw(st.floats(0, len(errors) - 1))
    before = min(int(place), len(errors) - 2)
    error = errors[before] ** (1 - place + before) * errors[before + 1] ** (place - before)  # on a line in logarithms
    rate, found = 10 ** (place / 2 - 3), plot.working(rates, errors, 0.95)
    if error < 0.05 * 0.95:
        assert any(low / 1.01 <= rate <= high * 1.01 for low, high in found)
    if error > 0.05 * 1.05:
        assert not any(low * 1.01 < rate < high / 1.01 for low, high in found)
    assert all(low <= high for low, high in found)


def test_ranges_are_those_between_the_crossings() -> None:
    ((low, high),) = plot.working([0.01, 0.1, 1.0], [0.5, 0.005, 0.5], 0.95)  # a hundredth in a decade: half-way
    assert (low, high) == pytest.approx((10**-1.5, 10**-0.5), rel=0.01)
    assert plot.working([0.1, 1.0], [0.01, 0.02], 0.95) == [pytest.approx((0.1, 1.0))]
    assert plot.working([0.1, 1.0], [0.2, 0.3], 0.95) == []


def test_rates_show_means_single_seeds_and_diverged_runs_at_the_floor(folder: Path) -> None:
    rates = table("rates")
    figure, seen = plot.rates_figure(rates, SIZE, 0.95) or pytest.fail("not drawn")
    axes, ranges = figure.axes
    means = [line for line in axes.lines if line.get_linewidth() == 1.8]
    for line, network, accuracies in zip(means, NETWORKS, ACCURACIES, strict=True):
        x, y = xy(line)
        assert x == RATES
        assert y == pytest.approx([1 - accuracy for accuracy in accuracies], abs=1e-3)
        assert network in seen
    seeds = [line for line in axes.lines if line.get_marker() == "_"]
    assert sum(len(xy(line)[0]) for line in seeds) == len(rates)
    (lost_runs,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert len(xy(lost_runs)[0]) == (rates["diverged"] == 1).sum()
    assert set(xy(lost_runs)[1]) == {0.9}
    assert [label.get_text() for label in ranges.get_yticklabels()] == NETWORKS
    assert "plain at none; plain_he 0.0071 to 0.034" in seen
    assert seen.count(f" to {RATES[-1]:g} or more") == 2
    assert "none of those tried" in texts(figure)
    open_ends = [line.get_marker() for line in ranges.lines if xy(line)[0] == [RATES[-1]]]
    assert open_ends == [">", ">"]
    assert "99% is reached at rates of: plain at none" in (plot.rates_figure(rates, SIZE, 0.99) or (None, ""))[1]


# Any study


@pytest.mark.parametrize(("width", "height", "seeds"), [(2.0, 2.0, 1), (3.0, 20.0, 10), (20.0, 4.0, 1)])
def test_any_size_is_drawn_without_a_warning(folder: Path, width: float, height: float, seeds: int) -> None:
    write_params(folder, plot={"width": width, "height": height})
    write_plots(decays=[0.9], seeds=seeds, steps=12)
    plot.main()
    assert list(drawn()) == ["dip.svg", "ladder.svg", "rates.svg"]


def test_texts_of_the_pictures_lie_inside_them(folder: Path) -> None:
    with style.styled(SIZE.width):
        found = [
            plot.dip_figure(table("dip"), table("mechanism"), SIZE),
            plot.ladder_figure(table("ladder"), SIZE),
            plot.rates_figure(table("rates"), SIZE, 0.95),
        ]
        for figure, _ in filter(None, found):
            FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
            boxes = [text.get_window_extent() for axes in figure.axes for text in axes.texts]
            boxes += [legend.get_window_extent() for legend in figure.legends]
            for box in boxes:
                assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1
                assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1


def test_no_text_covers_a_point_of_the_dip(folder: Path) -> None:
    with style.styled(SIZE.width):
        figure, _ = plot.dip_figure(table("dip"), table("mechanism"), SIZE) or (None, "")
        assert figure
        FigureCanvasAgg(figure).draw()
        (axes,) = figure.axes
        points = [axes.transData.transform(list(zip(*xy(line), strict=True))) for line in axes.lines]
        covers = [text.get_window_extent() for text in axes.texts if text.get_text()]
        assert axes.get_legend() is None
        assert len(covers) == 2
        assert not [box for box in covers for line in points for x, y in line if box.contains(x, y) and len(line) > 2]


@pytest.mark.parametrize("name", ["dip", "ladder", "rates"])
def test_a_table_without_rows_has_no_picture(folder: Path, name: str) -> None:
    table(name)[:0].to_csv(f"plots/{name}.csv", index=False)
    plot.main()
    assert set(drawn()) == {"dip.svg", "ladder.svg", "rates.svg"} - {f"{name}.svg"}


@pytest.mark.parametrize("name", ["dip", "mechanism", "ladder", "rates"])
@pytest.mark.parametrize(("content", "fault"), [(None, "cannot be read"), ("", "is not a table")])
def test_a_damaged_table_is_named_before_anything_is_drawn(
    folder: Path, name: str, content: str | None, fault: str
) -> None:
    path = Path(f"plots/{name}.csv")
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(BadInput, match=rf"plots/{name}\.csv: .*{fault}"):
        plot.main()
    assert not Path("report").exists()
