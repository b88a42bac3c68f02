"""The loop, its learning rate, optimizers, batches and masks, and evaluation, beside independent oracles."""

import math
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from bnstudy.engine.data import batch_indices
from bnstudy.engine.training import dropout_mask, evaluate, learning_rate
from bnstudy.params import LearningRate
from bnstudy.params import Optimizer as OptimizerParams
from conftest import PARAMS, ROOT, arm_of, run
from tiny import CPU, TRAIN, Spy, network_of, same, trained

ADAGRAD, SGD = PARAMS.train.optimizer, OptimizerParams(name="sgd", momentum=0.9)
ARM = arm_of()
IMAGES_NHW, LABELS_N = TRAIN


def losses(**changes: object) -> list[float]:
    return [update.loss.item() for update in trained(network_of(ARM), ARM.model_copy(update=changes))]


def test_staircase_of_the_note() -> None:
    """Updates 0 to 999 at 0.1, update 1000 the first at 0.095, update 9999 at 0.1 * 0.95^9."""
    rates = [learning_rate(PARAMS.train.learning_rate, step) for step in (0, 999, 1000, 1999, 2000, 9999)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.095, 0.095, 0.09025, 0.063024941], rtol=1e-8)


STEPS = st.integers(0, 3000)


@given(st.floats(1e-4, 10), st.floats(0.01, 1), st.integers(1, 500), st.booleans(), STEPS, STEPS)
def test_rates_by_repeated_multiplication(
    initial: float, decay_rate: float, decay_steps: int, staircase: bool, ramp: int, step: int
) -> None:
    """And, on the ramp, by repeated addition: update `ramp_steps` is the first at the whole rate."""
    schedule = LearningRate(
        initial=initial, decay_rate=decay_rate, decay_steps=decay_steps, staircase=staircase, ramp_steps=ramp or None
    )
    expected = initial * sum([1 / ramp] * (step + 1)) if step + 1 < ramp else initial
    for _ in range(step // decay_steps):
        expected *= decay_rate
    if not staircase:
        expected *= math.exp(math.log(decay_rate) * (step % decay_steps) / decay_steps)
    assert math.isclose(learning_rate(schedule, step), expected, rel_tol=1e-9, abs_tol=1e-300)


@pytest.mark.parametrize("params", [ADAGRAD, SGD], ids=["adagrad", "sgd"])
def test_the_loop_by_hand(params: OptimizerParams) -> None:
    """In float64: Adagrad's sum += g², weight -= rate * g / sqrt(sum), from 0.1 and without epsilon; or momentum's
    velocity = 0.9 * velocity + g, weight -= rate * velocity. Batches and a rate that halves as the parameters say.
    """
    rates = ARM.learning_rate.model_copy(update={"initial": 0.01, "decay_steps": 2, "decay_rate": 0.5})
    arm = ARM.model_copy(update={"optimizer": params, "learning_rate": rates, "keep_prob": 1.0})
    ours, ref = network_of(arm).double(), network_of(arm).double()
    updates = trained(ours, arm)
    memory = [torch.full_like(p, 0.1 if params == ADAGRAD else 0.0) for p in ref.parameters()]
    for step, update in enumerate(updates):
        rate, rows = 0.01 * 0.5 ** (step // 2), batch_indices(0, step, 96, 16)
        ref.zero_grad()
        loss = F.cross_entropy(ref.train()(IMAGES_NHW[rows]), LABELS_N[rows])
        loss.backward()
        assert (update.step, update.learning_rate, update.batch.tolist()) == (step + 1, rate, rows.tolist())
        assert update.loss.item() == pytest.approx(loss.item(), rel=1e-9)
        with torch.no_grad():
            for p, m in zip(ref.parameters(), memory, strict=True):
                assert p.grad is not None
                m.copy_(m + p.grad**2 if params == ADAGRAD else 0.9 * m + p.grad)
                p -= rate * (p.grad / m.sqrt() if params == ADAGRAD else m)
    for (name, p), q in zip(ours.named_parameters(), ref.parameters(), strict=True):
        np.testing.assert_allclose(p.detach(), q.detach(), rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_training_does_not_import_a_compiler() -> None:
    """It takes a second of each stage; torch.optim's classes do."""
    script = """if True:
        import sys
        from tiny import network_of, trained
        from conftest import arm_of, PARAMS
        from bnstudy.engine import device
        device.prepare(PARAMS.runtime.model_copy(update={"device": "cpu"}))
        trained(network_of(arm_of()), arm_of(steps=1))
        assert "torch._dynamo" not in sys.modules
    """
    run(ROOT, sys.executable, "-c", script, PYTHONPATH="src:tests:tests/engine")


def test_a_training_is_a_function_of_its_seed_however_it_is_watched() -> None:
    calm, watched = network_of(ARM), network_of(ARM)
    expected = [update.loss for update in trained(calm, ARM, seed=1)]
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    updates = trained(watched, ARM, [Spy(lambda _: evaluate(watched, TRAIN))], seed=1)
    assert [update.loss for update in updates] == expected
    assert same(calm, watched)
    assert [update.loss for update in trained(network_of(ARM), ARM, seed=2)] != expected


def test_dropout_mask() -> None:
    """Kept with probability 0.7 and scaled by 1 / 0.7; independent of other masks."""
    mask = dropout_mask(0, 0, 512, 0.7, CPU)
    assert set(mask.unique().tolist()) == {0.0, np.float32(1 / 0.7)}
    kept = (mask > 0).double()
    assert abs(kept.mean().item() - 0.7) < 4 * math.sqrt(0.7 * 0.3 / mask.numel())
    correlations = []
    for seed, step in [(0, 1), (1, 0), (1, 1), (2**30, 0), (0, 2**20)]:
        other = (dropout_mask(seed, step, 512, 0.7, CPU) > 0).double()
        correlations.append(((kept - 0.7) * (other - 0.7)).mean().item() / 0.21)
    assert np.abs(correlations).max() < 4 / math.sqrt(mask.numel())
    assert torch.equal(mask, dropout_mask(0, 0, 512, 0.7, CPU))


def test_dropout_is_before_the_last_layer_in_training_alone() -> None:
    network, arm = network_of(ARM), ARM.model_copy(update={"steps": 2})
    masked = [update.loss.item() for update in trained(network, arm)]
    assert masked[0] != pytest.approx(losses(keep_prob=1.0)[0], rel=1e-4)
    rows, mask = batch_indices(0, 0, 96, 16), dropout_mask(0, 0, 16, 0.7, CPU)
    start = network_of(ARM)
    hidden = start.hidden_input(IMAGES_NHW[rows])
    x = torch.cat([hidden.clamp(min=0), (-hidden).clamp(min=0)], 1) * mask
    logits = start.norm4(x @ start.logits.weight.T)
    assert masked[0] == pytest.approx(F.cross_entropy(logits, LABELS_N[rows]).item(), rel=1e-5)


def test_evaluation_beside_numpy() -> None:
    trained(network := network_of(ARM), ARM)
    z = network.eval()(IMAGES_NHW).detach().double().numpy()
    labels = LABELS_N.numpy()
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    loss, accuracy = evaluate(network.train(), TRAIN)
    assert math.isclose(loss, -log_p[np.arange(96), labels].mean(), rel_tol=1e-6)
    assert accuracy == (z.argmax(1) == labels).mean()


def test_bfloat16_is_near_float32() -> None:
    narrow, wide = losses(precision="bfloat16"), losses()
    assert narrow != wide
    assert narrow[0] == pytest.approx(wide[0], rel=0.02)
