"""Each part of the network beside an independent oracle; the whole is in test_parity."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from bnstudy.engine.network import LAYERS, Network, crelu, initialize
from bnstudy.params import Design
from conftest import PARAMS

BATCH, PLAIN = PARAMS.models["batch_norm"], PARAMS.models["plain"]
IMAGES_NHW = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 28, 28), dtype=np.uint8))


def with_normalization(kind: str, **keys: object) -> Design:
    keys = {"initializer": "truncated_normal"} | keys
    if kind != "none":
        keys |= {"epsilon": 0.001} | ({"groups": 4} if kind == "group" else {"normalize_logits": False})
    if kind == "batch":
        keys |= {"decay": 0.9}
    return Design.model_validate({"normalization": kind} | keys)


def build(design: Design, seed: int = 0) -> Network:
    network = Network(design)
    initialize(network, design, seed)
    return network


def test_crelu_of_the_note() -> None:
    assert crelu(torch.tensor([[1.0, -2.0, 3.0]])).tolist() == [[1, 0, 3, 0, 2, 0]]


def test_shapes_and_counts_of_the_note() -> None:
    for design in (BATCH, PLAIN):
        network = build(design)
        assert sum(p.numel() for p in network.parameters()) == 3_258_826
        assert network.hidden_input(IMAGES_NHW).shape == (8, 1024)
        assert network(IMAGES_NHW).shape == (8, 10)
    assert sum(b.numel() for b in build(BATCH).buffers()) == 2_164
    assert not list(build(PLAIN).buffers())


@pytest.mark.parametrize("decay", [0.0, 0.95, 1.0])
def test_moving_averages(decay: float) -> None:
    """Average = decay * average + (1 - decay) * batch, the variance Bessel-corrected; unmoved in evaluation."""
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


@pytest.mark.parametrize(("kind", "groups"), [("layer", 1), ("group", 4)])
def test_layer_and_group_norm(kind: str, groups: int) -> None:
    """Each image alone: mean 0 and variance 1 over all channels, or over each group of neighbouring channels."""
    norm = build(with_normalization(kind)).norm2
    x = torch.randn(4, 32, 5, 5, generator=torch.Generator().manual_seed(1)) * 3 + 2
    y = norm(x).detach().reshape(4, groups, -1)
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(-1, correction=0), 1, atol=1e-3)


@pytest.mark.parametrize("kind", ["none", "batch", "layer", "group"])
@pytest.mark.parametrize("initializer", ["truncated_normal", "he"])
def test_every_combination_learns(kind: str, initializer: str) -> None:
    """Every parameter gets a gradient, and a bias stands before or inside every norm, never twice."""
    network = build(with_normalization(kind, initializer=initializer))
    network(IMAGES_NHW).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert sum(name.endswith("bias") for name, _ in network.named_parameters()) == 4


def test_initial_weights_are_a_truncated_normal() -> None:
    """Standard deviation 0.1, nothing beyond two sigma; the real standard deviation is 0.0880."""
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


def test_networks_of_a_seed_share_their_initial_weights_and_seeds_do_not() -> None:
    for layer in LAYERS:
        ours = getattr(build(BATCH, 3), layer).weight
        assert torch.equal(ours, getattr(build(PLAIN, 3), layer).weight)
        assert not torch.equal(ours, getattr(build(PLAIN, 4), layer).weight)


def test_images_are_scaled_in_float32() -> None:
    """Float32(image) * float32(1/255), and nothing wider."""
    seen: list[Tensor] = []
    network = build(PLAIN)
    network.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(IMAGES_NHW)
    expected = IMAGES_NHW.numpy().astype(np.float32) * np.float32(1 / 255)
    np.testing.assert_array_equal(seen[0][:, 0], expected)
