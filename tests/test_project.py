"""The files at the top that others' programs read: against their published schemas, and against one another."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from bnstudy import BadInput
from bnstudy.params import load
from conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def against_schema(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_citation_fits_its_format() -> None:
    against_schema("--builtin-schema", "vendor.citation-file-format", "CITATION.cff")


def test_workflows_fit_their_format_and_may_only_read() -> None:
    workflows = sorted((ROOT / ".github/workflows").glob("*.yml"))
    assert workflows
    against_schema("--builtin-schema", "vendor.github-workflows", *map(str, workflows))
    for path in workflows:
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {"contents": "read"}
        for job in workflow["jobs"].values():
            assert "permissions" not in job
            # A name or title of a pull request in a script would be run as one.
            assert not [step["run"] for step in job["steps"] if "${{" in step.get("run", "")]


def test_what_workflow_and_container_run_is_here() -> None:
    targets = (ROOT / "Makefile").read_text().replace("$(VENV)", ".venv")
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert f"{container['postCreateCommand'].removeprefix('make ')}:" in targets
    text = (ROOT / ".github/workflows/check.yml").read_text()
    for target in re.findall(r"\bmake (\w+)", text):
        assert f"\n{target}:" in targets
    for file in re.findall(r"\b(?:tools|requirements)/[\w./-]+", text):
        assert (ROOT / file).is_file()


def test_citation_license_and_project_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    authors = [author["name"] for author in PROJECT["authors"]]
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == authors
    assert (ROOT / "LICENSE").read_text().startswith(f"{citation['license']} License\n")
    assert f"Copyright (c) 2026 {authors[0]}\n" in (ROOT / "LICENSE").read_text()
    assert set(PROJECT["urls"].values()) == {reference["url"] for reference in citation["references"]}


DOCS = [f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("page", sorted(["CONTRIBUTING.md", "benchmarks/README.md", "data/README.md", *DOCS]))
def test_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text()
    links = [part.partition(")")[0].partition("#")[0] for part in text.split("](")[1:]]
    assert links or page in ("docs/changes.md", "docs/original.md", "docs/tour.md")
    missing = [link for link in links if link and "://" not in link and not ((ROOT / page).parent / link).exists()]
    assert not missing


@pytest.mark.parametrize(
    ("source", "images"), [("mnist", 60_000), ("fashion_mnist", 60_000), ("kmnist", 60_000), ("sample", 4_000)]
)
def test_the_data_note_has_the_sizes(tmp_path: Path, source: str, images: int) -> None:
    assert f"| `{source}` | {images:,} less `data.validation_size` |" in (ROOT / "docs/data.md").read_text()
    tree = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"data": {"source": source, "validation_size": images}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(BadInput, match=f"is not below {images}"):
        load(tmp_path / "params.yaml")


def test_the_locks_agree_and_reading_needs_none_of_the_heavy_packages() -> None:
    read, study, test, launch, remotes = (
        set(re.findall(r"^[\w.-]+==[^ ]+", (ROOT / f"requirements/{name}.lock").read_text(), re.MULTILINE))
        for name in ("read", "study", "test", "launch", "remotes")
    )
    assert read < study < test
    assert study < launch < remotes
    packages = {pin.partition("==")[0] for pin in read}
    assert {"dvc", "pandas", "matplotlib"} <= packages
    assert not packages & {"torch", "triton", "numba", "torchvision", "safetensors", "mlxtend"}


def test_what_changed_since_the_rules_were_fixed_is_named() -> None:
    """Every value that a run or a verdict depends on is that of the commit that fixed it, or stands in changes.md."""
    text = (ROOT / "docs/changes.md").read_text()
    named = re.findall(r"`([0-9a-f]{40})`", text)
    assert len(named) == 1
    fixed = subprocess.run(["git", "show", f"{named[0]}:params.yaml"], cwd=ROOT, capture_output=True, text=True)
    if fixed.returncode:
        pytest.skip("a clone without the history")
    then, now = (yaml.safe_load(tree) for tree in (fixed.stdout, (ROOT / "params.yaml").read_text()))
    sections = set(then) - {"plot", "runtime"}
    assert sections == set(now) - {"plot", "runtime", "registered"}
    changed = {
        (section, key)
        for section in sections
        for key in then[section].keys() | now[section].keys()
        if then[section].get(key) != now[section].get(key)
    }
    listed = text.partition("**Changed since then")[2].partition("**Changed before")[0]
    for section, key in changed:
        assert {f"`{section}.{key}`", f"`{section}`"} & set(re.findall("`[a-z_.]+`", listed)), f"{section}.{key}"
    assert not [key for section, key in changed if section == "rules" and key in then["rules"]]
    assert json.loads((ROOT / "docs/registered_rules.json").read_text()) == then["rules"]
