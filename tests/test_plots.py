"""`plot`, the templates of `dvc plots` and its page, on tables that `summarize` made of made-up runs."""

import json
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vl_convert
from matplotlib.backends.backend_agg import FigureCanvasAgg

from bnstudy import BadInput
from bnstudy.analysis.style import COLORS, styled
from bnstudy.params import Plot
from bnstudy.records import read_tidy
from conftest import ROOT, clone, run
from page import main as make_page
from plot import accuracy_figure, confusion_figure, draw, font_size, loss_figure
from test_summarize import make_runs, summarize

FIGURES = ["accuracy.svg", "confusion.svg", "loss.svg"]
MEDIUM = Plot(width=7.0, height=4.0)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def curves(folder: Path) -> pd.DataFrame:
    """Two variants, three seeds, with a gap in one loss."""
    make_runs(["a", "b"], [0, 1, 2])
    summarize(["a", "b"], [0, 1, 2])
    table = pd.read_csv("plots/curves.csv")
    table.loc[2, "test_loss"] = np.nan
    table.to_csv("plots/curves.csv", index=False)
    return table


def drawn() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path("plots/figures").iterdir())}


def test_the_same_bytes_whatever_the_settings_of_the_machine(curves: pd.DataFrame, folder: Path) -> None:
    draw(MEDIUM)
    first = drawn()
    shutil.rmtree("plots/figures")
    text = (ROOT / "params.yaml").read_text()
    Path("params.yaml").write_text(
        re.sub(r"(?m)^  (width|height): \S+", lambda m: f"  {m[1]}: {getattr(MEDIUM, m[1])}", text)
    )
    Path("matplotlibrc").write_text("axes.linewidth: 4\nsvg.fonttype: none\n")
    run(folder, sys.executable, str(ROOT / "src/plot.py"), PYTHONHASHSEED="7", TZ="Asia/Tokyo")
    assert drawn() == first
    assert list(first) == FIGURES


def test_figures_need_nothing_but_themselves(curves: pd.DataFrame) -> None:
    draw(MEDIUM)
    for name, content in drawn().items():
        root = ET.fromstring(content)
        assert (root.get("width"), root.get("height")) == ("504pt", "288pt"), name
        assert not root.findall(f".//{SVG}text"), name
        links = {value for node in root.iter() for key, value in node.attrib.items() if key.endswith("href")}
        assert all(link.startswith("#") for link in links), name
        assert b"<dc:date>" not in content
        assert str(Path.cwd()).encode() not in content


def test_lines_are_means_and_bands_the_extremes(curves: pd.DataFrame) -> None:
    [axes] = accuracy_figure(curves, MEDIUM).axes
    left, right = loss_figure(curves, MEDIUM).axes
    for panel, column in ((axes, "test_accuracy"), (left, "train_loss"), (right, "test_loss")):
        for variant, line, band in zip(("a", "b"), panel.lines, panel.collections, strict=True):
            expected = {}
            for step in (1, 101, 201, 250):
                values = curves[(curves["variant"] == variant) & (curves["step"] == step)][column].to_list()
                expected[step] = [value for value in values if not np.isnan(value)]
            assert list(line.get_xdata()) == list(expected)
            turn = (lambda value: 1 - value) if column == "test_accuracy" else (lambda value: value)
            means = [turn(sum(values) / len(values)) for values in expected.values()]
            assert line.get_ydata() == pytest.approx(means)
            corners = {(round(float(x)), round(float(y), 9)) for x, y in band.get_paths()[0].vertices}
            for step, values in expected.items():
                assert {(step, round(turn(end), 9)) for end in (min(values), max(values))} <= corners


@pytest.mark.parametrize(
    ("size", "variants", "seeds"),
    [
        ((2.0, 2.0), ["a"], [0]),
        ((2.0, 2.0), ["a", "b", "c"], [0, 1]),
        ((20.0, 2.0), ["a", "b", "c"], [0]),
        ((3.0, 20.0), ["a", "b"], [0, 1]),
        ((7.0, 4.0), list("abcdefghi"), [0]),
    ],
)
def test_any_size_and_number_of_runs_is_drawn_without_a_warning(
    folder: Path, size: tuple[float, float], variants: list[str], seeds: list[int]
) -> None:
    make_runs(variants, seeds, steps=[1] if len(variants) == 1 else [1, 101, 200])
    summarize(variants, seeds)
    draw(Plot(width=size[0], height=size[1]))
    assert list(drawn()) == FIGURES


