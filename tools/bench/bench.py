"""Our training step beside idiomatic PyTorch, the original's TF-slim and the floor: a table, and targets met or missed.

make bench      or, in an environment with the study's packages:  python tools/bench/bench.py

Needs data/prepared (`dvc repro prepare`) and a quiet machine: one program runs at a time, in a process of its own, and
they take turns over several rounds. Writes results/<kind of machine>.json, and all of these into README.md, both in its
folder. A quarter of an hour on two CPU cores.
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
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from bnstudy import BadInput, run
from bnstudy.engine.data import load_split
from bnstudy.engine.device import environment
from bnstudy.files import write
from bnstudy.launch import kind_of

HERE = Path(__file__).resolve().parent
SLIM_PYTHON = Path(".venv-slim/bin/python")
OURS, BFLOAT16, LOOSE = "ours", "ours, bfloat16", "ours, not deterministic"
IDIOMATIC, SLIM, FLOOR, FLOOR16 = "idiomatic PyTorch", "TF-slim", "floor", "floor, bfloat16"
# Updates before the clock starts, timed blocks, and updates per block: a GPU's are too short to be timed alone.
LENGTH = {"cpu": (3, 20, 1), "cuda": (50, 10, 50), "toy": (1, 1, 1)}
Record = dict[str, Any]


def call(command: list[str]) -> Record:
    """Run a program of this folder; what its line of JSON says."""
    environ = os.environ | {"PYTHONPATH": str(HERE.parents[1] / "src")}
    environ.pop("OMP_WAIT_POLICY", None)  # set by the import of bnstudy here; a peer has PyTorch's own
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    if done.returncode:
        raise BadInput(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
    record: Record = json.loads(done.stdout.splitlines()[-1])
    return record | ({"s": statistics.median(record["step_s"])})


def write_torchvision_files(root: Path) -> None:
    """The prepared training and test splits as torchvision's MNIST reads them: every program has the same images."""
    folder = root / "MNIST/raw"
    folder.mkdir(parents=True)
    for split, part in (("train", "train"), ("test", "t10k")):
        images_NHW, labels_N = load_split(split)
        images, labels = struct.pack(">4i", 0x803, *images_NHW.shape), struct.pack(">2i", 0x801, len(labels_N))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(images + images_NHW.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels + labels_N.tobytes())


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


def targets(table: dict[str, Record], device: str) -> list[list[str]]:
    """Rows of: against what, how many times as fast we mean to be, what was measured, and whether it is met."""
    peers = {IDIOMATIC: 15, FLOOR: 0.6} if device == "cuda" else {IDIOMATIC: 2.3, SLIM: 1.15, FLOOR: 0.75}
    found = {name: table[name]["times_ours"] for name in peers if name in table}
    if device == "cpu" and BFLOAT16 in table:
        peers["our float32, in bfloat16"] = 1.4
        found["our float32, in bfloat16"] = 1 / table[BFLOAT16]["times_ours"]
    rows = [[name, f"{wanted:g}", f"{found[name]:.2f}" if name in found else "–"] for name, wanted in peers.items()]
    met = {name: "met" if found[name] >= wanted else "missed" for name, wanted in peers.items() if name in found}
    return [[*row, met.get(row[0], "not measured")] for row in rows]


