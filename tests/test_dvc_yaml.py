"""dvc.yaml beside the code: a stage depends on what can change its bytes, and on nothing that cannot.

The line runs around `src/bnstudy/engine`: trainings depend on it, on their script, their data and their parameters.
What they use beyond it is listed here, with the reason why it cannot change a bit of a run.
"""

import ast
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bnstudy.params import Params
from conftest import ROOT

SOURCE = ROOT / "src"
STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# Each with its setting, where it has one of its own.
TRAININGS = {
    "sweep": "settings/sweep/${item.network}.json",
    "refine": "settings/refine/${item.finalist}/${item.factor}.json",
    "train": "settings/train/${item.arm}/${item.seed}.json",
    "averages": "settings/averages/${item.seed}.json",
    "mechanism": "models/averages/${item.seed}.safetensors",
    "tolerance": "settings/contest/${item.contestant}.json",
    "batch": "settings/batch/${item.contestant}",
}
CANNOT_CHANGE_A_BIT = {
    "bnstudy": "ends bad input with a message",
    "bnstudy.files": "puts the bytes that it is given on the disk",
    "bnstudy.params": "hands on the values of params.yaml, which stages declare, or refuses them with a message",
    "bnstudy.progress": "shows what a run has come to, and logs it",
    "bnstudy.settings": "hands on the values of a setting, a file on which the training depends",
}
PACKAGES_OF_THE_ENGINE = {"torch", "numpy", "numba", "safetensors", "psutil"}


def imported(path: Path) -> set[str]:
    """The modules that a file imports when it runs, by full name: not those for type checkers alone."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if file_of(name) else node.module for name in names}
    return found


def file_of(module: str) -> Path | None:
    """The file of one of the study's modules; None for any other."""
    path = SOURCE / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def used(script: Path) -> set[str]:
    """The study's modules that a script imports, however far; what `CANNOT_CHANGE_A_BIT` imports is not followed."""
    seen, todo = set[str](), imported(script)
    while todo:
        study = {module for module in todo if file_of(module)}
        seen |= study
        follow = [file_of(module) for module in study - CANNOT_CHANGE_A_BIT.keys()]
        todo = {name for file in follow if file for name in imported(file)} - seen
    return seen


def script_of(stage: str) -> Path:
    command = re.fullmatch(r"python (src/\w+\.py)( \$\{item\.\w+\})*", STAGES[stage]["cmd"])
    assert command
    return ROOT / command[1]


