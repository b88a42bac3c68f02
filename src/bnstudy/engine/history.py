"""The history of a training: a hook that evaluates the network after chosen updates."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bnstudy import BadInput
from bnstudy.engine.averages import SAME, averaging_layers, less_start, set_statistics, statistics
from bnstudy.engine.network import Network
from bnstudy.engine.rows import HistoryRow
from bnstudy.engine.schedule import When
from bnstudy.engine.training import Images, Update, evaluate

if TYPE_CHECKING:
    from bnstudy.params import Arm


class Diverged(BadInput):
    """The loss is no longer finite, as when the note's train op raised."""

    def __init__(self, step: int, updates: int) -> None:
        super().__init__(
            f"after update {step}: the loss is not finite in one of the last {updates} updates; "
            "lower learning_rate.initial, or use a normalization or initializer that bears it"
        )
        self.step = step


class History:
    """A hook that adds a row after each update of `when`.

    `splits` are the training, validation and test images. `averages` returns the moving averages of the network, where
    it does not keep them itself, and `show` is told each row with a validation accuracy.
    """

    def __init__(
        self,
        network: Network,
        arm: "Arm",
        when: When,
        splits: tuple[Images, Images, Images | None],
        show: Callable[[HistoryRow], None] | None = None,
        averages: Callable[[], Tensor] | None = None,
    ) -> None:
        self.network, self.when, self.show = network, when, show
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

    def row(self, update: Update) -> HistoryRow:
        """Raises `Diverged` if a loss since the last row is not finite."""
        train_loss = torch.stack(self.losses).double().mean().item()
        if not math.isfinite(train_loss):
            raise Diverged(update.step, len(self.losses))
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
