"""What the study is put through, and whether it survives: `make torture`, in a quarter of an hour.

    python tools/torture.py [--kills 20] [--seed 7] [--only kills saves] [--cases 10]

The real stages and the real DVC, on the sample, in folders of their own. Prints what did not survive and a table, and
exits with 1 if there was any. Two rows go on at a time; random choices come from the row and from the seed that is
printed first. Mirrors that lie, random parameters, variables that change bits, and damaged inputs and saved states of a
single stage are in tests/.
"""

import argparse
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
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, NamedTuple

import psutil
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import fetch
import prepare
import train
import verify
from bnstudy import files, run
from bnstudy.params import load
from bnstudy.settings import setting as setting_of
from conftest import ENVIRONMENT, ROOT, clone, once, write_params

STARTED: list[int] = []  # sessions
Case = tuple[str, str, list[str]]  # the row of the table, what was tried, and what was wrong with how it ended
Main = Callable[[], None]
COMMITTED: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
TRAIN = ["note_plain", "10"]
STAGE, MODEL = "train@note_plain-10", "models/train/note_plain/10.safetensors"
KEPT = ("check", "fetch", "prepare")
NOT_MADE = (".git/", ".dvc/", "src/", "tools/", "data/first_version/")
STUDY = ("make", "--silent", "--old-file=.venv/study", "study", "JOBS=2")


class Setting(NamedTuple):
    folder: Path
    random: random.Random
    kills: int
    cases: int | None

    def some(self, cases: list[Any]) -> list[Any]:
        """All of `cases` in a random order, or as many as were asked for."""
        return self.random.sample(cases, min(len(cases), self.cases or len(cases)))

    def data(self) -> Path:
        """A folder with the sample's data, small parameters and the setting of `TRAIN`."""

        def make(folder: Path) -> None:
            folder.mkdir()
            configure(folder)
            for main in (fetch.main, prepare.main):
                ended = call(folder, main)
                assert not ended.code, ended.text

        return once(self.folder / "data only", make)

    def study(self) -> Path:
        """The study reproduced without interruption, with the tools."""

        def make(folder: Path) -> None:
            clone(folder)
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / "tools", folder / "tools", ignore=ignored, dirs_exist_ok=True)
            shutil.copy(ROOT / "Makefile", folder)
            configure(folder)
            assert not dvc(folder).wait(600), printed(folder)

        return once(self.folder / "study", make)

    def copy(self, original: Path, name: str) -> Path:
        return Path(shutil.copytree(original, self.folder / name, symlinks=True))


