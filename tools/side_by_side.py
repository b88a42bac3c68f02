"""Run every stale stage through DVC, several at a time: part of `make study`.

    python tools/side_by_side.py --jobs 2 [--each 5] [--allow-missing]

Stages that need nothing of each other run side by side, those of the lower seed first; then those that need them. One
that fails stops only what needs it; at the end each failure is told with its log below logs/study/, and the exit status
is 1.
"""

import argparse
import json
import math
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import networkx as nx
from dvc.exceptions import DvcException
from dvc.repo import Repo

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bnstudy import BadInput, run

LOGS = Path("logs/study")
DVC = ["dvc", "--wait-for-lock"]


def ask(*words: str) -> str:
    """What a DVC command prints. Where another DVC is still at work on these stages, wait for it first."""
    told = False
    while True:
        done = subprocess.run([*DVC, *words], capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout
        if "is busy, it is being blocked by" not in done.stderr:
            raise BadInput(f"`dvc {' '.join(words)}` failed:\n{done.stdout}{done.stderr}".strip())
        if not told:
            print("waiting: another DVC is running stages here", flush=True)
            told = True
        time.sleep(2)


def read_needs() -> dict[str, set[str]]:
    """All that each stage needs, near and far, in the order of dvc.yaml."""
    try:
        with Repo() as repo:
            graph = repo.index.graph
    except DvcException as error:
        raise BadInput(f"DVC says: {error}") from None
    return {stage.addressing: {other.addressing for other in nx.descendants(graph, stage)} for stage in graph}


def seed_of(name: str) -> float:
    """The seed of a stage that has one; infinite for the others."""
    found = re.fullmatch(r"(?:train|averages|tolerance)@(?:\w+-)?(\d+)", name)
    return int(found[1]) if found else math.inf


def why(log: Path) -> str:
    """The last error line that a log ends with; DVC's own says only that the command failed."""
    errors = re.findall(r"^(?:error|ERROR|\w*Error)\b.*", log.read_text(errors="replace"), re.MULTILINE)
    return next((line for line in reversed(errors) if "failed to reproduce" not in line), "no message")


def run_stages(names: list[str], jobs: int, each: int, options: list[str]) -> dict[str, str]:
    """Run these stages, which need nothing of each other; of the calls of DVC that failed, the stages and a line."""
    LOGS.mkdir(parents=True, exist_ok=True)
    waiting = [names[i : i + each] for i in range(0, len(names), each)]
    running: dict[subprocess.Popen[bytes], tuple[list[str], Path, float]] = {}
    failed: dict[str, str] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                batch = waiting.pop(0)
                log = LOGS / f"{batch[0]}.log"
                words = [*DVC, "repro", *options, "--keep-going", "--single-item", *batch]
                with log.open("wb") as file:
                    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
                running[process] = batch, log, time.monotonic()
            time.sleep(0.1)
            for process in [process for process in running if process.poll() is not None]:
                batch, log, started = running.pop(process)
                state = "failed" if process.returncode else "done"
                print(f"{state:<6}  {' '.join(batch)}  {time.monotonic() - started:.0f} s", flush=True)
                if process.returncode:
                    failed |= dict.fromkeys(batch, f"{' '.join(batch)}: {why(log)} ({log})")
    except KeyboardInterrupt:  # has reached the stages too, which save their state and end
        print("interrupted: waiting for the running stages to save their state", file=sys.stderr)
        raise
    except SystemExit:  # a SIGTERM, which has not
        for process in running:
            process.terminate()  # its stage sees that it is gone, saves its state and ends
        raise
    finally:
        for process in running:
            process.wait()
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="calls of DVC at a time")
    parser.add_argument("--each", type=int, default=1, help="stages a call of DVC runs, one after the other")
    parser.add_argument("--allow-missing", action="store_true", help="as for `dvc repro`")
    arguments = parser.parse_args()
    options = ["--allow-missing"] if arguments.allow_missing else []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    print(ask("repro", "prepare").strip(), flush=True)  # what is new needs the images, also with --allow-missing
    needs, failed = read_needs(), dict[str, str]()
    ended, stale = {"prepare", *needs["prepare"]}, json.loads(ask("status", "--json"))
    while ready := [name for name in needs.keys() - ended if needs[name] <= ended - failed.keys()]:
        if names := sorted([name for name in needs if name in ready and name in stale], key=seed_of):
            jobs = max(arguments.jobs, 1)
            each = max(min(arguments.each, math.ceil(len(names) / jobs)), 1)  # few of them: no job without any
            failed |= run_stages(names, jobs, each, options)
            stale = json.loads(ask("status", "--json"))
        ended |= set(ready)
    if failed:
        told = ["these failed; the others are done:", *dict.fromkeys(failed.values())]
        left = ", ".join({name.partition("@")[0]: "" for name in needs if name not in ended})
        raise BadInput("\n  ".join([*told, *([f"not run, since they need these: {left}"] if left else [])]))


if __name__ == "__main__":
    run(main)
