"""Both pipelines in small, for what runs stages: the real DVC, and for every stage a script that trains nothing.

A training counts in steps of a tenth of a second and keeps resume states as the real ones do. It heeds of its
surroundings TRAIL, a file to which each training adds a line when it begins, and LONG and FAIL, names of trainings.
"""

import os
import re
import shutil
import sys
from contextlib import chdir
from functools import partial
from pathlib import Path

import networkx
import pytest
import yaml
from dvc.repo import Repo

import conftest
from conftest import ROOT, run

SOURCE = ("dvc.yaml", "params.yaml", ".dvc/config", ".dvcignore", ".gitignore", ".gitattributes", ".dvc/.gitignore")
STUDY = """\
stages:
  train:
    wdir: ..
    matrix: {arm: "${arms}", seed: "${seeds}"}
    cmd: python src/study_train.py ${item.arm} ${item.seed}
    deps: [data/prepared, src/study_train.py, src/bnstudy/engine]
    params: [{study/params.yaml: ["arms.${item.arm}"]}]
    outs:
      - study/models/${item.arm}/${item.seed}.safetensors: {push: false}
      - study/runs/train/${item.arm}/${item.seed}.csv
      - study/runs/train/${item.arm}/${item.seed}.json
  mechanism:
    wdir: ..
    matrix: {seed: "${seeds}"}
    cmd: python src/study_mechanism.py ${item.seed}
    deps: [data/prepared, "study/models/he/${item.seed}.safetensors", src/study_mechanism.py, src/bnstudy/engine]
    outs:
      - study/runs/mechanism/${item.seed}.csv
      - study/runs/mechanism/${item.seed}.json
  judge:
    wdir: ..
    cmd: python src/study_judge.py
    deps: [study/runs, src/study_judge.py]
    params: [{study/params.yaml: [rules]}]
    metrics: [study/metrics/claims.json: {cache: false}]
"""
SCRIPT = """\
import json, os, signal, sys, time
from pathlib import Path

stage, *words = [Path(sys.argv[0]).stem, *sys.argv[1:]]
place, name = "/".join(words), "-".join(words)

def write(path, content):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content)

def train():
    steps = 100 if name in os.environ.get("LONG", "").split() else 1
    told, state = [], Path("checkpoints", stage, place + ".state")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: told.append(number))
    if name in os.environ.get("FAIL", "").split():
        sys.exit("error: step 3: the loss is not finite")
    done = int(state.read_text()) if state.exists() else 0
    if "TRAIL" in os.environ:
        with Path(os.environ["TRAIL"]).open("a") as file:
            file.write(f"{name} {done} {os.getpid()}\\n")
    for step in range(done + 1, steps + 1):
        time.sleep(0.1)
        print(f"{name}: {step} of {steps} updates, loss 0.5, accuracy 90.00%, 9 images/s, 1 min left", file=sys.stderr)
        write(state.with_suffix(".part"), str(step))
        state.with_suffix(".part").replace(state)
        if told or os.getppid() == 1:
            sys.exit(130)
    state.unlink(missing_ok=True)
    from bnstudy.engine.toy import ANSWER
    return f"{place} {ANSWER}\\n"

machine = json.dumps({"gpu": None, "processor": "a toy", "device": "cpu"})
if stage == "fetch":
    write("data/raw/digits", "digits")
elif stage == "prepare":
    write("data/prepared/images", Path("data/raw/digits").read_text())
    write("data/prepared/SHA256SUMS", "none")
elif stage in ("train", "study_train"):
    started, bytes_ = time.time(), train()
    above = "study/" if stage == "study_train" else ""
    write(f"{above}models/{place}.safetensors", bytes_)
    write(f"study/runs/train/{place}.csv" if above else f"curves/{place}.csv", "accuracy\\n" + bytes_)
    if above:
        write(f"study/runs/train/{place}.json", machine)
    seconds = time.time() - started
    write(f"logs/{above}train/{place}.json", json.dumps({"seconds": seconds, "processor": "a toy", "gpu": None}))
elif stage == "evaluate":
    write(f"metrics/{place}.json", json.dumps({"accuracy": Path(f"curves/{place}.csv").read_text()[9:]}))
elif stage == "plot":
    write("plots/curves.csv", "".join(path.read_text() for path in sorted(Path("metrics").rglob("*.json"))))
    write("plots/curves.svg", "<svg/>")
elif stage == "study_mechanism":
    write(f"study/runs/mechanism/{place}.csv", "of " + Path(f"study/models/he/{place}.safetensors").read_text())
    write(f"study/runs/mechanism/{place}.json", machine)
elif stage == "study_judge":
    tables = [path.read_text() for path in sorted(Path("study/runs").rglob("*.csv"))]
    write("study/metrics/claims.json", json.dumps({"verdict": "holds", "of": tables}))
"""
DEVICE = """\
def prepare(runtime):
    return "cpu"

def environment(device):
    return {"gpu": None, "processor": "a toy", "device": device}
"""
STAGES = ("fetch", "prepare", "train", "evaluate", "plot", "study_train", "study_mechanism", "study_judge")
TRAINS = ["train@batch_norm-10", "train@plain-10"]
EVALUATES = ["evaluate@batch_norm-10", "evaluate@plain-10"]
NOTE = ["fetch", "prepare", *TRAINS, *EVALUATES, "plot"]
ARMS = ["study/dvc.yaml:train@plain-22", "study/dvc.yaml:train@plain-23"]
ARMS += ["study/dvc.yaml:train@he-22", "study/dvc.yaml:train@he-23"]
MECHANISM = ["study/dvc.yaml:mechanism@22", "study/dvc.yaml:mechanism@23"]
STUDIED = [*ARMS, *MECHANISM, "study/dvc.yaml:judge"]
ALL = [*NOTE, *STUDIED]


