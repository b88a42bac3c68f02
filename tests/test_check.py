"""A bad params.yaml stops `dvc repro` with its message while every output is still there, wherever DVC's cache is."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import ENVIRONMENT, ROOT, clone, run

STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# A stage that names arms in commands and paths, with a cached output and one that is not.
NAMES = {
    "matrix": {"arm": "${study.arms}"},
    "cmd": "echo ${item.arm} | tee models/${item.arm} > models/${item.arm}.txt",
    "deps": ["data/prepared"],
    "params": ["train", "arms.${item.arm}"],
    "outs": ["models/${item.arm}", {"models/${item.arm}.txt": {"cache": False}}],
}
CACHES = {
    "default": [],
    "hard links": [("config", "--local", "cache.type", "hardlink")],
    "symbolic links elsewhere": [
        ("cache", "dir", "--local", "../elsewhere"),
        ("config", "--local", "cache.type", "symlink"),
    ],
}


@pytest.fixture(scope="module", params=CACHES)
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stages `check`, `fetch` and `prepare` and one that names arms, reproduced on the sample."""
    folder = tmp_path_factory.mktemp("study") / "study"
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    stages = {name: STAGES[name] for name in ("check", "fetch", "prepare")} | {"names": NAMES}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    (folder / "params.yaml").write_text(good())
    (folder / "models").mkdir()
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "config", "core.analytics", "false")
    for words in CACHES[request.param]:
        run(folder, "dvc", *words)
    run(folder, "dvc", "repro")
    return folder


def good() -> str:
    text = (ROOT / "params.yaml").read_text()
    return changed(changed(text, "source: mnist", "source: sample"), "validation_size: 5000", "validation_size: 500")


def changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


def outputs(study: Path) -> dict[Path, bytes]:
    files = [path for folder in ("data", "models", "settings") for path in (study / folder).rglob("*")]
    return {path: path.read_bytes() for path in [*files, study / "dvc.lock"] if path.is_file()}


BAD = (
    (
        "threads: 1 ",
        "threads: 0 ",
        "runtime.threads: 0 is not a whole number from 1 to 1024 or the word all",
    ),
    ("plot:\n", "plott:\n  width: 7.0\nplot:\n", "plott: is not a known key; did you mean plot?"),
    ("  - note_plain\n", "  - note_plane\n", "study.arms: note_plane is not one of note_plain, "),
    (
        "  - note_plain\n",
        "  - x; touch owned\n",
        "study.arms.0: 'x; touch owned' is not lower-case letters, ",
    ),
)


def test_a_bad_value_is_refused_while_every_output_is_there(study: Path) -> None:
    before = outputs(study)
    assert {path.name for path in before} >= {
        "mnist_5k.csv.gz",
        "SHA256SUMS",
        "he",
        "he.txt",
        "params.checked",
        "batch_norm.json",
    }
    for old, new, says in BAD:
        (study / "params.yaml").write_text(changed(good(), old, new))
        done = run(study, "dvc", "repro", check=False)
        assert done.returncode != 0
        assert "Running stage 'check'" in done.stdout
        assert "Running stage 'fetch'" not in done.stdout
        assert f"\n{says}" in f"\n{done.stderr}".replace("error: params.yaml: ", "")
        assert outputs(study) == before
    assert not (study / "owned").exists()


def test_a_new_setting_of_the_runtime_or_a_comment_reruns_only_the_check(study: Path) -> None:
    before = outputs(study)
    (study / "params.yaml").write_text(changed(good(), "threads: 1 ", "threads: 2 ") + "# A comment.\n")
    assert run(study, "dvc", "repro").stdout.count("Running stage") == 1
    lock = study / "dvc.lock"
    assert outputs(study) | {lock: b""} == before | {lock: b""}


def test_on_a_terminal_it_says_what_runs_now_and_how_to_undo_that(tmp_path: Path) -> None:
    study, command = clone(tmp_path / "study"), [sys.executable, "src/check.py"]
    terminal, inside = os.openpty()
    subprocess.run(command, cwd=study, env=ENVIRONMENT, stdout=inside, check=True)
    os.close(inside)
    printed = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert printed.startswith("not in dvc.lock: new, or never run")
    assert "`git restore params.yaml`" in printed
    assert run(study, *command).stdout == ""
