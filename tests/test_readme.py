"""What the README says: findings that the build wrote, commands that are there, no more than a first reader takes."""

import re
from itertools import takewhile

import readme
import tour
from conftest import ROOT

TEXT = (ROOT / "README.md").read_text()


def test_it_is_read_in_minutes() -> None:
    assert len(TEXT.split()) <= 1200


def test_its_headline_is_that_of_the_report() -> None:
    """Or says that there is none yet."""
    report = ROOT / "report/README.md"
    if report.exists():
        assert readme.written(TEXT, report.read_text()) == TEXT
    else:
        assert "have not been made yet" in TEXT


def test_its_targets_and_files_are_there() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", TEXT, re.MULTILINE)) <= {*targets, "help"}
    for link in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (ROOT / link).exists(), link


def test_each_command_of_dvc_is_run_by_a_test() -> None:
    """By one that names it, or by that of the tour, which runs every command there."""
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    toured = [command for command, _ in tour.outputs(tour.TEXT)]
    lines = [line for block in re.findall(r"^```\n(.*?)^```", TEXT, re.M | re.S) for line in block.splitlines()]
    commands = [list(takewhile(str.isalpha, line.split())) for line in lines if line.startswith("dvc ")]
    assert len(commands) >= 7
    for words in commands:
        named = ", ".join(f'"{word}"' for word in words)
        assert named in tests or any(command.startswith(" ".join(words)) for command in toured), words
