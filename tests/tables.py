"""What `evaluate` leaves behind, made up but shaped like the study's, for tests of what draws and reports it."""

import csv
import json
import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bnstudy.engine.grid import grid
from conftest import ROOT

NETWORKS = ["plain", "plain_he", "batch_norm_hidden", "batch_norm_hidden_he", "batch_norm", "batch_norm_he"]
RATES = [0.001, 0.0032, 0.01, 0.032, 0.1, 0.32, 1.0, 3.2]
# Accuracy lost with this weight of the start.
WEIGHTS = [0.0, 0.02, 0.05, 0.08, 0.13, 0.2, 0.25, 0.3, 0.37, 0.45, 0.55, 0.67, 0.78, 0.82, 0.87, 0.9, 1.0]
LOST = [0.0, 0.03, 0.2, 0.35, 0.53, 0.65, 0.67, 0.66, 0.61, 0.48, 0.29, 0.08, 0.03, 0.1, 0.25, 0.3, 0.35]
# Accuracy at each of RATES: the note's initial weights and He's, without batch norm, hidden, everywhere.
ACCURACIES = [
    [0.80, 0.885, 0.936, 0.91, 0.64, 0.70, 0.62, 0.1],
    [0.85, 0.905, 0.962, 0.955, 0.61, 0.48, 0.1, 0.1],
    [0.77, 0.87, 0.945, 0.968, 0.98, 0.984, 0.948, 0.80],
    [0.83, 0.90, 0.95, 0.972, 0.983, 0.985, 0.96, 0.87],
    [0.60, 0.77, 0.892, 0.936, 0.965, 0.978, 0.983, 0.98],
    [0.66, 0.80, 0.905, 0.942, 0.968, 0.979, 0.984, 0.979],
]
LADDER: list[tuple[str, str, str, float, float | str, float, float, int]] = [
    ("note_plain", "the note's network without batch norm (0.1)", "", 0.641, "", 0, 0, 0),
    ("plain_own_rate", "its own rate (0.01)", "note_plain", 0.934, 0.293, 0.27, 0.316, 0),
    ("baseline", "the best initial weights, tuned (0.018)", "plain_own_rate", 0.962, 0.028, 0.022, 0.034, 0),
    ("same_rate", "batch norm, same rate (0.018)", "baseline", 0.955, -0.007, -0.013, -0.001, 0),
    ("own_rate", "batch norm, its own rate (0.32)", "same_rate", 0.983, 0.028, 0.023, 0.033, 0),
    ("everywhere", "batch norm of the logits too (1)", "own_rate", 0.982, -0.001, -0.004, 0.002, 0),
    ("he", "He's initial weights (0.1)", "note_plain", 0.592, -0.049, -0.091, -0.007, 1),
    ("he_ramp", "… and the rate ramped up (0.1)", "note_plain", 0.702, 0.061, -0.02, 0.142, 1),
]
DIP = ["statistics", "decay", "step", "age", "seeds", "difference", "low", "high", "distance"]
MECHANISM = ["where", "what", "start_weight", "seeds", "accuracy", "difference", "low", "high"]
RUNGS = ["rung", "label", "from", "seeds", "accuracy", "change", "low", "high", "side"]
SWEEP = ["network", "learning_rate", "seed", "diverged", "validation_accuracy"]


def write_table(name: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    path = Path("plots", f"{name}.csv")
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(columns)
        lines.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)


def lost(weight: float) -> float:
    return float(np.interp(weight, WEIGHTS, LOST))


def write_plots(
    decays: Sequence[float] = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999), seeds: int = 10, steps: int = 2000
) -> None:
    """The tables of the three pictures, in the current folder."""
    random, spread = np.random.default_rng(0), 0.01 if seeds > 1 else 0.0
    dips = []
    for decay in decays:
        for step in grid(steps):
            start = decay**step
            value = 0.0 if start < 1e-9 else -lost(start) * (1 - 0.3 / step) + random.normal(0, spread)
            row = (decay, step, -math.log(decay) * step, seeds)
            dips.append(("moving", *row, value, value - 2 * spread, value + 2 * spread, start))
            dips.append(("corrected", *row, -0.02 / step, -0.04 / step, 0.0, 0.1))
    write_table("dip", DIP, dips)
    weights = [float(weight) for weight in np.linspace(0, 1, 50)]
    mixes = [("all", "both", 1.0), ("all", "means", 0.2), ("conv1", "both", 0.5)]
    write_table(
        "mechanism",
        MECHANISM,
        [
            (
                where,
                what,
                r,
                min(seeds, 3),
                0.99 - lost(r) * part,
                -lost(r) * part,
                -lost(r) * part - 0.02,
                -lost(r) / 2,
            )
            for where, what, part in mixes
            for r in weights
        ],
    )
    write_table("ladder", RUNGS, [(*rung[:3], seeds, *rung[3:]) for rung in LADDER])
    write_table(
        "rates",
        SWEEP,
        [
            (network, rate, seed, int(accuracy == 0.1), accuracy + (seed - 100.5) * 0.1 * (1 - accuracy))
            for network, accuracies in zip(NETWORKS, ACCURACIES, strict=True)
            for rate, accuracy in zip(RATES, accuracies, strict=True)
            for seed in ((100, 101) if seeds > 1 else (100,))
        ],
    )


