"""Are the committed results those of this code and these parameters, to the last byte? `make verify`; not a stage.

First it compares hashes: of every output, of every object in DVC's cache and in records/ (DVC itself takes a read-only
object for whole), and of code and parameters with those that dvc.lock names. Then it makes results again: every file in
git that a stage writes, from what the runs recorded; the last evaluation of each network whose weights are here; and
one run, in a folder of its own. One line per check: `ok`, `FAILED`, `stamped` (see stamped.py), `not here` (what this
clone lacks, or another kind of machine made) or `left out`. The exit status is 1 if a check failed. docs/trust.md says
what no check can find.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo
from pydantic import BaseModel, Field, ValidationError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import pages
import stamped
from bnstudy import BadInput, run
from bnstudy.engine import device as devices
from bnstudy.engine.models import from_file
from bnstudy.engine.training import evaluate, tensors
from bnstudy.files import write
from bnstudy.params import PARAMS_FILE, describe, load
from bnstudy.records import REPRODUCTIONS, Reproduction
from bnstudy.settings import Variant, to_json
from plan import Plan, found_md5, md5, plan, reads

LOCK = Path("dvc.lock")
RECORDS = Path("records/files/md5")  # as .dvc/config names it
ENVIRONMENT = Path("metrics/environment.json")
PREPARED = "data/prepared"
ONE_PER_SEED = ("train@", "averages@", "tolerance@")  # each a run of one seed
Check = tuple[str, str]  # state, and what was found


class Entry(BaseModel):
    """A file, or a folder: its MD5 is that of `folder_md5`."""

    path: str
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}(\.dir)?$")]

    def __str__(self) -> str:
        return self.path


class Stage(BaseModel):
    cmd: str
    deps: list[Entry] = []
    outs: list[Entry] = []

    def environment(self) -> Entry | None:
        """Where a run says in what environment it was made."""
        return next((out for out in self.outs if out.path.endswith(".json")), None)


class Lock(BaseModel):
    stages: dict[str, Stage]


class Study(NamedTuple):
    """The checkout: its stages in dvc.yaml, dvc.lock, DVC's cache, and which outputs are in git or in records/."""

    stages: list[str]
    lock: Lock
    cache: Path
    committed: set[str]
    pushed: set[str]
    stale: Plan | Exception

    def known(self) -> dict[str, Stage]:
        """The entries in dvc.lock of the stages in dvc.yaml."""
        return {name: self.lock.stages[name] for name in self.stages if name in self.lock.stages}

    def in_git(self) -> dict[str, Stage]:
        """The stages that write files in git: they read what runs recorded, and take seconds."""
        return {name: one for name, one in self.known().items() if self.committed & {out.path for out in one.outs}}

    def runs(self) -> list[str]:
        """The stages that record in what environment they ran."""
        return [name for name, one in self.known().items() if name not in self.in_git() and one.environment()]


