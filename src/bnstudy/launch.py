"""Run the stale stages of a pipeline side by side; then `dvc repro`, which finds them all in the cache.

python -m bnstudy.launch study/dvc.yaml                  in this folder, on all cores or GPUs of this machine
python -m bnstudy.launch study/dvc.yaml --remote NAME    in workspaces that share nothing but Ray and a DVC remote …
python -m bnstudy.launch study/dvc.yaml --remote NAME --address auto    … on a Ray cluster (its head's address, or auto)
python -m bnstudy.launch --machine                       this machine's kind, for `ray start --labels machine=KIND`
python -m bnstudy.launch study/dvc.yaml --list           the next stages to run, for a SLURM array

With --remote a run is one stage in a workspace of its own, see `bnstudy.workspace`. Stages with outputs that no cache
holds take seconds, and run here. See docs/scale.md.
"""

import argparse
import fcntl
import io
import json
import math
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import networkx as nx
import yaml
from configobj import ConfigObj
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro
from dvc.utils.serialize import modify_yaml

from bnstudy import BadInput, run, workspace
from bnstudy.params import Runtime, load_runtime
from bnstudy.workspace import Board, Entry, Job, Result, how, last_line, needed, perform, pull, send

DVC = ["dvc", "--wait-for-lock"]
MISSING = ("deleted", "not in cache")  # what `dvc status` says of a file that is not here
RECORDS = "study/records/"  # a remote inside git, which no worker needs
SECRET = re.compile("password|passphrase|secret|token|key_id|credential|connection_string|account_key")
RETRIES = 3  # times that Ray starts a run again whose machine or worker process went away
STORE_BYTES = 200_000_000  # of Ray's object store on one machine, which holds the packed files
HERE = socket.gethostname()


def ask(*words: str) -> str:
    """What a DVC command prints. Where another DVC is still at work on these stages, wait for it first."""
    told = False
    while True:
        done = subprocess.run([*DVC, *words], capture_output=True, text=True)  # noqa: S603
        if done.returncode == 0:
            return done.stdout
        if "is busy, it is being blocked by" not in done.stderr:
            raise BadInput(f"`dvc {' '.join(words)}` failed:\n{done.stdout}{done.stderr}".strip())
        if not told:
            print("waiting: another DVC is running stages here", flush=True)
            told = True
        time.sleep(2)


def git(*words: str, seconds: float = 60) -> str:
    """What a git command prints, whatever this user's configuration says. Raises `BadInput` where it fails or hangs."""
    own = ["core.fsmonitor=false", "core.hooksPath=/dev/null", "core.excludesFile=/dev/null", "commit.gpgSign=false"]
    command = ["git", *(part for setting in own for part in ("-c", setting)), *words]
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=seconds).stdout.decode()  # noqa: S603
    except subprocess.SubprocessError as error:
        said = (getattr(error, "stderr", b"") or str(error).encode()).decode(errors="replace").strip()
        raise BadInput(f"`git {words[0]}`: {said}") from None


def serial(repo: Any, pipelines: list[str]) -> list[Any]:
    """The stages of these files and all that they need, in the order of `dvc repro --all-pipelines`.

    With targets that are less than half of all stages, DVC's own order changes from run to run.
    """
    graph = get_active_graph(repo.index.graph)
    wanted = {*plan_repro(graph, collect_stages(repo, pipelines))}
    return [stage for stage in plan_repro(graph) if stage in wanted]


def read_needs(pipelines: list[str]) -> dict[str, set[str]]:
    """All that each of their stages needs, near and far."""
    with Repo() as repo:
        graph, stages = repo.index.graph, serial(repo, pipelines)
    return {stage.addressing: {other.addressing for other in nx.descendants(graph, stage)} for stage in stages}


def read_stale(allow_missing: bool) -> dict[str, list[Any]]:
    """The stages of which `dvc status` has something to say, other than, with `allow_missing`, that files are gone."""
    status: dict[str, list[Any]] = json.loads(ask("status", "--json"))
    return {name: changes for name, changes in status.items() if not (allow_missing and all(map(gone, changes)))}


