"""A small study for the tools: the real `check` and `train`, toys for the other stages, and the real DVC."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from conftest import clone, once, run, shared, write_params

ARMS, SEEDS = ["note_plain", "he"], [10]
TRAINS = [f"train@{arm}-{seed}" for arm in ARMS for seed in SEEDS]
ALL = ["check", "prepare", "sweep@plain", "sweep@batch_norm", "tune", *TRAINS, "evaluate"]
PIPELINE = """\
stages:
  check:
    cmd: python src/check.py
    deps: [src/check.py]
    params: [{params.yaml: null}]
    outs: [data/params.checked: {persist: true}, settings/sweep: {cache: false, persist: true}]
  prepare:
    cmd: python src/prepare.py
    deps: [data/params.checked, src/prepare.py]
    outs: [data/prepared: {push: false}]
  sweep:
    matrix: {network: "${sweep.networks}"}
    cmd: python src/sweep.py ${item.network}
    deps: [data/prepared, "settings/sweep/${item.network}.json", src/sweep.py]
    outs: ["metrics/sweep/${item.network}.csv", "metrics/sweep/${item.network}.json"]
  tune:
    cmd: python src/tune.py
    deps: [metrics/sweep, src/tune.py]
    params: [train, study, arms]
    outs: [settings/train: {cache: false}]
  train:
    matrix: {arm: "${study.arms}", seed: "${study.seeds}"}
    cmd: python src/train.py ${item.arm} ${item.seed}
    deps: [data/prepared, "settings/train/${item.arm}/${item.seed}.json", src/train.py, src/bnstudy/engine]
    outs:
      - models/train/${item.arm}/${item.seed}.safetensors: {push: false}
      - metrics/train/${item.arm}/${item.seed}.csv
      - metrics/train/${item.arm}/${item.seed}.json
  evaluate:
    cmd: python src/evaluate.py
    deps: [metrics/train, settings, src/evaluate.py]
    params: [rules.useless]
    outs:
      - metrics/claims.json: {cache: false}
      - metrics/environment.json: {cache: false}
      - report/README.md: {cache: false}
"""
SCRIPTS = {
    "prepare": """\
import hashlib, pathlib
import numpy as np
random, sums = np.random.default_rng(0), ""
folder = pathlib.Path("data/prepared")
folder.mkdir(parents=True)
for split in ("train", "validation", "test"):
    for what, shape in (("images", (40, 28, 28)), ("labels", (40,))):
        file = folder / f"{split}_{what}.npy"
        np.save(file, random.integers(0, 10, shape, dtype=np.uint8))
        sums += f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\\n"
(folder / "SHA256SUMS").write_text(sums)
""",
    "sweep": """\
import json, pathlib, sys
setting = json.loads(pathlib.Path(f"settings/sweep/{sys.argv[1]}.json").read_text())
pathlib.Path("metrics/sweep").mkdir(parents=True, exist_ok=True)
pathlib.Path(f"metrics/sweep/{sys.argv[1]}.csv").write_text(f"rate\\n{0.1 if setting['keep_prob'] < 1 else 0.2}\\n")
environment = {"torch": "0.1", "device": "cpu", "threads": 1, "deterministic": True}
pathlib.Path(f"metrics/sweep/{sys.argv[1]}.json").write_text(json.dumps(environment))
""",
    "tune": """\
from pathlib import Path
from bnstudy.files import write
from bnstudy.params import load
from bnstudy.settings import setting
params = load()
for name in params.study.arms:
    arm = params.arms[name]
    rate = float(Path(f"metrics/sweep/plain.csv").read_text().split()[1])
    for seed in params.study.seeds:
        chosen = setting(params, arm.network, rate, arm.steps, ramp_steps=arm.ramp_steps)
        write(Path(f"settings/train/{name}/{seed}.json"), chosen.to_bytes())
""",
    "evaluate": """\
import json, pathlib, platform
histories = sorted(pathlib.Path("metrics/train").rglob("*.csv"))
claims = [{"claim": file.parent.name, "verdict": file.read_text().split(",")[-1].strip()} for file in histories]
pathlib.Path("metrics/claims.json").write_text(json.dumps(claims))
pathlib.Path("metrics/environment.json").write_text(json.dumps([{"python": platform.python_version()}]))
pathlib.Path("report").mkdir(exist_ok=True)
pathlib.Path("report/README.md").write_text(f"# Study\\n\\nClaims: {len(claims)}.\\n")
""",
}


@pytest.fixture(scope="session")
def unmade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small study before its first run, committed."""

    def make(folder: Path) -> None:
        clone(folder)
        (folder / "dvc.yaml").write_text(PIPELINE)
        for name, text in SCRIPTS.items():
            (folder / f"src/{name}.py").write_text(text)
        arms = yaml.safe_load((folder / "params.yaml").read_text())["arms"]
        write_params(
            folder,
            train={"batch_size": 16},
            evaluation={"moments": [2]},
            sweep={"networks": ["plain", "batch_norm"]},
            refine={"finalists": ["without", "everywhere"]},
            study={"arms": ARMS, "seeds": SEEDS},
            arms={name: arms[name] | {"steps": 3} for name in ARMS},
            long={"arm_seeds": [], "averages_seeds": []},
            mechanism={"seeds": SEEDS},
        )
        (folder / "README.md").write_text("# Study\n\n<!-- headline -->\nClaims: 2.\n<!-- /headline -->\n\nMore.\n")
        run(folder, "git", "add", "--all")
        run(folder, "git", "commit", "--quiet", "--message", "small")

    return once(shared(tmp_path_factory, "unmade"), make)


@pytest.fixture(scope="session")
def made(unmade: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small study, reproduced once and committed, with its records."""

    def make(folder: Path) -> None:
        study = Path(shutil.copytree(unmade, folder / "study"))
        assert sorted(repro(study)[0]) == sorted(ALL)
        run(study, "dvc", "push")
        run(study, "git", "add", "--all")
        run(study, "git", "commit", "--quiet", "--message", "results")

    return once(shared(tmp_path_factory, "made"), make) / "study"


@pytest.fixture
def copy(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the reproduced study with its cache, to change at will, and the working folder."""
    folder = Path(shutil.copytree(made, tmp_path / "study", symlinks=True))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def fresh(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh clone: no weights, no data, no cache."""
    folder = tmp_path / "fresh"
    run(made, "git", "clone", "--quiet", str(made), str(folder))
    monkeypatch.chdir(folder)
    return folder


def repro(folder: Path, *options: str) -> tuple[set[str], set[str]]:
    """What `dvc repro` runs, and what it restores."""
    out = run(folder, "dvc", "repro", *options).stdout
    ran = set(re.findall(r"^Running stage '(.+)':", out, re.MULTILINE))
    return ran, set(re.findall(r"^Stage '(.+)' is cached", out, re.MULTILINE))


def edit(folder: Path, path: str, value: object) -> None:
    """Another value for a key of params.yaml; None removes it."""
    tree = yaml.safe_load((folder / "params.yaml").read_text())
    *above, key = path.split(".")
    at = tree
    for name in above:
        at = at[name]
    at[key] = value
    if value is None:
        del at[key]
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


def append(file: Path, text: str) -> None:
    file.write_text(file.read_text() + text)


def replace(path: str, old: str, new: str) -> Callable[[Path], None]:
    """A change of a study: the first `old` in a file of it becomes `new`."""

    def change(study: Path) -> None:
        text = (study / path).read_text()
        assert old in text
        (study / path).write_text(text.replace(old, new, 1))

    return change
