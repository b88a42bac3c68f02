"""What the runs left in `study/runs/`, read and checked: `BadInput` names the file and what was expected there.

Only files that the parameters name are read: those of removed arms and seeds may still lie beside them. Each number is
the float that was written, to the last bit.
"""

import io
import json
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import pandas as pd

from bnstudy import BadInput
from bnstudy.engine.rows import AveragesRow, HistoryRow, MechanismRow, Row, SweepRow
from bnstudy.engine.schedule import geometric
from bnstudy.study.claim import Missing
from bnstudy.study.crossing import IN_A_ROW

if TYPE_CHECKING:
    from bnstudy.study.params import Study

RUNS = Path("study/runs")
BACK = "`dvc repro` makes it anew, `make records` brings back the study's"


@dataclass(frozen=True)
class Results:
    """What the claims are judged by: the runs' tables, each after columns that say of which run, and the parameters."""

    curves: pd.DataFrame  # arm, seed; of arms that follow averages and long ones too
    averages: pd.DataFrame  # network, seed
    sweep: pd.DataFrame  # entry
    mechanism: pd.DataFrame  # seed
    params: "Study"

    def runs(self, arm: str) -> dict[int, pd.DataFrame]:
        """The histories of an arm, by seed."""
        rows = self.curves[self.curves["arm"] == arm]
        if rows.empty:
            raise Missing(f"no runs of {arm}")
        return {int(str(seed)): run for seed, run in rows.groupby("seed")}

    @cached_property
    def kinds(self) -> dict[tuple[str, str, float], dict[int, pd.DataFrame]]:
        """The evaluations of a network by one kind of statistics and decay (-1: it has none), by seed and step."""
        found: dict[tuple[str, str, float], dict[int, pd.DataFrame]] = {}
        table = self.averages.fillna({"decay": -1.0}).set_index("step")
        groups: Any = table.groupby(["network", "statistics", "decay", "seed"])
        for (network, statistics, decay, seed), rows in groups:
            found.setdefault((network, statistics, decay), {})[int(seed)] = rows
        return found

    def kind(self, network: str, statistics: str, decay: float = -1.0) -> dict[int, pd.DataFrame]:
        found = self.kinds.get((network, statistics, decay))
        if found is None:
            raise Missing(f"no {statistics} statistics{'' if decay < 0 else f' of decay {decay:g}'} in {network}")
        return found

    def gaps(self, network: str, decay: float, statistics: str = "moving") -> "dict[int, pd.Series[float]]":
        """By step, accuracy by averages minus that by precise statistics, to 9 decimals; for each seed."""
        precise = self.kind(network, "precise")
        return {
            seed: (rows["accuracy"] - precise[seed]["accuracy"].reindex(rows.index)).round(9)
            for seed, rows in self.kind(network, statistics, decay).items()
        }


def read_results(params: "Study") -> Results:
    seeds = params.seeds
    curves = {(arm, seed): read_history(f"train/{arm}/{seed}", params) for arm, seed in product(params.arms, seeds)}
    averages = {}
    for network, seed in product(params.averages, seeds):
        curves[network, seed] = read_history(f"averages/{network}/{seed}.history", params)
        averages[network, seed] = read_averages(f"averages/{network}/{seed}", params)
    for arm, seed in product(params.long.arms, params.long.seeds):
        curves[arm, seed] = read_history(f"long/{arm}/{seed}", params)
    return Results(
        curves=joined(curves, HistoryRow, "arm", "seed"),
        averages=joined(averages, AveragesRow, "network", "seed"),
        sweep=joined({entry: read_sweep(entry, params) for entry in params.swept}, SweepRow, "entry"),
        mechanism=joined({one: read_mechanism(one, params) for one in params.mechanism.seeds}, MechanismRow, "seed"),
        params=params,
    )


def read_history(name: str, params: "Study") -> pd.DataFrame:
    """A history with all its evaluations, those by averages less their start too, and the last of the test split."""
    arm, when = name.split("/")[1], params.evaluation
    steps = ({**params.arms, **params.averages, **params.long.arms})[arm].steps
    path, table = read_rows(name, HistoryRow)
    expected = {*geometric(steps, when.first, when.per_decade), *(step for step in when.moments if step < steps)}
    check(path, list(table["step"]), sorted({*table["step"]} | expected), f"evaluations up to update {steps}")
    check(path, table["step"].iloc[-1], steps, f"{steps} updates")
    whole = table["corrected_accuracy"].notna().all() and pd.notna(table["test_accuracy"].iloc[-1])
    check(path, whole, True, "every evaluation by averages less their start, and the last of the test split")
    return table


