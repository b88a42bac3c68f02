"""Our engine beside idiomatic PyTorch, the original's TF-slim and the floor: one table, and the targets met or missed.

make bench      or, in an environment with the study's packages:  PYTHONPATH=src python benchmarks/bench.py

Needs data/prepared (`dvc repro prepare`) and a quiet machine: one program runs at a time, in a process of its own, and
they take turns over several rounds. Writes benchmarks/results/<device>.json. Under 20 minutes on two CPU cores.
"""

import argparse
import itertools
import json
import math
import os
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch
from scipy import stats

import noop
from bnstudy.data import load_split
from bnstudy.device import environment
from bnstudy.params import BadInput
from bnstudy.stage import run, write

HERE = Path(__file__).parent.resolve()
SLIM_PYTHON = Path(".venv-slim/bin/python")
OURS, BFLOAT16, LOOSE = "ours", "ours, bfloat16", "ours, not deterministic"
IDIOMATIC, SLIM, FLOOR, FLOOR16 = "idiomatic PyTorch", "TF-slim", "floor", "floor, bfloat16"
# Updates: to warm up, timed blocks, updates a block, since a GPU's are too short to be timed alone.
LENGTH = {"cpu": (3, 20, 1), "cuda": (50, 10, 50), "toy": (1, 1, 1)}
LONG = {"cpu": (0, 200, 1), "cuda": (0, 20, 10), "toy": (0, 4, 1)}  # 200 updates, for accuracies and steadiness
Record = dict[str, Any]


