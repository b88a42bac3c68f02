"""Are the committed results those of this code and these parameters, to the last byte? `make verify`; not a stage.

First it compares hashes: of every output, of every object in DVC's cache and in records/ (DVC itself takes a read-only
object for whole), and of code and parameters with those that dvc.lock names. Then it makes results again in a folder of
its own: every file in git that a stage writes, from what the runs recorded; the evaluations whose weights are here; and
one training. One line per check: `ok`, `FAILED`, `stamped` (see stamped.py), `not here` (what a fresh clone or this
machine lacks) or `left out`. The exit status is 1 if a check failed. docs/trust.md says what no check can find.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import re
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

import stamped
from bnstudy import BadInput, run
from bnstudy.engine import device as devices
from bnstudy.params import PARAMS_FILE, describe, load

LOCK = Path("dvc.lock")
RECORDS = Path("records/files/md5")  # as .dvc/config names it
ENVIRONMENT = Path("metrics/environment.json")
PREPARED = "data/prepared"
Check = tuple[str, str]  # state, and what was found


class Entry(BaseModel):
    """A file, or a folder: its MD5 is that of `folder_md5`."""

    path: str
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}(\.dir)?$")]


class Stage(BaseModel):
    cmd: str
    deps: list[Entry] = []
    outs: list[Entry] = []


class Lock(BaseModel):
    stages: dict[str, Stage]


class Study(NamedTuple):
    """The checkout: its stages in dvc.yaml, dvc.lock, DVC's cache, and which outputs are in git or in records/."""

    stages: list[str]
    lock: Lock
    cache: Path
    committed: set[str]
    pushed: set[str]
    status: dict[str, Any] | Exception

    def in_git(self) -> list[str]:
        """The stages whose outputs are all in git: they read what runs recorded, and take seconds."""
        outs = {name: self.lock.stages[name].outs for name in self.stages if name in self.lock.stages}
        return [name for name, some in outs.items() if some and self.committed >= {out.path for out in some}]

    def runs(self, kind: str = "") -> list[str]:
        """The stages in dvc.lock that are one of many, such as `train@plain-0`; of one `kind` or of all."""
        return [name for name in self.stages if name in self.lock.stages and f"{kind}@" in name]

    def out(self, path: str) -> Entry:
        return next(out for stage in self.lock.stages.values() for out in stage.outs if out.path == path)


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
            status = ask_status(repo)
    except DvcException as error:
        raise BadInput(f"DVC says: {' '.join(str(error).split())}") from None
    if not stages:
        raise BadInput("dvc.yaml: is not here, or has no stages")
    return Study(stages, lock, cache, committed, pushed, status)


def ask_status(repo: Repo) -> dict[str, Any] | Exception:
    """What `dvc status` says, by stage; or what it died of, as it does of a damaged manifest in the cache."""
    try:
        status: dict[str, Any] = repo.status()
    except DvcException:
        raise
    except Exception as error:
        return error
    return status


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def folder_md5(files: dict[str, str]) -> str:
    """DVC's hash of a folder: that of its manifest, which lists `files`, an MD5 for each path inside."""
    manifest = [{"md5": files[path], "relpath": path} for path in sorted(files)]
    return md5(json.dumps(manifest).encode()) + ".dir"


def found_md5(path: Path) -> str | None:
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
        return folder_md5({file.relative_to(path).as_posix(): md5(file.read_bytes()) for file in files})
    return md5(path.read_bytes()) if path.is_file() else None


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


def check_lock(study: Study, found: dict[str, str | None]) -> Check:
    """What `dvc status` calls changed; less what is not here, but the same wherever dvc.lock names it."""
    lock, status = study.lock, study.status
    stages = [name for name in study.stages if name != "check"]  # it reads params.yaml whole, and makes no result
    if isinstance(status, Exception):
        return "FAILED", f"`dvc status` ends with {status!r}"
    outs = [(name, out) for name, stage in lock.stages.items() for out in stage.outs]

    def only_missing(dep: Entry) -> bool:
        inside = [(name, out) for name, out in outs if f"{out.path}/".startswith(f"{dep.path}/")]
        # In a folder, the files of runs that are no longer in dvc.yaml may or may not have lain beside the others.
        for some in (inside, [(name, out) for name, out in inside if name in stages]):
            files = {out.path.removeprefix(f"{dep.path}/"): out.md5 for _, out in some}
            if dep.md5 in (files.get(dep.path), folder_md5(files)):
                return any(found[out.path] is None for _, out in inside)
        return False

    causes = {"never run": [name for name in stages if name not in lock.stages]}
    for name in [name for name in stages if name in lock.stages]:
        missing = [dep.path for dep in lock.stages[name].deps if only_missing(dep)]
        for change in status.get(name, []):
            deps = {change: ""} if isinstance(change, str) else change.get("changed deps", {})
            for path, how in deps.items():
                keys = [f"{key} in {path} has changed" for key in how] if isinstance(how, dict) else [f"{path} {how}"]
                for cause in keys if path not in missing else []:
                    causes.setdefault(cause.strip(), []).append(name)
    wrong = [f"{cause} ({listed(names)})" for cause, names in causes.items() if names]
    return check(f"it names this code and these parameters for all {len(stages)} stages", wrong)


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
    except (OSError, ValueError) as error:
        return "FAILED", f"its headline cannot be compared: {error}"
    quoted = re.search(r"<!-- headline -->\n(.+)<!-- /headline -->", text, re.DOTALL)
    wrong = [] if quoted and quoted[1] in report else ["its headline is not that of report/README.md"]
    return check("its headline is that of report/README.md", wrong)