def read_averages(name: str, params: "Study") -> pd.DataFrame:
    """The evaluations by every kind of statistics; precise ones wherever there are others."""
    setting = params.averages[name.split("/")[1]]
    path, table = read_rows(name, AveragesRow)
    kinds = set(table.groupby(["statistics", table["decay"].fillna(-1.0)]).groups)
    expected = {("precise", -1.0), ("batch", -1.0)} | {("moving", decay) for decay in setting.decays}
    expected |= {("corrected", decay) for decay in setting.decays if 0 < decay < 1}
    check(path, expected - kinds, set(), f"averages of the decays {setting.decays}, batch and precise statistics")
    precise = table[table["statistics"] == "precise"]
    check(path, set(precise["step"]), set(table["step"]), "precise statistics at every evaluation")
    check(path, table["step"].max(), setting.steps, f"{setting.steps} updates")
    check(path, table.duplicated(["step", "statistics", "decay"]).any(), False, "one row for each kind of statistics")
    return table


def read_sweep(entry: str, params: "Study") -> pd.DataFrame:
    """The runs of an entry, each to its last update, to its target or to where it diverged."""
    setting = params.sweep[entry]
    path, table = read_rows(f"sweep/{entry}", SweepRow)
    runs = set(zip(table["learning_rate"], table["seed"], strict=True))
    rates, seeds = setting.learning_rates, setting.seeds
    check(path, runs, set(product(rates, seeds)), f"runs at the rates {rates} from the seeds {seeds}")
    for _, one in table.groupby(["learning_rate", "seed"]):
        last, best = one.iloc[-1], one["corrected_accuracy"].tail(IN_A_ROW)
        there = setting.target is not None and (best >= setting.target).sum() == IN_A_ROW
        check(path, last["step"] == setting.steps or last["diverged"] or there, True, f"{setting.steps} updates")
    return table


def read_mechanism(seed: int, params: "Study") -> pd.DataFrame:
    path, table = read_rows(f"mechanism/{seed}", MechanismRow)
    points = params.mechanism.points
    check(path, set(table.groupby(["where", "what"]).size()), {points}, f"{points} weights of the start each")
    return table


def read_environments(params: "Study") -> dict[str, dict[str, Any]]:
    """In what environment each run was made, by its name, like `train/note_plain/22`."""
    names: list[tuple[Any, ...]] = [
        *product(["sweep"], params.swept),
        *product(["train"], params.arms, params.seeds),
        *product(["averages"], params.averages, params.seeds),
        *product(["long"], params.long.arms, params.long.seeds),
        *product(["mechanism"], params.mechanism.seeds),
    ]
    found = {}
    for parts in names:
        name = "/".join(map(str, parts))
        path = RUNS / f"{name}.json"
        try:
            found[name] = json.loads(read(path))
        except ValueError:
            raise BadInput(f"{path}: is not JSON; {BACK}") from None
        check(path, isinstance(found[name], dict), True, "an environment")
        check(path, found[name].pop("parameters", None), parameters_of(params, *parts[:2]), "a run of the parameters")
    return found


def parameters_of(params: "Study", stage: str, name: str) -> dict[str, Any]:
    """What the runs of `name` record of the parameters that defined them."""
    if stage == "mechanism":
        return params.definition("averages", "note_batch_norm") | {"points": params.mechanism.points}
    return params.definition(stage, name)


def read_rows(name: str, row: type[Row]) -> tuple[Path, pd.DataFrame]:
    """`study/runs/<name>.csv` as a table of `row`s, typed as its fields are; accuracies are fractions."""
    path, types = RUNS / f"{name}.csv", get_type_hints(row)
    content = read(path)
    try:
        if not content.endswith(b"\n"):
            raise ValueError("it is empty or ends within a line")
        table = pd.read_csv(io.BytesIO(content), dtype=str)
    except ValueError as error:
        raise BadInput(f"{path}: is not a table ({' '.join(str(error).split())}); {BACK}") from None
    check(path, list(table) == list(types) and not table.empty, True, f"the columns {', '.join(types)} and a row")
    for column, kind in types.items():
        if kind is not str:
            try:
                table[column] = table[column].astype(int if kind is int else float)
            except (ValueError, OverflowError):
                raise BadInput(f"{path}: {column} is not always a {'whole ' * (kind is int)}number; {BACK}") from None
        if column.endswith("accuracy") and not table[column].dropna().between(0, 1).all():
            raise BadInput(f"{path}: {column} is not always in [0, 1]; {BACK}")
    return path, table


def check(path: Path, found: object, expected: object, what: str) -> None:
    if found != expected:
        raise BadInput(f"{path}: does not hold {what}; {BACK}")


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); {BACK}") from None


def joined(tables: dict[Any, pd.DataFrame], row: type[Row], *names: str) -> pd.DataFrame:
    """The tables stacked, with their keys as leading columns `names`; without any, an empty one."""
    if not tables:
        return pd.DataFrame(columns=[*names, *row._fields])
    together: pd.DataFrame = pd.concat(tables, names=[*names, "row"])
    return together.reset_index().drop(columns="row")
