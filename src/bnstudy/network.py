"""The network of the original note and its relatives: two convolutions, a hidden layer, CReLU, with or without a norm.

Sections and rows named here are those of the note's TF-slim semantics: convolution or product, then normalization or
bias, then CReLU, then pooling. There is no gain unless a variant asks for one.

    images [N, 28, 28] -> conv1 [N, 16, 28, 28] -> [N, 32, 14, 14] -> conv2 [N, 32, 14, 14] -> [N, 64, 7, 7]
                       -> fc1 [N, 1024] -> [N, 2048] -> dropout -> logits [N, 10]
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from bnstudy import kernels
from bnstudy.params import Variant

LAYERS = ("conv1", "conv2", "fc1", "logits")
HIDDEN = 2048  # units after fc1's CReLU
TRUNCATED_STDDEV = 0.87962566103423978  # of a standard normal cut at two sigma


class Norm(nn.Module):
    """Normalize the channels (axis 1) of x [N, C] or [N, C, H, W] and add a bias, the batch norm paper's beta.

    Ioffe & Szegedy 2015 (batch), Ba et al. 2016 (layer), Wu & He 2018 (group). Batch norm divides by the biased
    variance of the batch and averages the unbiased one, as TF's fused kernel does: average = decay * average +
    (1 - decay) * batch. The averages are updated in the forward pass, before the weights.
    """

    moving_mean: Tensor
    moving_variance: Tensor

    def __init__(self, channels: int, variant: Variant) -> None:
        super().__init__()
        assert variant.epsilon is not None
        self.kind, self.epsilon = variant.normalization, variant.epsilon
        self.groups = variant.groups or 1
        self.bias = nn.Parameter(torch.zeros(channels))
        self.scale = nn.Parameter(torch.ones(channels)) if variant.scale else None
        if self.kind == "batch":
            assert variant.decay is not None
            self.momentum = 1 - variant.decay
            self.register_buffer("moving_mean", torch.zeros(channels))
            self.register_buffer("moving_variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "batch":
            # Not channels last on a CPU: there PyTorch adds up a batch's 800,000 float32 values one after the other,
            # which puts the variance off by up to 2e-3.
            x = x.contiguous() if self.training and x.device.type == "cpu" else x
            averages = (self.moving_mean, self.moving_variance)
            return F.batch_norm(x, *averages, self.scale, self.bias, self.training, self.momentum, self.epsilon)
        scale = torch.ones_like(self.bias) if self.scale is None else self.scale
        return F.group_norm(x, self.groups, scale, self.bias, self.epsilon)

    def crelu_pool(self, x: Tensor) -> Tensor:
        """`crelu_pool` with this norm, for batch norm without a gain on a CPU. Overwrites x in training."""
        if not self.training:
            x_NHWC = x.permute(0, 2, 3, 1).contiguous()
            maxima = pooled(x_NHWC, torch.zeros_like(self.moving_mean))[0].permute(0, 3, 1, 2)
            # Normalized, a value grows with its pixel's, whatever the others: so the largest alone are normalized.
            averages = torch.cat([self.moving_mean, -self.moving_mean]), self.moving_variance.repeat(2)
            bias = torch.cat([self.bias, -self.bias])
            return F.batch_norm(maxima, *averages, None, bias, eps=self.epsilon).relu_()
        y, mean, variance = CReLUPool.apply(x, self.bias, self.epsilon)  # type: ignore[no-untyped-call]
        values = x.numel() / x.shape[1]
        self.moving_mean.lerp_(mean, self.momentum)
        self.moving_variance.lerp_(variance * (values / (values - 1)), self.momentum)
        assert isinstance(y, Tensor)
        return y


class CReLUPool(torch.autograd.Function):
    """CReLU of y, then the maximum of each 2 x 2 pixels [N, 2C, H/2, W/2]: y is x [N, C, H, W] or, with a bias [C],
    (x - mean) / sqrt(variance + epsilon) + bias by the batch's own mean and biased variance [C], which it also returns.

    The cost is memory, not arithmetic: what is as large as x is written over x, which nothing else may need.
    Pooled first, as the maximum of relu is relu of the maximum. Backward is that of batch norm (Ioffe & Szegedy 2015),
    dx = (g - mean(g) - z * mean(g * z)) / sqrt(variance + epsilon) for z without the bias; g is 0 but at the maxima,
    so that it is added where they stood.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, epsilon: float
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        x_NHWC = x.detach().permute(0, 2, 3, 1).contiguous()
        n, h, w, c = x_NHWC.shape
        if bias is None:
            y, places = pooled(x_NHWC, x.new_zeros(c))
            y.relu_()
            ctx.save_for_backward(y, places)
            return y.permute(0, 3, 1, 2), None, None
        rows = x_NHWC.view(n * h, w * c)  # long ones: a channel's number for each pixel costs nothing
        mean = rows.sum(0).view(w, c).sum(0) / (n * h * w)
        y, places = pooled(x_NHWC, mean, centre=True)
        pixels = x_NHWC.view(n, h * w, c)
        variance = torch.bmm(pixels.mT, pixels).sum(0).diagonal() / (n * h * w)  # faster than squares and their sum
        rstd = (variance + epsilon).rsqrt()
        y.mul_(rstd.repeat(2)).add_(torch.cat([bias, -bias])).relu_()
        ctx.save_for_backward(y, places, x_NHWC, bias, rstd)
        ctx.mark_non_differentiable(mean, variance)
        return y.permute(0, 3, 1, 2), mean, variance

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor, Tensor | None, None]:
        y, places, *normalized = ctx.saved_tensors
        n, h, w, c2 = y.shape
        c = c2 // 2
        g = torch.ops.aten.threshold_backward(upstream.permute(0, 2, 3, 1), y, 0).contiguous()
        if not normalized:
            dx, for_bias, rstd = g.new_zeros(n, 2 * h, 2 * w, c), None, g.new_ones(c)
            factor = constant = g.new_zeros(c)
        else:
            dx, bias, rstd = normalized
            g_rows, y_rows = (t.view(n, -1, c2) for t in (g, y))
            for_high, for_low = g.sum((0, 1, 2)).view(2, c)
            for_bias = for_high - for_low
            sum_gy = torch.bmm(g_rows.mT, y_rows).sum(0).diagonal().view(2, c).sum(0)
            constant = -rstd * for_bias / (4 * n * h * w)
            factor = rstd.square() * (sum_gy - bias * for_bias) / (4 * n * h * w)
        kernels.unpool(*(t.numpy() for t in (dx, factor, constant, g, rstd, places)))
        increment_version(dx)
        return dx.permute(0, 3, 1, 2), for_bias, None


