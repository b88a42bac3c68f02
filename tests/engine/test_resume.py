"""Interrupted and resumed runs, beside uninterrupted ones: the same bytes, and nothing loaded that should not be."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bnstudy.engine import resume as module
from bnstudy.engine.network import Network, build
from bnstudy.engine.resume import Checkpoint, State
from bnstudy.engine.rows import HistoryRow
from bnstudy.engine.training import history
from bnstudy.files import forget_finished
from bnstudy.params import Runtime
from conftest import ENVIRONMENT, PARAMS, ROOT, setting_of, until, write_params, write_setting

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def signals_stay_as_they_are() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    module.stopped_by.clear()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def runtime(**changes: Any) -> Runtime:
    return PARAMS.runtime.model_copy(update=changes)


def rows(name: str, checkpoint: Checkpoint, stop_after: int | None = None) -> tuple[list[HistoryRow], Network]:
    """The history of a short run, up to a Ctrl-C in the middle of update `stop_after`."""
    setting = setting_of(name)
    network = build(setting.network, 0, CPU)
    real_due = checkpoint.due

    def due(step: int) -> bool:
        if step == stop_after:
            signal.raise_signal(signal.SIGINT)
        return real_due(step)

    checkpoint.due = due  # type: ignore[method-assign]
    return history(network, setting, 0, checkpoint, [4, 6], [6]), network


@pytest.mark.parametrize("name", ["batch_norm", "plain"])
@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    in_prepared: Path, name: str, stop_after: int, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, whole = rows(name, Checkpoint("whole", 6, [], CPU, runtime()))
    module.catch_signals()
    with pytest.raises(SystemExit) as left:
        rows(name, Checkpoint("cut", 6, [], CPU, runtime()), stop_after)
    assert left.value.code == 128 + signal.SIGINT
    assert f"kept the state after step {stop_after}" in capsys.readouterr().err
    module.stopped_by.clear()
    found, resumed = rows(name, Checkpoint("cut", 6, [], CPU, runtime()))
    assert f"cut: going on after step {stop_after}" in capsys.readouterr().err
    assert found == expected
    states = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)


def saved(determinants: Any = "a", **changes: Any) -> Checkpoint:
    checkpoint = Checkpoint("run", 6, determinants, CPU, runtime(**changes))
    checkpoint.save(State(3, {"x": torch.arange(5.0)}, [[1, 0.1]]))
    return checkpoint


def test_a_state_comes_back_as_it_was(in_prepared: Path) -> None:
    state = saved().load()
    assert state is not None
    assert (state.step, state.rows, state.tensors["x"].tolist()) == (3, [[1, 0.1]], [0, 1, 2, 3, 4])
    checkpoint = Checkpoint("run", 6, "a", CPU, runtime())
    checkpoint.finish()
    finished = checkpoint.load()  # DVC may be killed before it has recorded the results
    assert finished is not None
    assert finished.step == 3
    forget_finished("")
    assert checkpoint.load() is None
    assert not [path for path in Path("checkpoints").rglob("*") if path.is_file()]


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "junk"])
def test_a_damaged_state_is_set_aside_and_named(
    in_prepared: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = saved()
    content = bytearray(checkpoint.path.read_bytes())
    content[-3] ^= 1
    checkpoint.path.write_bytes(
        {"flip": bytes(content), "truncate": content[:-9], "empty": b"", "junk": os.urandom(99)}[damage]
    )
    assert checkpoint.load() is None
    assert "checkpoints/run.state: is damaged; set aside as checkpoints/run.damaged" in capsys.readouterr().err
    assert not checkpoint.path.exists()
    assert checkpoint.path.with_suffix(".damaged").exists()


def test_a_state_of_another_run_is_ignored_with_a_line(
    in_prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved()
    deterministic = torch.are_deterministic_algorithms_enabled()  # another test may have said so
    others = [Checkpoint("run", 6, "b", CPU, runtime())]
    for where, name, value in (
        (torch, "__version__", "0"),
        (torch, "are_deterministic_algorithms_enabled", lambda: not deterministic),
        (torch, "get_num_threads", lambda: 77),
        (module, "loaded_code", list),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, value)
            others.append(Checkpoint("run", 6, "a", CPU, runtime()))
    for other in others:
        assert other.load() is None
        assert "is of another run" in capsys.readouterr().err
    assert Checkpoint("run", 6, "a", CPU, runtime()).load() is not None


def test_a_save_cut_short_leaves_the_last_state(in_prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = saved()
    before = checkpoint.path.read_bytes()

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(State(4, {"x": torch.zeros(5)}, []))
    assert checkpoint.path.read_bytes() == before
    assert [path.name for path in Path("checkpoints").iterdir()] == ["run.state"]


def test_how_often_a_state_is_due(in_prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = Checkpoint("run", 9, "a", CPU, runtime(checkpoint_every=3))
    assert [step for step in range(1, 10) if every.due(step)] == [3, 6]
    timed = Checkpoint("run", 9, "a", CPU, runtime())
    now = timed.saved_at
    for seconds, at_the_end, expected in [(5, False, False), (59, False, False), (61, False, True), (11, True, True)]:
        monkeypatch.setattr(time, "monotonic", lambda at=now + seconds: at)
        assert timed.due(9 if at_the_end else 5) is expected


def train(folder: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "src/train.py"), "own_rate", "0"]
    return subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT | environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_run_killed_three_times_goes_on_and_writes_the_same_bytes(in_prepared: Path) -> None:
    write_params(in_prepared, runtime={"checkpoint_every": 5})
    write_setting("train/own_rate/0", setting_of(steps=60, batch_size=32))
    outputs = [Path("models/train/own_rate/0.safetensors"), Path("metrics/train/own_rate/0.csv")]
    whole = train(in_prepared)
    whole.communicate(timeout=60)
    assert whole.returncode == 0
    expected = [path.read_bytes() for path in outputs]
    for path in outputs:
        path.unlink()
    forget_finished("")
    state, last = Path("checkpoints/train/own_rate/0.state"), b""
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        killed = train(in_prepared)
        until(lambda before=last: state.exists() and state.read_bytes() != before)
        killed.send_signal(number)
        _, errors = killed.communicate(timeout=60)
        assert killed.returncode == (-number if number == signal.SIGKILL else 128 + number)
        assert ("going on after step" in errors) == bool(last)
        assert not any(path.exists() for path in outputs)
        last = state.read_bytes()
    resumed = train(in_prepared)
    resumed.communicate(timeout=60)
    assert resumed.returncode == 0
    assert [path.read_bytes() for path in outputs] == expected
    assert not state.exists()
    for path in outputs:  # as DVC does that was killed before it could record them
        path.unlink()
    again = train(in_prepared)
    _, errors = again.communicate(timeout=60)
    assert "going on after step 55" in errors
    assert [path.read_bytes() for path in outputs] == expected


def test_ctrl_c_during_the_imports_is_no_traceback(in_prepared: Path) -> None:
    command = [sys.executable, "-v", str(ROOT / "src/train.py"), "note_plain", "0"]
    write_params(in_prepared)
    with subprocess.Popen(command, cwd=in_prepared, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert any(line.startswith("import 'bnstudy'") for line in process.stderr)  # and then torch, for a second
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == -signal.SIGINT


def test_a_training_ends_with_the_dvc_that_started_it(in_prepared: Path) -> None:
    """SIGKILL of DVC alone would leave its child training beside the next one."""
    write_params(in_prepared, runtime={"checkpoint_every": 5})
    write_setting("train/note_plain/0", setting_of("plain", steps=2000, batch_size=32))
    training = f"{sys.executable} {ROOT}/src/train.py note_plain 0; true"
    script = f"import subprocess; subprocess.run(['sh', '-c', {training!r}])"
    environment = ENVIRONMENT | {"DVC_STAGE": "train@note_plain-0"}
    dvc = subprocess.Popen(
        [sys.executable, "-c", script], cwd=in_prepared, env=environment, stderr=subprocess.PIPE, text=True
    )
    until(Path("checkpoints/train/note_plain/0.state").exists)
    dvc.kill()
    _, errors = dvc.communicate(timeout=60)  # ends when the last process that could write to it has ended
    assert "note_plain/0: stopped; kept the state after step" in errors
