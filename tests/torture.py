"""What people's machines do to it, and whether the bytes come out the same: `make torture`, a quarter of an hour.

The real stages, DVC and launcher, on the sample with few updates. At the end a table. KILLS and SEED, of the random
choices, are read from the environment. `make test` leaves this file out.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from conftest import ENVIRONMENT, clone, run
from toy import cached, commit, damage, edit, until, verify

KILLS, SEED = int(os.environ.get("KILLS", "15")), int(os.environ.get("SEED", random.SystemRandom().randrange(10**6)))
AVERAGES = "study/dvc.yaml:averages@note_batch_norm-22"
TARGETS = ("dvc.yaml", AVERAGES)
DVC = ("dvc", "repro", *TARGETS)
LAUNCH = (sys.executable, "-m", "bnstudy.launch", "--jobs=2", *TARGETS)
TRAIN, MODEL = "train@batch_norm-10", "models/batch_norm/10.safetensors"
MADE = ("data", "models", "curves", "metrics", "plots", "study/models", "study/runs", "dvc.lock", "study/dvc.lock")
Tried = Callable[[str], Any]


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> Iterator[dict[str, Counter[str]]]:
    rows = dict[str, Counter[str]]()
    yield rows
    lines = ["", f"seed {SEED}", "", "| what was tried | how many | survived |", "| --- | --: | --: |"]
    lines += [f"| {row} | {count['tried']} | {count['survived']} |" for row, count in rows.items()]
    request.config.get_terminal_writer().write("\n".join([*lines, ""]))


@pytest.fixture
def tried(table: dict[str, Counter[str]]) -> Tried:
    @contextmanager
    def tried(row: str) -> Iterator[None]:
        count = table.setdefault(row, Counter())
        count["tried"] += 1
        yield
        count["survived"] += 1

    return tried


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both pipelines, made without interruption."""
    folder = clone(tmp_path_factory.mktemp("torture") / "whole")
    for key, value in {"data.source": "sample", "data.validation_size": 500, "train.steps": 60, "train.batch_size": 32,
                       "runtime.checkpoint_every": 5, "seeds": [10]}.items():  # fmt: skip
        edit(folder, key, value)
    for key, value in {"steps": 60, "batch_size": 32, "images": 100, "precise_images": 100}.items():
        edit(folder, f"averages.note_batch_norm.{key}", value, "study/params.yaml")
    run(folder, "dvc", "repro", "--quiet", "prepare")
    sha256 = run(folder, "sha256sum", "data/prepared/SHA256SUMS").stdout.split()[0]
    edit(folder, "data.sha256", sha256, "study/params.yaml")
    run(folder, *DVC)
    commit(folder)
    return folder


@pytest.fixture
def study(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "study", symlinks=True))


def forget(study: Path) -> None:
    """Leave only the images, for DVC to make the rest."""
    for name in (*MADE[1:-2], "checkpoints", ".dvc/cache/runs"):
        shutil.rmtree(study / name, ignore_errors=True)
    (study / "study/dvc.lock").unlink(missing_ok=True)
    lock = yaml.safe_load((study / "dvc.lock").read_text())
    lock["stages"] = {name: lock["stages"][name] for name in ("fetch", "prepare")}
    (study / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))


def outcome(study: Path) -> dict[str, object]:
    """What the same study must leave the same; of lock files not their order, which DVC changes from run to run."""
    files = [path for name in MADE for path in (study / name, *(study / name).rglob("*")) if path.is_file()]
    found = {str(path.relative_to(study)): path.read_bytes() for path in files if path.name != ".gitignore"}
    return {name: yaml.safe_load(content) if "dvc.lock" in name else content for name, content in found.items()}


def start(study: Path, *words: str) -> subprocess.Popen[bytes]:
    """In a session of its own, as a terminal would; what it prints is appended to a file."""
    with (study / ".git/printed").open("ab") as file:
        environment = ENVIRONMENT | {"PYTHONPATH": "src"}
        return subprocess.Popen(words, cwd=study, env=environment, stdout=file, stderr=file, start_new_session=True)


