"""How the pipeline chooses learning rates, on the tuning seeds, and what an arm becomes by it."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import numpy as np
import pandas as pd

from bnstudy.analysis.crossing import crossing
from bnstudy.params import Arm, Averages, Finalist, Network, Params, Section
from bnstudy.settings import Setting, setting

Edge = Literal["lowest", "highest"]


class Choice(Section):
    """A network's rate by the sweep: the best validation accuracy, a fraction, mean over the tuning seeds.

    `edge`: it is the lowest or highest that was tried, so that the true best may lie beyond. `overruled`: the rate is
    that of params.yaml.
    """

    rate: float
    accuracy: float | None
    edge: Edge | None
    overruled: bool


class Final(Section):
    """A finalist's rate by the refinement: the fewest updates to the target, geometric mean over the tuning seeds.

    `updates`: None where no seed got there at any of the rates.
    """

    network: str
    rate: float
    updates: float | None
    edge: Edge | None
    overruled: bool


class Choices(Section):
    """Everything that was chosen: `settings/choices.json`. `contest` names the finalist without batch norm and with."""

    networks: dict[str, Choice]
    finalists: dict[str, Final]
    contest: dict[Literal["without", "with"], str]

    def lines(self) -> Iterator[str]:
        """What was chosen, one line each."""
        for name, found in self.networks.items():
            yield f"{name}: rate {found.rate:g}{remark(found)}"
        for name, final in self.finalists.items():
            updates = "never" if final.updates is None else f"after {final.updates:.0f} updates"
            yield f"{name}: {final.network} at the rate {final.rate:g}, there {updates}{remark(final)}"


def remark(found: Choice | Final) -> str:
    if found.overruled:
        return " (as params.yaml says)"
    return f" (the {found.edge} of those tried: the best may lie beyond)" if found.edge else ""


def times(rate: float, factor: float) -> float:
    """`rate` times `factor`, to 3 significant digits."""
    return float(f"{rate * factor:.3g}")


def edge_of(value: float, values: Iterable[float]) -> Edge | None:
    """Whether `value` is an end of `values`; None also where there is but one."""
    ends = min(values := list(values)), max(values)
    if ends[0] == ends[1]:
        return None
    return "lowest" if value == ends[0] else "highest" if value == ends[1] else None


def choose_rates(sweep: pd.DataFrame, networks: Mapping[str, Network]) -> dict[str, Choice]:
    """Each swept network's choice. `sweep` as `records.read_sweep` reads it."""
    choices = {}
    for name, table in sweep.groupby("network", sort=False):
        accuracies = table.groupby("learning_rate")["validation_accuracy"].mean()
        own, best = networks[str(name)].rate, float(str(accuracies.idxmax()))
        choices[str(name)] = Choice(
            rate=best if own == "chosen" else own,
            accuracy=digits(accuracies[best]),
            edge=edge_of(best, accuracies.index),
            overruled=own != "chosen",
        )
    return choices


def shortlist(finalist: str, choices: Mapping[str, Choice], networks: Mapping[str, Network]) -> str:
    """The swept network of the finalist's kind with the best accuracy; the first of equal ones."""
    kind = [name for name in choices if networks[name].kind() == finalist]
    return max(kind, key=lambda name: choices[name].accuracy or 0.0)


def updates_to(table: pd.DataFrame, target: float) -> list[float]:
    """Updates until each seed's validation accuracy reached `target`, see `crossing`; infinite where it never did."""
    times = []
    for _, rows in table.groupby("seed"):
        found = crossing(list(rows["step"]), list(rows["validation_accuracy"]), target)
        times.append(found.by if found.interpolated is None else found.interpolated)
    return times


def slowness(times: list[float]) -> tuple[int, float]:
    """What orders rates: how many seeds never got there, then the mean logarithm of the others' updates."""
    reached = [math.log(time) for time in times if math.isfinite(time)]
    return len(times) - len(reached), float(np.mean(reached)) if reached else math.inf


def refined(network: str, own: float | Literal["chosen"], table: pd.DataFrame, target: float) -> Final:
    """A finalist's choice; where no rate gets any seed to the target, that of the best last accuracy."""
    by_rate = {float(str(rate)): rows for rate, rows in table.groupby("learning_rate")}
    order = {rate: slowness(updates_to(rows, target)) for rate, rows in by_rate.items()}
    last = {rate: rows.groupby("seed")["validation_accuracy"].last().mean() for rate, rows in by_rate.items()}
    best = min(order, key=lambda rate: (order[rate], -last[rate]))
    updates = order[best][1]
    return Final(
        network=network,
        rate=best if own == "chosen" else own,
        updates=digits(math.exp(updates)) if math.isfinite(updates) else None,
        edge=edge_of(best, order),
        overruled=own != "chosen",
    )


def choose(
    params: Params, networks: Mapping[Finalist, str], sweep: pd.DataFrame, refine: Mapping[str, pd.DataFrame]
) -> Choices:
    """All choices, from the sweep and from the refinement of each finalist, of which `networks` names the network."""
    finalists, order = dict[str, Final](), dict[str, tuple[int, float]]()
    for finalist, network in networks.items():
        own, target = params.networks[network].rate, params.refine.target
        finalists[finalist] = refined(network, own, refine[finalist], target)
        chosen = refine[finalist][refine[finalist]["learning_rate"] == finalists[finalist].rate]
        order[finalist] = slowness(updates_to(chosen, target))
    contest: dict[Literal["without", "with"], str] = {"without": "without"} if "without" in finalists else {}
    if normalized := [name for name in finalists if name != "without"]:
        contest["with"] = min(normalized, key=lambda name: order[name])
    return Choices(networks=choose_rates(sweep, params.networks), finalists=finalists, contest=contest)


def resolve(params: Params, choices: Choices, arm: Arm | Averages, steps: int | None) -> Setting:
    """The setting of an arm, for `steps` updates in place of its own."""
    final = choices.finalists.get(arm.network)
    network = final.network if final else arm.network
    if arm.rate == "note":
        rate = params.train.learning_rate.initial
    elif arm.rate == "baseline":
        rate = choices.finalists["without"].rate
    elif arm.rate == "own":
        own = final or choices.networks.get(network) or params.networks[network]  # the last: `cannot_resolve`
        rate = float(own.rate)
    else:
        rate = arm.rate
    ramp_steps = arm.ramp_steps if isinstance(arm, Arm) else None
    return setting(params, network, rate, steps or arm.steps, ramp_steps=ramp_steps)


def digits(value: float) -> float:
    """`value` to 6 significant digits, fewer than two machines may differ in; no -0.0."""
    return float(f"{value:z.6g}")
