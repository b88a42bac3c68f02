"""Stage `prepare`: `data/raw` as uint8 arrays in `data/prepared`, split into train, validation and test."""

import hashlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bnstudy import BadInput, run
from bnstudy.archives import RAW, SAMPLE, extract
from bnstudy.files import whole_folder
from bnstudy.params import Data, load

PREPARED = Path("data/prepared")
SPLIT_SEED = 0  # of the sample's split into training and test images: part of what the data set is
TRAIN_PER_CLASS = 400  # of the sample's 500

Labelled = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # images [N, 28, 28], labels [N]


def raw(name: str, source: str) -> bytes:
    """The content of the archive `name` in `data/raw`, checked again. Raises `BadInput` if it is missing or damaged."""
    path = RAW / name
    try:
        return extract(name, path.read_bytes(), source)
    except FileNotFoundError:
        raise BadInput(f"{path}: is missing; `dvc repro prepare` brings it") from None
    except ValueError as error:
        raise BadInput(f"{path}: {error}; `dvc repro -s -f fetch` replaces it") from None


def read_mnist(part: str, source: str) -> Labelled:
    """The images of `part`, train or t10k. The checksums cover the files' headers of 16 and 8 bytes."""
    images_NHW = np.frombuffer(raw(f"{part}-images-idx3-ubyte.gz", source), np.uint8, offset=16).reshape(-1, 28, 28)
    return images_NHW, np.frombuffer(raw(f"{part}-labels-idx1-ubyte.gz", source), np.uint8, offset=8)


def read_sample() -> tuple[Labelled, Labelled]:
    """The sample's digits, 4,000 to train and 1,000 to test on, 0 to 9 in turn: every prefix is stratified."""
    rows = np.loadtxt(io.BytesIO(raw(SAMPLE, "sample")), np.uint8, delimiter=",")  # 784 pixels and the label
    images_NHW, labels_N = rows[:, :-1].reshape(-1, 28, 28), rows[:, -1]
    rng = np.random.default_rng(SPLIT_SEED)
    by_class = np.stack([rng.permutation(np.flatnonzero(labels_N == digit)) for digit in range(10)], axis=1)
    train, test = by_class[:TRAIN_PER_CLASS].ravel(), by_class[TRAIN_PER_CLASS:].ravel()
    return (images_NHW[train], labels_N[train]), (images_NHW[test], labels_N[test])


def prepare(data: Data) -> None:
    """Write `data/prepared`: <split>_images.npy uint8 [N, 28, 28], <split>_labels.npy uint8 [N], and SHA256SUMS."""
    if data.source == "sample":
        (images_NHW, labels_N), test = read_sample()
    else:
        (images_NHW, labels_N), test = read_mnist("train", data.source), read_mnist("t10k", data.source)
    n = data.validation_size
    splits = {"train": (images_NHW[n:], labels_N[n:]), "validation": (images_NHW[:n], labels_N[:n]), "test": test}
    with whole_folder(PREPARED) as folder:
        sums = ""
        for split, arrays in splits.items():
            for what, array in zip(("images", "labels"), arrays, strict=True):
                np.save(content := io.BytesIO(), array)  # to a file on a full disk, it fails without the reason
                (folder / f"{split}_{what}.npy").write_bytes(content.getvalue())
                sums += f"{hashlib.sha256(content.getvalue()).hexdigest()}  {split}_{what}.npy\n"
        (folder / "SHA256SUMS").write_text(sums, encoding="utf-8", newline="\n")
    print("prepared", ", ".join(f"{len(labels_N):,} {split}" for split, (_, labels_N) in splits.items()), "images")


def main() -> None:
    params = load()
    prepare(params.data)


if __name__ == "__main__":
    run(main)