def read_lock() -> Lock:
    try:
        return Lock.model_validate(yaml.load(LOCK.read_text(encoding="utf-8"), yaml.CSafeLoader))
    except FileNotFoundError:
        raise BadInput(f"{LOCK}: is not here, so there are no results to verify; `dvc repro` makes them") from None
    except ValidationError as error:
        raise BadInput(f"{LOCK}: {describe(error.errors(include_url=False)[0])}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput(f"{LOCK}: is not valid YAML: {' '.join(str(error).split())}") from None


def read_study() -> Study:
    lock = read_lock()
    try:
        with Repo(".") as repo:
            stages = [stage.addressing for stage in repo.index.stages]
            committed = {out.def_path for out in repo.index.outs if not out.use_cache}
            pushed = {out.def_path for out in repo.index.outs if out.can_push} - committed
            cache = Path(os.path.relpath(repo.cache.local.path))
            try:
                stale: Plan | Exception = plan(repo)
            except Exception as error:  # as DVC dies of a damaged manifest in the cache
                stale = error
    except DvcException as error:
        raise BadInput(f"DVC says: {' '.join(str(error).split())}") from None
    if not stages:
        raise BadInput("dvc.yaml: is not here, or has no stages")
    return Study(stages, lock, cache, committed, pushed, stale)


def listed(items: Sequence[str], by: str = ", ") -> str:
    return by.join(items[:4]) + (f" and {len(items) - 4} more" if len(items) > 4 else "")


def check(good: str, wrong: Sequence[str], missing: Sequence[str] = ()) -> Check:
    if wrong:
        return "FAILED", listed(wrong, "; ")
    return ("not here", f"{listed(missing)}; {good}") if missing else ("ok", good)


def check_outputs(outs: dict[str, str], found: dict[str, str | None], committed: set[str]) -> Check:
    wrong = [f"{path} is not that of dvc.lock" for path in outs if found[path] not in (None, outs[path])]
    missing = [path for path in outs if found[path] is None]
    wrong += [f"{path} is missing" for path in missing if path in committed]
    return check(f"{len(outs) - len(missing)} of {len(outs)} are those of dvc.lock", wrong, missing)


def check_objects(outs: dict[str, str], cache: Path) -> Check:
    """Every object of `cache` that `outs` refers to, also through the manifests of folders."""
    todo, wrong, missing = list(outs.items()), list[str](), list[str]()
    for path, name in todo:  # a folder adds its files
        copy = cache / name[:2] / name[2:]
        content = copy.read_bytes() if copy.is_file() else None
        if content is None:
            missing.append(path)
        elif md5(content) != name.removesuffix(".dir"):
            wrong.append(f"{copy} ({path}) is damaged: remove it, and `dvc repro` or `dvc push` makes it again")
        elif name.endswith(".dir"):
            todo += [(f"{path}/{file['relpath']}", file["md5"]) for file in json.loads(content)]
    return check(f"{len(todo) - len(missing)} of {len(todo)} objects are whole", wrong, missing)


def check_lock(study: Study) -> Check:
    """What `make plan` says will run; `check` reads params.yaml whole, and what it makes is looked at there."""
    if isinstance(study.stale, Exception):
        return "FAILED", f"DVC cannot compare it: {study.stale!r}"
    causes: dict[str, list[str]] = {}
    for step in study.stale.steps:
        for reason in step.reasons if step.changed and step.stage != "check" else ():
            causes.setdefault(reason, []).append(step.stage)
    wrong = [f"{cause} ({listed(names)})" for cause, names in causes.items()]
    return check(f"it names this code and these parameters for all {len(study.stages)} stages", wrong)


def check_history(runs: list[str]) -> Check:
    found, missing = stamped.find(runs)
    if found:
        commits = [f"{commit}: {len(names)} runs' code changed without new outputs" for commit, names in found.items()]
        return "stamped", listed(commits, "; ") + (f"; not here: {missing}" if missing else "")
    return check(
        f"no commit gave one of {len(runs)} runs new code without new outputs", [], [missing] if missing else []
    )


def check_readme() -> Check:
    """The README quotes the headline of report/README.md, which is made again with all else that is in git."""
    try:
        text, report = (Path(name).read_text(encoding="utf-8") for name in ("README.md", "report/README.md"))
        quoted = pages.between(text, "headline", pages.headline(report)) == text
    except (OSError, ValueError) as error:
        return "FAILED", f"its headline cannot be compared: {error}"
    wrong = [] if quoted else ["its headline is not that of report/README.md: python tools/pages.py"]
    return check("its headline is that of report/README.md", wrong)


def find_bytes(study: Study, out: Entry) -> bytes | None:
    """The bytes that `out` names (a folder's manifest), from its path, the cache or records/; None if not here."""
    for place in (Path(out.path), *(objects / out.md5[:2] / out.md5[2:] for objects in (study.cache, RECORDS))):
        content = place.read_bytes() if place.is_file() else None
        if content is not None and md5(content) == out.md5.removesuffix(".dir"):
            return content
    return None


class Again:
    """A folder in which stages are run again: on whole copies of what dvc.lock names, by code that is compiled anew."""

    def __init__(self, study: Study, folder: str) -> None:
        self.study, self.folder = study, Path(folder)
        # Without __pycache__: what Python or Numba compiled before may not be what it says it is.
        shutil.copytree("src", self.folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
        self.tree = yaml.safe_load(PARAMS_FILE.read_text(encoding="utf-8"))
        self.change()

    def change(self, **changes: dict[str, Any]) -> None:
        """Write params.yaml with other values in some of its sections."""
        self.tree |= {section: self.tree[section] | change for section, change in changes.items()}
        text = yaml.safe_dump(self.tree, sort_keys=False, allow_unicode=True)
        (self.folder / PARAMS_FILE).write_text(text, encoding="utf-8")

    def bring(self, *outs: Entry) -> list[str]:
        """Copy outputs into the folder; the paths of those that are not here."""
        missing, todo = list[str](), list(outs)
        for out in todo:  # a folder adds its files
            target, content = self.folder / out.path, find_bytes(self.study, out)
            if out.md5.endswith(".dir") and found_md5(Path(out.path)) == out.md5:
                shutil.copytree(out.path, target)
            elif content is None:
                missing.append(out.path)
            elif out.md5.endswith(".dir"):
                todo += [Entry(path=f"{out.path}/{file['relpath']}", md5=file["md5"]) for file in json.loads(content)]
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        return missing

    def run(self, stage: str) -> list[str]:
        """Run a stage's command; what is wrong with how it ended."""
        command = self.study.lock.stages[stage].cmd
        words = [sys.executable, *shlex.split(command)[1:]]
        environment = os.environ | {"NUMBA_CACHE_DIR": str(self.folder / "numba")}
        done = subprocess.run(words, cwd=self.folder, env=environment, stdout=subprocess.DEVNULL)
        return [f"`{command}` exited with {done.returncode}"] if done.returncode else []

    def compare(self, outs: list[Entry]) -> list[str]:
        """Which of `outs` are not here as dvc.lock names them."""
        return [
            f"{out.path} comes out with other bytes" for out in outs if found_md5(self.folder / out.path) != out.md5
        ]


def compare_hashes(study: Study) -> Iterator[tuple[str, Check]]:
    """Every check that makes nothing again."""
    outs = {out.path: out.md5 for stage in study.lock.stages.values() for out in stage.outs}
    found = {path: found_md5(Path(path)) for path in outs}
    yield "outputs", check_outputs(outs, found, study.committed)
    yield "cache", check_objects({path: outs[path] for path in outs if path not in study.committed}, study.cache)
    yield "records", check_objects({path: outs[path] for path in outs if path in study.pushed}, RECORDS)
    yield "dvc.lock", check_lock(study)
    yield "its history", check_history(study.runs())
    yield "README.md", check_readme()


def runtime_of(made: dict[str, Any]) -> dict[str, Any]:
    return {key: made[key] for key in ("device", "threads", "deterministic")}


def differences(made: dict[str, Any], here: dict[str, Any]) -> list[str]:
    return [f"{key} {made[key]} (here: {here[key]})" for key in here if made.get(key, here[key]) != here[key]]


def made_in(study: Study, stage: str) -> tuple[dict[str, Any], str]:
    """The environment that a run recorded, and why it is not this one; the reason is empty if it is."""
    out = study.lock.stages[stage].environment()
    content = find_bytes(study, out) if out else None
    if content is None:
        return {}, "in what environment it was made"
    made: dict[str, Any] = json.loads(content)
    try:
        here = devices.environment(devices.find(made["device"])) | runtime_of(made)
    except BadInput:
        here = {"device": "none such"}
    other = differences(made, here)
    return made, f"made on another kind of machine: {listed(other)}" if other else ""


def write_again(study: Study, temporary: Path) -> Check:
    """Make every output that is in git again, from what the runs recorded."""
    stages = study.in_git()
    deps = [dep for one in stages.values() for dep in one.deps if not dep.path.startswith("src/")]
    outs = [out for one in stages.values() for out in one.outs]
    every = [out for one in study.known().values() for out in one.outs]
    given = [dep for dep in deps if not reads([dep], every)]  # written by no stage
    records = [out for out in every if out not in outs and reads([out], deps)]
    above = {name: {n for n in stages if reads(stages[name].deps, stages[n].outs)} for name in stages}
    with TemporaryDirectory(prefix="verify-", dir=temporary) as folder:
        again = Again(study, folder)
        if missing := again.bring(*given, *records):
            return "not here", listed(missing)
        if wrong := [fault for name in TopologicalSorter(above).static_order() for fault in again.run(name)]:
            return "FAILED", listed(wrong)
        wrong = again.compare(outs)
        made, here = (json.loads((root / ENVIRONMENT).read_bytes())[-1] for root in (Path(), again.folder))
    if other := differences(made, here):
        wrong = [fault for fault in wrong if not fault.startswith(f"{ENVIRONMENT} ")]
        if wrong:
            return "not here", f"what they were made with: {listed(other)}; here {listed(wrong)}"
    return check(f"{len(outs)} outputs of {', '.join(stages)} come out of {len(records)} records", wrong)


def evaluate_again(study: Study) -> Check:
    """Evaluate each network whose weights are here: the last row of its history must come out."""
    same, missing, wrong = 0, list[str](), list[str]()
    prepared = next(out for one in study.lock.stages.values() for out in one.outs if out.path == PREPARED)
    for stage, one in study.known().items():
        weights = next((out for out in one.outs if out.path.endswith(".safetensors")), None)
        history = max((out for out in one.outs if out.path.endswith(".csv")), key=lambda out: out.path, default=None)
        if weights is None or history is None:
            continue
        path, rows = Path(weights.path), find_bytes(study, history)
        lacking = [out.path for out in (weights, prepared) if found_md5(Path(out.path)) is None]
        if lacking or rows is None:
            missing += lacking or [history.path]
            continue
        made, other = made_in(study, stage)
        device = devices.prepare(load().runtime.model_copy(update={} if other else runtime_of(made)))
        network, _ = from_file(path, path.parent.name, int(path.stem), Variant.model_validate)
        *_, last = csv.DictReader(io.StringIO(rows.decode()))
        found = dict[str, str]()
        for split in ("validation", "test"):
            numbers = evaluate(network.to(device), *tensors(split, device))
            found |= {f"{split}_{what}": f"{n:.8g}" for what, n in zip(("loss", "accuracy"), numbers, strict=True)}
        if found.items() <= last.items():
            same += 1
        elif other:
            missing.append(f"the machine of {stage} ({other})")
        else:
            wrong.append(f"{path} does not give the last row of {history.path}")
    return check(f"{same} networks give the last row of their histories", wrong, missing)


def run_again(study: Study, stage: str, temporary: Path, record: bool = False) -> Check:
    """Make a run again in the environment of the first time; compare the bytes.

    To `record` the outcome it is made again on another kind of machine too, and the tables are compared there.
    """
    made, other = made_in(study, stage)
    if not made or (other and not record):
        return "not here", other or "in what environment it was made"
    with TemporaryDirectory(prefix="verify-", dir=temporary) as folder:
        again, one = Again(study, folder), study.lock.stages[stage]
        with contextlib.suppress(BadInput):
            devices.find(made["device"])
            again.change(runtime=runtime_of(made))
        if missing := again.bring(*(dep for dep in one.deps if not dep.path.startswith("src/"))):
            return "not here", listed(missing)
        if wrong := again.run(stage):
            return "FAILED", listed(wrong)
        tables = [out for out in one.outs if out.path.endswith(".csv")]
        differ = again.compare(tables if other else one.outs)
        if record:
            write_record(study, stage, again, made, not differ)
    if other:
        return "differs" if differ else "ok", f"{other}; its tables come out {'otherwise' if differ else 'the same'}"
    return check(f"its {len(one.outs)} outputs come out the same", differ)


def last_accuracy(table: bytes) -> float:
    """In the last row, by the validation split where the table tells it apart."""
    *_, last = csv.DictReader(io.StringIO(table.decode()))
    return float(last.get("validation_accuracy") or last["accuracy"])


def write_record(study: Study, stage: str, again: Again, made: dict[str, Any], same: bool) -> None:
    """Add the outcome to reproductions/, which the report lists."""
    outs = study.lock.stages[stage].outs
    history = max((out for out in outs if out.path.endswith(".csv")), key=lambda out: out.path)
    environment = study.lock.stages[stage].environment()
    assert environment
    accuracies = seeds = None
    if not same and (recorded := find_bytes(study, history)):
        accuracies = last_accuracy(recorded), last_accuracy((again.folder / history.path).read_bytes())
        if stage.startswith(ONE_PER_SEED):
            folder = Path(history.path).parent
            tables = [out for one in study.known().values() for out in one.outs if Path(out.path).parent == folder]
            found = [find_bytes(study, out) for out in tables if out.path.endswith(".csv")]
            every = [last_accuracy(table) for table in found if table]
            seeds = min(every), max(every)
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout.strip()
    reproduction = Reproduction(
        study=commit,
        run=stage,
        made_in=made,
        again_in=json.loads((again.folder / environment.path).read_bytes()),
        same=same,
        accuracies=accuracies,
        seeds=seeds,
    )
    content = to_json(reproduction.model_dump())
    write(REPRODUCTIONS / f"{stage.replace('@', '-')}-{md5(content)[:8]}.json", content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="the run to make again, such as train@note_plain-10; else one picked at random")
    parser.add_argument("--record", action="store_true", help="add its outcome to reproductions/, whatever the machine")
    parser.add_argument("--no-retrain", action="store_true", help="make none again: half an hour less")
    arguments = parser.parse_args()
    load()
    study = read_study()
    runs = study.runs()
    if arguments.run not in (None, *runs):
        raise BadInput(f"--run: {arguments.run} is not one of {', '.join(runs)}")
    temporary, states = Path(".dvc/tmp"), dict[str, str]()

    def tell(what: str, result: Check) -> None:
        states[what] = result[0]
        print(f"{result[0]:<8}  {what}: {result[1]}", flush=True)

    for what, result in compare_hashes(study):
        tell(what, result)
    again: dict[str, Callable[[], Check]] = {
        "files in git again": lambda: write_again(study, temporary),
        "evaluations again": lambda: evaluate_again(study),
    }
    if runs and not arguments.no_retrain:
        name = arguments.run or secrets.choice(runs)
        again[f"{name} again"] = lambda: run_again(study, name, temporary, arguments.record)
    sound = "FAILED" not in {state for what, state in states.items() if what != "README.md"}  # made from the rest
    for what, make in again.items():
        tell(what, make() if sound else ("left out", "a check above failed"))
    made = [what.removesuffix(" again") for what in again if states[what] == "ok"]
    print(f"          made again here: {listed(made) or 'nothing'}; of everything else only hashes were compared")
    if "FAILED" in states.values():
        sys.exit(1)


if __name__ == "__main__":
    run(main)
