"""A reproducible study of batch normalization on MNIST: what the scripts in `src/`, one per DVC stage, share."""

import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

if Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parent.parent:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during a script's seconds of imports: no traceback


class BadInput(Exception):
    """What a person can put right: `run` prints it as one message, not a traceback."""


class Unheard(io.TextIOWrapper):
    """A stream that drops what it cannot write: to a full disk, or to a reader that has gone."""

    def write(self, text: str, /) -> int:
        with suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def run(main: Callable[[], None], *others: type[Exception]) -> None:
    """Call `main`; exit with 1 and a message on `BadInput`, an operating-system error or `others`, with 130 on Ctrl-C.

    A stage that ended with 0 on an interrupt would have its partial output recorded by DVC as finished. One that failed
    because it could not print would have lost its work.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("stdout", "stderr"):
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may lack the ±
            if "DVC_STAGE" in os.environ:
                lines = stream.line_buffering
                setattr(sys, name, Unheard(stream.buffer, stream.encoding, "replace", line_buffering=lines))
    try:
        main()
    except (BadInput, OSError) as error:
        sys.exit(f"error: {error}")
    except others as error:
        sys.exit(f"error: {type(error).__module__.partition('.')[0].upper()} says: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
