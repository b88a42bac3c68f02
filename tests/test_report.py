"""`report` on what `summarize` made of made-up runs: its words, its numbers, its figures, and that DVC keeps them."""

import base64
import json
import math
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.axes import Axes
from scipy.stats import t

import report
from bnstudy import BadInput
from bnstudy.analysis import style
from bnstudy.analysis.claim import MARKS, Results
from bnstudy.analysis.claims import CLAIMS, averages, read_claims, training
from bnstudy.analysis.claims import sweep as sweeps
from bnstudy.analysis.headline import markdown_headline, read_summaries
from bnstudy.params import load
from conftest import ROOT, clone, run
from test_summarize import make_runs, summarize

FOUR = ["batch_norm", "plain", "batch_norm_hidden", "plain_he"]
PARAMS = load(ROOT / "params.yaml")
PAGES = ["report/index.html", "report/README.md"]


def make_inputs(variants: list[str], seeds: list[int], steps: list[int] | None = None) -> None:
    """What the stage reads, in the current folder, from random runs."""
    make_runs(variants, seeds, **({"steps": steps} if steps else {}))
    summarize(variants, seeds)
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["study"] = {"variants": variants, "seeds": seeds}
    tree["variants"]["other"] = tree["variants"]["plain"]
    tree["rates"]["other"] = tree["rates"]["plain"]
    Path("params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


def make_report(variants: list[str], seeds: list[int], steps: list[int] | None = None) -> None:
    make_inputs(variants, seeds, steps)
    report.main()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the report on four variants and five seeds; not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_report(FOUR, [0, 1, 2, 3, 4])
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Page(HTMLParser):
    """The tags of a page with their attributes, the tags left open, and the text of each row of its first table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.rows: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br", "wbr"}:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "tr" in self.open:
            self.rows[-1] += data


def test_the_page_is_whole_and_needs_nothing_but_itself(whole: Path) -> None:
    text = (whole / PAGES[0]).read_text()
    page = Page(text)
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"}
    assert not re.search(r"url\(|@import|https?://", text)
    assert {"lang": "en"} in [attributes for tag, attributes in page.tags if tag == "html"]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids) == 10
    assert {attributes["href"] for tag, attributes in page.tags if tag == "a"} <= {f"#{name}" for name in ids}
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    names = [*(f"claim_{number}" for number in range(1, 10)), "hidden"]
    for name, image in zip(names, images, strict=True):
        assert image["alt"]
        kind, data = str(image["src"]).split(",")
        assert kind == "data:image/svg+xml;base64"
        assert base64.b64decode(data) == (whole / f"report/figures/{name}.svg").read_bytes()


def test_figures_are_whole_and_adapt_to_dark_systems(whole: Path) -> None:
    for path in (whole / "report/figures").iterdir():
        root = ET.parse(path).getroot()
        assert root.find(".//{http://purl.org/dc/elements/1.1/}date") is None
        links = {value for node in root.iter() for key, value in node.attrib.items() if key.endswith("href")}
        assert all(link.startswith("#") for link in links)
        rules = "".join(str(node.text) for node in root.iter("{http://www.w3.org/2000/svg}style"))
        assert "prefers-color-scheme: dark" in rules
        # The background and the texts are among what a dark system shows in another color.
        for color in ("#ffffff", style.INK):
            assert f'fill: {color}"]' in rules
            assert f'style="fill: {color}' in path.read_text()


def test_each_claim_stands_with_its_numbers_and_verdict_in_both_tables(whole: Path) -> None:
    findings = json.loads((whole / "metrics/claims.json").read_text())
    page_rows = Page((whole / PAGES[0]).read_text()).rows[1:]
    lines = [line for line in (whole / PAGES[1]).read_text().splitlines() if re.match(r"\| \d\. ", line)]
    for claim, finding, row, line in zip(CLAIMS, findings, page_rows, lines, strict=True):
        assert finding["measured"] in row
        for text in (row, line):
            assert f"{claim.id}. {finding['claim']}" in text
            assert f"{MARKS[finding['verdict']]} {finding['verdict']}" in text
        quantities = {quantity.name: quantity for quantity in claim.quantities}
        for part in finding["parts"]:
            if part["p"] is not None:
                assert f"p {part['p']:.3g}, P(better) {part['probability_better']:.2g}" in row.replace("\xa0", " ")
            assert part["rule"] in row
            for text in (row, line):
                assert part["part"] in text
                for name in ("estimate", "low", "high"):
                    assert quantities[part["quantity"]].number(part[name]) in text


def test_the_same_bytes_whatever_the_settings_of_the_machine(whole: Path, folder: Path) -> None:
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    shutil.rmtree("report")
    Path("matplotlibrc").write_text("font.size: 20\nlines.linewidth: 9\nsvg.fonttype: none\n")
    run(
        folder,
        sys.executable,
        str(ROOT / "src/report.py"),
        PYTHONHASHSEED="7",
        TZ="Asia/Tokyo",
    )
    for path in (whole / "report").rglob("*.*"):
        assert (folder / path.relative_to(whole)).read_bytes() == path.read_bytes(), path.name


def test_the_readme_quotes_the_headline_of_the_committed_results(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (ROOT / "metrics/summary").exists():
        pytest.skip("no results are committed")
    monkeypatch.chdir(ROOT)
    quoted = re.search(r"<!-- headline -->(.*?)<!-- /headline -->", Path("README.md").read_text(), re.DOTALL)
    assert quoted, "README.md has no headline"
    assert quoted[1].strip() == markdown_headline(read_summaries(PARAMS.study), read_claims())


# Test accuracy of the note's own code, run twice in TensorFlow 2.13 at about these updates.
ORIGINAL = {
    "batch_norm": {100: [0.963, 0.960], 200: [0.977], 500: [0.984], 700: [0.986]},
    "plain": {100: [0.526, 0.501], 200: [0.800, 0.702], 500: [0.886, 0.893], 760: [0.917]},
}


def beside(curves: pd.DataFrame) -> str:
    """The original's accuracies beside ours at the nearest evaluation, in Markdown."""
    lines = ["| network | updates | the note's code | here, lowest to highest |", "| --- | --: | --: | --: |"]
    for variant, accuracies in ORIGINAL.items():
        rows = curves[curves["variant"] == variant]
        for step, theirs in accuracies.items():
            nearest = min(rows["step"], key=lambda other: abs(other - step))
            ours = rows.loc[rows["step"] == nearest, "test_accuracy"]
            both = " and ".join(f"{accuracy:.1%}" for accuracy in theirs)
            lines.append(f"| `{variant}` | {step} | {both} | {ours.min():.1%} to {ours.max():.1%} |")
    return "\n".join(lines)


def test_the_original_is_set_beside_our_seeds() -> None:
    if not (ROOT / "plots/curves.csv").exists():
        pytest.skip("no results are committed")
    assert beside(pd.read_csv(ROOT / "plots/curves.csv")) in (ROOT / "docs/original.md").read_text()


def test_the_original_lies_where_one_more_of_our_seeds_would() -> None:
    """In the 95% prediction interval of our seeds at the nearest evaluation, each of its runs."""
    if not (ROOT / "plots/curves.csv").exists():
        pytest.skip("no results are committed")
    curves = pd.read_csv(ROOT / "plots/curves.csv")
    for variant, accuracies in ORIGINAL.items():
        rows = curves[curves["variant"] == variant]
        for step, theirs in accuracies.items():
            ours = rows.loc[rows["step"] == min(rows["step"], key=lambda other: abs(other - step)), "test_accuracy"]
            half = t.ppf(0.975, len(ours) - 1) * ours.std() * math.sqrt(1 + 1 / len(ours))
            for accuracy in theirs:
                assert ours.mean() - half < accuracy < ours.mean() + half, (variant, step)


@pytest.mark.parametrize(
    ("variants", "seeds", "steps", "missing"),
    [
        (["batch_norm", "plain"], [0, 1], None, {2}),
        (["batch_norm_hidden", "plain_he", "other"], [0, 1], None, {1}),
        (["other"], [3], [1], {1, 2, 3, 7}),
    ],
)
def test_what_was_not_run_is_left_out(
    folder: Path, variants: list[str], seeds: list[int], steps: list[int] | None, missing: set[int]
) -> None:
    make_report(variants, seeds, steps)
    drawn = {path.stem for path in Path("report/figures").iterdir()}
    assert drawn == {"hidden", *(f"claim_{number}" for number in set(range(1, 10)) - missing)}
    page, readme = (Path(name).read_text() for name in PAGES)
    assert page.count("No figure:") == readme.count("No figure:") == len(missing)
    links = re.findall(r"\]\((.*?)\)", readme)
    assert {f"figures/{name}.svg" for name in drawn} <= set(links)
    assert all(Path("report", link).is_file() for link in links)


def test_losses_that_are_not_finite_and_decays_below_one(folder: Path) -> None:
    make_inputs(["batch_norm", "plain"], [0, 1])
    curves = pd.read_csv("plots/curves.csv")
    curves.loc[curves["variant"] == "batch_norm", ["train_loss", "hidden_50"]] = np.nan
    curves.to_csv("plots/curves.csv", index=False)
    warmup = pd.read_csv("plots/warmup.csv")
    warmup[warmup["decay"] != 1].to_csv("plots/warmup.csv", index=False)
    report.main()
    assert not Path("report/figures/claim_6.svg").exists()


def test_the_page_says_with_what_the_runs_were_made(whole: Path) -> None:
    assert "<dd>20 runs with PyTorch 2.0 on A; everything else" in (whole / PAGES[0]).read_text()
    made = {"stage": "train", "torch": "2.0", "processor": "A", "gpu": None, "runs": ["plain-0", "plain-1"]}
    others = [made | {"gpu": "B", "runs": ["plain-2"]}, {"stage": "summarize", "python": "3.11"}]
    assert report.made_with([made, *others]) == "2 runs with PyTorch 2.0 on A; 1 runs with PyTorch 2.0 on B"


@pytest.mark.parametrize(
    "name",
    [
        *("metrics/claims.json", "metrics/summary/plain.json", "metrics/environment.json"),
        *("plots/sweep.csv", "plots/warmup.csv"),
    ],
)
def test_an_input_that_is_missing_is_named(whole: Path, folder: Path, name: str) -> None:
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    Path(name).unlink()
    with pytest.raises(BadInput, match=re.escape(name)):
        report.main()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("claims", '"rule":', '"rules":'),
        ("summary/plain", '"runs":', '"run":'),
        ("environment", '"runs":', '"run":'),
        ("environment", "[\n", "{\n"),
    ],
)
def test_an_input_of_another_study_is_refused_before_anything_is_written(
    whole: Path, folder: Path, name: str, old: str, new: str
) -> None:
    for inputs in ("metrics", "plots"):
        shutil.copytree(whole / inputs, inputs)
    shutil.copy(ROOT / "params.yaml", ".")
    path = Path("metrics", f"{name}.json")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(BadInput, match=rf"{path}: "):
        report.main()
    assert not Path("report").exists()


