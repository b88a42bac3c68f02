"""Are the committed results those of this code and these parameters, to the last byte? `make verify`; not a stage.

Hashes every output and every object of DVC's cache and of records/ (DVC itself takes a read-only object for whole),
holds dvc.lock against code, parameters and README, and trains one run again. A line a check: `ok`, `FAILED`, `not here`
(what a fresh clone or this machine lacks) or `left out`. Exits with 1 if one failed.
"""

import argparse
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo
from pydantic import BaseModel, Field, ValidationError

from bnstudy import device as devices
from bnstudy.data import PREPARED
from bnstudy.params import PARAMS_FILE, BadInput, describe, load
from bnstudy.report import headline, load_json
from bnstudy.stage import run

LOCK = Path("dvc.lock")
RECORDS = Path("records/files/md5")  # as .dvc/config names it
Check = tuple[str, str]  # state, and what was found


class Entry(BaseModel):
    """A file, or a folder: its MD5 is that of `folder_md5`."""

    path: str
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}(\.dir)?$")]


class Stage(BaseModel):
    deps: list[Entry] = []
    outs: list[Entry] = []


class Lock(BaseModel):
    stages: dict[str, Stage]


def read_lock() -> Lock:
    try:
        return Lock.model_validate(yaml.safe_load(LOCK.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise BadInput(f"{LOCK}: is not here, so there are no results to verify; `dvc repro` makes them") from None
    except ValidationError as error:
        raise BadInput(f"{LOCK}: {describe(error.errors(include_url=False)[0])}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput(f"{LOCK}: is not valid YAML: {' '.join(str(error).split())}") from None


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


def ask_status(repo: Repo) -> dict[str, Any] | Exception:
    """What `dvc status` says, by stage; or what it died of, as it does of a damaged manifest in the cache."""
    try:
        status: dict[str, Any] = repo.status()
    except DvcException:
        raise
    except Exception as error:
        return error
    return status


def check_lock(
    lock: Lock, stages: list[str], status: dict[str, Any] | Exception, found: dict[str, str | None]
) -> Check:
    """What `dvc status` calls changed; less what is not here, but the same wherever dvc.lock names it."""
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
    return check(f"{len(stages)} stages ran with this code and these parameters", wrong)


def check_readme() -> Check:
    files = [Path("metrics/summary.json"), Path("metrics/claims.json")]
    results = " and ".join(map(str, files))
    try:
        expected = headline(*map(load_json, files)).splitlines()
        text = Path("README.md").read_text(encoding="utf-8")
    except (BadInput, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return "FAILED", f"its headline cannot be held against {results}: {error}"
    quoted = re.search(r"<!-- headline -->(.*?)<!-- /headline -->", text, re.DOTALL)
    lines = quoted[1].strip().splitlines() if quoted else []
    if lines == expected:
        return "ok", f"its headline is that of {results}"
    other = next((line for line in lines if line not in expected), "it is not whole")
    return "FAILED", f"its headline is not that of {results}: {other}"


def train_again(name: str, outs: list[Entry], temporary: Path) -> Check:
    """Train the run of stage `name` in a folder of its own, in the environment of the first time; compare the bytes."""
    variant, seed = name.removeprefix("train@").rsplit("-", 1)
    environments = load_json(Path("metrics/environment.json"))
    made = next((entry for entry in environments if f"{variant}-{seed}" in entry.get("runs", [])), None)
    if made is None:
        return "FAILED", "metrics/environment.json does not say in what environment it was trained"
    if not PREPARED.is_dir():
        return "not here", str(PREPARED)
    runtime = {key: made[key] for key in ("device", "threads", "deterministic")}
    try:
        here = devices.environment(devices.find(made["device"])) | runtime
    except BadInput:
        here = {"device": "none such"}
    if other := [f"{key} {made[key]} (here: {value})" for key, value in here.items() if made[key] != value]:
        return "not here", f"what it was trained with: {listed(other)}"
    with TemporaryDirectory(prefix="verify-", dir=temporary) as folder:
        shutil.copytree(PREPARED, Path(folder, PREPARED))
        tree = yaml.safe_load(PARAMS_FILE.read_text(encoding="utf-8"))
        Path(folder, PARAMS_FILE).write_text(yaml.safe_dump(tree | {"runtime": tree["runtime"] | runtime}))
        command = [sys.executable, "-m", "bnstudy.train", "--variant", variant, "--seed", seed]
        environment = os.environ | {"PYTHONPATH": str(Path("src").resolve())}
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603
        if done.returncode:
            return "FAILED", f"the training exited with {done.returncode}"
        wrong = [f"{out.path} has other bytes" for out in outs if found_md5(Path(folder, out.path)) != out.md5]
    return check("its model and its history have the same bytes", wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="the run to train again, e.g. train@batch_norm-0; else one picked at random")
    parser.add_argument(
        "--no-retrain", action="store_true", help="train none: a run of the full study takes 20 minutes"
    )
    arguments = parser.parse_args()
    load()
    lock = read_lock()
    try:
        with Repo(".") as repo:
            stages = [stage.addressing for stage in repo.index.stages]
            committed = {out.def_path for out in repo.index.outs if not out.use_cache}
            pushed = {out.def_path for out in repo.index.outs if out.can_push} - committed
            cache, temporary = Path(os.path.relpath(repo.cache.local.path)), Path(repo.tmp_dir)
            status = ask_status(repo)
    except DvcException as error:
        raise BadInput(f"DVC says: {' '.join(str(error).split())}") from None
    if not stages:
        raise BadInput("dvc.yaml: is not here, or has no stages")
    runs = [name for name in stages if name.startswith("train@") and name in lock.stages]
    if arguments.run not in (None, *runs):
        raise BadInput(f"--run: {arguments.run} is not one of {', '.join(runs)}")
    outs = {out.path: out.md5 for stage in lock.stages.values() for out in stage.outs}
    found = {path: found_md5(Path(path)) for path in outs}
    states = []

    def tell(what: str, result: Check) -> None:
        states.append(result[0])
        print(f"{result[0]:<8}  {what}: {result[1]}", flush=True)

    tell("outputs", check_outputs(outs, found, committed))
    tell("cache", check_objects({path: outs[path] for path in outs if path not in committed}, cache))
    tell("records", check_objects({path: outs[path] for path in outs if path in pushed}, RECORDS))
    tell("dvc.lock", check_lock(lock, stages, status, found))
    sound = "FAILED" not in states
    tell("README.md", check_readme())
    if runs and not arguments.no_retrain:
        name = arguments.run or secrets.choice(runs)
        again = train_again(name, lock.stages[name].outs, temporary) if sound else ("left out", "a check above failed")
        tell(f"{name} again", again)
    if "FAILED" in states:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
