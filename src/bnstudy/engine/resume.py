"""Resume state: a killed run goes on where it was saved, and ends with the bytes of one that was never interrupted.

Everything random in a run is a function of (seed, step), so the state after a step is its tensors and the rows so far.
It lies in the ignored `checkpoints/`, keyed by all that determines the run, until DVC has recorded the results.
"""

import hashlib
import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor

from bnstudy.engine.data import PREPARED
from bnstudy.engine.device import environment
from bnstudy.files import remove_leftovers, write
from bnstudy.progress import Progress

if TYPE_CHECKING:
    from bnstudy.params import Runtime

SECONDS = 60.0  # between two saves: what a kill may cost; a save takes 0.2 s
DIGEST_BYTES = 32


class State(NamedTuple):
    """A run after `step` updates: its tensors, and the rows so far, of what JSON can hold."""

    step: int
    tensors: dict[str, Tensor]
    rows: Any


class Checkpoint:
    """Resume state of the training `name`, of `steps` updates.

    `determinants` (what JSON can hold), data, code and environment key the state: one of another run is not loaded.
    """

    def __init__(self, name: str, steps: int, determinants: object, device: torch.device, runtime: "Runtime") -> None:
        self.name, self.steps, self.device, self.every = name, steps, device, runtime.checkpoint_every
        self.path = Path("checkpoints", f"{name}.state")
        self.finished = self.path.with_suffix(".finished")
        surroundings = {
            "data": hashlib.sha256((PREPARED / "SHA256SUMS").read_bytes()).hexdigest(),
            "code": {module: hashlib.sha256(file.read_bytes()).hexdigest() for module, file in loaded_code()},
            "environment": environment(device),
        }
        self.key = hashlib.sha256(json.dumps([determinants, surroundings], sort_keys=True).encode()).hexdigest()
        self.saved_at = time.monotonic()
        self.progress = Progress(name, steps)

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
        self.progress.resumed(record["step"])
        return State(record["step"], load(content), record["rows"])

    def due(self, step: int) -> bool:
        """Whether to save after update `step`: when told to stop, else every `runtime.checkpoint_every` updates, by
        default about once a minute.
        """
        self.progress.at(step)
        if stopped_by:
            return True
        if isinstance(self.every, int):
            return step % self.every == 0 and step < self.steps
        return time.monotonic() - self.saved_at > (SECONDS if step < self.steps else SECONDS / 6)

    def save(self, state: State) -> None:
        """Write the state, whole or not at all; if the run was told to stop, say what is kept and exit with 128 + n."""
        record = {"key": self.key, "step": state.step, "rows": state.rows}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
        content = save(tensors, {"bnstudy": json.dumps(record)})
        write(self.path, hashlib.sha256(content).digest() + content)
        self.saved_at = time.monotonic()
        if stopped_by:
            self.progress.close()
            print(f"{self.name}: stopped; kept the state after step {state.step} in {self.path}", file=sys.stderr)
            sys.exit(128 + stopped_by[0])

    def finish(self) -> None:
        """Keep the state of a run whose results are written for `files.forget_finished`: a kill may come before DVC
        has recorded them, which then removes them and runs it again.
        """
        self.progress.close()
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
    """The files of the engine's modules that this process has imported, and of its script."""
    return sorted(
        (name, Path(str(module.__file__)))
        for name, module in sys.modules.items()
        if name.startswith("bnstudy.engine.") or (name == "__main__" and getattr(module, "__file__", None))
    )
