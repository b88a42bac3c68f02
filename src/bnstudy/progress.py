"""What people see and keep of a run: its progress, and a log. No bit of a result depends on it."""

import json
import platform
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bnstudy.files import write

SECONDS = 30.0  # between two lines where there is no terminal


class Progress:
    """The progress of the training `name`, of `steps` updates: a bar on a terminal, else a line now and then.

    With `tensorboard`, losses and accuracies too, in logs/tensorboard/, one writer per split, as the note did.
    """

    def __init__(self, name: str, steps: int, batch_size: int, *, tensorboard: bool = False) -> None:
        self.name, self.steps, self.batch_size = name, steps, batch_size
        form = "{desc} {bar:10} {n}/{total} updates, {remaining} left{postfix}"
        self.bar = tqdm(total=steps, desc=name, disable=None, smoothing=0.05, leave=False, bar_format=form)
        self.started = self.said = time.monotonic()
        self.first = 0  # updates that were made before
        self.writers = dict[str, Any]()
        if tensorboard:
            from tensorboard.summary import Writer

            splits = ("train", "validation", "test")
            self.writers = {split: Writer(f"logs/tensorboard/{name}/{split}") for split in splits}

    def resumed(self, step: int) -> None:
        print(f"{self.name}: going on after update {step}", file=sys.stderr)
        self.first = step
        self.bar.update(step)

    def at(self, step: int) -> None:
        self.bar.update(step - self.bar.n if not self.bar.disable else 0)

    def evaluated(self, row: Any) -> None:
        """A row of the history, as `bnstudy.engine.rows` has it."""
        for split, part in zip(self.writers, ("batch", "validation", "test"), strict=False):
            for what in ("loss", "accuracy"):
                if (value := getattr(row, f"{part}_{what}")) is not None:
                    self.writers[split].add_scalar(what, value, row.step)
            self.writers[split].flush()
        now = time.monotonic()
        rate = (row.step - self.first) / (now - self.started)
        images = (self.bar.format_dict["rate"] or rate) * self.batch_size
        text = f"loss {row.train_loss:.4g}, validation {row.validation_accuracy:.2%}, {images:,.0f} images/s"
        self.bar.set_postfix_str(text, refresh=False)
        if self.bar.disable and now - self.said > SECONDS and row.step < self.steps:
            left = (self.steps - row.step) / rate
            print(f"{self.name}: {row.step} of {self.steps} updates, {text}, {left / 60:.0f} min left", file=sys.stderr)
            self.said = now

    def close(self) -> None:
        self.bar.close()
        for writer in self.writers.values():
            writer.close()


def log(name: str, environment: dict[str, Any], started: float) -> float:
    """Write `logs/<name>.json`, for people alone, on a run that began at `started` (time.time()); return its seconds.

    `commit` ends in -dirty where tracked files differ from it, and is None outside git.
    """
    seconds = time.time() - started
    commit = None
    with suppress(OSError):
        describe = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        commit = subprocess.run(describe, capture_output=True, text=True).stdout.strip() or None  # noqa: S603
    record = {
        "run": name,
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "commit": commit,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **environment,
    }
    write(Path("logs", f"{name}.json"), (json.dumps(record, indent=1) + "\n").encode())
    return seconds