def call(command: list[str], **options: Any) -> Record:
    """Run a program of this folder; what its line says, with the process's seconds."""
    environ = os.environ | {"PYTHONPATH": str(HERE.parent / "src")} | options.pop("env", {})
    environ.pop("OMP_WAIT_POLICY", None)  # set by the import of bnstudy here; a peer has PyTorch's own
    start = time.time()
    done = subprocess.run(command, env=environ, capture_output=True, text=True, **options)
    if done.returncode:
        raise BadInput(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
    record: Record = json.loads(done.stdout.splitlines()[-1])
    return record | {"started": start, "wall_s": time.time() - start}


def write_torchvision_files(root: Path) -> None:
    """The prepared training and test splits as torchvision's MNIST reads them: every program has the same images."""
    folder = root / "MNIST/raw"
    folder.mkdir(parents=True)
    for split, part in (("train", "train"), ("test", "t10k")):
        images_NHW, labels_N = load_split(split)
        images, labels = struct.pack(">4i", 0x803, *images_NHW.shape), struct.pack(">2i", 0x801, len(labels_N))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(images + images_NHW.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels + labels_N.tobytes())


def has_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16; where it does not, PyTorch goes through float32."""
    with suppress(OSError):
        return bool(re.search(r"\b(avx512_|amx_)?bf16\b", Path("/proc/cpuinfo").read_text(encoding="utf-8")))
    return False


def summary(runs: dict[str, list[Record]], batch_size: int) -> dict[str, Record]:
    """A record a program: medians over the rounds, the fastest and slowest round, and what follows from them."""
    table = {}
    for name, records in runs.items():
        numbers = [key for key, value in records[0].items() if isinstance(value, int | float) and key != "started"]
        table[name] = {key: statistics.median(record[key] for record in records) for key in numbers}
        seconds = [record["s"] for record in records]
        table[name] |= {"fastest_s": min(seconds), "slowest_s": max(seconds)}
    for name, row in table.items():
        row["images_per_s"] = batch_size / row["s"]
        row["times_ours"] = row["s"] / table[OURS]["s"]
        row["floor_share"] = table[FLOOR16 if name in (BFLOAT16, FLOOR16) else FLOOR]["s"] / row["s"]
    return table


def start_up(device: str, starts: int) -> float:
    """Seconds from the start of `python -m bnstudy.train` to the end of its first update: median of the last three."""
    with tempfile.TemporaryDirectory() as folder:  # away from the study's outputs and saved states
        Path(folder, "params.yaml").write_bytes(Path("params.yaml").read_bytes())
        Path(folder, "data").symlink_to(Path("data").resolve())
        command = [sys.executable, str(HERE / "startup.py"), "--variant=batch_norm", "--seed=0"]
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
        records = [call(command, cwd=folder, env=hidden) for _ in range(starts)]
    return float(statistics.median(record["first_update"] - record["started"] for record in records[-3:]))


def accuracies(once: Callable[..., Record], others: list[str], mode: str, seeds: int) -> Record:
    """Test accuracies after as many updates, ours with the interval that one more seed falls into (95%)."""
    ours = [once(OURS, f"--seed={seed}", length=LONG[mode]) for seed in range(seeds)]
    values = [record["accuracy"] for record in ours]
    half = stats.t.ppf(0.975, seeds - 1) * statistics.stdev(values) * math.sqrt(1 + 1 / seeds)
    quarter = max(1, LONG[mode][1] // 4)
    return {
        "updates": LONG[mode][1] * LONG[mode][2],
        "ours": values,
        "interval": [statistics.mean(values) - half, statistics.mean(values) + half],
        **{name: once(name, length=LONG[mode])["accuracy"] for name in others},
        "first_quarter_s": statistics.median(ours[0]["step_s"][:quarter]),
        "last_quarter_s": statistics.median(ours[0]["step_s"][-quarter:]),
        "wall_s": [record["wall_s"] for record in ours],
    }


def targets(results: Record) -> list[list[str]]:
    """Rows of: against what, the target, what was measured, and whether it is met."""
    table, accuracy, gpu = results["programs"], results["accuracy"], results["device"] == "cuda"
    ours, no_op, rows = table[OURS], results["no_op"], list[list[str]]()

    def row(what: str, target: str, measured: str, met: bool | None) -> None:
        rows.append([what, target, measured, {True: "met", False: "missed", None: "not measured"}[met]])

    def faster(what: str, wanted: float, ratio: float | None, why_not: str = "") -> None:
        measured, met = (why_not, None) if ratio is None else (f"{ratio:.2f}", ratio >= wanted)
        row(what, f"{wanted:g} times as fast", measured, met)

    faster("idiomatic PyTorch", 15 if gpu else 2.3, table[IDIOMATIC]["times_ours"])
    share, wanted = ours["floor_share"], 0.6 if gpu else 0.75
    row("floor", f"{wanted:.0%} of the step", f"{share:.0%}", share >= wanted)
    if not gpu:
        slim = table[SLIM]["times_ours"] if SLIM in table else None
        faster("TF-slim", 1.15, slim, results["no_slim"])
        narrow = 1 / table[BFLOAT16]["times_ours"] if BFLOAT16 in table else None
        faster("our float32, in bfloat16", 1.4, narrow, "this CPU has none")
    if BFLOAT16 in accuracy:
        low, high = accuracy["interval"]
        found = accuracy[BFLOAT16]
        row("its accuracy", f"in {low:.2%} to {high:.2%}", f"{found:.2%}", low <= found <= high)
    found, limit = 15_000 * ours["evaluation_s"], 15 * ours["forward_s"]
    row("evaluation of 15,000 images", f"under 15 forward passes, {limit:.3g} s", f"{found:.3g} s", found < limit)
    if not gpu:
        found = results["start_up_s"]
        row("start-up, with an update", "under 4 s", f"{found:.2f} s", found < 4)
    what, target = "`dvc repro`, nothing to do", "under 6 s and 1.2 times empty stages"
    if isinstance(no_op, str):
        row(what, target, no_op, None)
    else:
        found, ratio = no_op["study"], no_op["study"] / no_op["empty"]
        row(what, target, f"{found:.2f} s, {ratio:.2f} times {no_op['stages']}", found < 6 and ratio <= 1.2)
    return rows


def markdown(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return "".join("| " + " | ".join(map(str.ljust, line, widths)) + " |\n" for line in lines)


def text(results: Record) -> str:
    """The table, the targets, and how the cost grows."""
    accuracy, floor = results["accuracy"], results["programs"][FLOOR]
    header = ["program", "s/step", "rounds", "images/s", "time / ours", "share of floor", "MiB", "GPU's", "evaluation"]
    rows = [header]
    for name, row in results["programs"].items():
        cells = [name, f"{row['s']:.4g}", f"{row['fastest_s']:.4g}–{row['slowest_s']:.4g}"]
        cells += [
            f"{row['images_per_s']:,.0f}",
            f"{row['times_ours']:.2f}",
            f"{row['floor_share']:.0%}",
            f"{row['rss_mib']:,.0f}",
        ]
        cells += [f"{row['cuda_mib']:,.0f}" if "cuda_mib" in row else "–"]
        cells += [f"{10_000 * row['evaluation_s']:.3g}" if "evaluation_s" in row else "–"]
        rows.append(cells)

    def listed(seconds: dict[int, float]) -> str:
        return ", ".join(f"{number}: {s:.4g}" for number, s in seconds.items())

    walls = itertools.accumulate(accuracy["wall_s"])
    known = {"ours": accuracy["ours"]} | {name: [accuracy[name]] for name in (BFLOAT16, IDIOMATIC) if name in accuracy}
    reached = [f"{name} {' '.join(f'{value:.2%}' for value in values)}" for name, values in known.items()]
    return f"""\
{results["hardware"]}; {", ".join(map(" ".join, results["versions"].items()))}
batches of {results["batch_size"]}; medians of {results["rounds"]} rounds; evaluation: seconds for 10,000 images

{markdown(rows)}
{markdown([["against", "target", "measured", ""], *results["targets"]])}
floor: {floor["flop"] / 1e9:.1f} GFLOP a step at {floor["flop"] / floor["s"] / 1e9:,.0f} GFLOP/s
test accuracy after {accuracy["updates"]} updates: {"; ".join(reached)}
s/step in the first and the last quarter of these: {accuracy["first_quarter_s"]:.4g}, {accuracy["last_quarter_s"]:.4g}
seconds for 1, 2, … seeds of these: {", ".join(f"{wall:.1f}" for wall in walls)}
s/step by batch size: {listed(results["batch_sizes"])}
s/step by threads: {listed(results["threads"])}
s/step of idiomatic PyTorch by loader workers: {listed(results["loader_workers"])}; the best is in the table
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--toy", action="store_true", help="as little as shows that it runs")
    parser.add_argument("--skip-slim", action="store_true")
    options = parser.parse_args()
    device, toy = options.device, options.toy
    mode, rounds, batch_size = ("toy", 1, 64) if toy else (device, 5, 1024)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    powers = [] if toy else sorted({2**n for n in range(cores.bit_length())} | {cores})  # 1, 2, 4, … and all cores

    python = [sys.executable]
    programs = {
        OURS: [*python, "ours.py"],
        BFLOAT16: [*python, "ours.py", "--precision=bfloat16"],
        IDIOMATIC: [*python, "idiomatic.py"],
        FLOOR: [*python, "floor.py"],
        FLOOR16: [*python, "floor.py", "--precision=bfloat16"],
    }
    no_slim = None
    if device == "cuda":
        programs[LOOSE] = [*python, "ours.py", "--no-deterministic"]
        no_slim = "timed on the CPU alone"
    elif options.skip_slim or not SLIM_PYTHON.exists():
        no_slim = "--skip-slim" if options.skip_slim else f"no {SLIM_PYTHON}: it needs Python 3.11 and `make bench`"
    else:
        programs[SLIM] = [str(SLIM_PYTHON), "slim.py"]
    if device == "cpu" and not has_bfloat16():
        del programs[BFLOAT16], programs[FLOOR16]

    def once(name: str, *more: str, length: tuple[int, int, int] = LENGTH[mode]) -> Record:
        """One process of a program; `s` is its median second a step."""
        lengths = [f"--{key}={n}" for key, n in zip(("warmup", "blocks", "block"), length, strict=True)]
        python, script, *own = programs[name]
        common = [f"--device={device}", f"--batch-size={batch_size}", *lengths]
        record = call([python, str(HERE / script), *common, *own, *more])
        record["s"] = statistics.median(record["step_s"])
        print(" ".join((name, *more)), f"{record['s']:.4g} s a step", file=sys.stderr)
        return record

    def seconds(option: str, values: list[int], name: str = OURS) -> dict[int, float]:
        """Seconds a step for each value of an option."""
        warmup, blocks, block = LENGTH[mode]
        return {v: once(name, f"{option}={v}", length=(warmup, -(-blocks // 4), block))["s"] for v in values}

    here, memory = environment(torch.device(device)), psutil.virtual_memory().total / 2**30
    results: Record = {
        "device": device,
        "hardware": f"{here['gpu'] or here['processor']}, {cores} CPU cores, {memory:.0f} GiB",
        "versions": {name: version(name) for name in ("torch", "torchvision", "numpy", "dvc")},
        "batch_size": batch_size,
        "rounds": rounds,
        "no_slim": no_slim,
    }
    with tempfile.TemporaryDirectory() as root:
        write_torchvision_files(Path(root))
        results["no_op"] = "not in --toy" if toy else noop.measure(3)
        results["start_up_s"] = start_up(device, 1 if toy else 4)
        programs[IDIOMATIC].append(f"--root={root}")
        workers = seconds("--workers", [] if toy else [0, *powers], IDIOMATIC)
        programs[IDIOMATIC].append(f"--workers={min(workers, key=lambda number: workers[number], default=0)}")
        runs: dict[str, list[Record]] = {name: [] for name in programs}
        for _ in range(rounds):
            for name in programs:
                runs[name].append(once(name))
        results |= {"loader_workers": workers, "programs": summary(runs, batch_size)}
        others = [name for name in (BFLOAT16, IDIOMATIC) if name in programs and not toy]
        results["accuracy"] = accuracies(once, others, mode, seeds=2 if toy else 3)
    results["batch_sizes"] = seconds("--batch-size", [64] if toy else [64, 256, 1024, 4096, 8192])
    results["threads"] = {} if device == "cuda" else seconds("--threads", powers)
    if SLIM in runs:
        results["versions"] |= runs[SLIM][0]["versions"]
    results["targets"] = targets(results)
    path = Path(f"benchmarks/results/{device}.json")
    write(path, (json.dumps(results, indent=1) + "\n").encode())
    print(text(results) + f"written to {path}")


if __name__ == "__main__":
    run(main)
