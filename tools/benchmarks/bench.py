"""Our training step beside idiomatic PyTorch, the original's TF-slim and the floor: a table, and targets met or missed.

make bench      or, in an environment with the study's packages:  python tools/benchmarks/bench.py

Needs data/prepared (`dvc repro prepare`) and a quiet machine: one program runs at a time, in a process of its own, and
they take turns over several rounds. Writes benchmarks/results/<kind of machine>.json, and all of these into
benchmarks/README.md. Under 20 minutes on two CPU cores.
"""

import argparse
import json
import os
import re
import statistics
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import noop
from bnstudy import BadInput, run
from bnstudy.engine.data import load_split
from bnstudy.engine.device import environment
from bnstudy.files import write
from bnstudy.launch import kind_of
from pages import between

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1] / "src"
RESULTS = Path("benchmarks/results")
README = Path("benchmarks/README.md")
SLIM_PYTHON = Path(".venv-slim/bin/python")
OURS, BFLOAT16, LOOSE = "ours", "ours, bfloat16", "ours, not deterministic"
IDIOMATIC, SLIM, FLOOR, FLOOR16 = "idiomatic PyTorch", "TF-slim", "floor", "floor, bfloat16"
# Updates before the clock starts, timed blocks, and updates per block: a GPU's are too short to be timed alone.
LENGTH = {"cpu": (3, 20, 1), "cuda": (50, 10, 50), "toy": (1, 1, 1)}
Record = dict[str, Any]


