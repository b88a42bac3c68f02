"""What every stage does around its work: end bad input or Ctrl-C with a line, and write whole files or none."""

import csv
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import yaml

from bnstudy.params import BadInput


def run(main: Callable[[], None]) -> None:
    """Call `main`; exit with 1 and its message on `BadInput` or an operating-system error, with 130 on Ctrl-C.

    A stage that ended with 0 on an interrupt would have its partial output recorded by DVC as finished.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
    except (BadInput, OSError) as error:
        put_outputs_back()
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def put_outputs_back() -> None:
    """Copy the outputs that dvc.lock records of this stage from DVC's cache: DVC removed them before it started it."""

    def cached(digest: str) -> bytes:
        return Path(".dvc/cache/files/md5", digest[:2], digest[2:]).read_bytes()

    with suppress(OSError, LookupError, TypeError, ValueError, yaml.YAMLError):  # where DVC runs it, and has them
        stage = os.environ["DVC_STAGE"]
        lock = yaml.load(Path("dvc.lock").read_bytes(), yaml.CSafeLoader)  # in a tenth of the time
        for out in lock["stages"][stage]["outs"]:
            path, files = Path(out["path"]), [("", out["md5"])]
            if out["md5"].endswith(".dir"):
                files = [(file["relpath"], file["md5"]) for file in json.loads(cached(out["md5"]))]
            for name, digest in files:
                write(path / name, cached(digest))


def arguments_of_stage(*options: str) -> list[str] | None:
    """`options` with what DVC's name of the stage holds, train@batch_norm-0; None, for the command line, if not by DVC.

    No shell sees a parameter so, and argparse checks it like any other argument.
    """
    items = os.environ.get("DVC_STAGE", "").partition("@")[2]
    if not items or len(sys.argv) > 1:
        return None
    values = items.split("-", len(options) - 1)
    return [f"--{option}={value}" for option, value in zip(options, values, strict=False)]


def write(path: Path, content: bytes) -> None:
    """Write a whole file or none, power cut included: a temporary file beside `path`, synced, then renamed.

    An `OSError` names `path`: a full disk names no file by itself.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
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
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that killed processes left of `path`: .<name>.<process id>."""
    for left in leftovers(path.with_name(f".{path.name}.")):
        left.unlink(missing_ok=True)


def forget_finished(folder: str) -> None:
    """Remove the states of finished runs in `checkpoints/<folder>`: when a later stage runs, DVC has recorded them."""
    for path in Path("checkpoints", folder).rglob("*.finished"):
        path.unlink(missing_ok=True)


def leftovers(prefix: Path) -> list[Path]:
    """Files and folders named `prefix` and the id of a process that has ended."""
    ids = {path: path.name.removeprefix(prefix.name) for path in prefix.parent.glob(f"{prefix.name}*")}
    return [path for path, number in ids.items() if number.isdecimal() and not psutil.pid_exists(int(number))]


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file: floats to 8 significant digits, more than float32 holds; None as an empty field."""
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(columns)
    lines.writerows([f"{value:.8g}" if isinstance(value, float) else value for value in row] for row in rows)
    write(path, table.getvalue().encode())
