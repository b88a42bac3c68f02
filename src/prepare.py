"""Stage `prepare`: `data/raw` as uint8 arrays in `data/prepared`, split into train, validation and test."""

import gzip
import hashlib
import io
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bnstudy import BadInput, run
from bnstudy.files import whole_folder
from bnstudy.params import Data, load

RAW, PREPARED = Path("data/raw"), Path("data/prepared")
SPLIT_SEED = 0  # of the sample's split into training and test images: part of what the data set is
TRAIN_PER_CLASS = 400  # of the sample's 500

Labelled = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # images [N, 28, 28], labels [N]


def read(name: str) -> bytes:
    """What the archive `name` in `data/raw` holds. Raises `BadInput` if it is missing or damaged."""
    try:
        return gzip.decompress((RAW / name).read_bytes())
    except FileNotFoundError:
        raise BadInput(f"{RAW / name}: is missing; `dvc repro prepare` brings it") from None
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{RAW / name}: is damaged: {error}; `dvc repro -s -f fetch` replaces it") from None


def read_idx(name: str, *shape: int) -> NDArray[np.uint8]:
    """The array of uint8 in an archive of MNIST's form. Raises `BadInput` if it is not of this shape."""
    content, start = read(name), 4 + 4 * len(shape)  # after a header that names the shape again
    if len(content) != start + math.prod(shape):
        raise BadInput(f"{RAW / name}: is not an array of {shape}; `dvc repro -s -f fetch` replaces it")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_mnist(part: str, n: int) -> Labelled:
    """The `n` images of `part`, train or t10k, of MNIST or of a data set in its form."""
    return read_idx(f"{part}-images-idx3-ubyte.gz", n, 28, 28), read_idx(f"{part}-labels-idx1-ubyte.gz", n)


def read_sample() -> tuple[Labelled, Labelled]:
    """The sample's digits, 4,000 to train and 1,000 to test on, 0 to 9 in turn: every prefix is stratified."""
    rows = np.loadtxt(io.BytesIO(read("mnist_5k.csv.gz")), np.uint8, delimiter=",")  # 784 pixels and the label
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
        (images_NHW, labels_N), test = read_mnist("train", 60_000), read_mnist("t10k", 10_000)
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
    prepare(load().data)


if __name__ == "__main__":
    run(main)
