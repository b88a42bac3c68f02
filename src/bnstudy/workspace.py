"""One stage in a workspace of its own: the driver's files, what the stage depends on, `dvc repro --single-item`.

Ray takes this module along, so that a worker needs no file of the study before it unpacks them. In a workspace,
`python -m bnstudy.workspace` runs its stage.
"""

import fcntl
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

JOB, RESULT, LOG = (f".dvc/tmp/launch.{name}" for name in ("job", "result", "log"))
LINE = re.compile(  # of `bnstudy.progress`
    r"^\S+: (?P<step>\d+) of (?P<steps>\d+) updates, "
    r"(?P<said>.+?)(, (?P<images>[\d,]+) images/s)?, (?P<left>\d+ min left)$",
    re.MULTILINE,
)
SECONDS = 2.0  # between two looks at a run's states; 0.5 of it: between two reports of a run


class Job(NamedTuple):
    """One stage, and what a workspace for it needs beside the driver's files."""

    stage: str
    records: dict[str, dict[str, Any]]  # by lock file, what it has of the stages that it depends on
    config: str  # .dvc/config.local
    remote: str
    threads: str | None  # the driver's OMP_NUM_THREADS


class Entry(NamedTuple):
    """A record in the run cache, of a stage that ran: `runs/<first two of key>/<key>/<value>`."""

    key: str
    value: str


class Result(NamedTuple):
    state: str  # done, restored, failed or stopped (by Ctrl-C)
    machine: str
    log: str = ""
    seconds: float = 0.0
    entry: Entry | None = None


class Board:
    """Where the runs say how far they are, and hear whether to stop."""

    def __init__(self) -> None:
        self.lines: dict[str, dict[str, str]] = {}
        self.stopping = False

    def report(self, stage: str, line: dict[str, str]) -> bool:
        self.lines[stage] = line
        return self.stopping

    def read(self) -> dict[str, dict[str, str]]:
        return self.lines

    def stop(self) -> None:
        self.stopping = True


def perform(job: Job, package: bytes, board: Any) -> Result:
    """The Ray task: run `job` in a new folder, removed at its end. A failure is a result too."""
    started, machine = time.time(), socket.gethostname()

    def stopping(line: dict[str, str]) -> bool:
        # Not ray.get: a task that waits so gives its processors to another one.
        return bool(board.report.remote(job.stage, {"machine": machine} | line).future().result())

    def result(state: str, log: str, entry: Entry | None = None) -> Result:
        return Result(state, machine, log, time.time() - started, entry)

    if stopping({}):
        return result("stopped", "")
    scratch = Path(tempfile.gettempdir(), f"bnstudy-{os.getuid()}")
    try:
        scratch.mkdir(exist_ok=True, mode=0o700)
        remove_abandoned(scratch)
        with new_folder(scratch) as (folder, held):
            unpack(folder, job, package, scratch)
            code = follow(folder, job, held, stopping)
            log = (folder / LOG).read_text(errors="replace")[-100_000:]
            if code == 0:
                return result(how(log), log, Entry(*json.loads((folder / RESULT).read_text())))
            return result("stopped" if code == -signal.SIGINT else "failed", log)
    except OSError as error:
        return result("failed", f"error: {machine}: {error}\n")


@contextmanager
def new_folder(scratch: Path) -> Iterator[tuple[Path, int]]:
    """A folder in `scratch`, removed at the end, and the descriptor of the lock that says that it is in use."""
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=scratch))
    with (folder / "new").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        (folder / "new").rename(folder / "held")  # only now, or another worker would take it for abandoned
        try:
            yield folder, held.fileno()
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(scratch: Path) -> None:
    """Remove workspaces whose processes were killed: nobody holds their lock any more."""
    for held in scratch.glob("run-*/held"):
        with suppress(OSError), held.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(held.parent, ignore_errors=True)


