"""A reproducible study of batch normalization on MNIST: what the scripts in `src/`, one per DVC stage, share."""

import io
import signal
import sys
from collections.abc import Callable
from pathlib import Path

if Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parent.parent:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during a script's seconds of imports: no traceback


class BadInput(Exception):
    """What a person can put right: `run` prints it as one message, not a traceback."""


def run(main: Callable[[], None]) -> None:
    """Call `main`; exit with 1 and its message on `BadInput` or an operating-system error, with 130 on Ctrl-C.

    A stage that ended with 0 on an interrupt would have its partial output recorded by DVC as finished.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without a − must not fail a stage after its work
    try:
        main()
    except (BadInput, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
