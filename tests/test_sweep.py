"""Short runs: what is recorded, also of a run whose loss is no longer finite."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import sweep
from bnstudy.engine.network import build
from bnstudy.engine.resume import Checkpoint
from bnstudy.engine.rows import SweepRow
from bnstudy.engine.training import at_rate, history
from bnstudy.params import load
from conftest import ROOT, write_params

PARAMS = load(ROOT / "params.yaml")
TRAIN = PARAMS.train.model_copy(update={"steps": 4, "batch_size": 32, "evaluate_every": 4})
CPU = torch.device("cpu")


def checkpoint(name: str) -> Checkpoint:
    return Checkpoint(name, 4, [], CPU, PARAMS.runtime)


def test_the_row_is_the_last_of_the_history(in_prepared: Path) -> None:
    variant = PARAMS.variants["plain_he"]
    train = at_rate(TRAIN, 0.01)
    row = sweep.last_row(variant, train, 3, checkpoint("a"))
    last = history(build(variant, 3, CPU), train, 3, checkpoint("b"))[-1]
    assert row == SweepRow(3, 32, 0.01, 4, 0, last.train_loss, last.validation_accuracy, last.test_accuracy)


def test_divergence_is_an_outcome(in_prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(in_prepared, sweep={"steps": 4, "seeds": [0, 1]}, train={"batch_size": 32}, runtime={"device": "cpu"})
    monkeypatch.setattr(sys, "argv", ["sweep.py", "plain", "--learning-rate", "1e30"])
    sweep.main()
    table = pd.read_csv("metrics/sweep/plain/rate_1e+30.csv")
    assert list(table) == list(SweepRow._fields)
    assert table["diverged"].tolist() == [1, 1]
    assert table["train_loss"].isna().all()
    assert table["test_accuracy"].between(0, 0.2).all()


@pytest.mark.parametrize("rate", ["shared", 0.03])
def test_a_rate_of_its_own(rate: float | str) -> None:
    assert at_rate(TRAIN, rate).learning_rate.initial == (0.1 if isinstance(rate, str) else rate)
    assert at_rate(TRAIN, rate).learning_rate.decay_steps == TRAIN.learning_rate.decay_steps
