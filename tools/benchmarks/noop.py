"""`dvc repro` with nothing to do: the committed study in a clone, beside as many empty stages."""

import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import yaml


def dvc(folder: Path, words: str) -> str:
    """What a DVC command prints; `CalledProcessError` if it fails."""
    return subprocess.run(["dvc", *words.split()], cwd=folder, check=True, capture_output=True, text=True).stdout


def make_empty_stages(folder: Path, count: int) -> None:
    """A DVC project of `count` stages that have run, each with one dependency and one output of a few bytes."""
    stages = {f"stage{n}": {"cmd": f"cp in out{n}", "deps": ["in"], "outs": [f"out{n}"]} for n in range(count)}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    for name in ("in", *(f"out{n}" for n in range(count))):
        (folder / name).write_text("nothing\n")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    for words in ("init --quiet", "config core.analytics false", "config core.check_update false"):
        dvc(folder, words)
    dvc(folder, "commit --quiet --force")


def measure(rounds: int) -> dict[str, float] | str:
    """Median seconds of `study` and of `empty`, and the number of stages; or why there is nothing to measure."""
    with tempfile.TemporaryDirectory() as temporary:
        study, empty = Path(temporary, "study"), Path(temporary, "empty")
        subprocess.run(["git", "clone", "--quiet", ".", study], check=True)
        empty.mkdir()
        # What the runs recorded is in records/; the weights are not, in a clone.
        dvc(study, "pull --quiet --allow-missing --remote records")
        for folder in sorted((study / "models").rglob("*"), reverse=True):
            folder.rmdir()
        try:
            done = dvc(study, "repro --allow-missing --dry")
        except subprocess.CalledProcessError:  # it needs what is missing
            done = ""
        if "up to date" not in done:
            return "the committed study is not up to date"
        count = len(dvc(study, "stage list --name-only").splitlines())
        make_empty_stages(empty, count)
        seconds: dict[Path, list[float]] = {study: [], empty: []}
        for _ in range(rounds + 1):
            for folder, times in seconds.items():
                start = time.perf_counter()
                dvc(folder, "repro --allow-missing")
                times.append(time.perf_counter() - start)
        # The first of each does not count: DVC takes notes in it.
        return {"stages": count} | {folder.name: statistics.median(times[1:]) for folder, times in seconds.items()}