def configure(folder: Path, steps: int = 100, checkpoint_every: int = 5) -> None:
    """params.yaml, cut down until a training takes seconds, and without a pipeline the setting of `TRAIN`."""
    short, seeds = {"steps": steps // 2, "seeds": [100]}, {"seeds": [10]}
    arms = {name: arm | {"steps": steps} for name, arm in COMMITTED["arms"].items()}
    write_params(
        folder,
        data={"source": "sample", "validation_size": 500},
        train={"batch_size": 32},
        evaluation={"per_decade": 4, "moments": [50]},
        sweep=short | {"networks": ["plain", "batch_norm"], "learning_rates": [0.01, 0.1]},
        refine=short | {"finalists": ["without", "everywhere"], "factors": [1.0]},
        study={"seeds": [10], "arms": ["note_plain", "everywhere"]},
        arms=arms,
        averages={"steps": steps, "images": 100, "precise_images": 100, "decays": [0.0, 0.95, 0.999, 1.0]},
        long={"steps": steps, "arm_seeds": [10], "averages_seeds": [10]},
        mechanism=seeds | {"points": 3},
        tolerance={"steps": steps // 2, "learning_rates": [0.1]},
        batch=seeds | {"images": 1000, "tuning_images": 100, "sizes": [16], "factors": [1.0]},
        runtime={"checkpoint_every": checkpoint_every},
    )
    if not (folder / "dvc.yaml").exists():
        setting = setting_of(load(folder / "params.yaml"), "plain", 0.1, steps)
        files.write(folder / f"settings/train/{TRAIN[0]}/{TRAIN[1]}.json", setting.to_bytes())


class Ended(NamedTuple):
    code: int | None  # None: it was still running, and was ended
    text: str

    def faults(self, *names: str, code: int | None = 1) -> list[str]:
        """Nothing, if it ended with `code` and, where that says failure, a message that has all `names`."""
        lines = self.text.replace("\r", "\n").strip().splitlines()
        last = lines[-1] if lines else ""
        wrong = [f"no message that names {name}: {last}" for name in names if name not in self.text]
        if self.code != code:
            wrong.append(f"exit status {self.code}, not {code}: {last}")
        if "Traceback" in self.text:
            wrong.append(f"a traceback: {last}")
        if code == 1 and "error: " not in self.text:
            wrong.append("no line `error: …`")
        return wrong


def call(folder: Path, main: Main, *argv: str, first: Main = lambda: None) -> Ended:
    """Run a stage's real `main` in `folder`, in a child that has all modules imported already; `first` before it."""
    output = folder / ".printed"

    def inside() -> None:
        os.chdir(folder)
        sys.argv = [main.__module__, *argv]
        with output.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        first()
        run(main)

    process = multiprocessing.get_context("fork").Process(target=inside)
    process.start()
    process.join(120)
    code = process.exitcode
    process.kill()
    return Ended(code, output.read_text(errors="replace"))


def command(folder: Path, *words: str) -> Ended:
    """Run `words` in `folder` as a person would."""
    done = subprocess.run(words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    return Ended(done.returncode, done.stdout + done.stderr)


def start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start `words` in a session of their own; what they print is appended to a file, see `printed`."""
    with (folder / ".git/printed").open("ab") as file:
        process = subprocess.Popen(words, cwd=folder, env=ENVIRONMENT, stdout=file, stderr=file, start_new_session=True)
    STARTED.append(process.pid)
    return process


def dvc(folder: Path, *targets: str) -> subprocess.Popen[bytes]:
    return start(folder, "dvc", "repro", *targets)


def printed(folder: Path) -> str:
    return (folder / ".git/printed").read_text(errors="replace").replace("\r", "\n")


def members(session: int) -> list[psutil.Process]:
    """The processes of a session that run."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def until(condition: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def outcome(folder: Path) -> dict[str, object]:
    """The files that the same study must leave the same: not logs, nor the states of runs that have finished."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        extra = name.startswith("logs/") and path.suffix in (".json", ".log")
        extra = extra or path.suffix == ".finished" or path.name in (".gitignore", ".printed")
        if path.is_file() and not extra and not name.startswith(NOT_MADE):
            found[name] = yaml.safe_load(path.read_bytes()) if name == "dvc.lock" else path.read_bytes()
    return found


def differences(folder: Path, original: Path) -> list[str]:
    found, expected = outcome(folder), outcome(original)
    what = {True: "is missing", False: "is left over"}
    names = [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]
    both = found.keys() & expected.keys()
    return [f"{name} {'has other bytes' if name in both else what[name in expected]}" for name in names]


def forget(study: Path, *kept: str) -> None:
    """Leave of the results only those of the stages `kept`, for DVC to make the others."""
    for name in ("models", "metrics", "settings", "plots", "report", "checkpoints", ".dvc/cache/runs"):
        shutil.rmtree(study / name, ignore_errors=True)
    lock = yaml.safe_load((study / "dvc.lock").read_text())
    lock["stages"] = {name: lock["stages"][name] for name in kept}
    (study / "dvc.lock").write_text(yaml.safe_dump(lock))


def kills(setting: Setting, words: tuple[str, ...] = ("dvc", "repro")) -> Iterator[Case]:
    """SIGKILL, SIGTERM and SIGINT to a stage, DVC or all at once, at random moments.

    Of `make study`, whose trainings run side by side, also to make and to the launcher alone.
    """
    row, choose, whole = f"kills of `{words[0]}`", setting.random, setting.study()
    study = setting.copy(whole, f"killed {words[0]}")
    forget(study, *KEPT)
    done = since = failed = 0
    process = start(study, *words)
    while since or done < setting.kills:
        if done < setting.kills:
            at_once = choose.random() < 0.2  # also while DVC starts, or between two stages
            running = process
            until(lambda: at_once or running.poll() is not None or "a stage" in victims(running.pid), 30)  # noqa: B023
            until(lambda: running.poll() is not None, choose.uniform(0, 6))  # noqa: B023
        else:
            process.wait(600)
        if process.poll() is None:
            done, since = done + 1, since + 1
            yield row, *one_kill(process, choose)
        if process.poll() is None:
            continue
        if process.returncode == 0:
            left = [f"{path} is left" for path in (study / "checkpoints").rglob("*.finished")]
            yield f"{row}: the bytes in the end", f"after {since} kills", differences(study, whole) + left
            forget(study, *KEPT)
            since = 0
        elif done >= setting.kills:
            failed += 1
            if failed > 3:
                yield f"{row}: the bytes in the end", f"after {since} kills", [f"it fails: {printed(study)[-300:]}"]
                break
        if since or done < setting.kills:
            lock = study / ".dvc/tmp/rwlock"
            # DVC itself does not write it whole or not at all.
            if lock.exists() and not lock.read_bytes().endswith(b"}"):
                lock.unlink()
                yield f"{row}: DVC's .dvc/tmp/rwlock cut short, and removed by hand", "", []
            process = start(study, *words)
    if words[0] == "dvc":
        print(f"  {printed(study).count('going on after step')} times a run went on from a saved state")


def victims(session: int) -> dict[str, list[psutil.Process]]:
    """The processes of a session by what they are, without the shells between them."""
    found: dict[str, list[psutil.Process]] = {}
    for process in members(session):
        with suppress(psutil.NoSuchProcess):
            words = [*process.cmdline(), "", ""]
            kinds = {
                "a stage": words[1].startswith("src/"),
                "the launcher": words[1].endswith("side_by_side.py"),
                "DVC": "repro" in words,
                "make": words[0] == "make",
            }
            for kind in [kind for kind, fits in kinds.items() if fits]:
                found.setdefault(kind, []).append(process)
    return found


def one_kill(process: subprocess.Popen[bytes], choose: random.Random) -> tuple[str, list[str]]:
    """Send a random signal to one or all of the processes of a session; what was wrong with how it ended."""
    number = choose.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    found = victims(process.pid)
    target = choose.choice(["all", *sorted(found)])
    stages = ", ".join(" ".join(stage.cmdline()[1:]) for stage in found.get("a stage", []) if stage.is_running())
    what = f"{number.name} to {target} during {stages or 'no stage'}"
    with suppress(psutil.NoSuchProcess, ProcessLookupError):  # it may just have ended
        if target == "all":
            os.killpg(process.pid, number)
        else:
            choose.choice(found[target]).send_signal(number)
    if target != "all" and process.args[0] == "make":  # type: ignore[index]
        until(lambda: process.poll() is not None, 3)
        return what, []  # the others may go on, and the next one waits for them
    if target == "DVC" and number == signal.SIGINT and not until(lambda: process.poll() is not None, 3):
        return f"{what}, which leaves it to the stage", []
    if until(lambda: process.poll() is not None and not members(process.pid), 20):
        return what, []
    return what, [f"still runs after 20 s: {left.pid}" for left in members(process.pid)]


def in_write(found: Callable[[int, int, FrameType], None]) -> None:
    """From now on in this process: `found` before each line of `files.write`, with the numbers of call and line."""
    calls = lines = 0

    def line(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if event == "line":
            lines += 1
            found(calls, lines, frame)
        return line

    def call_(frame: FrameType, *_: object) -> Any:
        nonlocal calls, lines
        if frame.f_code is not files.write.__code__:
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
    """A training killed before each line of `files.write`, and with half of the bytes written; then run again."""
    row = "kills in the middle of a write"
    start = setting.copy(setting.data(), "saves")
    configure(start, 6, checkpoint_every=2)
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


def full_disk(setting: Setting) -> Iterator[Case]:
    """A small tmpfs over each folder that is written, and filled; then emptied, and `dvc repro` again."""
    places = [("data", "prepare", kb) for kb in (0, 4000)]
    places += [(name, STAGE, 3000) for name in ("checkpoints", "models")]
    places += [(name, STAGE, 0) for name in ("metrics/train", "logs")]
    for name, target, kb in setting.some(places):
        words = [target] if target == "prepare" else ["--single-item", target]  # its settings are there
        study = setting.copy(setting.study(), "full")
        forget(study, *(KEPT if name != "data" else ()))
        shutil.copytree(setting.study() / "settings", study / "settings")
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
            ended = Ended(dvc(study, *words).wait(600), printed(study))
            faults = ended.faults(f"'{name}/", "No space left on device", code=255)
            whole = outcome(setting.study())
            faults += [
                f"{path} is left half-written"
                for path, content in outcome(study).items()
                if content != whole.get(path)
                if path not in ("dvc.lock", f"{name}/filler") and not path.endswith(".state")
            ]
            filler.unlink()
            code = dvc(study, *words).wait(600)
            if code:
                faults.append(f"with room again: exit status {code}: {printed(study)[-200:]}")
            made = {"prepare": "data/", STAGE: "note_plain/10."}[target]
            faults += [f"with room again: {lost}" for lost in differences(study, setting.study()) if made in lost]
            yield "a full disk", f"{name} with {kb} KB left", faults
        finally:
            command(study, "umount", str(where))
            shutil.rmtree(study)


class NotTriedError(Exception):  # what a row needs is not here
    pass


def forged_compiled(setting: Setting) -> Iterator[Case]:
    """What Numba keeps of its compiled loops, forged: found by what verify trains again."""
    study = setting.copy(setting.study(), "poisoned")
    code = study / "src/bnstudy/engine/fast_cpu.py"
    text, when = code.read_text(), code.stat()
    forged = text.replace("= high - m, low", "= high - m, -low")
    assert forged != text
    kept_by_name = {path: path.read_bytes() for path in (code.parent / "__pycache__").glob("*.nbi")}
    shutil.rmtree(code.parent / "__pycache__")
    code.write_text(forged)
    ended = command(study, sys.executable, "src/train.py", *TRAIN)
    code.write_text(text)
    os.utime(code, ns=(when.st_atime_ns, when.st_mtime_ns))
    for path in (code.parent / "__pycache__").glob("fast_cpu*.pyc"):
        path.unlink()
    for path, content in kept_by_name.items():  # they say: this is what the true code was compiled to
        path.write_bytes(content)
    shutil.rmtree(study / "checkpoints", ignore_errors=True)
    made = dvc(study, "--force", "--single-item", STAGE).wait(600)
    wrong = [] if (study / MODEL).read_bytes() != (setting.study() / MODEL).read_bytes() else ["not poisoned"]
    told = call(study, lambda: print(verify.run_again(verify.read_study(), STAGE, Path(".dvc/tmp"))))
    if made or ended.code or "FAILED" not in told.text:
        wrong.append(f"verify says {told.text.strip()[-200:]}")
    yield "forged loops in Numba's cache, `make verify`", "another sign in pooling", wrong


ROWS: dict[str, Callable[[Setting], Iterator[Case]]] = {
    "kills": kills,
    "study_kills": partial(kills, words=STUDY),
    "saves": saves,
    "compiled": forged_compiled,
    "disk": full_disk,
}


def torture(name: str, setting: Setting) -> tuple[list[Case], str]:
    """One row of the table, or several: its cases, and why it was not tried, if so."""
    started, cases, why = time.monotonic(), list[Case](), ""
    try:
        for case in ROWS[name](setting):
            cases.append(case)
            _, what, faults = case
            if faults:
                print(f"{name}: NOT survived: {what}: {'; '.join(faults)[:400]}", flush=True)
            elif "kills" in name:
                print(f"{name}: {what}", flush=True)
    except NotTriedError as error:
        why = str(error)
    finally:
        for left in [process for session in STARTED for process in members(session)]:
            left.kill()
    print(f"{name}: {len(cases)} cases in {time.monotonic() - started:.0f} s", flush=True)
    return cases, why


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--cases", type=int, help="at most so many of each other row, picked at random")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    tried, survived, notes = Counter[str](), Counter[str](), dict[str, str]()
    with (
        TemporaryDirectory(prefix="bnstudy-torture-", ignore_cleanup_errors=True) as folder,
        ProcessPoolExecutor(2) as workers,
    ):
        ended = {}
        for name in arguments.only:
            choices = random.Random(f"{arguments.seed} {name}")
            setting = Setting(Path(folder), choices, arguments.kills, arguments.cases)
            ended[name] = workers.submit(torture, name, setting)
        try:
            for name, future in ended.items():
                cases, why = future.result()
                notes |= {name: why} if why else {}
                for row, _, faults in cases:
                    tried[row] += 1
                    survived[row] += not faults
        except KeyboardInterrupt:
            for worker in psutil.Process().children():
                worker.suspend()  # it would go on to the next row
            for process in psutil.Process().children(recursive=True):
                process.kill()
            sys.exit("interrupted; the folders that it worked in are removed")
    print("\n| what was tried | how many | survived |\n| --- | --: | --: |")
    for row, count in tried.items():
        print(f"| {row} | {count} | {survived[row]} |")
    for name, note in notes.items():
        print(f"| {name} | 0 | not tried: {note} |")
    sys.exit(tried != survived)


if __name__ == "__main__":
    main()
