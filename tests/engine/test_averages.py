"""One training that carries the averages of many decays, beside trainings of each decay and sums over batches."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from bnstudy.engine.averages import (
    Averages,
    averaging_layers,
    by_layer,
    distances,
    evaluate_by_batch,
    less_start,
    precise_statistics,
    set_statistics,
    sizes,
    statistics,
)
from bnstudy.engine.history import History
from bnstudy.engine.network import Network
from bnstudy.engine.schedule import When
from bnstudy.engine.training import dropout_mask, evaluate
from conftest import arm_of
from tiny import CPU, SPLITS, TRAIN, VALIDATION, batch_statistics, network_of, random_images, same, trained

ARM = arm_of(steps=5)
DECAYS = [0.0, 0.01, 0.5, 0.95, 1.0]


def averages_of(network: Network, **changes: Any) -> Averages:
    whole: dict[str, Any] = {
        "when": {decay: {2, 5} if decay else {5} for decay in DECAYS},
        "moments": [5],
        "images": VALIDATION,
        "precise_NHW": TRAIN[0],
        "other_starts": [0.95],
        "start_variances": [10.0, 0.1],
    }
    return Averages(network, ARM, 0, **whole | changes)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    averages = averages_of(network := network_of(ARM, decay=0.0))
    trained(network, ARM, [averages])
    return pd.DataFrame(averages.rows)


def losses(table: pd.DataFrame, statistics: str, decay: float, step: int = 5) -> list[float]:
    found = table[(table["statistics"] == statistics) & (table["decay"] == decay) & (table["step"] == step)]
    return found[["loss", "accuracy"]].to_numpy().ravel().tolist()


def by(values_2C: Tensor) -> list[float]:
    """Loss and accuracy of the network after its five updates by these statistics."""
    trained(network := network_of(ARM), ARM)
    set_statistics(network, values_2C)
    return list(evaluate(network, VALIDATION))


@pytest.mark.parametrize("decay", DECAYS)
def test_a_training_carries_what_trainings_of_each_decay_have(decay: float, table: pd.DataFrame) -> None:
    """Averages, rows, and the weights, which no decay and no order of hooks changes; `own` is for the history."""
    arm = ARM.model_copy(update={"network": ARM.network.model_copy(update={"decay": decay})})
    alone, carrier, other = network_of(arm), network_of(arm, decay=0.0), network_of(arm, decay=0.0)
    histories = [History(alone, arm, When([2, 5], [5], [3], corrected=True), SPLITS)]
    trained(alone, arm, histories)
    assert losses(table, "moving", decay) == pytest.approx(list(evaluate(alone, VALIDATION)), rel=1e-4)
    for network, order in ((carrier, 1), (other, -1)):
        averages = Averages(network, arm, 0, {0.5: {3}}, [], VALIDATION, TRAIN[0])
        histories.append(History(network, arm, histories[0].when, SPLITS, averages=averages.own))
        trained(network, arm, [averages, histories[-1]][::order])
        assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), network.parameters(), strict=True))
        if network is carrier:
            torch.testing.assert_close(averages.own().float(), statistics(alone), rtol=1e-4, atol=1e-5)
    rows = [np.array(history.rows, float) for history in histories]
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-3)


def test_which_rows_there_are(table: pd.DataFrame) -> None:
    """For each decay those of its own updates; a precise one wherever there is another; of the batch at the moments."""
    moving = [(2, "moving", d) for d in DECAYS[1:]] + [(5, "moving", d) for d in DECAYS]
    corrected = [(step, "corrected", decay) for step in (2, 5) for decay in (0.01, 0.5, 0.95)]
    others = [(step, kind, 0.95) for step in (2, 5) for kind in ("start_10", "start_0.1", "means_corrected")]
    rest = [(2, "precise", None), (5, "precise", None), (5, "batch", None)]
    found = table[["step", "statistics", "decay"]].astype(object).where(lambda t: t.notna(), None)
    key = repr
    assert sorted(map(tuple, found.to_numpy()), key=key) == sorted([*moving, *corrected, *others, *rest], key=key)
    off = table.filter(like="_off")
    averaged = ~table["statistics"].isin(["precise", "batch"])
    assert off[averaged].notna().all(axis=None)
    assert off[~averaged].isna().all(axis=None)
    size = table[["conv1_mean", "fc1_variance", "logits_mean", "logits_variance"]]
    assert (size.notna().all(axis=1) == (table["statistics"] == "precise")).all()
    assert losses(table, "corrected", 0.01) == losses(table, "moving", 0.01)  # 1e-10 of the start is left
    assert losses(table, "corrected", 0.01, 2) != losses(table, "moving", 0.01, 2)


@pytest.mark.parametrize("decay", [0.5, 0.95])
def test_less_their_start_averages_are_the_weighted_mean_of_the_batches(decay: float, table: pd.DataFrame) -> None:
    """Sum of decay^(t-i) * batch_i over sum of decay^(t-i), whatever the averages started from."""
    weights = torch.tensor(decay ** np.arange(4, -1, -1))
    expected = torch.tensordot(weights / weights.sum(), batch_statistics(ARM), 1)
    trained(alone := network_of(ARM, decay=decay), ARM)
    torch.testing.assert_close(less_start(statistics(alone).double(), decay**5), expected, rtol=1e-4, atol=1e-5)
    assert losses(table, "corrected", decay) == pytest.approx(by(expected), rel=1e-3)


@pytest.mark.parametrize("start", [10.0, 0.1])
def test_other_starts_are_those_of_averages_that_started_there(start: float, table: pd.DataFrame) -> None:
    network = network_of(ARM)
    for layer in averaging_layers(network).values():
        layer.moving_variance.fill_(start)
    trained(network, ARM)
    assert losses(table, f"start_{start:g}", 0.95) == pytest.approx(list(evaluate(network, VALIDATION)), rel=1e-3)


def test_means_corrected_are_the_means_of_the_batches_with_the_variances_of_the_averages(table: pd.DataFrame) -> None:
    trained(network := network_of(ARM), ARM)
    weights = torch.tensor(0.95 ** np.arange(4, -1, -1))
    means_C = torch.tensordot(weights / weights.sum(), batch_statistics(ARM), 1)[0]
    expected = by(torch.stack([means_C.float(), statistics(network)[1]]))
    assert losses(table, "means_corrected", 0.95) == pytest.approx(expected, rel=1e-3)


def test_precise_statistics_are_those_of_one_pass_in_float64(table: pd.DataFrame) -> None:
    """Of all layers from one part with its dropout; of conv1, which no other layer's statistics change, from two."""
    network, images_NHW = network_of(ARM, decay=0.0), random_images(1500)[0]
    images_NHW[750:] //= 4  # so that parts differ
    wide, seen = network_of(ARM, decay=0.0).double(), list[Tensor]()
    for norm in averaging_layers(wide).values():
        norm.momentum = 1.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bnstudy.engine.fast_cpu.hidden_input", lambda *_: None)
        for norm in averaging_layers(wide).values():
            norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
        wide.train()(images_NHW[:300], dropout_mask(0, 2**31, 300, 0.7, CPU).double())
        values = [x.transpose(0, 1).flatten(1) for x in seen]
        expected = torch.stack([torch.cat([x.mean(1) for x in values]), torch.cat([x.var(1) for x in values])])
        found = precise_statistics(network, images_NHW[:300], 0.7, 0)
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        x = wide.conv1(images_NHW.double()[:, None] / 255).transpose(0, 1).flatten(1)
    means, variances = precise_statistics(network, images_NHW, 0.7, 0)
    np.testing.assert_allclose(means[:16], x.mean(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variances[:16], x.var(1), rtol=1e-4)
    trained(network, ARM)
    expected_loss = by(precise_statistics(network, TRAIN[0], 0.7, 0))
    row = table[(table["statistics"] == "precise") & (table["step"] == 5)]
    assert row[["loss", "accuracy"]].to_numpy().ravel().tolist() == pytest.approx(expected_loss, rel=1e-5)


def test_distances_and_sizes_by_hand() -> None:
    """Means off by 3 sigma and deviations times 1.5, in half of a layer: 3 and 0.5 over root two, in precise sigma."""
    network, random = network_of(ARM), np.random.default_rng(0)
    mean, sigma = random.normal(size=1082), random.uniform(0.5, 2, 1082)
    precise = torch.tensor(np.array([mean, sigma**2 - 0.001]))
    off, half, fc1 = precise.clone(), slice(48, 48 + 512), slice(48, 48 + 1024)
    off[0, half] += torch.tensor(3 * sigma[half])
    off[1, half] = torch.tensor((1.5 * sigma[half]) ** 2 - 0.001)
    found = distances(network, off, precise, 0.001)
    assert {name: value for name, value in found.items() if value} == {
        "fc1_mean_off": pytest.approx(3 / np.sqrt(2)),
        "fc1_deviation_off": pytest.approx(0.5 / np.sqrt(2)),
    }
    assert len(found) == 8
    large = sizes(network, precise)
    assert large["fc1_mean"] == pytest.approx(np.sqrt((mean[fc1] ** 2).mean()))
    assert large["fc1_variance"] == pytest.approx((sigma[fc1] ** 2 - 0.001).mean())


def test_statistics_of_the_batch_are_those_that_training_mode_uses() -> None:
    """For up to 1,000 images: evaluation with their own precise statistics, biased, without dropout, to rounding."""
    network, images = network_of(ARM, decay=0.0), random_images(200)
    loss, _ = evaluate_by_batch(network, images)
    biased = by_layer(network, precise_statistics(network, images[0], 1.0, 0))
    for layer, pixels in (("conv1", 784), ("conv2", 196), ("fc1", 1), ("logits", 1)):
        biased[layer][1] *= 1 - 1 / (200 * pixels)
    set_statistics(network, torch.cat([*biased.values()], 1))
    assert evaluate(network, images)[0] == pytest.approx(loss, rel=1e-4)


def test_statistics_go_back_where_they_came_from() -> None:
    network = network_of(ARM)
    set_statistics(network, values := torch.rand(2, 1082))
    assert torch.equal(statistics(network), values)
    assert torch.equal(by_layer(network, values)["logits"][1], network.norm4.moving_variance)
    assert not same(network, network_of(ARM))
    assert list(averaging_layers(network_of(ARM, normalize_logits=False))) == ["conv1", "conv2", "fc1"]
    assert not averaging_layers(network_of(arm_of("plain")))
