"""What every run does around its loop: device, signals, saved states, and at its end files and a log."""

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bnstudy import BadInput
from bnstudy.engine import device as devices
from bnstudy.engine.checkpoint import Checkpoint, catch_signals
from bnstudy.engine.network import Network
from bnstudy.engine.training import Ended, Images, Optimizer, SavedHook, train
from bnstudy.files import forget, write
from bnstudy.progress import Progress, log

if TYPE_CHECKING:
    from bnstudy.params import Arm, Runtime

SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ksh"}
LOCKS = (Path("dvc.lock"), Path("study/dvc.lock"))


class Run:
    """A run of one or more trainings, as `runtime` says; its log is `logs/<name>.json`.

    From here on, Ctrl-C and SIGTERM end this process with its state saved, and so does the end of the DVC that started
    it. Raises `BadInput` where there is no such device.
    """

    def __init__(self, name: str, runtime: "Runtime") -> None:
        if runtime.tensorboard and not find_spec("tensorboard"):
            raise BadInput("runtime.tensorboard: true takes TensorBoard: pip install 'tensorboard>=2.19,<3'")
        self.name, self.runtime, self.started = name, runtime, time.time()
        self.device = devices.prepare(runtime)
        self.environment = devices.environment(self.device)
        self.finished = Path("checkpoints", f"{name}.finished")
        if recorded(self.finished):
            forget(self.finished)  # it starts anew when it is asked for again
        catch_signals()
        if "DVC_STAGE" in os.environ:
            threading.Thread(target=end_with, args=(running_dvc(),), daemon=True).start()

    def progress(self, arm: "Arm", part: str = "") -> Progress:
        """What people see of one training of this run, of which `part` is one of several."""
        name = f"{self.name}/{part}" if part else self.name
        return Progress(name, arm.steps, arm.batch_size, tensorboard=self.runtime.tensorboard)

    def train(
        self,
        network: Network,
        arm: "Arm",
        seed: int,
        images: Images,
        hooks: Sequence[SavedHook],
        progress: Progress,
        more: object = None,
    ) -> Checkpoint:
        """Train `network`, from its saved state if there is one. `more`: what else determines the run."""
        optimizer = Optimizer(network, arm.optimizer)
        determinants = [arm.model_dump(), seed, more]
        checkpoint = Checkpoint(network, optimizer, hooks, determinants, self.runtime, progress)
        done = checkpoint.restore()
        with suppress(Ended):
            train(network, optimizer, arm, seed, images, [*hooks, checkpoint], done)
        progress.close()
        return checkpoint

    def record(self, parameters: dict[str, Any]) -> bytes:
        """What made this run, as JSON: the parameters that define it, and the environment."""
        return (json.dumps(self.environment | {"parameters": parameters}, indent=1) + "\n").encode()

    def finish(self, outputs: dict[Path, bytes], summary: str) -> None:
        """Write each file of `outputs`, whole or not at all, and a log; print `summary` with the device and time.

        The saved state is kept: a kill may come before DVC has recorded the outputs, and it then removes them.
        """
        for path, content in outputs.items():
            write(path, content)
        seconds = log(self.name, self.environment, self.started)
        sums = {str(path): hashlib.md5(content, usedforsecurity=False).hexdigest() for path, content in outputs.items()}
        write(self.finished, json.dumps(sums).encode())
        print(f"{self.name}: {summary}, on {self.device} in {seconds:.0f} s")


def recorded(finished: Path) -> bool:
    """Whether DVC has recorded the outputs that `finished` tells of."""
    try:
        sums = dict(json.loads(finished.read_bytes()))
    except (OSError, ValueError, TypeError):
        return False
    locks = "".join(lock.read_text(encoding="utf-8", errors="replace") for lock in LOCKS if lock.is_file())
    return all(md5 in locks for md5 in sums.values())


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


def end_with(dvc: psutil.Process | None) -> None:
    """Stop this process when `dvc` has ended: killed alone, it would leave this training beside the next one."""
    with suppress(psutil.NoSuchProcess):
        while dvc is not None and dvc.is_running() and dvc.status() != psutil.STATUS_ZOMBIE:
            time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