def pooled(x_NHWC: Tensor, mean: Tensor, centre: bool = False) -> tuple[Tensor, Tensor]:
    """What `kernels.pool` writes: maxima [N, H/2, W/2, 2C] and their places [N, H/2, W/2, C]. May overwrite x."""
    n, h, w, c = x_NHWC.shape
    y = x_NHWC.new_empty(n, h // 2, w // 2, 2 * c)
    places = x_NHWC.new_empty(n, h // 2, w // 2, c, dtype=torch.int32)
    kernels.pool(x_NHWC.numpy(), mean.numpy(), centre, y.numpy(), places.numpy())
    if centre:
        increment_version(x_NHWC)  # autograd refuses to read what was saved before
    return y, places


class Network(nn.Module):
    """The network of one variant, to be given its weights by `initialize`."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()

        def norm(channels: int, wanted: bool) -> nn.Module:
            return Norm(channels, variant) if wanted else nn.Identity()

        hidden = variant.normalization != "none"
        last = hidden and variant.normalize_logits is True
        self.conv1 = nn.Conv2d(1, 16, 5, padding=2, bias=not hidden)
        self.norm1 = norm(16, hidden)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2, bias=not hidden)
        self.norm2 = norm(32, hidden)
        self.fc1 = nn.Conv2d(64, 1024, 7, bias=not hidden)
        self.norm3 = norm(1024, hidden)
        self.logits = nn.Linear(HIDDEN, 10, bias=not last)
        self.norm4 = norm(10, last)
        # Channels last in memory, the layout in which convolutions and channel-wise sums are fastest.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def hidden_input(self, images_NHW: Tensor) -> Tensor:
        """uint8 images [N, 28, 28] -> what enters the hidden layer's CReLU [N, 1024]."""
        # In float32 whatever the weights are (row 26).
        pixels = (images_NHW.float() * float(np.float32(1 / 255))).to(self.logits.weight.dtype)
        # One channel, made the last in memory; else PyTorch takes [N, 1, 28, 28] for channels first, and conv1 is slow.
        x = pixels.unsqueeze(3).permute(0, 3, 1, 2)
        x = crelu_pool(self.norm1, self.conv1(x))
        x = crelu_pool(self.norm2, self.conv2(x))
        x = self.norm3(product(x, self.fc1.weight, self.fc1.bias))
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


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """[N, C, H, W] times `weight` [K, C, H, W] over all of C, H and W: [N, K]. Channels last, it copies nothing."""
    # With AVX-512, oneDNN's convolution takes half the time of the product; without, four times as long.
    if x.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX512":
        return F.conv2d(x, weight, bias).flatten(1)
    x, weight = (t.permute(0, 2, 3, 1).flatten(1) for t in (x, weight))
    return F.linear(x, weight, bias)


def crelu(x: Tensor) -> Tensor:
    """[N, C, …] -> [N, 2C, …]: all channels' positive parts, then all channels' negative parts (Shang et al. 2016)."""
    return torch.cat([x, -x], 1).relu_()


def crelu_pool(norm: nn.Module, x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, 2C, H/2, W/2]: `norm`, CReLU, then the maximum of each 2 x 2 pixels. May overwrite x."""
    if x.device.type == "cpu" and (norm.training or not x.requires_grad):
        if isinstance(norm, nn.Identity):
            y: Tensor = CReLUPool.apply(x, None, 0.0)[0]  # type: ignore[no-untyped-call]
            return y
        if isinstance(norm, Norm) and norm.kind == "batch" and norm.scale is None:
            return norm.crelu_pool(x)
    y = norm(x)
    return torch.cat([F.max_pool2d(y, 2), F.max_pool2d(-y, 2)], 1).relu_()


def build(variant: Variant, seed: int, device: torch.device) -> Network:
    """The network of `variant` on `device`, with the weights of `seed`."""
    network = Network(variant)
    initialize(network, variant, seed)
    return network.to(device)


def initialize(network: Network, variant: Variant, seed: int) -> None:
    """Draw the weights: one standard normal cut at two sigma for each, a function of (seed, layer) alone.

    `truncated_normal` scales it by 0.1 whatever the fan-in, as the note did; `he` to the variance 2 / fan-in
    (He et al. 2015). All variants of a seed thus start from the same draws. Biases stay 0.
    """
    with torch.no_grad():
        for number, name in enumerate(LAYERS):
            layer = getattr(network, name)
            weight = layer.weight
            assert isinstance(weight, Tensor)
            draws = truncated_normal(np.random.default_rng([seed, 0, number]), weight.numel()).reshape(weight.shape)
            fan_in = weight[0].numel()
            stddev = 0.1 if variant.initializer == "truncated_normal" else math.sqrt(2 / fan_in) / TRUNCATED_STDDEV
            weight.copy_(torch.from_numpy(draws * stddev))
            if layer.bias is not None:
                layer.bias.zero_()


def truncated_normal(random: np.random.Generator, size: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Standard normal draws [size], those at or beyond two sigma drawn again."""
    draws = random.standard_normal(size)
    while (outside := np.flatnonzero(np.abs(draws) >= 2)).size:
        draws[outside] = random.standard_normal(outside.size)
    return draws
