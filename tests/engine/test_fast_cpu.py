"""The fast path of a CPU beside the plain network, and its loops beside PyTorch's operations, bit for bit."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bnstudy.engine import fast_cpu
from bnstudy.engine.fast_cpu import Cache, crelu_pool, pool, pooled, product, unpool
from bnstudy.engine.network import Network, Norm, initialize
from bnstudy.settings import Variant
from conftest import ROOT, setting_of

BATCH = setting_of().network
LAYER = {"normalization": "layer", "initializer": "he", "normalize_logits": False, "epsilon": 0.001}
IMAGES_NHW = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 28, 28), dtype=np.uint8))


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "variant",
    [BATCH, setting_of("plain").network, Variant.model_validate(LAYER)],
    ids=["batch", "none", "layer"],
)
def test_the_fast_path_is_the_plain_one(
    variant: Variant, training: bool, capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs, moving averages and all gradients in float64, as one forward and backward pass leave them."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    random = torch.Generator().manual_seed(1)
    upstream = torch.randn(8, 1024, generator=random, dtype=torch.float64)
    results = []
    for fast in (True, False):
        network = Network(variant)
        initialize(network, variant, 0)
        network = network.double().train(training)
        with monkeypatch.context() as patch:
            if not fast:
                patch.setattr(fast_cpu, "hidden_input", lambda *_: None)
            y = network.hidden_input(IMAGES_NHW)
        tensors = [y.detach(), *(buffer.clone() for buffer in network.buffers())]
        if training:
            (y * upstream).sum().backward()
            tensors += [weight.grad for weight in network.parameters() if weight.grad is not None]
        results.append(tensors)
    assert len(results[0]) == len(results[1])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)


def plain_crelu_pool(y: Tensor) -> Tensor:
    return torch.nn.functional.max_pool2d(torch.cat([y, -y], 1).relu(), 2)


@pytest.mark.parametrize("normalized", [True, False])
def test_crelu_and_pooling_in_one_are_those_one_after_the_other(normalized: bool) -> None:
    """Values, averages and all gradients, beside autograd's; a third of the pixels are 0, so that maxima are tied."""
    random = torch.Generator().manual_seed(2)
    x = torch.randn(6, 3, 4, 8, generator=random, dtype=torch.float64)
    x = (x * (x.abs() > 0.4)).contiguous(memory_format=torch.channels_last)
    upstream = torch.randn(6, 6, 2, 4, generator=random, dtype=torch.float64)
    results = []
    for in_one in (True, False):
        norm = Norm(3, BATCH).double()
        norm.bias.data = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
        x_ = x.clone().requires_grad_()
        layer = norm if normalized else torch.nn.Identity()
        y = crelu_pool(layer, x_ * 1) if in_one else plain_crelu_pool(layer(x_))  # * 1: x_ stays
        (y * upstream).sum().backward()
        gradients = [x_.grad, norm.bias.grad] if normalized else [x_.grad]
        results.append([y.detach(), norm.moving_mean, norm.moving_variance, *gradients])
    for ours, theirs in zip(*results, strict=True):
        assert ours is not None
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


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
    code = """
import torch
from bnstudy.engine import device
from bnstudy.engine import fast_cpu
from bnstudy import params
runtime = params.load().runtime.model_copy(update={"device": "cpu", "threads": 1})
device.prepare(runtime)
x, results = torch.randn(64, 8, 8, 4), []
for threads in (1, 64):
    fast_cpu.use_threads(threads)
    results.append(fast_cpu.pooled(x, x.mean((0, 1, 2)))[0])
assert torch.equal(*results)
print(torch.get_num_threads())
"""
    environ = os.environ | {"PYTHONPATH": "src"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"


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


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_the_product_of_the_hidden_layer(capability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum over channels and pixels, however this CPU computes it fastest; and its gradients."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    random = torch.Generator().manual_seed(4)
    shapes = [(5, 3, 2, 2), (7, 3, 2, 2), (7,)]
    x, weight, bias = (torch.randn(*shape, generator=random, dtype=torch.float64) for shape in shapes)
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    upstream = torch.randn(5, 7, generator=random, dtype=torch.float64)
    y = product(x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_())
    gradients = torch.autograd.grad(y, [x, weight, bias], upstream)
    a, b = x.detach().numpy(), weight.detach().numpy()
    np.testing.assert_allclose(y.detach(), np.einsum("nchw,kchw->nk", a, b) + bias.detach().numpy(), rtol=1e-12)
    expected = [np.einsum("nk,kchw->nchw", upstream, b), np.einsum("nk,nchw->kchw", upstream, a), upstream.sum(0)]
    for gradient, other in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-12, atol=1e-14)
    assert gradients[1].is_contiguous(memory_format=torch.channels_last)  # as the weight, so that Adagrad is fast


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
    script.write_text(
        "import numba\n"
        "from bnstudy.engine.fast_cpu import kept\n"
        "@kept\n"
        "@numba.njit\n"
        "def twice(x):\n"
        "    return 2 * x\n"
        "print(twice(21))\n"
    )
    environ = os.environ | {"PYTHONPATH": str(ROOT / "src"), "NUMBA_CACHE_DIR": str(cache)}

    def call() -> str:
        done = subprocess.run([sys.executable, script], env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    cache.write_text("a file")  # no place to write
    assert call() == "42\n"
    cache.unlink()
    assert call() == "42\n"
    for kind, content in (("*.nbc", None), ("*.nbi", b""), ("*.nbc", os.urandom(500))):
        (damaged,) = cache.rglob(kind)
        damaged.write_bytes(damaged.read_bytes()[:100] if content is None else content)
        assert call() == "42\n"
