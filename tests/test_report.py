"""`report` on made-up results: its words, its numbers, its pictures, and that it needs nothing but itself."""

import base64
import csv
import math
import re
import shutil
import sys
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import plot
import report
from bnstudy import BadInput
from bnstudy.analysis.claim import MARKS
from bnstudy.params import Registered, load
from conftest import ROOT, browse, chromium, run, write_params
from tables import CHOICES, ENVIRONMENT, FINDINGS, write_json, write_plots, write_results

PAGES = ["report/index.html", "report/README.md"]
FIGURES = ["dip", "ladder", "rates"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole report; not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_plots()
        write_results()
        plot.main()
        report.main()
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to change at will, and the working folder."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Page(HTMLParser):
    """The tags of a page with their attributes, the tags left open, and the text inside of each tag with an id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[tuple[str, str | None]] = []
        self.texts: dict[str, str] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag not in {"meta", "img", "br", "wbr"}:
            self.open.append((tag, attributes.get("id")))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, id in self.open:
            if id:
                self.texts[id] = self.texts.get(id, "") + data


def text_of(folder: Path, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")


def test_it_lists_who_made_a_run_again(copy: Path) -> None:
    report.main()
    assert "No run, so far." in Path("report/index.html").read_text()
    run(copy, "cp", "-r", str(ROOT / "reproductions"), ".")
    report.main()
    page = Page(Path("report/index.html").read_text())
    told = "again on AMD Zen 4, AVX512: batch_norm_hidden-4 of the first version the same bytes."
    assert told in unescape(re.sub("<.*?>", "", Path("report/index.html").read_text()))
    assert not page.open


COLORS = """(() => {
  const lightness = color => color.match(/[0-9.]+/g).slice(0, 3)
    .map(part => part / 255).map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const page = lightness(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll("p, td, th, dd, summary, small, figcaption, h2, span")].map(element => {
    let ground = element;
    while (ground && getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
    const both = [getComputedStyle(ground || document.body).backgroundColor, getComputedStyle(element).color];
    const [dark, light] = both.map(lightness).sort((a, b) => a - b);
    return [page, (light + 0.05) / (dark + 0.05), element.outerHTML.slice(0, 80)];
  });
})()"""


@pytest.mark.parametrize(("scheme", "light"), [("0", False), ("1", True)], ids=["dark", "light"])
def test_all_text_is_read_in_the_dark_and_in_the_light(copy: Path, scheme: str, light: bool) -> None:
    """A contrast of 4.5 at least, as WCAG 2.2 asks for at level AA."""
    found, _ = browse(copy / PAGES[0], COLORS, f"--blink-settings=preferredColorScheme={scheme}")
    assert len(found) > 40
    assert {page > 0.5 for page, *_ in found} == {light}
    assert [(contrast, element) for _, contrast, element in found if contrast < 4.5] == []


def test_a_browser_shows_the_page_on_a_phone(copy: Path) -> None:
    (width, needed, images), console = browse(
        copy / PAGES[0],
        "[innerWidth, document.documentElement.scrollWidth, [...document.images].map(image => image.naturalWidth)]",
    )
    assert needed <= width == 360
    assert len(images) == len(FIGURES)
    assert all(images)
    assert console == []


@pytest.mark.parametrize("study", ["made up", "ours"])
def test_it_prints_on_two_to_four_pages(copy: Path, study: str) -> None:
    if study == "ours":
        shutil.copy(ROOT / PAGES[0], copy / PAGES[0])
    chromium(copy / PAGES[0], "--no-pdf-header-footer", "--print-to-pdf=printed.pdf")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b(?!s)", (copy / "report/printed.pdf").read_bytes())) <= 4


def test_the_page_is_whole_and_needs_nothing_but_itself(whole: Path) -> None:
    text = text_of(whole, PAGES[0])
    page = Page(text)
    assert page.open == []
    assert text.startswith("<!DOCTYPE html>")
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"}
    assert not re.search(r"url\(|@import|https?://", text)
    assert {"lang": "en"} in [attributes for tag, attributes in page.tags if tag == "html"]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert ids == [*FIGURES, *(f"claim_{number}" for number in range(1, 10))]
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    for name, image in zip(FIGURES, images, strict=True):
        svg = (whole / f"report/figures/{name}.svg").read_bytes()
        kind, data = str(image["src"]).split(",")
        assert kind == "data:image/svg+xml;base64"
        assert base64.b64decode(data) == svg
        assert f"<title>{image['alt']}</title>" in svg.decode()
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))


def test_folded_details_are_open_in_print(whole: Path) -> None:
    rules = text_of(whole, PAGES[0]).partition("@media print")[2].partition("</style>")[0]
    assert "details::details-content { content-visibility: visible; block-size: auto; }" in rules


def test_each_claim_stands_with_its_numbers_and_verdict(whole: Path) -> None:
    texts, readme = Page(text_of(whole, PAGES[0])).texts, text_of(whole, PAGES[1])
    rows = [line for line in readme.splitlines() if re.match(r"\| \d\. ", line)]
    for finding, row in zip(FINDINGS, rows, strict=True):
        card = " ".join(texts[f"claim_{finding['id']}"].split())
        assert f"{finding['id']}. {finding['claim']}" in card
        for text in (
            f"{finding['sentence']} {finding['why']}",
            finding["endpoint"],
            finding["rule"],
            *finding["described"],
        ):
            assert text in card
        for text in (finding["claim"], f"{MARKS[finding['verdict']]} {finding['verdict']}"):
            assert text in card
            assert text in row
        for part in finding["parts"]:
            for text in (part["part"], part["estimate"], part["interval"]):
                assert text in card
                assert text in row
            assert f"{part['agree']}/{part['runs']}" in card
        if finding["adjusted_p"] is not None:
            assert f"{finding['adjusted_p']:.2g}" in card
            assert f"| {finding['adjusted_p']:.2g} |" in row
        for text in (finding["sentence"], *finding["described"]):
            assert text in readme


def test_the_readme_links_to_its_pictures(whole: Path) -> None:
    links = re.findall(r"!\[[^]]+\]\((.*?)\)", text_of(whole, PAGES[1]))
    assert links == [f"figures/{name}.svg" for name in FIGURES]
    assert all((whole / "report" / link).is_file() for link in links)


def test_choices_say_where_the_best_may_lie_beyond(whole: Path) -> None:
    text = text_of(whole, PAGES[0]).replace("<wbr>", "")
    for name, choice in CHOICES["networks"].items():
        assert f"<code>{name}</code></td><td>{choice['rate']:g}</td><td>93.60%" in text
    assert text.count("93.60% (the highest of those tried: the best may lie beyond)") == 1
    assert text.count("105 (the lowest of those tried: the best may lie beyond)") == 1
    assert "never (as params.yaml says)" in text
    assert "<code>plain_he</code> without batch norm against <code>batch_norm_hidden_he</code> with it" in text


# What the first version got wrong: recomputed without pandas' grouping


def rows(name: str) -> list[dict[str, Any]]:
    with (ROOT / f"data/first_version/{name}.csv").open() as file:
        return [
            {
                key: text if key in ("variant", "kind", "statistics") else float(text or "nan")
                for key, text in row.items()
            }
            for row in csv.DictReader(file)
        ]


def test_the_first_versions_figures_are_those_of_its_tables(copy: Path) -> None:
    found = report.first_version()
    sweep = {
        (row["variant"], row["learning_rate"], row["seed"]): row["validation_accuracy"]
        for row in rows("sweep")
        if row["kind"] == "rate"
    }
    seeds = range(5)
    variants = ["plain", "plain_he", "plain", "plain_he", "batch_norm_hidden", "batch_norm_hidden"]
    for (_, rate, accuracy), variant in zip(found["ladder"], variants, strict=True):
        assert accuracy == pytest.approx(sum(sweep[variant, rate, seed] for seed in seeds) / 5)
    assert found["he_worse"] == sum(sweep["plain_he", 0.1, seed] < sweep["plain", 0.1, seed] for seed in seeds) == 4
    last = {
        (row["decay"], row["seed"]): row["test_accuracy"]
        for row in rows("warmup")
        if row["statistics"] == "moving" and row["step"] == 2000
    }
    assert found["slow_worse"] == sum(last[0.999, seed] < last[1.0, seed] for seed in seeds) == 5
    assert found["slow"] == pytest.approx(np.mean([last[0.999, seed] for seed in seeds]))
    for decay, dip in found["dips"].items():
        assert dip["weight"] == pytest.approx(math.exp(dip["step"] * math.log(decay)))
        assert 0.1 < dip["weight"] < 0.4
        assert dip["accuracy"] < 0.5
    assert found["no_width"]["low"] == found["no_width"]["high"] == found["no_width"]["estimate"]
    assert found["warm"] == {"by": 100, "after": 68}
    assert found["least_p"] == 2 / 2**5


def test_the_page_tells_them(whole: Path) -> None:
    text = " ".join(unescape(text_of(whole, PAGES[0])).split())
    for figure in (
        "plain at 0.1 64.1%, He's initial weights at 0.1 59.2%, plain at 0.01 93.4%",
        "did worse in 4 of 5 seeds",
        "0.338 (0.338 to 0.338)",
        "no sign-flip p can be below 0.0625",
        "147 updates with decay 0.99",
        f"1 + 9 e<sup>−10/3</sup>) = {math.log(1 + 9 * math.exp(-10 / 3)):.4f}",
    ):
        assert figure in text


def test_changes_of_the_rules_are_rendered(copy: Path) -> None:
    text = text_of(copy, PAGES[0])
    assert "<strong>Changed since then" in text
    assert "second protocol" in text
    assert "second protocol" in text_of(copy, PAGES[1])


# Any study


def test_what_was_not_run_is_left_out(copy: Path) -> None:
    shutil.rmtree("report/figures")
    Path("report/figures").mkdir()
    write_json("metrics/claims.json", [finding | {"parts": [], "verdict": "not measured"} for finding in FINDINGS])
    write_json("settings/choices.json", CHOICES | {"finalists": {}, "contest": {}})
    report.main()
    page, readme = (text_of(copy, name) for name in PAGES)
    assert "This study leaves out the runs that they would show." in page
    assert "<img" not in page
    assert "![" not in readme
    assert "The contest:" not in page


def test_the_arms_that_were_run_stand_with_their_summaries(copy: Path) -> None:
    assert "The arms</h2>" not in text_of(copy, PAGES[0])
    summary = {"accuracy_after_100": 0.641, "test_accuracy": None, "updates_to_98": "3 of 10"}
    write_json("metrics/summary/note_plain.json", summary)
    write_json("metrics/summary/removed.json", summary)
    report.main()
    page = text_of(copy, PAGES[0]).replace("<wbr>", "")
    updates = f"2,000 (10,000 for {len(load().long.arm_seeds)} of the seeds)"
    assert f"<code>note_plain</code></td><td>{updates}</td><td>64.10%</td><td>–</td><td>3 of 10</td>" in page
    assert "removed" not in page


def test_batch_sizes_are_compared_over_pairs_of_a_seed(copy: Path) -> None:
    page = text_of(copy, PAGES[0])
    # Accuracies rise by 0.001 from seed to seed of six, by 0.01 from size to size; all pairs differ by 0.01.
    lowest, difference = " (the lowest tried)", "+1.00 points (96% interval +1.00 to +1.00)"
    for size, without, with_it, edge in (
        ("64", "94.25", "95.25", lowest),
        ("256", "95.25", "96.25", ""),
        ("1,024", "96.25", "97.25", ""),
    ):
        cells = [f"{accuracy}% at the rate 0.1{edge}" for accuracy in (without, with_it)]
        assert f"<td>{size}</td><td>{cells[0]}</td><td>{cells[1]}</td><td>{difference}</td>" in page
    table = (copy / "plots/batch.csv").read_text().splitlines(keepends=True)
    (copy / "plots/batch.csv").write_text("".join(line for line in table if not line.startswith("without")))
    report.main()
    assert "<td>64</td><td></td><td>95.25% at the rate 0.1 (the lowest tried)</td><td></td>" in text_of(copy, PAGES[0])


def test_verdicts_over_fewer_runs_than_were_registered_are_called_preliminary() -> None:
    params = load(ROOT / "params.yaml")
    seeds = params.study.model_copy(update={"seeds": [10, 11, 12]})
    long = params.long.model_copy(update={"arm_seeds": [10], "averages_seeds": [10, 11]})

    def said(**registered: int) -> str:
        of = Registered(**{"seeds": 3, "long_arm_seeds": 1, "long_averages_seeds": 2} | registered)
        return report.preliminary(params.model_copy(update={"study": seeds, "long": long, "registered": of}))

    assert said() == ""
    assert said(seeds=4, long_arm_seeds=2) == " All verdicts are preliminary: 3 of 4 registered seeds."
    few = " Claims 1, 5, 6 and 7 are preliminary: 2 of 3 registered runs of note_batch_norm to 10,000 updates"
    more = ", 1 of 2 registered runs of note_plain to 10,000 updates."
    assert said(long_averages_seeds=3) == few + "."
    assert said(long_averages_seeds=3, long_arm_seeds=2) == few + more


def test_the_caption_says_what_the_mechanisms_line_is_of(copy: Path) -> None:
    seeds = load(ROOT / "params.yaml").mechanism.seeds
    table = pd.read_csv("plots/mechanism.csv")
    table.loc[table["start_weight"] == 1, "difference"] = -0.9  # lower than in the dip, as of some networks
    table.to_csv("plots/mechanism.csv", index=False)
    report.main()
    said = rf"at all: {len(seeds)} finished networks?, of [\d, or]+ updates, .* lowest 67 points down, where 2\d% is"
    for page in PAGES:
        assert re.search(said, text_of(copy, page)), page
    table[:0].to_csv("plots/mechanism.csv", index=False)
    report.main()
    assert "no training at all: left out here." in text_of(copy, PAGES[0])


def test_other_rules_than_the_registered_ones_are_named(whole: Path, copy: Path) -> None:
    write_params(copy, rules={"he_gain": 0.2, "slow_decay": 0.998})
    report.main()
    for page in PAGES:
        assert "fixed before the runs" in text_of(whole, page)
        assert "are not those that were fixed" not in text_of(whole, page)
        _, said, told = text_of(copy, page).partition("hese rules are not those that were fixed before the runs")
        assert said
        assert "he_gain 0.2 in place of 0.05; slow_decay 0.998 in place of 0.999." in told


def test_the_page_says_with_what_the_runs_were_made(whole: Path) -> None:
    assert "<dd>10 runs with PyTorch 2.8.0 on A." in text_of(whole, PAGES[0])
    made = [ENVIRONMENT | {"runs": ["a", "b"]}, ENVIRONMENT | {"runs": ["c"], "gpu": "B"}, {"python": "3.11"}]
    assert report.made_with(made) == ["2 runs with PyTorch 2.8.0 on A", "1 run with PyTorch 2.8.0 on B"]


def test_seeds_whose_runs_were_made_in_more_than_one_environment_are_named() -> None:
    here = {"runs": ["sweep/plain", "train/he/10", "averages/10", "batch/with/64", "mechanism/11"]}
    there = {"runs": ["train/he/11", "averages/11", "tolerance/with/10", "batch/with/1024", "mechanism/10"]}
    assert report.mixed_seeds([here, there, {"python": "3.11"}]) == [10]
    assert report.mixed_seeds([here, {"python": "3.11"}]) == []


def test_the_same_bytes_whatever_the_settings_of_the_machine(whole: Path, copy: Path) -> None:
    for name in PAGES:
        Path(name).unlink()
    run(copy, sys.executable, str(ROOT / "src/report.py"), PYTHONHASHSEED="7", TZ="Asia/Tokyo")
    for name in PAGES:
        assert text_of(copy, name) == text_of(whole, name)


@pytest.mark.parametrize(
    "name",
    [
        "metrics/claims.json",
        "metrics/environment.json",
        "settings/choices.json",
        "data/first_version/warmup.csv",
        "plots/batch.csv",
    ],
)
def test_an_input_that_is_missing_or_damaged_is_named_before_anything_is_written(copy: Path, name: str) -> None:
    shutil.rmtree("report")
    for content in (None, "[{}"):
        Path(name).unlink() if content is None else Path(name).write_text(content)
        if name.endswith("json") or content is None:
            with pytest.raises(BadInput, match=re.escape(name)):
                report.main()
    assert not Path("report").exists()
