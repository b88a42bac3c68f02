"""The training loop, its learning rate, its dropout masks, and evaluation on a whole split.

Everything random is a function of (seed, step): nothing depends on what ran before, on the device's number of threads,
or on when the network was evaluated.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.adagrad import adagrad

from bnstudy import BadInput
from bnstudy.engine.data import batch_indices, load_split
from bnstudy.engine.network import HIDDEN, Network
from bnstudy.engine.resume import Checkpoint, State
from bnstudy.engine.rows import HistoryRow

if TYPE_CHECKING:
    from bnstudy.engine.averages import Carried
    from bnstudy.params import LearningRate
    from bnstudy.settings import Setting


class Diverged(BadInput):
    """The loss is no longer finite."""

    def __init__(self, step: int, message: str) -> None:
        super().__init__(
            f"{message}: lower the rate (networks.<name>.rate, or the arm's), or use an initializer or normalization "
            "that bears it"
        )
        self.step = step


def tensors(split: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """A split on the device: uint8 images [N, 28, 28] and int64 labels [N]."""
    images_NHW, labels_N = load_split(split)
    return torch.from_numpy(images_NHW).to(device), torch.from_numpy(labels_N).to(device, torch.int64)


def learning_rate(schedule: "LearningRate", step: int) -> float:
    """The rate of update `step`, counted from 0: exponential decay, in stairs if asked for.

    Over the first `ramp_steps` updates it rises linearly to that, from one part in `ramp_steps` (Goyal et al. 2017).
    """
    exponent = step / schedule.decay_steps
    rate = schedule.initial * float(schedule.decay_rate ** (int(exponent) if schedule.staircase else exponent))
    return rate * min(1.0, (step + 1) / schedule.ramp_steps) if schedule.ramp_steps else rate


def dropout_mask(seed: int, step: int, images: int, keep_prob: float, device: torch.device) -> Tensor:
    """[images, 2048] of 0 and 1 / keep_prob, float32, for update `step`."""
    # Hashed: PyTorch's CPU generator reads only 32 bits of a seed.
    key = int(np.random.SeedSequence([seed, 2, step]).generate_state(1)[0])
    random = torch.Generator(device).manual_seed(key)
    return (torch.rand(images, HIDDEN, generator=random, device=device) < keep_prob) / keep_prob


def accumulators(network: Network, setting: "Setting") -> list[Tensor]:
    """Adagrad's sum of squared gradients of each parameter, from `initial_accumulator`."""
    return [torch.full_like(parameter.detach(), setting.initial_accumulator) for parameter in network.parameters()]


@torch.no_grad()
def update(network: Network, sums: list[Tensor], rate: float) -> None:
    """One step of Adagrad (Duchi et al. 2011) without epsilon, as TensorFlow's: changes the weights and `sums`."""
    weights: list[Tensor] = list(network.parameters())
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    steps = [torch.zeros(()) for _ in sums]  # what a decay of the rate of its own would depend on
    # The function behind torch.optim.Adagrad, which imports a compiler at its first use: a second of every stage.
    fused = True if weights[0].device.type == "cpu" else None
    adagrad(weights, gradients, sums, steps, fused, lr=rate, weight_decay=0.0, lr_decay=0.0, eps=0.0, maximize=False)


