"""The loop, the schedule, the masks and the evaluation, beside independent oracles and on the real code."""

import math
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from bnstudy.engine.data import batch_indices
from bnstudy.engine.network import Network, build
from bnstudy.engine.training import accumulators, dropout_mask, evaluate, learning_rate, update, updates
from bnstudy.params import LearningRate
from bnstudy.settings import Setting
from conftest import PARAMS, ROOT, run, setting_of

CPU = torch.device("cpu")
RANDOM = np.random.default_rng(0)
IMAGES_NHW = torch.from_numpy(RANDOM.integers(0, 256, (96, 28, 28), dtype=np.uint8))
LABELS_N = torch.from_numpy(RANDOM.integers(0, 10, 96))
SHORT = setting_of()


def network(name: str = "batch_norm", seed: int = 0) -> Network:
    return build(setting_of(name).network, seed, torch.device("cpu"))


def losses(net: Network, setting: Setting = SHORT, seed: int = 0) -> list[float]:
    return [loss.item() for _, loss, _ in updates(net, accumulators(net, setting), IMAGES_NHW, LABELS_N, setting, seed)]


def test_staircase_of_the_note() -> None:
    """Updates 0 to 999 at 0.1, update 1000 the first at 0.095, update 9999 at 0.1 * 0.95^9."""
    rates = [learning_rate(PARAMS.train.learning_rate, step) for step in (0, 999, 1000, 1999, 2000, 9999)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.095, 0.095, 0.09025, 0.063024941], rtol=1e-8)


@given(
    st.floats(1e-4, 10),
    st.floats(0.01, 1),
    st.integers(1, 500),
    st.booleans(),
    st.integers(0, 3000),
    st.integers(0, 3000),
)
def test_schedule_by_repeated_multiplication(
    initial: float, decay_rate: float, decay_steps: int, staircase: bool, ramp_steps: int, step: int
) -> None:
    """And, on the ramp, by repeated addition: update `ramp_steps` is the first at the whole rate."""
    schedule = LearningRate(
        initial=initial, decay_rate=decay_rate, decay_steps=decay_steps, staircase=staircase, ramp_steps=ramp_steps
    )
    expected = initial * sum([1 / ramp_steps] * (step + 1)) if step + 1 < ramp_steps else initial
    for _ in range(step // decay_steps):
        expected *= decay_rate
    if not staircase:
        expected *= math.exp(math.log(decay_rate) * (step % decay_steps) / decay_steps)
    assert math.isclose(learning_rate(schedule, step), expected, rel_tol=1e-9, abs_tol=1e-300)


def test_adagrad_by_hand() -> None:
    """Accumulator += g², weight -= rate * g / sqrt(accumulator), from 0.1 and without epsilon."""
    setting = SHORT.model_copy(
        update={"keep_prob": 1.0, "learning_rate": SHORT.learning_rate.model_copy(update={"decay_steps": 2})}
    )
    ours, ref = network().double(), network().double()
    losses(ours, setting)
    squares = [torch.full_like(p, 0.1) for p in ref.parameters()]
    for step in range(setting.steps):
        rows = batch_indices(0, step, 96, 16)
        ref.train()
        ref.zero_grad()
        F.cross_entropy(ref(IMAGES_NHW[rows]), LABELS_N[rows]).backward()
        with torch.no_grad():
            for p, sum_of_squares in zip(ref.parameters(), squares, strict=True):
                assert p.grad is not None
                sum_of_squares += p.grad**2
                p -= 0.1 * 0.95 ** (step // 2) * p.grad / sum_of_squares.sqrt()
    for (name, p), q in zip(ours.named_parameters(), ref.parameters(), strict=True):
        np.testing.assert_allclose(p.detach(), q.detach(), rtol=1e-9, atol=1e-12, err_msg=name)


def test_an_update_is_that_of_torch_optim() -> None:
    """The same bits as the class whose function it calls, over three steps of a rate that changes."""
    ours, ref = network(), network()
    sums, optimizer = (
        accumulators(ours, SHORT),
        torch.optim.Adagrad(ref.parameters(), initial_accumulator_value=SHORT.initial_accumulator, eps=0.0, fused=True),
    )
    for step, rate in enumerate([0.1, 0.05, 0.01]):
        for net in (ours, ref):
            net.zero_grad()
            F.cross_entropy(net(IMAGES_NHW[step : step + 8]), LABELS_N[step : step + 8]).backward()
        update(ours, sums, rate)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), ref.parameters(), strict=True))
        assert all(torch.equal(p, optimizer.state[q]["sum"]) for p, q in zip(sums, ref.parameters(), strict=True))


