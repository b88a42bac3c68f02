"""Trainings on random images, small enough for a test, that the engine's tests share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnstudy.engine.averages import statistics
from bnstudy.engine.network import Network, build
from bnstudy.engine.training import Hook, Images, Optimizer, Update, train
from bnstudy.params import Arm

CPU = torch.device("cpu")


def random_images(number: int) -> Images:
    random = np.random.default_rng(number)
    images_NHW = random.integers(0, 256, (number, 28, 28), dtype=np.uint8)
    return torch.from_numpy(images_NHW), torch.from_numpy(random.integers(0, 10, number))


SPLITS = TRAIN, VALIDATION, TEST = random_images(96), random_images(60), random_images(50)


def network_of(arm: Arm, **changes: Any) -> Network:
    """The network of the arm, with keys of its design changed, from seed 0."""
    return build(arm.network.model_copy(update=changes), 0, CPU)


class Spy:
    """A hook that looks at each update, and needs nothing to go on."""

    def __init__(self, look: Any) -> None:
        self.after = look

    def state(self) -> tuple[dict[str, Tensor], list[Any]]:
        return {}, []

    def restore(self, *_: Any) -> None: ...


def trained(network: Network, arm: Arm, hooks: Sequence[Hook] = (), seed: int = 0) -> list[Update]:
    """Train the network in place; what its updates left."""
    updates = list[Update]()
    train(network, Optimizer(network, arm.optimizer), arm, seed, TRAIN, [*hooks, Spy(updates.append)])
    return updates


def batch_statistics(arm: Arm) -> Tensor:
    """Means and unbiased variances of each update's batch, [steps, 2, channels], float64."""
    network, found = network_of(arm, decay=0.0), list[Tensor]()
    trained(network, arm, [Spy(lambda _: found.append(statistics(network).double()))])
    return torch.stack(found)


def same(a: Network, b: Network) -> bool:
    """Whether two networks have the same bits of weights and moving averages."""
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