def markdown(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return "".join("| " + " | ".join(map(str.ljust, line, widths)) + " |\n" for line in lines)


def text(results: Record) -> str:
    """The hardware, the table and the targets, as Markdown."""
    rows = [["program", "s/step", "rounds", "images/s", "time / ours", "floor / time", "MiB", "GPU's", "evaluation"]]
    for name, row in results["programs"].items():
        cells = [name, f"{row['s']:.4g}", f"{row['fastest_s']:.4g}–{row['slowest_s']:.4g}"]
        cells += [f"{row['images_per_s']:,.0f}", f"{row['times_ours']:.2f}", f"{row['floor_share']:.0%}"]
        cells += [f"{row['rss_mib']:,.0f}", f"{row['cuda_mib']:,.0f}" if "cuda_mib" in row else "–"]
        cells += [f"{10_000 * row['evaluation_s']:.3g}" if "evaluation_s" in row else "–"]
        rows.append(cells)
    met = [["we against", "times as fast", "measured", ""], *targets(results["programs"], results["device"])]
    versions = ", ".join(map(" ".join, results["versions"].items()))
    return (
        f"### {results['hardware']}\n\n{versions}.\nBatches of {results['batch_size']:,}; medians of "
        f"{results['rounds']} rounds; evaluation in seconds for 10,000 images.\n\n{markdown(rows)}\n{markdown(met)}"
    )


def every_text(folder: Path = HERE) -> str:
    """README.md in `folder`, with the tables of each kind of machine that was measured between its two marks."""
    tables = "\n".join(text(json.loads(path.read_text())) for path in sorted((folder / "results").glob("*.json")))
    before, *_, after = re.split("<!-- /?results -->\n", (folder / "README.md").read_text())
    return f"{before}<!-- results -->\n{tables}<!-- /results -->\n{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--toy", action="store_true", help="as little as shows that it runs")
    parser.add_argument("--into", type=Path, default=HERE, help="the folder of README.md and results")
    options = parser.parse_args()
    mode, rounds, batch_size = ("toy", 1, 64) if options.toy else (options.device, 5, 1024)
    warmup, blocks, block = LENGTH[mode]
    common = [f"--device={options.device}", f"--batch-size={batch_size}", f"--warmup={warmup}", f"--blocks={blocks}"]
    common += [f"--block={block}"]

    def program(name: str, *more: str, python: str = sys.executable) -> list[str]:
        return [python, str(HERE / f"{name}.py"), *common, *more]

    here, memory = environment(torch.device(options.device)), psutil.virtual_memory().total / 2**30
    cores = os.cpu_count() or 1
    hardware = f"{here['gpu'] or here['processor']}, {cores} CPU cores, {memory:.0f} GiB"
    versions = {name: version(name) for name in ("torch", "torchvision", "numpy")}
    with tempfile.TemporaryDirectory() as root:
        write_torchvision_files(Path(root))
        peers = [program("idiomatic", f"--root={root}", f"--workers={count}") for count in sorted({0, 1, cores})]
        peer = peers[0] if options.toy else min(peers, key=lambda command: float(call(command)["s"]))
        programs = {OURS: program("ours"), IDIOMATIC: peer, FLOOR: program("floor")}
        known = Path("/proc/cpuinfo")
        if options.device == "cuda" or (known.exists() and "bf16" in known.read_text()):  # else it goes through float32
            programs |= {
                key: program(name, "--precision=bfloat16") for key, name in ((BFLOAT16, "ours"), (FLOOR16, "floor"))
            }
        if options.device == "cuda":
            programs[LOOSE] = program("ours", "--no-deterministic")
        elif SLIM_PYTHON.exists():
            programs[SLIM] = program("slim", python=str(SLIM_PYTHON))
        runs: dict[str, list[Record]] = {name: [] for name in programs}
        for _ in range(rounds):
            for name, command in programs.items():
                runs[name].append(call(command))
                print(name, f"{runs[name][-1]['s']:.4g} s per step", file=sys.stderr)
    if SLIM in runs:
        versions |= runs[SLIM][0]["versions"]
    results = {"device": options.device, "hardware": hardware, "versions": versions, "batch_size": batch_size}
    results |= {"rounds": rounds, "programs": summary(runs, batch_size)}
    path = options.into / f"results/{kind_of(here)}.json"
    write(path, (json.dumps(results, indent=1) + "\n").encode())
    write(options.into / "README.md", every_text(options.into).encode())
    print(f"{text(results)}\nwritten to {path}")


if __name__ == "__main__":
    run(main)
