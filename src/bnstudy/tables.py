"""What the runs left behind, read and checked for `summarize`: `BadInput` names the file and what was expected there.

Only files that the parameters name are read: those of removed variants and seeds may still lie beside them.
"""

from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from bnstudy.params import BadInput, Count, Fraction, InnerFraction, Study, Sweep, Warmup, allowed, describe

HISTORY = [
    *("step", "learning_rate", "train_loss", "hidden_15", "hidden_50", "hidden_85", "batch_loss", "batch_accuracy"),
    *("validation_loss", "validation_accuracy", "test_loss", "test_accuracy"),
]
WARMUP = ["step", "statistics", "decay", "test_loss", "test_accuracy"]
SWEEP = [
    *("seed", "batch_size", "learning_rate", "step", "diverged"),
    *("train_loss", "validation_accuracy", "test_accuracy"),
]
WHOLE = {"step", "seed", "batch_size", "diverged"}

Images = Annotated[int, allowed(lambda count: count >= 0, "is not a number of images")]
PerDigit = allowed(lambda values: len(values) == 10, "is not one entry a digit")


class Run(BaseModel):
    """What `evaluate` records of one seed. `confusion` counts test images [actual, predicted].

    `environment` is that of the training, as `bnstudy.device` tells it.
    """

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    seed: int
    test_accuracy: Fraction
    test_loss: float
    steps_to: dict[InnerFraction, Count | None]
    confusion: Annotated[list[Annotated[list[Images], PerDigit]], PerDigit]
    environment: dict[str, str | int | bool | None]


class Evaluation(BaseModel):
    """`metrics/evaluation/<variant>.json`."""

    model_config = ConfigDict(frozen=True, strict=True)

    variant: str
    runs: list[Run]


def read_runs(study: Study) -> dict[str, list[Run]]:
    """The records of each variant, one a seed, in their order; all with the same targets."""
    runs = {variant: read_evaluation(variant, study.seeds) for variant in study.variants}
    targets = {tuple(record.steps_to) for records in runs.values() for record in records}
    if len(targets) > 1:
        raise BadInput(f"metrics/evaluation: steps_to has other targets in one record than in another: {targets}")
    return runs


def read_evaluation(variant: str, seeds: list[int]) -> list[Run]:
    path = Path("metrics/evaluation", f"{variant}.json")
    try:
        evaluation = Evaluation.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); `dvc repro` writes it") from None
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise BadInput(f"{path}: {fault['msg'] if fault['type'] == 'json_invalid' else describe(fault)}") from None
    runs = {record.seed: record for record in evaluation.runs}
    if evaluation.variant != variant or not runs.keys() >= set(seeds):
        found = f"{evaluation.variant} with seeds {sorted(runs)}"
        raise BadInput(f"{path}: holds {found}, not {variant} with seeds {seeds}; `dvc repro` writes it anew")
    return [runs[seed] for seed in seeds]


def read_histories(study: Study) -> pd.DataFrame:
    """The histories as `train` wrote them, after columns `variant` and `seed`; all end at the same step."""
    tables = []
    for variant in study.variants:
        for seed in study.seeds:
            path = Path("metrics/history", variant, f"{seed}.csv")
            table = read_table(path, HISTORY)
            rises(path, table["step"])
            tables.append(labelled(table, variant=variant, seed=seed))
    ends = sorted({int(table["step"].iloc[-1]) for table in tables})
    if len(ends) > 1:
        raise BadInput(f"metrics/history: runs end at the steps {ends}, not all at the same; `dvc repro` trains anew")
    return pd.concat(tables, ignore_index=True)


def read_warmup(warmup: Warmup) -> pd.DataFrame:
    """The evaluations during warm-up after a column `seed`: for each seed and step every kind of statistics."""
    expected = {
        *(("moving", decay) for decay in warmup.decays),
        *(("corrected", decay) for decay in warmup.decays if 0 < decay < 1),
        *(("batch", -1.0), ("precise", -1.0)),
    }
    tables = []
    for seed in warmup.seeds:
        path = Path("metrics/warmup", warmup.variant, f"{seed}.csv")
        table = read_table(path, WARMUP)
        series = {kind: rows["step"] for kind, rows in table.fillna({"decay": -1}).groupby(["statistics", "decay"])}
        if series.keys() != expected:
            raise BadInput(f"{path}: has not moving averages of the decays {warmup.decays}; `dvc repro` writes it anew")
        for steps in series.values():
            rises(path, steps)
        if len({tuple(steps) for steps in series.values()}) > 1 or table["step"].max() != warmup.steps:
            raise BadInput(f"{path}: has not the same steps, up to {warmup.steps}, for all statistics")
        tables.append(labelled(table, seed=seed))
    return pd.concat(tables, ignore_index=True)


def read_sweep(sweep: Sweep) -> pd.DataFrame:
    """The sweep's runs after columns `variant` and `kind`: `rate` or `batch`, what was varied. A row a run.

    A run at the variant's own rate is one of both kinds, and was made once: its batch size is that of `train`.
    """
    settings = [("rate", "learning_rate", rate) for rate in sweep.learning_rates]
    settings += [("batch", "batch_size", size) for size in sweep.batch_sizes]
    tables = []
    for variant in sweep.variants:
        for kind, column, value in settings:
            path = Path("metrics/sweep", variant, f"{kind}_{value}.csv")
            table = read_table(path, SWEEP)
            if list(table["seed"]) != sweep.seeds or set(table[column]) != {value}:
                raise BadInput(f"{path}: is not one run of {column} {value} for each of the seeds {sweep.seeds}")
            tables.append(labelled(table, variant=variant, kind=kind))
    table = pd.concat(tables, ignore_index=True)
    rates, batches = table[table["kind"] == "rate"], table[table["kind"] == "batch"]
    own = rates["variant"].map(batches.groupby("variant")["learning_rate"].first())
    shared = rates[(rates["learning_rate"] == own) & ~rates["batch_size"].isin(sweep.batch_sizes)]
    return pd.concat([table, shared.assign(kind="batch")], ignore_index=True)


def read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    """A table of exactly `columns`: whole numbers in WHOLE, fractions as accuracies, words in `statistics`.

    Other numbers may be missing or infinite. Each is the float that was written to the last bit, unlike pandas' own.
    """
    try:
        table = pd.read_csv(path, dtype=str)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); `dvc repro` writes it") from None
    except ValueError as error:
        raise BadInput(f"{path}: is not a table ({' '.join(str(error).split())})") from None
    if list(table) != columns or table.empty:
        raise BadInput(f"{path}: has not rows with the columns {', '.join(columns)}")
    for name in [name for name in columns if name != "statistics"]:
        whole = name in WHOLE
        try:
            table[name] = table[name].astype(int if whole else float)
        except (ValueError, OverflowError):
            raise BadInput(f"{path}: {name} holds something else than {'whole ' * whole}numbers") from None
        if name.endswith("_accuracy") and not table[name].between(0, 1).all():
            raise BadInput(f"{path}: {name} is not always in [0, 1]")
    return table


def rises(path: Path, steps: "pd.Series[int]") -> None:
    if steps.iloc[0] != 1 or not steps.is_monotonic_increasing or not steps.is_unique:
        raise BadInput(f"{path}: step does not rise from 1")


def labelled(table: pd.DataFrame, **labels: str | int) -> pd.DataFrame:
    """`table` after columns that hold one value each."""
    for place, (name, value) in enumerate(labels.items()):
        table.insert(place, name, value)
    return table
