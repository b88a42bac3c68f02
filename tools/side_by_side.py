"""Run every stale training, warm-up and sweep through DVC, several at a time: part of `make study`.

    python tools/side_by_side.py --jobs 2 [--each 5] [--allow-missing]

These stages need nothing of each other, and DVC's own lock keeps their records apart. One that fails does not stop the
others; at the end each failure is told with its log below logs/study/, and the exit status is 1.
"""

import argparse
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bnstudy import BadInput, run

LOGS = Path("logs/study")
SINGLE = re.compile(r"(train|warmup|sweep_\w+)@")
DVC = ["dvc", "--wait-for-lock"]


def ask(*words: str) -> str:
    """What a DVC command prints. Where another DVC is still at work on these stages, wait for it first."""
    told = False
    while True:
        done = subprocess.run([*DVC, *words], capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout
        if "is busy, it is being blocked by" not in done.stderr:
            raise BadInput(f"`dvc {' '.join(words)}` failed:\n{done.stdout}{done.stderr}".strip())
        if not told:
            print("waiting: another DVC is running stages here", flush=True)
            told = True
        time.sleep(2)


def why(log: Path) -> str:
    """The last error line that a log ends with; DVC's own says only that the command failed."""
    errors = re.findall(r"^(?:error|ERROR|\w*Error)\b.*", log.read_text(errors="replace"), re.MULTILINE)
    return next((line for line in reversed(errors) if "failed to reproduce" not in line), "no message")


def run_stages(names: list[str], jobs: int, each: int, options: list[str]) -> list[str]:
    """Run these stages; a line for each call of DVC that failed."""
    LOGS.mkdir(parents=True, exist_ok=True)
    waiting = [names[i : i + each] for i in range(0, len(names), each)]
    running: dict[subprocess.Popen[bytes], tuple[list[str], Path, float]] = {}
    failed = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                batch = waiting.pop(0)
                log = LOGS / f"{batch[0]}.log"
                words = [*DVC, "repro", *options, "--keep-going", "--single-item", *batch]
                with log.open("wb") as file:
                    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
                running[process] = batch, log, time.monotonic()
            time.sleep(0.1)
            for process in [process for process in running if process.poll() is not None]:
                batch, log, started = running.pop(process)
                state = "failed" if process.returncode else "done"
                print(f"{state:<6}  {' '.join(batch)}  {time.monotonic() - started:.0f} s", flush=True)
                if process.returncode:
                    failed.append(f"{' '.join(batch)}: {why(log)} ({log})")
    except KeyboardInterrupt:  # has reached the stages too, which save their state and end
        print("interrupted: waiting for the running stages to save their state", file=sys.stderr)
        raise
    except SystemExit:  # a SIGTERM, which has not
        for process in running:
            process.terminate()  # its stage sees that it is gone, saves its state and ends
        raise
    finally:
        for process in running:
            process.wait()
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="calls of DVC at a time")
    parser.add_argument("--each", type=int, default=1, help="stages a call of DVC runs, one after the other")
    parser.add_argument("--allow-missing", action="store_true", help="as for `dvc repro`")
    arguments = parser.parse_args()
    options = ["--allow-missing"] if arguments.allow_missing else []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    print(ask("repro", "prepare").strip(), flush=True)
    names = [name for name in json.loads(ask("status", "--json")) if SINGLE.match(name)]
    failed = run_stages(names, max(arguments.jobs, 1), max(arguments.each, 1), options)
    if failed:
        raise BadInput("\n  ".join(["these failed; the others are done:", *failed]))


if __name__ == "__main__":
    run(main)
