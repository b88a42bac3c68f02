"""docs/advice.md: its recipe is run from the page, and its tables are computed again."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

PAGE = (Path(__file__).resolve().parents[1] / "docs/advice.md").read_text()
RECIPE: dict[str, Any] = {}
exec(re.findall(r"```python\n(.*?)```", PAGE, re.S)[0], RECIPE)  # the page is ours
without_start: Callable[[nn.Module], nn.Module] = RECIPE["without_start"]
precise: Callable[[nn.Module, list[Any]], nn.Module] = RECIPE["precise"]
weigh_next_batch: Callable[..., None] = RECIPE["weigh_next_batch"]


def network(momentum: float | None = 0.1, keep: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(5, momentum=momentum, track_running_stats=keep), nn.BatchNorm1d(4, momentum=momentum)]
    model = nn.Sequential(nn.Conv2d(2, 5, 3), norms[0], nn.Flatten(), nn.Linear(5 * 16, 4), norms[1], nn.ReLU())
    return model.double()


def batches(count: int) -> list[Tensor]:
    """[count] of images [16, 2, 6, 6], each from another distribution, far from mean 0 and variance 1."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 16, 2, 6, 6, generator=generator, dtype=torch.float64)
    return list(0.05 * images + torch.linspace(2, 3, count, dtype=torch.float64).view(-1, 1, 1, 1, 1))


def train(model: nn.Sequential, images: list[Tensor], before: Callable[[], None] = lambda: None) -> list[list[Tensor]]:
    """Feed the batches, changing the weights between them; return each batch norm's mean and variance of each batch."""
    seen: list[list[Tensor]] = [[], []]

    def record(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        values_CN = given[0].transpose(0, 1).flatten(1).detach()
        seen[0 if layer is model[1] else 1].append(torch.stack([values_CN.mean(1), values_CN.var(1)]))

    hooks = [model[at].register_forward_pre_hook(record) for at in (1, 4)]
    model.train()
    for batch in images:
        before()
        with torch.no_grad():
            model(batch)
            for parameter in model.parameters():
                parameter.add_(0.01)
    for hook in hooks:
        hook.remove()
    return seen


def averages(model: nn.Module) -> list[Tensor]:
    return [torch.stack([norm.running_mean, norm.running_var]) for norm in RECIPE["batch_norms"](model)]


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("momentum", "updates"), [(0.1, 1), (0.1, 7), (0.001, 3), (0.3, 40), (1.0, 3), (0.05, 2000)])
def test_without_start_is_the_weighted_mean_of_the_batches(momentum: float, updates: int) -> None:
    model = network(momentum)
    seen = train(model, batches(min(updates, 40)) * max(updates // 40, 1))
    weights = (1 - momentum) ** torch.arange(len(seen[0]) - 1, -1, -1, dtype=torch.float64)
    expected = [torch.einsum("t,tij->ij", weights / weights.sum(), torch.stack(one)) for one in seen]
    close(averages(without_start(model)), expected)


@pytest.mark.parametrize("momentum", [0.1, 0.0, None])
def test_without_updates_or_without_a_start_nothing_changes(momentum: float | None) -> None:
    model = network(momentum)
    close(averages(without_start(model)), averages(model))
    train(model, batches(3))
    if momentum is None or momentum == 0:
        close(averages(without_start(model)), averages(model))


def test_layers_without_averages_are_left_alone() -> None:
    model = network(keep=False)
    train(model, batches(3))
    assert len(averages(without_start(model))) == len(averages(precise(model, batches(2)))) == 1
    plain = nn.Sequential(nn.Flatten(), nn.Linear(72, 2)).double()
    assert torch.equal(without_start(plain)(batches(1)[0]), plain(batches(1)[0]))


def test_precise_is_the_plain_mean_over_the_batches() -> None:
    model = network()
    train(model, batches(7))
    images = batches(5)
    found = precise(model, [(batch, "label") for batch in images])
    with torch.no_grad():
        first = torch.stack([torch.stack([x.mean((0, 2, 3)), x.var((0, 2, 3))]) for x in map(model[0], images)]).mean(0)
    close(averages(found)[:1], [first])
    plain = network(momentum=None)
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.parameters()), plain.parameters())
    plain.train()
    for batch in images:
        plain(batch)
    close(averages(found), averages(plain))


@pytest.mark.parametrize("evaluate", [without_start, lambda model: precise(model, batches(2))])
@pytest.mark.parametrize("training", [True, False])
def test_the_network_stays_as_it_was(evaluate: Callable[[nn.Module], nn.Module], training: bool) -> None:
    model = network()
    train(model, batches(3))
    model.train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copy = evaluate(model)
    assert not any(module.training for module in copy.modules())
    assert all(module.training == training for module in model.modules())
    assert [norm.momentum for norm in RECIPE["batch_norms"](model)] == [0.1, 0.1]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(copy(batches(1)[0]), model.eval()(batches(1)[0]))


def test_single_precision_never_gives_a_negative_variance() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=0.003))  # whose rounding goes down
    for _ in range(50):
        model(torch.full((8, 3), 2.0))
    mean_C, variance_C = averages(without_start(model))[0]
    assert (variance_C >= 0).all()
    torch.testing.assert_close(mean_C, torch.full((3,), 2.0), rtol=1e-4, atol=0)


def test_weigh_next_batch_forgets_the_start_at_once() -> None:
    model = network()
    seen = train(model, batches(10), lambda: weigh_next_batch(model, 0.9))
    close(averages(model), [torch.stack(one).mean(0) for one in seen])  # 1 / t until it is 0.1
    train(model, batches(1), lambda: weigh_next_batch(model, 0.9))
    assert [norm.momentum for norm in RECIPE["batch_norms"](model)] == [pytest.approx(0.1)] * 2


def test_tables() -> None:
    rows = [line.split(" | ") for line in re.findall(r"^\| (.*) \|$", PAGE, re.M)]
    at, epochs = (next(i for i, row in enumerate(rows) if row[0] == head) for head in ("library", "images"))
    for name, decay, _, _, corrected, updates, *_ in rows[at + 2 : epochs]:
        ready = corrected.startswith(("yes", "the first batch"))
        assert updates == ("1" if ready else f"{5 / (1 - float(decay)):,.0f}"), name
    decays = [float(head.removeprefix("decay ")) for head in rows[epochs][2:]]
    for images, batch, *found in rows[epochs + 2 :]:
        sizes = float(images.replace(",", "")), float(batch.replace(",", ""))
        assert found == [f"{float(f'{5 / (1 - d) * sizes[1] / sizes[0]:.2g}'):g}" for d in decays]
    assert (epochs - at, len(rows) - epochs) == (18, 7)
    assert PAGE.count("<!-- figures -->") == PAGE.count("<!-- /figures -->") == 1
