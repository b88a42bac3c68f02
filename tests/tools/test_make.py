"""The Makefile: every target is told by `make help`, has a whole recipe, and works in a path with a space."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from conftest import ROOT, run

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = sorted({*re.findall(r"^# make +([a-z-]+)", MAKEFILE, re.MULTILINE)} - {"install"})


def test_help_tells_every_target() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert {*phony.split()} - {"venv", "help"} == {*TARGETS}
    printed = run(ROOT, "make", "help").stdout
    assert all(f"make {target} " in printed for target in TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_its_recipe_is_whole(target: str) -> None:
    printed = run(ROOT, "make", "--dry-run", target).stdout
    for script in re.findall(r"\b(?:tools|src|tests)/[\w/]+\.py", printed):
        assert (ROOT / script).is_file()


def test_make_in_a_path_with_a_space(tmp_path: Path) -> None:
    """Its environment lies inside the checkout, and what it runs comes from there."""
    checkout = tmp_path / "a study"
    (checkout / "requirements").mkdir(parents=True)
    (checkout / "tools").mkdir()
    (checkout / "tools/page.py").write_text("import sys; print(sys.executable, sys.warnoptions)\n")
    (checkout / "requirements/study.lock").write_text("")
    shutil.copy(ROOT / "Makefile", checkout)
    printed = run(checkout, "make", f"PYTHON={sys.executable}", PYTHONWARNINGS="error").stdout
    assert f"{checkout}/.venv/bin/python []" in printed  # nor does a stranger's wish end it
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a study"]
    assert (checkout / ".venv/study").is_file()


def test_it_refuses_an_old_python(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 10); $2"\n')
    old.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/study.lock").touch()
    done = run(tmp_path, "make", "venv", f"PYTHON={old}", check=False)
    assert done.returncode == 2
    assert "is not Python 3.11 to 3.13: make PYTHON=python3.12 venv" in done.stdout
    assert not (tmp_path / ".venv").exists()
