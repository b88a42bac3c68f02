"""Run every stale stage through DVC, several at a time, on a box without Ray: part of `make study`.

    python tools/side_by_side.py --jobs 2 [--each 5] [--allow-missing]

Stages that need nothing of each other run side by side, those of the lower seed first; then those that need them. One
that fails stops only what needs it; at the end each failure is told with its log below logs/study/, and the exit status
is 1.
"""

import argparse
import math
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bnstudy import run
from bnstudy.waves import run_here, run_waves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="calls of DVC at a time")
    parser.add_argument("--each", type=int, default=1, help="stages a call of DVC runs, one after the other")
    parser.add_argument("--allow-missing", action="store_true", help="as for `dvc repro`")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    jobs, options = max(arguments.jobs, 1), ["--allow-missing"] if arguments.allow_missing else []

    def run_stages(names: list[str]) -> dict[str, str]:
        each = max(min(arguments.each, math.ceil(len(names) / jobs)), 1)  # few of them: no job without any
        return run_here(names, jobs, each, options)

    run_waves(run_stages, arguments.allow_missing)


if __name__ == "__main__":
    run(main)