def test_legends_lie_in_the_figure_and_cover_no_axes(folder: Path) -> None:
    variants = [f"variant_{letter}" for letter in "abcdefgh"]
    make_runs(variants, [0])
    summarize(variants, [0])
    curves = read_tidy(Path("plots/curves.csv"), ["seed", "step", "test_accuracy"])
    for make in (accuracy_figure, loss_figure):
        with styled(font_size(MEDIUM)):
            figure = make(curves, MEDIUM)
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            (legend,) = figure.legends
            box = legend.get_window_extent(canvas.get_renderer())
        assert [text.get_text() for text in legend.get_texts()] == variants
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0
        assert all(box.y1 <= axes.get_tightbbox(canvas.get_renderer()).y0 for axes in figure.axes)


def test_matrices_number_every_mistake_and_color_none_that_is_right(curves: pd.DataFrame) -> None:
    confusion = pd.read_csv("plots/confusion.csv")
    for variant, axes in zip(("a", "b"), confusion_figure(confusion, MEDIUM).axes, strict=True):
        rows = confusion[confusion["variant"] == variant]
        expected = {(row.predicted, row.actual): str(row.count) for row in rows.itertuples() if row.count}
        assert {text.get_position(): text.get_text() for text in axes.texts} == expected
        right = sum(rows["count"][rows["actual"] == rows["predicted"]]) / sum(rows["count"])
        assert axes.get_title() == f"{variant}: {right:.2%} right"
        colors_AP = axes.collections[0].get_array()
        assert np.array_equal(np.ma.getmaskarray(colors_AP), np.eye(10, dtype=bool))


@pytest.mark.parametrize(
    ("content", "fault"),
    [(None, "cannot be read"), ("", "is not a table"), ("variant,seed\na,1\n", "numbers in seed, step")],
)
def test_a_damaged_table_is_named(curves: pd.DataFrame, content: str | None, fault: str) -> None:
    path = Path("plots/curves.csv")
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(BadInput, match=rf"plots/curves\.csv: .*{fault}"):
        draw(MEDIUM)


def test_text_where_a_number_belongs_is_named(curves: pd.DataFrame) -> None:
    path = Path("plots/curves.csv")
    curves.astype({"test_loss": object}).replace({"test_loss": {curves["test_loss"][0]: "low"}}).to_csv(
        path, index=False
    )
    with pytest.raises(BadInput, match=r"plots/curves\.csv: does not have numbers in seed, step"):
        draw(MEDIUM)


@pytest.mark.parametrize("name", ["null", "nan", "inf", "true"])
def test_a_variant_may_be_called_anything_that_params_allow(folder: Path, name: str) -> None:
    make_runs([name], [0])
    summarize([name], [0])
    assert set(read_tidy(Path("plots/curves.csv"), ["step"])["variant"]) == {name}


