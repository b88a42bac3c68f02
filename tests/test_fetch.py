"""The fetch stage against real servers on loopback, each misbehaving in one way. No test reaches a public address."""

import contextlib
import gzip
import hashlib
import os
import random
import re
import signal
import ssl
import subprocess
import sys
import termios
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from torchvision.datasets import KMNIST, MNIST, FashionMNIST

import fetch
from bnstudy import run
from conftest import ROOT

MNIST_FOLDER = ROOT.parent / "shared" / "mnist"
NAMES = list(fetch.SHA256)
needs_mnist = pytest.mark.skipif(not MNIST_FOLDER.exists(), reason="needs the MNIST archives in ../shared/mnist")
RANDOM = random.Random(0)
# Made up; the stage is given their checksums.
GENUINE = {name: gzip.compress(RANDOM.randbytes(2000), mtime=0) for name in NAMES}
# What a mirror does, and the reason that a person must read.
FAULTS = {
    "404": "HTTP Error 404: Not Found",
    "stall-inside": "timed out",
    "drip": "not finished after 1 s",
    "drip-status": ".*not finished after 1 s",
    "truncated": r"wrong bytes: 100 of 20\d\d, which begin b'",
    "flipped-bit": r"wrong bytes: (20\d\d) of \1, which begin b'",
    "page": r"wrong bytes: 29 of \?, which begin b'<!DOCTYPE html>",
    "endless": r"wrong bytes: 20\d{5} of \?, ",
    "redirect-http": r"a redirect to http://127\.0\.0\.1:\d+/good/\S+, which is not https",
}


class Mirror(BaseHTTPRequestHandler):
    """Serves /<what to do>/<archive>."""

    plain: str  # the address of the server that speaks http
    asked: list[str]
    end = threading.Event()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        _, what, name = self.path.split("/")
        genuine, size = GENUINE[name], {"Content-Length": str(len(GENUINE[name]))}
        answers: dict[str, tuple[int, dict[str, str], bytes]] = {
            "good": (200, size, genuine),
            "404": (404, {}, b""),
            "stall-inside": (200, size, genuine[:100]),
            "drip": (200, size, b""),
            "truncated": (200, size, genuine[:100]),
            "flipped-bit": (200, size, genuine[:-1] + b"\x01"),
            "page": (200, {}, b"<!DOCTYPE html> Please log in"),
            "endless": (200, {}, bytes(5_000_000)),
            "redirect-http": (302, {"Location": f"{self.plain}/good/{name}"}, b""),
            "redirect-here": (302, {"Location": f"/good/{name}"}, b""),
        }
        with contextlib.suppress(OSError):  # the stage hangs up on some
            if what in answers:
                status, headers, body = answers[what]
                self.send_response(status)
                for header in headers.items():
                    self.send_header(*header)
                self.end_headers()
                self.wfile.write(body)
            while what.startswith(("stall", "drip")) and not self.end.wait(0.05):
                self.wfile.write(b"x" * what.startswith("drip"))  # no single read ever times out


@contextlib.contextmanager
def serving(certificate: Path | None = None) -> Iterator[str]:
    """The address of a server whose folders are the ways to behave; over https if there is a certificate."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as httpd:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        threading.Thread(target=httpd.serve_forever, args=(0.01,)).start()
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving() as Mirror.plain:
        yield Mirror.plain
        Mirror.end.set()


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project as working directory; to the stage, `GENUINE` is every data set, MNIST on no public mirror."""
    monkeypatch.chdir(tmp_path)
    sha256 = {name: hashlib.sha256(gzip.decompress(archive)).hexdigest() for name, archive in GENUINE.items()}
    for name, value in {"SHA256": sha256, "TIMEOUT_S": 0.3, "DEADLINE_S": 1, "MAX_BYTES": 2_000_000}.items():
        monkeypatch.setattr(fetch, name, value)
    for kind in (MNIST, FashionMNIST, KMNIST):
        monkeypatch.setattr(kind, "resources", [(name, hashlib.md5(GENUINE[name]).hexdigest()) for name in NAMES])
    monkeypatch.setattr(MNIST, "mirrors", [])
    monkeypatch.delenv("BNSTUDY_MIRROR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Mirror.asked = []
    params()
    yield tmp_path
    signal.alarm(0)


def params(source: str = "mnist", mirrors: list[str] | None = None) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["data"], values["runtime"]["mirrors"] = {"source": source, "validation_size": 500}, mirrors or []
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


def failure() -> str:
    """The message with which the stage ends, leaving nothing."""
    with pytest.raises(SystemExit) as exit_:
        run(fetch.main)
    assert not list(Path().glob("data/*"))
    return str(exit_.value.code)  # a text, which Python prints before it ends with 1


def fetched() -> dict[str, bytes]:
    assert [path.name for path in Path("data").iterdir()] == ["raw"]
    return {path.name: path.read_bytes() for path in Path("data/raw").iterdir()}


def stage(**environment: str) -> str:
    """What the stage prints to stderr in a process of its own, with the real checksums."""
    command, environment = [sys.executable, str(ROOT / "src/fetch.py")], {**os.environ, **environment}
    return subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=True, timeout=120).stderr


