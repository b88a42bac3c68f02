"""What the runs and `summarize` left behind, read and checked: `BadInput` names the file and what was expected there.

Only files that the parameters name are read: those of removed variants and seeds may still lie beside them.
"""

import json
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from bnstudy import BadInput
from bnstudy.engine.rows import HistoryRow, Row, SweepRow, WarmupRow
from bnstudy.params import Count, Fraction, InnerFraction, Study, Sweep, Warmup, allowed, describe

Kind = TypeVar("Kind")


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


Images = Annotated[int, allowed(lambda count: count >= 0, "is not a number of images")]
PerDigit = allowed(lambda values: len(values) == 10, "does not have one entry for each digit")


class Run(Record):
    """What `evaluate` records of one seed. `confusion` counts test images [actual, predicted].

    `environment` is that of the training, as `bnstudy.engine.device` tells it.
    """

    seed: int
    test_accuracy: Fraction
    test_loss: float
    steps_to: dict[InnerFraction, Count | None]
    confusion: Annotated[list[Annotated[list[Images], PerDigit]], PerDigit]
    environment: dict[str, str | int | bool | None]


class Evaluation(Record):
    """`metrics/evaluation/<variant>.json`."""

    variant: str
    runs: list[Run]


def to_json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def read_json(path: Path, kind: TypeAdapter[Kind]) -> Kind:
    try:
        return kind.validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); `dvc repro` writes it") from None
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise BadInput(f"{path}: {fault['msg'] if fault['type'] == 'json_invalid' else describe(fault)}") from None


def read_runs(study: Study) -> dict[str, list[Run]]:
    """The records of each variant, one per seed, in their order; all with the same targets."""
    runs = {variant: read_evaluation(variant, study.seeds) for variant in study.variants}
    targets = {tuple(record.steps_to) for records in runs.values() for record in records}
    if len(targets) > 1:
        raise BadInput(f"metrics/evaluation: steps_to has other targets in one record than in another: {targets}")
    return runs


def read_evaluation(variant: str, seeds: list[int]) -> list[Run]:
    path = Path("metrics/evaluation", f"{variant}.json")
    evaluation = read_json(path, TypeAdapter(Evaluation))
    runs = {record.seed: record for record in evaluation.runs}
    if evaluation.variant != variant or not runs.keys() >= set(seeds):
        found = f"{evaluation.variant} with seeds {sorted(runs)}"
        raise BadInput(f"{path}: holds {found}, not {variant} with seeds {seeds}; `dvc repro` writes it anew")
    return [runs[seed] for seed in seeds]


def read_histories(study: Study) -> pd.DataFrame:
    """The histories as `train` wrote them, after columns `variant` and `seed`; all end at the same step."""
    tables = {}
    for variant, seed in product(study.variants, study.seeds):
        path = Path("metrics/history", variant, f"{seed}.csv")
        tables[variant, seed] = read_rows(path, HistoryRow)
        check_rise(path, tables[variant, seed]["step"])
    ends = sorted({int(table["step"].iloc[-1]) for table in tables.values()})
    if len(ends) > 1:
        raise BadInput(f"metrics/history: runs end at the steps {ends}, not all at the same; `dvc repro` trains anew")
    return joined(tables, "variant", "seed")


def read_warmup(warmup: Warmup) -> pd.DataFrame:
    """The evaluations during warm-up after a column `seed`: for each seed and step every kind of statistics."""
    expected = {
        *(("moving", decay) for decay in warmup.decays),
        *(("corrected", decay) for decay in warmup.decays if 0 < decay < 1),
        *(("batch", -1.0), ("precise", -1.0)),
    }
    tables = {}
    for seed in warmup.seeds:
        path = Path("metrics/warmup", warmup.variant, f"{seed}.csv")
        table = read_rows(path, WarmupRow)
        series = {kind: rows["step"] for kind, rows in table.fillna({"decay": -1}).groupby(["statistics", "decay"])}
        if series.keys() != expected:
            raise BadInput(f"{path}: does not hold the decays {warmup.decays}; `dvc repro` writes it anew")
        for steps in series.values():
            check_rise(path, steps)
        if len({tuple(steps) for steps in series.values()}) > 1 or table["step"].max() != warmup.steps:
            raise BadInput(f"{path}: does not hold the same steps, up to {warmup.steps}, for all statistics")
        tables[seed] = table
    return joined(tables, "seed")


