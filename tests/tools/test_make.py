"""Every `make` command of the README, in a checkout of the small study with this environment as its own."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from conftest import ROOT, run

PRINTS = {
    "plan": "nothing to run: dvc.lock has this code",
    "records": "",
    "study": "Data and pipelines are up to date.",
    "judge": "Data and pipelines are up to date.",
    "verify VERIFY=--no-retrain": "ok        files in git again",
}
LONG = ["demo", "test", "torture"]  # other tests run what these run


@pytest.fixture
def checkout(copy: Path) -> Path:
    shutil.copy(ROOT / "Makefile", copy)
    for name in ("tools", "requirements"):
        shutil.copytree(ROOT / name, copy / name, dirs_exist_ok=True)
    for environment, stamp in ((".venv", "study"), (".venv-read", "read")):
        (copy / environment).mkdir()
        for part in ("bin", "lib", "pyvenv.cfg"):
            (copy / environment / part).symlink_to(Path(sys.prefix) / part)
        (copy / environment / stamp).touch()
    return copy


def test_every_one_is_run_here() -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named == {command.split()[0] for command in PRINTS} | set(LONG)


@pytest.mark.parametrize("command", PRINTS)
def test_it_runs(checkout: Path, command: str) -> None:
    assert PRINTS[command] in run(checkout, "make", *command.split()).stdout
    assert run(checkout, "git", "status", "--porcelain", "--untracked-files=no").stdout == ""


@pytest.mark.parametrize("command", LONG)
def test_its_recipe_is_whole(checkout: Path, command: str) -> None:
    run(checkout, "make", "--dry-run", command)