@pytest.mark.parametrize("fault", ["stall-inside", "flipped-bit"])
def test_a_bad_mirror_gives_way_to_the_next(fault: str, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNSTUDY_MIRROR", f"{server}/{fault}")
    params(mirrors=[f"{server}/good/"])
    fetch.main()
    assert fetched() == GENUINE
    assert {path for path in Mirror.asked if "/good/" not in path} == {f"/{fault}/{NAMES[0]}"}  # for the first alone


def test_when_all_fail_each_is_named_with_its_reason(server: str) -> None:
    faults = {f"{server}/{fault}": reason for fault, reason in FAULTS.items()}
    faults |= {"http://127.0.0.1:1": ".*Connection refused", "file:///no/folder": ".*No such file or directory"}
    params(mirrors=list(faults))
    message = failure()
    assert message.startswith(f"error: {NAMES[0]}: no mirror has it\n")
    for line, (mirror, reason) in zip(message.splitlines()[1:], faults.items(), strict=False):
        assert re.match(re.escape(f"  {mirror}: ") + reason, line), (line, reason)
    for way_out in ["BNSTUDY_MIRROR", "runtime.mirrors", "file:///folder", "sample: 5,000 digits", *NAMES]:
        assert way_out in message


def test_https_is_checked_and_not_left(server: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = (
        "req -x509 -newkey rsa:2048 -nodes -subj /CN=x -addext subjectAltName=IP:127.0.0.1 -keyout x.pem -out x.pem"
    )
    subprocess.run(["openssl", *options.split()], check=True, capture_output=True)
    with serving(project / "x.pem") as https:
        params(mirrors=[f"{https}/redirect-http", f"{https}/redirect-here"])
        assert failure().count("CERTIFICATE_VERIFY_FAILED") == 2
        monkeypatch.setenv("SSL_CERT_FILE", "x.pem")
        fetch.main()
        assert fetched() == GENUINE
        assert Mirror.asked[:3] == [f"/{what}/{NAMES[0]}" for what in ("redirect-http", "good", "redirect-here")]


@needs_mnist
def test_mnist_from_a_folder_replaces_what_was_there() -> None:
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/old").touch()
    assert stage(BNSTUDY_MIRROR=MNIST_FOLDER.as_uri()) == ""
    assert fetched() == {name: (MNIST_FOLDER / name).read_bytes() for name in NAMES}


@pytest.mark.parametrize("address", ["http://mirror.invalid/", "http://127.0.0.1.b.invalid/", "file://h/x", "/data"])
def test_an_address_that_is_not_allowed_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNSTUDY_MIRROR", address)
    assert failure() == f"error: BNSTUDY_MIRROR: {address} is not https://…, file:///… or http:// on loopback"


@pytest.mark.parametrize("source", ["mnist", "fashion_mnist", "kmnist"])
def test_public_mirrors_come_last_and_over_https(source: str, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MNIST, "mirrors", ["https://a.invalid/", "http://b.invalid/c/"])  # taken away above
    monkeypatch.setattr(urllib.request, "_opener", None)  # which knows the proxies
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")  # so that none is reached
    params(source, [f"{server}/404"])
    _, own, *public, _, _, _ = failure().splitlines()
    assert own.startswith(f"  {server}/404: HTTP Error 404")
    assert {bool(re.match("  https://.*Connection refused", line)) for line in public} == {True}


@pytest.mark.parametrize("source", ["fashion_mnist", "kmnist"])
def test_other_data_of_the_same_form_and_mnist_s_sha256(source: str, server: str) -> None:
    fetch.SHA256[NAMES[2]] = "0" * 64
    params("mnist", [f"{server}/good"])
    assert re.match(rf"error: {NAMES[2]}: no mirror has it\n  {server}/good: wrong bytes: .*sha256", failure())
    params(source, [f"{server}/good"])
    fetch.main()
    assert fetched() == GENUINE


def test_the_sample_needs_no_mirror_and_no_torchvision() -> None:
    params("sample")
    assert "torchvision" not in stage(PYTHONPROFILEIMPORTTIME="1")  # of all that it imports
    assert hashlib.sha256(fetched()["mnist_5k.csv.gz"]).hexdigest()[:16] == "846f6cad587fea38"
    terminal, end = os.openpty()  # where there is a bar
    termios.tcsetwinsize(end, (24, 80))
    subprocess.run([sys.executable, str(ROOT / "src/fetch.py")], stderr=end, check=True, timeout=120)
    assert "mnist_5k.csv.gz:   0%|" in os.read(terminal, 100_000).decode()
