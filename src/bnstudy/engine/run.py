"""What every training does around its loop: device, signals, resume state, and at its end files and a log."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bnstudy.engine import device as devices
from bnstudy.engine.resume import Checkpoint, catch_signals
from bnstudy.engine.rows import ShortRow
from bnstudy.engine.short import short_run
from bnstudy.files import write
from bnstudy.progress import log

if TYPE_CHECKING:
    from bnstudy.params import Runtime
    from bnstudy.settings import Setting

SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ksh"}


class Run:
    """A run of one or more trainings, as `runtime` says; its log is `logs/<name>.json`.

    From here on, Ctrl-C and SIGTERM end this process with its state saved, and so does the end of the DVC that started
    it. Raises `BadInput` where there is no such device.
    """

    def __init__(self, name: str, runtime: "Runtime") -> None:
        self.name, self.runtime, self.started = name, runtime, time.time()
        self.device = devices.prepare(runtime)
        self.checkpoints = list[Checkpoint]()
        catch_signals()
        if "DVC_STAGE" in os.environ:
            threading.Thread(target=end_with, args=(running_dvc(),), daemon=True).start()

    def checkpoint(self, name: str, steps: int, determinants: object) -> Checkpoint:
        """The resume state of one training of this run."""
        self.checkpoints.append(Checkpoint(name, steps, determinants, self.device, self.runtime))
        return self.checkpoints[-1]

    def short(self, setting: "Setting", seed: int, name: str) -> list[ShortRow]:
        """One short training of this run; `name` tells it from the others."""
        checkpoint = self.checkpoint(f"{self.name}/{name}", setting.steps, [setting.model_dump(), seed])
        return short_run(setting, seed, checkpoint)

    def finish(self, outputs: dict[Path, bytes], summary: str) -> None:
        """Write each file of `outputs`, whole or not at all, and the environment, `metrics/<name>.json`; end the run.

        Writes the log too, and prints `summary` with the device and time.
        """
        environment = devices.environment(self.device)
        record = (json.dumps(environment, indent=2) + "\n").encode()
        for path, content in (outputs | {Path("metrics", f"{self.name}.json"): record}).items():
            write(path, content)
        seconds = log(self.name, environment, self.started)
        for checkpoint in self.checkpoints:
            checkpoint.finish()
        print(f"{self.name}: {summary}, on {self.device} in {seconds:.0f} s")


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
    while dvc is not None and dvc.is_running() and dvc.status() != psutil.STATUS_ZOMBIE:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
