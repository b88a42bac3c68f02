"""The stages that `dvc repro` would run, in waves: those of one wave do not depend on each other.

For what runs several stages at a time, `tools/side_by_side.py` and `bnstudy.launch`. Which stages the next wave has is
asked of DVC anew, since one wave may write the settings of the next.
"""

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
from dvc.repo import Repo

from bnstudy import BadInput

LOGS = Path("logs/study")
DVC = ["dvc", "--wait-for-lock"]
MISSING = {"deleted", "not in cache"}  # what `dvc status` says of a file that is not here


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


def read_needs() -> dict[str, set[str]]:
    """All that each stage needs, near and far, in the order of dvc.yaml."""
    with Repo() as repo:
        graph = repo.index.graph
    return {stage.addressing: {other.addressing for other in nx.descendants(graph, stage)} for stage in graph}


def read_stale(allow_missing: bool) -> set[str]:
    """The stages of which `dvc status` has something to say, other than, with `allow_missing`, that files are gone."""
    status: dict[str, list[Any]] = json.loads(ask("status", "--json"))
    return {name for name, changes in status.items() if not (allow_missing and all(map(only_missing, changes)))}


def only_missing(change: Any) -> bool:
    """Whether an entry of `dvc status` says no more of a stage than that files are not there."""
    return isinstance(change, dict) and all(set(files.values()) <= MISSING for files in change.values())


def seed_of(name: str) -> float:
    """The seed of a stage that has one; infinite for the others."""
    found = re.fullmatch(r"(?:train|averages|tolerance)@(?:\w+-)?(\d+)", name)
    return int(found[1]) if found else math.inf


def why(log: Path) -> str:
    """The last error line that a log ends with; DVC's own says only that the command failed."""
    errors = re.findall(r"^(?:error|ERROR|\w*Error)\b.*", log.read_text(errors="replace"), re.MULTILINE)
    return next((line for line in reversed(errors) if "failed to reproduce" not in line), "no message")


def run_waves(run_stages: Callable[[list[str]], dict[str, str]], allow_missing: bool) -> None:
    """Call `run_stages` with the stale stages of each wave, those of the lower seed first, until none is left.

    It returns the stages that failed, each with a line on why: what needs one of them is left out. Raises `BadInput`
    at the end if any failed, with those lines.
    """
    print(ask("repro", "prepare").strip(), flush=True)  # what is new needs the images, also with --allow-missing
    needs, failed = read_needs(), dict[str, str]()
    ended, stale = {"prepare", *needs["prepare"]}, read_stale(allow_missing)
    while ready := [name for name in needs.keys() - ended if needs[name] <= ended - failed.keys()]:
        if names := sorted([name for name in needs if name in ready and name in stale], key=seed_of):
            failed |= run_stages(names)
            stale = read_stale(allow_missing)
        ended |= set(ready)
    if failed:
        told = ["these failed:", *dict.fromkeys(failed.values())]
        left = ", ".join({name.partition("@")[0]: "" for name in needs if name not in ended})
        raise BadInput("\n  ".join([*told, *([f"not run, since they need these: {left}"] if left else [])]))


def run_here(names: list[str], jobs: int, each: int, options: list[str]) -> dict[str, str]:
    """Run these stages, which do not depend on each other, in this folder, with `jobs` calls of DVC at a time.

    Each call runs `each` stages, one after the other. Returns the stages that failed, each with a line on why.
    """
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
                    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file)  # noqa: S603
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
