"""`evaluate` on made-up records, against formulas written out here, and on studies that leave parts out."""

import csv
import io
import json
import math
import shutil
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import evaluate
from bnstudy import BadInput
from bnstudy.engine import grid
from bnstudy.engine.rows import AveragesRow, HistoryRow, MechanismRow, Row, ShortRow, to_csv
from bnstudy.params import Arm, Averages, load
from bnstudy.settings import SETTINGS, Setting, to_json
from bnstudy.tuning import Choices, resolve
from conftest import PARAMS, write_params

SEEDS = [10, 11, 12, 13, 14, 15]
ARMS = PARAMS.study.arms
FINAL = {"rate": 0.02, "updates": None, "edge": None, "overruled": False}
NETWORKS = {"without": "plain_he", "hidden": "batch_norm_hidden", "everywhere": "batch_norm"}
CHOICES = {
    "networks": {name: {"rate": 0.05, "accuracy": 0.9, "edge": None, "overruled": False} for name in PARAMS.networks},
    "finalists": {name: FINAL | {"network": network} for name, network in NETWORKS.items()},
    "contest": {"without": "without", "with": "everywhere"},
}
STUDY: dict[str, dict[str, Any]] = {
    "evaluation": {"per_decade": 4, "moments": [100]},
    "sweep": {"learning_rates": [0.1, 1.0]},
    "refine": {"factors": [1.0]},
    "study": {"seeds": SEEDS},
    "arms": {name: PARAMS.arms[name].model_dump(exclude_none=True) | {"steps": 120} for name in ARMS},
    "averages": {"steps": 120, "decays": [0.0, 0.9, 0.95, 0.999, 1.0]},
    "long": {"steps": 150, "arm_seeds": SEEDS[:2], "averages_seeds": SEEDS},
    "mechanism": {"seeds": SEEDS[:2], "points": 3},
    "tolerance": {"learning_rates": [0.1, 1.0]},
    "batch": {"sizes": [64], "seeds": SEEDS[:2]},
    "rules": {"frozen_after": 100, "judged_decays": [0.9, 0.95, 0.999]},
}
TABLES = {
    "curves": ["arm", "seed", *HistoryRow._fields],
    "dip": ["statistics", "decay", "step", "age", "seeds", "difference", "low", "high", "distance"],
    "mechanism": ["where", "what", "start_weight", "seeds", "accuracy", "difference", "low", "high"],
    "ladder": ["rung", "label", "from", "seeds", "accuracy", "change", "low", "high", "side"],
    "rates": ["network", "learning_rate", "seed", "diverged", "validation_accuracy"],
    "tolerance": ["contestant", "learning_rate", "seed", "diverged", "validation_accuracy"],
    "batch": ["contestant", "batch_size", "learning_rate", "seed", "validation_accuracy", "edge"],
}


