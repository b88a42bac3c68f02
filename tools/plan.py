"""Say what `dvc repro` will run, what it may run, and why: `python tools/plan.py`, or `make plan`.

`dvc status` names the stages that a change reaches itself. Those below them are here too: they *may* run, since a stage
whose bytes come out the same stops the chain. The settings that trainings depend on are resolved here, in a folder of
its own, so that a change which reaches one arm threatens no other. No file of the study changes.
"""

import csv
import hashlib
import json
import logging
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import networkx as nx
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.utils.flatten import flatten
from dvc_data.hashfile.hash_info import HashInfo

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bnstudy import BadInput, run
from bnstudy.params import load
from bnstudy.waves import MISSING

WIDTH, LINES = 100, 30
COST = Path("benchmarks/results/cost.csv")  # of each run of the committed study
RESOLVERS = {"check", "shortlist", "tune"}  # what they write follows in a second from params.yaml and the records
RUNS = {"sweep", "refine", "train", "averages", "mechanism", "tolerance", "batch"}  # scripts that take longer
RUN, RESTORE, MAY = "will run", "restores", "may run"


@dataclass(frozen=True)
class Step:
    stage: str
    action: str
    reasons: tuple[str, ...]
    changed: bool = True  # by itself, not only below something that is


@dataclass(frozen=True)
class Plan:
    steps: list[Step]  # in DVC's order
    missing: list[str]  # stages that are up to date but for files that are not here
    first: list[str]  # those of them whose outputs a step reads
    commands: dict[str, str]  # of all stages


def plan(repo: Repo) -> Plan:
    """What `dvc repro` does in `repo`, by DVC's own graph and its own comparison with dvc.lock."""
    with TemporaryDirectory() as folder:
        return plan_in(repo, Path(folder))


def plan_in(repo: Repo, trial: Path) -> Plan:
    """The same; settings are resolved in the empty folder `trial`."""
    graph = repo.index.graph
    found = Plan([], [], [], {stage.addressing: stage.cmd for stage in graph})
    planned, lacking = set[Any](), dict[Any, None]()  # the latter in order
    resolved = dict[str, str]()  # path of a file that will differ: the stage that writes it
    done = list[str]()  # outputs in `trial`
    for stage in nx.dfs_postorder_nodes(graph):
        files = [file for file in (*stage.deps, *stage.outs) if not isinstance(file, ParamsDependency)]
        status = {file: state for file in files for state in file.status().values()}
        status |= {dep: "deleted" for dep in stage.deps if status.get(dep) == "modified" and made_whole(dep, graph)}
        why = tuple(reasons(stage, status, resolved, done, trial))
        missing = {file for file, state in status.items() if state in MISSING}
        above = planned & nx.descendants(graph, stage)
        if why or above:
            differ = resolve(stage, trial) if stage.addressing in RESOLVERS and not above else None
            action = RESTORE if why and not above and restorable(stage, resolved, trial) else RUN if why else MAY
            reason = why or (below(planned & set(graph[stage])),)
            found.steps.append(Step(stage.addressing, action, reason, bool(why)))
            if differ is None:
                planned.add(stage)
            else:
                resolved |= dict.fromkeys(differ, stage.addressing)
                done += [str(out) for out in stage.outs]
        if missing & set(stage.outs) and not why:
            if above or lacking.keys() & nx.descendants(graph, stage) or not stage.outs_cached():
                found.missing.append(stage.addressing)
                lacking[stage] = None
            else:
                found.steps.append(Step(stage.addressing, RESTORE, ("outputs that are not here",), False))
        if why:
            needed = [other.addressing for other in lacking if other not in planned and reads(missing, other.outs)]
            found.first.extend(name for name in needed if name not in found.first)
    return found


def resolve(stage: Any, trial: Path) -> set[str] | None:
    """Run `stage` in `trial`, beside what was resolved before; the files that come out different. None if it fails."""
    if not (trial / "settings").exists():
        shutil.copytree("settings", trial / "settings") if Path("settings").exists() else None
        for name in ("src", "metrics", "params.yaml"):
            (trial / name).symlink_to(Path(name).absolute())
    for out in stage.outs:
        shutil.rmtree(trial / str(out), ignore_errors=True)
    command = [sys.executable, *shlex.split(stage.cmd)[1:]]
    if subprocess.run(command, cwd=trial, capture_output=True).returncode:
        return None
    differ = set()
    for out in stage.outs:
        if found_md5(trial / str(out)) != out.hash_info.value:
            old, new = (contents(folder / str(out), folder) for folder in (Path(), trial))
            differ |= {name for name in old | new if old.get(name) != new.get(name)}
    return differ