def read_sweep(sweep: Sweep) -> pd.DataFrame:
    """The sweep's runs after columns `variant` and `kind`: `rate` or `batch`, what was varied. One row per run.

    A run at the variant's own rate is one of both kinds, and was made once: its batch size is that of `train`.
    """
    settings = [("rate", "learning_rate", rate) for rate in sweep.learning_rates]
    settings += [("batch", "batch_size", size) for size in sweep.batch_sizes]
    tables = {}
    for variant, (kind, column, value) in product(sweep.variants, settings):
        path = Path("metrics/sweep", variant, f"{kind}_{value}.csv")
        table = read_rows(path, SweepRow)
        if list(table["seed"]) != sweep.seeds or set(table[column]) != {value}:
            raise BadInput(f"{path}: is not one run of {column} {value} for each of the seeds {sweep.seeds}")
        tables[variant, kind, value] = table
    table = joined(tables, "variant", "kind", "value").drop(columns="value")
    rates, batches = table[table["kind"] == "rate"], table[table["kind"] == "batch"]
    own = rates["variant"].map(batches.groupby("variant")["learning_rate"].first())
    shared = rates[(rates["learning_rate"] == own) & ~rates["batch_size"].isin(sweep.batch_sizes)]
    return pd.concat([table, shared.assign(kind="batch")], ignore_index=True)


def read_rows(path: Path, row: type[Row]) -> pd.DataFrame:
    """A table of `row`s, typed as its fields are; accuracies are fractions, other decimals may be missing or infinite.

    Each number is the float that was written to the last bit, unlike pandas' own reading.
    """
    table, types = read_csv(path, dtype=str), get_type_hints(row)
    if list(table) != list(types) or table.empty:
        raise BadInput(f"{path}: does not have the columns {', '.join(types)} and a row; `dvc repro` writes it anew")
    for name, kind in types.items():
        if kind is not str:
            try:
                table[name] = table[name].astype(int if kind is int else float)
            except (ValueError, OverflowError):
                what = "a whole number" if kind is int else "a number"
                raise BadInput(f"{path}: {name} is not always {what}") from None
        if name.endswith("_accuracy") and not table[name].between(0, 1).all():
            raise BadInput(f"{path}: {name} is not always in [0, 1]")
    return table


def read_tidy(path: Path, columns: list[str]) -> pd.DataFrame:
    """A table that `summarize` wrote, with numbers in `columns`; infinite ones as missing."""
    table = read_csv(path, dtype={"variant": str}, keep_default_na=False, na_values=[""])  # a variant may be "null"
    if table.empty or not set(columns) <= set(table.select_dtypes("number").columns):
        raise BadInput(f"{path}: does not have numbers in {', '.join(columns)}; `dvc repro` writes it anew")
    return table.replace([np.inf, -np.inf], np.nan)


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    try:
        table: pd.DataFrame = pd.read_csv(path, **options)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); `dvc repro` writes it") from None
    except ValueError as error:
        raise BadInput(f"{path}: is not a table ({' '.join(str(error).split())}); `dvc repro` writes it anew") from None
    return table


def check_rise(path: Path, steps: "pd.Series[int]") -> None:
    if steps.iloc[0] != 1 or not steps.is_monotonic_increasing or not steps.is_unique:
        raise BadInput(f"{path}: step does not rise from 1")


def joined(tables: dict[Any, pd.DataFrame], *names: str) -> pd.DataFrame:
    """The tables below each other, after columns `names` with what each stands under."""
    together: pd.DataFrame = pd.concat(tables, names=[*names, "row"])
    return together.reset_index().drop(columns="row")
