"""Stages side by side, on the small study: a failure stops only what needs it. And `make` in a path with a space."""

import os
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from bnstudy import waves
from conftest import ENVIRONMENT, PARAMS, ROOT, run, until
from small import TRAINS, edit

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # in DVC
TOOL = [sys.executable, str(ROOT / "tools/side_by_side.py")]
TRAIN = """\
import os, pathlib, sys, time
arm, seed = sys.argv[1:]
if (arm, seed) == ("he", "10"):
    sys.exit("error: step 3: the loss is not finite")
pathlib.Path(f"pid_{arm}_{seed}").write_text(str(os.getpid()))
while pathlib.Path("wait").exists():
    time.sleep(0.05)
for kind, end in (("models", "safetensors"), ("metrics", "csv"), ("metrics", "json")):
    path = f"{kind}/train/{arm}/{seed}.{end}"
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text(arm)
"""


@pytest.fixture
def study(copy: Path) -> Path:
    """The small study, with a toy in place of its trainings."""
    (copy / "src/train.py").write_text(TRAIN)
    return copy


def lines(printed: str) -> list[str]:
    """The stages that it says are done or failed, in that order."""
    return [name for line in printed.splitlines() if line.startswith(("done", "failed")) for name in line.split()[1:-2]]


def test_one_that_fails_stops_only_what_needs_it_and_is_told_at_the_end(study: Path) -> None:
    edit(study, "train.keep_prob", 1.0)
    done = run(study, *TOOL, check=False)
    assert done.returncode == 1
    assert lines(done.stdout) == ["sweep@plain", "sweep@batch_norm", "tune", *TRAINS]
    *_, failed, left = done.stderr.strip().splitlines()
    assert "train@he-10: error: step 3: the loss is not finite" in failed
    assert "python src/train.py he 10" in (study / failed[failed.rindex("(") + 1 : -1]).read_text()
    assert left == "  not run, since they need these: evaluate"

    (study / "src/train.py").write_text(TRAIN.replace('"he"', '"x"'))
    *trained, last = lines(run(study, *TOOL, "--jobs=2", "--each=2").stdout)
    assert (sorted(trained), last) == (sorted(TRAINS), "evaluate")  # which of two jobs ends first is chance
    assert run(study, "dvc", "status", "--json").stdout.strip() == "{}"


def test_all_of_one_seed_before_the_next_and_the_rest_at_the_end() -> None:
    names = [
        "train@he-11",
        "train@he-2",
        "averages@2",
        "tolerance@with-11",
        "batch@with-1",
        "mechanism@12",
        "train@a_2-10",
    ]
    assert sorted(names, key=waves.seed_of) == [
        "train@he-2",
        "averages@2",
        "train@a_2-10",
        "train@he-11",
        "tolerance@with-11",
        "batch@with-1",
        "mechanism@12",
    ]


def test_the_chain_of_the_whole_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    needs, seed = waves.read_needs(), PARAMS.mechanism.seeds[0]
    above = ["check", "prepare", "sweep@plain_he", "shortlist", "refine@without-1.8", "tune"]
    above += [f"averages@{seed}", f"mechanism@{seed}"]
    for stage, later in pairwise(above):
        assert stage in needs[later]
        assert needs[stage] < needs[later]
    assert not needs[f"train@he-{seed}"] & {f"train@he_ramp-{seed}", f"averages@{seed}"}


def test_it_waits_for_what_a_killed_one_left_running(study: Path) -> None:
    (study / "src/train.py").write_text(TRAIN.replace('"he"', '"x"'))
    (study / "wait").touch()
    first = subprocess.Popen([*TOOL, "--jobs=2"], cwd=study, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    until(lambda: len(list(study.glob("pid_*"))) == 2)
    first.kill()
    first.wait()
    second = subprocess.Popen(TOOL, cwd=study, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert second.stdout is not None
    until(lambda: "waiting: another DVC is running stages here" in (second.stdout or "").readline())  # type: ignore[union-attr]
    (study / "wait").unlink()
    printed, _ = second.communicate(timeout=120)
    assert second.returncode == 0
    assert "evaluate" in lines(printed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_starts_nothing_more(study: Path, number: int) -> None:
    (study / "wait").touch()
    process = subprocess.Popen(
        TOOL, cwd=study, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until(lambda: list(study.glob("pid_*")))
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[signal.Signals(number)]
    assert "Traceback" not in error
    assert len(list(study.glob("pid_*"))) == 1


def test_make_in_a_path_with_a_space(tmp_path: Path) -> None:
    """Its environment lies inside the checkout, and what it runs comes from there."""
    checkout = tmp_path / "a study"
    (checkout / "requirements").mkdir(parents=True)
    (checkout / "tools").mkdir()
    (checkout / "tools/page.py").write_text("import sys; print(sys.executable)\n")
    (checkout / "requirements/study.lock").write_text("")
    shutil.copy(ROOT / "Makefile", checkout)
    printed = run(checkout, "make", "venv", f"PYTHON={sys.executable}").stdout
    assert f"{checkout}/.venv/bin/python" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a study"]
    assert (checkout / ".venv/study").is_file()


def test_make_says_what_it_can_do_and_refuses_an_old_python(tmp_path: Path) -> None:
    printed = run(ROOT, "make", "help").stdout
    for target in ("demo", "study", "records", "verify", "bench", "torture", "test", "lock"):
        assert f"make {target} " in printed
    old = tmp_path / "python"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 10); $2"\n')
    old.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/study.lock").touch()
    done = run(tmp_path, "make", "venv", f"PYTHON={old}", check=False)
    assert done.returncode == 2
    assert "is not Python 3.11 to 3.13: make PYTHON=python3.12 venv" in done.stdout
    assert not (tmp_path / ".venv").exists()
