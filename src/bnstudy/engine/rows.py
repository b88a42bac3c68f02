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
    in evaluation mode: on the batch of the last update, and on the whole of two splits, of which the test split is
    evaluated at the study's moments alone.
    """

    step: int
    learning_rate: float
    train_loss: float
    batch_loss: float
    batch_accuracy: float
    validation_loss: float
    validation_accuracy: float
    test_loss: float | None
    test_accuracy: float | None


class AveragesRow(NamedTuple):
    """Images of the validation split after `step` updates, by statistics that are moving, corrected, batch or precise.

    `decay` is that of moving and corrected averages, whose distance from precise statistics the others tell, for each
    layer: the root mean square, over its channels, of the differences of the means and of the standard deviations, in
    units of the precise standard deviation. None where a layer has no batch norm.
    """

    step: int
    statistics: str
    decay: float | None
    loss: float
    accuracy: float
    conv1_mean: float | None = None
    conv1_deviation: float | None = None
    conv2_mean: float | None = None
    conv2_deviation: float | None = None
    fc1_mean: float | None = None
    fc1_deviation: float | None = None
    logits_mean: float | None = None
    logits_deviation: float | None = None


class MechanismRow(NamedTuple):
    """Images of the validation split, by statistics in which the start, means 0 and variances 1, has `start_weight`.

    Mixed are `what` (both, means or variances) of the layers `where` (all, or one by name); the rest is precise.
    """

    seed: int
    where: str
    what: str
    start_weight: float
    loss: float
    accuracy: float


class ShortRow(NamedTuple):
    """A short run after `step` updates; `diverged` is 1 where its loss was no longer finite, else 0."""

    seed: int
    batch_size: int
    learning_rate: float
    step: int
    diverged: int
    train_loss: float | None
    validation_loss: float | None
    validation_accuracy: float


Row = HistoryRow | AveragesRow | MechanismRow | ShortRow


def to_csv(rows: Iterable[Row]) -> bytes:
    """One or more rows of one kind as a CSV table: floats to 8 significant digits, more than float32 holds."""
    rows = list(rows)
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(rows[0]._fields)
    lines.writerows([f"{value:.8g}" if isinstance(value, float) else value for value in row] for row in rows)
    return table.getvalue().encode()
