"""Are the results those of this code and these parameters, to the last byte? `make verify`; not a stage.

In a throwaway repository, with the files of this one but nothing that was compiled or saved: DVC's own `repro --force`
of every stage that takes seconds and of one run picked at random; then whether git sees a difference. What is made
again reads what DVC's cache and study/records/ hold, hashed before. Prints a line on each part: what was made again,
what was only hashed, what is not here or cannot be made on this machine. Exit status 1: something is not as it says.
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
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bnstudy import run
from bnstudy.launch import git, gone, read_lock, serial
from bnstudy.workspace import needed
from plan import names

PIPELINES = [name for name in ("dvc.yaml", "study/dvc.yaml") if Path(name).exists()]
RECORDS = Path("study/records")
OBJECT = re.compile(r"[0-9a-f]{30}(\.dir)?")
MACHINE = """\
import json, sys
sys.path.insert(0, "src")
from bnstudy.engine import device
from bnstudy.params import load_runtime
print(json.dumps(device.environment(device.prepare(load_runtime()))))
"""


class Again:
    """A repository in `folder`, with every file of this one that git tracks or does not ignore, as it is now."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        for name in filter(None, git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")):
            if Path(name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(name, folder / name)
        for words in ("init --quiet --template=", "add --all --force", "commit --quiet --message=here"):
            git("-C", str(folder), *words.split())
        for remote, place in (("here", cache), ("records", RECORDS.resolve())):  # what neither has is looked for later
            self.run("dvc", "remote", "add", "--local", remote, str(place))
            self.run("dvc", "fetch", "--remote", remote)
        self.run("dvc", "checkout")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Compiled anew: what Python and Numba keep may not be what it says it is."""
        own = {name: str(self.folder / ".dvc/tmp" / name) for name in ("NUMBA_CACHE_DIR", "DVC_SITE_CACHE_DIR")}
        own["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | own
        return subprocess.run(words, cwd=self.folder, env=environment, capture_output=True, text=True)

    def locks(self) -> dict[str, Any]:
        """By stage as DVC calls it, what the lock files say."""
        found = dict[str, Any]()
        for pipeline in PIPELINES:
            if (path := (self.folder / pipeline).with_suffix(".lock")).exists():
                prefix = "" if pipeline == "dvc.yaml" else f"{pipeline}:"
                found |= {prefix + name: entry for name, entry in read_lock(path.read_bytes()).items()}
        return found

    def make(self, stages: list[str]) -> list[str]:
        """Run them; what came out otherwise than the lock files or git have it."""
        before, wrong = self.locks(), list[str]()
        done = self.run("dvc", "repro", "--force", "--single-item", *stages)
        if done.returncode:
            return [f"it ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-500:]}"]
        for name, entry in self.locks().items():
            wrong += [f"{out['path']} comes out otherwise" for out in entry["outs"] if out not in before[name]["outs"]]
            if entry | {"outs": 0} != before[name] | {"outs": 0}:
                wrong.append(f"{name} was not made of what its lock names")
        differ = git("-C", str(self.folder), "diff", "--name-only").splitlines()
        return wrong or [f"{name} comes out otherwise" for name in differ]


def damaged(places: list[Path]) -> tuple[int, list[str]]:
    """How many objects lie there, and which are not what their names say. DVC trusts a read-only one."""
    objects = sorted(path for place in places for path in place.glob("??/*") if OBJECT.fullmatch(path.name))
    sums = {path: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() for path in objects}
    wrong = [path for path in objects if sums[path] != path.parent.name + path.name[:30]]
    return len(objects), [f"{os.path.relpath(path)} is damaged: remove it" for path in wrong]


def is_run(stage: Any) -> bool:
    """Whether it reads images and leaves only what a cache holds: minutes or more."""
    return "data/prepared" in [dep.def_path for dep in stage.deps] and all(out.use_cache for out in stage.outs)


def other_machine(folder: Path, name: str, stage: Any, here: dict[str, Any]) -> str:
    """Why a run cannot come out of this machine as it was: by its record beside its table, else by its log."""
    beside = [folder / out.def_path for out in stage.outs if out.def_path.endswith(".json")]
    log = Path("logs", re.sub("[@-]", "/", name.replace("dvc.yaml:", "")) + ".json")
    record = next((json.loads(path.read_bytes()) for path in (*beside, log) if path.exists()), None)
    if record is None:
        return "on which machine they were made is not recorded"
    differ = [f"{key} {record[key]} (here: {here[key]})" for key in here if record.get(key, here[key]) != here[key]]
    return f"made on another kind of machine, {', '.join(differ)}" if differ else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="the run to make again, such as study/dvc.yaml:train@he-22; else one at random")
    parser.add_argument("--no-retrain", action="store_true", help="make no run again")
    arguments = parser.parse_args()
    failed = list[str]()

    def tell(state: str, what: str, wrong: Sequence[str] = ()) -> None:
        failed.extend(wrong)
        print(f"{'FAILED' if wrong else state:<13}  {what}", *wrong[:5], sep="\n               ", flush=True)

    with Repo() as repo:
        cache = Path(repo.cache.local.path)
    count, wrong = damaged([cache, RECORDS / "files/md5"])
    tell("whole", f"{count} objects in DVC's cache and the records", wrong)
    with TemporaryDirectory(prefix="verify-", dir=".dvc/tmp") as folder:
        again = Again(Path(folder), cache.parents[1])
        known = again.locks()
        with chdir(folder), Repo() as clone:
            stages = {stage.addressing: stage for stage in serial(clone, PIPELINES)}
            judged = {name: stage for name, stage in stages.items() if name in known}
            ready = [name for name, stage in judged.items() if all(out.exists for out in needed(clone, stage))]
            here = [name for name, stage in judged.items() if all(out.exists for out in stage.outs)]
            starts = [name for name, stage in judged.items() if not clone.index.graph[stage]]
        asked = again.run("dvc", "status", "--json")
        status = {"dvc status": [asked.stderr]} if asked.returncode else json.loads(asked.stdout)
        changed = [(name, change) for name in status for change in status[name] if not gone(change)]
        wrong = [f"{name}: {json.dumps(change)}" for name, change in changed if name not in stages or name in ready]
        tell("the same", f"code, parameters and outputs of {len(ready)} stages, as the lock files name them", wrong)

        quick = [name for name in ready if not is_run(judged[name]) and name not in starts]
        machine = json.loads(again.run(sys.executable, "-c", MACHINE).stdout or "{}")
        elsewhere = {
            name: other_machine(again.folder, name, one, machine) for name, one in judged.items() if is_run(one)
        }
        runs = [name for name in ready if elsewhere.get(name) == "" and arguments.run in (None, name)]
        chosen = [secrets.choice(runs)] if runs and not arguments.no_retrain else []
        for what, some in (("made again", quick), ("trained again", chosen)):
            if some:
                tell(what, names(some, [*stages]), again.make(some)) if not failed else tell("left out", what)
    rest = [name for name in here if name not in quick + chosen]
    absent, new = judged.keys() - {*here}, stages.keys() - judged.keys()
    for what, group in {"only hashed": rest, "not here": absent, "never run": new}.items():
        if some := [name for name in stages if name in group]:
            tell(what, names(some, [*stages]))
    for why in dict.fromkeys(filter(None, elsewhere.values())):
        tell("not by this", f"{names([name for name in here if elsewhere.get(name) == why], [*stages])}: {why}")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    run(main, DvcException)
