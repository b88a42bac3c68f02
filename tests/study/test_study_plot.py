"""`study_plot`: what the four pictures show, on made-up tables, and that their files need nothing but themselves."""

import math
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

import made_tables
import study_plot
from bnstudy import BadInput
from bnstudy.params import Plot
from bnstudy.study import theory
from bnstudy.study.params import Study
from bnstudy.study.style import BLUE, GREEN, RED, styled
from bnstudy.style import DARK, INK
from made_tables import LADDER, ROOT

NAMES = ["cause.svg", "dip.svg", "ladder.svg", "rates.svg"]
SVG = "{http://www.w3.org/2000/svg}"
PARAMS = made_tables.STUDY.model_copy(update={"plot": Plot(width=5.4, height=4.4)})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with parameters and whole tables."""
    monkeypatch.chdir(tmp_path)
    made_tables.write(tmp_path, width=5.4, height=4.4)
    return tmp_path


def drawn() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path("study/report/figures").iterdir())}


def picture(name: str, params: Study = PARAMS) -> tuple[Figure, str]:
    """The picture of the made-up tables, and what is seen."""
    tables = made_tables.tables()
    with styled(params.plot.width):
        found = {
            "dip": lambda: study_plot.dip_figure(tables["dip"], tables["theory"], params.plot),
            "cause": lambda: study_plot.cause_figure(tables["dip"], tables["theory"], params.plot),
            "ladder": lambda: study_plot.ladder_figure(tables["ladder"], params.plot),
            "rates": lambda: study_plot.rates_figure(tables["rates"], params),
        }[name]()
        assert found is not None
        FigureCanvasAgg(found[0]).draw()  # type: ignore[no-untyped-call]
    return found


def xy(line: Line2D) -> tuple[Any, Any]:
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


def lines(axes: Any, **look: Any) -> list[Line2D]:
    """Those with more than two points, of this color or linestyle."""
    found = [line for line in axes.lines if len(line.get_xdata()) > 2]
    return [line for line in found if all(getattr(line, f"get_{key}")() == value for key, value in look.items())]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_same_bytes_whatever_the_settings_of_the_machine(folder: Path) -> None:
    study_plot.main()
    first = drawn()
    assert list(first) == NAMES
    Path("matplotlibrc").write_text("axes.linewidth: 4\nsvg.fonttype: none\n")
    surroundings = {"MPLBACKEND": "no_such_backend", "PYTHONHASHSEED": "7", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    script = str(ROOT / "src/study_plot.py")
    done = subprocess.run([sys.executable, script], env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert drawn() == first


def test_files_need_nothing_but_themselves_and_say_what_is_seen(folder: Path) -> None:
    study_plot.main()
    for name, content in drawn().items():
        root = ET.fromstring(content)
        assert not root.findall(f".//{SVG}text"), name
        links = {value for node in root.iter() for key, value in node.attrib.items() if key.endswith("href")}
        assert all(link.startswith("#") for link in links), name
        assert len(root.findtext(f"{SVG}title") or "") > 100, name
        assert b"<dc:date>" not in content
        rules, body = content.decode().partition("</style>")[::2]
        for color in DARK:
            assert f'[style*="fill: {color}"]' in rules, name
        assert 'style="fill: #ffffff"' in body, name
        assert len(content) < 300_000, name


@pytest.mark.parametrize("name", ["dip", "cause", "ladder", "rates"])
def test_texts_lie_inside_the_picture_and_a_phone_shows_them(folder: Path, name: str) -> None:
    figure, _ = picture(name)
    found = [text for axes in figure.axes for text in axes.texts if text.get_text()]
    found += [label for axes in figure.axes for label in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    for box in [*(text.get_window_extent() for text in found), *(one.get_window_extent() for one in figure.legends)]:
        assert figure.bbox.x0 - 1 <= box.x0 <= box.x1 <= figure.bbox.x1 + 1
    assert min(float(text.get_fontsize()) for text in found) / 72 / 5.4 * 370 >= 9


@pytest.mark.parametrize(("width", "height"), [(2.0, 2.0), (3.0, 20.0), (20.0, 8.0)])
def test_any_size_is_drawn(folder: Path, width: float, height: float) -> None:
    made_tables.write(folder, width=width, height=height)
    study_plot.main()
    assert list(drawn()) == NAMES


def test_the_dips_lines_are_the_tables_and_the_theorys(folder: Path) -> None:
    figure, seen = picture("dip")
    axes, right = figure.axes[0], figure.axes[1]
    table = made_tables.tables()["dip"].query("network == 'note_batch_norm' and start_variance == 1 and age < 10")
    for decay, rows in table[table["statistics"] == "moving"].groupby("decay"):
        (line,) = [line for line in axes.lines if line.get_label() == f"{decay:g}"]
        rows = rows[rows["age"].between(*study_plot.AGES)]
        assert xy(line)[0] == pytest.approx(list(rows["age"]))
        assert xy(line)[1] == pytest.approx(list(100 * rows["difference"]))
    assert len(lines(axes, color=GREEN)) == table["decay"].nunique()
    (dashed,) = lines(right, color=INK)
    ages, values = xy(dashed)
    lowest, early = theory.bottom(0.025, 4.75), theory.zero(0.025, 4.75)
    assert math.exp(-ages[values.argmax()]) == pytest.approx(lowest, abs=0.01)
    crossed = ages[np.flatnonzero(np.diff(np.sign(values)))[0]]
    assert math.exp(-crossed) == pytest.approx(early, abs=0.01)
    low, high = axes.get_ylim()
    assert right.get_ylim()[0] / right.get_ylim()[1] == pytest.approx(low / high)  # zeros at one height
    assert "Those of 0.9 to 0.999" in seen
    assert "lowest where 25% of the start is left" in seen
    assert "they lose at most 0.1 points in any seed" in seen


def test_a_dip_without_theory_or_corrected_averages_is_drawn(folder: Path) -> None:
    moving = made_tables.tables()["dip"].query("statistics == 'moving' and decay == 0.99")
    with styled(5.4):
        found = study_plot.dip_figure(moving, made_tables.tables()["theory"][:0], PARAMS.plot)
    assert found is not None
    assert "Less their start" not in found[1]


def test_removing_the_cause_moves_the_dip_and_ends_it(folder: Path) -> None:
    figure, seen = picture("cause")
    axes, right = figure.axes[0], figure.axes[1]
    depth = {color: min(xy(line)[1].min() for line in lines(axes, color=color)) for color in (RED, INK, BLUE, GREEN)}
    assert depth[RED] == pytest.approx(-86)
    assert depth[INK] == pytest.approx(-57, abs=1)
    assert depth[BLUE] == pytest.approx(0, abs=1)
    assert depth[GREEN] == pytest.approx(0)
    assert len(lines(axes, color=GREEN)) == 4  # all decays of standardized pixels
    assert len(lines(right)) == 4
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [label for *_, label in study_plot.CAUSES]
    assert "start variance 10: −86.0" in seen
    only = made_tables.tables()["dip"].query("network == 'standardized'")
    found = study_plot.cause_figure(only, made_tables.tables()["theory"], PARAMS.plot)
    assert found is not None
    assert "start variance 10" not in found[1]


def test_bars_lead_from_step_to_step_with_their_intervals(folder: Path) -> None:
    figure, seen = picture("ladder")
    accuracies = {rung: accuracy for rung, _, _, accuracy, _ in LADDER}
    bars = [bar for bar in figure.axes[0].patches if isinstance(bar, Rectangle)]
    for bar, (rung, label, base, accuracy, change) in zip(bars, LADDER[1:], strict=True):
        assert bar.get_x() == pytest.approx(accuracies[str(base)], abs=1e-3)
        assert bar.get_x() + bar.get_width() == pytest.approx(accuracy, abs=1e-3)
        assert (to_rgba(bar.get_facecolor())[3] == 0) == rung.startswith("he")
        assert {f"{100 * (change or 0):+.1f}".replace("-", "−"), f"{accuracy:.1%}"} <= set(texts(figure))
        assert label[1:] in seen
    assert "+29.3 points to 93.4%" in seen


def test_one_seed_has_no_whiskers_and_arms_that_are_left_out_leave_no_gap(folder: Path) -> None:
    table = made_tables.tables()["ladder"].query("rung in ('plain_own_rate', 'own_rate')")
    table[["change", "low", "high"]] = np.nan
    table["from"] = [None, "plain_own_rate"]
    table.loc[table["rung"] == "own_rate", "change"] = 0.049
    with styled(5.4):
        found = study_plot.ladder_figure(table, PARAMS.plot)
    assert found is not None
    assert len(found[0].axes[0].patches) == 1
    assert not [text for text in texts(found[0]) if "Beside" in text]


def test_rates_show_the_sweep_and_not_what_tunes_or_is_judged(folder: Path) -> None:
    figure, seen = picture("rates")
    axes = figure.axes[0]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:4] == ["no norm, note's weights", "no norm", "batch norm, hidden layers", "batch norm"]
    assert "layer norm, hidden layers" in names
    assert not [line for line in axes.lines if "tuning" in str(line.get_label())]
    (lost,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert set(xy(lost)[0]) == {3.2}
    assert set(xy(lost)[1]) == {0.9}
    assert "batch norm: 0.001 to 3.2" in seen
    mean = lines(axes, color=axes.lines[0].get_color())[0]
    table = (
        made_tables.tables()["rates"].query("entry == 'plain'").groupby("learning_rate")["accuracy"].mean().fillna(0.1)
    )
    assert xy(mean)[1] == pytest.approx(list(1 - table))


def test_networks_are_called_by_what_they_are() -> None:
    words = {name: study_plot.called(entry) for name, entry in PARAMS.sweep.items()}
    assert words["group_norm_hidden_he"] == "group norm, hidden layers"
    assert words["batch_norm_he"] == "batch norm"


def test_tables_without_rows_have_no_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_tables.write(folder, empty=True)
    study_plot.main()
    assert drawn() == {}
    assert capsys.readouterr().out == "drew study/report/figures: none\n"


@pytest.mark.parametrize("name", ["dip", "theory", "ladder", "rates"])
@pytest.mark.parametrize("content", [None, ""])
def test_a_damaged_table_is_named_before_anything_is_drawn(folder: Path, name: str, content: str | None) -> None:
    path = Path(f"study/plots/{name}.csv")
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(BadInput, match=rf"study/plots/{name}\.csv: cannot be read"):
        study_plot.main()
    assert not Path("study/report").exists()


def test_points_have_a_sign_and_no_negative_zero() -> None:
    assert [study_plot.points(value) for value in (0.0123, -0.5, -0.0001)] == ["+1.2", "−50.0", "+0.0"]
    assert study_plot.span(pd.Series([1.0, 1.0]), "{:g}") == "1"
