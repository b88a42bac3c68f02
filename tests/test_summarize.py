"""`summarize` on made-up runs, against formulas written out here or by SciPy, and on files that are not right."""

import csv
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bnstudy import BadInput
from bnstudy.analysis.statistics import interval
from bnstudy.engine.rows import HistoryRow, SweepRow, WarmupRow
from bnstudy.params import Study, Sweep, Warmup, load
from bnstudy.records import read_sweep, read_warmup
from conftest import ROOT
from summarize import summarize_study

HISTORY, WARMUP, SWEEP = (list(row._fields) for row in (HistoryRow, WarmupRow, SweepRow))

STEPS = [1, 101, 201, 250]
TABLES = [f"plots/{name}.csv" for name in ("curves", "confusion", "warmup", "sweep")]
OUTPUTS = ["metrics/claims.json", "metrics/environment.json", *TABLES]
WARMING = Warmup(
    variant="batch_norm", seeds=[1, 0], steps=20, decays=[0.0, 0.1, 0.95, 1.0], evaluate_every=10, precise_images=2
)
SWEEPING = Sweep(
    variants=["b", "a"], seeds=[4, 2], steps=30, learning_rates=[0.003, 1.0], batch_sizes=[64, 256], target_accuracy=0.5
)


def make_runs(variants: Sequence[str], seeds: Sequence[int], steps: Sequence[int] = STEPS) -> None:
    """Histories and evaluations in the current folder: random, each a function of (variant, seed) alone."""
    for variant in variants:
        runs = []
        for seed in seeds:
            random = np.random.default_rng([*variant.encode(), seed])
            table = pd.DataFrame({"step": steps, "learning_rate": 0.1} | dict.fromkeys(HISTORY[2:], 0.0))
            for name in HISTORY[2:]:
                wide = 10 ** random.uniform(-2, 4, len(steps))
                table[name] = np.sort(random.uniform(0.1, 0.999, len(steps))) if "accuracy" in name else wide
            last = table.iloc[-1]
            path = Path("metrics/history", variant, f"{seed}.csv")
            path.parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(path, index=False, float_format="%.8g")
            confusion = random.integers(0, 9, (10, 10)) + 900 * np.eye(10, dtype=int)
            runs.append(
                {
                    "seed": seed,
                    "test_accuracy": np.trace(confusion) / confusion.sum(),
                    "test_loss": last["test_loss"],
                    "validation_accuracy": last["validation_accuracy"],
                    "validation_loss": last["validation_loss"],
                    "steps_to": {"0.95": int(random.choice(steps)), "0.975": None},
                    "confusion": confusion.tolist(),
                    "environment": {"torch": "2.0", "processor": "A", "device": "cpu", "gpu": None, "threads": 2},
                }
            )
        path = Path("metrics/evaluation", f"{variant}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"variant": variant, "runs": runs}))
    make_warmup(WARMING)
    make_sweep(SWEEPING)


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def make_warmup(warmup: Warmup) -> None:
    kinds: list[tuple[str, float | None]] = [("moving", decay) for decay in warmup.decays]
    kinds += [("corrected", decay) for decay in warmup.decays if 0 < decay < 1] + [("batch", None), ("precise", None)]
    for seed in warmup.seeds:
        random = np.random.default_rng(seed)
        rows = [(step, *kind, *random.uniform(0, 1, 2).round(8)) for step in (1, 3, 10, warmup.steps) for kind in kinds]
        write_rows(Path("metrics/warmup", warmup.variant, f"{seed}.csv"), WARMUP, rows)


def make_sweep(sweep: Sweep) -> None:
    random = np.random.default_rng(0)
    for variant in sweep.variants:
        settings = [("rate", rate, 1024, rate) for rate in sweep.learning_rates]
        settings += [("batch", size, size, 0.1) for size in sweep.batch_sizes]
        for kind, value, size, rate in settings:
            # At the rate 1.0, no run bears it.
            end = (sweep.steps, 0, 0.5) if rate < 1 else (3, 1, None)
            rows = [(seed, size, rate, *end, *random.uniform(0, 1, 2).round(8)) for seed in sweep.seeds]
            write_rows(Path("metrics/sweep", variant, f"{kind}_{value}.csv"), SWEEP, rows)


def summarize(variants: list[str], seeds: list[int], confidence: float = 0.95) -> dict[str, bytes]:
    rules = load(ROOT / "params.yaml").summarize.model_copy(update={"confidence": confidence})
    summarize_study(Study(variants=variants, seeds=seeds), rules, WARMING, SWEEPING)
    summaries = {str(path): path.read_bytes() for path in sorted(Path("metrics/summary").iterdir())}
    return summaries | {name: Path(name).read_bytes() for name in OUTPUTS}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_summaries_of_two_variants() -> None:
    make_runs(["a", "b"], [7, 2, 3])
    files = summarize(["b", "a"], [2, 7, 3], confidence=0.9)
    for variant in ("b", "a"):
        records = json.loads(Path(f"metrics/evaluation/{variant}.json").read_text())["runs"]
        steps = sorted(record["steps_to"]["0.95"] for record in records)
        # No run bears the rate 1.0; 0.003 stands for all of the 2.52 decades up to it where it works.
        low, high = (
            np.array([float(row["validation_accuracy"]) for row in cells(f"metrics/sweep/{variant}/rate_{rate}.csv")])
            for rate in SWEEPING.learning_rates
        )
        values = json.loads(files[f"metrics/summary/{variant}.json"])
        assert list(values) == ["test_accuracy", "test_loss", "updates_to_97.5", "details"]
        (details,) = values["details"]
        for name in ("test_accuracy", "test_loss"):
            measured = [record[name] for record in sorted(records, key=lambda record: [2, 7, 3].index(record["seed"]))]
            ends = dict(zip(("low", "high"), interval(measured, confidence=0.9), strict=True))
            assert details[name] == pytest.approx({"mean": np.mean(measured), **ends}, rel=1e-5)
            assert values[name] == details[name]["mean"]
        assert values["updates_to_97.5"] == "never"
        assert details["updates_to"] == {
            "95%": {"median": steps[1], "reached": 3},
            "97.5%": {"median": None, "reached": 0},
        }
        assert (details["runs"], details["confidence"]) == (3, 0.9)
        assert details["best_rate"] == (0.003 if low.mean() > high.mean() else 1)
        assert details["decades_that_work"]["mean"] == pytest.approx(2.522879 * np.mean(low >= 0.5), rel=1e-5)


def test_one_rate_has_no_range() -> None:
    make_runs(["a"], [0])
    rules = load(ROOT / "params.yaml").summarize
    make_sweep(sweep := SWEEPING.model_copy(update={"learning_rates": [0.1]}))
    summarize_study(Study(variants=["a"], seeds=[0]), rules, WARMING, sweep)
    (details,) = json.loads(Path("metrics/summary/a.json").read_text())["details"]
    assert details["best_rate"] is details["decades_that_work"] is None


def test_the_environments_of_the_trainings_are_told_apart() -> None:
    make_runs(["a", "b"], [0, 1])
    path = Path("metrics/evaluation/a.json")
    evaluation = json.loads(path.read_text())
    evaluation["runs"][1]["environment"]["threads"] = 1
    path.write_text(json.dumps(evaluation))
    *trained, summarized = json.loads(summarize(["a", "b"], [0, 1])["metrics/environment.json"])
    facts = {"stage": "train", "torch": "2.0", "processor": "A", "device": "cpu", "gpu": None, "threads": 2}
    assert trained == [{**facts, "runs": ["a-0", "b-0", "b-1"]}, {**facts, "threads": 1, "runs": ["a-1"]}]
    assert summarized["python"] == sys.version.split()[0]
    assert summarized["numpy"] == np.__version__


def test_curves_hold_every_row_of_every_run_and_nothing_else() -> None:
    make_runs(["a", "b"], [0, 5])
    summarize(["a", "b"], [0, 5])
    with Path("plots/curves.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    expected = []
    for variant in ("a", "b"):
        for seed in ("0", "5"):
            with Path(f"metrics/history/{variant}/{seed}.csv").open(newline="") as file:
                expected += [{"variant": variant, "seed": seed, **row} for row in csv.DictReader(file)]
    assert [list(row) for row in found] == [list(row) for row in expected]
    for row, source in zip(found, expected, strict=True):
        assert [row[name] for name in ("variant", "seed", "step")] == [
            source[name] for name in ("variant", "seed", "step")
        ]
        assert [row[name] for name in HISTORY[1:]] == [f"{float(source[name]):.6g}" for name in HISTORY[1:]]


def test_confusion_sums_the_seeds() -> None:
    make_runs(["a", "b"], [0, 5])
    summarize(["a", "b"], [0, 5])
    table = pd.read_csv("plots/confusion.csv")
    assert list(table) == ["variant", "actual", "predicted", "count", "share"]
    expected = []
    for variant in ("a", "b"):
        first, second = (
            run["confusion"] for run in json.loads(Path(f"metrics/evaluation/{variant}.json").read_text())["runs"]
        )
        for actual in range(10):
            total = sum(first[actual]) + sum(second[actual])
            for predicted in range(10):
                count = first[actual][predicted] + second[actual][predicted]
                expected.append((variant, actual, predicted, count, float(f"{count / total:.6g}")))
    assert list(table.itertuples(index=False, name=None)) == expected


def cells(path: str) -> list[dict[str, str]]:
    """The rows of a table; numbers as they are written."""
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def six_digits(row: dict[str, str]) -> dict[str, object]:
    return {name: float(f"{float(value):.6g}") if value[:1].isdigit() else value for name, value in row.items()}


def test_warm_up_and_sweep_hold_every_row_of_every_run_and_nothing_else() -> None:
    make_runs(["a"], [0])
    summarize(["a"], [0])
    expected = [{"seed": seed, **row} for seed in ("1", "0") for row in cells(f"metrics/warmup/batch_norm/{seed}.csv")]
    assert len(expected) == 2 * 4 * 8
    assert list(map(six_digits, cells("plots/warmup.csv"))) == list(map(six_digits, expected))
    expected = [
        {"variant": variant, "kind": name.split("_")[0], **row}
        for variant in ("b", "a")
        for name in ("rate_0.003", "rate_1.0", "batch_64", "batch_256")
        for row in cells(f"metrics/sweep/{variant}/{name}.csv")
    ]
    assert len(expected) == 2 * 4 * 2
    assert list(map(six_digits, cells("plots/sweep.csv"))) == list(map(six_digits, expected))
    assert {row["seed"] for row in expected} == {"4", "2"}
    assert {row["train_loss"] for row in expected if row["diverged"] == "1"} == {""}


def test_a_run_at_the_own_rate_is_one_of_the_batch_sizes_too() -> None:
    make_sweep(sweep := SWEEPING.model_copy(update={"learning_rates": [0.1, 1.0]}))
    table = read_sweep(sweep).set_index(["kind", "variant", "seed", "batch_size", "learning_rate"]).sort_index()
    assert len(table) == 2 * (4 + 1) * 2
    for variant, seed in product("ab", (2, 4)):
        same = table.loc["rate", variant, seed, 1024, 0.1]
        pd.testing.assert_series_equal(table.loc["batch", variant, seed, 1024, 0.1], same, check_names=False)
    make_sweep(sweep := SWEEPING.model_copy(update={"learning_rates": [0.1], "batch_sizes": [1024]}))
    assert list(read_sweep(sweep)["kind"].value_counts()) == [4, 4]


def test_numbers_are_read_to_the_last_bit() -> None:
    """The fast parser misses some; a rate or decay must be found again by its value."""
    values = [float(text) for text in ("0.012000000000000002", "0.30000000000000004", "0.9500000000000001")]
    make_warmup(warmup := WARMING.model_copy(update={"decays": values}))
    assert set(read_warmup(warmup)["decay"].dropna()) == set(values)
    make_sweep(sweep := SWEEPING.model_copy(update={"learning_rates": values}))
    rates = read_sweep(sweep)
    assert set(rates.loc[rates["kind"] == "rate", "learning_rate"]) == set(values)


def test_claims_of_whole_runs_are_written_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Of runs whose final accuracies are the same, and whose steps are 1 against 250."""
    make_runs(["batch_norm", "plain"], [0, 1, 2, 3, 4])
    for variant, step in [("batch_norm", 1), ("plain", 250)]:
        path = Path(f"metrics/evaluation/{variant}.json")
        evaluation = json.loads(path.read_text())
        for record in evaluation["runs"]:
            record.update(test_accuracy=0.99, steps_to={"0.95": step, "0.975": None})
        path.write_text(json.dumps(evaluation))
    found = json.loads(summarize(["batch_norm", "plain"], [0, 1, 2, 3, 4])["metrics/claims.json"])
    assert [claim["id"] for claim in found] == list(range(1, 10))
    (part,) = found[0]["parts"]
    assert (part["estimate"], part["low"], part["high"], part["p"]) == (0.004, 0.004, 0.004, 2 / 2**5)
    lines = capsys.readouterr().out.splitlines()[-9:]
    assert [line.split()[0] for line in lines] == [str(number) for number in range(1, 10)]
    for line, claim in zip(lines, found, strict=True):
        assert claim["claim"] in line
        assert claim["verdict"] in line
    assert lines[0].endswith("supported    ratio of steps 0.00400× (0.00400 to 0.00400), to 95%, original")
    assert lines[1].endswith("not measured")
    assert lines[2].endswith("refuted      difference of test accuracy +0.00 points (+0.00 to +0.00), original")


def test_removed_seeds_and_variants_leave_no_trace() -> None:
    make_runs(["a", "b"], [0, 1])
    clean = summarize(["a", "b"], [0, 1])
    make_runs(["a", "b", "removed"], [1, 9, 0])
    summarize(["a", "b", "removed"], [1, 9, 0])
    make_warmup(WARMING.model_copy(update={"seeds": [7]}))
    make_sweep(SWEEPING.model_copy(update={"variants": ["removed"]}))
    assert summarize(["a", "b"], [0, 1]) == clean
    assert all(b"removed" not in content for content in clean.values())


def test_a_diverged_loss_stays_a_gap() -> None:
    make_runs(["a"], [0])
    path = Path("metrics/history/a/0.csv")
    lines = path.read_text().splitlines()
    lines[-1] = "250,0.1,nan,1,2,3,nan,0.1,inf,0.1,nan,0.098"
    path.write_text("\n".join(lines) + "\n")
    summarize(["a"], [0])
    assert Path("plots/curves.csv").read_text().splitlines()[-1] == "a,0,250,0.1,,1,2,3,,0.1,inf,0.1,,0.098"


Edit = Callable[[str], str | None]


def replace(old: str, new: str) -> Edit:
    return lambda text: text.replace(old, new, 1)


EVALUATION, HISTORY_FILE = "metrics/evaluation/a.json", "metrics/history/a/1.csv"
WARMUP_FILE, RATE_FILE, BATCH_FILE = (
    "metrics/warmup/batch_norm/0.csv",
    "metrics/sweep/a/rate_0.003.csv",
    "metrics/sweep/a/batch_64.csv",
)


@pytest.mark.parametrize(
    ("path", "edit", "fault"),
    [
        (EVALUATION, lambda text: None, "cannot be read"),
        (EVALUATION, lambda text: text[:-9], "Invalid JSON"),
        (EVALUATION, lambda text: "[]", "the file: "),
        (EVALUATION, replace('"seed": 1', '"seed": 4'), "seeds [0, 4], not a with seeds [0, 1]"),
        (EVALUATION, replace('"variant": "a"', '"variant": "b"'), "holds b with seeds"),
        (EVALUATION, replace('"test_loss"', '"loss"'), "runs.0.test_loss: is missing"),
        (EVALUATION, replace('"test_accuracy": 0', '"test_accuracy": 9'), "is not less than or equal to 1"),
        (EVALUATION, replace('"test_loss": ', '"test_loss": NaN, "x": '), "nan is not a finite number"),
        (EVALUATION, replace('"0.95": ', '"95": '), "is not less than 1"),
        (EVALUATION, replace('"0.975"', '"0.98"'), "other targets"),
        (EVALUATION, replace("[[", "[[1, "), "does not have one entry for each digit"),
        (EVALUATION, replace("[[9", "[[-9"), "runs.0.confusion.0.0: -9"),
        (EVALUATION, replace('"environment"', '"other"'), "runs.0.environment: is missing"),
        (HISTORY_FILE, lambda text: None, "cannot be read"),
        (HISTORY_FILE, lambda text: "", "is not a table"),
        (HISTORY_FILE, lambda text: text.split("\n")[0] + "\n", "a row; `dvc repro`"),
        (HISTORY_FILE, replace("test_loss", "loss"), "the columns step, learning_rate"),
        (HISTORY_FILE, replace("0.1,", "high,"), "learning_rate is not always a number"),
        (HISTORY_FILE, replace("\n101,", "\n101.5,"), "step is not always a whole number"),
        (HISTORY_FILE, replace("\n101,", "\n,"), "step is not always a whole number"),
        (HISTORY_FILE, replace("\n101,", "\n1,"), "step does not rise from 1"),
        (HISTORY_FILE, replace("\n1,", "\n2,"), "step does not rise from 1"),
        (HISTORY_FILE, lambda text: text[: text.index("\n250,")] + "\n", "runs end at the steps [201, 250]"),
        (
            HISTORY_FILE,
            lambda text: text.rstrip().rsplit(",", 1)[0] + ",1.5\n",
            "test_accuracy is not always in [0, 1]",
        ),
        (WARMUP_FILE, lambda text: None, "cannot be read"),
        (WARMUP_FILE, lambda text: text.replace("decay", "rate"), "the columns step, statistics, decay"),
        (WARMUP_FILE, replace("moving,0.0", "moving,none"), "decay is not always a number"),
        (WARMUP_FILE, lambda text: text.replace("0.95", "0.9"), "does not hold the decays [0.0, 0.1, 0.95, 1.0]"),
        (WARMUP_FILE, lambda text: text.replace("batch", "own"), "does not hold the decays"),
        (WARMUP_FILE, replace("\n1,batch", "\n2,batch"), "step does not rise from 1"),
        (WARMUP_FILE, replace("\n3,batch", "\n2,batch"), "does not hold the same steps, up to 20"),
        (WARMUP_FILE, lambda text: text.replace("\n20,", "\n19,"), "does not hold the same steps, up to 20"),
        (RATE_FILE, lambda text: None, "cannot be read"),
        (RATE_FILE, replace("diverged", "broke"), "the columns seed, batch_size"),
        (RATE_FILE, replace("\n4,", "\n5,"), "is not one run of learning_rate 0.003 for each of the seeds [4, 2]"),
        (RATE_FILE, replace("0.003", "0.03"), "is not one run of learning_rate 0.003"),
        (BATCH_FILE, replace("\n4,64,", "\n4,65,"), "is not one run of batch_size 64"),
        (BATCH_FILE, replace(",30,0,0.5,0.", ",30,0,0.5,7."), "validation_accuracy is not always in [0, 1]"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(path: str, edit: Edit, fault: str) -> None:
    make_runs(["a", "b"], [0, 1])
    text = edit(Path(path).read_text())
    Path(path).unlink() if text is None else Path(path).write_text(text)
    with pytest.raises(BadInput) as raised:
        summarize(["a", "b"], [0, 1])
    message = str(raised.value)
    assert fault in message
    several = {"other targets": "metrics/evaluation: ", "runs end at the steps [201, 250]": "metrics/history: "}
    assert message.startswith(several.get(fault, f"{path}: "))
    assert "\n" not in message
    assert not Path("plots").exists()


def test_one_variant_and_one_seed_suffice() -> None:
    make_runs(["only"], [3], steps=[1])
    first = summarize(["only"], [3])
    shutil.rmtree("plots")
    assert summarize(["only"], [3]) == first
