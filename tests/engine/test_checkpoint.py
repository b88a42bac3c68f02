"""Killed and resumed trainings, beside whole ones: the same bytes, and nothing restored that should not be."""

import hashlib
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

from bnstudy.engine import checkpoint as module
from bnstudy.engine.averages import Averages
from bnstudy.engine.checkpoint import Checkpoint
from bnstudy.engine.history import History
from bnstudy.engine.models import to_bytes
from bnstudy.engine.rows import to_csv
from bnstudy.engine.run import Run
from bnstudy.engine.schedule import When
from bnstudy.engine.training import Hook, Optimizer, Update
from bnstudy.params import Optimizer as OptimizerParams
from bnstudy.params import Runtime
from bnstudy.progress import Progress
from conftest import ENVIRONMENT, PARAMS, ROOT, arm_of, until, write_params
from tiny import CPU, SPLITS, TRAIN, VALIDATION, Spy, network_of

ARM, FILES = arm_of(), ("models/plain/0.safetensors", "curves/plain/0.csv")


class Killed(Exception):
    """As by SIGKILL: nothing is saved."""


@pytest.fixture(autouse=True)
def signals_stay_as_they_are(in_prepared: Path) -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    module.stopped_by.clear()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def runtime(**changes: Any) -> Runtime:
    return PARAMS.runtime.model_copy(update={"device": "cpu"} | changes)


def outputs(name: str, kind: str = "batch_norm", look: Any = lambda _: None, every: int | str = 2) -> list[bytes]:
    """Train as the run `name`, and return the bytes that it leaves: weights and rows."""
    arm = arm_of("plain" if kind == "plain" else "batch_norm")
    if kind == "sgd":
        arm = arm.model_copy(update={"optimizer": OptimizerParams(name="sgd", momentum=0.9)})
    carrying = kind == "averages"
    network = network_of(arm, **{"decay": 0.0} if carrying else {})
    averages = Averages(network, arm, 0, {0.5: {1, 4, 6}, 0.9: {3}}, [4], VALIDATION, TRAIN[0]) if carrying else None
    history = History(network, arm, When([4, 6], [6], [1], True), SPLITS, averages=averages.own if averages else None)
    hooks: list[Hook] = [averages, history, Spy(look)] if averages else [history, Spy(look)]
    run = Run(name, runtime(checkpoint_every=every))
    run.train(network, arm, 0, TRAIN, hooks, run.progress(arm))
    rows = [averages.rows, history.rows] if averages else [history.rows]
    return [to_bytes(network, kind, arm, 0, CPU), *map(to_csv, rows)]


