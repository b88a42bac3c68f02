"""The training loop, its learning rate, its dropout masks, and evaluation on a whole split.

Everything random is a function of (seed, step): nothing depends on what ran before, on the device's number of threads,
or on when the network was evaluated.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bnstudy.data import batch_indices, load_split
from bnstudy.network import HIDDEN, Network
from bnstudy.params import LearningRate, Train


def tensors(split: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """A split on the device: uint8 images [N, 28, 28] and int64 labels [N]."""
    images_NHW, labels_N = load_split(split)
    return torch.from_numpy(images_NHW).to(device), torch.from_numpy(labels_N).to(device, torch.int64)


def learning_rate(schedule: LearningRate, step: int) -> float:
    """The rate of update `step`, counted from 0: exponential decay, in stairs if asked for (row 22)."""
    exponent = step / schedule.decay_steps
    return schedule.initial * float(schedule.decay_rate ** (int(exponent) if schedule.staircase else exponent))


def dropout_mask(seed: int, step: int, images: int, keep_prob: float, device: torch.device) -> Tensor:
    """[images, 2048] of 0 and 1 / keep_prob for update `step` (row 10)."""
    # Hashed: PyTorch's CPU generator reads only 32 bits of a seed.
    key = int(np.random.SeedSequence([seed, 2, step]).generate_state(1)[0])
    random = torch.Generator(device).manual_seed(key)
    return (torch.rand(images, HIDDEN, generator=random, device=device) < keep_prob) / keep_prob


def updates(
    network: Network, images_NHW: Tensor, labels_N: Tensor, train: Train, seed: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Train `network` in place, and yield after each update: its number from 1, its loss, and its rows of the images.

    The loss is that before the update, in training mode: batch statistics, dropout (row 23). Adagrad starts from
    `initial_accumulator` and has no epsilon (row 21). The caller may evaluate the network between two updates.
    """
    device = images_NHW.device
    optimizer = torch.optim.Adagrad(
        network.parameters(), initial_accumulator_value=train.initial_accumulator, eps=0.0, fused=device.type == "cpu"
    )
    for step in range(train.steps):
        rows = torch.from_numpy(batch_indices(seed, step, len(images_NHW), train.batch_size)).to(device)
        mask = None
        if train.keep_prob < 1:
            mask = dropout_mask(seed, step, train.batch_size, train.keep_prob, device)
        network.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=train.precision == "bfloat16"):
            logits = network(images_NHW[rows], mask)
        loss = F.cross_entropy(logits, labels_N[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.param_groups[0]["lr"] = learning_rate(train.learning_rate, step)
        optimizer.step()
        yield step + 1, loss.detach(), rows


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
