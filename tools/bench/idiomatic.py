"""The network of `batch_norm` as PyTorch's users write it: torchvision's MNIST, a DataLoader, modules, a plain loop."""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

import worker


class CReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.relu(x), F.relu(-x)], dim=1)


class Network(nn.Module):
    """Pixels in [0, 1], float [N, 1, 28, 28] -> logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 5, padding=2, bias=False)
        self.norm1 = nn.BatchNorm2d(16, eps=1e-3, momentum=0.05)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2, bias=False)
        self.norm2 = nn.BatchNorm2d(32, eps=1e-3, momentum=0.05)
        self.fc1 = nn.Linear(64 * 7 * 7, 1024, bias=False)
        self.norm3 = nn.BatchNorm1d(1024, eps=1e-3, momentum=0.05)
        self.dropout = nn.Dropout(0.3)
        self.logits = nn.Linear(2048, 10, bias=False)
        self.norm4 = nn.BatchNorm1d(10, eps=1e-3, momentum=0.05)
        self.crelu = CReLU()
        self.pool = nn.MaxPool2d(2)
        for norm in (self.norm1, self.norm2, self.norm3, self.norm4):
            norm.weight.requires_grad_(False)  # no gain: it stays 1
        for layer in (self.conv1, self.conv2, self.fc1, self.logits):
            nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.crelu(self.norm1(self.conv1(x))))
        x = self.pool(self.crelu(self.norm2(self.conv2(x))))
        x = self.crelu(self.norm3(self.fc1(x.flatten(1))))
        return self.norm4(self.logits(self.dropout(x)))  # type: ignore[no-any-return]


def train(model: Network, loader: Iterable[tuple[Tensor, Tensor]], device: str) -> Iterator[Tensor]:
    """Epoch after epoch; yields each update's loss."""
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1, initial_accumulator_value=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1000, gamma=0.95)
    model.train()
    while True:
        for images, labels in loader:
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            yield loss.detach()


@torch.no_grad()
def test(model: Network, loader: Iterable[tuple[Tensor, Tensor]], device: str) -> float:
    """Accuracy, a fraction."""
    model.eval()
    correct, total = 0, 0
    for images, labels in loader:
        correct += int((model(images.to(device)).argmax(1) == labels.to(device)).sum())
        total += len(labels)
    return correct / total


def main() -> None:
    parser = worker.parser(__doc__)
    parser.add_argument("--root", required=True, help="the folder of torchvision's MNIST")
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    device, workers = options.device, options.workers
    torch.manual_seed(0)
    loading = {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": device == "cuda"}
    train_set, test_set = (MNIST(options.root, train=train, transform=ToTensor()) for train in (True, False))
    train_loader = DataLoader(train_set, options.batch_size, shuffle=True, drop_last=True, **loading)
    test_loader = DataLoader(test_set, 1000, **loading)
    model = Network().to(device)
    step_s = worker.timed(train(model, train_loader, device), options)
    accuracy = test(model, test_loader, device)
    evaluation_s = worker.seconds_of(lambda: test(model, test_loader, device), device) / len(test_set)
    worker.report(device, step_s=step_s, accuracy=accuracy, evaluation_s=evaluation_s)


if __name__ == "__main__":
    main()
