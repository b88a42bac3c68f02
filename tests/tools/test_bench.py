"""The benchmark: that it runs, at a size that says nothing of speed, and that its peer is the same network as ours."""

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

import pages
from bnstudy.engine import training
from bnstudy.engine.network import Network, initialize
from conftest import ROOT, run, setting_of

BENCHMARKS = ROOT / "tools/benchmarks"


def test_it_runs_and_writes_what_it_measured(in_prepared: Path) -> None:
    shutil.copy(ROOT / "params.yaml", in_prepared)
    readme = in_prepared / "benchmarks/README.md"
    readme.parent.mkdir()
    readme.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    command = (sys.executable, str(BENCHMARKS / "bench.py"), "--toy", "--device=cpu")
    printed = run(in_prepared, *command).stdout
    [path] = (in_prepared / "benchmarks/results").iterdir()
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

    verdicts = {what: verdict for what, _, _, verdict in results["targets"]}
    assert set(verdicts.values()) <= {"met", "missed", "not measured"}
    assert verdicts["TF-slim"] == "not measured"
    assert ".venv-slim" in results["no_slim"]  # the reason
    assert results["no_slim"] in printed
    before, new, after = re.split("<!-- /?results -->\n", readme.read_text())
    assert (before, after) == ("before\n", "after\n")
    assert new in printed
    assert all(number > 0 for number in results["batch_sizes"].values())


def test_the_readme_quotes_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import bench

    monkeypatch.chdir(ROOT)
    text = bench.README.read_text()
    assert pages.between(text, "results", bench.every_text()) == text


def test_without_data_it_says_what_to_run(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    command = (sys.executable, str(BENCHMARKS / "bench.py"), "--toy")
    done = run(tmp_path, *command, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "dvc repro prepare" in done.stderr


def test_the_idiomatic_network_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights, images and updates in float64, without dropout: the same logits, losses and averages."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import idiomatic

    chosen = setting_of("batch_norm", steps=3, batch_size=32, keep_prob=1.0)
    random = np.random.default_rng(0)
    images_NHW = torch.from_numpy(random.integers(0, 256, (32, 28, 28), dtype=np.uint8))
    labels_N = torch.from_numpy(random.integers(0, 10, 32))
    pixels = (images_NHW.float() * float(np.float32(1 / 255))).double().unsqueeze(1)
    ours, theirs = Network(chosen.network).double(), idiomatic.Network().double()
    initialize(ours, chosen.network, seed=0)
    for layer in ("conv1", "conv2", "fc1", "logits"):
        weight = getattr(theirs, layer).weight
        weight.data.copy_(getattr(ours, layer).weight.data.reshape(weight.shape))
    theirs.dropout.p = 0.0

    close = partial(torch.testing.assert_close, rtol=0, atol=1e-9)
    ours_logits, their_logits = ours.train()(images_NHW), theirs.train()(pixels)
    close(their_logits, ours_logits)
    losses = [F.cross_entropy(logits, labels_N) for logits in (their_logits, ours_logits)]
    close(*losses)
    close(theirs.eval()(pixels), training.predict(ours, images_NHW))

    # Every batch is all images, so their order does not matter.
    updates = training.updates(ours, training.accumulators(ours, chosen), images_NHW, labels_N, chosen, seed=0)
    their_updates = idiomatic.train(theirs, [(pixels, labels_N)], "cpu")
    for (_, loss, _), their_loss in zip(updates, their_updates, strict=False):
        torch.testing.assert_close(their_loss, loss, rtol=0, atol=1e-7)
    # Their Adagrad has an epsilon of 1e-10.
    torch.testing.assert_close(theirs.eval()(pixels), training.predict(ours, images_NHW), rtol=0, atol=1e-6)
    assert idiomatic.test(theirs, [(pixels, labels_N)], "cpu") == training.evaluate(ours, images_NHW, labels_N)[1]
