"""Run what `dvc repro` would run side by side: Ray places the runs, DVC's cache or remote carries their results.

python -m bnstudy.launch                                  all cores and GPUs of this machine
python -m bnstudy.launch --remote NAME                    the same, sharing nothing but a DVC remote
python -m bnstudy.launch --remote NAME --address auto     on a Ray cluster (its head's address, or auto)
python -m bnstudy.launch --machine                        this machine's kind, for `ray start --labels machine=KIND`

A run is one stage in a workspace of its own, see `bnstudy.workspace`; its outputs then come from the cache. Stages with
outputs that the cache does not hold, seconds each, run here. See docs/scale.md.
"""

import argparse
import fcntl
import io
import json
import math
import os
import re
import secrets
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from configobj import ConfigObj
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.reproduce import plan_repro

from bnstudy import BadInput, run, workspace
from bnstudy.params import load
from bnstudy.waves import DVC, LOGS, ask, run_here, run_waves, seed_of, why
from bnstudy.workspace import Board, Job, Result, fetch_files, fetch_records, look_up, needed, perform, send

SECRET = re.compile("password|passphrase|secret|token|key_id|credential|connection_string|account_key")
RETRIES = 3  # times that Ray starts a run again whose machine or worker process went away
STORE_BYTES = 200_000_000  # of Ray's object store on one machine, which holds the packed files
NO_RAY = "Ray is not installed: `make ray` installs it here; `make study` does without, on this machine alone"


