"""Saved states: a killed run goes on where it was saved, and ends with the bytes of one that was never interrupted.

Everything random in a run is a function of (seed, step), so the state after a step is its tensors and the rows so far.
It lies in the ignored `checkpoints/`, keyed by all that determines the run.
"""

import hashlib
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load, save
from torch import Tensor

from bnstudy.engine.data import PREPARED
from bnstudy.engine.device import environment
from bnstudy.engine.network import Network
from bnstudy.engine.training import Optimizer, SavedHook, Update
from bnstudy.files import write
from bnstudy.progress import Progress

if TYPE_CHECKING:
    from bnstudy.params import Runtime

SECONDS = 60.0  # between two saves: what a kill may cost; a save takes 0.2 s
DIGEST_BYTES = 32


class Checkpoint:
    """The last hook of a training: saves it with its other hooks as `checkpoints/<name>.state`.

    `name` and the number of updates are those of `progress`. `determinants` (what JSON can hold), data, code and
    environment key the state: one of another run is not restored.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        hooks: Sequence[SavedHook],
        determinants: object,
        runtime: "Runtime",
        progress: Progress,
    ) -> None:
        self.network, self.optimizer, self.hooks = network, optimizer, hooks
        self.name, self.steps, self.progress = progress.name, progress.steps, progress
        self.every = runtime.checkpoint_every
        self.path = Path("checkpoints", f"{self.name}.state")
        surroundings = {
            "data": hashlib.sha256((PREPARED / "SHA256SUMS").read_bytes()).hexdigest(),
            "code": {module: hashlib.sha256(file.read_bytes()).hexdigest() for module, file in loaded_code()},
            "environment": environment(optimizer.memory[0].device),
        }
        self.key = hashlib.sha256(json.dumps([determinants, surroundings], sort_keys=True).encode()).hexdigest()
        self.saved_at = time.monotonic()

    def training(self) -> dict[str, Tensor]:
        """Every tensor, by name and in place, that the next updates depend on: weights, averages, the optimizer's."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        return tensors | {f"optimizer.{number}": tensor for number, tensor in enumerate(self.optimizer.memory)}

    @torch.no_grad()
    def restore(self) -> int:
        """Bring back the saved state, if there is one of this very run; return how many updates it has.

        Says what it does; a damaged file is set aside.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return 0
        digest, content = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            aside = self.path.with_suffix(".damaged")
            self.path.replace(aside)
            print(f"{self.path}: is damaged; set aside as {aside}, and starting again", file=sys.stderr)
            return 0
        length = int.from_bytes(content[:8], "little")  # of safetensors' header, which is JSON
        record = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["bnstudy"])
        if record["key"] != self.key:
            print(f"{self.path}: is of another run (parameters, data, code or device); starting again", file=sys.stderr)
            return 0
        saved = load(content)
        for name, tensor in self.training().items():
            if name in saved:  # not in one of `save_rows`
                tensor.copy_(saved[name])
        for number, (hook, rows) in enumerate(zip(self.hooks, record["rows"], strict=True)):
            prefix = f"hook{number}."
            hook.restore({n.removeprefix(prefix): t for n, t in saved.items() if n.startswith(prefix)}, rows)
        self.progress.resumed(record["step"])
        step: int = record["step"]
        return step

    def after(self, update: Update) -> None:
        self.progress.at(update.step)
        if self.due(update.step):
            self.save(update.step)

    def due(self, step: int) -> bool:
        """Whether to save after update `step`: when told to stop, else every `runtime.checkpoint_every` updates, by
        default about once a minute.
        """
        if stopped_by:
            return True
        if isinstance(self.every, int):
            return step % self.every == 0 and step < self.steps
        return time.monotonic() - self.saved_at > (SECONDS if step < self.steps else SECONDS / 6)

    def save(self, step: int) -> None:
        """Write the state; if the run was told to stop, say what is kept and exit with 128 + n."""
        self.write(step, self.training())
        if stopped_by:
            self.progress.close()
            print(f"{self.name}: stopped; kept the state after update {step} in {self.path}", file=sys.stderr)
            sys.exit(128 + stopped_by[0])

    def save_rows(self) -> None:
        """Write the state of a finished training of which the rows alone are wanted."""
        self.write(self.steps, {})

    def write(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Write the state with these tensors of the training, whole or not at all."""
        rows = []
        for number, hook in enumerate(self.hooks):
            of_hook, hook_rows = hook.state()
            tensors |= {f"hook{number}.{name}": tensor for name, tensor in of_hook.items()}
            rows.append(hook_rows)
        record = {"key": self.key, "step": step, "rows": rows}
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        content = save(whole, {"bnstudy": json.dumps(record)})
        write(self.path, hashlib.sha256(content).digest() + content)
        self.saved_at = time.monotonic()


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
        if name.startswith("bnstudy.engine") or (name == "__main__" and getattr(module, "__file__", None))
    )
