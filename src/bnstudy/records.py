"""What the runs left behind, read and checked: `BadInput` names the file and what was expected there.

Only files that the parameters name are read: those of removed arms and seeds may still lie beside them.
"""

import io
from itertools import product
from pathlib import Path
from typing import Any, get_type_hints

import pandas as pd

from bnstudy import BadInput
from bnstudy.engine.grid import evaluations, tested
from bnstudy.engine.rows import AveragesRow, HistoryRow, MechanismRow, Row, ShortRow
from bnstudy.params import Averages, Batch, Mechanism, Refine, Section, Study, Sweep, Tolerance
from bnstudy.settings import BACK, read, read_json, read_setting

METRICS, REPRODUCTIONS = Path("metrics"), Path("reproductions")
Environment = dict[str, str | int | bool | None]  # as `bnstudy.engine.device` tells it


class Reproduction(Section):
    """A run that was made again, as `make verify VERIFY=--record` leaves it in `reproductions/`."""

    study: str  # "first version", or the commit
    run: str  # its stage
    made_in: Environment
    again_in: Environment
    same: bool  # every byte; between kinds of machines, which models name, every table
    accuracies: tuple[float, float] | None  # if not: the last validation accuracy, recorded and again …
    seeds: tuple[float, float] | None  # … and the least and greatest of all seeds, where each has a run of its own

    def machines(self) -> str:
        made, again = (where.get("gpu") or where["processor"] for where in (self.made_in, self.again_in))
        return f"On {again}" if made == again else f"Made on {made}, again on {again}"

    def told(self) -> str:
        run = f"{self.run} of the first version" if self.study == "first version" else self.run
        if self.same:
            return f"{run} the same bytes"
        if not self.accuracies:
            return f"{run} other bytes"
        old, new = self.accuracies
        among = f" (its seeds {self.seeds[0]:.2%} to {self.seeds[1]:.2%})" if self.seeds else " in its last row"
        return f"{run} {new:.2%} in place of {old:.2%}{among}"


def read_reproductions() -> list[Reproduction]:
    return [read_json(path, Reproduction) for path in sorted(REPRODUCTIONS.glob("*.json"))]


def read_environment(name: str) -> Environment:
    """In what environment the run `name` was made, like `train/note_plain/10`."""
    return read_json(METRICS / f"{name}.json", Environment)


def read_sweep(sweep: Sweep) -> pd.DataFrame:
    """The runs of the sweep after a column `network`: one row per network, rate and seed."""
    tables = {}
    for network in sweep.networks:
        path = METRICS / "sweep" / f"{network}.csv"
        tables[network] = read_rows(path, ShortRow)
        check_runs(path, tables[network], sweep.learning_rates, sweep.seeds)
    return joined(tables, "network")


def read_refine(refine: Refine) -> dict[str, pd.DataFrame]:
    """The runs of each finalist at every factor: one row per rate, seed and evaluation."""
    tables = {}
    for finalist, factor in product(refine.finalists, refine.factors):
        path = METRICS / "refine" / finalist / f"{factor}.csv"
        tables[finalist, factor] = read_rows(path, ShortRow)
        check_seeds(path, tables[finalist, factor], refine.seeds)
    return {
        finalist: pd.concat([tables[finalist, factor] for factor in refine.factors], ignore_index=True)
        for finalist in refine.finalists
    }


def read_tolerance(tolerance: Tolerance, study: Study) -> pd.DataFrame:
    """The short runs of the contest's networks after a column `contestant`: one row per rate and seed."""
    tables = {}
    for contestant, seed in product(tolerance.contestants, study.seeds):
        path = METRICS / "tolerance" / contestant / f"{seed}.csv"
        tables[contestant, seed] = read_rows(path, ShortRow)
        check_runs(path, tables[contestant, seed], tolerance.learning_rates, [seed])
    return joined({key: table.drop(columns="seed") for key, table in tables.items()}, "contestant", "seed")


def read_batch(batch: Batch) -> pd.DataFrame:
    """The runs by batch size after a column `contestant`: one row per size, rate and seed, those of tuning too."""
    tables = {}
    for contestant, size in product(batch.contestants, batch.sizes):
        path = METRICS / "batch" / contestant / f"{size}.csv"
        tables[contestant, size] = read_rows(path, ShortRow)
        check_seeds(path, tables[contestant, size], [*batch.tuning_seeds, *batch.seeds])
    return joined(tables, "contestant", "cell").drop(columns="cell")