def unpack(folder: Path, job: Job, package: bytes, scratch: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        archive.extractall(folder, filter="data")
    for name in (".dvc/tmp", ".dvc/cache"):
        (folder / name).mkdir(exist_ok=True)
    (folder / ".dvc/config.local").write_text(job.config)
    for file, stages in job.records.items():
        (folder / file).write_text(json.dumps({"schema": "2.0", "stages": stages}))
    (folder / JOB).write_text(json.dumps(job._asdict()))
    (scratch / "files").mkdir(exist_ok=True)  # a machine keeps what it has fetched
    (folder / ".dvc/cache/files").symlink_to(scratch / "files")


def follow(folder: Path, job: Job, held: int, stopping: Callable[[dict[str, str]], bool]) -> int:
    """Run `work` in `folder`, and pass on its progress once a second; its exit status, or -2 if it was told to stop."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # Ray's, not ours
    environment |= {"OMP_NUM_THREADS": job.threads} if job.threads else {}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(folder / "src"),
        "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site"),
    }
    line, told = dict[str, str](), 0.0
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bnstudy.workspace"],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            process_group=0, pass_fds=[held],
        )  # fmt: skip
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    code = process.wait(SECONDS / 2)
                    return -signal.SIGINT if told and code else code
                line = last_line(folder / LOG) or line
                if stopping(line) and time.monotonic() - told > 60:  # a second signal ends a run unsaved
                    told = time.monotonic()
                    os.killpg(process.pid, signal.SIGINT)
        finally:
            if process.poll() is None:  # the driver is gone
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()


def last_line(log: Path) -> dict[str, str]:
    """The last line on progress in a log, by its parts; without any, nothing."""
    found = list(LINE.finditer(log.read_bytes()[-2000:].decode(errors="replace")))
    return found[-1].groupdict("") if found else {}


def how(log: str) -> str:
    """Whether a stage ran, by what DVC said, or came from the run cache."""
    return "restored" if "is cached - skipping run" in log else "done"


# In a workspace, in a process of its own.


def work() -> int:
    """Bring what the stage depends on, reproduce it alone, send its outputs and its record: objects first, so that
    whoever finds a record finds what it names. Returns the exit status.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # Ray blocks it
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    from dvc.cli import main as dvc
    from dvc.repo import Repo
    from dvc.stage.cache import _get_cache_hash, _get_stage_hash
    from dvc.stage.serialize import to_single_stage_lockfile

    job = Job(**json.loads(Path(JOB).read_text()))
    with Repo() as repo:
        [stage] = repo.stage.collect(job.stage)
        for out in needed(repo, stage):
            pull(repo, out.get_used_objs(remote=job.remote), job.remote)
            out.checkout(force=True)
        states = States(repo, job)
    code: int = dvc(["repro", "--pull", "--single-item", job.stage])
    states.close(finished=code == 0)
    if code:
        return code
    with Repo() as repo, repo.lock:
        [stage] = repo.stage.collect(job.stage)
        entry = Entry(_get_stage_hash(stage), _get_cache_hash(to_single_stage_lockfile(stage)))
        send(repo, repo.stage_cache.get_used_objs([entry]), job.remote)
        path = repo.stage_cache._get_cache_path(*entry)
        there = states.fs.join(states.root, "runs", entry.key[:2], entry.key)
        states.fs.makedirs(there, exist_ok=True)
        states.fs.put_file(path, states.fs.join(there, entry.value))
    Path(RESULT).write_text(json.dumps(entry))
    return 0


def end_with(parent: int) -> None:
    """When the Ray worker was killed, stop what it started: a training saves its state."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGTERM)


class States:
    """The resume states of a run, kept on the remote while it runs, for a worker that goes on elsewhere."""

    def __init__(self, repo: Any, job: Job) -> None:
        remote = repo.cloud.get_remote(job.remote)
        self.fs, self.root = remote.fs, remote.path
        self.path = self.fs.join(self.root, "states", re.sub("[/:]", "-", job.stage))
        self.sent: dict[Path, float] = {}
        if self.fs.exists(self.path):
            for source in self.fs.find(self.path):
                target = Path("checkpoints", self.fs.relpath(source, self.path))
                target.parent.mkdir(parents=True, exist_ok=True)
                self.fs.get_file(source, str(target))
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self) -> None:
        while not self.ended.wait(SECONDS):
            with suppress(Exception):  # a state that does not travel costs time, not results
                self.send()

    def send(self) -> None:
        for path in Path("checkpoints").rglob("*.state"):
            if self.sent.get(path) != (changed := path.stat().st_mtime):
                target = self.fs.join(self.path, path.relative_to("checkpoints").as_posix())
                self.fs.makedirs(self.fs.parent(target), exist_ok=True)
                self.fs.put_file(str(path), target + ".part")
                self.fs.move(target + ".part", target)
                self.sent[path] = changed

    def close(self, finished: bool) -> None:
        self.ended.set()
        self.thread.join()
        with suppress(Exception):
            if not finished:
                self.send()
            elif self.fs.exists(self.path):
                self.fs.remove(self.path, recursive=True)


# With DVC, on both sides.


def needed(repo: Any, stage: Any) -> list[Any]:
    """The outputs in the cache that `stage` depends on: one itself, one in a folder, or a folder of which a part."""
    paths = [Path(dep.fs_path) for dep in stage.deps]
    outs = [out for need in repo.index.graph.successors(stage) for out in need.outs if out.use_cache]
    return [
        out
        for out in outs
        if any(Path(out.fs_path).is_relative_to(path) or path.is_relative_to(out.fs_path) for path in paths)
    ]


def send(repo: Any, objects: dict[Any, Iterable[Any]], remote: str) -> None:
    for some in objects.values():
        if failed := repo.cloud.push(some, remote=remote).failed:
            raise OSError(f"{len(failed)} files could not be sent to the remote {remote}")


def pull(repo: Any, objects: dict[Any, Iterable[Any]], remote: str) -> None:
    for some in objects.values():
        if failed := repo.cloud.pull(some, remote=remote).failed:
            raise OSError(f"{len(failed)} files could not be brought from the remote {remote}")


if __name__ == "__main__":
    sys.exit(work())
