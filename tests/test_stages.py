"""dvc.yaml beside the code: what a stage declares is what its code reads, no more and no less."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bnstudy.params import Params
from bnstudy.stage import arguments_of_stage

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src/bnstudy"
STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def imported(module: str) -> set[str]:
    """The study's modules that `module` imports itself."""
    found = set()
    for node in ast.walk(ast.parse((SOURCE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "bnstudy":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bnstudy."):
            found.add(str(node.module).removeprefix("bnstudy."))
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("bnstudy.") for alias in node.names if alias.name.startswith("bnstudy.")}
    return found


def closure(module: str) -> set[str]:
    """`module` and every module of the study that it imports, however far."""
    seen: set[str] = set()
    todo = {module}
    while todo:
        seen |= todo
        todo = {name for known in todo for name in imported(known)} - seen
    return seen


def sections(module: str) -> set[str]:
    """The sections that `main` of `module` takes out of the parameters: every `params.<section>`."""
    tree = ast.parse((SOURCE / f"{module}.py").read_text())
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params"
    }


def module_of(stage: str) -> str:
    command = re.fullmatch(r"PYTHONPATH=src python -m bnstudy\.(\w+)", STAGES[stage]["cmd"])
    assert command  # and no parameter in it, for a shell to read
    return command[1]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_the_module_of_its_name(stage: str) -> None:
    assert module_of(stage) == stage.split("_")[0]
    assert STAGES[stage]["desc"].endswith(".")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train@batch_norm-0", ["--variant=batch_norm", "--item=0"]),
        ("sweep_rates@plain-1e-05", ["--variant=plain", "--item=1e-05"]),
        ("train@x; touch y-0", ["--variant=x; touch y", "--item=0"]),
        ("summarize", None),
        (None, None),
    ],
)
def test_a_stage_takes_its_arguments_from_its_name(
    name: str | None, expected: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py"])
    monkeypatch.delenv("DVC_STAGE", raising=False)
    if name is not None:
        monkeypatch.setenv("DVC_STAGE", name)
    assert arguments_of_stage("variant", "item") == expected
    monkeypatch.setattr("sys.argv", ["train.py", "--help"])
    assert arguments_of_stage("variant", "item") is None  # a person's own come first


@pytest.mark.parametrize("stage", STAGES)
def test_every_module_that_a_stage_imports_is_a_dependency(stage: str) -> None:
    declared = {Path(dep).stem for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    assert declared == closure(module_of(stage))


@pytest.mark.parametrize("module", sorted({module_of(stage) for stage in STAGES}))
def test_stages_declare_the_sections_that_their_code_reads(module: str) -> None:
    params = [param for stage in STAGES if module_of(stage) == module for param in STAGES[stage].get("params", [])]
    assert {param.split(".")[0] for param in params} == sections(module) - {"runtime"}


def test_every_section_belongs_to_a_stage_and_runtime_to_none() -> None:
    declared = {param.split(".")[0] for stage in STAGES.values() for param in stage.get("params", [])}
    assert declared == set(Params.model_fields) - {"runtime"}


def test_no_output_switches_the_run_cache_off() -> None:
    """DVC keeps no record of a stage with a persistent output or a plain one outside its cache."""
    for stage in STAGES.values():
        assert not stage.get("always_changed")
        for out in stage.get("outs", []):
            assert isinstance(out, str) or list(out.values()) == [{"push": False}]
        for out in stage.get("metrics", []) + stage.get("plots", []):
            for flags in out.values() if isinstance(out, dict) else []:
                assert not flags.get("persist")


def test_cached_outputs_are_ignored_by_hand() -> None:
    """DVC takes its own lines out of .gitignore files when a later stage fails."""
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for stage in STAGES.values():
        for out in stage.get("outs", []):
            (path,) = [out] if isinstance(out, str) else out
            assert any(f"/{path}".startswith(line) for line in ignored if line.startswith("/")), path
