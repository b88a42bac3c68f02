"""Twelve training steps beside the original TF-slim code, float64: slim_reference.npz holds its numbers.

The reference was computed with TensorFlow 2.13.1 (compat.v1) and tf_slim 1.1.0, dropout off, on the made-up inputs that
`images`, `labels` and `weights` draw again here.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bnstudy.engine import training
from bnstudy.engine.network import Network, initialize
from bnstudy.params import Design
from conftest import PARAMS, arm_of
from tiny import Spy

REFERENCE = np.load(Path(__file__).with_name("slim_reference.npz"))
# TensorFlow holds both constants in float32.
RATE, MOMENTUM = float(np.float32(0.1)), float(np.float32(1.0 - 0.95))
DESIGNS = {
    "batch_norm": Design(
        normalization="batch", initializer="truncated_normal", normalize_logits=True, decay=1 - MOMENTUM, epsilon=0.001
    ),
    "plain": Design(normalization="none", initializer="truncated_normal"),
}
LAYERS = {"conv1": (5, 5, 1, 16), "conv2": (5, 5, 32, 32), "fc1": (7, 7, 64, 1024), "logits": (2048, 10)}
RATES = PARAMS.train.learning_rate.model_copy(update={"initial": RATE})
ARM = arm_of(steps=12, batch_size=32, learning_rate=RATES, keep_prob=1.0)


def weights(layer: str) -> torch.Tensor:
    """The reference's initial weights, TF's [h, w, in, out] turned into PyTorch's [out, in, h, w]."""
    shape = LAYERS[layer]
    random = np.random.RandomState(101 + list(LAYERS).index(layer))
    z = random.standard_normal(int(np.prod(shape)))
    while (outside := np.flatnonzero(np.abs(z) >= 2)).size:
        z[outside] = random.standard_normal(outside.size)
    w = (z * 0.1).astype(np.float32).astype(np.float64).reshape(shape)
    return torch.from_numpy(np.ascontiguousarray(w.transpose(3, 2, 0, 1) if w.ndim == 4 else w.T))


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.RandomState(2018)
    images = (random.randint(0, 256, (416, 784)) * (random.random_sample((416, 784)) < 0.2)).astype(np.uint8)
    labels = random.randint(0, 10, 416)
    return torch.from_numpy(images.reshape(-1, 28, 28)), torch.from_numpy(labels)


@pytest.fixture(scope="module", params=list(DESIGNS))
def trained(request: pytest.FixtureRequest) -> SimpleNamespace:
    """Our twelve steps through the study's own loop, and the state after steps 0, 1, 5 and 12."""
    design = DESIGNS[request.param]
    network = Network(design).double()
    initialize(network, design, seed=0)
    for layer in LAYERS:
        getattr(network, layer).weight.data.copy_(weights(layer))
    images, labels = inputs()
    logits, states, losses = {0: training.predict(network, images[384:])}, {}, []

    def look(update: training.Update) -> None:
        losses.append(update.loss.item())
        logits[update.step] = training.predict(network, images[384:])
        states[update.step] = {key: value.clone() for key, value in network.state_dict().items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "batch_indices", lambda seed, step, n, size: np.arange(step * size, (step + 1) * size))
        optimizer = training.Optimizer(network, ARM.optimizer)
        training.train(network, optimizer, ARM, 0, (images[:384], labels[:384]), [Spy(look)])
    return SimpleNamespace(name=request.param, losses=losses, logits=logits, states=states)


def test_losses_before_each_update(trained: SimpleNamespace) -> None:
    np.testing.assert_allclose(trained.losses, REFERENCE[f"{trained.name}/losses"], rtol=1e-10)


@pytest.mark.parametrize("step", [0, 1, 5, 12])
def test_evaluation_logits(trained: SimpleNamespace, step: int) -> None:
    expected = REFERENCE[f"{trained.name}/eval_logits/step{step}"]
    # plain has exploded to logits of 1e4 and more: 1e-8 of that
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(trained.logits[step] / scale, expected / scale, rtol=0, atol=1e-8)


@pytest.mark.parametrize("step", [1, 12])
def test_biases_and_moving_statistics(trained: SimpleNamespace, step: int) -> None:
    prefix = f"{trained.name}/step{step}"
    state = trained.states[step]
    for number, layer in enumerate(LAYERS, start=1):
        if trained.name == "plain":
            pairs = {f"{layer}.bias": "biases"}
        else:
            names = {"bias": "beta", "moving_mean": "moving_mean", "moving_variance": "moving_variance"}
            pairs = {f"norm{number}.{ours}": f"BatchNorm/{theirs}" for ours, theirs in names.items()}
        for ours, theirs in pairs.items():
            np.testing.assert_allclose(state[ours], REFERENCE[f"{prefix}/{layer}/{theirs}"], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("step", [1, 12])
def test_weights(trained: SimpleNamespace, step: int) -> None:
    prefix, state = f"{trained.name}/step{step}", trained.states[step]
    conv1 = state["conv1.weight"].permute(2, 3, 1, 0)
    np.testing.assert_allclose(conv1, REFERENCE[f"{prefix}/conv1/weights"], rtol=1e-9, atol=1e-10)
    logits = state["logits.weight"].T[::16]
    np.testing.assert_allclose(logits, REFERENCE[f"{prefix}/logits/weights"], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(state["fc1.weight"].square().sum(), REFERENCE[f"{prefix}/fc1/weights#sumsq"], rtol=1e-10)


def test_learning_rates() -> None:
    ours = [training.learning_rate(RATES, step) for step in range(12)]
    np.testing.assert_allclose(ours, REFERENCE["plain/lr"], rtol=1e-7)
