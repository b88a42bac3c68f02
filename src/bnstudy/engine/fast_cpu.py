"""The network's first layers on a CPU, with half the memory traffic: the numbers of `network` to rounding.

`hidden_input` is what this module is for. CReLU is pooled before it is rectified, as the maximum of relu is relu of the
maximum; pooling and its gradient, for which PyTorch has no one operation, are loops over pixels that Numba compiles and
keeps in __pycache__. Loops take contiguous arrays of one float type (float32; float64 in tests) but for the places:
pixels [N, H, W, C], in windows of 2 x 2 whose places are

    0 1
    2 3
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numba
import torch
import torch.nn.functional as F
from numba import njit, prange
from numba.core.caching import FunctionCache
from torch import Tensor, nn
from torch.autograd.graph import increment_version

if TYPE_CHECKING:
    from bnstudy.engine.network import Network, Norm

# Threads of its own: by OpenMP Numba would change the number of PyTorch's, and so the bits of its sums.
numba.config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]
Array = Any  # Numba compiles for what it is given


def hidden_input(network: "Network", x: Tensor) -> Tensor | None:
    """What enters the hidden layer's CReLU [N, 1024], of pixels x [N, 1, 28, 28] in [0, 1]; None off the CPU."""
    if x.device.type != "cpu":
        return None
    x = crelu_pool(network.norm1, network.conv1(x))
    x = crelu_pool(network.norm2, network.conv2(x))
    y = network.norm3(product(x, network.fc1.weight, network.fc1.bias))
    assert isinstance(y, Tensor)
    return y


def use_threads(threads: int) -> None:
    """As many threads for the loops, or one per core where that is fewer. No result depends on it."""
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """[N, C, H, W] times `weight` [K, C, H, W] over all of C, H and W: [N, K]. Channels last, it copies nothing."""
    # With AVX-512, oneDNN's convolution takes half the time of the product; without, four times as long.
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        return F.conv2d(x, weight, bias).flatten(1)
    x, weight = (t.permute(0, 2, 3, 1).flatten(1) for t in (x, weight))
    return F.linear(x, weight, bias)


def crelu_pool(norm: Any, x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, 2C, H/2, W/2]: `norm`, CReLU, then the maximum of each 2 x 2 pixels. May overwrite x."""
    if norm.training or not x.requires_grad:
        if isinstance(norm, nn.Identity):
            y: Tensor = CReLUPool.apply(x, None, 0.0)[0]  # type: ignore[no-untyped-call]
            return y
        if norm.kind == "batch":
            return batch_norm_crelu_pool(norm, x)
    y = norm(x)
    return torch.cat([F.max_pool2d(y, 2), F.max_pool2d(-y, 2)], 1).relu_()


def batch_norm_crelu_pool(norm: "Norm", x: Tensor) -> Tensor:
    """`crelu_pool` with batch norm, its averages updated in training."""
    if not norm.training:
        x_NHWC = x.permute(0, 2, 3, 1).contiguous()
        maxima = pooled(x_NHWC, torch.zeros_like(norm.moving_mean))[0].permute(0, 3, 1, 2)
        # Normalized, a value grows with its pixel's, whatever the others: so the largest alone are normalized.
        averages = torch.cat([norm.moving_mean, -norm.moving_mean]), norm.moving_variance.repeat(2)
        bias = torch.cat([norm.bias, -norm.bias])
        return F.batch_norm(maxima, *averages, None, bias, eps=norm.epsilon).relu_()
    y, mean, variance = CReLUPool.apply(x, norm.bias, norm.epsilon)  # type: ignore[no-untyped-call]
    values = x.numel() / x.shape[1]
    norm.moving_mean.lerp_(mean, norm.momentum)
    norm.moving_variance.lerp_(variance * (values / (values - 1)), norm.momentum)
    assert isinstance(y, Tensor)
    return y


class CReLUPool(torch.autograd.Function):
    """CReLU of y, then the maximum of each 2 x 2 pixels [N, 2C, H/2, W/2]: y is x [N, C, H, W] or, with a bias [C],
    (x - mean) / sqrt(variance + epsilon) + bias by the batch's own mean and biased variance [C], which it also returns.

    The cost is memory, not arithmetic: what is as large as x is written over x, which nothing else may need.
    Backward is that of batch norm (Ioffe & Szegedy 2015), dx = (g - mean(g) - z * mean(g * z)) / sqrt(variance +
    epsilon) for z without the bias; g is 0 but at the maxima, so that it is added where they stood.
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
        unpool(*(t.numpy() for t in (dx, factor, constant, g, rstd, places)))
        increment_version(dx)
        return dx.permute(0, 3, 1, 2), for_bias, None