def find_bytes(study: Study, out: Entry) -> bytes | None:
    """The bytes that `out` names (a folder's manifest), from its path, the cache or records/; None if not here."""
    for place in (Path(out.path), *(objects / out.md5[:2] / out.md5[2:] for objects in (study.cache, RECORDS))):
        content = place.read_bytes() if place.is_file() else None
        if content is not None and md5(content) == out.md5.removesuffix(".dir"):
            return content
    return None


def evaluations(study: Study) -> dict[str, dict[int, dict[str, Any]]]:
    """What dvc.lock's evaluations record, by stage and seed; without those that are not here."""
    found = {}
    for stage in study.runs("evaluate"):
        (out,) = study.lock.stages[stage].outs
        content = find_bytes(study, out)
        if content is not None:
            found[stage] = {record["seed"]: record for record in json.loads(content)["runs"]}
    return found


def check_evaluations(study: Study) -> Check:
    """The last row of a history is an evaluation of the same network: they must agree, and so must the steps.

    Not to the last image, since the two may have been made on different processors.
    """
    agree, wrong = 0, []
    for stage, records in evaluations(study).items():
        for seed, record in records.items():
            name = f"{stage.removeprefix('evaluate@')}-{seed}"
            history = next(out for out in study.lock.stages[f"train@{name}"].outs if out.path.endswith(".csv"))
            rows = list(csv.DictReader(io.StringIO((find_bytes(study, history) or b"").decode())))
            if not rows:
                continue
            steps = dict.fromkeys(record["steps_to"])
            for row in reversed(rows):
                reached = [target for target in steps if float(row["validation_accuracy"]) >= float(target)]
                steps |= dict.fromkeys(reached, int(row["step"]))
            agree += 1
            if abs(float(rows[-1]["test_accuracy"]) - record["test_accuracy"]) > 0.0005 or steps != record["steps_to"]:
                wrong.append(f"{name}: its evaluation is not that of the network whose history is recorded")
    return check(f"{agree} agree with the histories of their runs", wrong)


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

    def evaluate(self, stage: str, recorded: dict[int, dict[str, Any]]) -> list[str]:
        """Run an evaluation for the seeds of `recorded`; what differs from it."""
        self.change(study={"seeds": list(recorded)})
        if failed := self.run(stage):
            return failed
        (out,) = self.study.lock.stages[stage].outs
        made = {record["seed"]: record for record in json.loads((self.folder / out.path).read_bytes())["runs"]}
        wrong = [seed for seed in recorded if made.get(seed) != recorded[seed]]
        return [f"the evaluation of seed {seed} by {stage} comes out otherwise" for seed in wrong]


def compare_hashes(study: Study) -> Iterator[tuple[str, Check]]:
    """Every check that makes nothing again."""
    outs = {out.path: out.md5 for stage in study.lock.stages.values() for out in stage.outs}
    found = {path: found_md5(Path(path)) for path in outs}
    yield "outputs", check_outputs(outs, found, study.committed)
    yield "cache", check_objects({path: outs[path] for path in outs if path not in study.committed}, study.cache)
    yield "records", check_objects({path: outs[path] for path in outs if path in study.pushed}, RECORDS)
    yield "dvc.lock", check_lock(study, found)
    yield "its history", check_history(study.runs())
    yield "README.md", check_readme()
    yield "evaluations", check_evaluations(study)


def runtime_of(made: dict[str, Any]) -> dict[str, Any]:
    return {key: made[key] for key in ("device", "threads", "deterministic")}


def differences(made: dict[str, Any], here: dict[str, Any]) -> list[str]:
    return [f"{key} {made[key]} (here: {here[key]})" for key in here if made.get(key, here[key]) != here[key]]


def other_environment(made: dict[str, Any]) -> list[str]:
    """How the environment of a training differs from this one under the same `runtime`."""
    try:
        here = devices.environment(devices.find(made["device"])) | runtime_of(made)
    except BadInput:
        here = {"device": "none such"}
    return differences(made, here)


