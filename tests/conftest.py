"""What several tests share: a throw-away copy of the study, and DVC run in it as a person would."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from html import escape, unescape
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from filelock import FileLock

from bnstudy.params import Arm, load

# One thread each: two workers and their subprocesses share the cores. Before PyTorch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

hypothesis.settings.register_profile("no deadline", deadline=None)  # timing decides no test
hypothesis.settings.load_profile("no deadline")
pytest_plugins = ["toy"]  # the fixtures of tests/toy.py
ROOT = Path(__file__).parent.parent
PARAMS = load(ROOT / "params.yaml")
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "GIT_CONFIG_GLOBAL": os.devnull,
    **{f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}
Run = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that both workers end together."""
    items.sort(key=lambda item: item.path.name not in ("test_launch.py", "test_note.py", "test_study.py"))


def arm_of(model: str = "batch_norm", steps: int = 6, batch_size: int = 16, **changes: Any) -> Arm:
    """One of the note's models and how it is trained, small enough for a test."""
    return PARAMS.arm(model).model_copy(update={"steps": steps, "batch_size": batch_size} | changes)


def run(folder: Path, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `command` in `folder`; a failure shows what it printed."""
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT | environment, capture_output=True, text=True)
    if check and done.returncode:
        pytest.fail(f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for it; fail after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def clone(folder: Path) -> Path:
    """Both pipelines of the working tree in a git repository of their own, without data, results or cache."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z").stdout
    wanted = ("src/", "tools/", ".dvc/", "dvc.yaml", "params.yaml", "docs/changes.md", ".git", ".dvcignore")
    study = ("dvc.yaml", "params.yaml", "fixed_rules.json", "earlier/", "metrics/", "plots/")
    for name in listed.split("\0"):
        if name.startswith((*wanted, *(f"study/{name}" for name in study))) and (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)  # with its time, by which Numba knows what it has compiled
    compiled = "src/bnstudy/engine/__pycache__"
    (folder / compiled).mkdir()
    for loop in (ROOT / compiled).glob("*.nb[ci]"):
        shutil.copy2(loop, folder / compiled)
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "study")
    return folder


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, in which `make` was called, by the first of several processes to ask; the others wait."""
    with FileLock(f"{folder}.lock"):
        if not (done := Path(f"{folder}.done")).exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder


def shared(factory: pytest.TempPathFactory, name: str) -> Path:
    """A path that the test workers share."""
    base = factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name


def write_params(folder: Path, **sections: dict[str, Any]) -> None:
    """The study's params.yaml in `folder`, with keys of its sections changed."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, changes in sections.items():
        tree[section] |= changes
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


def chromium(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open `page` in Chromium. No name is resolved, so that a request which leaves the machine fails."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not program:
        pytest.skip("needs Chromium")
    quiet = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
    quiet += " --disable-component-update --virtual-time-budget=20000"
    apart = ("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={page.parent / 'browser'}")
    return run(page.parent, program, *quiet.split(), *apart, *options, page.as_uri())


def browse(page: Path, expression: str, *options: str, width: int = 360) -> tuple[Any, list[str]]:
    """What a JavaScript expression is in a real browser once `page` is drawn, and the messages on the console."""
    tell = f"setTimeout(() => parent.document.title = JSON.stringify({expression}), 2000)"
    content = page.read_text(encoding="utf-8") + f"<script>addEventListener('load', () => {tell})</script>"
    frame = page.with_name("framed.html")  # a window has at least 500 pixels
    frame.write_text(f'<iframe width="{width}" height="800" srcdoc="{escape(content)}"></iframe>', encoding="utf-8")
    done = chromium(frame, "--enable-logging=stderr", "--window-size=1300,900", "--dump-dom", *options)
    titles = re.findall("<title>(.+?)</title>", done.stdout)
    assert titles, done.stderr
    return json.loads(unescape(titles[0])), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data/prepared` of the sample: 3,500 training, 500 validation and 1,000 test images."""

    def make(folder: Path) -> None:
        folder.mkdir()
        write_params(folder, data={"source": "sample", "validation_size": 500})
        for script in ("fetch", "prepare"):
            run(folder, sys.executable, str(ROOT / f"src/{script}.py"))

    return once(shared(tmp_path_factory, "prepared"), make)


@pytest.fixture
def in_prepared(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own for one test, with the sample's prepared arrays."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/prepared").symlink_to(prepared / "data/prepared")
    monkeypatch.chdir(tmp_path)
    return tmp_path
