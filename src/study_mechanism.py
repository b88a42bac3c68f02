"""Stage `mechanism` of the study: what a part of their start in averages does to a finished network; trains nothing.

    python src/study_mechanism.py 22

Means and variances r * (0, 1) + (1 - r) * precise, for values of r from 0 to 1, the start's weight: in all layers, in
one, of the means or the variances alone.

study/runs/mechanism/<seed>.csv    see `bnstudy.engine.rows.MechanismRow`
study/runs/mechanism/<seed>.json   with what it was made: parameters, versions, machine
"""

import argparse
from pathlib import Path

import torch

from bnstudy import run
from bnstudy.engine.averages import averaging_layers, by_layer, precise_statistics, set_statistics, start_of
from bnstudy.engine.data import expect
from bnstudy.engine.models import from_file
from bnstudy.engine.rows import MechanismRow, to_csv
from bnstudy.engine.run import Run
from bnstudy.engine.training import evaluate, tensors
from bnstudy.params import Seed, argument, load_runtime
from bnstudy.study.params import load

NETWORK = "note_batch_norm"
PARTS = {"both": slice(2), "means": slice(1), "variances": slice(1, 2)}  # of statistics [2, channels]


def main() -> None:
    study = load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seed", type=argument(Seed))
    seed = parser.parse_args().seed
    expect(study.data.sha256)

    measuring, rows = Run(f"study/mechanism/{seed}", load_runtime()), list[MechanismRow]()
    train_NHW, _ = tensors("train", measuring.device)
    images_NHW, labels_N = tensors("validation", measuring.device)
    defined = study.averages[NETWORK]
    images = images_NHW[: defined.images], labels_N[: defined.images]
    path = Path("study/models", NETWORK, f"{seed}.safetensors")
    network = from_file(path, NETWORK, study.arm(defined, defined.learning_rate), seed).to(measuring.device)
    layers = averaging_layers(network)
    for layer in layers.values():
        layer.momentum = 1.0  # its averages are the last batch's statistics
    precise_2C = precise_statistics(network, train_NHW[: defined.precise_images], study.train.keep_prob, seed)
    start_2C = start_of(precise_2C)
    for where, what in [*(("all", what) for what in PARTS), *((layer, "both") for layer in layers)]:
        mixed_2C = torch.zeros_like(precise_2C)  # 1 where the start takes part
        for name, part_2C in by_layer(network, mixed_2C).items():
            if where in ("all", name):
                part_2C[PARTS[what]] = 1
        for r in torch.linspace(0, 1, study.mechanism.points, dtype=torch.float64).tolist():
            set_statistics(network, precise_2C + r * mixed_2C * (start_2C - precise_2C))
            rows.append(MechanismRow(where, what, r, *evaluate(network, images)))

    lowest = min(row.accuracy for row in rows if (row.where, row.what) == ("all", "both"))
    path = Path("study/runs/mechanism", f"{seed}.csv")
    parameters = study.definition("averages", NETWORK) | {"points": study.mechanism.points}
    measuring.finish(
        {path: to_csv(rows), path.with_suffix(".json"): measuring.record(parameters)},
        f"lowest accuracy {lowest:.2%}",
    )


if __name__ == "__main__":
    run(main)
