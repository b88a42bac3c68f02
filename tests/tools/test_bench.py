"""The benchmark: that it runs, at a size that says nothing of speed, and that its peer is the same network as ours."""

import hashlib
import json
import re
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bnstudy.engine import training
from bnstudy.engine.network import Network, initialize
from bnstudy.params import load
from conftest import ROOT, run

BENCH = ROOT / "tools/bench"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A few images of noise, and a page to write to."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    random, sums = np.random.default_rng(0), ""
    (tmp_path / "data/prepared").mkdir(parents=True)
    for split in ("train", "validation", "test"):
        for what, shape, high in (("images", (128, 28, 28), 256), ("labels", (128,), 10)):
            path = tmp_path / f"data/prepared/{split}_{what}.npy"
            np.save(path, random.integers(0, high, shape, dtype=np.uint8))
            sums += f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
    (tmp_path / "data/prepared/SHA256SUMS").write_text(sums)
    (tmp_path / "README.md").write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    return tmp_path


def test_it_runs_and_writes_what_it_measured(folder: Path) -> None:
    command = (sys.executable, str(BENCH / "bench.py"), "--toy", "--device=cpu", f"--into={folder}")
    printed = run(folder, *command, OMP_NUM_THREADS="1").stdout
    [path] = (folder / "results").iterdir()
    results = json.loads(path.read_text())
    table = results["programs"]
    assert set(table) >= {"ours", "idiomatic PyTorch", "floor"}
    for name, row in table.items():
        assert f"| {name} " in printed
        assert row["fastest_s"] <= row["s"] <= row["slowest_s"]
        assert row["images_per_s"] == pytest.approx(results["batch_size"] / row["s"])
        assert row["times_ours"] == pytest.approx(row["s"] / table["ours"]["s"])
        assert row["rss_mib"] > 50
    assert table["ours"]["floor_share"] == pytest.approx(table["floor"]["s"] / table["ours"]["s"])
    # Multiplications and additions: forward, for the weights, and but for conv1 for the inputs.
    conv1, conv2, fc1, logits = 28 * 28 * 16 * 25, 14 * 14 * 32 * 32 * 25, 3136 * 1024, 2048 * 10
    assert table["floor"]["flop"] == 2 * results["batch_size"] * (2 * conv1 + 3 * (conv2 + fc1 + logits))
    assert re.search(r"^\| TF-slim +\| 1\.15 +\| – +\| not measured \|$", printed, re.MULTILINE)
    page = (folder / "README.md").read_text()
    assert page.startswith("before\n<!-- results -->\n### ")
    assert page.endswith("\n<!-- /results -->\nafter\n")
    assert printed.partition("\nwritten to ")[0] in page


def test_the_page_quotes_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    import bench

    assert bench.every_text() == (BENCH / "README.md").read_text()


def test_without_data_it_says_what_to_run(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    done = run(tmp_path, sys.executable, str(BENCH / "bench.py"), "--toy", check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "dvc repro prepare" in done.stderr


def test_the_idiomatic_network_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights, images and updates in float64, without dropout: the same logits, losses and averages."""
    monkeypatch.syspath_prepend(BENCH)
    import idiomatic

    steps = {"steps": 3, "batch_size": 32, "keep_prob": 1.0}
    arm = load(ROOT / "params.yaml").arm("batch_norm").model_copy(update=steps)
    random = np.random.default_rng(0)
    images_NHW = torch.from_numpy(random.integers(0, 256, (32, 28, 28), dtype=np.uint8))
    labels_N = torch.from_numpy(random.integers(0, 10, 32))
    pixels = (images_NHW.float() * float(np.float32(1 / 255))).double().unsqueeze(1)
    ours, theirs = Network(arm.network).double(), idiomatic.Network().double()
    initialize(ours, arm.network, seed=0)
    for layer in ("conv1", "conv2", "fc1", "logits"):
        weight = getattr(theirs, layer).weight
        weight.data.copy_(getattr(ours, layer).weight.data.reshape(weight.shape))
    theirs.dropout.p = 0.0

    close = partial(torch.testing.assert_close, rtol=0, atol=1e-9)
    ours_logits, their_logits = ours.train()(images_NHW), theirs.train()(pixels)
    close(their_logits, ours_logits)
    close(*(F.cross_entropy(logits, labels_N) for logits in (their_logits, ours_logits)))
    close(theirs.eval()(pixels), training.predict(ours, images_NHW))

    class Losses:
        def __init__(self) -> None:
            self.seen = list[torch.Tensor]()

        def after(self, update: training.Update) -> None:
            self.seen.append(update.loss)

    # Every batch is all images, so their order does not matter.
    losses, images = Losses(), (images_NHW, labels_N)
    training.train(ours, training.Optimizer(ours, arm.optimizer), arm, 0, images, [losses])
    their_updates = idiomatic.train(theirs, [(pixels, labels_N)], "cpu")
    for loss in losses.seen:
        torch.testing.assert_close(next(their_updates), loss, rtol=0, atol=1e-7)
    # Their Adagrad has an epsilon of 1e-10.
    torch.testing.assert_close(theirs.eval()(pixels), training.predict(ours, images_NHW), rtol=0, atol=1e-6)
    assert idiomatic.test(theirs, [(pixels, labels_N)], "cpu") == training.evaluate(ours, images)[1]