def write_charts() -> None:
    """The tables that DVC alone draws, in the current folder."""
    steps = [5, 50, 500, 2000]
    write_table(
        "curves",
        ["arm", "seed", "step", "validation_accuracy", "test_accuracy"],
        [
            (arm, seed, step, 1 - (0.5 + 0.01 * seed) / step**power, "")
            for arm, power in (("note_plain", 0.3), ("baseline", 0.5))
            for seed in (10, 11)
            for step in steps
        ],
    )
    write_table(
        "tolerance",
        ["contestant", *SWEEP[1:]],
        [
            (contestant, rate, seed, 0, gain + 0.01 * place)
            for contestant, gain in (("without", 0.8), ("with", 0.9))
            for place, rate in enumerate([0.01, 0.1, 1.0])
            for seed in (10, 11)
        ],
    )
    write_batch((10, 11))


def write_batch(seeds: Iterable[int]) -> None:
    """The contest's networks at each batch size, in the current folder."""
    write_table(
        "batch",
        ["contestant", "batch_size", "learning_rate", "seed", "validation_accuracy", "edge"],
        [
            (contestant, size, 0.1, seed, gain + 0.01 * place + 0.001 * (seed - 10), "lowest" if size == 64 else "")
            for contestant, gain in (("without", 0.94), ("with", 0.95))
            for place, size in enumerate([64, 256, 1024])
            for seed in seeds
        ],
    )


def finding(id: int, claim: str, verdict: str, parts: Sequence[tuple[Any, ...]], **others: Any) -> dict[str, Any]:
    """A claim with parts of (part, estimate, interval, low, value, high, verdict)."""
    keys = ("part", "estimate", "interval", "low", "value", "high", "verdict")
    return {
        "id": id,
        "claim": claim,
        "endpoint": f"How claim {id} is measured, in one sentence of about the usual length, over pairs of seeds.",
        "rule": "the interval's adverse end lies below 0.8, and the adjusted p below 0.05",
        "verdict": verdict,
        "p": None,
        "adjusted_p": None,
        "level": "96% interval",
        "why": "Its interval clears the rule, and the adjusted p is 0.0078.",
        "sentence": f"What became of claim {id}, with its numbers: 0.44 times the updates, between 0.40 and 0.49.",
        "parts": [dict(zip(keys, part, strict=True)) | {"bound": "exact", "runs": 10, "agree": 9} for part in parts],
        "described": [],
    } | others


FINDINGS = [
    finding(
        *(1, "Batch norm converges faster, in the note's own setting.", "holds"),
        [("to 95%", "≤ 0.055×", "up to 0.075×", None, 0.055, 0.075, "holds")],
        p=0.00195312,
        adjusted_p=0.0078125,
        described=["To 90%: 0.12× (0.10× to 0.15×).", "Interpolated times: 0.051×."],
    ),
    finding(
        *(2, "Tuned against tuned, it still does.", "holds"),
        [("to 98%", "0.44×", "0.40× to 0.49×", 0.4, 0.44, 0.49, "holds")],
        p=0.00195312,
        adjusted_p=0.0078125,
    ),
    finding(
        *(3, "What it buys is the larger rate.", "not shown"),
        [
            ("at the same rate", "−0.7 points", "−1.3 to −0.1 points", -0.013, -0.007, -0.001, "not shown"),
            ("its own rate adds", "+2.8 points", "+2.3 to +3.3 points", 0.023, 0.028, 0.033, "holds"),
        ],
    ),
    finding(4, "The initial weights are not what ails the note's baseline.", "refuted", [], p=0.5, adjusted_p=1.0),
    finding(
        *(5, "Averages need about 5 / (1 − decay) updates, not “about 1,000”.", "refuted"),
        [
            (f"decay {decay}", "5.2", "4.9 to 5.6", 4.9, 5.2, 5.6, "refuted" if decay == 0.9 else "holds")
            for decay in (0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
        ],
        level="least to most",
    ),
    *(finding(id, f"A claim <{id}> & its words.", "not measured", []) for id in range(6, 10)),
]
ENVIRONMENT: dict[str, Any] = {"torch": "2.8.0", "processor": "A", "gpu": None, "threads": 1, "deterministic": True}
CHOICE = {"rate": 0.01, "accuracy": 0.936, "edge": None, "overruled": False}
FINAL = {"network": "plain_he", "rate": 0.018, "updates": 240.0, "edge": None, "overruled": False}
CHOICES: dict[str, Any] = {
    "networks": dict.fromkeys(NETWORKS, CHOICE) | {"batch_norm_he": CHOICE | {"rate": 3.2, "edge": "highest"}},
    "finalists": {
        "without": FINAL,
        "hidden": FINAL | {"network": "batch_norm_hidden_he", "rate": 0.32, "updates": 105.0, "edge": "lowest"},
        "everywhere": FINAL | {"network": "batch_norm_he", "rate": 1.0, "updates": None, "overruled": True},
    },
    "contest": {"without": "without", "with": "hidden"},
}


def write_json(name: str, content: Any) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(json.dumps(content, ensure_ascii=False))


def write_results() -> None:
    """What else `report` reads, in the current folder: verdicts, summaries, environments, choices, first version."""
    write_json("metrics/claims.json", FINDINGS)
    runs = [f"train/note_plain/{seed}" for seed in range(10, 20)]
    write_json("metrics/environment.json", [ENVIRONMENT | {"runs": runs}, {"python": "3.11", "numpy": "2.4.6"}])
    write_json("settings/choices.json", CHOICES)
    write_batch(range(10, 16))
    shutil.copytree(ROOT / "data/first_version", "data/first_version", dirs_exist_ok=True)
    shutil.copytree(ROOT / "docs", "docs", dirs_exist_ok=True)
    shutil.copy(ROOT / "params.yaml", ".")