until = partial(conftest.until, seconds=120)  # a stage here starts a DVC of its own


def edit(folder: Path, path: str, value: object, file: str = "params.yaml") -> None:
    """Another value for a key of a params file."""
    tree = yaml.safe_load((folder / file).read_text())
    *above, key = path.split(".")
    at = tree
    for name in above:
        at = at[name]
    at[key] = value
    (folder / file).write_text(yaml.safe_dump(tree, sort_keys=False))


def repro(folder: Path, *options: str) -> tuple[set[str], set[str]]:
    """What `dvc repro` runs, and what it restores."""
    out = run(folder, "dvc", "repro", *options).stdout
    ran = set(re.findall(r"^Running stage '(.+)':", out, re.MULTILINE))
    return ran, set(re.findall(r"^Stage '(.+)' is cached", out, re.MULTILINE))


def reached(folder: Path, pipeline: str) -> set[str]:
    """The stages of `pipeline` that a change reaches, and all below them."""
    with chdir(folder), Repo() as repo:
        graph, stages = repo.index.graph, {stage.addressing: stage for stage in repo.index.stages}
        stale = [stages[name] for name in repo.status()]
        found = {stage for one in stale for stage in (one, *networkx.ancestors(graph, one))}
        file = Path(pipeline).resolve()
        return {stage.name for stage in found if Path(stage.path) == file}


def commit(folder: Path, message: str = "results") -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", message)


def verify(folder: Path, *arguments: str, **environment: str) -> dict[str, str]:
    """What `make verify` says of the study in `folder`, by state. It must exit with 1 exactly where it says FAILED."""
    done = run(folder, sys.executable, str(ROOT / "tools/verify.py"), *arguments, check=False, **environment)
    found = dict[str, str]()
    for line in done.stdout.splitlines():
        state = line[:15].strip() or state  # noqa: F821
        found[state] = f"{found.get(state, '')} {line[15:]}".strip()
    assert done.returncode == ("FAILED" in found), done.stdout + done.stderr
    assert not list((folder / ".dvc/tmp").glob("verify-*"))
    return found


def cached(folder: Path, path: str) -> Path:
    """The object of the output `path` in the cache."""
    locks = [yaml.safe_load((folder / lock).read_text())["stages"] for lock in ("dvc.lock", "study/dvc.lock")]
    outs = [out for lock in locks for stage in lock.values() for out in stage["outs"] if out["path"] == path]
    return folder / ".dvc/cache/files/md5" / outs[0]["md5"][:2] / outs[0]["md5"][2:]


def damage(path: Path) -> None:
    """One bit of the byte in the middle; DVC's read-only mode and the time of change stay."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def new_toy(folder: Path) -> Path:
    """Both pipelines before their first run, committed."""
    for name in (*SOURCE, *(str(path.relative_to(ROOT)) for path in (ROOT / "src/bnstudy").glob("*.py"))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, folder / name)
    (folder / "src/bnstudy/engine").mkdir()
    (folder / "src/bnstudy/engine/__init__.py").touch()
    (folder / "src/bnstudy/engine/toy.py").write_text("ANSWER = 42\n")
    (folder / "src/bnstudy/engine/device.py").write_text(DEVICE)
    for stage in STAGES:
        (folder / f"src/{stage}.py").write_text(SCRIPT)
    edit(folder, "seeds", [10])
    (folder / "study").mkdir()
    (folder / "study/dvc.yaml").write_text(STUDY)
    study = {"arms": {"plain": {"rate": 0.1}, "he": {"rate": 0.1}}, "seeds": [22, 23], "rules": {"target": 0.95}}
    (folder / "study/params.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    run(folder, "git", "init", "--quiet")
    commit(folder, "toy")
    return folder


@pytest.fixture(scope="session")
def unmade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_toy(tmp_path_factory.mktemp("unmade") / "toy")


@pytest.fixture(scope="session")
def made(unmade: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both pipelines, reproduced by a serial `dvc repro` and committed, with their records."""
    folder = Path(shutil.copytree(unmade, tmp_path_factory.mktemp("made") / "toy"))
    assert repro(folder, "dvc.yaml", "study/dvc.yaml")[0] == {*ALL}
    run(folder, "dvc", "remote", "add", "--local", "records", "study/records")
    run(folder, "dvc", "push", "--remote", "records")
    commit(folder)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what was made, with its cache, to change at will, and the working folder."""
    folder = Path(shutil.copytree(made, tmp_path / "toy", symlinks=True))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def toy(unmade: Path, tmp_path: Path) -> Path:
    """A copy of what was never run, with a remote `shared`, a folder beside it."""
    return share(Path(shutil.copytree(unmade, tmp_path / "toy")))


def share(folder: Path) -> Path:
    (folder.parent / "shared").mkdir(exist_ok=True)
    run(folder, "dvc", "remote", "add", "--local", "--force", "shared", str(folder.parent / "shared"))
    return folder
