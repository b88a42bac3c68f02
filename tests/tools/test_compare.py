"""The comparison of two commits' results, on repositories of git and DVC with results made up here."""

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, run


def claims(verdict: str, interval: str, *names: str) -> list[dict[str, Any]]:
    parts = [{"part": name, "estimate": "0.5×", "interval": interval, "verdict": verdict} for name in names]
    return [{"id": 1, "claim": "It is faster.", "verdict": verdict, "parts": parts}]


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first commit without results, a second with them, tagged `results`, and a changed working tree."""
    folder = tmp_path_factory.mktemp("repository")
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "config", "core.analytics", "false")
    run(folder, "git", "commit", "--quiet", "--message", "start")
    run(folder, "git", "tag", "start")
    write(folder, "params.yaml", "train:\n  steps: 10\n")
    write(folder, "dvc.yaml", "metrics: [metrics/summary/plain.json]\nparams: [params.yaml]\n")
    write(folder, "metrics/summary/plain.json", '{"accuracy": 0.5}')
    write(folder, "metrics/claims.json", json.dumps(claims("holds", "up to 0.9×", "to 98%", "to 99%")))
    for name in ("same", "other", "old"):
        write(folder, f"report/figures/{name}.svg", "<svg/>")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "results")
    run(folder, "git", "tag", "results")
    write(folder, "params.yaml", "train:\n  steps: 20\n")
    write(folder, "metrics/summary/plain.json", '{"accuracy": 0.75}')
    write(folder, "metrics/claims.json", json.dumps(claims("not shown", "0.25× to 0.9×", "to 98%", "to 95% | or")))
    write(folder, "report/figures/other.svg", "<svg></svg>")
    write(folder, "report/figures/new.svg", "<svg/>")
    (folder / "report/figures/old.svg").unlink()
    run(folder, "git", "add", "--all")
    return folder


def compare(folder: Path, *arguments: str, check: bool = True) -> str:
    done = run(folder, "python", str(ROOT / "tools/compare.py"), *arguments, check=check)
    return done.stdout + done.stderr


def sections(page: str) -> dict[str, list[str]]:
    """The lines of each section, without heads of tables."""
    found = {}
    for part in page.split("### ")[1:]:
        title, *lines = [line for line in part.splitlines() if line]
        found[title] = lines[2:] if lines[0].startswith("|") else lines
    return found


def test_what_changed(repository: Path) -> None:
    found = sections(compare(repository, "results"))
    assert found["Verdicts that flipped"] == ["| 1. It is faster. | holds | not shown |"]
    assert found["Parts whose verdict flipped"] == [
        "| 1: to 98% | holds | not shown |",
        "| 1: to 99% | holds | – |",
        "| 1: to 95% / or | – | not shown |",
    ]
    assert found["Intervals that moved"] == ["| 1: to 98% | 0.5× (up to 0.9×) | 0.5× (0.25× to 0.9×) |"]
    assert found["Figures"] == [
        "| report/figures/new.svg | new |",
        "| report/figures/old.svg | gone |",
        "| report/figures/other.svg | changed |",
    ]
    (steps,) = found["Parameters"]
    assert [cell.strip() for cell in steps.split("|")[2:5]] == ["train.steps", "10", "20"]
    (accuracy,) = found["Metrics"]
    assert "0.75" in accuracy


def test_nothing_changed(repository: Path, tmp_path: Path) -> None:
    run(tmp_path, "git", "clone", "--quiet", str(repository), "clone")
    found = sections(compare(tmp_path / "clone", "results"))
    assert len(found) == 6
    assert set(map(tuple, found.values())) == {("none",)}


def test_against_a_commit_without_results(repository: Path) -> None:
    found = sections(compare(repository, "start"))
    assert found["Verdicts that flipped"] == ["| 1. It is faster. | – | not shown |"]
    assert found["Intervals that moved"] == ["none"]


@pytest.mark.parametrize("arguments", [["no-such-commit"], ["--upload-pack=x"], []])
def test_what_is_no_commit(repository: Path, arguments: list[str]) -> None:
    assert compare(repository, *arguments, check=False).startswith("error: ")
