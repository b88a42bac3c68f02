"""Which columns a training's history fills when, and each number beside one found otherwise."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from bnstudy import BadInput
from bnstudy.engine.averages import set_statistics, statistics
from bnstudy.engine.history import History, refuse_divergence
from bnstudy.engine.network import Network
from bnstudy.engine.rows import HistoryRow
from bnstudy.engine.schedule import When
from bnstudy.engine.training import Ended, evaluate
from bnstudy.params import Arm
from conftest import arm_of
from tiny import SPLITS, TEST, TRAIN, VALIDATION, Spy, batch_statistics, network_of, same, trained

WHEN = When(coarse=[2, 4], tested=[4], fine=[1, 2, 3], corrected=True)


def arm_with(decay: float | None) -> Arm:
    """The note's network without batch norm, or with it and averages of this decay."""
    arm = arm_of("plain" if decay is None else "batch_norm", steps=4)
    return arm.model_copy(update={"network": arm.network.model_copy(update={"decay": decay})})


def history_of(arm: Arm, when: When = WHEN, **changes: Any) -> tuple[History, Network]:
    history = History(network := network_of(arm), arm, when, SPLITS, **changes)
    trained(network, arm, [history])
    return history, network


def filled(rows: list[HistoryRow]) -> dict[int, str]:
    """For each row the first letters of the kinds it has: batch, validation, corrected, test."""
    losses, accuracies = (np.array([row[first::2] for row in rows], float) for first in (3, 4))
    assert (np.isnan(losses) == np.isnan(accuracies)).all()
    return {row.step: "".join(np.array([*"bvct"])[~np.isnan(a)]) for row, a in zip(rows, losses, strict=True)}


def test_which_columns_are_filled_when() -> None:
    told = list[int]()
    history, _ = history_of(arm_with(0.95), show=lambda row: told.append(row.step))
    assert filled(history.rows) == {1: "c", 2: "bvc", 3: "c", 4: "bvct"}
    assert told == [2, 4]
    for decay in (0.0, 1.0, None):  # their averages have no start, or nothing else
        rows = history_of(arm_with(decay))[0].rows
        assert filled(rows) == {1: "vc", 2: "bvc", 3: "vc", 4: "bvct"}
        assert all(row[5:7] == row[7:9] for row in rows)
    note = When([1, 4], [1, 4])
    assert filled(history_of(arm_with(0.95), note)[0].rows) == {1: "bvt", 4: "bvt"}


@pytest.mark.parametrize("decay", [0.95, None])
def test_each_number_beside_one_found_otherwise(decay: float | None) -> None:
    """A second training, evaluated by hand; less their start, averages are the weighted mean of the batches."""
    arm = arm_with(decay)
    history, watched = history_of(arm)
    batches = batch_statistics(arm) if decay else None
    other, expected = network_of(arm), dict[int, list[Any]]()

    def look(update: Any) -> None:
        step = update.step
        batch = evaluate(other, (TRAIN[0][update.batch], TRAIN[1][update.batch]))
        validation, test = evaluate(other, VALIDATION), evaluate(other, TEST)
        corrected = validation
        if batches is not None:
            weights, averages = torch.tensor(0.95 ** np.arange(step - 1, -1, -1)), statistics(other)
            set_statistics(other, torch.tensordot(weights / weights.sum(), batches[:step], 1))
            corrected = evaluate(other, VALIDATION)
            set_statistics(other, averages)
            assert corrected[0] != pytest.approx(validation[0], rel=0.01)
        expected[step] = [*batch, *validation, *corrected, *test]

    updates = trained(other, arm, [Spy(look)])
    for row in history.rows:
        found = [(a, b) for a, b in zip(row[3:], expected[row.step], strict=True) if a is not None]
        assert [a for a, _ in found] == pytest.approx([b for _, b in found], rel=1e-3)
    assert [row.learning_rate for row in history.rows] == [update.learning_rate for update in updates]
    assert [row.train_loss for row in history.rows] == pytest.approx([update.loss.item() for update in updates])
    assert same(watched, other)  # the averages too are as they were


def test_the_training_loss_is_the_mean_since_the_last_row() -> None:
    arm = arm_with(None)
    losses = [update.loss.item() for update in trained(network_of(arm), arm)]
    rows = history_of(arm, When([3, 4], []))[0].rows
    assert [row.train_loss for row in rows] == pytest.approx([np.mean(losses[:3]), losses[3]])


def test_a_loss_that_is_not_finite_is_refused_or_kept() -> None:
    arm = arm_with(None)
    arm = arm.model_copy(update={"learning_rate": arm.learning_rate.model_copy(update={"initial": 1e30})})
    with pytest.raises(BadInput, match="after update 4: the loss is not finite in one of the last 3 updates"):
        history_of(arm, When([1, 4], []), end=refuse_divergence)
    rows = history_of(arm, When([1, 4], []))[0].rows
    assert [(row.step, np.isfinite(row.train_loss)) for row in rows] == [(1, True), (4, False)]


def test_a_training_ends_at_the_row_that_says_so() -> None:
    seen = list[int]()

    def end(rows: Sequence[HistoryRow]) -> bool:
        seen.append(len(rows))
        return rows[-1].step == 3

    arm = arm_with(0.95)
    history = History(network := network_of(arm), arm, WHEN, SPLITS, end=end)
    with pytest.raises(Ended):
        trained(network, arm, [history])
    assert seen == [1, 2, 3]
    assert len(history.rows) == 3
    assert history.rows == history_of(arm)[0].rows[:3]