def call(command: list[str]) -> Record:
    """Run a program of this folder; what its line of JSON says."""
    environ = os.environ | {"PYTHONPATH": str(SOURCE)}
    environ.pop("OMP_WAIT_POLICY", None)  # set by the import of bnstudy here; a peer has PyTorch's own
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    if done.returncode:
        raise BadInput(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
    record: Record = json.loads(done.stdout.splitlines()[-1])
    return record


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
    """One record per program: medians over the rounds, the fastest and slowest round, and what follows from them."""
    table = {}
    for name, records in runs.items():
        numbers = [key for key, value in records[0].items() if isinstance(value, int | float)]
        table[name] = {key: statistics.median(record[key] for record in records) for key in numbers}
        seconds = [record["s"] for record in records]
        table[name] |= {"fastest_s": min(seconds), "slowest_s": max(seconds)}
    for name, row in table.items():
        row["images_per_s"] = batch_size / row["s"]
        row["times_ours"] = row["s"] / table[OURS]["s"]
        row["floor_share"] = table[FLOOR16 if name in (BFLOAT16, FLOOR16) else FLOOR]["s"] / row["s"]
    return table


def targets(results: Record) -> list[list[str]]:
    """Rows of: against what, the target, what was measured, and whether it is met."""
    table, gpu, no_op = results["programs"], results["device"] == "cuda", results["no_op"]
    ours, rows = table[OURS], list[list[str]]()

    def row(what: str, target: str, measured: str, met: bool | None) -> None:
        rows.append([what, target, measured, {True: "met", False: "missed", None: "not measured"}[met]])

    def faster(what: str, wanted: float, ratio: float | None, why_not: str = "") -> None:
        measured, met = (why_not, None) if ratio is None else (f"{ratio:.2f}", ratio >= wanted)
        row(what, f"{wanted:g} times as fast", measured, met)

    faster("idiomatic PyTorch", 15 if gpu else 2.3, table[IDIOMATIC]["times_ours"])
    share, wanted = ours["floor_share"], 0.6 if gpu else 0.75
    row("floor", f"{wanted:.0%} of the step", f"{share:.0%}", share >= wanted)
    if not gpu:
        faster("TF-slim", 1.15, table.get(SLIM, {}).get("times_ours"), results["no_slim"])
        narrow = 1 / table[BFLOAT16]["times_ours"] if BFLOAT16 in table else None
        faster("our float32, in bfloat16", 1.4, narrow, "this CPU has none")
    found, limit = 15_000 * ours["evaluation_s"], 15 * ours["forward_s"]
    row("evaluation of 15,000 images", f"under 15 forward passes, {limit:.3g} s", f"{found:.3g} s", found < limit)
    what, target = "`dvc repro`, nothing to do", "under 1.6 s and 1.7 times empty stages"
    if isinstance(no_op, str):
        row(what, target, no_op, None)
    else:
        found, ratio = no_op["study"], no_op["study"] / no_op["empty"]
        row(what, target, f"{found:.2f} s, {ratio:.2f} times {no_op['stages']}", found < 1.6 and ratio <= 1.7)
    return rows


def markdown(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return "".join("| " + " | ".join(map(str.ljust, line, widths)) + " |\n" for line in lines)


def text(results: Record) -> str:
    """The hardware, the table, the targets, and how the cost grows, as Markdown."""
    floor = results["programs"][FLOOR]
    header = ["program", "s/step", "rounds", "images/s", "time / ours", "share of floor", "MiB", "GPU's", "evaluation"]
    rows = [header]
    for name, row in results["programs"].items():
        cells = [name, f"{row['s']:.4g}", f"{row['fastest_s']:.4g}–{row['slowest_s']:.4g}"]
        cells += [f"{row['images_per_s']:,.0f}", f"{row['times_ours']:.2f}", f"{row['floor_share']:.0%}"]
        cells += [f"{row['rss_mib']:,.0f}", f"{row['cuda_mib']:,.0f}" if "cuda_mib" in row else "–"]
        cells += [f"{10_000 * row['evaluation_s']:.3g}" if "evaluation_s" in row else "–"]
        rows.append(cells)

    def listed(seconds: dict[str, float]) -> str:
        return ", ".join(f"{number}: {s:.4g}" for number, s in seconds.items()) or "not measured"

    return f"""\
### {results["hardware"]}

{", ".join(map(" ".join, results["versions"].items()))}. Batches of {results["batch_size"]:,};
medians of {results["rounds"]} rounds; evaluation in seconds for 10,000 images.

{markdown(rows)}
{markdown([["against", "target", "measured", ""], *results["targets"]])}
- The floor: {floor["flop"] / 1e9:.1f} GFLOP per step at {floor["flop"] / floor["s"] / 1e9:,.0f} GFLOP/s.
- Our seconds per step by batch size: {listed(results["batch_sizes"])}.
- By number of threads: {listed(results["threads"])}.
- Idiomatic PyTorch's by number of loader workers: {listed(results["loader_workers"])}; the best is in the table.
"""


def every_text() -> str:
    """Of each kind of machine that was measured."""
    return "\n".join(text(json.loads(path.read_text())) for path in sorted(RESULTS.glob("*.json")))


def family() -> str:
    """The processor's family after a comma, on Linux: clouds call processors of several just "AMD EPYC"."""
    with suppress(OSError):
        if found := re.search(r"^cpu family\s*: (\d+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return f", family {found[1]}"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--toy", action="store_true", help="as little as shows that it runs")
    options = parser.parse_args()
    device, toy = options.device, options.toy
    mode, rounds, batch_size = ("toy", 1, 64) if toy else (device, 5, 1024)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    powers = [] if toy else sorted({2**n for n in range(cores.bit_length())} | {cores})  # 1, 2, 4, … and all cores

    python, narrow = [sys.executable], "--precision=bfloat16"
    programs = {OURS: [*python, "ours.py"], IDIOMATIC: [*python, "idiomatic.py"], FLOOR: [*python, "floor.py"]}
    if device == "cuda" or has_bfloat16():
        programs |= {BFLOAT16: [*python, "ours.py", narrow], FLOOR16: [*python, "floor.py", narrow]}
    no_slim = None
    if device == "cuda":
        programs[LOOSE] = [*python, "ours.py", "--no-deterministic"]
        no_slim = "timed on the CPU alone"
    elif SLIM_PYTHON.exists():
        programs[SLIM] = [str(SLIM_PYTHON), "slim.py"]
    else:
        no_slim = f"no {SLIM_PYTHON}: it needs Python 3.11 and `make bench`"

    def once(name: str, *more: str, blocks: int = LENGTH[mode][1]) -> Record:
        """One process of a program; `s` is its median seconds per step."""
        warmup, _, block = LENGTH[mode]
        python, script, *own = programs[name]
        common = [f"--device={device}", f"--batch-size={batch_size}"]
        common += [f"--warmup={warmup}", f"--blocks={blocks}", f"--block={block}"]
        record = call([python, str(HERE / script), *common, *own, *more])
        record["s"] = statistics.median(record["step_s"])
        print(" ".join((name, *more)), f"{record['s']:.4g} s per step", file=sys.stderr)
        return record

    def seconds(option: str, values: list[int], name: str = OURS) -> dict[str, float]:
        """Seconds per step for each value of an option."""
        return {str(value): once(name, f"{option}={value}", blocks=-(-LENGTH[mode][1] // 4))["s"] for value in values}

    here, memory = environment(torch.device(device)), psutil.virtual_memory().total / 2**30
    here["processor"] = f"{here['processor']}{family()}"
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
        programs[IDIOMATIC].append(f"--root={root}")
        workers = seconds("--workers", [] if toy else [0, *powers], IDIOMATIC)
        programs[IDIOMATIC].append(f"--workers={min(workers, key=lambda number: workers[number], default=0)}")
        runs: dict[str, list[Record]] = {name: [] for name in programs}
        for _ in range(rounds):
            for name in programs:
                runs[name].append(once(name))
    results |= {"loader_workers": workers, "programs": summary(runs, batch_size)}
    results["batch_sizes"] = seconds("--batch-size", [64] if toy else [64, 256, 1024, 4096, 8192])
    results["threads"] = {} if device == "cuda" else seconds("--threads", powers)
    if SLIM in runs:
        results["versions"] |= runs[SLIM][0]["versions"]
    results["targets"] = targets(results)
    path = RESULTS / f"{kind_of(here)}.json"
    write(path, (json.dumps(results, indent=1) + "\n").encode())
    write(README, between(README.read_text(), "results", every_text()).encode())
    print(f"{text(results)}\nwritten to {path}")


if __name__ == "__main__":
    run(main)
