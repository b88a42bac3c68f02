"""Stage `mechanism`: what averages that still hold a part of their start do to a finished network; nothing is trained.

Means and variances r * (0, 1) + (1 - r) * precise, for values of r from 0 to 1, the start's weight: in all layers, in
one, of the means or the variances alone.

python src/mechanism.py 10
"""

import argparse
from pathlib import Path

import numpy as np

from bnstudy import run
from bnstudy.engine.averages import averaging_layers, by_layer, precise_statistics, set_statistics
from bnstudy.engine.models import from_file
from bnstudy.engine.rows import MechanismRow, to_csv
from bnstudy.engine.run import Run
from bnstudy.engine.training import evaluate, tensors
from bnstudy.params import Seed, argument, load
from bnstudy.settings import Variant

PARTS = {"both": slice(2), "means": slice(1), "variances": slice(1, 2)}  # of statistics [2, channels]


def main() -> None:
    params = load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seed", type=argument(Seed))
    seed = parser.parse_args().seed

    measuring, rows = Run(f"mechanism/{seed}", params.runtime), []
    train_NHW, _ = tensors("train", measuring.device)
    images_NHW, labels_N = (part[: params.averages.images] for part in tensors("validation", measuring.device))
    path = Path("models/averages", f"{seed}.safetensors")
    network = from_file(path, "averages", seed, Variant.model_validate)[0].to(measuring.device)
    layers = averaging_layers(network)
    for layer in layers.values():
        layer.momentum = 1.0  # its averages are the last batch's statistics
    precise_2C = precise_statistics(network, train_NHW, params.train.keep_prob, seed)
    start_2C = precise_2C.new_zeros(precise_2C.shape)
    start_2C[1] = 1
    for where, what in [*(("all", what) for what in PARTS), *((layer, "both") for layer in layers)]:
        mixed_2C = precise_2C.new_zeros(precise_2C.shape)  # 1 where the start takes part
        for name, part_2C in by_layer(network, mixed_2C).items():
            if where in ("all", name):
                part_2C[PARTS[what]] = 1
        for r in np.linspace(0, 1, params.mechanism.points).tolist():
            set_statistics(network, precise_2C + r * mixed_2C * (start_2C - precise_2C))
            rows.append(MechanismRow(seed, where, what, r, *evaluate(network, images_NHW, labels_N)))

    worst = min(row.accuracy for row in rows if (row.where, row.what) == ("all", "both"))
    measuring.finish({Path("metrics", f"{measuring.name}.csv"): to_csv(rows)}, f"lowest accuracy {worst:.2%}")


if __name__ == "__main__":
    run(main)
