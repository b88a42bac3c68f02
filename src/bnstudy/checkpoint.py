"""Resume state: a killed run goes on where it was saved, and ends with the bytes of one that was never interrupted.

Everything random in a run is a function of (seed, step), so the state after a step is its tensors and the records so
far. It lies in the ignored `checkpoints/`, keyed by all that determines the run, until DVC has recorded the results.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import psutil
import torch
from safetensors.torch import load, save
from torch import Tensor

from bnstudy.data import PREPARED
from bnstudy.device import environment
from bnstudy.params import Runtime
from bnstudy.stage import remove_leftovers, write

SECONDS = 60.0  # between two saves: what a kill may cost; a save takes 0.2 s
SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ksh"}
DIGEST_BYTES = 32


class State(NamedTuple):
    """A run after `step` updates: its tensors, and whatever else JSON can hold."""

    step: int
    tensors: dict[str, Tensor]
    records: Any


class Checkpoint:
    """The resume state of the run `name`, fixed by `determinants` (anything JSON can hold) and its surroundings."""

    def __init__(self, name: str, determinants: object, device: torch.device, runtime: Runtime) -> None:
        self.name, self.every = name, runtime.checkpoint_every
        self.path = Path("checkpoints", f"{name}.state")
        self.finished = self.path.with_suffix(".finished")
        surroundings = {
            "data": hashlib.sha256((PREPARED / "SHA256SUMS").read_bytes()).hexdigest(),
            "code": {module: hashlib.sha256(file.read_bytes()).hexdigest() for module, file in loaded_code()},
            "environment": environment(device),
        }
        self.key = hashlib.sha256(json.dumps([determinants, surroundings], sort_keys=True).encode()).hexdigest()
        self.saved_at = time.monotonic()
        self.looked_at = 0.0
        self.dvc = running_dvc()

    def load(self) -> State | None:
        """The saved state, if there is one of this very run. Says what it does; a damaged file is set aside."""
        path = self.path if self.path.exists() else self.finished
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        digest, content = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            aside = path.with_suffix(".damaged")
            path.replace(aside)
            print(f"{path}: is damaged; set aside as {aside}, and starting again", file=sys.stderr)
            return None
        length = int.from_bytes(content[:8], "little")  # of safetensors' header, which is JSON
        record = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["bnstudy"])
        if record["key"] != self.key:
            print(f"{path}: is of another run (parameters, data, code or device); starting again", file=sys.stderr)
            return None
        print(f"{self.name}: going on after step {record['step']}", file=sys.stderr)
        return State(record["step"], load(content), record["records"])

    def due(self, step: int, last: int) -> bool:
        """Whether to save after update `step`: every `runtime.checkpoint_every`, by default about once a minute."""
        now = time.monotonic()
        if "DVC_STAGE" in os.environ and not stopped_by and now - self.looked_at > 1:
            self.looked_at = now
            # Killed alone, perhaps before this process looked for it: the next one must not train beside this process.
            if self.dvc is None or not self.dvc.is_running() or self.dvc.status() == psutil.STATUS_ZOMBIE:
                stop(signal.SIGTERM)
        if stopped_by:
            return True
        if self.every is not None:
            return step % self.every == 0 and step < last
        return now - self.saved_at > (SECONDS if step < last else SECONDS / 6)

    def save(self, state: State) -> None:
        """Write the state, whole or not at all; if the run was told to stop, say what is kept and exit with 128 + n."""
        record = {"key": self.key, "step": state.step, "records": state.records}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
        content = save(tensors, {"bnstudy": json.dumps(record)})
        write(self.path, hashlib.sha256(content).digest() + content)
        self.saved_at = time.monotonic()
        if stopped_by:
            print(f"{self.name}: stopped; kept the state after step {state.step} in {self.path}", file=sys.stderr)
            sys.exit(128 + stopped_by[0])

    def finish(self) -> None:
        """Keep the state of a run whose results are written for `stage.forget_finished`: a kill may come before DVC
        has recorded them, which then removes them and runs it again.
        """
        if self.path.exists():
            self.path.replace(self.finished)
        remove_leftovers(self.path)


stopped_by: list[int] = []  # the signal that told this process to stop, if one did


def stop(number: int, _: FrameType | None = None) -> None:
    """Note the first signal, to save after the update that is under way; a second one ends the process at once."""
    if stopped_by:
        sys.exit(128 + number)
    stopped_by.append(number)


def catch_signals() -> None:
    """Let Ctrl-C and SIGTERM end this process with its state saved."""
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def loaded_code() -> list[tuple[str, Path]]:
    """The study's modules that this process has imported, and their files."""
    return sorted(
        (name, Path(str(module.__file__)))
        for name, module in sys.modules.items()
        if name.startswith("bnstudy.") or (name == "__main__" and "bnstudy" in str(getattr(module, "__file__", "")))
    )


def running_dvc() -> psutil.Process | None:
    """The DVC process that runs this stage, behind the shell it may have started it with; None if it has ended.

    What adopts an orphan, init or systemd, is in another session.
    """
    for process in psutil.Process().parents():
        if hasattr(os, "getsid") and os.getsid(process.pid) != os.getsid(0):
            return None
        if process.name() not in SHELLS:
            return process
    return None
