"""The note's network and its relatives: two convolutions and a hidden layer, each with CReLU, with or without a norm.

In each layer the convolution or product comes first, then normalization or bias, then CReLU, then pooling. There is no
gain.

    images [N, 28, 28] -> conv1 [N, 16, 28, 28] -> [N, 32, 14, 14] -> conv2 [N, 32, 14, 14] -> [N, 64, 7, 7]
                       -> fc1 [N, 1024] -> [N, 2048] -> dropout -> logits [N, 10]
"""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnstudy.engine import fast_cpu

if TYPE_CHECKING:
    from bnstudy.params import Design

LAYERS = ("conv1", "conv2", "fc1", "logits")
HIDDEN = 2048  # units after fc1's CReLU
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081  # of the training images' pixels, scaled to [0, 1]
TRUNCATED_STDDEV = 0.87962566103423978  # of a standard normal cut at two sigma


class Norm(nn.Module):
    """Normalize the channels (axis 1) of x [N, C] or [N, C, H, W] and add a bias, the batch norm paper's beta.

    Ioffe & Szegedy 2015 (batch), Ba et al. 2016 (layer), Wu & He 2018 (group). Batch norm divides by the biased
    variance of the batch and averages the unbiased one, as TensorFlow's fused kernel does: average = decay * average +
    (1 - decay) * batch. The averages are updated in the forward pass, before the weights.
    """

    moving_mean: Tensor
    moving_variance: Tensor

    def __init__(self, channels: int, design: "Design") -> None:
        super().__init__()
        assert design.epsilon is not None
        self.kind, self.epsilon = design.normalization, design.epsilon
        self.groups = design.groups or 1
        self.bias = nn.Parameter(torch.zeros(channels))
        if self.kind == "batch":
            assert design.decay is not None
            self.momentum = 1 - design.decay
            self.register_buffer("moving_mean", torch.zeros(channels))
            self.register_buffer("moving_variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "batch":
            # Not channels last on a CPU: there PyTorch adds up a batch's 800,000 float32 values one after the other,
            # which puts the variance off by up to 2e-3.
            x = x.contiguous() if self.training and x.device.type == "cpu" else x
            averages = (self.moving_mean, self.moving_variance)
            return F.batch_norm(x, *averages, None, self.bias, self.training, self.momentum, self.epsilon)
        return F.group_norm(x, self.groups, torch.ones_like(self.bias), self.bias, self.epsilon)


class Network(nn.Module):
    """The network of `design`, to be given its weights by `initialize`."""

    def __init__(self, design: "Design") -> None:
        super().__init__()

        def norm(channels: int, wanted: bool) -> nn.Module:
            return Norm(channels, design) if wanted else nn.Identity()

        self.standardize = design.standardize is True
        hidden = design.normalization != "none"
        last = hidden and design.normalize_logits is True
        self.conv1 = nn.Conv2d(1, 16, 5, padding=2, bias=not hidden)
        self.norm1 = norm(16, hidden)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2, bias=not hidden)
        self.norm2 = norm(32, hidden)
        self.fc1 = nn.Conv2d(64, 1024, 7, bias=not hidden)  # over the whole of 7 x 7, so fully connected
        self.norm3 = norm(1024, hidden)
        self.logits = nn.Linear(HIDDEN, 10, bias=not last)
        self.norm4 = norm(10, last)
        # Channels last in memory, the layout in which convolutions and channel-wise sums are fastest.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def hidden_input(self, images_NHW: Tensor) -> Tensor:
        """uint8 images [N, 28, 28] -> what enters the hidden layer's CReLU [N, 1024]."""
        # The note's scale, a float32 multiplication whatever type the weights have.
        pixels = (images_NHW.float() * float(np.float32(1 / 255))).to(self.logits.weight.dtype)
        if self.standardize:
            pixels = (pixels - MNIST_MEAN) / MNIST_STD
        # One channel, made the last in memory; else PyTorch takes [N, 1, 28, 28] for channels first, and conv1 is slow.
        x = pixels.unsqueeze(3).permute(0, 3, 1, 2)
        if (fast := fast_cpu.hidden_input(self, x)) is not None:
            return fast
        x = F.max_pool2d(crelu(self.norm1(self.conv1(x))), 2)
        x = F.max_pool2d(crelu(self.norm2(self.conv2(x))), 2)
        x = F.linear(x.flatten(1), self.fc1.weight.flatten(1), self.fc1.bias)
        x = self.norm3(x)
        assert isinstance(x, Tensor)
        return x

    def forward(self, images_NHW: Tensor, dropout_mask: Tensor | None = None) -> Tensor:
        """uint8 images [N, 28, 28] -> logits [N, 10]; `dropout_mask` [N, 2048] holds 0 or 1 / keep_prob."""
        x = crelu(self.hidden_input(images_NHW))
        if dropout_mask is not None:
            x = x * dropout_mask
        x = self.norm4(self.logits(x))
        assert isinstance(x, Tensor)
        return x


def crelu(x: Tensor) -> Tensor:
    """[N, C, …] -> [N, 2C, …]: all channels' positive parts, then all channels' negative parts (Shang et al. 2016)."""
    return torch.cat([x, -x], 1).relu_()


def build(design: "Design", seed: int, device: torch.device) -> Network:
    """The network of `design` on `device`, with the weights of `seed`."""
    network = Network(design)
    initialize(network, design, seed)
    return network.to(device)


def initialize(network: Network, design: "Design", seed: int) -> None:
    """Draw the weights: one standard normal cut at two sigma for each, a function of (seed, layer) alone.

    `truncated_normal` scales it by 0.1 whatever the fan-in, as the note did; `he` to the variance 2 / fan-in
    (He et al. 2015). All networks of a seed thus start from the same draws. Biases stay 0.
    """
    with torch.no_grad():
        for number, name in enumerate(LAYERS):
            layer = getattr(network, name)
            weight = layer.weight
            assert isinstance(weight, Tensor)
            draws = truncated_normal(np.random.default_rng([seed, 0, number]), weight.numel()).reshape(weight.shape)
            fan_in = weight[0].numel()
            stddev = 0.1 if design.initializer == "truncated_normal" else math.sqrt(2 / fan_in) / TRUNCATED_STDDEV
            weight.copy_(torch.from_numpy(draws * stddev))
            if layer.bias is not None:
                layer.bias.zero_()


def truncated_normal(random: np.random.Generator, size: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Standard normal draws [size], those at or beyond two sigma drawn again."""
    draws = random.standard_normal(size)
    while (outside := np.flatnonzero(np.abs(draws) >= 2)).size:
        draws[outside] = random.standard_normal(outside.size)
    return draws
