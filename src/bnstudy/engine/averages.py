"""The moving averages of many decays, carried along by one training: how far each lags behind the weights.

The decay never touches the weights in training, so one run carries the averages of every decay; only the evaluation
costs more. The weights are those of the variant's `train` run with the same seed.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from bnstudy.engine.network import Network, Norm
from bnstudy.engine.resume import Checkpoint, State
from bnstudy.engine.rows import WarmupRow
from bnstudy.engine.training import (
    Diverged,
    accumulators,
    dropout_mask,
    evaluate,
    loss_and_accuracy,
    restore,
    state_tensors,
    tensors,
    updates,
)

if TYPE_CHECKING:
    from bnstudy.params import Train, Warmup

SPARE_STEP = 2**31  # the first step of dropout masks that no update uses


class Averages(NamedTuple):
    """The moving averages of each decay, `values` float32 [decays, 2, channels], from `start` [2, channels]."""

    decays: list[float]
    start: Tensor
    values: Tensor

    def after(self, batch_2C: Tensor) -> "Averages":
        """With the statistics of one more batch."""
        decays_D11 = torch.tensor(self.decays, device=batch_2C.device).view(-1, 1, 1)
        return self._replace(values=decays_D11 * self.values + (1 - decays_D11) * batch_2C)


def evaluation_steps(steps: int, evaluate_every: int) -> set[int]:
    """Six steps per decade until `evaluate_every`, then its multiples, and the last step."""
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
    network: Network, step: int, averages: Averages, precise_2C: Tensor, test: tuple[Tensor, Tensor]
) -> list[WarmupRow]:
    """Test loss and accuracy after `step` updates, by every kind of statistics. Overwrites the network's averages."""
    found = list[WarmupRow]()
    for decay, average_2C in zip(averages.decays, averages.values, strict=True):
        set_statistics(network, average_2C)
        found.append(WarmupRow(step, "moving", decay, *evaluate(network, *test)))
        if 0 < decay < 1:
            start_weight = decay**step  # what is left of the initial 0 and 1
            if start_weight > 1e-9:
                set_statistics(network, (average_2C - start_weight * averages.start) / (1 - start_weight))
                found.append(WarmupRow(step, "corrected", decay, *evaluate(network, *test)))
            else:  # the same numbers
                found.append(found[-1]._replace(statistics="corrected"))
    found.append(WarmupRow(step, "batch", None, *evaluate_by_batch(network, *test)))
    set_statistics(network, precise_2C)
    found.append(WarmupRow(step, "precise", None, *evaluate(network, *test)))
    return found


def lags(network: Network, train: "Train", warmup: "Warmup", seed: int, checkpoint: Checkpoint) -> list[WarmupRow]:
    """Train `network` for `warmup.steps` updates, and measure the averages of `warmup.decays` on the way.

    Its own decay must be 0: its averages then are the last batch's statistics. Goes on from `checkpoint`. Raises
    `Diverged` when the loss is not finite at an evaluation.
    """
    device = checkpoint.device
    sums, train = accumulators(network, train), train.model_copy(update={"steps": warmup.steps})
    start_2C = statistics(network)
    averages = Averages(warmup.decays, start_2C, start_2C.repeat(len(warmup.decays), 1, 1))
    when, done, found = evaluation_steps(warmup.steps, warmup.evaluate_every), 0, list[WarmupRow]()
    if saved := checkpoint.load():
        done, found = saved.step, [WarmupRow(*row) for row in saved.rows]
        restore(network, sums, saved.tensors)
        averages = averages._replace(values=saved.tensors["averages"].to(device))
    (images_NHW, labels_N), test = tensors("train", device), tensors("test", device)
    precise_NHW = images_NHW[: warmup.precise_images]
    for step, loss, _ in updates(network, sums, images_NHW, labels_N, train, seed, done):
        averages = averages.after(statistics(network))
        if step in when:
            if not math.isfinite(loss):
                raise Diverged(step, f"{checkpoint.name}: step {step}: the loss is not finite")
            precise_2C = precise_statistics(network, precise_NHW, train.keep_prob, seed)
            found += measure(network, step, averages, precise_2C, test)
        if checkpoint.due(step):
            checkpoint.save(State(step, state_tensors(network, sums) | {"averages": averages.values}, found))
    return found