def summarize_again(study: Study, temporary: Path) -> Check:
    """Make every output that is in git again, from what the runs recorded."""
    lock, names = study.lock, study.in_git()
    made_by = {out.path: name for name in names for out in lock.stages[name].outs}
    order = TopologicalSorter({n: {made_by[d.path] for d in lock.stages[n].deps if d.path in made_by} for n in names})
    read = tuple(f"{dep.path}/" for name in names for dep in lock.stages[name].deps if dep.path not in made_by)
    runs = [lock.stages[name] for name in study.stages if name in lock.stages and name not in names]
    records = [out for stage in runs for out in stage.outs if f"{out.path}/".startswith(read)]
    outs = [out for name in names for out in lock.stages[name].outs]
    with TemporaryDirectory(prefix="verify-", dir=temporary) as folder:
        again = Again(study, folder)
        if missing := again.bring(*records):
            return "not here", listed(missing)
        if wrong := [fault for name in order.static_order() for fault in again.run(name)]:
            return "FAILED", listed(wrong)
        made, here = (json.loads((root / ENVIRONMENT).read_bytes())[-1] for root in (Path(), again.folder))
        paths = [out.path for out in outs if found_md5(again.folder / out.path) != out.md5]
    other = differences(made, here)
    paths = [path for path in paths if not (other and path == ENVIRONMENT.as_posix())]
    if other and paths:
        return "not here", f"what they were made with: {listed(other)}; here {listed(paths)} come out otherwise"
    wrong = [f"{path} comes out with other bytes" for path in paths]
    return check(f"{len(outs)} outputs of {', '.join(names)} come out of {len(records)} records", wrong)


def evaluate_again(study: Study, temporary: Path) -> Check:
    """Evaluate every network again whose weights are here."""
    same, missing, wrong = 0, list[str](), list[str]()
    for stage, records in evaluations(study).items():
        variant = stage.removeprefix("evaluate@")
        with TemporaryDirectory(prefix="verify-", dir=temporary) as folder:
            again, here = Again(study, folder), {}
            missing += again.bring(study.out(PREPARED))
            for seed, record in records.items():
                lacking = again.bring(*study.lock.stages[f"train@{variant}-{seed}"].outs)
                missing += lacking
                if not lacking:
                    here[seed] = record
            if not here or not (again.folder / PREPARED).exists():
                continue
            made = here[min(here)]["environment"]
            again.change(runtime=runtime_of(made))
            faults = again.evaluate(stage, here)
            if faults and (other := other_environment(made)):
                missing.append(f"what the networks of {stage} were made with: {listed(other)}")
                continue
            same, wrong = same + len(here) - len(faults), wrong + faults
    return check(f"{same} networks give what is recorded of them", wrong, missing)


def train_again(study: Study, stage: str, temporary: Path) -> Check:
    """Train the run of `stage` in the environment of the first time, and evaluate it; compare the bytes."""
    variant, _, seed = stage.removeprefix("train@").rpartition("-")
    recorded = evaluations(study).get(f"evaluate@{variant}", {}).get(int(seed))
    if recorded is None:
        return "not here", "its evaluation, which records in what environment it was trained"
    made = recorded["environment"]
    if other := other_environment(made):
        return "not here", f"what it was trained with: {listed(other)}"
    with TemporaryDirectory(prefix="verify-", dir=temporary) as folder:
        again = Again(study, folder)
        again.change(runtime=runtime_of(made))
        if missing := again.bring(study.out(PREPARED)):
            return "not here", listed(missing)
        outs, wrong = study.lock.stages[stage].outs, again.run(stage)
        paths = [out.path for out in outs if not wrong and found_md5(again.folder / out.path) != out.md5]
        wrong += [f"{path} comes out with other bytes" for path in paths]
        wrong = wrong or again.evaluate(f"evaluate@{variant}", {int(seed): recorded})
    return check("its model, history and evaluation come out the same", wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="the run to train again, such as train@batch_norm-0; else one picked at random")
    parser.add_argument("--no-retrain", action="store_true", help="train none: 20 minutes less")
    arguments = parser.parse_args()
    load()
    study = read_study()
    trainings = study.runs("train")
    if arguments.run not in (None, *trainings):
        raise BadInput(f"--run: {arguments.run} is not one of {', '.join(trainings)}")
    temporary, states = Path(".dvc/tmp"), {}

    def tell(what: str, result: Check) -> None:
        states[what] = result[0]
        print(f"{result[0]:<8}  {what}: {result[1]}", flush=True)

    for what, result in compare_hashes(study):
        tell(what, result)
    again: dict[str, Callable[[], Check]] = {
        "files in git again": lambda: summarize_again(study, temporary),
        "evaluations again": lambda: evaluate_again(study, temporary),
    }
    if trainings and not arguments.no_retrain:
        name = arguments.run or secrets.choice(trainings)
        again[f"{name} again"] = lambda: train_again(study, name, temporary)
    sound = "FAILED" not in states.values()
    for what, make in again.items():
        tell(what, make() if sound else ("left out", "a check above failed"))
    made = [what.removesuffix(" again") for what in again if what.endswith(" again") and states[what] == "ok"]
    print(f"          made again here: {listed(made) or 'nothing'}; of everything else only hashes were compared")
    if "FAILED" in states.values():
        sys.exit(1)


if __name__ == "__main__":
    run(main)
