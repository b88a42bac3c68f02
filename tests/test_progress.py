"""What a training shows on a terminal, and what it writes for TensorBoard, read back by TensorBoard itself."""

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from bnstudy import progress, workspace
from bnstudy.engine.rows import HistoryRow
from conftest import ENVIRONMENT, ROOT, run, setting_of, write_params, write_setting

READ = """\
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
events = EventAccumulator(sys.argv[1]).Reload()
tags = events.Tags()["tensors"]
print(json.dumps({tag: [[e.step, float(make_ndarray(e.tensor_proto))] for e in events.Tensors(tag)] for tag in tags}))
"""


def test_a_training_writes_its_history_for_tensorboard(in_prepared: Path) -> None:
    write_params(in_prepared, runtime={"tensorboard": True})
    write_setting("train/own_rate/0", setting_of(steps=6))
    run(in_prepared, sys.executable, str(ROOT / "src/train.py"), "own_rate", "0")
    history = pd.read_csv("metrics/train/own_rate/0.csv").set_index("step")
    for split, part in (("train", "batch"), ("validation", "validation"), ("test", "test")):
        read = [sys.executable, "-W", "ignore", "-c", READ, f"logs/tensorboard/train/own_rate/0/{split}"]
        found = json.loads(subprocess.run(read, env=ENVIRONMENT, capture_output=True, text=True).stdout)
        for what in ("loss", "accuracy"):
            expected = history[f"{part}_{what}"].dropna()
            assert dict(found[what]) == pytest.approx(expected.to_dict(), rel=1e-6)


def test_a_terminal_shows_one_bar(in_prepared: Path) -> None:
    write_params(in_prepared)
    write_setting("train/own_rate/0", setting_of(steps=60))
    terminal, inside = os.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    command = [sys.executable, str(ROOT / "src/train.py"), "own_rate", "0"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdin=inside, stdout=inside, stderr=inside)
    os.close(inside)
    shown = b""
    with suppress(OSError):  # which tells its end on Linux
        while part := os.read(terminal, 4096):
            shown += part
    os.close(terminal)
    assert process.wait() == 0
    parts = r"train/own_rate/0: .*/60 \[.+<.+, loss [\d.]+, validation accuracy [\d.]+%, ([\d,]+) images/s\]"
    speeds = re.findall(parts, shown.decode())
    assert speeds, shown
    assert all(int(speed.replace(",", "")) > 0 for speed in speeds)
    assert b"train/own_rate/0: 60 updates, test accuracy" in shown


def test_names_lead_to_the_size_of_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_setting("sweep/plain", setting_of(batch_size=32))
    assert progress.batch_size("sweep/plain/0.1-100") == 32
    assert progress.batch_size("sweep/other/0.1-100") is None


@pytest.mark.parametrize("size", [32, None], ids=["one batch size", "no setting"])
def test_a_launcher_reads_the_lines_of_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], size: int | None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    if size:
        write_setting("train/own_rate/0", setting_of(batch_size=size))
    shown = progress.Progress("train/own_rate/0", 100)
    shown.resumed(10)
    shown.evaluated(HistoryRow(20, 0.1, 0.5, 0.6, 0.8, 0.4, 0.9, None, None))
    Path("log").write_text(capfd.readouterr().err + "a warning\n")
    line = workspace.last_line(Path("log"))
    assert re.fullmatch(r"[\d,]+" if size else "", line.pop("images"))
    said = "loss 0.5, validation accuracy 90.00%"
    assert line == {"step": "20", "steps": "100", "said": said, "left": "0 min left"}
    Path("log").write_text("a warning\n")
    assert workspace.last_line(Path("log")) == {}


def test_without_tensorboard_nothing_begins(tmp_path: Path) -> None:
    write_params(tmp_path, runtime={"tensorboard": True})
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u, sys\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'tensorboard' else real(name, *a)\n"
    )
    command = (sys.executable, str(ROOT / "src/check.py"))
    done = run(tmp_path, *command, check=False, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "error: runtime.tensorboard: true takes TensorBoard: pip install 'tensorboard>=2.19,<3'\n"
    assert not (tmp_path / "data").exists()
