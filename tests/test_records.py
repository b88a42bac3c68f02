"""Each kind of record is read as it was written; one that is not what the parameters and its setting ask for is not."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bnstudy import BadInput
from bnstudy.params import Params, load
from bnstudy.records import (
    joined,
    read_averages,
    read_averages_histories,
    read_batch,
    read_histories,
    read_mechanism,
    read_refine,
    read_sweep,
    read_tolerance,
)
from conftest import write_params
from test_evaluate import STUDY, make, rows

# By the folder of `metrics/` that each reads.
READERS: dict[str, Callable[[Params], pd.DataFrame]] = {
    "sweep": lambda params: read_sweep(params.sweep),
    "refine": lambda params: joined(read_refine(params.refine), "finalist"),
    "tolerance": lambda params: read_tolerance(params.tolerance, params.study),
    "batch": lambda params: read_batch(params.batch),
    "train": lambda params: read_histories(params.study),
    "averages": lambda params: read_averages(params.averages, params.study),
    "averages/history": lambda params: read_averages_histories(params.study),
    "mechanism": lambda params: read_mechanism(params.mechanism),
}
FEW: dict[str, dict[str, Any]] = STUDY | {
    "study": {"seeds": [10, 11]},
    "long": {"steps": 150, "arm_seeds": [10], "averages_seeds": [10]},
}
Spoil = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all records; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_params(folder, **FEW)
        make()
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to change at will, and the working folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "name", "keys"),
    [
        ("sweep", "plain", {"network": "plain"}),
        ("refine", "hidden/1.0", {"finalist": "hidden"}),
        ("tolerance", "with/10", {"contestant": "with", "seed": 10}),
        ("batch", "with/64", {"contestant": "with", "batch_size": 64}),
        ("train", "he/10", {"arm": "he", "seed": 10}),
        ("averages", "10", {"seed": 10}),
        ("averages/history", "10", {"seed": 10}),
        ("mechanism", "10", {"seed": 10}),
    ],
)
def test_each_file_is_read_to_the_last_bit_under_its_name(
    kind: str, name: str, keys: dict[str, Any], made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    together = READERS[kind](load())
    found = together.merge(pd.DataFrame([keys]))  # the rows that hold these values
    written = pd.DataFrame(rows(f"metrics/{kind}/{name}.csv"))
    for column in written:
        is_text = column in ("statistics", "where", "what")
        cells = [cell if is_text else float(cell or "nan") for cell in written[column]]
        np.testing.assert_array_equal(found[column], cells)
    files = Path("metrics", kind).glob("*.csv" if "/" not in name else "*/*.csv")
    assert together.groupby(list(keys)).ngroups == len(list(files))


def put(column: str, value: object, row: int = 0) -> Spoil:
    """One cell becomes another."""

    def spoil(table: pd.DataFrame) -> pd.DataFrame:
        cells = list(table[column])
        cells[row] = value
        return table.assign(**{column: cells})

    return spoil


def change(name: str, spoil: Spoil) -> Path:
    """Write a record of the working folder anew, its other cells as they are."""
    path = Path("metrics", f"{name}.csv")
    spoil(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)
    return path


def first_gone(table: pd.DataFrame) -> pd.DataFrame:
    return table[1:]


def last_gone(table: pd.DataFrame) -> pd.DataFrame:
    return table[:-1]


def last_twice(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table[-1:]])


def turned(table: pd.DataFrame) -> pd.DataFrame:
    return table[::-1]


SWEEP = "is not one run at each of the rates [0.1, 1.0] from each of the seeds [100, 101]"
TOLERANCE = "is not one run at each of the rates [0.1, 1.0] from each of the seeds [10]"
STEPS = "does not hold the evaluations of settings/{}.json; "
TESTED = "the test split was not evaluated where settings/{}.json says"
STATISTICS = "does not hold the evaluations of settings/averages/10.json for all statistics"
POINTS = "does not hold 3 values of the start's weight for every mixture"


@pytest.mark.parametrize(
    ("kind", "name", "spoil", "fault"),
    [
        ("sweep", "plain", put("learning_rate", 0.2), SWEEP),
        ("sweep", "plain", put("seed", 102), SWEEP),
        ("sweep", "plain", last_gone, SWEEP),
        ("sweep", "plain", last_twice, SWEEP),
        ("tolerance", "with/10", put("learning_rate", 0.2), TOLERANCE),
        ("tolerance", "with/10", put("seed", 11), TOLERANCE),
        ("refine", "hidden/1.0", last_gone, "is not of the seeds [100, 101, 102]; "),
        ("refine", "hidden/1.0", put("seed", 103, row=-1), "is not of the seeds [100, 101, 102]; "),
        ("batch", "with/64", first_gone, "is not of the seeds [100, 101, 10, 11]; "),
        ("batch", "with/64", last_gone, "is not of the seeds [100, 101, 10, 11]; "),
        ("batch", "with/64", turned, "is not of the seeds [100, 101, 10, 11]; "),
        ("train", "he/10", last_gone, STEPS.format("train/he/10")),
        ("train", "he/10", put("step", 6), STEPS.format("train/he/10")),
        ("train", "he/10", last_twice, STEPS.format("train/he/10")),
        ("train", "he/10", put("test_accuracy", "", row=-1), TESTED.format("train/he/10")),
        ("averages/history", "10", last_gone, STEPS.format("averages/10")),
        ("averages/history", "10", put("test_accuracy", 0.5), TESTED.format("averages/10")),
        ("averages", "10", first_gone, STATISTICS),
        ("averages", "10", put("step", 6), STATISTICS),
        ("averages", "10", put("decay", 0.5), STATISTICS),
        ("averages", "10", put("statistics", "precise"), STATISTICS),
        ("averages", "10", lambda table: pd.concat([table, table[:1].assign(decay=0.5)]), STATISTICS),
        ("mechanism", "10", lambda table: table.assign(seed=11), "is not of the seeds [10]; "),
        ("mechanism", "10", last_gone, POINTS),
        ("mechanism", "10", last_twice, POINTS),
        ("train", "he/10", lambda table: table.drop(columns="batch_loss"), "does not have the columns step, learning_"),
        ("train", "he/10", lambda table: table[table.columns[::-1]], "does not have the columns step, learning_"),
        ("train", "he/10", lambda table: table[:0], "does not have the columns step, learning_"),
        ("train", "he/10", put("step", 5.5), "step is not always a whole number"),
        ("train", "he/10", put("step", 10**30), "step is not always a whole number"),
        ("train", "he/10", put("batch_loss", "low"), "batch_loss is not always a number"),
        ("train", "he/10", put("validation_accuracy", 1.01), "validation_accuracy is not always in [0, 1]"),
        ("averages", "10", put("accuracy", -0.01), "accuracy is not always in [0, 1]"),
    ],
)
def test_a_record_of_something_else_is_refused_by_its_name(
    kind: str, name: str, spoil: Spoil, fault: str, copy: Path
) -> None:
    path = change(f"{kind}/{name}", spoil)
    with pytest.raises(BadInput) as error:
        READERS[kind](load())
    assert str(error.value).startswith(f"{path}: {fault}")


def test_none_or_all_of_the_images_may_be_recognized(copy: Path) -> None:
    for seed, accuracy in ((10, 0), (11, 1)):
        change(f"averages/{seed}", put("accuracy", accuracy))
    assert {0, 1} < set(READERS["averages"](load())["accuracy"])
