"""Batch norm's statistics: moving averages of any decay, the same less their start, and precise ones.

The decay never touches the weights in training, so that one training can carry the averages of every decay; only the
evaluation costs more.
"""

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bnstudy.engine.network import LAYERS, Network, Norm
from bnstudy.engine.rows import AveragesRow
from bnstudy.engine.training import Images, Update, dropout_mask, evaluate, loss_and_accuracy

if TYPE_CHECKING:
    from bnstudy.params import Arm

SPARE_STEP = 2**31  # the first step of dropout masks that no update uses
SAME = 1e-9  # a start of less weight changes no result


def averaging_layers(network: Network) -> dict[str, Norm]:
    """The layers that keep moving averages, by name."""
    norms = zip(LAYERS, (network.norm1, network.norm2, network.norm3, network.norm4), strict=True)
    return {name: norm for name, norm in norms if isinstance(norm, Norm) and norm.kind == "batch"}


def statistics(network: Network) -> Tensor:
    """The moving means and variances of all layers, [2, channels of all layers]."""
    layers = averaging_layers(network).values()
    return torch.cat([torch.stack([layer.moving_mean, layer.moving_variance]) for layer in layers], 1)


def by_layer(network: Network, values_2C: Tensor) -> dict[str, Tensor]:
    """Values of all channels, [2, channels], as [2, channels of the layer] by its name."""
    layers = averaging_layers(network)
    return dict(zip(layers, torch.split(values_2C, [layer.bias.numel() for layer in layers.values()], 1), strict=True))


@torch.no_grad()
def set_statistics(network: Network, values_2C: Tensor) -> None:
    """Evaluate `network` by these means and variances from now on."""
    for name, part in by_layer(network, values_2C).items():
        layer = averaging_layers(network)[name]
        layer.moving_mean.copy_(part[0])
        layer.moving_variance.copy_(part[1])


def start_of(values_2C: Tensor, variance: float = 1.0) -> Tensor:
    """Where averages of the shape of `values_2C` start: means 0, and this variance."""
    start_2C = torch.zeros_like(values_2C)
    start_2C[1] = variance
    return start_2C


def less_start(values_2C: Tensor, start_weight: float) -> Tensor:
    """Averages that started at means 0 and variances 1, less that start: (average - r * start) / (1 - r).

    `start_weight` is r = decay ** updates, below 1. Adam's bias correction (Kingma & Ba 2015), which makes averages the
    weighted mean of the batches alone.
    """
    return (values_2C - start_weight * start_of(values_2C)) / (1 - start_weight)


@torch.no_grad()
def precise_statistics(network: Network, images_NHW: Tensor, keep_prob: float, seed: int) -> Tensor:
    """[2, channels]: mean and variance over all images with the weights fixed (Wu & Johnson 2021).

    From training-mode passes over equal parts of about 1,000 images, dropout included, as the averages see them; the
    variance is the mean within the parts, unbiased as theirs, plus that between their means. Overwrites the network's
    averages (its decay must be 0).
    """
    network.train()
    batches = []
    for number, images in enumerate(torch.tensor_split(images_NHW, math.ceil(len(images_NHW) / 1000))):
        network(images, dropout_mask(seed, SPARE_STEP + number, len(images), keep_prob, images.device))
        batches.append(statistics(network))
    means, variances = torch.stack(batches).unbind(1)
    return torch.stack([means.mean(0), variances.mean(0) + means.var(0, correction=0)])


def distances(network: Network, values_2C: Tensor, precise_2C: Tensor, epsilon: float) -> dict[str, float]:
    """How far statistics are from precise ones: the columns `<layer>_mean_off` and `_deviation_off` of `AveragesRow`.

    A standard deviation is that which the network divides by, epsilon included.
    """
    found, precise = dict[str, float](), by_layer(network, precise_2C)
    for layer, (mean_C, variance_C) in by_layer(network, values_2C).items():
        precise_mean_C, precise_variance_C = precise[layer]
        sigma_C = (precise_variance_C + epsilon).sqrt()
        mean_off_C = mean_C - precise_mean_C
        deviation_off_C = (variance_C.clamp(min=0) + epsilon).sqrt() - sigma_C
        for what, off_C in (("mean", mean_off_C), ("deviation", deviation_off_C)):
            found[f"{layer}_{what}_off"] = (off_C / sigma_C).square().mean().sqrt().item()
    return found


def sizes(network: Network, precise_2C: Tensor) -> dict[str, float]:
    """How large precise statistics are: the columns `<layer>_mean` and `<layer>_variance` of `AveragesRow`."""
    found = dict[str, float]()
    for layer, (mean_C, variance_C) in by_layer(network, precise_2C).items():
        found[f"{layer}_mean"] = mean_C.square().mean().sqrt().item()
        found[f"{layer}_variance"] = variance_C.mean().item()
    return found


