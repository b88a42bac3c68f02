"""What the README says: findings that the build wrote, commands that are there, no more than a first reader takes."""

import re

from conftest import ROOT

TEXT = (ROOT / "README.md").read_text()


def test_it_is_read_in_minutes() -> None:
    assert len(TEXT.split()) <= 1200


def test_its_headline_is_that_of_the_report() -> None:
    """Or says that there is none yet."""
    quoted = re.search(r"<!-- headline -->\n(.+?)<!-- /headline -->", TEXT, re.DOTALL)
    assert quoted
    report = ROOT / "report/README.md"
    if report.exists():
        assert quoted[1].strip() in report.read_text()
    else:
        assert "have not been made yet" in quoted[1]


def test_its_targets_and_files_are_there() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", TEXT, re.MULTILINE)) <= {*targets, "help"}
    for link in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (ROOT / link).exists(), link