@pytest.mark.parametrize("kind", ["batch_norm", "plain", "sgd", "averages"])
def test_a_training_killed_after_any_update_ends_with_the_bytes_of_a_whole_one(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = outputs("whole", kind)
    for last in range(1, 7):

        def kill(update: Update, last: int = last) -> None:
            if update.step == last:
                raise Killed

        with pytest.raises(Killed):
            outputs(f"cut{last}", kind, kill)
        capsys.readouterr()
        assert outputs(f"cut{last}", kind) == expected
        saved = (last - 1) // 2 * 2  # of every second update
        assert (f"cut{last}: going on after update {saved}\n" in capsys.readouterr().err) == (saved > 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_saves_its_state_first(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    expected = outputs("whole")
    with pytest.raises(SystemExit) as left:
        outputs("cut", look=lambda update: signal.raise_signal(number) if update.step == 3 else None)
    assert left.value.code == 128 + number
    assert "cut: stopped; kept the state after update 3 in checkpoints/cut.state" in capsys.readouterr().err
    module.stopped_by.clear()
    assert outputs("cut") == expected
    assert "cut: going on after update 3" in capsys.readouterr().err
    with pytest.raises(SystemExit):  # a second signal does not wait for the update's end
        outputs("twice", look=lambda _: [signal.raise_signal(number) for _ in range(2)])
    assert not Path("checkpoints/twice.state").exists()


def test_of_a_finished_training_the_rows_alone_may_be_kept() -> None:
    def rows() -> tuple[bytes, int]:
        network, seen, run = network_of(ARM), list[Update](), Run("rows", runtime())
        history = History(network, ARM, When([4, 6], [6]), SPLITS)
        run.train(network, ARM, 0, TRAIN, [history, Spy(seen.append)], run.progress(ARM)).save_rows()
        return to_csv(history.rows), len(seen)

    (first, updates), again = rows(), rows()
    assert (updates, again) == (6, (first, 0))
    assert Path("checkpoints/rows.state").stat().st_size < 10_000  # no weights


def test_what_is_finished_trains_again_only_when_dvc_has_recorded_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between its end and the record: DVC removes the outputs and asks for them again."""
    monkeypatch.setattr(module, "SECONDS", 0)  # saved after every update

    def updates() -> int:
        network, seen, run = network_of(ARM), list[Update](), Run("train/x/0", runtime())
        run.train(network, ARM, 0, TRAIN, [Spy(seen.append)], run.progress(ARM))
        run.finish({Path("a"): b"1", Path("b"): b"2"}, "done")
        return len(seen)

    def record(lock: str, *contents: bytes) -> None:
        Path(lock).parent.mkdir(exist_ok=True)
        Path(lock).write_text("".join(f"md5: {hashlib.md5(content).hexdigest()}\n" for content in contents))

    assert [updates(), updates()] == [6, 0]
    record("dvc.lock", b"1", b"another")
    assert updates() == 0
    record("study/dvc.lock", b"2")
    assert [updates(), updates()] == [6, 6]
    Path("checkpoints/train/x/0").mkdir()  # of its parts
    Run("train/x/0", runtime())
    assert not any(Path("checkpoints/train/x").iterdir())
    record("dvc.lock", b"another")
    assert [updates(), updates()] == [6, 0]
    Path("checkpoints/train/x/0.finished").write_bytes(b"junk")
    assert updates() == 0


def checkpoint(determinants: Any = "a", step: int = 0, steps: int = 6, **changes: Any) -> Checkpoint:
    """Of a run whose network's biases are all `step`; saved if it is not 0."""
    network = network_of(ARM)
    torch.nn.init.constant_(network.norm1.bias, step)
    optimizer = Optimizer(network, ARM.optimizer)
    made = Checkpoint(network, optimizer, [], determinants, runtime(**changes), Progress("run", steps, 16))
    if step:
        made.save(step)
    return made


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "junk"])
def test_a_damaged_state_is_set_aside_and_named(damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = checkpoint(step=3).path
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes({"flip": bytes(content), "truncate": content[:-9], "empty": b"", "junk": os.urandom(99)}[damage])
    assert (other := checkpoint()).restore() == 0
    assert other.network.norm1.bias.max() == 0
    assert "checkpoints/run.state: is damaged; set aside as checkpoints/run.damaged" in capsys.readouterr().err
    assert not path.exists()
    assert path.with_suffix(".damaged").exists()


def test_a_state_of_another_run_is_ignored_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(step=3)
    (images := tmp_path / "other").mkdir()
    (images / "SHA256SUMS").write_text("of other images")
    deterministic = torch.are_deterministic_algorithms_enabled()  # another test may have said so
    others = [checkpoint("b")]
    for where, name, value in (
        (torch, "__version__", "0"),
        (torch, "are_deterministic_algorithms_enabled", lambda: not deterministic),
        (torch, "get_num_threads", lambda: 77),
        (module, "loaded_code", list),
        (module, "PREPARED", images),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, value)
            others.append(checkpoint())
    for other in others:
        assert other.restore() == 0
        assert other.network.norm1.bias.max() == 0
        assert "checkpoints/run.state: is of another run" in capsys.readouterr().err
    assert (same := checkpoint()).restore() == 3
    assert same.network.norm1.bias.min() == 3
    names = [name for name, _ in module.loaded_code()]
    assert {"bnstudy.engine.network", "bnstudy.engine.fast_cpu", "bnstudy.engine.training"} <= {*names}


def test_a_save_cut_short_leaves_the_last_state(monkeypatch: pytest.MonkeyPatch) -> None:
    made = checkpoint(step=3)
    before = made.path.read_bytes()

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        made.save(4)
    assert made.path.read_bytes() == before
    assert [path.name for path in Path("checkpoints").iterdir()] == ["run.state"]


def test_how_often_a_state_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    every = checkpoint(steps=9, checkpoint_every=3)
    assert [step for step in range(1, 10) if every.due(step)] == [3, 6]
    timed = checkpoint(steps=9)
    now = timed.saved_at
    for seconds, step, expected in [(5, 5, False), (59, 5, False), (61, 5, True), (9, 9, False), (11, 9, True)]:
        monkeypatch.setattr(time, "monotonic", lambda at=now + seconds: at)
        assert timed.due(step) is expected


def start_train(folder: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, *options, str(ROOT / "src/train.py"), "plain", "0"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT | environment, **pipes)


def test_a_process_killed_twice_goes_on_and_writes_the_same_bytes(in_prepared: Path) -> None:
    write_params(in_prepared, runtime={"checkpoint_every": 5}, train={"steps": 60, "batch_size": 32})
    files, state = [*map(Path, FILES)], Path("checkpoints/train/plain/0.state")
    whole = start_train(in_prepared)
    assert (whole.communicate(timeout=60), whole.returncode)[1] == 0
    expected, last = [path.read_bytes() for path in files], b""
    for path in (*files, state):
        path.unlink()
    for number in (signal.SIGKILL, signal.SIGTERM):
        killed = start_train(in_prepared)
        until(lambda before=last: state.exists() and state.read_bytes() != before)
        killed.send_signal(number)
        _, errors = killed.communicate(timeout=60)
        assert killed.returncode == (-number if number == signal.SIGKILL else 128 + number)
        assert ("going on after update" in errors) == bool(last)
        assert not any(path.exists() for path in files)
        last = state.read_bytes()
    resumed = start_train(in_prepared)
    assert (resumed.communicate(timeout=60), resumed.returncode)[1] == 0
    assert [path.read_bytes() for path in files] == expected


def test_ctrl_c_during_the_imports_is_no_traceback(in_prepared: Path) -> None:
    write_params(in_prepared)
    with start_train(in_prepared, "-v") as process:
        assert process.stderr
        assert any(line.startswith("import 'bnstudy'") for line in process.stderr)  # and then torch, for a second
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == -signal.SIGINT


def test_a_training_ends_with_the_dvc_that_started_it(in_prepared: Path) -> None:
    """SIGKILL of DVC alone would leave its child training beside the next one."""
    write_params(in_prepared, runtime={"checkpoint_every": 5}, train={"steps": 2000, "batch_size": 32})
    training = f"{sys.executable} {ROOT}/src/train.py plain 0; true"
    command = [sys.executable, "-c", f"import subprocess; subprocess.run(['sh', '-c', {training!r}])"]
    environment = ENVIRONMENT | {"DVC_STAGE": "train@plain-0"}
    dvc = subprocess.Popen(command, cwd=in_prepared, env=environment, stderr=subprocess.PIPE, text=True)
    until(Path("checkpoints/train/plain/0.state").exists)
    dvc.kill()
    _, errors = dvc.communicate(timeout=60)  # ends when the last process that could write to it has ended
    assert "plain/0: stopped; kept the state after update" in errors
