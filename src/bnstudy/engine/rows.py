"""The rows that runs leave behind: each column named once, and how its numbers are written.

Imports no PyTorch, so that whoever reads a table knows its columns without.
"""

import csv
import io
from collections.abc import Iterable
from typing import NamedTuple


class HistoryRow(NamedTuple):
    """The state of a training after `step` updates. Losses in nats, accuracies as fractions.

    `learning_rate` is the last update's and `train_loss` the mean training-mode loss since the last row. The others are
    in evaluation mode: on the batch of the last update (`hidden_*` are percentiles of what enters the hidden layer's
    CReLU), and on the whole of two splits.
    """

    step: int
    learning_rate: float
    train_loss: float
    hidden_15: float
    hidden_50: float
    hidden_85: float
    batch_loss: float
    batch_accuracy: float
    validation_loss: float
    validation_accuracy: float
    test_loss: float
    test_accuracy: float


class WarmupRow(NamedTuple):
    """The test split after `step` updates, by one kind of statistics: moving, corrected, batch or precise.

    `decay` is that of moving and corrected averages.
    """

    step: int
    statistics: str
    decay: float | None
    test_loss: float
    test_accuracy: float


class SweepRow(NamedTuple):
    """The end of a short run, after `step` updates; `diverged` is 1 where its loss was no longer finite, else 0."""

    seed: int
    batch_size: int
    learning_rate: float
    step: int
    diverged: int
    train_loss: float | None
    validation_accuracy: float
    test_accuracy: float


Row = HistoryRow | WarmupRow | SweepRow


def to_csv(rows: Iterable[Row]) -> bytes:
    """One or more rows of one kind as a CSV table: floats to 8 significant digits, more than float32 holds."""
    rows = list(rows)
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(rows[0]._fields)
    lines.writerows([f"{value:.8g}" if isinstance(value, float) else value for value in row] for row in rows)
    return table.getvalue().encode()