def gone(change: Any) -> bool:
    """Whether an entry of `dvc status` says no more of a stage than that files are not there."""
    return isinstance(change, dict) and all(state in MISSING for files in change.values() for state in files.values())


def next_wave(
    needs: dict[str, set[str]], stale: Iterable[str], failed: Iterable[str] = (), done: Iterable[str] = ()
) -> list[str]:
    """The stale stages that need nothing stale and nothing that failed, those of the lower seed first."""
    failed, waiting = {*failed}, {*stale} - {*done}
    return sorted([name for name in needs if name in waiting and not needs[name] & (waiting | failed)], key=seed_of)


def seed_of(name: str) -> float:
    """The seed of a stage that has one, the last part of its name; infinite for the others."""
    found = re.search(r"@(?:\w+-)?(\d+)$", name)
    return int(found[1]) if found else math.inf


def restorable(repo: Any, stage: Any) -> bool:
    """Whether the run cache has what `stage` would write from its present inputs."""
    try:
        stage.save_deps()
        record = repo.stage_cache._load(stage)
    except (DvcException, AssertionError):  # a dependency is not there; a stage that no cache takes
        return False
    return record is not None and repo.stage_cache._create_stage(record, wdir=stage.wdir).outs_cached()


def log_of(name: str) -> Path:
    """logs/train@plain-10.log, logs/study/train@he-22.log"""
    return Path("logs", f"{name.replace('dvc.yaml:', '')}.log")


def why(name: str) -> str:
    """The last error that the log of a stage ends with; DVC's own says only that the command failed."""
    errors = re.findall(r"^(?:error|ERROR|\w*Error)\b.*", log_of(name).read_text(errors="replace"), re.MULTILINE)
    last = next((line for line in reversed(errors) if "failed to reproduce" not in line), "no message")
    return f"{last} ({log_of(name)})"