class Launch:
    """One launch; Ray starts with the first stage that a worker is to run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.remote, self.address, self.export = arguments.remote, arguments.address, arguments.export
        self.options = ["--allow-missing"] if arguments.allow_missing else []
        self.params = load()
        self.count = Counter[str]()  # runs that have ended, by how
        self.ray: Any = None

    def run_stages(self, names: list[str]) -> dict[str, str]:
        """As `bnstudy.waves.run_waves` calls it: run the stages of one wave."""
        with Repo(_wait_for_lock=True) as repo, repo.lock:
            jobs, found, here = self.plan(repo, names)
        if found:
            ask("repro", "--single-item", *found)
            print(*(f"restored  {name}" for name in found), sep="\n", flush=True)
            self.count["restored"] += len(found)
        if self.export:
            export(list(jobs.values()), self.export)
        failed = self.run_on_ray(jobs) if jobs else {}
        return failed | run_here(here, 1, 1, self.options)

    def plan(self, repo: Any, names: list[str]) -> tuple[dict[str, Job], list[str], list[str]]:
        """Of stages that need nothing of each other: those for workers, what is in the cache, and what runs here.

        What workers need is sent to the remote.
        """
        jobs, found, here = dict[str, Job](), list[str](), list[str]()
        lock = yaml.load(Path("dvc.lock").read_bytes(), yaml.CSafeLoader)["stages"]
        local = config(repo, self.remote)
        for name in names:
            [stage] = repo.stage.collect(name)
            if not all(out.use_cache and not out.persist for out in stage.outs):
                here.append(name)
            elif stage.already_cached() or look_up(repo, stage, self.remote):
                found.append(name)
            else:
                needs = needed(repo, stage)
                for out in needs if self.remote else []:
                    send(repo, out.get_used_objs(), self.remote)
                jobs[name] = Job(
                    stage=name, records={out.stage.addressing: lock[out.stage.addressing] for out in needs},
                    config=local, remote=self.remote, home=str(Path.cwd()),
                    threads=os.environ.get("OMP_NUM_THREADS"),
                )  # fmt: skip
        return jobs, found, here

    def start_ray(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if self.address:
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # as `ray start` does
        import ray

        self.ray = ray
        here: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
        options = {} if self.address else here
        try:
            ray.init(self.address or "local", log_to_driver=False, logging_level="error", **options)
        except (ConnectionError, RuntimeError) as error:
            raise BadInput(f"Ray: {str(error).splitlines()[0]}") from None
        signal.signal(signal.SIGTERM, end)  # again: Ray has put its own handler there
        ray.cloudpickle.register_pickle_by_value(workspace)
        self.nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        most = max(node["Resources"]["CPU"] for node in self.nodes)
        runtime = self.params.runtime
        threads = runtime.threads if isinstance(runtime.threads, int) else most
        cpus = threads if runtime.launch.cpus == "auto" else runtime.launch.cpus
        if cpus > most:
            raise BadInput(f"runtime.launch.cpus: no machine has {cpus:g} processors, only {most:g}")
        gpus = runtime.launch.gpus if "GPU" in ray.cluster_resources() and runtime.device != "cpu" else 0
        self.task, self.takes = ray.remote(perform), {"num_cpus": cpus, "num_gpus": gpus, "max_retries": RETRIES}
        self.board = ray.remote(Board).options(num_cpus=0).remote()

    def run_on_ray(self, jobs: dict[str, Job]) -> dict[str, str]:
        """Run these jobs, and record what they made in dvc.lock. On Ctrl-C every run saves its state."""
        if not self.ray:
            self.start_ray()
        package = self.ray.put(packed())
        kinds = place(self.nodes, list(jobs), recorded_kinds())
        refs, results = dict[Any, str](), dict[str, Result]()
        for name, job in jobs.items():
            on = {"machine": kinds[name]} if name in kinds else None
            refs[self.task.options(**self.takes, label_selector=on).remote(job, package, self.board)] = name
        try:
            self.watch(refs, results)
        except KeyboardInterrupt:
            print("interrupted: waiting for the running stages to save their state", file=sys.stderr)
            self.ray.get(self.board.stop.remote())
            self.watch(refs, results)
            raise
        entries = {name: result.entry for name, result in results.items() if result.entry}
        if entries:
            with Repo(_wait_for_lock=True) as repo, repo.lock:
                fetch(repo, entries.values(), self.remote)
            ask("repro", "--single-item", *entries)
        return {name: f"{name}: {why(log_of(name))} ({log_of(name)})" for name in results if name not in entries}

    def watch(self, refs: dict[Any, str], results: dict[str, Result]) -> None:
        """Show the runs until all have ended: as a table on a terminal, else a line for each that ends."""
        from rich.console import Console
        from rich.live import Live

        console = Console()
        with (
            Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else nullcontext() as live
        ):
            while waiting := [ref for ref, name in refs.items() if name not in results]:
                for ref in self.ray.wait(waiting, timeout=1)[0]:
                    try:
                        result = self.ray.get(ref)
                    except self.ray.exceptions.RayError as error:  # its worker was lost again and again
                        result = Result("failed", "a lost machine", f"error: {str(error).splitlines()[0]}\n")
                    results[refs[ref]] = result
                    self.count[result.state] += 1
                    log_of(refs[ref]).parent.mkdir(parents=True, exist_ok=True)
                    log_of(refs[ref]).write_text(result.log)
                    line = f"{result.state:<6}  {refs[ref]}  {result.seconds:.0f} s on {result.machine}"
                    console.print(line, highlight=False, soft_wrap=True)
                if live:
                    live.update(self.table(list(refs.values()), results), refresh=True)

    def table(self, names: list[str], results: dict[str, Result]) -> Any:
        """The runs that are under way; in its title, how many are not."""
        from rich.table import Table

        lines = self.ray.get(self.board.read.remote())
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


def log_of(name: str) -> Path:
    return LOGS / f"{name}.log"


def packed() -> bytes:
    """Every file that git tracks or does not ignore, as it is now, less `dvc.lock`, as a tar archive."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, check=True).stdout.decode()  # noqa: S603
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", compresslevel=1) as archive:
        for name in sorted(set(listed.split("\0")) - {"", "dvc.lock"}):
            if Path(name).is_file() and not name.startswith("records/"):
                archive.add(name)
    return content.getvalue()


def config(repo: Any, remote: str | None) -> str:
    """The `.dvc/config.local` of a workspace: no secret, which a worker has from its own surroundings, if at all."""
    sections: dict[str, Any] = {"core": {"no_scm": True}}
    if remote is None:
        sections["cache"] = {"dir": repo.cache.legacy.path}
    else:
        options = repo.config["remote"][remote]
        sections |= {f'remote "{remote}"': {key: str(options[key]) for key in options if not SECRET.search(key)}}
    return "\n".join(ConfigObj(sections).write()) + "\n"


def check_remote(name: str) -> None:
    """Raises `BadInput` if the remote `name` is not there or cannot be written."""
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


