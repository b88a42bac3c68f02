"""What the study is put through, and whether it survives: `make torture`. Minutes, so no part of the tests.

    PYTHONPATH=src python tests/torture.py [--kills 50] [--seed 7] [--only kills saves] [--cases 10]

The real stages and the real DVC, on the sample, in folders of their own. Prints what did not survive and a table, and
exits with 1 if there was any. Every random choice comes from the seed that it prints first.
"""

import argparse
import copy
import gzip
import hashlib
import io
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from http.server import ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import psutil
import yaml
from torchvision.datasets import MNIST

from bnstudy import evaluate, fetch, plot, prepare, report, stage, summarize, sweep, train, warmup
from bnstudy.params import BadInput, load
from conftest import ENVIRONMENT, ROOT, clone
from test_fetch import FAULTS, Mirror
from test_pipeline import SMALL_SWEEP, SMALL_WARMUP

STARTED: list[int] = []  # sessions of DVC
Case = tuple[str, str, list[str]]  # the row of the table, what was tried, and what was wrong with how it ended
Main = Callable[[], None]
COMMITTED: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
STAGES = [train, warmup, sweep, evaluate, fetch, prepare, summarize, plot, report]
TRAIN, PLAIN = ["--variant", "batch_norm", "--seed", "0"], ["--variant", "plain", "--seed", "0"]
NAMES, KINDS = ("batch_norm", "plain"), ("images", "labels")
MODELS = [f"models/{name}/0.safetensors" for name in NAMES]
WARMED_UP = "metrics/warmup/batch_norm/0.csv"
SWEPT = ["metrics/sweep/plain/rate_0.01.csv", "metrics/sweep/plain/batch_16.csv"]


class Setting(NamedTuple):
    folder: Path
    random: random.Random
    kills: int
    cases: int | None

    def some(self, cases: list[Any]) -> list[Any]:
        """All of `cases` in a random order, or as many as were asked for."""
        return self.random.sample(cases, min(len(cases), self.cases or len(cases)))

    @cache  # noqa: B019
    def data(self) -> Path:
        """A folder with the sample's data and the parameters of `tree`."""
        folder = self.folder / "data only"
        folder.mkdir()
        write_params(folder, tree())
        for main in (fetch.main, prepare.main):
            ended = call(folder, main)
            assert not ended.code, ended.text
        return folder

    @cache  # noqa: B019
    def study(self) -> Path:
        """The study reproduced without interruption."""
        folder = clone(self.folder / "study")
        write_params(folder, tree())
        assert not dvc(folder).wait(600), printed(folder)
        return folder

    def copy(self, original: Path, name: str) -> Path:
        return Path(shutil.copytree(original, self.folder / name, symlinks=True))


