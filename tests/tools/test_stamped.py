"""Which commits gave runs new code without new outputs, in made-up histories of dvc.lock."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import stamped
from conftest import run

RUNS = ["train@he-10", "averages@10"]


def stage(code: int, output: int) -> dict[str, Any]:
    """A training's entry, with numbers for the hashes of its code and its output."""
    deps = [{"path": "data/prepared", "md5": "0"}, {"path": "src/train.py", "md5": str(code)}]
    return {"cmd": "python src/train.py", "deps": deps, "outs": [{"path": "out", "md5": str(output)}]}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    run(tmp_path, "git", "init", "--quiet")
    return tmp_path


def write(*stages: dict[str, Any]) -> None:
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": dict(zip(RUNS, stages, strict=False))}))


def commit(*stages: dict[str, Any]) -> str:
    """A commit with these entries; its name."""
    write(*stages)
    run(Path(), "git", "add", "dvc.lock")
    run(Path(), "git", "commit", "--quiet", "--allow-empty", "--message", "results")
    return run(Path(), "git", "rev-parse", "--short", "HEAD").stdout.strip()


@pytest.mark.usefixtures("repository")
def test_only_stamps_since_the_last_real_run_are_named() -> None:
    commit(stage(1, 1), stage(1, 1))
    commit(stage(2, 1), stage(2, 1))  # stamped, but both are made later
    commit(stage(3, 2), stage(3, 2))
    assert stamped.find(RUNS) == ({}, None)
    first = commit(stage(4, 2), stage(3, 2))
    commit(stage(4, 2), stage(3, 2))  # nothing changed
    second = commit(stage(5, 2), stage(5, 2))
    commit(stage(5, 2), stage(6, 3))
    assert stamped.find(RUNS) == ({second: RUNS[:1], first: RUNS[:1]}, None)
    assert stamped.find(RUNS[1:]) == ({}, None)


@pytest.mark.usefixtures("repository")
def test_a_stamp_that_is_not_committed_and_other_changes() -> None:
    commit(stage(1, 1), stage(1, 1))
    changed = stage(1, 1)
    changed["deps"][0]["md5"] = "1"  # other data, and yet the same output: no code
    write(changed, stage(1, 1) | {"cmd": "python src/train.py --new"})
    assert stamped.find(RUNS) == ({stamped.NOW: RUNS[1:]}, None)


@pytest.mark.usefixtures("repository")
def test_a_run_that_came_later_and_a_lock_that_was_removed() -> None:
    commit(stage(1, 1))
    run(Path(), "git", "rm", "--quiet", "dvc.lock")
    run(Path(), "git", "commit", "--quiet", "--message", "removed")
    commit(stage(2, 1))
    commit(stage(2, 1), stage(1, 1))
    assert stamped.find(RUNS) == ({}, None)


def test_a_shallow_clone_says_what_it_cannot_see(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(stage(1, 1), stage(1, 1))
    commit(stage(2, 1), stage(1, 1))
    last = commit(stage(3, 1), stage(1, 1))
    run(repository, "git", "clone", "--quiet", "--depth=2", repository.as_uri(), "shallow")
    monkeypatch.chdir(repository / "shallow")
    found, missing = stamped.find(RUNS)
    assert found == {last: RUNS[:1]}
    assert missing is not None
    assert "shallow" in missing


@pytest.mark.usefixtures("repository")
def test_without_a_commit() -> None:
    write(stage(1, 1))
    assert "does not have any commits" in str(stamped.find(RUNS)[1])
