"""What a run says of where it was trained: beside what the system says itself."""

import json
import os
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

import train
from bnstudy import BadInput
from bnstudy.engine import device as devices
from bnstudy.engine.models import from_file
from bnstudy.progress import log
from bnstudy.settings import Variant
from conftest import run, setting_of, write_params, write_setting

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:255", "cuda:256", "cuda:999"])  # PyTorch's index is a signed byte
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(BadInput, match=f"runtime.device: {name} is not there"):
        devices.find(name)


def test_a_run_leaves_its_environment_beside_its_history_and_in_its_model(
    in_prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, threads = datetime.now(UTC), torch.get_num_threads()
    runtime = {"device": "cpu", "threads": threads + 1}
    write_params(in_prepared, runtime=runtime)
    write_setting("train/note_plain/0", setting_of("plain", steps=1))
    monkeypatch.setattr(sys, "argv", ["train", "note_plain", "0"])
    try:
        train.main()
    finally:
        torch.set_num_threads(threads)
    found = json.loads(Path("metrics/train/note_plain/0.json").read_text())
    path = Path("models/train/note_plain/0.safetensors")
    assert from_file(path, "note_plain", 0, Variant.model_validate)[1] == found
    assert found == devices.environment(CPU) | {"threads": threads + 1, "deterministic": True}
    assert found["machine"] == os.uname().machine
    # The log of the run says the same, and when it ran.
    log = json.loads(Path("logs/train/note_plain/0.json").read_text())
    assert found.items() <= log.items()
    assert log["commit"] is None
    started = datetime.fromisoformat(log["started"])
    assert before.replace(microsecond=0) <= started <= datetime.now(UTC)
    assert 0 <= log["seconds"] <= (datetime.now(UTC) - before).total_seconds() + 0.1


@pytest.mark.skipif(not shutil.which("git"), reason="git is not here")
def test_a_log_names_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def commit() -> str:
        log("sweep/plain", devices.environment(CPU), time.time())
        return str(json.loads(Path("logs/sweep/plain.json").read_text())["commit"])

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
