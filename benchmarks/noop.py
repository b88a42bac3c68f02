"""`dvc repro` with nothing to do: the committed study in a clone, beside as many empty stages."""

import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import yaml

REPRO = "dvc repro --allow-missing"


def run(folder: Path, command: str) -> str:
    """What `command` prints; `CalledProcessError` if it fails."""
    return subprocess.run(command.split(), cwd=folder, check=True, capture_output=True, text=True).stdout


def make_empty_stages(folder: Path, count: int) -> None:
    """A DVC project of `count` stages that have run, each with one dependency and one output of a few bytes."""
    folder.mkdir()
    stages = {f"stage{n}": {"cmd": f"cp in out{n}", "deps": ["in"], "outs": [f"out{n}"]} for n in range(count)}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    for name in ("in", *(f"out{n}" for n in range(count))):
        (folder / name).write_text("nothing\n")
    for command in ("git init --quiet", "dvc init --quiet", "dvc config core.analytics false"):
        run(folder, command)
    run(folder, "dvc config core.check_update false")
    run(folder, "dvc commit --quiet --force")


def measure(rounds: int) -> dict[str, float] | str:
    """Median seconds of `study` and of `empty`, and the number of stages; or why there is nothing to measure."""
    if not Path("dvc.lock").exists():
        return "there is no dvc.lock, the full study has not run"
    with tempfile.TemporaryDirectory() as temporary:
        study, empty = Path(temporary, "study"), Path(temporary, "empty")
        run(Path(), f"git clone --quiet . {study}")
        run(study, f"dvc cache dir --local {Path('.dvc/cache').resolve()}")
        # What the runs recorded is in records/; weights of runs that were made elsewhere are not here, as in any clone.
        run(study, "dvc pull --quiet --allow-missing")
        run(study, "find . -path ./models* -empty -delete")
        try:
            done = run(study, f"{REPRO} --dry")
        except subprocess.CalledProcessError:  # it takes what is missing
            done = ""
        if "up to date" not in done:
            return "the committed study is not up to date"
        count = len(run(study, "dvc stage list --name-only").splitlines())
        make_empty_stages(empty, count)
        seconds: dict[Path, list[float]] = {study: [], empty: []}
        for _ in range(rounds + 1):
            for folder, times in seconds.items():
                start = time.perf_counter()
                run(folder, REPRO)
                times.append(time.perf_counter() - start)
        # The first of each does not count: DVC takes notes in it.
        return {"stages": count} | {folder.name: statistics.median(times[1:]) for folder, times in seconds.items()}