def fetch(repo: Any, entries: Any, remote: str | None) -> None:
    """Bring these records of the run cache and what they name, and make them the newest, which DVC takes."""
    for key, value in entries:
        if remote:
            fetch_records(repo, key, remote)
        os.utime(repo.stage_cache._get_cache_path(key, value))
    if remote:
        fetch_files(repo, list(entries), remote)


def kind_of(environment: dict[str, Any]) -> str:
    """What the last bits of a run depend on, by its record of the environment, as a label of Ray's."""
    return re.sub(r"[^A-Za-z0-9]+", "-", str(environment["gpu"] or environment["processor"])).strip("-")[:63].strip("-")


def recorded_kinds() -> dict[float, str]:
    """For each seed, the kind of machine on which runs of it were made."""
    records = [path for part in ("train", "averages", "tolerance") for path in Path("metrics", part).rglob("*.json")]
    return {int(path.stem): kind_of(json.loads(path.read_bytes())) for path in sorted(records)}


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
    seeds = {name: seed_of(name.replace("mechanism@", "averages@")) for name in names}
    for seed in sorted(set(seeds.values()) - {math.inf}):
        if seed in recorded and recorded[seed] not in kinds:
            print(f"warning: seed {seed} has run on {recorded[seed]}, which is not here: what is compared may round "
                  "differently", file=sys.stderr)  # fmt: skip
        before = recorded.get(seed)
        chosen[seed] = before if before in kinds else min(kinds, key=lambda kind: (given[kind] + 1) / room[kind])
        given[chosen[seed]] += 1
    return {name: chosen[seed] for name, seed in seeds.items()}


def export(jobs: list[Job], folder: Path) -> None:
    """Write the jobs of a wave as 1.job, 2.job, …, with the files that they unpack; say how many, and end."""
    folder.mkdir(parents=True, exist_ok=True)
    if jobs:
        (folder / "package.tar.gz").write_bytes(packed())
        (folder / "workspace.py").write_bytes(Path(workspace.__file__).read_bytes())
        for number, job in enumerate(jobs, 1):
            (folder / f"{number}.job").write_text(json.dumps(job._asdict()))
        print(len(jobs))
        sys.exit()


def sort_lock() -> None:
    """Give the new stages of dvc.lock the order in which a serial `dvc repro` would have added them."""
    from dvc.utils.serialize import modify_yaml

    committed = subprocess.run(["git", "show", "HEAD:./dvc.lock"], capture_output=True).stdout  # noqa: S607
    first = list((yaml.load(committed, yaml.CSafeLoader) or {}).get("stages", {}))
    with Repo(_wait_for_lock=True) as repo, repo.lock:
        order = first + [stage.addressing for stage in plan_repro(repo.index.graph)]
        with modify_yaml("dvc.lock") as lock:
            stages = lock["stages"]
            for name in sorted(stages, key=lambda name: order.index(name) if name in order else -1):
                stages[name] = stages.pop(name)


def launch(arguments: argparse.Namespace) -> None:
    if (arguments.address or arguments.export) and not arguments.remote:
        raise BadInput("--address and --export need --remote: what machines share is a DVC remote")
    if not arguments.export and not find_spec("ray"):
        raise BadInput(NO_RAY)
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
            run_waves(launching.run_stages, arguments.allow_missing)
        except DvcException as error:
            raise BadInput(f"DVC says: {error}") from None
        finally:
            if launching.ray:
                launching.ray.shutdown()
        sort_lock()
        if arguments.export:
            print(0)
        else:
            sys.exit(subprocess.run([*DVC, "repro", *launching.options]).returncode)  # noqa: S603


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", help="of a Ray cluster; without, all of this machine")
    parser.add_argument("--remote", help="the DVC remote by which results travel; without, the cache folder")
    parser.add_argument("--allow-missing", action="store_true", help="as of `dvc repro`: results need not be here")
    parser.add_argument("--machine", action="store_true", help="print this machine's kind")
    parser.add_argument("--export", metavar="FOLDER", type=Path, help="write the next jobs for a SLURM array, run none")
    arguments = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    signal.signal(signal.SIGTERM, end)
    if arguments.machine:
        from bnstudy.engine.device import environment, find

        print(kind_of(environment(find("auto"))))
    else:
        try:
            launch(arguments)
        except KeyboardInterrupt:
            if not TERMINATED:
                raise
            sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    run(main)
