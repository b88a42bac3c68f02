"""What training and evaluation read: the prepared arrays, checked, and the order of the batches."""

import hashlib
import io
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bnstudy import BadInput

PREPARED = Path("data/prepared")


def expect(sha256: str, folder: Path = PREPARED) -> None:
    """Raise `BadInput` unless the prepared images are those whose SHA256SUMS has this SHA-256."""
    try:
        found = hashlib.sha256((folder / "SHA256SUMS").read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise BadInput(f"{error.filename}: is missing; `dvc repro prepare` brings it") from None
    if found != sha256:
        raise BadInput(
            f"{folder}: its images are not those of the study, data.sha256 in study/params.yaml ({found} is theirs); "
            "put `data` in params.yaml back, then `dvc repro prepare`"
        )


def load_split(name: str, folder: Path = PREPARED) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The images, uint8 [N, 28, 28], and labels, uint8 [N] in 0..9, of the split `name`: train, validation or test.

    Raises `BadInput`, naming the file, if one is missing, differs from SHA256SUMS or is not such an array.
    """
    images_NHW = checked_array(folder / f"{name}_images.npy")
    labels_N = checked_array(folder / f"{name}_labels.npy")
    if images_NHW.shape[1:] != (28, 28) or not len(images_NHW):
        raise damaged(folder / f"{name}_images.npy", f"its shape {images_NHW.shape} is not (N, 28, 28), N at least 1")
    if labels_N.shape != images_NHW.shape[:1]:
        raise damaged(folder / f"{name}_labels.npy", f"its shape {labels_N.shape} is not ({len(images_NHW)},)")
    if labels_N.max() > 9:
        raise damaged(folder / f"{name}_labels.npy", f"a label {labels_N.max()} is not in 0..9")
    return images_NHW, labels_N


def checked_array(path: Path) -> NDArray[np.uint8]:
    """The uint8 array in `path`, if its SHA-256 is the one in the folder's SHA256SUMS; else `BadInput`."""
    sums = path.with_name("SHA256SUMS")
    try:
        lines, content = sums.read_text(encoding="utf-8", errors="replace").splitlines(), path.read_bytes()
    except FileNotFoundError as error:
        raise BadInput(f"{error.filename}: is missing; `dvc repro prepare` brings it") from None
    digest = hashlib.sha256(content).hexdigest()
    if f"{digest}  {path.name}" not in lines:
        raise damaged(path, f"its sha256 {digest} is not the one in {sums}")
    try:
        array = np.lib.format.read_array(
            io.BytesIO(content), allow_pickle=False
        )  # np.load, less its guess at zip files
    except ValueError as error:
        raise damaged(path, f"it is not a whole .npy file: {error}") from None
    if array.dtype != np.uint8:
        raise damaged(path, f"its type {array.dtype} is not uint8")
    return array


def damaged(path: Path, why: str) -> BadInput:
    # Forced, because DVC would restore a damaged copy from its cache; single (-s), because `fetch` need not run again.
    return BadInput(f"{path}: {why}; `dvc repro -s -f prepare` replaces it")


def batch_indices(seed: int, step: int, images: int, batch_size: int) -> NDArray[np.int64]:
    """The rows, int64 [batch_size] in 0..images-1, of update `step` (from 0): a function of its arguments alone.

    As the original's `next_batch`: epoch follows epoch, each a new permutation of all images, and the stream is cut
    into batches of exactly `batch_size`, so a batch may take the end of one epoch and the start of the next.
    """
    start, end = step * batch_size, (step + 1) * batch_size
    epochs = range(start // images, (end - 1) // images + 1)
    parts = [permutation(seed, e, images)[max(start - e * images, 0) : end - e * images] for e in epochs]
    return np.concatenate(parts)


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, images: int) -> NDArray[np.int64]:
    # The 1 keeps this stream apart from others drawn from the same seed.
    return np.random.default_rng([seed, 1, epoch]).permutation(images)