def pooled(x_NHWC: Tensor, mean: Tensor, centre: bool = False) -> tuple[Tensor, Tensor]:
    """What `pool` writes: maxima [N, H/2, W/2, 2C] and their places [N, H/2, W/2, C]. May overwrite x."""
    n, h, w, c = x_NHWC.shape
    y = x_NHWC.new_empty(n, h // 2, w // 2, 2 * c)
    places = x_NHWC.new_empty(n, h // 2, w // 2, c, dtype=torch.int32)
    pool(x_NHWC.numpy(), mean.numpy(), centre, y.numpy(), places.numpy())
    if centre:
        increment_version(x_NHWC)  # autograd refuses to read what was saved before
    return y, places


class Cache(FunctionCache):
    """Numba's cache of a compiled loop; what is damaged is compiled again, where Numba's own ends in a traceback."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # whatever unpickling random bytes raises
            with suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError, EOFError):  # a full disk, or an emptied index
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


def kept(loop: Any) -> Any:
    """`loop` with its compiled form kept in __pycache__, or in the user's cache folder, where one can be written to."""
    with suppress(RuntimeError):  # there is none: then it is compiled in each process
        loop._cache = Cache(loop.py_func)  # type: ignore[no-untyped-call]
    return loop


@njit()
def larger(best: Array, place: int, value: Array, its_place: int) -> tuple[Array, int]:
    """The larger of two values with its place: the first of equal ones, and a NaN before all, as PyTorch has it."""
    is_larger = (value > best) | (value != value)
    return value if is_larger else best, its_place if is_larger else place


@njit(fastmath={"contract"})
def multiply_add(a: Array, b: Array, c: Array) -> Array:
    return a * b + c  # rounded once, as in PyTorch's addcmul


@kept
@njit(parallel=True, error_model="numpy")
def pool(x: Array, mean: Array, centre: bool, y: Array, places: Array) -> None:
    """Write each window's maxima of x - mean and of mean - x, y [N, H/2, W/2, 2C], and where they stand.

    `places` [N, H/2, W/2, C] int32 takes the place of the former plus 4 times that of the latter. `mean` [C]; with
    `centre`, mean - x is written over x.
    """
    n, h, w, c = x.shape
    for image in prange(n):
        for row in range(h // 2):
            for column in range(w // 2):
                x0, x1 = x[image, 2 * row, 2 * column], x[image, 2 * row, 2 * column + 1]
                x2, x3 = x[image, 2 * row + 1, 2 * column], x[image, 2 * row + 1, 2 * column + 1]
                maxima, window_places = y[image, row, column], places[image, row, column]
                for k in range(c):  # as vector instructions, since it has no branch and does not write what it reads
                    m = mean[k]
                    high, high_at = larger(x0[k], 0, x1[k], 1)
                    high, high_at = larger(high, high_at, x2[k], 2)
                    high, high_at = larger(high, high_at, x3[k], 3)
                    low, low_at = larger(m - x0[k], 0, m - x1[k], 1)
                    low, low_at = larger(low, low_at, m - x2[k], 2)
                    low, low_at = larger(low, low_at, m - x3[k], 3)
                    maxima[k], maxima[c + k] = high - m, low
                    window_places[k] = high_at + 4 * low_at
                if centre:
                    for place in range(4):
                        pixel = x[image, 2 * row + place // 2, 2 * column + place % 2]
                        for k in range(c):
                            pixel[k] = mean[k] - pixel[k]


@kept
@njit(parallel=True, error_model="numpy")
def unpool(x: Array, factor: Array, constant: Array, gradient: Array, scale: Array, places: Array) -> None:
    """Write over x: x * factor + constant, and at the places of `pool` the gradient of its y, by scale and -scale.

    `factor`, `constant` and `scale` [C]; `gradient` [N, H/2, W/2, 2C].
    """
    n, h, w, c = x.shape
    for image in prange(n):
        for row in range(h // 2):
            for column in range(w // 2):
                g, window_places = gradient[image, row, column], places[image, row, column]
                for place in range(4):
                    pixel = x[image, 2 * row + place // 2, 2 * column + place % 2]
                    for k in range(c):
                        value = multiply_add(pixel[k], factor[k], constant[k])
                        value = value + g[k] * scale[k] if window_places[k] & 3 == place else value
                        value = value - g[c + k] * scale[k] if window_places[k] >> 2 == place else value
                        pixel[k] = value
