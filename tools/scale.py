"""How far `python -m bnstudy.launch` scales, simulated from measured costs, as docs/scale.md has it.

Runs that need nothing of each other, one per worker at a time. The driver looks all of them up and sends what they need
before the first starts, and records all of them after the last has ended, as it does with the runs of a wave.
"""

import heapq
from typing import NamedTuple


class Costs(NamedTuple):
    """In seconds of one core of an AMD EPYC without AVX-512, and MB."""

    run: float = 600.0  # 700 updates of 1,024 images
    worker: float = 6.0  # around a run: start, fetch, `dvc repro`, send
    plan: float = 0.26  # of the driver, per run: its graph, its hashes, what the cache has
    record: float = 0.27  # of the driver, per run: restore it …
    lock: float = 0.013  # … and write dvc.lock, per run and run that stands there already
    check: float = 0.03  # of the last `dvc repro`, per run
    state: float = 26.4 / 60  # MB/s of a run to the remote: a resume state a minute


def simulate(runs: int, workers: int, costs: Costs) -> dict[str, float]:
    """Seconds until the last result is recorded, those in which only the driver works, and MB/s at the remote."""
    free = [costs.plan * runs] * workers
    for _ in range(runs):
        heapq.heappush(free, heapq.heappop(free) + costs.worker + costs.run)
    recording = sum(costs.record + costs.lock * number for number in range(runs)) + costs.check * runs
    return {
        "seconds": max(free) + recording,
        "driver": costs.plan * runs + recording,
        "traffic": min(workers, runs) * costs.state,
    }


def table(runs: int = 400) -> str:
    serial = runs * Costs().run
    lines = [
        "| workers | hours | speed-up | only the driver works | MB/s to the remote |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for workers in (1, 8, 64, 512):
        found = simulate(runs, workers, Costs())
        hours, share = found["seconds"] / 3600, found["driver"] / found["seconds"]
        speed = serial / found["seconds"]
        lines.append(f"| {workers} | {hours:.1f} | {speed:.1f} | {share:.0%} | {found['traffic']:.0f} |")
    once = simulate(runs, 512, Costs(lock=0.0))
    lines += ["", f"With dvc.lock written once, 512 workers would take {once['seconds'] / 60:.0f} minutes, "
              f"in place of {simulate(runs, 512, Costs())['seconds'] / 60:.0f}."]  # fmt: skip
    return "\n".join(lines) + "\n"
