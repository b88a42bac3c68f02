"""Short runs, of which only the validation split is evaluated, and in which divergence is an outcome."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bnstudy.engine.grid import evaluations
from bnstudy.engine.network import build
from bnstudy.engine.resume import Checkpoint, State
from bnstudy.engine.rows import ShortRow
from bnstudy.engine.training import Diverged, evaluate, history, tensors

if TYPE_CHECKING:
    from bnstudy.settings import Setting


def short_run(setting: "Setting", seed: int, checkpoint: Checkpoint) -> list[ShortRow]:
    """Train `setting` from `seed`: a row after each of its evaluations.

    Where the loss is no longer finite, one row: `diverged` is 1, and the accuracy that of what is left.
    """
    network = build(setting.network, seed, checkpoint.device)
    what = (seed, setting.batch_size, setting.learning_rate.initial)
    try:
        rows = history(network, setting, seed, checkpoint, evaluations(setting), [])
    except Diverged as diverged:
        accuracy = evaluate(network, *tensors("validation", checkpoint.device))[1]
        return [ShortRow(*what, diverged.step, 1, None, None, accuracy)]
    checkpoint.save(State(setting.steps, {}, [rows, []]))  # all that is left to do: a stage makes many short runs
    return [ShortRow(*what, row.step, 0, row.train_loss, row.validation_loss, row.validation_accuracy) for row in rows]


def best_rate(rows: Iterable[ShortRow]) -> float:
    """Of runs with one row each: the rate of the best validation accuracy, mean over seeds; the first of equals."""
    accuracies = dict[float, list[float]]()
    for row in rows:
        accuracies.setdefault(row.learning_rate, []).append(row.validation_accuracy)
    return max(accuracies, key=lambda rate: sum(accuracies[rate]) / len(accuracies[rate]))
