"""The study's own engine, as `src/train.py` uses it, at any precision."""

import argparse
from itertools import pairwise

import worker
from bnstudy import run
from bnstudy.engine.device import prepare
from bnstudy.engine.network import build
from bnstudy.engine.training import Optimizer, Update, evaluate, tensors, train
from bnstudy.params import load


class Stopwatch:
    """A hook that reads the clock after the last warm-up, and after each timed block of updates."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.read = options, list[float]()

    def after(self, update: Update) -> None:
        past = update.step - self.options.warmup
        if past >= 0 and past % self.options.block == 0:
            self.read.append(worker.clock(self.options.device))

    def seconds(self) -> list[float]:
        """Per update, one number per block."""
        return [(end - start) / self.options.block for start, end in pairwise(self.read)]


def main() -> None:
    parser = worker.parser(__doc__)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--deterministic", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    params = load()
    runtime = {"device": options.device, "threads": "all", "deterministic": options.deterministic}
    device = prepare(params.runtime.model_copy(update=runtime))
    steps = options.warmup + options.blocks * options.block
    changes = {"steps": steps, "batch_size": options.batch_size, "precision": options.precision}
    arm = params.arm("batch_norm").model_copy(update=changes)
    network, watch = build(arm.network, 0, device), Stopwatch(options)
    train(network, Optimizer(network, arm.optimizer), arm, 0, tensors("train", device), [watch])

    test = tensors("test", device)
    _, accuracy = evaluate(network, test)
    evaluation_s = worker.seconds_of(lambda: evaluate(network, test), options.device) / len(test[1])
    worker.report(options.device, step_s=watch.seconds(), accuracy=accuracy, evaluation_s=evaluation_s)


if __name__ == "__main__":
    run(main)
