"""What the runs cost, by the logs that real ones leave."""

from pathlib import Path

import pandas as pd
import pytest

import cost


def test_the_logs_of_a_study_are_taken_up(copy: Path) -> None:
    found = cost.logged(Path("logs"))
    assert list(found["run"]) == ["train/he/10", "train/note_plain/10"]  # its other stages are toys
    assert set(found["images"]) == {3 * 16}
    assert (found["seconds"] > 0).all()


def test_images_of_short_runs_are_those_of_each_rate_and_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("metrics/batch/with").mkdir(parents=True)
    rows = [(0.1, 100, 64, 5), (0.1, 100, 64, 10), (0.1, 101, 64, 10), (0.3, 100, 64, 7)]
    table = pd.DataFrame(rows, columns=["learning_rate", "seed", "batch_size", "step"])
    table.to_csv("metrics/batch/with/64.csv", index=False)
    assert cost.images("batch/with/64") == (10 + 10 + 7) * 64


def test_hours_and_seconds_per_update() -> None:
    runs = [("a", "", "A", 1800.0, 1_024_000), ("b", "", "A", 1800.0, 2_048_000), ("c", "", "B", 36.0, 102_400)]
    table = pd.DataFrame(runs, columns=cost.COLUMNS)
    assert cost.line(table) == (
        "The 3 runs whose times were kept took 1.0 hours on A and 0.0 hours on B, one core or GPU each "
        "([more](benchmarks/README.md)).\n"
    )
    assert cost.table(table).splitlines()[2:] == ["| A | 2 | 1.0 | 1.20 |", "| B | 1 | 0.0 | 0.36 |"]
