"""What a run says of where it was trained, and what in its surroundings may not change a bit."""

import json
import os
import shutil
import sys
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import train
from bnstudy import BadInput
from bnstudy.engine import device as devices
from bnstudy.progress import log
from conftest import ENVIRONMENT, ROOT, run, write_params
from tiny import CPU


@pytest.mark.parametrize("name", ["cuda:255", "cuda:256", "cuda:999"])  # PyTorch's index is a signed byte
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(BadInput, match=f"runtime.device: {name} is not there"):
        devices.find(name)


def test_a_run_leaves_its_environment_in_its_model_and_its_log(
    in_prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, threads = datetime.now(UTC), torch.get_num_threads()
    write_params(in_prepared, runtime={"device": "cpu", "threads": threads + 1}, train={"steps": 1, "batch_size": 16})
    monkeypatch.setattr(sys, "argv", ["train", "plain", "0"])
    try:
        train.main()
    finally:
        torch.set_num_threads(threads)
    with safe_open("models/plain/0.safetensors", framework="pt") as file:
        found = json.loads(file.metadata()["bnstudy"])["environment"]
    assert found == devices.environment(CPU) | {"threads": threads + 1, "deterministic": True}
    assert found["machine"] == os.uname().machine
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
        log("train/plain/0", devices.environment(CPU), time.time())
        return str(json.loads(Path("logs/train/plain/0.json").read_text())["commit"])

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


@cache
def two_updates(**environment: str) -> str:
    """The digest of the weights after two updates, and the environment that the run records."""
    script = """if True:
        import hashlib
        from tiny import network_of, trained
        from bnstudy.engine import device
        from conftest import PARAMS, arm_of
        where = device.prepare(PARAMS.runtime.model_copy(update={"device": "cpu"}))
        trained(network := network_of(arm_of()), arm_of(steps=2))
        bits = b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())
        print(hashlib.sha256(bits).hexdigest(), device.environment(where))
    """
    return run(ROOT, sys.executable, "-c", script, PYTHONPATH="src:tests:tests/engine", **environment).stdout


@pytest.mark.parametrize(
    "changes",
    [
        {
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "MKL_CBWR": "COMPATIBLE",
            "NUMBA_CPU_NAME": "generic",
            "NUMBA_CPU_FEATURES": "",
            "ATEN_CPU_CAPABILITY": "default",
        },
        {"NUMBA_DISABLE_JIT": "1"},  # with which those of Numba would have no effect
    ],
)
def test_variables_that_change_bits_are_taken_away(changes: dict[str, str]) -> None:
    assert not changes.keys() & ENVIRONMENT.keys()
    assert two_updates(**changes) == two_updates()
