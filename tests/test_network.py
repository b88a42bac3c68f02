"""Each formula of the network beside an independent oracle."""

import json
import math
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from bnstudy import kernels
from bnstudy.network import LAYERS, Network, Norm, crelu, crelu_pool, initialize, pooled, product
from bnstudy.params import Variant, load
from bnstudy.train import to_safetensors
from conftest import ROOT

PARAMS = load()
BATCH = PARAMS.variants["batch_norm"]
PLAIN = PARAMS.variants["plain"]
IMAGES_NHW = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 28, 28), dtype=np.uint8))


def with_normalization(kind: str, **keys: object) -> Variant:
    base = {"normalization": kind, "initializer": "truncated_normal"}
    if kind != "none":
        base |= {"normalize_logits": False, "epsilon": 0.001, "scale": True}
    return Variant.model_validate(base | keys)


def build(variant: Variant, seed: int = 0) -> Network:
    network = Network(variant)
    initialize(network, variant, seed)
    return network


def test_crelu_of_the_note() -> None:
    assert crelu(torch.tensor([[1.0, -2.0, 3.0]])).tolist() == [[1, 0, 3, 0, 2, 0]]


def test_pooling_before_crelu_is_pooling_after_it() -> None:
    x = torch.randn(3, 5, 6, 8, generator=torch.Generator().manual_seed(0))
    y = x.numpy()
    both = np.maximum(np.concatenate([y, -y], 1), 0)  # CReLU first, as the note has it
    windows = both.reshape(3, 10, 3, 2, 4, 2).transpose(0, 1, 2, 4, 3, 5).reshape(3, 10, 3, 4, 4)
    np.testing.assert_array_equal(crelu_pool(torch.nn.Identity(), x), windows.max(-1))


def test_shapes_and_counts_of_the_note() -> None:
    for variant in (BATCH, PLAIN):
        network = build(variant)
        assert sum(p.numel() for p in network.parameters()) == 3_258_826
        assert network.hidden_input(IMAGES_NHW).shape == (8, 1024)
        assert network(IMAGES_NHW).shape == (8, 10)
    assert sum(b.numel() for b in build(BATCH).buffers()) == 2_164
    assert not list(build(PLAIN).buffers())


def forward_in_numpy(network: Network, images: np.ndarray) -> np.ndarray:
    """The batch-normalized network in training mode, spelt out: slow loops over the kernel, CReLU before pooling."""
    state = {key: value.double().numpy() for key, value in network.state_dict().items()}

    def norm(x: np.ndarray, number: int) -> np.ndarray:
        axes = tuple(axis for axis in range(x.ndim) if axis != 1)
        shape = (1, -1) + (1,) * (x.ndim - 2)
        centred = x - x.mean(axes, keepdims=True)
        biased = (centred**2).mean(axes, keepdims=True)
        return centred / np.sqrt(biased + 0.001) + state[f"norm{number}.bias"].reshape(shape)

    def convolve(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        padded, (height, width) = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2))), x.shape[2:]
        return sum(
            np.einsum("nchw,oc->nohw", padded[:, :, i : i + height, j : j + width], w[:, :, i, j])
            for i in range(5)
            for j in range(5)
        )

    def pool(x: np.ndarray) -> np.ndarray:
        n, c, h, w = x.shape
        return x.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))

    def rectify(x: np.ndarray) -> np.ndarray:
        return np.maximum(np.concatenate([x, -x], 1), 0)

    x = images[:, None] / 255
    x = pool(rectify(norm(convolve(x, state["conv1.weight"]), 1)))
    x = pool(rectify(norm(convolve(x, state["conv2.weight"]), 2)))
    x = rectify(norm(np.einsum("nchw,ochw->no", x, state["fc1.weight"]), 3))
    return norm(x @ state["logits.weight"].T, 4)


