"""Short runs: what is recorded, also of a run whose loss is no longer finite."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from bnstudy.checkpoint import Checkpoint
from bnstudy.network import build
from bnstudy.params import load
from bnstudy.sweep import COLUMNS, last_record, sweep_run
from bnstudy.training import at_rate, history

PARAMS = load()
TRAIN = PARAMS.train.model_copy(update={"steps": 4, "batch_size": 32, "evaluate_every": 4})
CPU = torch.device("cpu")


def checkpoint(name: str) -> Checkpoint:
    return Checkpoint(name, [], CPU, PARAMS.runtime)


def test_the_record_is_the_last_row_of_the_history(in_prepared: Path) -> None:
    variant = PARAMS.variants["plain_he"]
    train = at_rate(TRAIN, 0.01)
    record = dict(zip(COLUMNS, last_record(variant, train, 3, CPU, checkpoint("a")), strict=True))
    last = list(history(build(variant, 3, CPU), train, 3, CPU, checkpoint("b")))[-1]
    assert record == {
        "seed": 3,
        "batch_size": 32,
        "learning_rate": 0.01,
        "step": 4,
        "diverged": 0,
        "train_loss": last.train_loss,
        "validation_accuracy": last.validation_accuracy,
        "test_accuracy": last.test_accuracy,
    }


def test_divergence_is_an_outcome(in_prepared: Path) -> None:
    path = in_prepared / "metrics/rate.csv"
    sweep_run(path, PARAMS.variants["plain"], at_rate(TRAIN, 1e30), [0, 1], PARAMS.runtime)
    table = pd.read_csv(path)
    assert list(table) == list(COLUMNS)
    assert table["diverged"].tolist() == [1, 1]
    assert table["train_loss"].isna().all()
    assert table["test_accuracy"].between(0, 0.2).all()


@pytest.mark.parametrize("rate", [None, 0.03])
def test_a_rate_of_its_own(rate: float | None) -> None:
    assert at_rate(TRAIN, rate).learning_rate.initial == (0.1 if rate is None else rate)
    assert at_rate(TRAIN, rate).learning_rate.decay_steps == TRAIN.learning_rate.decay_steps