def tree(steps: int = 150, **changes: Any) -> dict[str, Any]:
    """params.yaml cut down until a training takes seconds; `changes` are keys with __ for the dots, and values."""
    small = copy.deepcopy(COMMITTED) | {"study": {"variants": ["batch_norm", "plain"], "seeds": [0]}}
    small["data"] = {"source": "sample", "validation_size": 500}
    small["train"] |= {"steps": steps, "batch_size": 32, "evaluate_every": 50}
    small["warmup"] |= SMALL_WARMUP | {"steps": steps // 2, "evaluate_every": 20, "decays": [0.95]}
    small["sweep"] |= SMALL_SWEEP | {"steps": steps // 2, "learning_rates": [0.01], "batch_sizes": [16]}
    small["runtime"] |= {"checkpoint_every": 5, "threads": 1}
    for path, value in changes.items():
        *above, key = path.split("__")
        at = small
        for name in above:
            at = at[name]
        at[key] = value
    return small


def write_params(folder: Path, content: dict[str, Any] | str | bytes) -> None:
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True) if isinstance(content, dict) else content
    (folder / "params.yaml").write_bytes(text.encode() if isinstance(text, str) else text)


class Ended(NamedTuple):
    code: int | None  # None: it was still running, and was ended
    text: str

    def faults(self, *names: str, code: int | None = 1) -> list[str]:
        """Nothing, if it ended with `code` and, where that says failure, a message that has all `names`."""
        lines = self.text.replace("\r", "\n").strip().splitlines()
        last = lines[-1] if lines else ""
        wrong = [f"exit status {self.code}, not {code}: {last}"] * (self.code != code)
        wrong += [f"a traceback: {last}"] * ("Traceback" in self.text)
        wrong += [f"no message that names {name}: {last}" for name in names if name not in self.text]
        return wrong + ["no line `error: …`"] * (code == 1 and "error: " not in self.text)

    def clear(self) -> list[str]:
        """Nothing, if it ran on, ended well, or failed with a message."""
        return self.faults(code=self.code) if self.code is not None else []


def call(folder: Path, main: Main, *argv: str, first: Main = lambda: None, seconds: float = 120) -> Ended:
    """Run a stage's real `main` in `folder`, in a child that has all modules imported already; `first` before it."""
    output = folder / ".printed"

    def inside() -> None:
        os.chdir(folder)
        sys.argv = [main.__module__, *argv]
        with output.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        first()
        stage.run(main)

    process = multiprocessing.get_context("fork").Process(target=inside)
    process.start()
    process.join(seconds)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    text = output.read_text(errors="replace")
    output.unlink()
    return Ended(code, text)


def command(folder: Path, *words: str) -> Ended:
    """Run `words` in `folder` as a person would."""
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    return Ended(done.returncode, done.stdout + done.stderr)


def dvc(folder: Path, *targets: str) -> subprocess.Popen[bytes]:
    """Start `dvc repro` in a session of its own; what it prints is appended to a file, see `printed`."""
    with (folder / ".git/printed").open("ab") as file:
        words = ["dvc", "repro", *targets]
        process = subprocess.Popen(words, cwd=folder, env=ENVIRONMENT, stdout=file, stderr=file, start_new_session=True)
    STARTED.append(process.pid)
    return process


def printed(folder: Path) -> str:
    return (folder / ".git/printed").read_text(errors="replace").replace("\r", "\n")


def members(session: int) -> list[psutil.Process]:
    """The processes of a session that run."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            pass
    return found


def until(condition: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def files(folder: Path) -> dict[str, object]:
    """Every file that the same study must leave the same: all but the code, what is git's and DVC's own, logs, and the
    states of finished runs, which go when a later stage runs.
    """
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        extra = (name.startswith("logs/") and path.suffix == ".json") or path.suffix == ".finished"
        extra = extra or name.startswith((".git/", ".dvc/", "src/")) or path.name == ".gitignore"
        if path.is_file() and not extra:
            found[name] = yaml.safe_load(path.read_bytes()) if name == "dvc.lock" else path.read_bytes()
    return found


def differences(folder: Path, original: Path) -> list[str]:
    found, expected = files(folder), files(original)
    what = {True: "is missing", False: "is left over"}
    names = [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]
    both = found.keys() & expected.keys()
    return [f"{name} {'has other bytes' if name in both else what[name in expected]}" for name in names]


def forget(study: Path, *kept: str) -> None:
    """Leave of the results only those of the stages `kept`, for `dvc repro` to make the others."""
    for name in ("models", "metrics", "plots", "report", "checkpoints", ".dvc/cache/runs"):
        shutil.rmtree(study / name, ignore_errors=True)
    lock = yaml.safe_load((study / "dvc.lock").read_text())
    lock["stages"] = {name: lock["stages"][name] for name in kept}
    (study / "dvc.lock").write_text(yaml.safe_dump(lock))


def kills(setting: Setting) -> Iterator[Case]:
    """SIGKILL, SIGTERM and SIGINT to the stage, to DVC or to both at once, at random moments of `dvc repro`."""
    row, choose, whole = "kills at random moments", setting.random, setting.study()
    study = setting.copy(whole, "killed")
    forget(study, "fetch", "prepare")
    done = since = failed = 0
    process = dvc(study)
    while since or done < setting.kills:
        if done < setting.kills:
            at_once = choose.random() < 0.2  # also while DVC starts, or between two stages
            until(lambda at=process, now=at_once: now or at.poll() is not None or training(at.pid), 30)
            moment = time.monotonic() + choose.uniform(0, 6)
            until(lambda at=process, end=moment: at.poll() is not None or time.monotonic() > end, 10)
        else:
            process.wait(600)
        if process.poll() is None:
            done, since = done + 1, since + 1
            yield row, *one_kill(process, choose)
        if process.poll() == 0:
            left = [f"{path} is left" for path in (study / "checkpoints").rglob("*.finished")]
            yield f"{row}: the bytes in the end", f"after {since} kills", differences(study, whole) + left
            forget(study, "fetch", "prepare")
            since = 0
        elif process.poll() is not None and done >= setting.kills:
            failed += 1
            if failed > 2:
                yield f"{row}: the bytes in the end", f"after {since} kills", [f"it fails: {printed(study)[-300:]}"]
                break
        if process.poll() is not None and (since or done < setting.kills):
            lock = study / ".dvc/tmp/rwlock"
            # DVC itself does not write it whole or not at all.
            if lock.exists() and not lock.read_bytes().endswith(b"}"):
                lock.unlink()
                yield f"{row}: DVC's .dvc/tmp/rwlock cut short, and removed by hand", "", []
            process = dvc(study)
    text = printed(study)
    print(f"  {text.count('going on after step')} times a run went on from a saved state")


def one_kill(process: subprocess.Popen[bytes], choose: random.Random) -> tuple[str, list[str]]:
    """Send a random signal to some of a running `dvc repro`; what was done, and what was wrong with how it ended."""
    number = choose.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    target, stages = choose.choice(["the stage", "dvc", "both"]), training(process.pid)
    running = stages[0].info if stages else "no stage"
    what = f"{number.name} to {target if stages else 'dvc'} during {running}"
    with suppress(psutil.NoSuchProcess, ProcessLookupError):  # it may just have ended
        if target == "both":
            os.killpg(process.pid, number)
        elif target == "the stage" and stages:
            stages[0].send_signal(number)
        else:
            process.send_signal(number)
            if number == signal.SIGINT and not until(lambda: process.poll() is not None, 3):
                return f"{what}, which leaves it to the stage", []
    if until(lambda: process.poll() is not None and not members(process.pid), 20):
        return what, []
    return what, [f"still runs after 20 s: {left.pid}" for left in members(process.pid)]


def training(session: int) -> list[psutil.Process]:
    """The process of a stage in this session, without the shell around it; `info` is what it was called with."""
    found = []
    for process in members(session):
        with suppress(psutil.NoSuchProcess):
            words = process.cmdline()
            if any(word.startswith("bnstudy.") for word in words):
                process.info = " ".join(words[words.index("-m") + 1 :])
                found.append(process)
    return found


def in_write(found: Callable[[int, int, FrameType], None]) -> None:
    """From now on in this process: `found` before each line of `stage.write`, with the numbers of call and line."""
    calls = lines = 0

    def line(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if event == "line":
            lines += 1
            found(calls, lines, frame)
        return line

    def call_(frame: FrameType, *_: object) -> Any:
        nonlocal calls, lines
        if frame.f_code is not stage.write.__code__:
            return None
        calls, lines = calls + 1, 0
        return line

    sys.settrace(call_)


def dying(at_call: int, at_line: int) -> Main:
    """SIGKILL before that line of that call; for line 0, when half of the bytes are written."""

    def found(number: int, line: int, frame: FrameType) -> None:
        if number == at_call and at_line == 0:
            half = len(frame.f_locals["content"]) // 2
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # by which the kernel then ends the process
            resource.setrlimit(resource.RLIMIT_FSIZE, (half, half))
        elif (number, line) == (at_call, at_line):
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: in_write(found)


def saves(setting: Setting) -> Iterator[Case]:
    """A training killed before each line of `stage.write`, and with half of the bytes written; then run again."""
    row = "kills in the middle of a write"
    start = setting.copy(setting.data(), "saves")
    write_params(start, tree(6, train__evaluate_every=6, runtime__checkpoint_every=2))
    whole = setting.copy(start, "saves whole")
    told = call(whole, train.main, *TRAIN, first=lambda: in_write(lambda *at: print("at", *at[:2])))
    lines = sorted(tuple(map(int, line.split()[1:])) for line in told.text.splitlines() if line.startswith("at "))
    halves = sorted({(number, 0) for number, _ in lines})  # of two states, the history, the model and the log
    for number, line in setting.some(halves + setting.random.sample(lines, 25)):
        folder = setting.copy(start, f"save {number} {line}")
        ended = call(folder, train.main, *TRAIN, first=dying(number, line))
        faults = [] if ended.code in (-signal.SIGKILL, -signal.SIGXFSZ) else ["it was not killed"]
        faults += call(folder, train.main, *TRAIN).faults(code=0) + differences(folder, whole)
        yield row, f"write {number}, line {line}", faults
        shutil.rmtree(folder)


def damages(choose: random.Random) -> dict[str, Callable[[bytes, bytes], bytes | None]]:
    """Ways to damage a file: from its bytes and another's, its new bytes; None for a folder in its place."""

    def flip(content: bytes, _: bytes) -> bytes:
        changed = bytearray(content)
        changed[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
        return bytes(changed)

    return {
        "cut in half": lambda content, _: content[: len(content) // 2],
        "emptied": lambda *_: b"",
        "a flipped bit": flip,
        "another's bytes": lambda _, other: other,
        "random bytes": lambda content, _: choose.randbytes(len(content)),
        "a folder in its place": lambda *_: None,
    }


def put(path: Path, content: bytes | None) -> None:
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.mkdir() if content is None else path.write_bytes(content)


def damaged_study(setting: Setting) -> Iterator[Case]:
    """Every output damaged, all at once; `dvc repro` must bring back each."""
    study = setting.copy(setting.study(), "damaged")
    lock = yaml.safe_load((study / "dvc.lock").read_text())["stages"].values()
    outs = [study / out["path"] for entry in lock for out in entry["outs"]]
    paths = sorted(path for out in outs for path in ([out] if out.is_file() else out.rglob("*")))
    contents = {path: path.read_bytes() for path in paths}
    for name, damage in setting.some(list(damages(setting.random).items())):
        for i, path in enumerate(paths):
            put(path, damage(contents[path], contents[paths[i - 1]]))
        code = dvc(study).wait(600)
        wrong = differences(study, setting.study())
        for path in paths:
            relative = path.relative_to(study).as_posix()
            faults = [difference for difference in wrong if difference.startswith(f"{relative} ")]
            yield "damaged outputs, then `dvc repro`", f"{relative}, {name}", faults
        if code or wrong:
            tail = " ".join(printed(study).split())[-300:]
            yield "damaged outputs, then `dvc repro`", name, [f"exit status {code}: {tail}"] * bool(code) + wrong
            shutil.rmtree(study)
            study = setting.copy(setting.study(), "damaged")


def npy(array: np.ndarray) -> bytes:
    np.save(content := io.BytesIO(), array)
    return content.getvalue()


def damaged_inputs(setting: Setting) -> Iterator[Case]:
    """Every file that a stage reads, damaged, and the stage alone: without DVC, which would restore it first."""
    row, study = "damaged inputs, the stage without DVC", setting.copy(setting.study(), "inputs")
    arrays = {f"data/prepared/{split}_{kind}.npy" for split in ("train", "validation", "test") for kind in KINDS}
    swaps = [(f"metrics/evaluation/{name}.json" for name in NAMES), (f"models/{name}/0.safetensors" for name in NAMES)]
    swaps += [SWEPT, ("metrics/summary.json", "metrics/claims.json"), ("plots/curves.csv", "plots/sweep.csv")]
    swaps += [("plots/confusion.csv", "plots/warmup.csv")]
    # By what each is replaced that only its content gives away: of its own kind, where it says of whom it is.
    others = {a: b for one, two in swaps for a, b in ((one, two), (two, one))}
    tables = [f"metrics/history/{name}/0.csv" for name in NAMES]
    reads: list[tuple[ModuleType, list[str], Iterable[str]]] = [
        (prepare, [], [f"data/raw/{fetch.SAMPLE}"]),
        (train, TRAIN, [*arrays, "data/prepared/SHA256SUMS"]),
        (warmup, ["--seed", "0"], [name for name in arrays if "validation" not in name]),
        (sweep, [*PLAIN[:2], "--learning-rate", "0.01"], arrays),
        (evaluate, TRAIN[:2], [tables[0], MODELS[0], *(name for name in arrays if "train" not in name)]),
        (summarize, [], [*tables, WARMED_UP, *SWEPT, *(name for name in others if "evaluation" in name)]),
        (plot, [], ["plots/curves.csv", "plots/confusion.csv"]),
        (report, [], [f"plots/{name}.csv" for name in ("curves", "warmup", "sweep")]),
        (report, [], ["metrics/summary.json", "metrics/claims.json", "metrics/environment.json"]),
    ]
    cases = [
        (module, argv, name, what, damage)
        for module, argv, names in reads
        for name in sorted(names)
        for what, damage in damages(setting.random).items()
        if name.startswith("data/") or what != "a flipped bit"  # in a table or a weight only DVC can tell
    ]
    for module, argv, name, what, damage in setting.some(setting.random.sample(cases, 120)):
        path, other = study / name, study / others.get(name, "params.yaml")
        content = path.read_bytes()
        put(path, damage(content, other.read_bytes()))
        ended = call(study, module.main, *argv)
        put(path, content)
        # A table cut in half may still be one: only DVC, which hashes it, can tell.
        alike = name.endswith(".csv") and what == "cut in half"
        wrong = ended.clear() if alike else ended.faults("data/prepared/" if name.endswith("SUMS") else name)
        wrong += [f"afterwards {difference}" for difference in differences(study, setting.study()) if not alike]
        yield row, f"{name} for {module.__name__}, {what}", wrong
        if wrong or alike:
            shutil.rmtree(study)
            study = setting.copy(setting.study(), "inputs")
    images, labels = (np.load(study / f"data/prepared/train_{what}.npy") for what in ("images", "labels"))
    forged = {
        "images of 27 rows": ("images", images[:, 1:]),
        "images of one number each": ("images", images[:, 0, 0]),
        "no images": ("images", images[:0]),
        "images of float32": ("images", images.astype(np.float32)),
        "one label less": ("labels", labels[1:]),
        "a label 10": ("labels", np.where(labels == 9, 10, labels).astype(np.uint8)),
        "objects": ("labels", labels.astype(object)),
    }
    sums = (study / "data/prepared/SHA256SUMS").read_text()
    for what, (kind, array) in setting.some(list(forged.items())):
        path = study / f"data/prepared/train_{kind}.npy"
        content = path.read_bytes()
        path.write_bytes(npy(array))
        hashes = [hashlib.sha256(text).hexdigest() for text in (content, path.read_bytes())]
        (study / "data/prepared/SHA256SUMS").write_text(sums.replace(*hashes))
        yield row, f"{path.name} with a sum that fits: {what}", call(study, train.main, *TRAIN).faults(path.name)
        path.write_bytes(content)
    (study / "data/prepared/SHA256SUMS").write_text(sums)


def damaged_states(setting: Setting) -> Iterator[Case]:
    """The saved state of a killed training, damaged: told, set aside or refused, and never gone on from."""
    row = "damaged checkpoints"
    original, killed = (setting.copy(setting.data(), name) for name in ("states whole", "states"))
    for folder in (original, killed):
        write_params(folder, tree(6, train__evaluate_every=6, runtime__checkpoint_every=2))
    assert call(original, train.main, *TRAIN).code == 0
    for argv in (TRAIN, PLAIN):
        call(killed, train.main, *argv, first=dying(3, 1))
    state, other = (killed / f"checkpoints/train/{name}/0.state" for name in ("batch_norm", "plain"))
    content = state.read_bytes()
    for what, damage in setting.some(list(damages(setting.random).items()) * 2):
        folder = setting.copy(killed, "states damaged")
        path = folder / state.relative_to(killed)
        put(path, damage(content, other.read_bytes()))
        ended = call(folder, train.main, *TRAIN)
        if path.is_dir():
            faults = ended.faults("checkpoints/train/batch_norm/0.state")
        else:
            shutil.rmtree(folder / "checkpoints")
            faults = ended.faults("checkpoints/train/batch_norm/0.state: is ", code=0) + differences(folder, original)
        faults += ["it went on from a damaged state"] * ("going on after" in ended.text)
        yield row, what, faults
        shutil.rmtree(folder)


def full_disk(setting: Setting) -> Iterator[Case]:
    """A small tmpfs over each folder that is written, and filled; then emptied, and `dvc repro` again."""
    places = [("data", "prepare", kb) for kb in (0, 4000)]
    places += [(name, "train@plain-0", 3000) for name in ("checkpoints", "models")]
    places += [(name, "train@plain-0", 0) for name in ("metrics/history", "logs")]
    for name, target, kb in setting.some(places):
        study = setting.copy(setting.study(), "full")
        forget(study, *((("fetch", "prepare")) if name != "data" else ()))
        where, filler = study / name, study / name / "filler"
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir(parents=True)
        mounted = command(study, "mount", "-t", "tmpfs", "-o", "size=64m", "bnstudy-torture", str(where))
        if mounted.code:
            raise NotTriedError(f"needs root, to mount a tmpfs: {mounted.text.strip()}")
        try:
            with filler.open("wb", 0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))
            os.truncate(filler, filler.stat().st_size - kb * 1024)
            (study / ".git/printed").unlink()
            ended = Ended(dvc(study, target).wait(600), printed(study))
            faults = ended.faults(f"'{name}/", "No space left on device", code=255)
            whole = files(setting.study())
            faults += [
                f"{path} is left half-written"
                for path, content in files(study).items()
                if content != whole.get(path)
                if path not in ("dvc.lock", f"{name}/filler") and not path.endswith(".state")
            ]
            filler.unlink()
            code = dvc(study, target).wait(600)
            faults += [f"with room again: exit status {code}: {printed(study)[-200:]}"] * bool(code)
            made = {"prepare": "data/", "train@plain-0": "plain/0."}[target]
            faults += [f"with room again: {lost}" for lost in differences(study, setting.study()) if made in lost]
            yield "a full disk", f"{name} with {kb} KB left", faults
        finally:
            command(study, "umount", str(where))
            shutil.rmtree(study)


class NotTriedError(Exception):
    """What a row needs is not here."""


RAW = (
    *("1e-3", "1e400", ".nan", ".inf", "-.inf", "-1", "0", "-0.0", "1e308", "5e-324", "010", "0x1F", "1_0", "1:30"),
    *("~", "on", "'x'", "''", "../x", "/etc/passwd", "a b", "é", "$(touch pwned)", "[]", "[[]]", "{}", "[.nan]"),
    *("[~]", "{a: b}", "2001-01-01", "2001-99-99", "&a [*a]", "&a {b: *a}", "*x", "<<", "=", "!!int ''", "!!float ''"),
    *("!!bool x", "!!timestamp x", "!!set {a}", "!!omap [a]", "!!binary x", "!!python/object:os.system {}", "'", "["),
    *('"\\0"', '"\\ud800"', '"a\\nb"', "a: b", "\t", "|", "%", "@", "9" * 30, "9" * 5000, "0x" + "f" * 6000),
    *("[0, 0]", "[" * 900, "[" * 200 + "]" * 200, "x" * 100_000, "{a: 1, a: 2}", "[" + "1, " * 3000 + "]", "\u202e"),
)
ANCHORS = "[&a0 [x, x], " + ", ".join(f"&a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)) + "]"


def key_paths(at: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    below = [path for key, value in at.items() if isinstance(value, dict) for path in key_paths(value, (*above, key))]
    return [(*above, key) for key in at] + below


def mutant(choose: random.Random) -> tuple[str, str | bytes, str]:
    """What was done to params.yaml, its new content, and a text that the message must have if it is refused."""
    changed = tree()
    path = choose.choice(key_paths(changed))
    at = changed
    for key in path[:-1]:
        at = at[key]
    kind = choose.choice(["value", "value", "value", "missing", "misspelt", "unknown", "twice", "bytes", "cut", "bomb"])
    text = yaml.safe_dump(changed, sort_keys=False)
    if kind in ("value", "bomb"):
        raw, at[path[-1]] = ANCHORS if kind == "bomb" else choose.choice(RAW), "@@"
        return f"{'.'.join(path)}: {raw[:40]}", yaml.safe_dump(changed, sort_keys=False).replace("'@@'", raw), ""
    if kind == "missing":
        del at[path[-1]]
        return f"no {'.'.join(path)}", yaml.safe_dump(changed, sort_keys=False), path[-1]
    if kind in ("misspelt", "unknown"):
        i = choose.randrange(len(path[-1]) - 1) if len(path[-1]) > 1 else 0
        wrong = path[-1][:i] + path[-1][i + 1 :] if kind == "misspelt" else choose.choice(["é", "../x", "a b", "_"])
        named = path[0] in ("variants", "rates") and len(path) == 2  # names of the reader's own
        if kind == "misspelt":
            del at[path[-1]]
        at[wrong] = 1
        hint = f"did you mean {path[-1]}?" if kind == "misspelt" and not named else ""
        return f"{'.'.join((*path[:-1], wrong))} for {path[-1]}", yaml.safe_dump(changed, sort_keys=False), hint
    if kind == "twice":
        line = choose.choice([line for line in text.splitlines() if line.endswith(":") or ": " in line])
        return f"twice {line}", text.replace(line, f"{line}\n{line}", 1), ""
    if kind == "bytes":
        content = bytearray(text.encode())
        for _ in range(choose.randrange(1, 9)):
            content[choose.randrange(len(content))] = choose.randrange(256)
        return f"bytes {hashlib.sha256(content).hexdigest()[:8]}", bytes(content), ""
    length = choose.choice([0, choose.randrange(len(text))])
    return f"cut after {length}", text[:length] or choose.choice(["", "\0", "[]", "~", "%", "\ufeff", "---\n---\n"]), ""


def parameters(setting: Setting) -> Iterator[Case]:
    """params.yaml changed at random: taken or refused, in words, within a second; and so by the real commands."""
    folder, choose = setting.copy(setting.data(), "parameters"), setting.random
    before, refused = files(folder), []

    for _ in range(setting.cases or 600):
        name, content, hint = mutant(choose)
        write_params(folder, content)
        started, faults = time.monotonic(), list[str]()
        signal.signal(signal.SIGALRM, too_slow)
        signal.alarm(3)
        try:
            load(folder / "params.yaml")
        except BadInput as error:
            refused.append((name, content))
            faults += [f"no {hint!r} in: {error}"] * (hint not in str(error))
            faults += ["an unprintable message"] * (not str(error).isprintable() and "\n" not in str(error))
        except Exception as error:
            faults.append(f"a traceback: {error!r}"[:200])
        finally:
            signal.alarm(0)
        seconds = time.monotonic() - started
        faults += [f"{seconds:.1f} s"] * (seconds > 1)
        yield "params.yaml changed at random", name, faults
    for name, content in choose.sample(refused, min(len(refused), setting.cases or 24)):
        write_params(folder, content)
        module = choose.choice(STAGES)
        argv = {train: TRAIN, warmup: ["--seed", "0"], evaluate: TRAIN[:2], sweep: [*TRAIN[:2], "--batch-size", "16"]}
        ended = command(folder, sys.executable, "-m", module.__name__, *argv.get(module, []))
        faults = ended.faults("params.yaml") + ["it wrote"] * (files(folder).keys() != before.keys())
        yield "bad params.yaml, the real command", f"{name} for {module.__name__}", faults


def too_slow(*_: object) -> None:
    raise TimeoutError("more than 3 s")


def extremes(setting: Setting) -> Iterator[Case]:
    """Values at the ends of what is allowed, and bad arguments: the stage runs, or refuses them in words."""
    folder = setting.copy(setting.data(), "extremes")
    values: dict[str, list[Any]] = {
        "train__initial_accumulator": [5e-324, 1e39, 1e308],
        "train__learning_rate__initial": [5e-324, 1e39, 1e308],
        "train__learning_rate__decay_rate": [5e-324, 1.0],
        "train__learning_rate__decay_steps": [1, 10**400],
        "train__keep_prob": [5e-324, 1e-8, 1.0],
        "train__batch_size": [2, 60_000],
        "train__steps": [1, 10**400],
        "train__evaluate_every": [1, 10**400],
        "variants__batch_norm__epsilon": [5e-324, 1e39, 1e308],
        "variants__batch_norm__decay": [0, 1],
        "runtime__threads": [100_000, 2**31, 10**30],
        "runtime__checkpoint_every": [1, 10**400],
        "runtime__memory_fraction": [5e-324],
        "runtime__device": ["cuda:999", "mps"],
        "warmup__steps": [1, 10**9],
        "warmup__evaluate_every": [1, 10**400],
        "warmup__precise_images": [2, 1001, 10**30],
        "warmup__decays": [[0.0], [5e-324, 1.0]],
    }
    for path, value in setting.some([(path, value) for path, options in values.items() for value in options]):
        write_params(folder, tree(4, **{path: value}))
        main, argv = (warmup.main, ["--seed", "0"]) if path.startswith("warmup") else (train.main, TRAIN)
        ended = call(folder, main, *argv, seconds=6)
        yield "extreme parameters", f"{path.replace('__', '.')}: {str(value)[:20]}", ended.clear()
    write_params(folder, tree(2))
    seeds, rates, sizes = (-1, 10**30, "x", "", "1.5", "nan"), ("nan", "inf", -1, 0, "x"), (-1, 0, 1, 10**8, "x", "1.5")
    arguments: list[tuple[ModuleType, str, str]] = [
        *((train, "--variant=plain", f"--seed={seed}") for seed in seeds),
        *((train, "--seed=0", f"--variant={name}") for name in ("../x", "", "é", "x;y", "plane")),
        *((sweep, "--variant=plain", f"--learning-rate={rate}") for rate in rates),
        *((sweep, "--variant=plain", f"--batch-size={size}") for size in sizes),
        *((sweep, "--batch-size=16", f"--variant={name}") for name in ("../x", "plane")),
    ]
    for module, right, wrong in setting.some(arguments):
        ended = call(folder, module.main, right, wrong, seconds=20)
        faults = ended.faults(wrong.split("=")[0], code=2 if ended.code == 2 else 1)
        yield "bad arguments", f"{module.__name__} {right} {wrong}", faults


def bad_study(setting: Setting) -> Iterator[Case]:
    """Bad parameters, `dvc repro`: a message, before anything is run or deleted."""
    study, network = setting.copy(setting.study(), "bad study"), COMMITTED["variants"]["plain"]
    names = ("$(touch pwned)", "; touch pwned", "../x", "/x", "a b", "é", "Plain")
    changes: list[dict[str, Any]] = [
        *({"study__variants": ["plain", name], f"variants__{name}": network, f"rates__{name}": None} for name in names),
        *({"study__variants": value} for value in (["plane"], "plain", [])),
        *({"study__seeds": value} for value in ([0, 0], [], ["0; touch pwned"], [-1], 0)),
        *({"train__learning_rate__initial": value} for value in (float("nan"), "1e-3", -1)),
        *({"sweep__learning_rates": value} for value in (["$(touch pwned)"], [1, 1.0], [float("inf")])),
        *({key: "x"} for key in ("train__stepz", "data__source", "warmup__variant", "summarize__confidence", "plot")),
    ]
    for change in setting.some(changes):
        write_params(study, tree(**change))
        (study / ".git/printed").unlink()
        code = dvc(study).wait(600)
        text = printed(study)
        write_params(study, tree())
        faults = differences(study, setting.study())
        faults += ["exit status 0"] * (code == 0) + ["a traceback"] * ("Traceback" in text)
        yield "bad params.yaml, `dvc repro`: nothing deleted", str(change)[:60], faults
        if faults:
            shutil.rmtree(study)
            study = setting.copy(setting.study(), "bad study")


def side_by_side(setting: Setting) -> Iterator[Case]:
    """A second `dvc repro` beside a running one."""
    targets = ["train@batch_norm-0", "train@plain-0"]
    for seconds in setting.some([1, 5]):
        study = setting.copy(setting.study(), f"two {seconds}")
        forget(study, "fetch", "prepare")
        (study / ".git/printed").unlink()
        first = dvc(study, *targets)
        time.sleep(seconds)
        codes = [dvc(study, *targets).wait(600), first.wait(600)]
        text = printed(study)
        wrong = [f"{name} ran {n} times" for name in targets if (n := text.count(f"Running stage '{name}'")) > 1]
        wrong += [f"both failed: {text[-300:]}"] * all(codes) + ["a traceback"] * ("Traceback" in text)
        wrong += [f"exit status {code} of the next" for code in [dvc(study, *targets).wait(600)] if code]
        made = ("models/", "metrics/history", "checkpoints/")
        wrong += [fault for fault in differences(study, setting.study()) if fault.startswith(made)]
        yield "two `dvc repro` at once", f"{seconds} s apart", wrong
        shutil.rmtree(study)


class Liar(Mirror):
    """The mirrors of the tests, and one more."""

    def do_bomb(self, what: str, name: str) -> None:
        self.answer(200, BOMB)


BOMB = gzip.compress(bytes(500_000_000))


def mirrors(setting: Setting) -> Iterator[Case]:
    """Each misbehaviour of tests/test_fetch.py and a gzip bomb with the right md5 sum, in a process of its own."""
    folder = setting.folder / "mirrors"
    folder.mkdir()
    write_params(folder, tree(data__source="mnist"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Liar)
    Mirror.archives, Mirror.asked = {}, []
    Mirror.end = multiprocessing.Event()  # type: ignore[assignment]
    serving = multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True)
    serving.start()
    address = f"http://127.0.0.1:{server.server_port}"
    places = [*(f"{address}/{fault}" for fault in FAULTS), f"{address}/bomb", "file:///no/such/folder", "file:///dev"]
    refused = ["http://mirror.invalid/", "ftp://127.0.0.1/", "/etc", "gopher://x", "file://host/x", "https//x", "é"]
    try:
        for place in setting.some([*places, *refused]):

            def alone(place: str = place) -> None:
                os.environ["BNSTUDY_MIRROR"] = place
                MNIST.mirrors = []
                if place.endswith("bomb"):  # of an md5 that fits
                    MNIST.resources = [(name, hashlib.md5(BOMB).hexdigest()) for name, _ in MNIST.resources]
                fetch.TIMEOUT_S, fetch.DEADLINE_S = 0.5, 2.0
                used = psutil.Process().memory_info().vms
                resource.setrlimit(resource.RLIMIT_AS, (used + 150_000_000,) * 2)

            ended = call(folder, fetch.main, first=alone, seconds=60)
            left = [str(path) for path in (folder / "data").rglob("*")] if (folder / "data").exists() else []
            yield "bad mirrors", place.replace(address, ""), ended.faults(place) + [f"{path} is left" for path in left]
    finally:
        serving.kill()
        server.server_close()


def divergence(setting: Setting) -> Iterator[Case]:
    """A learning rate that nothing bears: `train` and `warmup` say so and write nothing; `sweep` records it."""
    folder = setting.copy(setting.data(), "divergence")
    for name in ("plain", "batch_norm"):
        write_params(folder, tree(8, **{f"rates__{name}": 1e35}))
        row, said = "divergence", ("step ", name, "is not finite")
        outputs = ("models", "metrics")
        for main, argv in [(train.main, ["--variant", name, "--seed", "0"]), (warmup.main, ["--seed", "0"])]:
            if main is train.main or name == "batch_norm":
                ended = call(folder, main, *argv)
                left = [f"{path} is written" for path in outputs if (folder / path).exists()]
                yield row, f"{main.__module__} of {name}", ended.faults(*said) + left
                for path in outputs:
                    shutil.rmtree(folder / path, ignore_errors=True)
        ended = call(folder, sweep.main, "--variant", name, "--learning-rate", "1e35")
        table = (folder / f"metrics/sweep/{name}/rate_1e+35.csv").read_text() if ended.code == 0 else ""
        recorded = [line.split(",")[4] for line in table.splitlines()[1:]] == ["1"]
        yield row, f"sweep of {name}", ended.faults(code=0) + ["it is not recorded"] * (not recorded)
        shutil.rmtree(folder / "metrics", ignore_errors=True)


ROWS: dict[str, Callable[[Setting], Iterator[Case]]] = {
    "kills": kills,
    "saves": saves,
    "outputs": damaged_study,
    "inputs": damaged_inputs,
    "states": damaged_states,
    "disk": full_disk,
    "parameters": parameters,
    "extremes": extremes,
    "study": bad_study,
    "two": side_by_side,
    "mirrors": mirrors,
    "divergence": divergence,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--cases", type=int, help="at most so many of each other row, picked at random")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    tried, survived, notes = Counter[str](), Counter[str](), dict[str, str]()
    with TemporaryDirectory(prefix="bnstudy-torture-") as folder:
        setting = Setting(Path(folder), random.Random(arguments.seed), arguments.kills, arguments.cases)
        for name in arguments.only:
            started = time.monotonic()
            print(f"{name}: {(ROWS[name].__doc__ or '').strip()}", flush=True)
            try:
                for row, what, faults in ROWS[name](setting):
                    tried[row] += 1
                    survived[row] += not faults
                    if faults:
                        print(f"  NOT survived: {what}: {'; '.join(faults)[:400]}", flush=True)
                    elif name == "kills":
                        print(f"  {what}", flush=True)
            except NotTriedError as why:
                notes[name] = str(why)
            finally:
                for left in [process for session in STARTED for process in members(session)]:
                    left.kill()
            print(f"  {time.monotonic() - started:.0f} s", flush=True)
    print("\n| what was tried | how many | survived |\n| --- | --: | --: |")
    for row, count in tried.items():
        print(f"| {row} | {count} | {survived[row]} |")
    for name, note in notes.items():
        print(f"| {name} | 0 | not tried: {note} |")
    sys.exit(tried != survived)


if __name__ == "__main__":
    main()