@torch.no_grad()
def evaluate_by_batch(network: Network, images: Images) -> tuple[float, float]:
    """Loss and accuracy when each 1,000 images are normalized by their own statistics; no dropout."""
    images_NHW, labels_N = images
    network.train()
    return loss_and_accuracy(torch.cat([network(part) for part in torch.split(images_NHW, 1000)]), labels_N)


class Averages:
    """A hook that carries the moving averages of many decays and evaluates each at updates of its own.

    `network`'s own decay must be 0: its averages are then the last batch's statistics. `when` says after which updates
    each decay is evaluated: by its moving averages, by these less their start, and for decays of `other_starts` by
    averages whose variances started at each of `start_variances`, and by averages of which the means alone are less
    their start. With any of these, the network is evaluated by precise statistics from `precise_NHW` too; after
    `moments` by the batch's own. The averages of the arm's own decay are `own()`; a `History` that evaluates by them
    overwrites the batch's statistics, so it comes after this hook.
    """

    def __init__(
        self,
        network: Network,
        arm: "Arm",
        seed: int,
        when: Mapping[float, Collection[int]],
        moments: Collection[int],
        images: Images,
        precise_NHW: Tensor,
        other_starts: Collection[float] = (),
        start_variances: Collection[float] = (),
    ) -> None:
        assert arm.network.decay is not None
        assert arm.network.epsilon is not None
        self.network, self.arm, self.seed, self.epsilon = network, arm, seed, arm.network.epsilon
        self.when, self.moments, self.images, self.precise_NHW = when, moments, images, precise_NHW
        self.other_starts, self.start_variances = other_starts, start_variances
        batch_2C = self.batch()
        self.decays = [*when, arm.network.decay]
        self.decays_D11 = torch.tensor(self.decays, dtype=batch_2C.dtype, device=batch_2C.device).view(-1, 1, 1)
        self.values_D2C = start_of(batch_2C).repeat(len(self.decays), 1, 1)
        self.rows = list[AveragesRow]()

    def batch(self) -> Tensor:
        """The last batch's statistics, float64: a start of weight near 1 is subtracted without losing digits."""
        values_2C = statistics(self.network)
        return values_2C if values_2C.device.type == "mps" else values_2C.double()  # which has no float64

    def own(self) -> Tensor:
        """The moving averages of the arm's own decay, [2, channels]."""
        return self.values_D2C[-1]

    def after(self, update: Update) -> None:
        """Take in the statistics of the update's batch; evaluate what is due."""
        self.values_D2C = self.decays_D11 * self.values_D2C + (1 - self.decays_D11) * self.batch()
        if any(update.step in steps for steps in self.when.values()):
            self.measure(update.step)

    def measure(self, step: int) -> None:
        """Add a row for each kind of statistics that is due after update `step`."""
        network = self.network
        precise_2C = precise_statistics(network, self.precise_NHW, self.arm.keep_prob, self.seed)

        def add(statistics: str, decay: float | None, values_2C: Tensor) -> None:
            set_statistics(network, values_2C)
            if decay is None:
                columns = sizes(network, values_2C)
            else:
                columns = distances(network, values_2C, precise_2C, self.epsilon)
            self.rows.append(AveragesRow(step, statistics, decay, *evaluate(network, self.images), **columns))

        for decay, values_2C in zip(self.when, self.values_D2C, strict=False):
            if step not in self.when[decay]:
                continue
            add("moving", decay, values_2C)
            r = decay**step
            if 0 < decay < 1:
                corrected_2C = less_start(values_2C, r)
                if r > SAME:
                    add("corrected", decay, corrected_2C)
                else:
                    self.rows.append(self.rows[-1]._replace(statistics="corrected"))
                if decay in self.other_starts:
                    for variance in self.start_variances:
                        start_2C = start_of(values_2C, variance)
                        add(f"start_{variance:g}", decay, corrected_2C + r * (start_2C - corrected_2C))
                    add("means_corrected", decay, torch.stack([corrected_2C[0], values_2C[1]]))
        if step in self.moments:
            self.rows.append(AveragesRow(step, "batch", None, *evaluate_by_batch(network, self.images)))
        add("precise", None, precise_2C)

    def state(self) -> tuple[dict[str, Tensor], list[Any]]:
        return {"averages": self.values_D2C}, self.rows

    def restore(self, tensors: Mapping[str, Tensor], rows: list[list[Any]]) -> None:
        self.values_D2C = tensors["averages"].to(self.values_D2C.device)
        self.rows = [AveragesRow(*row) for row in rows]