def record(name: str, rows: Iterable[Row], table: str = "") -> None:
    """A run's table and its environment, which is another one for seed 11."""
    path = Path("metrics", f"{table or name}.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_csv(rows))
    Path("metrics", f"{name}.json").write_text(json.dumps({"torch": "2.9" if name.endswith("/11") else "2.8"}))


def short(seed: int, rate: float, random: np.random.Generator, size: int = 1024) -> ShortRow:
    return ShortRow(seed, size, rate, 150, 0, 0.5, 0.5, float(random.uniform(0.9, 1)))


def history(setting: Setting, random: np.random.Generator) -> list[HistoryRow]:
    steps = grid.evaluations(setting)
    accuracies = np.sort(random.uniform(0.5, 1, len(steps))).tolist()
    return [
        HistoryRow(step, 0.1, 0.5, 0.5, accuracy, 0.5, accuracy, *((0.5, accuracy) if step in at else (None, None)))
        for step, accuracy in zip(steps, accuracies, strict=True)
        for at in [grid.tested(setting)]
    ]


def averages(setting: Setting, decays: list[float], random: np.random.Generator) -> list[AveragesRow]:
    inner: list[tuple[str, float | None]] = [(kind, decay) for kind in ("moving", "corrected") for decay in decays]
    kinds = [*(kind for kind in inner if kind[0] == "moving" or 0 < (kind[1] or 0) < 1), ("batch", None)]
    rows = []
    for step, (kind, decay) in product(grid.evaluations(setting), [*kinds, ("precise", None)]):
        distances = random.uniform(0.1, 1, 8).tolist() if decay is not None else []
        rows.append(AveragesRow(step, kind, decay, 0.5, float(random.uniform(0.1, 1)), *distances))
    return rows


def make() -> None:
    """All records that the params.yaml of the working folder asks for: random, each a function of its name alone."""
    params, choices = load(), Choices.model_validate(CHOICES)
    random = {name: np.random.default_rng(i) for i, name in enumerate(["sweep", "tolerance", "batch", "mechanism"])}
    for network in params.sweep.networks:
        runs = product(params.sweep.learning_rates, params.sweep.seeds)
        record(f"sweep/{network}", [short(seed, rate, random["sweep"]) for rate, seed in runs])
    for finalist, factor in product(params.refine.finalists, params.refine.factors):
        record(f"refine/{finalist}/{factor}", [short(seed, 0.1, random["sweep"]) for seed in params.refine.seeds])
    arms: dict[str, Arm | Averages] = {**params.arms, "averages": params.averages}
    for name, arm in arms.items():
        for seed in params.study.seeds:
            long = params.long.averages_seeds if name == "averages" else params.long.arm_seeds
            longer = seed in long and name in ("averages", params.long.arm)
            its = resolve(params, choices, arm, params.long.steps if longer else None)
            run, its_random = (
                f"averages/{seed}" if name == "averages" else f"train/{name}/{seed}",
                [*name.encode(), seed],
            )
            (SETTINGS / run).parent.mkdir(parents=True, exist_ok=True)
            (SETTINGS / f"{run}.json").write_bytes(its.to_bytes())
            if name == "averages":
                record(run, averages(its, params.averages.decays, np.random.default_rng(its_random)))
            record(run, history(its, np.random.default_rng(its_random)), run.replace("averages", "averages/history"))
    (SETTINGS / "choices.json").write_bytes(to_json(CHOICES))
    for name, seed in product(params.tolerance.contestants, params.study.seeds):
        rates = params.tolerance.learning_rates
        record(f"tolerance/{name}/{seed}", [short(seed, rate, random["tolerance"]) for rate in rates])
    for name, size in product(params.batch.contestants, params.batch.sizes):
        seeds = [*params.batch.tuning_seeds, *params.batch.seeds]
        record(f"batch/{name}/{size}", [short(seed, 0.1, random["batch"], size) for seed in seeds])
    for seed in params.mechanism.seeds:
        mixes = product(["all", "conv1"], ["both"], np.linspace(0, 1, params.mechanism.points).tolist())
        rows = [MechanismRow(seed, *mix, 0.5, float(random["mechanism"].uniform())) for mix in mixes]
        record(f"mechanism/{seed}", rows)


def printed() -> str:
    with redirect_stdout(io.StringIO()) as out:
        evaluate.main()
    return out.getvalue()


def read(path: str) -> Any:
    return json.loads(Path(path).read_text())


def rows(path: str, **values: str) -> list[dict[str, str]]:
    """The rows of a table that hold these values."""
    with Path(path).open(newline="") as file:
        return [row for row in csv.DictReader(file) if all(row[name] == value for name, value in values.items())]


def outputs() -> dict[str, bytes]:
    folders = [Path("plots"), Path("metrics/summary")]
    files = [*(path for folder in folders for path in sorted(folder.iterdir())), *Path("metrics").glob("*.json")]
    return {str(path): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with all records, evaluated, and what was printed; not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_params(folder, **STUDY)
        make()
        return folder, printed()


@pytest.fixture
def copy(whole: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to change at will, and the working folder."""
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def without(section: str, key: str, *names: str) -> None:
    """Leave some of a list in params.yaml out."""
    tree = yaml.safe_load(Path("params.yaml").read_text())
    tree[section][key] = [value for value in tree[section][key] if value not in names]
    Path("params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


def accuracy(arm: str, seed: int, step: int, column: str = "validation_accuracy") -> float:
    (row,) = rows(f"metrics/train/{arm}/{seed}.csv", step=str(step))
    return float(row[column])


def test_the_tables_have_their_columns_and_every_claim_a_finding(copy: Path) -> None:
    for name, columns in TABLES.items():
        assert list(rows(f"plots/{name}.csv")[0]) == columns, name
    findings = read("metrics/claims.json")
    assert [finding["id"] for finding in findings] == list(range(1, 10))
    assert "not measured" not in {finding["verdict"] for finding in findings}
    assert {path.stem for path in Path("metrics/summary").iterdir()} == {*ARMS, "note_batch_norm"}


def test_it_prints_ladder_dip_claims_and_result_on_a_screen(whole: tuple[Path, str]) -> None:
    ladder, dip, claims, result = (part.splitlines() for part in whole[1].strip().split("\n\n"))
    assert ladder[0].startswith("The ladder")
    assert dip[0].startswith("The dip")
    assert [line.split()[0] for line in claims] == list("123456789")
    assert result[0].startswith("Batch norm reaches 98% validation accuracy in")
    lines = whole[1].splitlines()
    assert max(map(len, lines)) <= 120
    assert len(lines) <= 45


def test_a_ladder_compares_each_rung_with_the_one_before(copy: Path) -> None:
    ladder = {row["rung"]: row for row in rows("plots/ladder.csv")}
    path = ["note_plain", "plain_own_rate", "baseline", "same_rate", "own_rate", "everywhere"]
    assert list(ladder) == [*path, "he", "he_ramp"]
    compared = dict(zip(path[1:], path, strict=False)) | {"he": "note_plain", "he_ramp": "note_plain"}
    assert {rung: row["from"] for rung, row in ladder.items()} == {"note_plain": ""} | compared
    assert [row["side"] for row in ladder.values()] == ["0"] * 6 + ["1"] * 2
    assert [row["label"].rpartition(" ")[2] for row in ladder.values()][:5] == ["(0.1)", "(0.05)", *["(0.02)"] * 3]
    for rung, base in compared.items():
        changes = [accuracy(rung, seed, 100) - accuracy(base, seed, 100) for seed in SEEDS]
        found = [float(ladder[rung][name]) for name in ("change", "low", "high")]
        # The interval of 6 values: from the least to the most of them, see `inference.interval`.
        assert found == pytest.approx([np.mean(changes), min(changes), max(changes)], rel=1e-5)
        mean = np.mean([accuracy(rung, seed, 100) for seed in SEEDS])
        assert float(ladder[rung]["accuracy"]) == pytest.approx(mean, rel=1e-5)
    assert ladder["note_plain"]["change"] == ladder["note_plain"]["low"] == ""


@pytest.mark.parametrize(("kind", "decay", "step"), [("moving", "0.9", 16), ("corrected", "0.999", 120)])
def test_the_dip_is_the_difference_from_precise_statistics(copy: Path, kind: str, decay: str, step: int) -> None:
    tables = [f"metrics/averages/{seed}.csv" for seed in SEEDS]
    step = max(int(row["step"]) for row in rows(tables[0]) if int(row["step"]) <= step)
    differences, distances = [], []
    for table in tables:
        (row,) = rows(table, statistics=kind, decay=decay, step=str(step))
        (precise,) = rows(table, statistics="precise", step=str(step))
        differences.append(float(row["accuracy"]) - float(precise["accuracy"]))
        distances.append(math.sqrt(np.mean([float(row[name]) ** 2 for name in AveragesRow._fields[5:]])))
    (found,) = rows("plots/dip.csv", statistics=kind, decay=decay, step=str(step))
    expected = [-math.log(float(decay)) * step, 6, np.mean(differences), min(differences), max(differences)]
    numbers = [float(found[name]) for name in ("age", "seeds", "difference", "low", "high", "distance")]
    assert numbers == pytest.approx([*expected, np.mean(distances)], rel=1e-5)


def test_the_dip_leaves_out_decays_that_do_not_average(copy: Path) -> None:
    assert {row["decay"] for row in rows("plots/dip.csv")} == {"0.9", "0.95", "0.999"}


def test_the_mechanism_is_compared_with_precise_statistics(copy: Path) -> None:
    def of(where: str, weight: str) -> list[float]:
        runs = [rows(f"metrics/mechanism/{seed}.csv", where=where, start_weight=weight) for seed in SEEDS[:2]]
        return [float(row["accuracy"]) for (row,) in runs]

    differences = [a - b for a, b in zip(of("conv1", "0.5"), of("conv1", "0"), strict=True)]
    (found,) = rows("plots/mechanism.csv", where="conv1", start_weight="0.5")
    numbers = [float(found[name]) for name in ("seeds", "accuracy", "difference", "low", "high")]
    expected = [2, np.mean(of("conv1", "0.5")), np.mean(differences), min(differences), max(differences)]
    assert numbers == pytest.approx(expected, rel=1e-5)


def test_batch_sizes_are_shown_on_the_judged_seeds_alone(copy: Path) -> None:
    assert {row["seed"] for row in rows("plots/batch.csv")} == {"10", "11"}


def test_a_batch_size_says_where_its_rate_is_an_end_of_those_tried() -> None:
    keys = ["contestant", "batch_size", "learning_rate", "seed", "diverged", "validation_accuracy"]
    tried = {
        ("without", 64): [0.01, 0.03],
        ("with", 64): [0.1, 0.3],
        ("with", 16): [0.05, 0.1, 0.3],
        ("with", 8): [0.1],
    }
    runs = [(*cell, rate, 100, 0, 0.9) for cell, rates in tried.items() for rate in rates]
    runs += [(*cell, 0.1 if cell[0] == "with" else 0.03, 10, 0, 0.95) for cell in tried]
    batch = PARAMS.batch.model_copy(update={"tuning_seeds": [100], "seeds": [10]})
    found = evaluate.batch_table(pd.DataFrame(runs, columns=keys), batch)
    assert list(found["edge"]) == ["highest", "lowest", "", ""]
    assert list(found["seed"]) == [10] * 4


def test_a_summary_holds_three_values_per_arm(copy: Path) -> None:
    found = read("metrics/summary/own_rate.json")
    assert list(found) == ["accuracy_after_100", "test_accuracy", "updates_to_98"]
    means = [np.mean([accuracy("own_rate", seed, 100) for seed in SEEDS])]
    means.append(np.mean([accuracy("own_rate", seed, 120, "test_accuracy") for seed in SEEDS]))
    assert [found["accuracy_after_100"], found["test_accuracy"]] == pytest.approx(means, rel=1e-5)
    assert found["updates_to_98"] == f"{crossed('own_rate')} of 6"
    # Some of its runs are longer than others, which end where the test split is not evaluated in all.
    found = read("metrics/summary/note_plain.json")
    assert found["test_accuracy"] == pytest.approx(
        np.mean([accuracy("note_plain", seed, 100, "test_accuracy") for seed in SEEDS]), rel=1e-5
    )


def crossed(arm: str) -> int:
    """The runs whose last three evaluations reach 98%: accuracies only rise."""
    last = [rows(f"metrics/train/{arm}/{seed}.csv")[-3:] for seed in SEEDS]
    return sum(all(float(row["validation_accuracy"]) >= 0.98 for row in its) for its in last)


def test_updates_to_the_target_where_all_get_there(copy: Path) -> None:
    times = []
    for seed in SEEDS:
        table = rows(f"metrics/train/own_rate/{seed}.csv")
        for i, row in enumerate(table):
            row["validation_accuracy"] = "0.97" if i < 2 else "0.99"
        with Path(f"metrics/train/own_rate/{seed}.csv").open("w", newline="") as file:
            lines = csv.DictWriter(file, HistoryRow._fields, lineterminator="\n")
            lines.writeheader()
            lines.writerows(table)
        times.append(math.sqrt(float(table[1]["step"]) * float(table[2]["step"])))  # 98% lies half-way
    printed()
    assert read("metrics/summary/own_rate.json")["updates_to_98"] == pytest.approx(times[0], rel=1e-5)


def test_environments_name_their_runs(copy: Path) -> None:
    first, second, here = read("metrics/environment.json")
    assert (first["torch"], second["torch"]) == ("2.8", "2.9")
    assert set(second["runs"]) == {
        *(f"train/{arm}/11" for arm in ARMS),
        *("averages/11", "mechanism/11", "tolerance/with/11", "tolerance/without/11"),
    }
    assert {"sweep/plain", "refine/hidden/1.0", "train/he/10", "batch/with/64"} <= set(first["runs"])
    assert set(here) == {"stage", "python", "dvc", "numpy", "pandas"}


@pytest.mark.parametrize(
    ("left_out", "not_measured"),
    [
        (("study", "arms", "baseline"), {2, 3}),
        (("study", "arms", "everywhere"), {2}),  # the contest's
        (("study", "arms", "own_rate", "same_rate"), {3}),
        (("study", "arms", "he"), {4}),
        (("averages", "decays", 0.9), {5, 6}),
        (("averages", "decays", 0.9, 0.95, 0.999), {5, 6, 7}),
        (("averages", "decays", 1.0), {8}),
        (("tolerance", "contestants", "without"), {9}),
        (("study", "arms", *ARMS[1:]), {2, 3, 4}),
    ],
    ids=lambda value: " ".join(map(str, value[2:])) if isinstance(value, tuple) else "",
)
def test_claims_whose_runs_are_left_out_are_not_measured(copy: Path, left_out: Any, not_measured: set[int]) -> None:
    without(*left_out)
    make()
    out = printed()
    missing = {finding["id"] for finding in read("metrics/claims.json") if finding["verdict"] == "not measured"}
    assert missing == not_measured
    assert out.count("– not measured") == len(not_measured)
    rungs = [row["rung"] for row in rows("plots/ladder.csv")]
    assert set(rungs) == (evaluate.PATH | evaluate.ASIDE).keys() & {
        path.stem for path in Path("metrics/summary").iterdir()
    }
    assert all(row["from"] in ["", *rungs] for row in rows("plots/ladder.csv"))


def test_a_rung_is_compared_with_the_last_one_that_is_there(copy: Path) -> None:
    without("study", "arms", "note_plain", "baseline")
    tree = yaml.safe_load(Path("params.yaml").read_text())
    tree["long"]["arm_seeds"] = []
    Path("params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    make()
    printed()
    compared = {row["rung"]: (row["from"], row["change"] != "") for row in rows("plots/ladder.csv")}
    assert compared["plain_own_rate"] == compared["he"] == ("", False)
    assert compared["same_rate"] == ("plain_own_rate", True)


def cut(path: Path) -> None:
    path.write_text(path.read_text()[:-9])


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda: Path("metrics/train/he/12.csv").unlink(), "metrics/train/he/12.csv: cannot be read"),
        (lambda: cut(Path("metrics/train/he/12.csv")), "metrics/train/he/12.csv: is not a table (it ends within"),
        (lambda: Path("metrics/batch/with/64.json").write_text("[]"), "metrics/batch/with/64.json: "),
        (lambda: Path("settings/choices.json").write_text("{}"), "settings/choices.json: networks: is missing"),
    ],
    ids=["no history", "half a history", "no environment", "no choices"],
)
def test_what_cannot_be_read_is_named_before_anything_is_written(
    copy: Path, spoil: Callable[[], Any], named: str
) -> None:
    before = outputs()
    spoil()
    with pytest.raises(BadInput) as error:
        evaluate.main()
    assert str(error.value).startswith(named)
    assert outputs() == before
