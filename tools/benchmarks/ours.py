"""The study's own engine, as `src/train.py` uses it, at any batch size, precision and number of threads."""

import argparse

import worker
from bnstudy import run
from bnstudy.engine.device import prepare
from bnstudy.engine.network import build
from bnstudy.engine.training import accumulators, evaluate, tensors, updates
from bnstudy.params import load
from bnstudy.settings import setting


def main() -> None:
    parser = worker.parser(__doc__)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--deterministic", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    params = load()
    runtime = {"device": options.device, "threads": options.threads or "all", "deterministic": options.deterministic}
    device = prepare(params.runtime.model_copy(update=runtime))
    steps = options.warmup + options.blocks * options.block
    changes = {"batch_size": options.batch_size, "precision": options.precision}
    chosen = setting(params, "batch_norm", 0.1, steps).model_copy(update=changes)
    network = build(chosen.network, 0, device)
    images_NHW, labels_N = tensors("train", device)
    sums = accumulators(network, chosen)
    step_s = worker.timed(updates(network, sums, images_NHW, labels_N, chosen, seed=0), options)

    splits = [tensors(split, device) for split in ("validation", "test")]
    _, accuracy = [evaluate(network, *split) for split in splits][1]
    evaluation_s = worker.seconds_of(lambda: [evaluate(network, *split) for split in splits], options.device)
    evaluation_s /= sum(len(labels) for _, labels in splits)
    network.train()  # last, since a forward pass then moves the averages; in float32, as evaluation is
    batch_NHW = images_NHW[: options.batch_size]
    forward_s = worker.seconds_of(lambda: network(batch_NHW), options.device, 5)
    worker.report(options.device, step_s=step_s, accuracy=accuracy, evaluation_s=evaluation_s, forward_s=forward_s)


if __name__ == "__main__":
    run(main)