def printed(study: Path) -> str:
    return (study / ".git/printed").read_text(errors="replace").replace("\r", "\n")


def at_work(study: Path) -> dict[str, list[psutil.Process]]:
    """The processes that run in this folder, by what they are."""
    found = dict[str, list[psutil.Process]]()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = [*process.cmdline(), "", "", ""]
            if process.cwd() == str(study) and process.status() != psutil.STATUS_ZOMBIE:
                launcher = "launcher" if "bnstudy.launch" in words else ""
                kind = launcher or ("stage" if words[1].startswith("src/") else "DVC" if "repro" in words else "other")
                found.setdefault(kind, []).append(process)
    return found


def send_a_signal(study: Path, choose: random.Random) -> str:
    """SIGKILL, SIGTERM or SIGINT to one of the processes at work, or to all; what was done."""
    found, number = at_work(study), choose.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    kind = choose.choice(["all", *sorted(found)])
    every = [process for processes in found.values() for process in processes]
    for victim in every if kind == "all" else [choose.choice(found[kind])]:
        with suppress(psutil.NoSuchProcess):
            victim.send_signal(number)
    return f"{number.name} to {kind} of {', '.join(found)}"


@pytest.mark.parametrize("words", [DVC, LAUNCH], ids=["dvc repro", "the launcher"])
def test_kills(study: Path, whole: Path, tried: Tried, words: tuple[str, ...], request: pytest.FixtureRequest) -> None:
    """At random moments, until it is through; and that again until there were `KILLS` signals."""
    name, choose, kills = request.node.callspec.id, random.Random(SEED), 0
    while kills < KILLS:
        forget(study)
        while True:
            process, before = start(study, *words), kills
            while process.poll() is None and kills < KILLS:
                end = time.monotonic() + choose.uniform(0.5, 8)
                until(lambda: process.poll() is not None or time.monotonic() > end)  # noqa: B023
                if process.poll() is None:
                    with tried(f"a signal to `{name}` or what it runs"):
                        print(send_a_signal(study, choose))
                        kills += 1
            process.wait(600)
            if process.returncode == 0:
                break
            assert kills > before, f"it fails by itself:\n{printed(study)[-2000:]}"
            if words == DVC:  # what lost its DVC ends by itself; the launcher waits for it
                until(lambda: not at_work(study), 60)
            if (left := study / ".dvc/tmp/rwlock").exists() and not left.read_bytes().endswith(b"}"):
                left.unlink()  # DVC does not write it whole or not at all
        with tried(f"the bytes in the end, `{name}`"):
            assert outcome(study) == outcome(whole)
    print(printed(study).count("going on after update"), "times a run went on from a saved state")


@pytest.mark.parametrize(
    ("name", "target", "room"),
    [("data", "prepare", 4000), ("checkpoints", TRAIN, 3000), ("models", TRAIN, 3000), ("curves", TRAIN, 0),
     ("logs", TRAIN, 0)],
)  # fmt: skip
def test_a_full_disk(study: Path, whole: Path, tried: Tried, name: str, target: str, room: int) -> None:
    """A small disk over a folder that is written, with so many KB left: an error that names it, and nothing half."""
    forget(study)
    if name == "data":
        (study / "dvc.lock").unlink()
    shutil.rmtree(study / name, ignore_errors=True)
    (study / name).mkdir()
    if run(study, "mount", "-t", "tmpfs", "-o", "size=64m", "torture", name, check=False).returncode:
        pytest.skip("needs root, to mount a small disk")
    filler = study / name / "filler"
    try:
        with tried("a full disk"):
            with filler.open("wb", 0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))
            os.truncate(filler, filler.stat().st_size - room * 1024)
            assert start(study, "dvc", "repro", target).wait(600) != 0
            assert "No space left on device" in printed(study)
            assert f"'{name}/" in printed(study)
            assert "Traceback" not in printed(study)
            made, expected = outcome(study), outcome(whole)
            assert not [
                path for path in made if "lock" not in path and "filler" not in path and made[path] != expected[path]
            ]
            filler.unlink()
            assert start(study, "dvc", "repro", target).wait(600) == 0
            made = outcome(study)
            assert not [path for path in made if "lock" not in path and made[path] != expected[path]]
    finally:
        run(study, "umount", name)


