"""The fast path of a CPU beside the plain network, and its loops beside PyTorch's operations, bit for bit."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bnstudy.engine import fast_cpu
from bnstudy.engine.fast_cpu import Cache, crelu_pool, pool, pooled, unpool
from bnstudy.engine.network import Network, Norm, initialize
from bnstudy.params import Design
from conftest import PARAMS, ROOT, run

BATCH = PARAMS.models["batch_norm"]
LAYER = {"normalization": "layer", "initializer": "he", "normalize_logits": False, "epsilon": 0.001}
IMAGES_NHW = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 28, 28), dtype=np.uint8))


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "design",
    [BATCH, PARAMS.models["plain"], Design.model_validate(LAYER)],
    ids=["batch", "none", "layer"],
)
def test_the_fast_path_is_the_plain_one(
    design: Design, training: bool, capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs, moving averages and all gradients in float64, as one forward and backward pass leave them."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    random = torch.Generator().manual_seed(1)
    upstream = torch.randn(8, 1024, generator=random, dtype=torch.float64)
    results = []
    for fast in (True, False):
        network = Network(design)
        initialize(network, design, 0)
        for number, tensor in enumerate([*network.parameters(), *network.buffers()]):
            if tensor.ndim == 1:  # biases and averages, else 0 and 1
                tensor.data.uniform_(0.1, 0.9, generator=torch.Generator().manual_seed(number))
        network = network.double().train(training)
        with monkeypatch.context() as patch:
            if not fast:
                patch.setattr(fast_cpu, "hidden_input", lambda *_: None)
            y = network.hidden_input(IMAGES_NHW)
        tensors = [y.detach(), *(buffer.clone() for buffer in network.buffers())]
        if training:
            (y * upstream).sum().backward()
            gradient = network.fc1.weight.grad  # of its weight's layout, so that an update is fast
            assert gradient is not None
            assert gradient.is_contiguous(memory_format=torch.channels_last)
            tensors += [weight.grad for weight in network.parameters() if weight.grad is not None]
        results.append(tensors)
    assert len(results[0]) == len(results[1])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)


def plain_crelu_pool(y: Tensor) -> Tensor:
    return torch.nn.functional.max_pool2d(torch.cat([y, -y], 1).relu(), 2)


@pytest.mark.parametrize("shape", [(3, 4, 6, 5), (2, 28, 28, 16)])  # of short loops and of whole vectors
def test_the_compiled_loops_are_pytorchs_operations(shape: tuple[int, ...]) -> None:
    """The bits of maxima, places and gradients, beside pooling with indices, addcmul and scatter-add; ties and NaN."""
    (n, h, w, c), random = shape, torch.Generator().manual_seed(5)
    x = torch.randn(*shape, generator=random).mul(2).round().div(2)
    x.view(-1)[::97], x.view(-1)[::101] = torch.nan, torch.inf
    mean, factor, constant, scale = torch.randn(4, c, generator=random)
    pixels = x.permute(0, 3, 1, 2)
    high, high_at = torch.nn.functional.max_pool2d(pixels, 2, return_indices=True)
    centred = mean - x
    low, low_at = torch.nn.functional.max_pool2d(centred.permute(0, 3, 1, 2), 2, return_indices=True)

    y, places = pooled(x, mean, centre=True)
    both = torch.cat([high - mean.view(-1, 1, 1), low], 1).permute(0, 2, 3, 1)
    torch.testing.assert_close(y, both, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(x, centred, rtol=0, atol=0, equal_nan=True)
    row, column = torch.meshgrid(torch.arange(0, h, 2), torch.arange(0, w, 2), indexing="ij")
    for place, at in ((places & 3, high_at), (places >> 2, low_at)):
        found = (row[..., None] + place // 2) * w + column[..., None] + place % 2
        assert torch.equal(found, at.permute(0, 2, 3, 1))

    g = torch.randn(y.shape, generator=random)
    expected = torch.addcmul(constant, x, factor).view(n, h * w, c)
    for sign, at, values in ((1, high_at, g[..., :c]), (-1, low_at, g[..., c:])):
        expected.scatter_add_(1, at.permute(0, 2, 3, 1).reshape(n, -1, c), (values * (sign * scale)).reshape(n, -1, c))
    unpool(*(t.numpy() for t in (x, factor, constant, g, scale, places)))
    torch.testing.assert_close(x.view(n, h * w, c), expected, rtol=0, atol=0, equal_nan=True)


def test_the_compiled_loops_leave_pytorchs_threads_alone() -> None:
    """The order of its sums, and so their bits, depend on them. In a process of its own, where threads start anew."""
    script = """if True:
        import torch
        from bnstudy.engine import device, fast_cpu
        from conftest import PARAMS
        device.prepare(PARAMS.runtime.model_copy(update={"device": "cpu", "threads": 1}))
        x, results = torch.randn(64, 8, 8, 4), []
        for threads in (1, 64):
            fast_cpu.use_threads(threads)
            results.append(fast_cpu.pooled(x, x.mean((0, 1, 2)))[0])
        assert torch.equal(*results)
        print(torch.get_num_threads())
    """
    assert run(ROOT, sys.executable, "-c", script, PYTHONPATH="src:tests").stdout == "1\n"


def test_evaluation_normalizes_the_maxima_alone() -> None:
    """The bits of normalizing all pixels first."""
    random = torch.Generator().manual_seed(6)
    norm = Norm(16, BATCH).eval()
    norm.moving_mean.normal_(generator=random)
    norm.moving_variance.uniform_(0.01, 3, generator=random)
    norm.bias.data.normal_(generator=random)
    x = torch.randn(5, 28, 28, 16, generator=random).permute(0, 3, 1, 2)
    with torch.no_grad():
        assert torch.equal(crelu_pool(norm, x), plain_crelu_pool(norm(x)))
        assert torch.equal(crelu_pool(torch.nn.Identity().eval(), x), plain_crelu_pool(x))


def test_what_was_written_over_is_not_read_again() -> None:
    """Autograd refuses a second backward pass, which would see the first one's remains."""
    y = crelu_pool(Norm(3, BATCH), torch.randn(2, 3, 4, 4, requires_grad=True) * 1)
    y.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_batch_variance_is_right_to_float32() -> None:
    """Over as many values as a training batch has in conv1; PyTorch's own channels-last kernel is off by 1e-4."""
    x = torch.rand(1024, 28, 28, 16, generator=torch.Generator().manual_seed(3)).permute(0, 3, 1, 2) + 1
    expected = x.double().var((0, 2, 3))
    norm = Norm(16, BATCH.model_copy(update={"decay": 0.0}))
    crelu_pool(norm, x)
    np.testing.assert_allclose(norm.moving_variance.detach(), expected, rtol=3e-6)


def test_a_damaged_cache_of_compiled_loops_is_compiled_again(tmp_path: Path) -> None:
    """Numba's own cache ends in a traceback there. With a loop that compiles in less time."""
    assert isinstance(pool._cache, Cache)
    assert isinstance(unpool._cache, Cache)
    cache, script = tmp_path / "cache", tmp_path / "loop.py"
    loop = "@fast_cpu.kept\n@fast_cpu.njit\ndef twice(x):\n    return 2 * x\nprint(twice(21))\n"
    script.write_text(f"from bnstudy.engine import fast_cpu\n{loop}")

    def call() -> str:
        return run(tmp_path, sys.executable, str(script), PYTHONPATH=f"{ROOT}/src", NUMBA_CACHE_DIR=str(cache)).stdout

    cache.write_text("a file")  # no place to write
    assert call() == "42\n"
    cache.unlink()
    assert call() == "42\n"
    for kind, content in (("*.nbc", None), ("*.nbi", b"")):
        (damaged,) = cache.rglob(kind)
        damaged.write_bytes(damaged.read_bytes()[:100] if content is None else content)
        assert call() == "42\n"
