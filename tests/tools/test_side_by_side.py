"""Stages side by side, in a small DVC repository: one that fails stops no other. And `make` in a path with a space."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ENVIRONMENT, ROOT, run

TOOL = [sys.executable, str(ROOT / "tools/side_by_side.py")]
STAGES = """\
stages:
  prepare: {cmd: echo data > data, outs: [data]}
  train:
    matrix: {name: [a, b, c, d]}
    cmd: python train.py ${item.name}
    deps: [data, train.py]
    outs: ["models/${item.name}"]
"""
TRAIN = """\
import os, pathlib, sys, time
name, = sys.argv[1:]
if name == "b":
    sys.exit("error: step 3: the loss is not finite")
pathlib.Path(f"pid_{name}").write_text(str(os.getpid()))
while pathlib.Path("wait").exists():
    time.sleep(0.05)
pathlib.Path("models").mkdir(exist_ok=True)
pathlib.Path("models", name).write_text(name)
"""


def until(condition: Callable[[], object]) -> None:
    """Wait for it; fail after a minute."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text(STAGES)
    (tmp_path / "train.py").write_text(TRAIN)
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "dvc", "init", "--quiet")
    run(tmp_path, "dvc", "config", "core.analytics", "false")
    return tmp_path


@pytest.mark.parametrize("each", [1, 3])
def test_one_that_fails_stops_no_other_and_is_told_at_the_end(repository: Path, each: int) -> None:
    done = run(repository, *TOOL, "--jobs=2", f"--each={each}", check=False)
    assert done.returncode == 1
    assert {path.name for path in (repository / "models").iterdir()} == {".gitignore", *"acd"}
    *_, last = done.stderr.strip().splitlines()
    log = last[last.rindex("(") + 1 : -1]
    assert "error: step 3: the loss is not finite" in last
    assert "python train.py b" in (repository / log).read_text()
    assert run(repository, "dvc", "status", "--json").stdout.count("train@") == 1

    (repository / "train.py").write_text(TRAIN.replace('"b"', '"x"'))
    assert "train@b" in run(repository, *TOOL, "--jobs=2").stdout
    assert run(repository, "dvc", "status", "--json").stdout.strip() == "{}"
    assert "train@" not in run(repository, *TOOL).stdout  # nothing is left to do


def test_it_waits_for_what_a_killed_one_left_running(repository: Path) -> None:
    (repository / "train.py").write_text(TRAIN.replace('"b"', '"x"'))
    (repository / "wait").touch()
    first = subprocess.Popen([*TOOL, "--jobs=2"], cwd=repository, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    until(lambda: len(list(repository.glob("pid_*"))) == 2)
    first.kill()
    first.wait()
    second = subprocess.Popen(TOOL, cwd=repository, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert second.stdout is not None
    assert second.stdout.readline().startswith("waiting: another DVC is running stages here")
    (repository / "wait").unlink()
    printed, _ = second.communicate(timeout=120)
    assert second.returncode == 0
    assert printed.count("done") == 2
    assert run(repository, "dvc", "status", "--json").stdout.strip() == "{}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_starts_nothing_more(repository: Path, number: int) -> None:
    (repository / "wait").touch()
    words = [*TOOL, "--jobs=1"]
    process = subprocess.Popen(
        words, cwd=repository, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until(lambda: list(repository.glob("pid_*")))
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[signal.Signals(number)]
    assert "Traceback" not in error
    assert len(list(repository.glob("pid_*"))) == 1


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
