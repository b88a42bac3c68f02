"""One training that carries the averages of many decays, beside trainings that each carry one."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnstudy.engine import averages
from bnstudy.engine.averages import evaluation_steps, lags, precise_statistics, set_statistics, statistics
from bnstudy.engine.network import Network, build
from bnstudy.engine.resume import Checkpoint
from bnstudy.engine.training import accumulators, evaluate, tensors, updates
from bnstudy.params import load

PARAMS = load()
BATCH = PARAMS.variants["batch_norm"]
TRAIN = PARAMS.train.model_copy(update={"steps": 5, "batch_size": 32})
WARMUP = PARAMS.warmup.model_copy(
    update={"steps": 5, "evaluate_every": 2, "precise_images": 2500, "decays": [0.0, 0.5, 0.95, 1.0]}
)
CPU = torch.device("cpu")


def checkpoint() -> Checkpoint:
    return Checkpoint("warmup/0", 5, [], CPU, PARAMS.runtime)


def network(decay: float) -> Network:
    return build(BATCH.model_copy(update={"decay": decay}), 0, torch.device("cpu"))


@given(steps=st.integers(1, 3000), every=st.integers(1, 500))
def test_evaluation_steps_are_dense_early_then_regular(steps: int, every: int) -> None:
    when = sorted(evaluation_steps(steps, every))
    assert when[0] == 1
    assert when[-1] == steps
    assert set(range(every, steps + 1, every)) <= set(when)
    assert all(b - a <= max(1, every, 0.5 * a) for a, b in pairwise(when))
    assert len(when) <= steps / every + 6 * math.log10(every) + 3


def test_a_run_carries_what_runs_of_each_decay_have(in_prepared: Path) -> None:
    carrier = network(0.0)
    found = pd.DataFrame(lags(carrier, TRAIN, WARMUP, 0, checkpoint()))
    assert sorted(set(found["step"])) == [1, 2, 4, 5]
    images_NHW, labels_N = tensors("train", CPU)
    for decay in WARMUP.decays:
        alone = network(decay)
        for step, _, _ in updates(alone, accumulators(alone, TRAIN), images_NHW, labels_N, TRAIN, 0):
            if step in (2, 5):
                mine = found[(found["step"] == step) & (found["statistics"] == "moving") & (found["decay"] == decay)]
                loss, accuracy = evaluate(alone, *tensors("test", CPU))
                assert mine["test_loss"].item() == pytest.approx(loss, rel=1e-4)
                assert mine["test_accuracy"].item() == pytest.approx(accuracy, abs=0.002)
        weights = [
            (dict(net.named_parameters())[name] for net in (carrier, alone)) for name, _ in alone.named_parameters()
        ]
        assert all(torch.equal(a, b) for a, b in weights)


def test_corrected_averages_are_the_weighted_mean_of_the_batches(
    in_prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sum of decay^(t-i) * batch_i over sum of decay^(t-i), whatever the averages started from."""
    batches, evaluated = [], []
    real_evaluate = evaluate

    def spy(net: Network, images_NHW: torch.Tensor, labels_N: torch.Tensor) -> tuple[float, float]:
        evaluated.append(statistics(net).double().numpy().copy())
        return real_evaluate(net, images_NHW, labels_N)

    monkeypatch.setattr(averages, "evaluate", spy)
    one = WARMUP.model_copy(update={"decays": [0.95], "steps": 4, "evaluate_every": 4})
    found = [row[:2] for row in lags(network(0.0), TRAIN, one, 0, checkpoint())]
    images_NHW, labels_N = tensors("train", CPU)
    batch_network = network(0.0)
    train = TRAIN.model_copy(update={"steps": 4})
    for _ in updates(batch_network, accumulators(batch_network, train), images_NHW, labels_N, train, 0):
        batches.append(statistics(batch_network).double().numpy().copy())
    weights = 0.95 ** np.arange(3, -1, -1)
    expected = np.tensordot(weights / weights.sum(), np.stack(batches), 1)
    seen = [kind for kind in found if kind[1] != "batch"]  # `batch` evaluates without averages
    np.testing.assert_allclose(evaluated[seen.index((4, "corrected"))], expected, rtol=1e-3, atol=1e-4)


def test_precise_statistics_are_those_of_all_the_images(in_prepared: Path) -> None:
    """Of the first layer, whose inputs do not depend on other layers' statistics: mean and variance over all images."""
    net = network(0.0)
    images_NHW = tensors("train", CPU)[0][:2000]
    with torch.no_grad():
        x = net.conv1(images_NHW.float()[:, None] / 255).double().transpose(0, 1).flatten(1)
    means, variances = precise_statistics(net, images_NHW, 0.7, 0)
    np.testing.assert_allclose(means[:16], x.mean(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variances[:16], x.var(1, correction=0), rtol=1e-4)


def test_statistics_go_back_where_they_came_from() -> None:
    net = network(0.5)
    values = torch.rand(statistics(net).shape)
    set_statistics(net, values)
    assert torch.equal(statistics(net), values)
    assert torch.equal(net.norm4.moving_variance, values[1, -10:])  # type: ignore[arg-type]
