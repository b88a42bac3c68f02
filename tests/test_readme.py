"""What the README says: links and a graph that are right, no more than a first reader takes."""

import re
import shutil
from pathlib import Path

import networkx as nx
import pytest
from dvc.repo import Repo
from markdown_it import MarkdownIt

from conftest import ROOT, clone, run

TEXT = (ROOT / "README.md").read_text()


def test_it_is_read_in_minutes() -> None:
    assert len(TEXT.split()) <= 1200


def test_its_verdicts_are_one_table() -> None:
    """As Markdown is read: without a bar before it, `1.` begins a list."""
    rows = MarkdownIt().enable("table").render(TEXT).partition("<th>claim</th>")[2].partition("</table>")[0]
    assert re.findall(r"<td>(\d+)\.", rows) == [*"123456789"]


def test_its_links_lead_somewhere() -> None:
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