def test_a_training_does_not_import_a_compiler() -> None:
    """It takes a second of each stage; torch.optim's classes do."""
    script = """if True:
        import sys, torch
        from bnstudy import params
        from bnstudy.engine import device, network, training
        from bnstudy.settings import setting
        params = params.load()
        setting = setting(params, "batch_norm", 0.1, 1).at(batch_size=4)
        where = device.prepare(params.runtime.model_copy(update={"device": "cpu"}))
        net = network.build(setting.network, 0, where)
        images, labels = torch.zeros(8, 28, 28, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64)
        next(training.updates(net, training.accumulators(net, setting), images, labels, setting, 0))
        assert "torch._dynamo" not in sys.modules
    """
    run(ROOT, sys.executable, "-c", script, PYTHONPATH=str(ROOT / "src"))


def test_evaluating_between_updates_changes_nothing() -> None:
    calm, watched = network(), network()
    expected = losses(calm)
    seen = []
    for _, loss, rows in updates(watched, accumulators(watched, SHORT), IMAGES_NHW, LABELS_N, SHORT, 0):
        evaluate(watched, IMAGES_NHW[rows], LABELS_N[rows])
        seen.append(loss.item())
    assert seen == expected
    assert all(
        torch.equal(a, b) for a, b in zip(calm.state_dict().values(), watched.state_dict().values(), strict=True)
    )


def test_a_run_is_a_function_of_its_seed() -> None:
    first = losses(network(seed=1), seed=1)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert losses(network(seed=1), seed=1) == first
    assert losses(network(seed=1), seed=2) != first


def test_networks_of_a_seed_see_the_same_images_in_the_same_order() -> None:
    runs = []
    for name in ("batch_norm", "plain"):
        net = network(name)
        batches = updates(net, accumulators(net, SHORT), IMAGES_NHW, LABELS_N, SHORT, 5)
        runs.append([rows.tolist() for _, _, rows in batches])
    assert runs[0] == runs[1] == [batch_indices(5, step, 96, 16).tolist() for step in range(6)]


def test_dropout_mask() -> None:
    """Kept with probability 0.7 and scaled by 1 / 0.7; independent of other masks."""
    mask = dropout_mask(0, 0, 512, 0.7, CPU)
    assert set(mask.unique().tolist()) == {0.0, np.float32(1 / 0.7)}
    kept = (mask > 0).double()
    sigma = math.sqrt(0.7 * 0.3 / mask.numel())
    assert abs(kept.mean().item() - 0.7) < 4 * sigma
    correlations = []
    for seed, step in [(0, 1), (1, 0), (1, 1), (2**30, 0), (0, 2**20)]:
        other = (dropout_mask(seed, step, 512, 0.7, CPU) > 0).double()
        correlations.append(((kept - 0.7) * (other - 0.7)).mean().item() / 0.21)
    assert np.abs(correlations).max() < 4 / math.sqrt(mask.numel())
    assert torch.equal(mask, dropout_mask(0, 0, 512, 0.7, CPU))


def test_evaluation_beside_numpy() -> None:
    net = network()
    losses(net)
    net.eval()
    z = net(IMAGES_NHW).detach().double().numpy()
    labels = LABELS_N.numpy()
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    loss, accuracy = evaluate(net, IMAGES_NHW, LABELS_N)
    assert math.isclose(loss, -log_p[np.arange(96), labels].mean(), rel_tol=1e-6)
    assert accuracy == (z.argmax(1) == labels).mean()


def test_bfloat16_is_near_float32() -> None:
    setting = SHORT.model_copy(update={"precision": "bfloat16"})
    narrow, wide = losses(network(), setting), losses(network())
    assert narrow != wide
    assert narrow[0] == pytest.approx(wide[0], rel=0.02)
    assert all(p.dtype == torch.float32 for p in network().parameters())