@pytest.mark.parametrize("words", [DVC, ("dvc", "--wait-for-lock", "repro", *TARGETS), LAUNCH])
def test_two_at_once(study: Path, whole: Path, tried: Tried, words: tuple[str, ...]) -> None:
    """At least one gets through; the other may be refused."""
    forget(study)
    with tried("two at once"):
        both = [start(study, *words) for _ in range(2)]
        codes = [process.wait(600) for process in both]
        assert 0 in codes, printed(study)[-2000:]
        assert start(study, *DVC).wait(600) == 0
        assert outcome(study) == outcome(whole)


def damaged_object(study: Path) -> None:
    """DVC trusts a read-only object: `make verify` names it, and once it is removed, the stage runs again."""
    damage(cached(study, MODEL))
    (study / MODEL).unlink()
    found = verify(study, "--no-retrain")["FAILED"]
    assert str(cached(study, MODEL).relative_to(study)) in found
    cached(study, MODEL).unlink()


def damaged_image(study: Path) -> None:
    damage(study / "data/prepared/train_images.npy")


def damaged_state(study: Path) -> None:
    forget(study)
    process, state = start(study, *DVC), study / "checkpoints/train/batch_norm/10.state"
    until(state.exists)
    process.kill()
    process.wait()
    until(lambda: not at_work(study), 60)
    damage(state)


def damaged_lock(study: Path) -> None:
    """DVC refuses what is no longer YAML, and completes what still is."""
    lock = study / "dvc.lock"
    lock.write_text(lock.read_text()[: random.Random(SEED).randrange(lock.stat().st_size)])
    if run(study, *DVC, check=False).returncode:
        run(study, "git", "checkout", "dvc.lock")


@pytest.mark.parametrize("what", [damaged_object, damaged_image, damaged_state, damaged_lock])
def test_damage(study: Path, whole: Path, tried: Tried, what: Callable[[Path], None]) -> None:
    with tried("a damaged cache, state, image or lock file"):
        what(study)
        assert start(study, *DVC).wait(600) == 0, printed(study)[-2000:]
        assert outcome(study) == outcome(whole)


def test_forged_loops_in_the_cache_of_numba(study: Path, whole: Path, tried: Tried) -> None:
    """What it keeps of its compiled loops, made from other code: found by what verify trains again."""
    code = study / "src/bnstudy/engine/fast_cpu.py"
    compiled, text, when = code.parent / "__pycache__", code.read_text(), code.stat()
    forged = text.replace("= high - m, low", "= high - m, -low")
    assert forged != text
    kept = {path: path.read_bytes() for path in compiled.glob("*.nbi")}  # by name: compiled from the true code
    shutil.rmtree(compiled)
    code.write_text(forged)
    run(study, sys.executable, "src/train.py", "batch_norm", "10")
    code.write_text(text)
    os.utime(code, ns=(when.st_atime_ns, when.st_mtime_ns))
    for path in compiled.glob("fast_cpu*.pyc"):
        path.unlink()
    for path, content in kept.items():
        path.write_bytes(content)
    shutil.rmtree(study / "checkpoints")
    with tried("forged loops in the cache of Numba"):
        run(study, "dvc", "repro", "--force", "--single-item", TRAIN)
        run(study, *DVC)
        assert (study / MODEL).read_bytes() != (whole / MODEL).read_bytes()
        # What was evaluated by them is found before the training is tried.
        assert "metrics/batch_norm/10.json comes out otherwise" in verify(study, "--run", TRAIN)["FAILED"]