def declared(stage: str) -> set[str]:
    return {dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")}


def tree_of(*modules: str) -> ast.Module:
    return ast.parse("\n".join((SOURCE / f"bnstudy/{module}.py").read_text() for module in modules))


# Functions that are given all parameters, and what `Results`, which holds them, is given to.
HANDED_ON = {node.name: node for node in tree_of("settings", "tuning").body if isinstance(node, ast.FunctionDef)}
HANDED_ON |= {"Results": tree_of("analysis/claim", "analysis/claims", "analysis/headline")}


def sections(tree: ast.AST) -> set[str]:
    """The sections that code takes out of the parameters: every `params.<section>`, also where it hands on `params`."""
    taken = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("params", "results.params"):
            taken.add(node.attr)
        if isinstance(node, ast.Call) and any(isinstance(a, ast.Name) and a.id == "params" for a in node.args):
            taken |= sections(HANDED_ON.get(ast.unparse(node.func), ast.Module([], [])))
    return taken & Params.model_fields.keys()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_the_script_of_its_name(stage: str) -> None:
    assert script_of(stage).stem == stage
    assert STAGES[stage]["desc"].endswith(".")


@pytest.mark.parametrize("stage", TRAININGS)
def test_trainings_depend_on_their_setting_script_the_engine_and_the_data_alone(stage: str) -> None:
    script = script_of(stage).relative_to(ROOT).as_posix()
    assert STAGES[stage]["deps"] == ["data/prepared", TRAININGS[stage], script, "src/bnstudy/engine"]


@pytest.mark.parametrize("file", sorted((SOURCE / "bnstudy/engine").glob("*.py")), ids=lambda file: file.name)
def test_the_engine_imports_nothing_else_that_could_change_a_bit(file: Path) -> None:
    modules = imported(file)
    study = {module for module in modules if file_of(module)}
    assert {module for module in study if not module.startswith("bnstudy.engine")} <= {
        "bnstudy",
        "bnstudy.files",
        "bnstudy.progress",
    }
    others = {module.partition(".")[0] for module in modules - study} - sys.stdlib_module_names
    assert others <= PACKAGES_OF_THE_ENGINE


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_code_that_can_change_its_bytes(stage: str) -> None:
    needed = {str(file.relative_to(ROOT)) for module in used(script_of(stage)) if (file := file_of(module))}
    neutral = {str(file.relative_to(ROOT)) for module in CANNOT_CHANGE_A_BIT if (file := file_of(module))}
    neutral |= {f"src/bnstudy/{room}/__init__.py" for room in ("engine", "analysis")}  # of stages that use one file
    if stage == "check":
        neutral = {"src/bnstudy/__init__.py", "src/bnstudy/files.py"}
    inside = {name for name in needed for dep in declared(stage) if name == dep or name.startswith(f"{dep}/")}
    assert needed - inside <= neutral
    used_files = {str(script_of(stage).relative_to(ROOT)), *needed}
    unused = [
        dep for dep in declared(stage) if not any(name == dep or name.startswith(f"{dep}/") for name in used_files)
    ]
    assert not unused


def test_only_the_engine_imports_pytorch() -> None:
    """So that results can be read without it, and what it reads from the environment is set before it."""
    heavy = {"torch", "numba", "safetensors"}
    for file in SOURCE.rglob("*.py"):
        if "engine" not in file.parts:
            assert not {module.partition(".")[0] for module in imported(file)} & heavy


@pytest.mark.parametrize("script", sorted({script_of(stage) for stage in STAGES}), ids=lambda script: script.stem)
def test_stages_declare_the_sections_that_their_script_reads(script: Path) -> None:
    stages = [stage for stage in STAGES if script_of(stage) == script]
    params = [param for stage in stages for param in STAGES[stage].get("params", [])]
    if script.stem == "check":
        assert params == [{"params.yaml": None}]  # all of it, unknown keys too
    else:
        assert {param.split(".")[0] for param in params} == sections(ast.parse(script.read_text())) - {"runtime"}


def test_every_stage_comes_after_check() -> None:
    """What it refuses has then removed nothing."""
    before: dict[str, set[str]] = {stage: set() for stage in STAGES}
    outs = {
        out if isinstance(out, str) else next(iter(out)): stage
        for stage, what in STAGES.items()
        for kind in ("outs", "metrics", "plots")
        for out in what.get(kind, [])
    }
    for stage, what in STAGES.items():
        for dep in what["deps"]:
            before[stage] |= {other for out, other in outs.items() if f"{out}/".startswith(f"{dep}/")}
    for stage in STAGES:
        reached, todo = set[str](), {stage}
        while todo:
            reached |= todo
            todo = {other for name in todo for other in before[name]} - reached
        assert "check" in reached


def test_only_stages_of_seconds_do_without_the_run_cache() -> None:
    """DVC keeps no record of a stage with a persistent output or a plain one outside its cache."""
    for name, stage in STAGES.items():
        assert not stage.get("always_changed")
        for out in stage.get("outs", []):
            options = {} if isinstance(out, str) else next(iter(out.values()))
            kept = {"check": [{"persist": True}, {"persist": True, "cache": False}]}
            kept |= {stage: [{"cache": False}] for stage in ("shortlist", "tune", "evaluate", "report")}
            assert options in ({}, {"push": False}, *kept.get(name, []))


def test_cached_outputs_are_ignored_by_hand() -> None:
    """DVC takes its own lines out of .gitignore files when a later stage fails."""
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for stage in STAGES.values():
        for out in stage.get("outs", []):
            path, options = (out, {}) if isinstance(out, str) else next(iter(out.items()))
            if options.get("cache", True):
                assert any(f"/{path}".startswith(line) for line in ignored if line.startswith("/")), path


def test_artifacts_are_the_folders_of_models_that_stages_write() -> None:
    artifacts = yaml.safe_load((ROOT / "dvc.yaml").read_text())["artifacts"]
    arms = yaml.safe_load((ROOT / "params.yaml").read_text())["study"]["arms"]
    written = {"models/averages", *(f"models/train/{arm}" for arm in arms)}
    assert {artifact["path"] for artifact in artifacts.values()} <= written
    for name, path in (("averages", "models/averages/"), ("train", "models/train/${item.arm}/")):
        assert any(f"{path}${{item.seed}}.safetensors" in out for out in STAGES[name]["outs"])
