"""The history of a training: a hook that evaluates the network after chosen updates."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bnstudy import BadInput
from bnstudy.engine.averages import SAME, averaging_layers, less_start, set_statistics, statistics
from bnstudy.engine.network import Network
from bnstudy.engine.rows import HistoryRow
from bnstudy.engine.schedule import When
from bnstudy.engine.training import Ended, Images, Update, evaluate

if TYPE_CHECKING:
    from bnstudy.params import Arm


def refuse_divergence(rows: Sequence[HistoryRow]) -> bool:
    """An `end` of `History` that raises `BadInput` where the loss is no longer finite, as the note's train op did."""
    if not math.isfinite(rows[-1].train_loss):
        updates = rows[-1].step - (rows[-2].step if len(rows) > 1 else 0)
        raise BadInput(
            f"after update {rows[-1].step}: the loss is not finite in one of the last {updates} updates; "
            "lower learning_rate.initial, or use a normalization or initializer that bears it"
        )
    return False


class History:
    """A hook that adds a row after each update of `when`.

    `splits` are the training, validation and test images. `averages` returns the moving averages of the network, where
    it does not keep them itself, and `show` is told each row with a validation accuracy. The training ends after a row
    if `end` of the rows so far is true; without, it goes on even if its loss is no longer finite.
    """

    def __init__(
        self,
        network: Network,
        arm: "Arm",
        when: When,
        splits: tuple[Images, Images, Images | None],
        show: Callable[[HistoryRow], None] | None = None,
        averages: Callable[[], Tensor] | None = None,
        end: Callable[[Sequence[HistoryRow]], bool] | None = None,
    ) -> None:
        self.network, self.when, self.show, self.end = network, when, show, end
        self.train, self.validation, self.test = splits
        self.decay = arm.network.decay if averaging_layers(network) else None
        self.averages = averages
        self.rows, self.losses = list[HistoryRow](), list[Tensor]()

    def after(self, update: Update) -> None:
        self.losses.append(update.loss)
        if update.step in self.when.coarse or update.step in self.when.fine:
            self.rows.append(self.row(update))
            if self.show and self.rows[-1].validation_accuracy is not None:
                self.show(self.rows[-1])
            if self.end and self.end(self.rows):
                raise Ended

    def row(self, update: Update) -> HistoryRow:
        train_loss = torch.stack(self.losses).double().mean().item()
        self.losses.clear()
        network, step = self.network, update.step
        if self.averages:
            set_statistics(network, self.averages())
        batch: tuple[float | None, float | None] = (None, None)
        validation, corrected, test = batch, batch, batch
        if step in self.when.coarse or not 0 < (self.decay or 0) < 1:
            validation = evaluate(network, self.validation)
        if step in self.when.coarse:
            images_NHW, labels_N = self.train
            batch = evaluate(network, (images_NHW[update.batch], labels_N[update.batch]))
        if self.test and step in self.when.tested:
            test = evaluate(network, self.test)
        if self.when.corrected:
            corrected = self.corrected(step, validation)
        return HistoryRow(step, update.learning_rate, train_loss, *batch, *validation, *corrected, *test)

    def corrected(self, step: int, validation: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
        """Loss and accuracy on the validation split by averages less their start, whose weight is decay ** step."""
        start_weight = (self.decay or 0.0) ** step
        if validation[0] is not None and (start_weight < SAME or start_weight == 1):
            return validation
        averages_2C = statistics(self.network)
        set_statistics(self.network, less_start(averages_2C, start_weight))
        found = evaluate(self.network, self.validation)
        set_statistics(self.network, averages_2C)
        return found

    def state(self) -> tuple[dict[str, Tensor], list[Any]]:
        return {"losses": torch.stack(self.losses) if self.losses else torch.empty(0)}, self.rows

    def restore(self, tensors: Mapping[str, Tensor], rows: list[list[Any]]) -> None:
        self.losses = list(tensors["losses"].to(self.train[0].device))
        self.rows = [HistoryRow(*row) for row in rows]