def test_forward_pass_beside_numpy() -> None:
    network = build(BATCH)
    expected = forward_in_numpy(network, IMAGES_NHW.numpy())
    np.testing.assert_allclose(network(IMAGES_NHW).detach(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("decay", [0.0, 0.95, 1.0])
def test_moving_averages(decay: float) -> None:
    """Row 16: average = decay * average + (1 - decay) * batch, the variance Bessel-corrected; unmoved in evaluation."""
    network = build(BATCH.model_copy(update={"decay": decay}))
    with torch.no_grad():
        x = network.conv1(IMAGES_NHW.float()[:, None] / 255).transpose(0, 1).flatten(1).double()
        network(IMAGES_NHW)
        mean, variance = x.mean(1) * (1 - decay), decay + (1 - decay) * x.var(1, correction=1)
        np.testing.assert_allclose(network.norm1.moving_mean, mean, atol=1e-6)
        np.testing.assert_allclose(network.norm1.moving_variance, variance, rtol=1e-5)
        network.eval()
        network(IMAGES_NHW)
        np.testing.assert_allclose(network.norm1.moving_mean, mean, atol=1e-6)


def plain_crelu_pool(y: Tensor) -> Tensor:
    return torch.nn.functional.max_pool2d(torch.cat([y, -y], 1).relu(), 2)


@pytest.mark.parametrize("normalized", [True, False])
def test_crelu_and_pooling_in_one_are_those_one_after_the_other(normalized: bool) -> None:
    """Values, averages and all gradients, beside autograd's; a third of the pixels are 0, so that maxima are tied."""
    random = torch.Generator().manual_seed(2)
    x = torch.randn(6, 3, 4, 8, generator=random, dtype=torch.float64)
    x = (x * (x.abs() > 0.4)).contiguous(memory_format=torch.channels_last)
    upstream = torch.randn(6, 6, 2, 4, generator=random, dtype=torch.float64)
    results = []
    for in_one in (True, False):
        norm = Norm(3, BATCH).double()
        norm.bias.data = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
        x_ = x.clone().requires_grad_()
        layer = norm if normalized else torch.nn.Identity()
        y = crelu_pool(layer, x_ * 1) if in_one else plain_crelu_pool(layer(x_))  # * 1: x_ stays
        (y * upstream).sum().backward()
        gradients = [x_.grad, norm.bias.grad] if normalized else [x_.grad]
        results.append([y.detach(), norm.moving_mean, norm.moving_variance, *gradients])
    for ours, theirs in zip(*results, strict=True):
        assert ours is not None
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 4, 6, 5), (2, 28, 28, 16)])  # of short loops and of whole vectors
def test_the_compiled_loops_are_pytorchs_operations(shape: tuple[int, ...]) -> None:
    """The bits of maxima, places and gradients, beside pooling with indices, addcmul and scatter-add; ties and NaN."""
    (n, h, w, c), random = shape, torch.Generator().manual_seed(5)
    x = torch.randn(*shape, generator=random).mul(2).round().div(2)
    x.view(-1)[::97], x.view(-1)[::101] = torch.nan, torch.inf
    mean, factor, constant, scale = torch.randn(4, c, generator=random)
    pixels = x.permute(0, 3, 1, 2)
    high, high_at = torch.nn.functional.max_pool2d(pixels, 2, return_indices=True)
    centred = mean - x
    low, low_at = torch.nn.functional.max_pool2d(centred.permute(0, 3, 1, 2), 2, return_indices=True)

    y, places = pooled(x, mean, centre=True)
    both = torch.cat([high - mean.view(-1, 1, 1), low], 1).permute(0, 2, 3, 1)
    torch.testing.assert_close(y, both, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(x, centred, rtol=0, atol=0, equal_nan=True)
    row, column = torch.meshgrid(torch.arange(0, h, 2), torch.arange(0, w, 2), indexing="ij")
    for place, at in ((places & 3, high_at), (places >> 2, low_at)):
        found = (row[..., None] + place // 2) * w + column[..., None] + place % 2
        assert torch.equal(found, at.permute(0, 2, 3, 1))

    g = torch.randn(y.shape, generator=random)
    expected = torch.addcmul(constant, x, factor).view(n, h * w, c)
    for sign, at, values in ((1, high_at, g[..., :c]), (-1, low_at, g[..., c:])):
        expected.scatter_add_(1, at.permute(0, 2, 3, 1).reshape(n, -1, c), (values * (sign * scale)).reshape(n, -1, c))
    kernels.unpool(*(t.numpy() for t in (x, factor, constant, g, scale, places)))
    torch.testing.assert_close(x.view(n, h * w, c), expected, rtol=0, atol=0, equal_nan=True)


def test_the_compiled_loops_leave_pytorchs_threads_alone() -> None:
    """The order of its sums, and so their bits, depend on them. In a process of its own, where threads start anew."""
    code = """
import torch
from bnstudy import device, kernels, network, params
runtime = params.load().runtime.model_copy(update={"device": "cpu", "threads": 1})
device.prepare(runtime)
x, results = torch.randn(64, 8, 8, 4), []
for threads in (1, 64):
    kernels.use_threads(threads)
    results.append(network.pooled(x, x.mean((0, 1, 2)))[0])
assert torch.equal(*results)
print(torch.get_num_threads())
"""
    environ = os.environ | {"PYTHONPATH": "src"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"


def test_evaluation_normalizes_the_maxima_alone() -> None:
    """The bits of normalizing all pixels first."""
    random = torch.Generator().manual_seed(6)
    norm = Norm(16, BATCH).eval()
    norm.moving_mean.normal_(generator=random)
    norm.moving_variance.uniform_(0.01, 3, generator=random)
    norm.bias.data.normal_(generator=random)
    x = torch.randn(5, 28, 28, 16, generator=random).permute(0, 3, 1, 2)
    with torch.no_grad():
        assert torch.equal(crelu_pool(norm, x), plain_crelu_pool(norm(x)))
        assert torch.equal(crelu_pool(torch.nn.Identity().eval(), x), plain_crelu_pool(x))


def test_what_was_written_over_is_not_read_again() -> None:
    """Autograd refuses a second backward pass, which would see the first one's remains."""
    y = crelu_pool(Norm(3, BATCH), torch.randn(2, 3, 4, 4, requires_grad=True) * 1)
    y.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_the_product_of_the_hidden_layer(capability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum over channels and pixels, however this CPU computes it fastest; and its gradients."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    random = torch.Generator().manual_seed(4)
    shapes = [(5, 3, 2, 2), (7, 3, 2, 2), (7,)]
    x, weight, bias = (torch.randn(*shape, generator=random, dtype=torch.float64) for shape in shapes)
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    upstream = torch.randn(5, 7, generator=random, dtype=torch.float64)
    y = product(x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_())
    gradients = torch.autograd.grad(y, [x, weight, bias], upstream)
    a, b = x.detach().numpy(), weight.detach().numpy()
    np.testing.assert_allclose(y.detach(), np.einsum("nchw,kchw->nk", a, b) + bias.detach().numpy(), rtol=1e-12)
    expected = [np.einsum("nk,kchw->nchw", upstream, b), np.einsum("nk,nchw->kchw", upstream, a), upstream.sum(0)]
    for gradient, other in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-12, atol=1e-14)
    assert gradients[1].is_contiguous(memory_format=torch.channels_last)  # as the weight, so that Adagrad is fast


@pytest.mark.parametrize("scale", [False, True])
def test_batch_variance_is_right_to_float32(scale: bool) -> None:
    """Over as many values as a training batch has in conv1; PyTorch's own channels-last kernel is off by 1e-4."""
    x = torch.rand(1024, 28, 28, 16, generator=torch.Generator().manual_seed(3)).permute(0, 3, 1, 2) + 1
    expected = x.double().var((0, 2, 3))
    norm = Norm(16, BATCH.model_copy(update={"decay": 0.0, "scale": scale}))
    crelu_pool(norm, x)
    np.testing.assert_allclose(norm.moving_variance.detach(), expected, rtol=3e-6)


@pytest.mark.parametrize(("kind", "groups"), [("layer", None), ("group", 8)])
def test_layer_and_group_norm(kind: str, groups: int | None) -> None:
    """Each image alone: mean 0 and variance 1 over all channels, or over each group of neighbouring channels."""
    norm = build(with_normalization(kind, groups=groups)).norm2
    x = torch.randn(4, 32, 5, 5, generator=torch.Generator().manual_seed(1)) * 3 + 2
    y = norm(x).detach().reshape(4, groups or 1, -1)
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(-1, correction=0), 1, atol=1e-3)


@pytest.mark.parametrize("kind", ["none", "batch", "layer", "group"])
@pytest.mark.parametrize("initializer", ["truncated_normal", "he"])
def test_every_combination_learns(kind: str, initializer: str) -> None:
    """Every parameter gets a gradient, and a bias stands before or inside every norm, never twice."""
    variant = with_normalization(
        kind, initializer=initializer, **{"batch": {"decay": 0.9}, "group": {"groups": 4}}.get(kind, {})
    )
    network = build(variant)
    network(IMAGES_NHW).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    names = [name for name, _ in network.named_parameters()]
    assert sum(name.endswith("bias") for name in names) == 4
    assert sum(name.endswith("scale") for name in names) == (0 if kind == "none" else 3)


def test_initial_weights_are_a_truncated_normal() -> None:
    """Row 24: standard deviation 0.1, nothing beyond two sigma; the real standard deviation is 0.0880."""
    network = build(PLAIN)
    weights = network.fc1.weight.detach().flatten().double().numpy()
    assert np.abs(weights).max() < 0.2
    assert math.isclose(weights.std(), 0.0880, rel_tol=1e-3)
    assert stats.kstest(weights[:100_000], stats.truncnorm(-2, 2, scale=0.1).cdf).pvalue > 0.01
    assert all(getattr(network, layer).bias.abs().sum() == 0 for layer in LAYERS)


def test_he_weights_keep_the_variance() -> None:
    """He et al. 2015: variance 2 / fan-in, the same draws as the truncated normal's, scaled."""
    he, plain = build(with_normalization("none", initializer="he")), build(PLAIN)
    for layer, fan_in in zip(LAYERS, (25, 800, 3136, 2048), strict=True):
        ours, theirs = getattr(he, layer).weight.detach(), getattr(plain, layer).weight.detach()
        assert math.isclose(ours.double().var().item(), 2 / fan_in, rel_tol=0.15 if layer == "conv1" else 0.02)
        ratio = ours / theirs
        np.testing.assert_allclose(ratio, ratio.flatten()[0], rtol=1e-4)


def test_variants_of_a_seed_share_their_initial_weights_and_seeds_do_not() -> None:
    for layer in LAYERS:
        ours = getattr(build(BATCH, 3), layer).weight
        assert torch.equal(ours, getattr(build(PLAIN, 3), layer).weight)
        assert not torch.equal(ours, getattr(build(PLAIN, 4), layer).weight)


def test_saved_weights_have_the_same_bytes_each_time_and_no_pickle() -> None:
    cpu = torch.device("cpu")
    content = to_safetensors(build(BATCH), "batch_norm", BATCH, 0, cpu)
    assert all(to_safetensors(build(BATCH), "batch_norm", BATCH, 0, cpu) == content for _ in range(5))
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert json.loads(header["__metadata__"]["bnstudy"])["network"]["decay"] == 0.95
    assert header["fc1.weight"]["shape"] == [1024, 64, 7, 7]


def test_images_are_scaled_in_float32() -> None:
    """Row 26: float32(image) * float32(1/255), and nothing wider."""
    seen: list[Tensor] = []
    network = build(PLAIN)
    network.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(IMAGES_NHW)
    expected = IMAGES_NHW.numpy().astype(np.float32) * np.float32(1 / 255)
    np.testing.assert_array_equal(seen[0][:, 0], expected)
