"""What the benchmark's programs share: options, a clock, and the line of JSON that each prints. Needs Python alone."""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options of every program: `warmup` updates, then `blocks` times `block` timed ones."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options.add_argument("--batch-size", type=int, default=1024)
    options.add_argument("--warmup", type=int, default=3)
    options.add_argument("--blocks", type=int, default=20)
    options.add_argument("--block", type=int, default=1, help="updates between two readings of the clock")
    return options


def clock(device: str) -> float:
    """Seconds, once a GPU has done what it was told to do."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()


def timed(steps: Iterator[object], options: argparse.Namespace) -> list[float]:
    """Seconds per step, one number per block, of an iterator that makes a step each time it is asked for the next."""
    for _ in range(options.warmup):
        next(steps)
    seconds = []
    for _ in range(options.blocks):
        start = clock(options.device)
        for _ in range(options.block):
            next(steps)
        seconds.append((clock(options.device) - start) / options.block)
    return seconds


def seconds_of(function: Callable[[], object], device: str) -> float:
    start = clock(device)
    function()
    return clock(device) - start


def report(device: str, **record: object) -> None:
    """Print `record` and the process's peak of memory and of GPU memory (MiB), in the one line that bench.py reads."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on a Mac, else in KiB
    record["rss_mib"] = peak / (2**20 if sys.platform == "darwin" else 2**10)
    if device == "cuda":
        import torch

        record["cuda_mib"] = torch.cuda.max_memory_reserved() / 2**20
    print(json.dumps(record))