def table(whole: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(whole / f"plots/{name}.csv")


def results(**tables: pd.DataFrame) -> Results:
    """What a figure is drawn from: the tables that it takes, and the rules of params.yaml."""
    given = {name: tables.get(name, pd.DataFrame()) for name in ("curves", "warmup", "sweep")}
    return Results(**given, targets=[0.5, 0.9, 0.9995], averaged="a", settings=PARAMS.sweep, rules=PARAMS.summarize)


def dots(axes: Axes, color: str, marker: str = "o") -> list[tuple[float, float]]:
    """The points drawn in this color with this marker, sorted."""
    lines = [line for line in axes.lines if line.get_marker() == marker and line.get_color() == color]
    return sorted(point for line in lines for point in zip(*np.atleast_2d(line.get_data()), strict=True))


def test_dots_of_claim_1_are_the_first_steps_at_a_target(whole: Path) -> None:
    curves = table(whole, "curves")
    looks = {name: look | {"marker": "o"} for name, look in style.looks(FOUR).items()}
    axes = training.draw_speed("original", results(curves=curves), looks).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["50%", "90%"]  # none reached 99.95%
    for variant in ("batch_norm", "plain"):
        first, never = [], 0
        for _, rows in curves[curves["variant"] == variant].groupby("seed"):
            for target in (0.5, 0.9):
                steps = [
                    step
                    for step, value in zip(rows["step"], rows["validation_accuracy"], strict=True)
                    if value >= target
                ]
                first += steps[:1]
                never += not steps
        color = looks[variant]["color"]
        assert sorted(x for x, _ in dots(axes, color)) == sorted(first)
        assert [x for x, _ in dots(axes, color, ">")] == [250] * never


def test_dots_of_claim_5_are_deviations_of_late_changes() -> None:
    decays = [0.0, 0.95, 0.999, 1.0]
    values_SDT = np.random.default_rng(0).uniform(0.9, 1, (2, len(decays), 7))
    rows = [
        (seed, 10 * step, "moving", decays[place], accuracy)
        for (seed, place, step), accuracy in np.ndenumerate(values_SDT)
    ]
    warmup = pd.DataFrame(rows, columns=["seed", "step", "statistics", "decay", "test_accuracy"])
    axes = averages.draw_stability(results(warmup=warmup), {}).axes[0]
    late_SDT = np.diff(values_SDT[:, :3, 3:])  # after 30 of 60 updates; a decay of 1 never warms up
    expected = sorted((place, late.std(ddof=1)) for seed in late_SDT for place, late in enumerate(seed))
    assert dots(axes, style.COLORS[0]) == [pytest.approx(point) for point in expected]


def test_dots_of_claims_8_and_9_are_the_runs_of_the_sweep(whole: Path) -> None:
    sweep = table(whole, "sweep")
    looks = {name: look | {"marker": "o"} for name, look in style.looks(["b", "a"]).items()}
    for kind, x, split in [("rate", "learning_rate", "validation"), ("batch", "batch_size", "test")]:
        rows = sweep[sweep["kind"] == kind]
        axes = sweeps.draw(kind, results(sweep=sweep), looks).axes[0]
        for variant, marker in product("ab", "ox"):
            runs = rows[(rows["variant"] == variant) & (rows["diverged"] == (marker == "x"))]
            expected = sorted(zip(runs[x], (1 - runs[f"{split}_accuracy"]).clip(lower=0.0005), strict=True))
            assert dots(axes, looks[variant]["color"], marker) == [pytest.approx(point) for point in expected]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_of_the_page_are_easy_to_tell_from_what_is_behind_them(scheme: str) -> None:
    """A contrast of 4.5 or more (WCAG 2.1, 1.4.3)."""
    style = (ROOT / "src/bnstudy/analysis/index.html.j2").read_text().split(":root {")[1 if scheme == "light" else 2]
    colors = dict(re.findall(r"--(\w+): (#\w{6})", style.split("}")[0]))

    def luminance(color: str) -> float:
        channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    for text, behind in product(("ink", "grey", "supported", "refuted", "open"), ("page", "card")):
        dark, bright = sorted((luminance(colors[text]), luminance(colors[behind])))
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, (text, behind)


def test_dvc_keeps_the_report_and_stays_quiet_about_it(whole: Path, tmp_path: Path) -> None:
    """The stage alone, through the real DVC: the same bytes again, and figures of runs that are gone do not stay."""
    study = clone(tmp_path / "study")
    stages = yaml.safe_load((study / "dvc.yaml").read_text())["stages"]
    (study / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"report": stages["report"]}}))
    for name in ("metrics", "plots"):
        shutil.copytree(whole / name, study / name)
    run(study, "dvc", "repro")
    run(study, "git", "add", "--all")
    run(study, "git", "commit", "--quiet", "--message", "results")
    before = {path: path.read_bytes() for path in (study / "report").rglob("*.*")}
    for command in (["metrics", "show"], ["plots", "show"], ["metrics", "diff"]):
        done = run(study, "dvc", *command)
        assert "fail" not in (done.stdout + done.stderr).lower(), command
        assert "error" not in (done.stdout + done.stderr).lower(), command
    curves = pd.read_csv(study / "plots/curves.csv")
    curves[curves["variant"].isin(FOUR[:2])].to_csv(study / "plots/curves.csv", index=False)
    run(study, "dvc", "repro")
    assert not (study / "report/figures/claim_2.svg").exists()
    shutil.copy(whole / "plots/curves.csv", study / "plots/curves.csv")
    run(study, "dvc", "repro")
    assert {path: path.read_bytes() for path in (study / "report").rglob("*.*")} == before
