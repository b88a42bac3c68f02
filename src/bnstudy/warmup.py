"""Stage `warmup`: how far moving averages lag behind the weights, for many decays in one training.

The decay never touches the weights in training, so one run carries the averages of every decay; only the evaluation
costs more. The weights are those of the variant's `train` run with the same seed.

python -m bnstudy.warmup --seed 0
"""

import argparse
import math
import time
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from bnstudy import device as devices
from bnstudy.checkpoint import Checkpoint, State, catch_signals
from bnstudy.network import Network, Norm, build
from bnstudy.params import Runtime, Seed, Train, Variant, Warmup, argument, load
from bnstudy.stage import arguments_of_stage, run, write_table
from bnstudy.training import (
    Diverged,
    accumulators,
    at_rate,
    dropout_mask,
    evaluate,
    loss_and_accuracy,
    restore,
    state_tensors,
    tensors,
    updates,
)

COLUMNS = ("step", "statistics", "decay", "test_loss", "test_accuracy")
Record = tuple[int, str, float | None, float, float]
SPARE_STEP = 2**31  # the first step of dropout masks that no update uses


def evaluation_steps(steps: int, evaluate_every: int) -> set[int]:
    """Six steps a decade until `evaluate_every`, then its multiples, and the last step."""
    early = {round(10 ** (k / 6)) for k in range(60)}
    return {step for step in early if step < min(evaluate_every, steps)} | {*range(0, steps, evaluate_every), steps} - {
        0
    }


def averaging_layers(network: Network) -> list[Norm]:
    return [module for module in network.modules() if isinstance(module, Norm)]


def statistics(network: Network) -> Tensor:
    """The moving means and variances of all layers, [2, channels of all layers]."""
    layers = averaging_layers(network)
    return torch.cat([torch.stack([layer.moving_mean, layer.moving_variance]) for layer in layers], 1)


def set_statistics(network: Network, values_2C: Tensor) -> None:
    layers = averaging_layers(network)
    parts = torch.split(values_2C, [layer.bias.numel() for layer in layers], 1)
    for layer, part in zip(layers, parts, strict=True):
        layer.moving_mean.copy_(part[0])
        layer.moving_variance.copy_(part[1])


@torch.no_grad()
def precise_statistics(network: Network, images_NHW: Tensor, keep_prob: float, seed: int) -> Tensor:
    """[2, channels]: mean and variance over all images with the weights fixed (Wu & Johnson 2021).

    From training-mode passes over equal parts of about 1,000 images, dropout included, as the averages see them; the
    variance is the mean within the parts plus that between their means. Overwrites the network's averages (its decay
    must be 0).
    """
    network.train()
    batches = []
    for number, images in enumerate(torch.tensor_split(images_NHW, math.ceil(len(images_NHW) / 1000))):
        network(images, dropout_mask(seed, SPARE_STEP + number, len(images), keep_prob, images.device))
        batches.append(statistics(network))
    means, variances = torch.stack(batches).unbind(1)
    return torch.stack([means.mean(0), variances.mean(0) + means.var(0, correction=0)])


@torch.no_grad()
def evaluate_by_batch(network: Network, images_NHW: Tensor, labels_N: Tensor) -> tuple[float, float]:
    """Loss and accuracy when each 1,000 images are normalized by their own statistics; no dropout."""
    network.train()
    return loss_and_accuracy(torch.cat([network(images) for images in torch.split(images_NHW, 1000)]), labels_N)


