"""The files at the top that others' programs read, and what the rules of CONTRIBUTING.md say of them."""

import json
import re
import sys
import tomllib

import pytest
import yaml

from conftest import ROOT, run

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOW = ROOT / ".github/workflows/check.yml"


@pytest.mark.parametrize(
    "words",
    [["vendor.citation-file-format", "CITATION.cff"], ["vendor.github-workflows", str(WORKFLOW)]],
    ids=["citation", "workflow"],
)
def test_it_fits_its_published_schema(words: list[str]) -> None:
    run(ROOT, sys.executable, "-m", "check_jsonschema", "--builtin-schema", *words)


def test_the_workflow_may_only_read_and_runs_what_is_here() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        # A name or title of a pull request in a script would be run as one.
        assert not [step["run"] for step in job["steps"] if "${{" in step.get("run", "")]
    makefile = (ROOT / "Makefile").read_text().replace("$(VENV)", ".venv")
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    for target in [*re.findall(r"\bmake ([\w-]+)", WORKFLOW.read_text()), container["postCreateCommand"].split()[1]]:
        assert f"\n{target}:" in makefile


def test_citation_license_and_project_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
    assert (ROOT / "LICENSE").read_text().startswith(f"{citation['license']} License\n")
    assert {*PROJECT["urls"].values()} == {reference["url"] for reference in citation["references"]}


def test_the_locks_agree_name_no_index_and_reading_needs_no_heavy_package() -> None:
    text = {
        name: (ROOT / f"requirements/{name}.lock").read_text()
        for name in ("read", "study", "test", "launch", "remotes")
    }
    read, study, test, launch, remotes = (
        {*re.findall(r"^[\w.-]+==[^ ]+", lock, re.MULTILINE)} for lock in text.values()
    )
    assert read < study < test
    assert study < launch < remotes
    assert not {pin.partition("==")[0] for pin in read} & {
        "torch",
        "triton",
        "numba",
        "torchvision",
        "safetensors",
        "mlxtend",
    }
    assert not [
        lock
        for lock in [*text.values(), (ROOT / "pyproject.toml").read_text()]
        if re.search("index-url|find-links", lock)
    ]


def test_what_is_tracked_is_small() -> None:
    names = run(ROOT, "git", "ls-files", "-z").stdout.split("\0")
    large = [name for name in names if (ROOT / name).is_file() and (ROOT / name).stat().st_size > 1_000_000]
    assert not large
    assert len((ROOT / "params.yaml").read_text().splitlines()) <= 70
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 80
