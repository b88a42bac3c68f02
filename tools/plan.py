"""Say what `dvc repro` will run in both pipelines, why, and for how long by earlier runs: `make plan`. Changes nothing.

What is below a stage that runs *may* run: where its inputs come out as before, the chain stops.
"""

import json
import math
import statistics
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import networkx as nx
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.utils.flatten import flatten

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bnstudy import run
from bnstudy.launch import MISSING, restorable
from bnstudy.params import load
from bnstudy.study import params as study

WIDTH = 110
RUN, RESTORE, MAY, LACKS = "will run", "comes from the cache", "may run", "not here"


class Step(NamedTuple):
    stage: str  # as DVC calls it
    action: str
    why: str


def plan(repo: Any) -> list[Step]:
    """What `dvc repro --all-pipelines` does in `repo`, by DVC's graph and its comparison with the lock files."""
    graph, steps, planned = repo.index.graph, list[Step](), set[Any]()
    for stage in nx.dfs_postorder_nodes(graph):
        above = planned & nx.descendants(graph, stage)
        if why := "; ".join(reasons(stage)):
            found = not above and restorable(repo, stage)
            steps.append(Step(stage.addressing, RESTORE if found else RUN, why))
            planned.add(stage)
        elif above:
            steps.append(Step(stage.addressing, MAY, "where what it reads comes out different"))
            planned.add(stage)
        elif any(state in MISSING for out in stage.outs for state in out.status().values()):
            action = RESTORE if stage.outs_cached() else LACKS
            steps.append(Step(stage.addressing, action, "results that are not here"))
    return steps


def reasons(stage: Any) -> Iterator[str]:
    """Why DVC runs `stage` though all of its files were here."""
    if not any(dep.hash_info for dep in stage.deps):
        yield "never run"
        return
    if stage.cmd_changed:
        yield "another command"
    for dep in stage.deps:
        if isinstance(dep, ParamsDependency):
            old, new = flatten(dep.hash_info.value or {}), flatten(dep.read_params())
            for name in dict.fromkeys([*new, *old]):
                before, now = old.get(name, "nothing"), new.get(name, "nothing")
                if before != now:
                    yield f"{name}: {short(before)} -> {short(now)}"
        elif any(state not in MISSING for state in dep.status().values()):
            yield f"{dep} {'modified' if dep.hash_info else 'is a new dependency'}"
    for out in stage.outs:
        if any(state not in MISSING for state in out.status().values()):
            yield f"{out} is not what it wrote"


def short(value: Any) -> str:
    return textwrap.shorten(value if isinstance(value, str) else json.dumps(value), 40, placeholder=" ...")


def names(stages: list[str], known: list[str]) -> str:
    """Stages in few words: those of one matrix together."""
    words = []
    for kind in dict.fromkeys(stage.partition("@")[0] for stage in stages):
        mine, every = ([name for name in some if name.partition("@")[0] == kind] for some in (stages, known))
        some = f"{mine[0]} to {mine[-1].partition('@')[2]} ({len(mine)} of {len(every)})"
        whole = f"{kind} (all {len(every)})" if len(every) > 1 else kind
        words.append(whole if len(mine) == len(every) else ", ".join(mine) if len(mine) < 3 else some)
    return ", ".join(words).replace("dvc.yaml:", "")


def seconds(stages: list[str], logs: Path) -> float:
    """How long they take one after the other, by the median that the logs of their kind say; nan if unknown."""
    total = 0.0
    for stage in stages:
        kind, _, item = stage.replace("dvc.yaml:", "").partition("@")
        took = [json.loads(log.read_text())["seconds"] for log in (logs / kind).rglob("*.json")]
        if not took and item and kind != "evaluate":  # the others take seconds, and leave no log
            return math.nan
        total += statistics.median(took) if took else 0
    return total


def told(steps: list[Step], known: list[str], logs: Path = Path("logs")) -> list[str]:
    groups = dict[tuple[str, str], list[str]]()
    for step in sorted(steps, key=lambda step: (RUN, RESTORE, MAY, LACKS).index(step.action)):
        groups.setdefault((step.action, step.why), []).append(step.stage)
    lines = []
    for (action, why), stages in groups.items():
        took = 0 if action == RESTORE else seconds(stages, logs)
        time = "time unknown" if math.isnan(took) else f"{took / 60:.0f} min" if took >= 60 else "seconds"
        lines += textwrap.wrap(f"{action}: {names(stages, known)}; {time}", WIDTH, break_on_hyphens=False)
        lines.append(f"    {textwrap.shorten(why, WIDTH - 4, placeholder=' ...')}")
    if LACKS in {action for action, _ in groups}:
        lines.append("    `make records` brings what was recorded; `dvc repro` runs the rest, if not --allow-missing")
    return lines or ["nothing to run: the lock files have this code, these parameters and these outputs"]


def main() -> None:
    with Repo() as repo:
        load()
        study.load()
        print(*told(plan(repo), [stage.addressing for stage in repo.index.graph]), sep="\n")


if __name__ == "__main__":
    run(main, DvcException)