def measure(
    network: Network,
    start_2C: Tensor,
    averages_D2C: Tensor,
    step: int,
    decays: list[float],
    images_NHW: Tensor,
    test: tuple[Tensor, Tensor],
    keep_prob: float,
    seed: int,
) -> list[Record]:
    """Test loss and accuracy after `step` updates, by every kind of statistics. Overwrites the network's averages.

    Precise statistics are those of `images_NHW`.
    """
    found = list[Record]()
    for decay, average_2C in zip(decays, averages_D2C, strict=True):
        set_statistics(network, average_2C)
        found.append((step, "moving", decay, *evaluate(network, *test)))
        if 0 < decay < 1:
            start_weight = decay**step  # what is left of the initial 0 and 1
            if start_weight > 1e-9:
                set_statistics(network, (average_2C - start_weight * start_2C) / (1 - start_weight))
                found.append((step, "corrected", decay, *evaluate(network, *test)))
            else:  # the same numbers
                found.append((step, "corrected", decay, *found[-1][3:]))
    found.append((step, "batch", None, *evaluate_by_batch(network, *test)))
    set_statistics(network, precise_statistics(network, images_NHW, keep_prob, seed))
    found.append((step, "precise", None, *evaluate(network, *test)))
    return found


def records(
    network: Network, train: Train, warmup: Warmup, seed: int, device: torch.device, checkpoint: Checkpoint
) -> list[Record]:
    """Train `network`, whose decay must be 0: its averages then are the last batch's own statistics."""
    sums, train = accumulators(network, train), train.model_copy(update={"steps": warmup.steps})
    decays = torch.tensor(warmup.decays, device=device).view(-1, 1, 1)
    start_2C = statistics(network)
    averages_D2C = start_2C.repeat(len(warmup.decays), 1, 1)
    when, done, found = evaluation_steps(warmup.steps, warmup.evaluate_every), 0, list[Record]()
    if saved := checkpoint.load():
        done, found = saved.step, [tuple(record) for record in saved.records]
        restore(network, sums, saved.tensors)
        averages_D2C = saved.tensors["averages"].to(device)
    (images_NHW, labels_N), test = tensors("train", device), tensors("test", device)
    precise_NHW = images_NHW[: warmup.precise_images]
    training = updates(network, sums, images_NHW, labels_N, train, seed, done)
    for step, loss, _ in tqdm(training, f"warm-up seed {seed}", warmup.steps, initial=done, unit="step", disable=None):
        averages_D2C = decays * averages_D2C + (1 - decays) * statistics(network)
        if step in when:
            if not math.isfinite(loss):
                raise Diverged(
                    step, f"warm-up of {warmup.variant} from seed {seed}: step {step}: the loss is not finite"
                )
            found += measure(
                network, start_2C, averages_D2C, step, warmup.decays, precise_NHW, test, train.keep_prob, seed
            )
        if checkpoint.due(step, warmup.steps):
            checkpoint.save(State(step, state_tensors(network, sums) | {"averages": averages_D2C}, found))
    return found


def warmup_run(variant: Variant, train: Train, warmup: Warmup, seed: int, runtime: Runtime) -> None:
    """Write `metrics/warmup/<variant>/<seed>.csv`: a row a step, kind of statistics and decay."""
    device = devices.prepare(runtime)
    catch_signals()
    network = build(variant.model_copy(update={"decay": 0.0}), seed, device)
    determinants = [variant.model_dump(), train.model_dump(), warmup.model_dump(exclude={"seeds"}), seed]
    checkpoint = Checkpoint(f"warmup/{seed}", determinants, device, runtime)
    started = time.time()
    found = records(network, train, warmup, seed, device, checkpoint)
    write_table(Path("metrics/warmup", warmup.variant, f"{seed}.csv"), COLUMNS, found)
    seconds = devices.log(f"warmup/{seed}", device, started)
    checkpoint.finish()
    print(f"warm-up seed {seed}: {warmup.steps} steps on {device} in {seconds:.0f} s")


def main() -> None:
    params = load()  # before the arguments, which come from it where DVC runs this
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", required=True, type=argument(Seed))
    arguments = parser.parse_args(arguments_of_stage("seed"))
    name = params.warmup.variant
    train = at_rate(params.train, params.rates[name])
    warmup_run(params.variants[name], train, params.warmup, arguments.seed, params.runtime)


if __name__ == "__main__":
    run(main)
