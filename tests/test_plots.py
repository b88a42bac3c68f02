"""The templates of `dvc plots` and its page, on made-up tables in a repository of their own."""

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import vl_convert
import yaml

import plot
from bnstudy.analysis.style import COLORS
from conftest import ROOT, browse, clone, run
from page import main as make_page
from tables import LADDER, NETWORKS, write_charts, write_plots

SVG = "{http://www.w3.org/2000/svg}"
PLOTS = {
    Path(path).stem: options
    for entry in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["evaluate"]["plots"]
    for path, options in entry.items()
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clone with made-up results in its first commit, other ones in its working tree, and the page."""
    copy = clone(tmp_path_factory.mktemp("study") / "copy")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copy)
        write_charts()
        write_plots()
        plot.main()
        run(copy, "git", "add", "--all")
        run(copy, "git", "commit", "--quiet", "--message", "results")
        write_plots(decays=(0.9, 0.99), seeds=1)
        for name in ("curves", "batch", "ladder"):
            path = Path("plots", f"{name}.csv")
            path.write_text(path.read_text().replace("0.9", "0.8"))
        make_page()
        yield copy


@pytest.fixture(scope="module")
def shown(study: Path) -> dict[str, Any]:
    run(study, "dvc", "plots", "show", "--out", "page")
    return charts((study / "page/index.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def compared(study: Path) -> dict[str, Any]:
    run(study, "dvc", "plots", "diff", "HEAD", "--out", "page")
    return charts((study / "page/index.html").read_text(encoding="utf-8"))


def charts(page: str) -> dict[str, Any]:
    """The Vega-Lite specifications in a page, by the name of their table."""
    specs = [json.JSONDecoder().raw_decode(page, match.end())[0] for match in re.finditer("var spec = ", page)]
    names = {options["title"]: name for name, options in PLOTS.items()}
    return {names[spec["title"]["text"]]: spec for spec in specs}


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


def test_every_table_has_a_chart_and_every_template_a_table(study: Path, shown: dict[str, Any]) -> None:
    assert shown.keys() == PLOTS.keys()
    assert {path.stem for path in (ROOT / ".dvc/plots").glob("*.json")} == {its["template"] for its in PLOTS.values()}
    page = (study / "page/index.html").read_text(encoding="utf-8")
    assert not re.search(r'<script[^>]*src=|<link|src="https?:', page)
    assert all(f"{name}.svg" in page for name in ("dip", "ladder", "rates"))


def test_a_browser_draws_every_chart(study: Path) -> None:
    run(study, "dvc", "plots", "show", "--out", "browsed")
    marks = "chart.querySelectorAll('.role-mark :is(path, rect, line, text)').length"
    (width, needed, charts, images), console = browse(
        study / "browsed/index.html",
        "[innerWidth, document.documentElement.scrollWidth,"
        f" [...document.querySelectorAll('.vega-embed')].map(chart => {marks}),"
        " [...document.images].map(image => image.naturalWidth)]",
    )
    assert needed <= width == 360
    assert len(charts) == len(PLOTS)
    assert len(images) == 3
    assert all([*charts, *images])
    assert console == []


SERIES = {"curves": 2, "rates": len(NETWORKS), "tolerance": 2, "batch": 2, "dip": 2, "mechanism": 3}


@pytest.mark.parametrize("name", SERIES)
def test_show_draws_one_line_for_each_series(shown: dict[str, Any], name: str) -> None:
    lines = marks(shown[name], "line")
    assert len({line.get("stroke") for line in lines}) == len(lines) == SERIES[name]
    if name != "dip":
        assert [line.get("stroke") for line in lines] == COLORS[: SERIES[name]]


@pytest.mark.parametrize("name", SERIES)
def test_diff_tells_revisions_apart_by_dashes(compared: dict[str, Any], name: str) -> None:
    lines = marks(compared[name], "line")
    dashes = Counter(line.get("stroke-dasharray") for line in lines)
    before = 9 if name == "dip" else SERIES[name]
    assert sorted(dashes.values()) == sorted([before, SERIES[name]])
    strokes = Counter(line.get("stroke") for line in lines)
    assert max(strokes.values()) == 2


def test_the_dip_shows_either_kind_of_averages(shown: dict[str, Any]) -> None:
    drawn = {}
    for kind in ("moving", "corrected"):
        shown["dip"]["params"][0]["value"] = kind
        drawn[kind] = {line.get("d") for line in marks(shown["dip"], "line")}
    assert len(drawn["moving"] | drawn["corrected"]) == 4


def test_the_ladder_has_a_bar_for_each_change(shown: dict[str, Any], compared: dict[str, Any]) -> None:
    assert len(marks(shown["ladder"], "rect")) == len(LADDER)
    rungs = [label.get("aria-label", "") for label in marks(compared["ladder"], "rect")]
    assert len(rungs) == 2 * len(LADDER)
    assert len({mark.get("stroke-dasharray") for mark in marks(compared["ladder"], "rect")}) == 2


def test_templates_and_pictures_share_their_colors() -> None:
    templates = {path.stem: json.loads(path.read_text()) for path in (ROOT / ".dvc/plots").glob("*.json")}
    for name in ("accuracy", "rates", "batch", "mechanism"):
        assert templates[name]["encoding"]["color"]["scale"]["range"] == COLORS
    for template in templates.values():
        assert template["$schema"].startswith("https://vega.github.io/schema/vega-lite/v6")
