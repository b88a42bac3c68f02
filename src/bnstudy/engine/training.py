"""The training loop, its learning rate, its dropout masks, and evaluation on a whole split.

Everything random is a function of (seed, step): nothing depends on what ran before, on the device's number of threads,
or on when the network was evaluated.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.adagrad import adagrad

from bnstudy.engine.data import batch_indices, load_split
from bnstudy.engine.network import HIDDEN, Network

if TYPE_CHECKING:
    from bnstudy.params import Arm, LearningRate
    from bnstudy.params import Optimizer as OptimizerParams

Images = tuple[Tensor, Tensor]  # uint8 images [N, 28, 28] and int64 labels [N]


class Update(NamedTuple):
    """What an update leaves to look at: its number from 1, its rate, its loss, and its rows of the training images.

    The loss is that before the update, in training mode: batch statistics, dropout.
    """

    step: int
    learning_rate: float
    loss: Tensor
    batch: Tensor


class Ended(Exception):
    """Raised by a hook to end a training before its last update."""


class Hook(Protocol):
    """What follows a training without changing it: `after` is called after every update."""

    def after(self, update: Update) -> None: ...


class SavedHook(Hook, Protocol):
    """A hook that is saved and restored with the training."""

    def state(self) -> tuple[dict[str, Tensor], list[Any]]:
        """Its tensors, and its rows of what JSON can hold, that it needs to go on."""

    def restore(self, tensors: Mapping[str, Tensor], rows: list[list[Any]]) -> None: ...


def tensors(split: str, device: torch.device) -> Images:
    """A split on the device."""
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


class Optimizer:
    """Adagrad (Duchi et al. 2011) without epsilon, as TensorFlow's, or stochastic gradient descent with momentum.

    `memory` holds a tensor for each parameter: Adagrad's sum of squared gradients, or the velocity, as PyTorch has it:
    velocity = momentum * velocity + gradient, weight -= rate * velocity.
    """

    def __init__(self, network: Network, params: "OptimizerParams") -> None:
        self.weights: list[Tensor] = list(network.parameters())
        self.momentum = params.momentum
        start = params.initial_accumulator or 0.0
        self.memory = [torch.full_like(weight.detach(), start) for weight in self.weights]

    @torch.no_grad()
    def update(self, rate: float) -> None:
        """Change the weights by their gradients."""
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        if self.momentum is not None:
            torch._foreach_mul_(self.memory, self.momentum)
            torch._foreach_add_(self.memory, gradients)
            torch._foreach_add_(self.weights, self.memory, alpha=-rate)
            return
        steps = [torch.zeros(()) for _ in self.memory]  # what a decay of the rate of its own would depend on
        # The function behind torch.optim.Adagrad, which imports a compiler at its first use: a second of every stage.
        fused = True if self.weights[0].device.type == "cpu" else None
        fixed: dict[str, Any] = {"weight_decay": 0.0, "lr_decay": 0.0, "eps": 0.0, "maximize": False}
        adagrad(self.weights, gradients, self.memory, steps, fused, lr=rate, **fixed)


def train(
    network: Network, optimizer: Optimizer, arm: "Arm", seed: int, images: Images, hooks: Sequence[Hook], done: int = 0
) -> None:
    """Train `network` in place, `done` updates having been made before; after each update call the hooks in turn.

    A hook may evaluate the network. It ends a training by an exception: `Ended` where that is no failure.
    """
    images_NHW, labels_N = images
    device = images_NHW.device
    for step in range(done, arm.steps):
        batch = torch.from_numpy(batch_indices(seed, step, len(images_NHW), arm.batch_size)).to(device)
        mask = dropout_mask(seed, step, arm.batch_size, arm.keep_prob, device) if arm.keep_prob < 1 else None
        network.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=arm.precision == "bfloat16"):
            logits = network(images_NHW[batch], mask)
        loss = F.cross_entropy(logits, labels_N[batch])
        network.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        rate = learning_rate(arm.learning_rate, step)
        optimizer.update(rate)
        for hook in hooks:
            hook.after(Update(step + 1, rate, loss.detach(), batch))


@torch.no_grad()
def predict(network: Network, images_NHW: Tensor) -> Tensor:
    """Logits [N, 10] in evaluation mode: moving averages, no dropout; 1,000 images at a time."""
    network.eval()
    return torch.cat([network(images) for images in torch.split(images_NHW, 1000)])


def evaluate(network: Network, images: Images) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy (a fraction) on a whole split, in evaluation mode."""
    images_NHW, labels_N = images
    return loss_and_accuracy(predict(network, images_NHW), labels_N)


def loss_and_accuracy(logits: Tensor, labels_N: Tensor) -> tuple[float, float]:
    """Mean cross-entropy (nats, summed in float64 where the device has it) and accuracy (a fraction)."""
    wide = logits.cpu().double()
    labels = labels_N.cpu()
    return F.cross_entropy(wide, labels).item(), (wide.argmax(1) == labels).double().mean().item()
