"""The rows that runs leave behind: each column named once, and how its numbers are written.

Imports no PyTorch, so that whoever reads a table knows its columns without.
"""

import csv
import io
from collections.abc import Collection, Iterable
from typing import NamedTuple


class HistoryRow(NamedTuple):
    """A training after `step` updates. Losses in nats, accuracies as fractions; None: not evaluated.

    `learning_rate` is the last update's, `train_loss` the mean training-mode loss since the last row. All others are in
    evaluation mode: by moving averages the batch of the last update and the whole validation and test splits; by the
    same averages less their start (see `averages.less_start`) the validation split.
    """

    step: int
    learning_rate: float
    train_loss: float
    batch_loss: float | None
    batch_accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    corrected_loss: float | None
    corrected_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None


class AveragesRow(NamedTuple):
    """Images of the validation split after `step` updates, by one kind of statistics.

    `statistics`: moving averages; these less their start (corrected); the means alone less their start
    (means_corrected); moving averages whose variances started elsewhere (start_10, start_0.1); precise ones; those of
    the batch. `decay` is that of the averages. For each layer, of averages their distance from precise statistics: the
    root mean square over its channels of the differences of means and of standard deviations, in precise standard
    deviations; of precise statistics the root mean square of the means, and the mean of the variances, over its
    channels.
    """

    step: int
    statistics: str
    decay: float | None
    loss: float
    accuracy: float
    conv1_mean_off: float | None = None
    conv1_deviation_off: float | None = None
    conv2_mean_off: float | None = None
    conv2_deviation_off: float | None = None
    fc1_mean_off: float | None = None
    fc1_deviation_off: float | None = None
    logits_mean_off: float | None = None
    logits_deviation_off: float | None = None
    conv1_mean: float | None = None
    conv1_variance: float | None = None
    conv2_mean: float | None = None
    conv2_variance: float | None = None
    fc1_mean: float | None = None
    fc1_variance: float | None = None
    logits_mean: float | None = None
    logits_variance: float | None = None


class MechanismRow(NamedTuple):
    """Images of the validation split, by statistics in which the start, means 0 and variances 1, has `start_weight`.

    Mixed are `what` (both, means or variances) of the layers `where` (all, or one by name); the rest is precise.
    """

    where: str
    what: str
    start_weight: float
    loss: float
    accuracy: float


class SweepRow(NamedTuple):
    """A short training after `step` updates; `diverged` is 1 where its loss was no longer finite, else 0."""

    seed: int
    learning_rate: float
    step: int
    diverged: int
    train_loss: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    corrected_accuracy: float | None


Row = HistoryRow | AveragesRow | MechanismRow | SweepRow


def to_csv(rows: Iterable[Row], without: Collection[str] = ()) -> bytes:
    """One or more rows of one kind as a CSV table, but for the columns `without`.

    Floats to 8 significant digits, more than float32 holds; None is empty.
    """
    rows = list(rows)
    columns = [name for name in rows[0]._fields if name not in without]
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(columns)
    for row in rows:
        values = (getattr(row, name) for name in columns)
        lines.writerow([f"{value:.8g}" if isinstance(value, float) else value for value in values])
    return table.getvalue().encode()