def read_histories(study: Study) -> pd.DataFrame:
    """The histories of the arms after columns `arm` and `seed`, each as long as its own setting says."""
    tables = {}
    for arm, seed in product(study.arms, study.seeds):
        tables[arm, seed] = read_history(METRICS / "train" / arm / f"{seed}.csv", f"train/{arm}/{seed}")
    return joined(tables, "arm", "seed")


def read_history(path: Path, name: str) -> pd.DataFrame:
    table, setting = read_rows(path, HistoryRow), read_setting(name)
    if list(table["step"]) != evaluations(setting):
        raise BadInput(f"{path}: does not hold the evaluations of settings/{name}.json; `dvc repro` trains anew")
    if list(table.loc[table["test_accuracy"].notna(), "step"]) != tested(setting):
        raise BadInput(f"{path}: the test split was not evaluated where settings/{name}.json says")
    return table


def read_averages(averages: Averages, study: Study) -> pd.DataFrame:
    """The evaluations by every kind of statistics after a column `seed`, for each seed and step."""
    expected = {
        *(("moving", decay) for decay in averages.decays),
        *(("corrected", decay) for decay in averages.decays if 0 < decay < 1),
        *(("batch", -1.0), ("precise", -1.0)),
    }
    tables = {}
    for seed in study.seeds:
        path, steps = METRICS / "averages" / f"{seed}.csv", evaluations(read_setting(f"averages/{seed}"))
        table = read_rows(path, AveragesRow)
        found = set(zip(table["step"], table["statistics"], table["decay"].fillna(-1.0), strict=True))
        if found != {(step, *kind) for step in steps for kind in expected}:
            raise BadInput(f"{path}: does not hold the evaluations of settings/averages/{seed}.json for all statistics")
        tables[seed] = table
    return joined(tables, "seed")


def read_averages_histories(study: Study) -> pd.DataFrame:
    """The histories of the runs that carried the averages, after a column `seed`."""
    histories = {
        seed: read_history(METRICS / "averages/history" / f"{seed}.csv", f"averages/{seed}") for seed in study.seeds
    }
    return joined(histories, "seed")


def read_mechanism(mechanism: Mechanism) -> pd.DataFrame:
    """The finished networks with a part of the start mixed in: one row per seed, mixture and weight of the start."""
    tables = []
    for seed in mechanism.seeds:
        path = METRICS / "mechanism" / f"{seed}.csv"
        table = read_rows(path, MechanismRow)
        check_seeds(path, table, [seed])
        if set(table.groupby(["where", "what"]).size()) != {mechanism.points}:
            raise BadInput(f"{path}: does not hold {mechanism.points} values of the start's weight for every mixture")
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def check_runs(path: Path, table: pd.DataFrame, rates: list[float], seeds: list[int]) -> None:
    if list(zip(table["learning_rate"], table["seed"], strict=True)) != list(product(rates, seeds)):
        raise BadInput(f"{path}: is not one run at each of the rates {rates} from each of the seeds {seeds}")


def check_seeds(path: Path, table: pd.DataFrame, seeds: list[int]) -> None:
    if list(table["seed"].unique()) != seeds:
        raise BadInput(f"{path}: is not of the seeds {seeds}; `dvc repro` writes it anew")


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
        if name.endswith("accuracy") and not table[name].dropna().between(0, 1).all():
            raise BadInput(f"{path}: {name} is not always in [0, 1]")
    return table


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    content = read(path)
    try:
        if not content.endswith(b"\n"):
            raise ValueError("it ends within a line")
        table: pd.DataFrame = pd.read_csv(io.BytesIO(content), **options)
    except ValueError as error:
        raise BadInput(f"{path}: is not a table ({' '.join(str(error).split())}); {BACK}") from None
    return table


def read_plot(name: str) -> pd.DataFrame:
    """`plots/<name>.csv`, as `evaluate` writes it."""
    return read_csv(Path("plots", f"{name}.csv"))


def joined(tables: dict[Any, pd.DataFrame], *names: str) -> pd.DataFrame:
    """The tables stacked, with their keys as leading columns `names`."""
    together: pd.DataFrame = pd.concat(tables, names=[*names, "row"])
    return together.reset_index().drop(columns="row")
