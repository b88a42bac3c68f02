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
from conftest import ENVIRONMENT, ROOT, run, write_params

READ = """\
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
events = EventAccumulator(sys.argv[1]).Reload()
tags = events.Tags()["tensors"]
print(json.dumps({tag: [[e.step, float(make_ndarray(e.tensor_proto))] for e in events.Tensors(tag)] for tag in tags}))
"""


def test_a_training_writes_its_history_for_tensorboard(in_prepared: Path) -> None:
    write_params(in_prepared, runtime={"tensorboard": True}, train={"steps": 6, "batch_size": 16})
    run(in_prepared, sys.executable, str(ROOT / "src/train.py"), "batch_norm", "0")
    history = pd.read_csv("curves/batch_norm/0.csv").set_index("step")
    for split, part in (("train", "batch"), ("validation", "validation"), ("test", "test")):
        read = [sys.executable, "-W", "ignore", "-c", READ, f"logs/tensorboard/train/batch_norm/0/{split}"]
        found = json.loads(subprocess.run(read, env=ENVIRONMENT, capture_output=True, text=True).stdout)
        for what in ("loss", "accuracy"):
            expected = history[f"{part}_{what}"].dropna()
            assert dict(found[what]) == pytest.approx(expected.to_dict(), rel=1e-6)


def test_a_terminal_shows_one_bar(in_prepared: Path) -> None:
    write_params(in_prepared, train={"steps": 60, "batch_size": 16})
    terminal, inside = os.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    command = [sys.executable, str(ROOT / "src/train.py"), "batch_norm", "0"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdin=inside, stdout=inside, stderr=inside)
    os.close(inside)
    shown = b""
    with suppress(OSError):  # which tells its end on Linux
        while part := os.read(terminal, 4096):
            shown += part
    os.close(terminal)
    assert process.wait() == 0
    parts = r"train/batch_norm/0 .+/60 updates, [\d:?]+ left, loss [\d.]+, validation [\d.]+%, ([\d,]+) images/s"
    speeds = re.findall(parts, shown.decode())
    assert speeds, shown
    assert all(int(speed.replace(",", "")) > 0 for speed in speeds)
    assert b"train/batch_norm/0: 60 updates, test accuracy" in shown


def test_a_launcher_reads_the_lines_of_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    shown = progress.Progress("train/batch_norm/0", 100, 32)
    shown.resumed(10)
    shown.evaluated(HistoryRow(20, 0.1, 0.5, 0.6, 0.8, 0.4, 0.9, None, None, None, None))
    Path("log").write_text(capfd.readouterr().err + "a warning\n")
    line = workspace.last_line(Path("log"))
    assert re.fullmatch(r"[\d,]+", line.pop("images"))
    said = "loss 0.5, validation 90.00%"
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
    command = (sys.executable, str(ROOT / "src/train.py"), "plain", "0")
    done = run(tmp_path, *command, check=False, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "error: runtime.tensorboard: true takes TensorBoard: pip install 'tensorboard>=2.19,<3'\n"
