"""What a run says of where it was trained: beside what the system says itself."""

import json
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from bnstudy import device as devices
from bnstudy.evaluate import evaluate_run
from bnstudy.params import BadInput, load
from bnstudy.train import train_run
from conftest import ROOT, run

CPU = torch.device("cpu")
PARAMS = load(ROOT / "params.yaml")


@pytest.mark.parametrize("name", ["cuda:255", "cuda:256", "cuda:999"])  # PyTorch's index is a signed byte
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(BadInput, match=f"runtime.device: {name} is not there"):
        devices.find(name)


def test_a_model_carries_its_environment_and_evaluate_copies_it(in_prepared: Path) -> None:
    before, threads = datetime.now(UTC), torch.get_num_threads()
    train = PARAMS.train.model_copy(update={"steps": 1, "batch_size": 32})
    try:
        runtime = PARAMS.runtime.model_copy(update={"device": "cpu", "threads": threads + 1})
        train_run("plain", PARAMS.variants["plain"], train, 0, runtime)
    finally:
        torch.set_num_threads(threads)
    found = evaluate_run("plain", 0, PARAMS.evaluate, CPU)["environment"]
    assert isinstance(found, dict)
    assert found == devices.environment(CPU) | {"threads": threads + 1, "deterministic": True}
    assert found["machine"] == os.uname().machine
    # The log of the run says the same, and when it ran.
    log = json.loads(Path("logs/train/plain/0.json").read_text())
    assert found.items() <= log.items()
    assert log["commit"] is None
    started = datetime.fromisoformat(log["started"])
    assert before.replace(microsecond=0) <= started <= datetime.now(UTC)
    assert 0 <= log["seconds"] <= (datetime.now(UTC) - before).total_seconds() + 0.1


@pytest.mark.skipif(not shutil.which("git"), reason="git is not here")
def test_a_log_names_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def commit() -> str:
        devices.log("sweep/plain/rate_0.1", CPU, time.time())
        return str(json.loads(Path("logs/sweep/plain/rate_0.1.json").read_text())["commit"])

    run(tmp_path, "git", "init", "--quiet")
    assert commit() == "None"
    Path("file").write_text("1")
    run(tmp_path, "git", "add", "file")
    run(tmp_path, "git", "commit", "--quiet", "--message", "one")
    run(tmp_path, "git", "tag", "v1")
    head = run(tmp_path, "git", "rev-parse", "HEAD").stdout.strip()
    assert commit() == head
    Path("file").write_text("2")
    assert commit() == f"{head}-dirty"