def places(runtime: Runtime, jobs: int | None) -> list[dict[str, str]]:
    """Where stages run side by side on this machine: for each place, what it adds to the environment.

    By default as many as cores for `runtime.threads`, or as shares of a GPU (`runtime.launch.gpus`).
    """
    gpus = b""
    if found := shutil.which("nvidia-smi"):
        gpus = subprocess.run([found, "-L"], capture_output=True, timeout=60).stdout  # noqa: S603
    names = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus.count(b"GPU ")))))
    if names and runtime.device != "cpu":
        each = [name for _ in range(int(1 / runtime.launch.gpus)) for name in names.split(",")]
        return [{"CUDA_VISIBLE_DEVICES": each[number % len(each)]} for number in range(jobs or len(each))]
    cores, threads = os.cpu_count() or 1, runtime.threads
    return [{}] * (jobs or max(cores // (cores if threads == "all" else threads), 1))


class Here:
    """Stages that run in this folder, as many at a time as there are `places`."""

    def __init__(self, names: list[str], places: list[dict[str, str]], options: list[str]) -> None:
        self.waiting, self.free, self.options, self.stopping = names, [*places], options, False
        self.running: dict[str, tuple[subprocess.Popen[bytes], float, dict[str, str]]] = {}

    def ended(self, known: dict[str, Result]) -> Iterator[tuple[str, Result]]:
        """Those that have ended and are not `known` yet, after a moment."""
        time.sleep(0.1)
        for name in self.running.keys() & known.keys():
            self.free.append(self.running.pop(name)[2])
        while self.waiting and self.free and not self.stopping:
            name, place = self.waiting.pop(0), self.free.pop(0)
            log_of(name).parent.mkdir(parents=True, exist_ok=True)
            words = [*DVC, "repro", *self.options, "--single-item", name]
            with log_of(name).open("wb") as log:
                process = subprocess.Popen(  # noqa: S603
                    words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | place, process_group=0
                )
            self.running[name] = process, time.time(), place
        for name, (process, started, _) in self.running.items():
            if process.poll() is not None:
                done = how(log_of(name).read_text(errors="replace"))
                state = done if process.returncode == 0 else "stopped" if self.stopping else "failed"
                yield name, Result(state, HERE, "", time.time() - started)
        if self.stopping:
            yield from ((name, Result("stopped", HERE)) for name in self.waiting if name not in known)

    def lines(self) -> dict[str, dict[str, str]]:
        """How far each is, by the parts of its last line on progress."""
        return {name: {"machine": HERE} | last_line(log_of(name)) for name in self.running}

    def stop(self) -> None:
        """Have each save its state and end."""
        self.stopping = True
        for process, *_ in self.running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)


class OnRay:
    """Stages that run in workspaces of their own, wherever a machine has room."""

    def __init__(self, ray: Any, task: Any, takes: dict[str, Any], jobs: dict[str, Job], kinds: dict[str, str]) -> None:
        self.ray, self.board = ray, ray.remote(Board).options(num_cpus=0).remote()
        package = ray.put(packed())
        self.refs = {}
        for name, job in jobs.items():
            on = {"machine": kinds[name]} if name in kinds else None
            self.refs[task.options(**takes, label_selector=on).remote(job, package, self.board)] = name

    def ended(self, known: dict[str, Result]) -> Iterator[tuple[str, Result]]:
        for ref in self.ray.wait([ref for ref, name in self.refs.items() if name not in known], timeout=1)[0]:
            try:
                result = self.ray.get(ref)
            except self.ray.exceptions.RayError as error:  # its worker was lost again and again
                result = Result("failed", "a lost machine", f"error: {str(error).splitlines()[0]}\n")
            log_of(self.refs[ref]).parent.mkdir(parents=True, exist_ok=True)
            log_of(self.refs[ref]).write_text(result.log)
            yield self.refs[ref], result

    def lines(self) -> dict[str, dict[str, str]]:
        return self.ray.get(self.board.read.remote())  # type: ignore[no-any-return]

    def stop(self) -> None:
        self.ray.get(self.board.stop.remote())


class Launch:
    """One launch; Ray starts with the first stage that a worker is to run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.pipelines, self.remote, self.address = arguments.pipelines, arguments.remote, arguments.address
        self.allow_missing, self.runtime = arguments.allow_missing, load_runtime()
        self.options = ["--allow-missing"] if self.allow_missing else []
        self.places = places(self.runtime, arguments.jobs)
        self.count = Counter[str]()  # runs that have ended, by how
        self.ray: Any = None

    def run_waves(self) -> None:
        """Run what is stale, wave by wave: the stages of one need nothing of each other.

        Which are stale is asked of DVC anew each time, since a stage that comes out as before stops the chain. What
        needs one that failed is left out. Raises `BadInput` at the end if any failed, with a line on each.
        """
        print(ask("repro", "prepare").strip(), flush=True)  # what is new needs the images, also with --allow-missing
        needs, failed, done = read_needs(self.pipelines), dict[str, str](), set[str]()
        while names := next_wave(needs, read_stale(self.allow_missing), failed, done):
            failed |= self.run_stages(names)
            done |= set(names)
        if failed:
            told = ["these failed:", *(f"{name}: {reason}" for name, reason in failed.items())]
            left = ", ".join({name.partition("@")[0]: "" for name in needs if needs[name] & failed.keys()})
            raise BadInput("\n  ".join([*told, *([f"not run, since they need these: {left}"] if left else [])]))

    def run_stages(self, names: list[str]) -> dict[str, str]:
        """Run the stages of one wave. Returns those that failed, each with a line on why."""
        jobs = self.jobs(names) if self.remote else {}
        results = self.run_on_ray(jobs) if jobs else {}
        if here := [name for name in names if name not in jobs]:
            results |= self.watch(Here([*here], self.places, self.options), here)
        return {name: why(name) for name, result in results.items() if result.state not in ("done", "restored")}

    def jobs(self, names: list[str]) -> dict[str, Job]:
        """Those of these stages that a worker runs: all whose outputs a cache holds, less what is in ours already.

        What they need is sent to the remote.
        """
        jobs = dict[str, Job]()
        with Repo(_wait_for_lock=True) as repo, repo.lock:
            for name in names:
                [stage] = repo.stage.collect(name)
                if restorable(repo, stage) or not all(out.use_cache and not out.persist for out in stage.outs):
                    continue
                records = dict[str, dict[str, Any]]()
                for out in needed(repo, stage):
                    file, above = Path(out.stage.path_in_repo).with_suffix(".lock"), out.stage.name
                    records.setdefault(str(file), {})[above] = read_lock(file.read_bytes())[above]
                    send(repo, out.get_used_objs(), self.remote)
                threads = os.environ.get("OMP_NUM_THREADS")
                jobs[name] = Job(name, records, config(repo, self.remote), self.remote, threads)
        return jobs

    def run_on_ray(self, jobs: dict[str, Job]) -> dict[str, Result]:
        """Run these jobs, and bring what they made. On Ctrl-C every run saves its state."""
        if not self.ray:
            self.start_ray()
        kinds = place(self.nodes, list(jobs), recorded_kinds())
        results = self.watch(OnRay(self.ray, self.task, self.takes, jobs, kinds), list(jobs))
        if entries := {name: result.entry for name, result in results.items() if result.entry}:
            with Repo(_wait_for_lock=True) as repo, repo.lock:
                fetch(repo, list(entries.values()), self.remote)
            ask("repro", "--single-item", *entries)
        return results

    def start_ray(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if self.address:
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # as `ray start` does
        import ray

        self.ray = ray
        options: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
        try:
            ray.init(
                self.address or "local", log_to_driver=False, logging_level="error", **({} if self.address else options)
            )
        except (ConnectionError, RuntimeError) as error:
            raise BadInput(f"Ray: {str(error).splitlines()[0]}") from None
        signal.signal(signal.SIGTERM, end)  # again: Ray has put its own handler there
        ray.cloudpickle.register_pickle_by_value(workspace)
        self.nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        most = max(node["Resources"]["CPU"] for node in self.nodes)
        runtime = self.runtime
        threads = runtime.threads if isinstance(runtime.threads, int) else most
        cpus = threads if runtime.launch.cpus == "auto" else runtime.launch.cpus
        if cpus > most:
            raise BadInput(f"runtime.launch.cpus: no machine has {cpus:g} processors, only {most:g}")
        gpus = runtime.launch.gpus if "GPU" in ray.cluster_resources() and runtime.device != "cpu" else 0
        self.task, self.takes = ray.remote(perform), {"num_cpus": cpus, "num_gpus": gpus, "max_retries": RETRIES}

    def watch(self, runs: Here | OnRay, names: list[str]) -> dict[str, Result]:
        """Show the runs until all have ended: as a table on a terminal, else a line for each that ends."""
        from rich.console import Console
        from rich.live import Live

        console, results, stopped = Console(), dict[str, Result](), False
        with (
            Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else nullcontext() as live
        ):
            while len(results) < len(names):
                try:
                    for name, result in runs.ended(results):
                        results[name] = result
                        self.count[result.state] += 1
                        line = f"{result.state:<8}  {name}  {result.seconds:.0f} s on {result.machine}"
                        console.print(line, highlight=False, soft_wrap=True, markup=False)
                    if live:
                        live.update(self.table(names, results, runs.lines()), refresh=True)
                except KeyboardInterrupt:
                    if stopped:
                        raise
                    stopped = True
                    print("interrupted: waiting for the running stages to save their state", file=sys.stderr)
                    runs.stop()
        if stopped:
            raise KeyboardInterrupt
        return results

    def table(self, names: list[str], results: dict[str, Result], lines: dict[str, dict[str, str]]) -> Any:
        """The runs that are under way; in its title, how many are not."""
        from rich.table import Table

        running = {name: lines[name] for name in names if name in lines and name not in results}
        count = self.count | {"waiting": len(names) - len(results) - len(running)}
        title = ", ".join(f"{number} {state}" for state, number in count.items() if number)
        shown = Table("stage", "machine", "updates", "last evaluation", "images/s", "left", title=title, expand=True)
        for name, line in running.items():
            updates = f"{line['step']} of {line['steps']}" if "step" in line else "starting"
            shown.add_row(name, line["machine"], updates, *(line.get(part, "") for part in ("said", "images", "left")))
        return shown


TERMINATED = list[int]()  # the SIGTERMs that came


def end(number: int, _: Any) -> None:
    """As by Ctrl-C, which Ray lets through, at times as one of its own; SystemExit it turns into another exit."""
    TERMINATED.append(number)
    raise KeyboardInterrupt


def read_lock(content: bytes | str) -> dict[str, Any]:
    """The stages that a lock file names."""
    return (yaml.load(content, yaml.CSafeLoader) or {}).get("stages", {})  # type: ignore[no-any-return]


def packed() -> bytes:
    """Every file that git tracks or does not ignore, as it is now, less locks and records, as a tar archive."""
    names = set(git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")) - {""}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", compresslevel=1) as archive:
        for name in sorted(names):
            if Path(name).is_file() and Path(name).name != "dvc.lock" and not name.startswith(RECORDS):
                archive.add(name)
    return content.getvalue()


def config(repo: Any, remote: str) -> str:
    """The `.dvc/config.local` of a workspace: no secret, which a worker has from its own surroundings, if at all."""
    options = repo.config["remote"][remote]
    sections: dict[str, Any] = {"core": {"no_scm": True, "remote": remote}}
    sections[f'remote "{remote}"'] = {key: str(options[key]) for key in options if not SECRET.search(key)}
    return "\n".join(ConfigObj(sections).write()) + "\n"


def check_remote(name: str) -> None:
    """Raises `BadInput` if the remote `name` is not there, cannot be written or does not answer within a minute."""

    def late(*_: object) -> None:
        raise TimeoutError("no answer within a minute")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    with Repo() as repo:
        if name not in repo.config["remote"]:
            raise BadInput(f"--remote {name}: DVC knows no such remote (`dvc remote list`)")
        try:
            remote = repo.cloud.get_remote(name)
            if remote.fs.protocol == "local" and not Path(remote.path).is_dir():
                raise FileNotFoundError("there is no such folder (not mounted?)")
            remote.fs.makedirs(remote.fs.join(remote.path, "states"), exist_ok=True)
            probe = remote.fs.join(remote.path, "states", f"probe-{secrets.token_hex(8)}")
            with remote.fs.open(probe, "wb") as file:
                file.write(b"may be removed")
            remote.fs.remove(probe)
        except Exception as error:  # each kind of remote has its own
            url = repo.config["remote"][name]["url"]
            raise BadInput(f"--remote {name}: {url} cannot be written: {error or type(error).__name__}") from None
        finally:
            signal.alarm(0)


def fetch(repo: Any, entries: list[Entry], remote: str) -> None:
    """Bring these records of the run cache and what they name, and make them the newest, which DVC takes."""
    repo.stage_cache.pull(remote)
    for entry in entries:
        os.utime(repo.stage_cache._get_cache_path(*entry))
    pull(repo, repo.stage_cache.get_used_objs(entries, remote=remote), remote)


def kind_of(environment: dict[str, Any]) -> str:
    """What the last bits of a run depend on, by its record of the environment, as a label of Ray's."""
    return re.sub(r"[^A-Za-z0-9]+", "-", str(environment["gpu"] or environment["processor"])).strip("-")[:63].strip("-")


def recorded_kinds() -> dict[float, str]:
    """For each seed, the kind of machine on which runs of the study were made from it."""
    records = sorted(path for path in Path("study/runs").rglob("*.json") if path.stem.isdecimal())
    return {int(path.stem): kind_of(json.loads(path.read_bytes())) for path in records}


def place(nodes: list[dict[str, Any]], names: list[str], recorded: dict[float, str]) -> dict[str, str]:
    """The kind of machine that each of the stages `names` must run on, where machines say their kind.

    Runs that are compared, those of a seed, run on one kind, since another rounds differently: the one on which the
    seed has run before, else in proportion to the processors. Other stages run on the kind that has most of them.
    """
    room = Counter[str]()
    for node in nodes:
        room[node["Labels"].get("machine", "")] += int(node["Resources"]["CPU"])
    if len(nodes) > 1 and room[""]:
        print("warning: not every machine says its kind (ray start --labels machine=$(python -m bnstudy.launch "
              "--machine)): runs that are compared may round differently", file=sys.stderr)  # fmt: skip
    kinds = sorted(filter(None, room), key=lambda kind: (-room[kind], kind))
    if not kinds:
        return {}
    given, chosen = Counter[str](), {math.inf: kinds[0]}
    for seed in sorted({seed_of(name) for name in names} - {math.inf}):
        before = recorded.get(seed)
        if before and before not in kinds:
            print(f"warning: seed {seed} has run on {before}, which is not here: what is compared may round "
                  "differently", file=sys.stderr)  # fmt: skip
        chosen[seed] = before if before in kinds else min(kinds, key=lambda kind: (given[kind] + 1) / room[kind])
        given[chosen[seed]] += 1
    return {name: chosen[seed_of(name)] for name in names}


def sort_locks(pipelines: list[str]) -> None:
    """Give new stages of the lock files the order in which a serial `dvc repro` would have added them."""
    with Repo(_wait_for_lock=True) as repo, repo.lock:
        order = [(stage.path_in_repo, stage.name) for stage in serial(repo, pipelines)]
        for file in sorted({file for file, _ in order}):
            lock, committed = Path(file).with_suffix(".lock"), ""
            with suppress(BadInput):  # there is none yet
                committed = git("show", f"HEAD:./{lock.as_posix()}")
            names = [*read_lock(committed), *(name for path, name in order if path == file)]
            with modify_yaml(lock) as content:
                stages = content.get("stages", {})
                for name in sorted(stages, key=lambda name: names.index(name) if name in names else -1):
                    stages[name] = stages.pop(name)


def launch(arguments: argparse.Namespace) -> None:
    if arguments.address and not arguments.remote:
        raise BadInput("--address needs --remote: what machines share is a DVC remote")
    if arguments.remote and not find_spec("ray"):
        raise BadInput("--remote needs Ray: `make ray` installs it here")
    Path(".dvc/tmp").mkdir(exist_ok=True)
    with Path(".dvc/tmp/launch.lock").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput("another launch is under way in this folder") from None
        launching = Launch(arguments)
        try:
            if arguments.remote:
                check_remote(arguments.remote)
            launching.run_waves()
        except DvcException as error:
            raise BadInput(f"DVC says: {error}") from None
        finally:
            if launching.ray:
                launching.ray.shutdown()
        sort_locks(arguments.pipelines)
        sys.exit(subprocess.run([*DVC, "repro", *launching.options, *arguments.pipelines]).returncode)  # noqa: S603


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipelines", nargs="*", default=["dvc.yaml"], metavar="PIPELINE", help="as for `dvc repro`")
    parser.add_argument("--jobs", type=int, help="so many stages at a time on this machine")
    parser.add_argument("--remote", help="run on Ray; the DVC remote by which results travel")
    parser.add_argument("--address", help="of a Ray cluster; without, this machine")
    parser.add_argument("--allow-missing", action="store_true", help="as of `dvc repro`: results need not be here")
    parser.add_argument("--machine", action="store_true", help="print this machine's kind")
    parser.add_argument("--list", action="store_true", help="print the next stages to run")
    arguments = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    signal.signal(signal.SIGTERM, end)
    if arguments.machine:
        from bnstudy.engine.device import environment, find

        print(kind_of(environment(find("auto"))))
    elif arguments.list:
        for name in next_wave(read_needs(arguments.pipelines), read_stale(arguments.allow_missing)):
            print(name)
    else:
        try:
            launch(arguments)
        except KeyboardInterrupt:
            if not TERMINATED:
                raise
            sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    run(main)