# dvc plots


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clone with made-up results in its first commit, other ones in its working tree, and the page."""
    copy = clone(tmp_path_factory.mktemp("study") / "copy")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copy)
        make_runs(["a", "b"], [0, 1])
        summarize(["a", "b"], [0, 1])
        draw(MEDIUM)
        run(copy, "git", "add", "--all")
        run(copy, "git", "commit", "--quiet", "--message", "results")
        make_runs(["a", "b"], [2, 3])
        summarize(["a", "b"], [2, 3])
        make_page()
        yield copy


def charts(page: str) -> dict[str, Any]:
    """The Vega-Lite specifications in a page, by title."""
    specs = [json.JSONDecoder().raw_decode(page, match.end())[0] for match in re.finditer("var spec = ", page)]
    return {
        spec["title"]["text"]: spec for spec in specs if spec
    }  # empty: the report's figures, which are not made here


def marks(spec: dict[str, Any], kind: str) -> list[ET.Element]:
    """The marks of one kind that Vega draws."""
    root = ET.fromstring(vl_convert.vegalite_to_svg(json.dumps(spec)))
    groups = [node for node in root.iter(f"{SVG}g") if f"mark-{kind} role-mark" in node.get("class", "")]
    return [mark for group in groups for mark in group]


def test_page_holds_all_it_needs(study: Path) -> None:
    page = (study / ".dvc/page.html").read_text(encoding="utf-8")
    assert "{plot_divs}" in page
    assert "{scripts}" not in page
    assert len(re.findall("<script", page)) == len(re.findall("</script", page)) == 1
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=", page.split("</script>")[0].split("<script>")[0])
    assert "html_template = page.html" in (study / ".dvc/config.local").read_text()
    assert not run(study, "git", "status", "--short", "--", ".dvc").stdout


def test_page_belongs_into_a_repository(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"\.dvc/config: is not here"):
        make_page()
    assert not list(folder.iterdir())


def test_show_draws_every_variant_of_every_table(study: Path) -> None:
    run(study, "dvc", "plots", "show", "--out", "page")
    page = (study / "page/index.html").read_text(encoding="utf-8")
    assert not re.search(r'<script[^>]*src=|<link|src="https?:', page)
    found = charts(page)
    assert next(iter(found)) == "Test accuracy"
    assert {"Test accuracy", "Training loss", "Test loss", "Confusion matrices"} <= set(found)
    for title in ("Test accuracy", "Training loss", "Test loss"):
        assert [line.get("stroke") for line in marks(found[title], "line")] == COLORS[:2], title
        assert [area.get("fill") for area in marks(found[title], "area")] == COLORS[:2], title
    matrices = found["Confusion matrices"]
    assert len(marks(matrices, "rect")) == 200
    counts = pd.read_csv(study / "plots/confusion.csv")["count"]
    numbers = [int(text.text.replace(",", "")) for text in marks(matrices, "text") if text.text]
    assert sorted(numbers) == sorted(counts[counts > 0])
    assert all(f'src="static/{name}"' in page or name in page for name in FIGURES)


def test_show_draws_warm_up_and_sweep(study: Path) -> None:
    run(study, "dvc", "plots", "show", "--out", "page")
    found = charts((study / "page/index.html").read_text(encoding="utf-8"))
    for title in ("Learning rates", "Batch sizes"):
        assert [line.get("stroke") for line in marks(found[title], "line")] == COLORS[:2], title
        points = [point.get("fill") for point in marks(found[title], "symbol")]
        assert [points.count(color) for color in COLORS[:2]] == [2, 2], title
    warming = found["Warm-up of the moving averages"]
    decays = {"moving": 4, "corrected": 2}  # of the made-up runs; besides, batch and precise statistics
    for statistics, lines in decays.items():
        warming["params"][0]["value"] = statistics
        assert len({line.get("stroke") for line in marks(warming, "line")}) == lines + 2


def test_diff_overlays_two_revisions(study: Path) -> None:
    run(study, "dvc", "plots", "diff", "HEAD", "--out", "page")
    found = charts((study / "page/index.html").read_text(encoding="utf-8"))
    lines = marks(found["Test accuracy"], "line")
    assert [line.get("stroke") for line in lines].count(COLORS[0]) == 2
    assert len({line.get("d") for line in lines}) == 4
    dashes = [line.get("stroke-dasharray") for line in lines]
    assert sorted(map(dashes.count, set(dashes))) == [2, 2]
    assert len(marks(found["Test accuracy"], "area")) == 4
    assert len(marks(found["Confusion matrices"], "rect")) == 400


def test_templates_and_figures_share_their_colors() -> None:
    templates = {path.stem: json.loads(path.read_text()) for path in (ROOT / ".dvc/plots").glob("*.json")}
    assert {"accuracy", "loss", "confusion", "warmup", "sweep"} <= set(templates)
    for name in ("accuracy", "loss", "sweep"):
        assert templates[name]["encoding"]["color"]["scale"]["range"] == COLORS
    for template in templates.values():
        assert template["$schema"].startswith("https://vega.github.io/schema/vega-lite/v5")
