"""What every stage does around its work: end bad input or Ctrl-C with a line, and write whole files or none."""

import csv
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psutil

from bnstudy.params import BadInput


def run(main: Callable[[], None]) -> None:
    """Call `main`; exit with 1 and its message on `BadInput` or an operating-system error, with 130 on Ctrl-C.

    A stage that ended with 0 on an interrupt would have its partial output recorded by DVC as finished.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
    except (BadInput, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


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
