"""What the runs left is read as it was written; what is missing, damaged or of something else is refused in a line."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from bnstudy import BadInput
from bnstudy.study.params import Study
from bnstudy.study.records import read_environments, read_results
from made_up import STUDY, averages, curves, held, mechanism, sweep, write

SEEDS = [22, 23]
PARAMS = STUDY.model_copy(update={"seeds": SEEDS, "long": STUDY.long.model_copy(update={"seeds": [22]})})
RUNS = Path("study/runs")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of two seeds of runs."""
    root = tmp_path_factory.mktemp("runs")
    results = type(held())(curves(PARAMS), averages(PARAMS), sweep(PARAMS), mechanism(PARAMS), PARAMS)
    write(results, root)
    return root


@pytest.fixture
def folder(written: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(written)
    return written / RUNS


def with_(**changes: object) -> Study:
    return PARAMS.model_copy(update=changes)


def test_what_was_written_is_read(folder: Path) -> None:
    found = read_results(PARAMS)
    arms = {*PARAMS.arms, *PARAMS.averages, *PARAMS.long.arms}
    assert set(found.curves["arm"].unique()) == arms
    assert [run.shape[0] for run in found.runs("own_rate").values()] == [
        len(pd.read_csv(folder / "train/own_rate/22.csv"))
    ] * 2
    assert list(found.runs("note_plain_long")) == [22]
    assert set(found.sweep["entry"]) == {*PARAMS.sweep}
    assert list(found.mechanism["seed"].unique()) == PARAMS.mechanism.seeds
    gaps = found.gaps("note_batch_norm", 0.99, "start_10")
    assert list(gaps) == SEEDS
    assert gaps[22].index.is_monotonic_increasing
    value = pd.read_csv(folder / "train/own_rate/23.csv", dtype=str)["corrected_accuracy"][7]
    assert found.runs("own_rate")[23]["corrected_accuracy"].iloc[7] == float(value)


def test_the_environment_of_each_run_is_read(folder: Path) -> None:
    found = read_environments(PARAMS)
    assert found["averages/standardized/23"]["processor"] == "A"
    assert {name.split("/")[0] for name in found} == {"sweep", "train", "averages", "long", "mechanism"}
    assert len(found) == len(list(folder.rglob("*.json")))


def test_what_the_parameters_do_not_name_is_not_read(folder: Path) -> None:
    left = folder / "train/removed/22.csv"
    left.parent.mkdir()
    left.write_text("rubbish")
    found = read_results(with_(seeds=[22]))
    assert "removed" not in set(found.curves["arm"])
    assert list(found.runs("note_plain")) == [22]


TRAIN, AVERAGES, SWEEP = "train/own_rate/22.csv", "averages/note_batch_norm/23.csv", "sweep/plain.csv"
Edit = Callable[[pd.DataFrame], pd.DataFrame]


def refused(path: Path, content: bytes | None, said: str) -> None:
    """`path`, with this content in place of its own or without any, is refused in one line that names it."""
    before = path.read_bytes()
    try:
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        with pytest.raises(BadInput, match=re.escape(said)) as raised:
            read_everything()
    finally:
        path.write_bytes(before)
    line = str(raised.value)
    assert line.startswith(f"{path.relative_to(Path.cwd())}: ")
    assert line.endswith("`dvc repro` makes it anew, `make records` brings back the study's")
    assert "\n" not in line


def read_everything() -> None:
    read_results(PARAMS)
    read_environments(PARAMS)


@pytest.mark.parametrize(
    ("name", "edit", "said"),
    [
        (TRAIN, lambda t: t.drop(columns="test_loss"), "does not hold the columns step, learning_rate, train_loss,"),
        (TRAIN, lambda t: t[:0], "and a row"),
        (TRAIN, lambda t: t[:-1], "does not hold evaluations up to update 500"),
        (TRAIN, lambda t: t.drop(3), "evaluations up to update 500"),
        (TRAIN, lambda t: t[::-1], "evaluations up to update 500"),
        (TRAIN, lambda t: t.assign(step="x"), "step is not always a whole number"),
        (TRAIN, lambda t: t.assign(train_loss="x"), "train_loss is not always a number"),
        (TRAIN, lambda t: t.assign(corrected_accuracy=2), "corrected_accuracy is not always in [0, 1]"),
        (TRAIN, lambda t: t.assign(corrected_accuracy=""), "every evaluation by averages less their start"),
        (TRAIN, lambda t: t.assign(test_accuracy=""), "and the last of the test split"),
        ("long/note_plain_long/22.csv", lambda t: t[:-1], "up to update 10000"),
        ("averages/note_batch_norm/23.history.csv", lambda t: t[:-1], "up to update 3000"),
        (AVERAGES, lambda t: t[t["decay"] != "0.99"], "averages of the decays [0.0, 0.5, "),
        (AVERAGES, lambda t: t[(t["statistics"] != "precise") | (t["step"] != "100")], "precise statistics at every"),
        (AVERAGES, lambda t: t[t["step"] != "3000"], "does not hold 3000 updates"),
        (AVERAGES, lambda t: pd.concat([t, t[:1]]), "one row for each kind of statistics"),
        (SWEEP, lambda t: t[t["seed"] != "101"], "from the seeds [100, 101, 102]"),
        (SWEEP, lambda t: t.assign(step=9), "does not hold 150 updates"),
        ("mechanism/22.csv", lambda t: t[:-1], "does not hold 41 weights of the start each"),
    ],
)
def test_a_table_of_something_else_is_refused(folder: Path, name: str, edit: Edit, said: str) -> None:
    path = folder / name
    refused(path, edit(pd.read_csv(path, dtype=str)).to_csv(index=False, lineterminator="\n").encode(), said)


def test_what_is_missing_or_damaged_is_refused(folder: Path) -> None:
    refused(folder / TRAIN, b"", "is not a table (it is empty or ends within a line)")
    refused(folder / TRAIN, (folder / TRAIN).read_bytes()[:-3], "is not a table (it is empty or ends within a line)")
    refused(folder / TRAIN, b"\xff\n", "is not a table")
    refused(folder / TRAIN, None, "cannot be read (No such file or directory)")
    refused(folder / "sweep/plain.json", b"{", "is not JSON")
    refused(folder / "sweep/plain.json", b"[]", "does not hold an environment")
    refused(folder / "mechanism/22.json", None, "cannot be read (No such file or directory)")


def test_other_parameters_than_those_of_the_runs_are_noticed(folder: Path) -> None:
    own_rate = PARAMS.arms["own_rate"].model_copy(update={"steps": 600})
    with pytest.raises(BadInput, match=re.escape("own_rate/22.csv: does not hold evaluations up to update 600")):
        read_results(with_(arms=PARAMS.arms | {"own_rate": own_rate}))
    with pytest.raises(BadInput, match=re.escape("22.csv: does not hold 50 weights")):
        read_results(with_(mechanism=PARAMS.mechanism.model_copy(update={"points": 50})))


def test_a_study_without_some_kinds_of_runs_is_read(folder: Path) -> None:
    few = with_(averages={}, entries=[], long=PARAMS.long.model_copy(update={"arms": {}}))
    found = read_results(few.model_copy(update={"mechanism": PARAMS.mechanism.model_copy(update={"seeds": []})}))
    assert set(found.curves["arm"]) == {*PARAMS.arms}
    assert found.averages.empty
    assert found.sweep.empty
    assert found.mechanism.empty


def test_the_study_is_judged_without_pytorch() -> None:
    code = "import json, sys, study_judge; print(json.dumps(sorted(sys.modules)))"
    source = Path(__file__).parents[2] / "src"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True)
    assert not {"torch", "ray", "matplotlib"} & {*json.loads(done.stdout)}