def updates(
    network: Network,
    sums: list[Tensor],
    images_NHW: Tensor,
    labels_N: Tensor,
    setting: "Setting",
    seed: int,
    done: int = 0,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Train `network` and `sums` in place; yield after each update its number from 1, its loss, its rows of the images.

    The loss is that before the update, in training mode: batch statistics, dropout. `done` updates were made
    before. The caller may evaluate the network between two updates.
    """
    device = images_NHW.device
    for step in range(done, setting.steps):
        rows = torch.from_numpy(batch_indices(seed, step, len(images_NHW), setting.batch_size)).to(device)
        mask = None
        if setting.keep_prob < 1:
            mask = dropout_mask(seed, step, setting.batch_size, setting.keep_prob, device)
        network.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=setting.precision == "bfloat16"):
            logits = network(images_NHW[rows], mask)
        loss = F.cross_entropy(logits, labels_N[rows])
        network.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        update(network, sums, learning_rate(setting.learning_rate, step))
        yield step + 1, loss.detach(), rows


def state_tensors(network: Network, sums: list[Tensor]) -> dict[str, Tensor]:
    """Every tensor, by name and in place, that the next updates depend on: weights, averages, accumulators."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    return tensors | {f"adagrad.{number}": tensor for number, tensor in enumerate(sums)}


@torch.no_grad()
def restore(network: Network, sums: list[Tensor], saved: dict[str, Tensor]) -> None:
    for name, tensor in state_tensors(network, sums).items():
        tensor.copy_(saved[name])


@torch.no_grad()
def predict(network: Network, images_NHW: Tensor) -> Tensor:
    """Logits [N, 10] in evaluation mode: moving averages, no dropout; 1,000 images at a time."""
    network.eval()
    return torch.cat([network(images) for images in torch.split(images_NHW, 1000)])


def evaluate(network: Network, images_NHW: Tensor, labels_N: Tensor) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy (a fraction) on a whole split, in evaluation mode."""
    return loss_and_accuracy(predict(network, images_NHW), labels_N)


def loss_and_accuracy(logits: Tensor, labels_N: Tensor) -> tuple[float, float]:
    """Mean cross-entropy (nats, summed in float64 where the device has it) and accuracy (a fraction)."""
    wide = logits.cpu().double()
    labels = labels_N.cpu()
    return F.cross_entropy(wide, labels).item(), (wide.argmax(1) == labels).double().mean().item()


def history(
    network: Network,
    setting: "Setting",
    seed: int,
    checkpoint: Checkpoint,
    when: list[int],
    test_at: list[int],
    carried: "Carried | None" = None,
) -> list[HistoryRow]:
    """Train `network` in place; a row after each update in `when`, with the test split where it is in `test_at`.

    `carried` are averages that follow the updates and are measured beside; the network's own are then among them. Goes
    on from `checkpoint`, whose rows come first. Raises `Diverged` when the loss is no longer finite, as the note's
    train op did.
    """
    device = checkpoint.device
    images_NHW, labels_N = tensors("train", device)
    validation, test = tensors("validation", device), tensors("test", device) if test_at else None
    sums = accumulators(network, setting)
    done, rows, losses = 0, list[HistoryRow](), list[Tensor]()
    if saved := checkpoint.load():
        done, rows = saved.step, [HistoryRow(*row) for row in saved.rows[0]]
        if not saved.tensors:  # a short run that had ended
            return rows
        restore(network, sums, saved.tensors)
        losses = list(saved.tensors["losses"].to(device))
        if carried:
            carried.restore(saved.tensors["averages"], saved.rows[1])
    for step, loss, batch in updates(network, sums, images_NHW, labels_N, setting, seed, done):
        losses.append(loss)
        if carried:
            carried.follow()
        if step in when:
            train_loss = torch.stack(losses).double().mean().item()
            if not math.isfinite(train_loss):
                raise Diverged(
                    step,
                    f"{checkpoint.name}: step {step}: the loss is not finite in one of the last {len(losses)} updates",
                )
            losses.clear()
            if carried:
                carried.measure(step, images_NHW, validation)
            row = HistoryRow(
                step,
                learning_rate(setting.learning_rate, step - 1),
                train_loss,
                *evaluate(network, images_NHW[batch], labels_N[batch]),
                *evaluate(network, *validation),
                *(evaluate(network, *test) if test and step in test_at else (None, None)),
            )
            rows.append(row)
            checkpoint.progress.evaluated(row)
        if checkpoint.due(step):
            state = state_tensors(network, sums) | {"losses": torch.stack(losses) if losses else torch.empty(0)}
            state |= {"averages": carried.values_D2C} if carried else {}
            checkpoint.save(State(step, state, [rows, carried.rows if carried else []]))
    return rows
