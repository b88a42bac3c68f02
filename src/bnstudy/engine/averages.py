"""The moving averages of many decays, carried along by one training: how far each lags behind the weights.

The decay never touches the weights in training, so one run carries the averages of every decay; only the evaluation
costs more.
"""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bnstudy.engine.network import LAYERS, Network, Norm
from bnstudy.engine.rows import AveragesRow
from bnstudy.engine.training import dropout_mask, evaluate, loss_and_accuracy

if TYPE_CHECKING:
    from bnstudy.params import Averages
    from bnstudy.settings import Setting

SPARE_STEP = 2**31  # the first step of dropout masks that no update uses


def averaging_layers(network: Network) -> dict[str, Norm]:
    """The layers that keep moving averages, by name."""
    norms = zip(LAYERS, (network.norm1, network.norm2, network.norm3, network.norm4), strict=True)
    return {name: norm for name, norm in norms if isinstance(norm, Norm)}


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
    for name, part in by_layer(network, values_2C).items():
        layer = averaging_layers(network)[name]
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


def distances(network: Network, values_2C: Tensor, precise_2C: Tensor, epsilon: float) -> dict[str, float]:
    """How far statistics are from precise ones, as the columns of `AveragesRow` tell it.

    A standard deviation is that which the network divides by, epsilon included.
    """
    found, parts = dict[str, float](), by_layer(network, precise_2C)
    for layer, (mean_C, variance_C) in by_layer(network, values_2C).items():
        precise_mean_C, precise_variance_C = parts[layer]
        sigma_C = (precise_variance_C + epsilon).sqrt()
        off = {
            "mean": mean_C - precise_mean_C,
            "deviation": (variance_C.clamp(min=0) + epsilon).sqrt() - sigma_C,
        }
        for what, off_C in off.items():
            found[f"{layer}_{what}"] = (off_C / sigma_C).square().mean().sqrt().item()
    return found


@torch.no_grad()
def evaluate_by_batch(network: Network, images_NHW: Tensor, labels_N: Tensor) -> tuple[float, float]:
    """Loss and accuracy when each 1,000 images are normalized by their own statistics; no dropout."""
    network.train()
    return loss_and_accuracy(torch.cat([network(images) for images in torch.split(images_NHW, 1000)]), labels_N)


class Carried:
    """The moving averages of each decay, `values_D2C` float32 [decays, 2, channels], as `network` is trained.

    The network's own decay must be 0: its averages are then the last batch's statistics. Its own decay in the setting
    is the last of those carried. `rows` are the measurements so far.
    """

    def __init__(self, network: Network, setting: "Setting", averages: "Averages", seed: int) -> None:
        self.network, self.setting, self.averages, self.seed = network, setting, averages, seed
        self.start_2C = statistics(network)
        own = setting.network.decay
        self.decays_D11 = torch.tensor([*averages.decays, own], device=self.start_2C.device).view(-1, 1, 1)
        self.values_D2C = self.start_2C.repeat(len(self.decays_D11), 1, 1)
        self.rows = list[AveragesRow]()

    def restore(self, values_D2C: Tensor, rows: list[list[Any]]) -> None:
        self.values_D2C, self.rows = values_D2C.to(self.start_2C.device), [AveragesRow(*row) for row in rows]

    def follow(self) -> None:
        """Take in the statistics of the batch of the last update."""
        self.values_D2C = self.decays_D11 * self.values_D2C + (1 - self.decays_D11) * statistics(self.network)

    def measure(self, step: int, train_NHW: Tensor, validation: tuple[Tensor, Tensor]) -> None:
        """Add a row for every kind of statistics; leave the network with the averages of its own decay."""
        network, epsilon = self.network, self.setting.network.epsilon or 0.0
        images = tuple(part[: self.averages.images] for part in validation)
        used = train_NHW if step == self.setting.steps else train_NHW[: self.averages.precise_images]
        precise_2C = precise_statistics(network, used, self.setting.keep_prob, self.seed)

        def row(statistics: str, decay: float, values_2C: Tensor) -> AveragesRow:
            set_statistics(network, values_2C)
            off = distances(network, values_2C, precise_2C, epsilon)
            return AveragesRow(step, statistics, decay, *evaluate(network, *images), **off)

        for decay, values_2C in zip(self.averages.decays, self.values_D2C, strict=False):
            self.rows.append(row("moving", decay, values_2C))
            start_weight = decay**step  # what is left of the initial 0 and 1
            if 0 < decay < 1:
                corrected_2C = (values_2C - start_weight * self.start_2C) / (1 - start_weight)
                far = start_weight > 1e-9  # else the same numbers
                self.rows.append(
                    row("corrected", decay, corrected_2C) if far else self.rows[-1]._replace(statistics="corrected")
                )
        self.rows.append(AveragesRow(step, "batch", None, *evaluate_by_batch(network, *images)))
        set_statistics(network, precise_2C)
        self.rows.append(AveragesRow(step, "precise", None, *evaluate(network, *images)))
        set_statistics(network, self.values_D2C[-1])
