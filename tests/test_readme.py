"""What the README says: findings that the build wrote, commands that are there, no more than a first reader takes."""

import re
import shutil
from itertools import takewhile
from pathlib import Path

import networkx as nx
import pytest
from dvc.repo import Repo
from markdown_it import MarkdownIt

import tour
from conftest import ROOT, clone, run

TEXT = (ROOT / "README.md").read_text()


def test_it_is_read_in_minutes() -> None:
    assert len(TEXT.split()) <= 1200


def test_its_verdicts_are_one_table() -> None:
    """As Markdown is read: without a bar before it, `1.` begins a list."""
    rows = MarkdownIt().enable("table").render(TEXT).partition("<th>claim</th>")[2].partition("</table>")[0]
    assert re.findall(r"<td>(\d)\.", rows) == [*"123456789"]


def test_its_targets_and_files_are_there() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", TEXT, re.MULTILINE)) <= {*targets, "help"}
    cited = (ROOT / "CITATION.cff").read_text()
    for link in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert f"url: {link}\n" in cited if link.startswith("https:") else (ROOT / link).exists(), link


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # in DVC
def test_its_graph_is_that_of_the_stages() -> None:
    """Each kind of stage once, and a way from one to another where a stage of that kind depends on one of this."""
    drawn, made = nx.DiGraph(), nx.DiGraph()
    for line in TEXT.partition("flowchart LR\n")[2].partition("```")[0].split():
        nx.add_path(drawn, line.split("-->"))
    with Repo(ROOT) as repo:
        edges = repo.index.graph.edges
        made.add_edges_from([b.addressing.partition("@")[0], a.addressing.partition("@")[0]] for a, b in edges)
    assert set(nx.transitive_closure_dag(drawn).edges) == set(nx.transitive_closure_dag(made).edges)


def test_what_goes_wrong_is_found_under_troubleshooting(tmp_path: Path) -> None:
    """Without git, and below the top: the messages as DVC and make print them."""
    study = clone(tmp_path / "study")
    shutil.copy(ROOT / "Makefile", study)
    said = [run(study / "src", *words, check=False).stderr for words in (["dvc", "repro"], ["make", "plan"])]
    shutil.rmtree(study / ".git")
    said += [run(study, *words, check=False).stderr for words in (["dvc", "repro"], ["git", "clone", ".", ".demo"])]
    text = (ROOT / "docs/troubleshooting.md").read_text()
    for words in said:
        assert [message for message in re.findall("`(.+?)`", text) if message in words], words


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
