"""Files and folders that are written whole or not at all, whenever the process is killed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


def write(path: Path, content: bytes) -> None:
    """Write the whole file or nothing, even if the power fails: a temporary file, synced, then renamed to `path`.

    An `OSError` names `path`: by itself, that of a full disk names no file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in leftovers(path.with_name(f".{path.name}.")):  # a killed process's
        left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def leftovers(prefix: Path) -> list[Path]:
    """The files and folders named `<prefix><process id>` whose process has ended."""
    ids = {path: path.name.removeprefix(prefix.name) for path in prefix.parent.glob(f"{prefix.name}*")}
    return [path for path, number in ids.items() if number.isdecimal() and not psutil.pid_exists(int(number))]


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that replaces it if the block succeeds and is removed if it fails."""
    part = target.with_name(f"{target.name}.partial-{os.getpid()}")
    for left in [part, *leftovers(target.with_name(f"{target.name}.partial-"))]:
        shutil.rmtree(left, ignore_errors=True)  # a killed run's
    try:
        part.mkdir(parents=True)
        yield part
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
    except OSError as error:  # that of a full disk names no file, that of a folder's removal no folder
        raise OSError(error.errno, error.strerror, str(target)) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def forget_finished(folder: str) -> None:
    """Remove the saved states of finished runs in `checkpoints/<folder>`: DVC has recorded those runs by now."""
    for path in Path("checkpoints", folder).rglob("*.finished"):
        forget(path)


def forget(finished: Path) -> None:
    """Remove the saved states of the run, of one or more trainings, that left the file `finished`, and that file."""
    finished.with_suffix(".state").unlink(missing_ok=True)
    shutil.rmtree(finished.with_suffix(""), ignore_errors=True)
    finished.unlink(missing_ok=True)
