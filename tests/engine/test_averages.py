"""One training that carries the averages of many decays, beside trainings that each carry one."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bnstudy.engine.averages import (
    Carried,
    averaging_layers,
    by_layer,
    distances,
    evaluate_by_batch,
    precise_statistics,
    set_statistics,
    statistics,
)
from bnstudy.engine.network import Network, build
from bnstudy.engine.resume import Checkpoint
from bnstudy.engine.rows import HistoryRow
from bnstudy.engine.training import accumulators, evaluate, history, tensors, updates
from conftest import PARAMS, setting_of

SETTING = setting_of(steps=5, batch_size=32)
AVERAGES = PARAMS.averages.model_copy(update={"images": 300, "precise_images": 2500, "decays": [0.0, 0.5, 0.95, 1.0]})
CPU = torch.device("cpu")


def network(decay: float = 0.0) -> Network:
    return build(SETTING.network.model_copy(update={"decay": decay}), 0, CPU)


def carry(net: Network) -> tuple[Carried, list[HistoryRow]]:
    carried = Carried(net, SETTING, AVERAGES, 0)
    checkpoint = Checkpoint("averages/0", 5, [], CPU, PARAMS.runtime)
    return carried, history(net, SETTING, 0, checkpoint, [2, 5], [5], carried)


def test_a_run_carries_what_runs_of_each_decay_have(in_prepared: Path) -> None:
    carrier = network()
    carried, rows = carry(carrier)
    found = pd.DataFrame(carried.rows)
    assert sorted(set(found["step"])) == [2, 5]
    images_NHW, labels_N = tensors("train", CPU)
    validation = tensors("validation", CPU)
    for decay in AVERAGES.decays:
        alone = network(decay)
        for step, _, _ in updates(alone, accumulators(alone, SETTING), images_NHW, labels_N, SETTING, 0):
            if step in (2, 5):
                mine = found[(found["step"] == step) & (found["statistics"] == "moving") & (found["decay"] == decay)]
                loss, accuracy = evaluate(alone, validation[0][:300], validation[1][:300])
                assert mine["loss"].item() == pytest.approx(loss, rel=1e-4)
                assert mine["accuracy"].item() == pytest.approx(accuracy, abs=0.005)
                if decay == SETTING.network.decay:  # the history and the network's own averages are of its own decay
                    (row,) = [row for row in rows if row.step == step]
                    assert row.validation_loss == pytest.approx(evaluate(alone, *validation)[0], rel=1e-4)
                    if step == 5:
                        torch.testing.assert_close(statistics(carrier), statistics(alone), rtol=1e-4, atol=1e-5)
        weights = [
            (dict(net.named_parameters())[name] for net in (carrier, alone)) for name, _ in alone.named_parameters()
        ]
        assert all(torch.equal(a, b) for a, b in weights)


def test_an_interrupted_run_carries_on(in_prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows and averages of one that was not interrupted, from a state between two evaluations."""
    expected, rows = carry(network())
    cut = Checkpoint("averages/cut", 5, [], CPU, PARAMS.runtime.model_copy(update={"checkpoint_every": 3}))
    with monkeypatch.context() as patch:
        patch.setattr(cut, "save", lambda state: (Checkpoint.save(cut, state), sys.exit("stopped")))
        with pytest.raises(SystemExit, match="stopped"):
            history((net := network()), SETTING, 0, cut, [2, 5], [5], Carried(net, SETTING, AVERAGES, 0))
    carried = Carried(network(), SETTING, AVERAGES, 0)
    assert history(carried.network, SETTING, 0, cut, [2, 5], [5], carried) == rows
    assert carried.rows == expected.rows
    assert torch.equal(statistics(carried.network), statistics(expected.network))


def test_corrected_averages_are_the_weighted_mean_of_the_batches(
    in_prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sum of decay^(t-i) * batch_i over sum of decay^(t-i), whatever the averages started from."""
    seen = []

    def spy(net: Network, values_2C: torch.Tensor, *_: object) -> dict[str, float]:
        seen.append(values_2C.double().numpy().copy())
        return {}

    monkeypatch.setattr("bnstudy.engine.averages.distances", spy)
    carried, _ = carry(network())
    with_distance = [row for row in carried.rows if row.statistics in ("moving", "corrected")]
    (at,) = [i for i, row in enumerate(with_distance) if row[:3] == (5, "corrected", 0.95)]
    images_NHW, labels_N = tensors("train", CPU)
    alone, batches = network(), []
    for _ in updates(alone, accumulators(alone, SETTING), images_NHW, labels_N, SETTING, 0):
        batches.append(statistics(alone).double().numpy().copy())
    weights = 0.95 ** np.arange(4, -1, -1)
    expected = np.tensordot(weights / weights.sum(), np.stack(batches), 1)
    np.testing.assert_allclose(seen[at], expected, rtol=1e-3, atol=1e-4)


def test_precise_statistics_are_those_of_all_the_images(in_prepared: Path) -> None:
    """Of the first layer, whose inputs do not depend on other layers' statistics: mean and variance over all images."""
    net = network()
    images_NHW = tensors("train", CPU)[0][:2000]
    with torch.no_grad():
        x = net.conv1(images_NHW.float()[:, None] / 255).double().transpose(0, 1).flatten(1)
    means, variances = precise_statistics(net, images_NHW, 0.7, 0)
    np.testing.assert_allclose(means[:16], x.mean(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variances[:16], x.var(1, correction=0), rtol=1e-4)


def test_distances_are_in_units_of_the_precise_standard_deviation() -> None:
    """Means off by d sigma and standard deviations times s, in half of a layer: d and s - 1 over root two."""
    net = network()
    random = np.random.default_rng(0)
    mean, sigma = random.normal(size=1082), random.uniform(0.5, 2, 1082)
    precise = torch.tensor(np.array([mean, sigma**2 - 0.001]))
    off, half = precise.clone(), slice(16 + 32, 16 + 32 + 512)  # of fc1's 1,024 channels
    off[0, half] += torch.tensor(3 * sigma[half])
    off[1, half] = torch.tensor((1.5 * sigma[half]) ** 2 - 0.001)
    found = distances(net, off, precise, 0.001)
    assert found["fc1_mean"] == pytest.approx(3 / np.sqrt(2))
    assert found["fc1_deviation"] == pytest.approx(0.5 / np.sqrt(2))
    assert all(
        found[f"{layer}_{what}"] == 0 for layer in ("conv1", "conv2", "logits") for what in ("mean", "deviation")
    )


def test_statistics_of_the_batch_are_those_that_training_mode_uses(in_prepared: Path) -> None:
    """For up to 1,000 images: evaluation with their own precise statistics, without dropout, to rounding."""
    net = network()
    images_NHW, labels_N = (part[:200] for part in tensors("validation", CPU))
    loss, _ = evaluate_by_batch(net, images_NHW, labels_N)
    set_statistics(net, precise_statistics(net, images_NHW, 1.0, 0) * torch.tensor([[1.0], [199 / 200]]))
    assert evaluate(net, images_NHW, labels_N)[0] == pytest.approx(loss, rel=0.02)


def test_statistics_go_back_where_they_came_from() -> None:
    net = network(0.5)
    values = torch.rand(statistics(net).shape)
    set_statistics(net, values)
    assert torch.equal(statistics(net), values)
    assert torch.equal(by_layer(net, values)["logits"][1], net.norm4.moving_variance)
    hidden = build(setting_of("batch_norm_hidden").network, 0, CPU)
    assert list(averaging_layers(hidden)) == ["conv1", "conv2", "fc1"]