def contents(path: Path, root: Path) -> dict[str, bytes]:
    """The bytes of a file, or of all files in a folder, by their names below `root`."""
    files = [path] if path.is_file() else files_in(path)
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in files}


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def below(above: set[Any]) -> str:
    """Why a stage may run whose inputs come from the stages `above`, which run or may run."""
    kinds = sorted({stage.addressing.partition("@")[0] for stage in above})
    chooses = [kind for kind in kinds if kind in RESOLVERS]
    if chooses:
        return f"their settings depend on what {chooses[-1]} chooses"
    return f"where the outputs of {' and '.join(kinds)} come out different"


def reasons(
    stage: Any, status: dict[Any, str], resolved: dict[str, str], done: list[str], trial: Path
) -> Iterator[str]:
    """Why DVC runs `stage` even with --allow-missing, once settings are as resolved in `trial`."""
    if not any(dep.hash_info for dep in stage.deps):
        yield "not in dvc.lock: new, or never run"
        return
    if stage.cmd_changed:
        yield "another command"
    for dep in stage.deps:
        if isinstance(dep, ParamsDependency):
            yield from changed_params(dep)
    follow = [dep for dep in stage.deps if reads(done, [dep])]
    for file, state in status.items():
        if state in MISSING or file in follow:
            continue
        if file in stage.outs:
            yield f"{file} is not what the stage wrote"
        else:
            yield f"{file} {'modified' if file.hash_info else 'is a new dependency'}{edited(str(file))}"
    changed = [dep for dep in follow if found_md5(trial / str(dep)) != dep.hash_info.value]
    for by in sorted({by for name, by in resolved.items() if reads({name}, changed)}):
        yield f"{by} resolves other settings"
    for dep in changed:
        if not reads(resolved, [dep]):
            yield f"{dep} modified{edited(str(dep))}"


def changed_params(dep: ParamsDependency) -> Iterator[str]:
    """`key: old → new` for each parameter that is not as in dvc.lock."""
    old, new = flatten(dep.hash_info.value or {}), flatten(dep.read_params())
    for name in dict.fromkeys([*new, *old]):
        if old.get(name, ABSENT) != new.get(name, ABSENT):
            yield f"{name}: {short(old.get(name, ABSENT))} → {short(new.get(name, ABSENT))}"


ABSENT = object()


def short(value: Any) -> str:
    text = "nothing" if value is ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 36 else f"{text[:17]} … {text[-16:]}"


def edited(folder: str) -> str:
    """Which files of a folder differ from the last commit, if any and if git can tell."""
    if not Path(folder).is_dir():
        return ""
    listed = subprocess.run(["git", "diff", "--name-only", "HEAD", "--", folder], capture_output=True, text=True)
    return f" ({', '.join(Path(name).name for name in listed.stdout.split())})" if listed.stdout else ""


def restorable(stage: Any, resolved: dict[str, str], trial: Path) -> bool:
    """Whether the run cache has what `stage` would write from its present inputs, and from settings in `trial`."""
    kept = [(path, path.hash_info) for path in (*stage.deps, *stage.outs)]
    try:
        stage.save_deps()
        for dep in stage.deps:
            if str(dep) in resolved and (trial / str(dep)).is_file():
                dep.hash_info = HashInfo("md5", md5((trial / str(dep)).read_bytes()))
        for out in stage.outs:
            out.hash_info = HashInfo()  # or DVC takes the outputs in dvc.lock for those of these inputs
        stage.repo.stage_cache.restore(stage, dry=True)
    except DvcException:
        return False
    finally:
        for path, info in kept:
            path.hash_info = info
    return True


def made_whole(folder: Any, graph: nx.DiGraph) -> bool:
    """Whether a folder will be as dvc.lock names it, once other stages made their outputs in it again."""
    outs = (out for stage in graph for out in stage.outs)
    inside = {str(out): out.hash_info.value for out in outs if str(out).startswith(f"{folder}/")}
    hashes = {name.removeprefix(f"{folder}/"): value for name, value in inside.items()}
    return folder_md5(hashes) == folder.hash_info.value and {*map(str, files_in(Path(str(folder))))} <= inside.keys()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def folder_md5(files: dict[str, str]) -> str:
    """DVC's hash of a folder: that of its manifest, which lists `files`, an MD5 for each path inside."""
    manifest = [{"md5": files[path], "relpath": path} for path in sorted(files)]
    return md5(json.dumps(manifest).encode()) + ".dir"


def found_md5(path: Path) -> str | None:
    if path.is_dir():
        return folder_md5({file.relative_to(path).as_posix(): md5(file.read_bytes()) for file in files_in(path)})
    return md5(path.read_bytes()) if path.is_file() else None


def reads(files: Iterable[Any], others: list[Any]) -> bool:
    """Whether one of `files` is, holds or lies in one of `others`."""
    pairs = [(f"{file}/", f"{other}/") for file in files for other in others]
    return any(file.startswith(other) or other.startswith(file) for file, other in pairs)


