"""`make verify` on the toys: whole, forged in each way, damaged, cloned, never run."""

import json
import py_compile
import shutil
import sys
from pathlib import Path

import pytest

from conftest import run
from toy import ARMS, cached, commit, damage, edit, repro, verify

RUN = ARMS[2]  # study/dvc.yaml:train@he-22
TABLE, CLAIMS = "study/runs/train/he/22.csv", "study/metrics/claims.json"
RECORDS = "study/records/files/md5"


def forge(folder: Path, path: str, old: str, new: str) -> None:
    """Another content of a file, which DVC and git are then made to take for the result."""
    text = (folder / path).read_text()
    assert old in text
    (folder / path).write_text(text.replace(old, new, 1))
    run(folder, "dvc", "commit", "--force", *([RUN] if path == TABLE else ["dvc.yaml", "study/dvc.yaml"]))
    repro(folder, "dvc.yaml", "study/dvc.yaml")
    run(folder, "dvc", "push", "--remote", "records")
    commit(folder, "forged")


def test_a_whole_study(copy: Path, tmp_path: Path) -> None:
    """A saved state that says the run is finished is not believed, nor does a stranger's configuration matter."""
    state = copy / "checkpoints/study_train/he/22.state"
    state.parent.mkdir(parents=True, exist_ok=True)
    state.write_text("1")
    (tmp_path / "config").write_text("[commit]\n gpgSign = true\n[core]\n hooksPath = /nowhere\n autocrlf = true\n")
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if ".dvc/tmp" not in str(path)}
    config = {"GIT_CONFIG_GLOBAL": str(tmp_path / "config"), "TRAIL": str(tmp_path / "trail")}
    found = verify(copy, "--run", RUN, **config)
    assert found == {
        "whole": found["whole"],
        "the same": "code, parameters and outputs of 14 stages, as the lock files name them",
        "made again": "prepare, evaluate (all 2), plot, study/judge",
        "trained again": "study/train@he-22",
        "only hashed": "fetch, train (all 2), study/train@plain-22 to he-23 (3 of 4), study/mechanism (all 2)",
    }
    assert {path: path.stat().st_mtime_ns for path in before if path.is_file()}.items() <= before.items()
    assert (tmp_path / "trail").read_text().startswith("he-22 0 ")


@pytest.mark.parametrize(
    ("path", "old", "new", "otherwise"),
    [
        (CLAIMS, "holds", "refuted", CLAIMS),
        ("metrics/plain/10.json", "42", "99", "metrics/plain/10.json"),
        ("plots/curves.csv", "42", "99", "plots/curves.csv"),
        (TABLE, "42", "99", TABLE),
        ("src/bnstudy/engine/toy.py", "42", "43", "study/models/he/22.safetensors"),
    ],
    ids=["a verdict", "an accuracy", "a picture's table", "a run's table", "code that never ran"],
)
def test_what_was_forged_comes_out_otherwise(copy: Path, path: str, old: str, new: str, otherwise: str) -> None:
    """Whatever `dvc commit` was made to say of it."""
    forge(copy, path, old, new)
    assert f"{otherwise} comes out otherwise" in verify(copy, "--run", RUN)["FAILED"]


def test_a_poisoned_compiled_cache(copy: Path, tmp_path: Path) -> None:
    """Code beside the true one, compiled from another, by which the results were made."""
    code, other = copy / "src/bnstudy/engine/toy.py", tmp_path / "toy.py"
    other.write_text("ANSWER = 41\n")
    kept = code.parent / f"__pycache__/toy.{sys.implementation.cache_tag}.pyc"
    kept.unlink(missing_ok=True)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(other), str(kept), doraise=True, invalidation_mode=mode)
    run(copy, "dvc", "repro", "--force", "--single-item", RUN)
    repro(copy, "study/dvc.yaml")
    commit(copy)
    assert "41" in (copy / TABLE).read_text()
    assert TABLE in verify(copy, "--run", RUN)["FAILED"]


def test_nothing_is_made_again_where_something_is_damaged(copy: Path) -> None:
    damage(cached(copy, TABLE))
    damage(next((copy / RECORDS).glob("??/*")))
    found = verify(copy)
    assert found["FAILED"].count("is damaged: remove it") == 2
    assert f"{RECORDS}/" in found["FAILED"]
    assert found["left out"] == "made again trained again"


def test_nor_where_something_is_not_as_the_locks_have_it(copy: Path) -> None:
    (copy / CLAIMS).write_text("{}")
    (copy / "src/study_judge.py").write_text("# none")
    edit(copy, "arms.he.rate", 0.2, "study/params.yaml")
    found = verify(copy)
    assert all(what in found["FAILED"] for what in (CLAIMS, "src/study_judge.py", "arms.he"))
    assert found["left out"] == "made again trained again"


def test_a_fresh_clone(made: Path, tmp_path: Path) -> None:
    """Without weights, images and cache: what the runs of the study recorded comes from git."""
    run(made, "git", "clone", "--quiet", str(made), str(tmp_path / "fresh"))
    found = verify(tmp_path / "fresh")
    assert found["made again"] == "plot, study/judge"
    assert found["not here"] == "fetch, prepare, train (all 2), study/train (all 4)"
    assert found["only hashed"] == "evaluate (all 2), study/mechanism (all 2)"


def test_never_run(unmade: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(unmade, tmp_path / "toy"))
    (folder / ".dvc/tmp").mkdir(exist_ok=True)
    assert set(verify(folder)) == {"whole", "the same", "never run"}


def test_runs_of_other_machines(copy: Path) -> None:
    """Where it is not known, as without a log of a run of the note, they are not tried either."""
    shutil.rmtree(copy / "logs")
    for path in (copy / "study/runs").rglob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"processor": "another"}))
    run(copy, "dvc", "commit", "--force", "study/dvc.yaml")
    found = verify(copy)
    assert "trained again" not in found
    note, study = (
        "train (all 2): on which machine",
        "study/train (all 4), study/mechanism (all 2): made on another kind",
    )
    assert found["not by this"].startswith(note)
    assert f"{study} of machine, processor another (here: a toy)" in found["not by this"]
