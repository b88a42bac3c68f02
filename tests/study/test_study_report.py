"""`study_report` on made-up results: its answers, its words and numbers, and that the page needs nothing but itself."""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import made_tables
import study_plot
import study_report
from bnstudy import BadInput
from bnstudy.study import earlier
from bnstudy.study.claim import MARKS, Finding
from bnstudy.study.params import load
from made_tables import ROOT, findings

NAMES = ("README.md", "index.html")
Change = Callable[[Finding], dict[str, Any]]


def changed(change: Change) -> list[Finding]:
    return [one.model_copy(update=change(one)) for one in findings()]


def with_runs(finding: Finding, runs: int, verdict: str) -> dict[str, Any]:
    return {"parts": tuple(part.model_copy(update={"runs": runs}) for part in finding.parts), "verdict": verdict}


def report(found: Sequence[Finding] | None = None) -> tuple[str, str]:
    """Both files, of these findings."""
    made_tables.write_metrics(Path(), found or findings())
    study_report.main()
    text, page = (Path("study/report", name).read_text(encoding="utf-8") for name in NAMES)
    return text, page


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made_tables.write(tmp_path)
    return tmp_path


class Page(HTMLParser):
    """Its text, its images, and the tags that are never closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.images, self.open = "", list[dict[str, str | None]](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_it_opens_with_the_answers_and_then_the_pictures(folder: Path) -> None:
    study_plot.main()
    text, page = report()
    by_name = {one.name: one for one in findings()}
    opening = text.partition("\n## ")[0]
    assert "**Is it faster? Yes, in updates.**" in opening
    assert "**And without the update ops? Evaluation is much worse" in opening
    for name in ("tuned", "share", "tolerance", "thousand", "dip", "cause", "correction", "update_ops"):
        assert by_name[name].sentence.replace("(96% interval ", "(") in opening
    assert "not seconds" in opening
    assert re.findall(r"\]\((figures/.*?)\)", text) == [f"figures/{name}.svg" for name in study_report.TITLES]
    assert text.index("figures/rates.svg") < text.index("## The twelve claims")
    assert "largest at r = 0.25, where accuracy should be lowest, and zero at r = 0.72" in text
    assert "reliminary" not in text
    parsed = Page(page)
    assert parsed.open == []
    assert len(parsed.images) == 4
    assert all(str(image["src"]).startswith("data:image/svg+xml;base64,") and image["alt"] for image in parsed.images)
    assert not re.search(r"<script|<link|https?://(?!www\.w3)", page)


def test_each_claim_stands_with_its_numbers_and_verdict(folder: Path) -> None:
    text, page = report()
    for one in findings():
        assert f"### {one.id}. {one.claim} {MARKS[one.verdict]} {one.verdict}" in text
        (row,) = re.findall(rf"(?m)^\| {one.id}\. .* \| {MARKS[one.verdict]} .* \|$", text)
        assert one.expected in row
        assert one.estimate in row
        for told in (one.sentence, one.endpoint, one.because, *one.described):
            assert told in text
        for part in one.parts[1:]:
            assert f"| {part.part} | {MARKS[part.verdict]} {part.verdict} | {part.estimate} | {part.interval}" in text
            assert part.rule in text
    assert page.count('<span class="verdict holds">✓ holds</span>') >= 12 * 2
    assert 'data-label="verdict"' in page


def test_refuted_and_not_shown_are_told_apart(folder: Path) -> None:
    verdicts = {"tuned": "refuted", "dip": "not shown", "thousand": "refuted", "update_ops": "not measured"}

    def change(one: Finding) -> dict[str, Any]:
        verdict = verdicts.get(one.name, one.verdict)
        parts = () if verdict == "not measured" else one.parts
        return {"verdict": verdict, "parts": parts, "why": "Here is why."}

    text, page = report(changed(change))
    opening = text.partition("\n## ")[0]
    assert "Is it faster? Not twice as fast, once both are tuned." in opening
    assert "What do the averages cost, and why? The runs do not decide." in opening
    assert "And without the update ops? Not measured yet." in opening
    assert "(Claim 6: refuted.)" in opening
    assert "(Claim 8: not shown.)" in opening
    assert text.count("Here is why.") == 4
    for word in (
        "**Refuted**: everything that they leave possible contradicts",
        "**Not shown**: some of what they leave",
    ):
        assert word in text
    assert '<span class="verdict not-shown">? not shown</span>' in page


@pytest.mark.parametrize(("seeds", "verdict"), [(1, "not shown"), (7, "holds")])
def test_fewer_seeds_than_registered_are_preliminary(folder: Path, seeds: int, verdict: str) -> None:
    made_tables.write(folder, seeds=seeds)
    text, _ = report(changed(lambda one: with_runs(one, seeds, verdict)))
    assert f"**Preliminary: {seeds} of 10 registered seeds so far." in text
    assert "| verdict, preliminary |" in text
    assert ("No verdict yet: 1 seed is too few for an interval." in text) == (seeds == 1)
    assert "(Claim" not in text


def test_without_any_result_it_says_what_will_be_asked(folder: Path) -> None:
    made_tables.write(folder, empty=True)
    nothing = {"parts": (), "verdict": "not measured", "estimate": "", "interval": "", "described": (), "why": ""}
    text, page = report(changed(lambda one: {**nothing, "sentence": "Not measured: no runs."}))
    assert "Nothing is measured yet" in text
    assert text.count("– not measured |") == 12
    assert "Is it faster? Not measured yet." in text
    assert "No picture yet" in text
    assert "<img" not in page
    assert "Are the rates fair?" not in text
    assert study_report.headline(changed(lambda one: nothing)) == "Nothing is measured yet."
    assert not re.search(r"\bnan\b|None", text)


def test_the_headline_is_short_and_says_whether_it_is_preliminary() -> None:
    whole = study_report.headline(findings(), registered=10)
    assert len(re.findall(r"[.:] [A-Z]", whole)) <= 4
    assert len(whole.split()) < 130
    assert "times as fast, in updates" in whole
    assert "reliminary" not in whole
    few = changed(lambda one: with_runs(one, 3, "not shown"))
    assert study_report.headline(few).endswith("Preliminary: 3 seeds.")
    assert "Preliminary: 10 seeds." in study_report.headline(findings(), registered=12)


def test_rates_are_held_against_their_entries(folder: Path) -> None:
    params, rates = load(Path("study/params.yaml")), made_tables.tables()["rates"]
    rows = {row["arm"]: row for row in study_report.chosen(params, rates)}
    found = {"rate": "0.01", "entry": "plain", "criterion": "accuracy", "best": "yes"}
    assert rows["plain_own_rate"] == found | {"arm": "plain_own_rate"}
    assert rows["note_plain"]["best"] == "no: 0.01"
    assert rows["baseline"]["entry"] == "tuning_baseline"
    assert rows["own_rate"]["best"] == "no: 0.056, the lowest tried"
    high = rates.assign(best=(rates["learning_rate"] == 3.2).astype(int))
    assert study_report.chosen(params, high)[0]["best"] == "no: 3.2, the highest tried"


def test_cost_and_machines(folder: Path) -> None:
    made_tables.write_metrics(folder, findings(), mixed=[23])
    study_report.main()
    text = Path("study/report/README.md").read_text(encoding="utf-8")
    assert "PyTorch 2.8.0 on A (1 stage); PyTorch 2.8.0 on B (2 stages)" in text
    assert "**Seeds 23 mix machines**" in text
    params = load(Path("study/params.yaml"))
    sweep = sum(len(entry.learning_rates) * len(entry.seeds) * entry.steps for entry in params.sweep.values())
    steps = sum(arm.steps for arm in [*params.arms.values(), *params.averages.values()])
    assert study_report.cost(params)["updates"] == 10 * steps + sweep


# Earlier versions, whose figures the protocol had computed by other code


def test_the_earlier_versions_figures_are_those_of_the_protocol() -> None:
    found = earlier.mended()
    assert {target: round(100 * part) for target, part in found["shares"].items()} == {0.97: 79, 0.98: 49, 0.985: 38}
    assert found["close_from"] == 281
    assert [(step, round(lost)) for step, lost in found["warm"]] == [(58, 18), (67, 9), (77, 4), (89, 2), (100, 1)]
    assert found["he"] == (pytest.approx(9.6, abs=0.05), pytest.approx(5))
    assert found["slow"] == (pytest.approx(56.5, abs=0.05), pytest.approx(25.8))
    assert found["distances"][[0.5, 0.95, 0.999]].round(4).tolist() == [0.0101, 0.0053, 0.0145]
    assert (round(found["never"]), round(found["never_lost"])) == (64, 35)
    assert found["bottoms"].between(20, 29).all()


def test_what_they_had_said_is_in_the_report(folder: Path) -> None:
    text, _ = report()
    for told in (
        "≤ 0.0561×; rule: below 1; holds",
        "64%; rule: below 50%; refuted",
        "4.4 to 5.1; rule: between 4 and 6;",
    ):
        assert told in text
    assert "update 281 on" in text
    assert "bounds were moved from 4 and 6 to 3.75 and 5.75" in text
    assert "study/earlier/" in text


def test_the_earlier_report_and_its_pictures_are_kept_small() -> None:
    files = [path for path in (ROOT / "study/earlier").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    report = (ROOT / "study/earlier/second/report.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\((figures/.*?)\)", report):
        assert (ROOT / "study/earlier/second" / link).exists()


# Any machine


def test_the_same_bytes_whatever_the_settings_of_the_machine(folder: Path) -> None:
    study_plot.main()
    first = report()
    surroundings = {"MPLBACKEND": "no_such_backend", "PYTHONHASHSEED": "7", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    script = str(ROOT / "src/study_report.py")
    done = subprocess.run([sys.executable, script], env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert first == tuple(Path("study/report", name).read_text(encoding="utf-8") for name in NAMES)


@pytest.mark.parametrize(
    "name",
    [
        "metrics/claims.json",
        "metrics/environment.json",
        "plots/theory.csv",
        "plots/rates.csv",
        "earlier/second/dip.csv",
    ],
)
def test_an_input_that_is_missing_or_damaged_is_named(folder: Path, name: str) -> None:
    report()
    for content in (None, "[{}" if name.endswith("json") else ""):
        Path("study", name).unlink() if content is None else Path("study", name).write_text(content)
        Path("study/report/README.md").unlink(missing_ok=True)
        with pytest.raises(BadInput, match=rf"study/{name}: cannot be read"):
            study_report.main()
        assert not Path("study/report/README.md").exists()


def test_a_bar_in_a_cell_ends_no_cell(folder: Path) -> None:
    text, page = report(changed(lambda one: {"expected": "a | b"} if one.id == 1 else {}))
    assert r"a \| b" in text
    assert ">a | b</td>" in page