def names(stages: list[str], known: Plan) -> list[str]:
    """Stages in few words: those of one matrix together."""
    words = []
    for kind in dict.fromkeys(stage.partition("@")[0] for stage in stages):
        mine, every = ([name for name in some if name.partition("@")[0] == kind] for some in (stages, known.commands))
        if len(mine) == len(every):
            words.append(f"{kind} (all {len(every)})" if len(every) > 1 else kind)
        elif len(mine) <= 2:
            words += mine
        else:
            words.append(f"{mine[0]} … {mine[-1].partition('@')[2]} ({len(mine)} of {len(every)})")
    return words


def wrapped(words: list[str], width: int) -> list[str]:
    """`words` with commas between them, in lines that break only there."""
    text = ", ".join(word.replace(" ", "\0") for word in words)
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False, max_lines=5, placeholder=" …")
    return [line.replace("\0", " ") for line in lines]


def duration(stages: list[str], known: Plan, logs: Path, cost: Path = COST) -> str:
    """How long `stages` take one after the other: for each the median of what earlier runs of its script logged.

    Of a script of which none has run here, of what it took where the committed study was made. `over`: of some nothing
    is known.
    """
    scripts = Counter(found[1] for stage in stages if (found := re.search(r"(\w+)\.py", known.commands[stage])))
    took = {name: [json.loads(log.read_text())["seconds"] for log in (logs / name).rglob("*.json")] for name in scripts}
    new = {name for name in took if not took[name]}
    for row in csv.DictReader(cost.read_text().splitlines()) if cost.exists() else ():
        if (name := row["run"].partition("/")[0]) in new:
            took[name].append(float(row["seconds"]))
    mixed = any(took[name] for name in new)
    by = "by what MNIST took" if new == took.keys() else "by logs and MNIST's" if mixed else "by earlier logs"
    total = sum(count * statistics.median(took[name] or [0]) for name, count in scripts.items())
    unknown = any(name in RUNS and not took[name] for name in scripts)
    if not total:
        return "time unknown" if unknown else ""
    over = "over " if unknown else ""
    if total < 60:
        return f"{over}{total:.0f} s {by}"
    return f"{over}{total / 3600:.1f} h {by}" if total >= 5400 else f"{over}{total / 60:.0f} min {by}"


def told(found: Plan, logs: Path = Path("logs")) -> list[str]:
    """The plan in at most `LINES` lines of `WIDTH` columns."""
    groups: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for step in sorted(found.steps, key=lambda step: step.action == MAY):
        groups.setdefault(step.reasons, {}).setdefault(step.action, []).append(step.stage)
    lines = []
    for why, actions in groups.items():
        more = [f"and {len(why) - 3} more"] if len(why) > 3 else []
        lines += [textwrap.shorten(reason, WIDTH, placeholder=" …") for reason in [*why[:3], *more]]
        for action, stages in actions.items():
            note = "from the run cache" if action == RESTORE else duration(stages, found, logs)
            text = wrapped(names(stages, found), WIDTH - 37)
            lines.append(f"  {action:<9} {text[0]:<{WIDTH - 37}} {note}".rstrip())
            lines += [f"  {'':<9} {line}" for line in text[1:]]
    lacks = lacking_told(found, logs)
    if len(lines) + len(lacks) > LINES:
        cut = LINES - len(lacks) - 1
        lines = [*lines[:cut], f"… and {len(lines) - cut} more lines"]
    return lines + lacks or ["nothing to run: dvc.lock has this code, these parameters and these outputs"]


def lacking_told(found: Plan, logs: Path) -> list[str]:
    if not found.missing:
        return []
    stages = "1 stage" if len(found.missing) == 1 else f"{len(found.missing)} stages"
    lines = [f"{stages} with results that are not here, not being in git:"]
    lines += [f"  {line}" for line in wrapped(names(found.missing, found), WIDTH - 2)]
    took = duration(found.missing, found, logs)
    lines.append(f"  `dvc repro` makes them again{took and f' ({took})'}; `dvc repro --allow-missing` does not")
    if found.first:
        lines.append("  but what will run reads these (`make records` brings records, `dvc repro prepare` images):")
        lines += [f"    {line}" for line in wrapped(names(found.first, found), WIDTH - 4)]
    return lines


def main() -> None:
    logging.getLogger("dvc").setLevel(logging.WARNING)
    try:
        with Repo() as repo, repo.lock:
            load()
            found = plan(repo)
    except LockError:
        raise BadInput("another DVC is at work here: ask again when it has ended") from None
    except DvcException as error:
        raise BadInput(f"DVC says: {error}") from None
    print("\n".join(told(found)))


if __name__ == "__main__":
    run(main)
