"""Runs side by side on a real Ray, through the real DVC: the lock of a serial `dvc repro`, and what faults do to it.

The faults happen to the small study with a toy in place of its trainings, which counts in steps of a tenth of a second
and keeps resume states as they do. What needs Ray is skipped where it is not installed: `make test-launch` installs it.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from bnstudy.launch import NO_RAY, place
from bnstudy.workspace import remove_abandoned
from conftest import ENVIRONMENT, ROOT, run, until
from small import ALL, TRAINS, edit
from test_pipeline import on_the_sample, outputs, repro

needs_ray = pytest.mark.skipif(not find_spec("ray"), reason="Ray is not installed: make test-launch")
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # in DVC
COMMAND = (sys.executable, "-m", "bnstudy.launch")
PLAIN, HE = "note_plain-10", "he-10"
TOY = """\
import os, signal, sys, time
from pathlib import Path

arm, seed = sys.argv[1:]
name = f"{arm}-{seed}"
steps = 100 if name in os.environ.get("LONG", "").split() else 1
told, state = [], Path("checkpoints", name + ".state")
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: told.append(number))
if name in os.environ.get("FAIL", "").split():
    sys.exit("error: step 3: the loss is not finite")
done = int(state.read_text()) if state.exists() else 0
with Path(os.environ["TRAIL"]).open("a") as file:
    file.write(f"{name} {done} {os.getpid()}\\n")
for step in range(done + 1, steps + 1):
    time.sleep(0.1)
    print(f"{name}: {step} of {steps} updates, loss 0.5, validation accuracy 90.00%, 1 min left", file=sys.stderr)
    state.parent.mkdir(exist_ok=True)
    state.with_suffix(".part").write_text(str(step))
    state.with_suffix(".part").replace(state)
    if told:
        sys.exit(128 + told[0])
state.unlink(missing_ok=True)
for kind, end in (("models", "safetensors"), ("metrics", "csv"), ("metrics", "json")):
    path = Path(f"{kind}/train/{arm}/{seed}.{end}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"gpu": null, "processor": "a toy"}' if end == "json" else arm)
"""


def share(study: Path) -> Path:
    """Give it a remote `shared`, a folder beside it."""
    (study.parent / "shared").mkdir(exist_ok=True)
    run(study, "dvc", "remote", "add", "--local", "--force", "shared", str(study.parent / "shared"))
    return study


@pytest.fixture
def toy(copy: Path) -> Path:
    """The small study with a toy in place of its trainings, which are all that is to be run, and `evaluate`."""
    (copy / "src/train.py").write_text(TOY)
    return share(copy)


def environment(study: Path, **more: str) -> dict[str, str]:
    scratch = study.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    names = {"PYTHONPATH": "src", "TRAIL": str(study.parent / "trail"), "TMPDIR": str(scratch)}
    ray = {"RAY_TMPDIR": "/tmp", "RAY_worker_niceness": "0"}  # the names of its sockets have at most 107 bytes
    return ENVIRONMENT | names | ray | more


def launch(study: Path, *arguments: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
    return run(study, *COMMAND, *arguments, check=check, **environment(study, **more))


def start(study: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """A launch that goes on beside the test, in a process group of its own, as a terminal would start it."""
    return subprocess.Popen(
        (*COMMAND, *arguments), cwd=study, env=environment(study, **more), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def ended(printed: str) -> list[tuple[str, str]]:
    """What it says of each stage, in that order."""
    return re.findall(r"^(done|failed|restored|stopped) +(\S+)", printed, re.MULTILINE)


def trail(study: Path) -> list[tuple[str, int, int]]:
    """The trainings that began, in order, at which step, and their processes."""
    path = study.parent / "trail"
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [(name, int(step), int(process)) for name, step, process in lines]


def begun(study: Path) -> Counter[str]:
    return Counter(name for name, *_ in trail(study))


wait_for = partial(until, seconds=120)


def step(path: Path) -> int:
    """How far the resume state in `path` is; 0 without one."""
    return int((path.read_text() if path.exists() else "") or 0)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def kill_worker(study: Path, name: str) -> None:
    """Kill the Ray worker that this training runs below."""
    [process] = [psutil.Process(process) for run, _, process in trail(study) if run == name]
    [worker] = [parent for parent in process.parents() if parent.name().startswith("ray::")]
    worker.kill()


@needs_ray
@pytest.mark.parametrize("remote", [(), ("--remote", "shared")], ids=["one machine", "a remote"])
def test_the_lock_is_that_of_a_serial_run(unmade: Path, made: Path, tmp_path: Path, remote: tuple[str, ...]) -> None:
    study = share(Path(shutil.copytree(unmade, tmp_path / "study")))
    printed = launch(study, *remote).stdout
    assert (study / "dvc.lock").read_bytes() == (made / "dvc.lock").read_bytes()
    assert sorted(ended(printed)) == sorted(("done", name) for name in ALL[2:])
    assert "Running stage" not in printed[printed.index("done    evaluate") :]
    assert all(
        (study / path).read_bytes() == (made / path).read_bytes() for path in ("models/train/he/10.safetensors",)
    )
    assert not list((tmp_path / "scratch").glob("bnstudy-*/run-*"))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The address of a Ray cluster of two: each has a processor, a scratch folder, and says it is of another kind."""
    own = run(ROOT, *COMMAND, "--machine", PYTHONPATH=str(ROOT / "src")).stdout.strip()
    where = "import ray.util; print(ray.util.get_node_ip_address())"  # Ray takes 127.0.0.1 for this
    address = f"{run(ROOT, sys.executable, '-c', where).stdout.strip()}:{free_port()}"
    ray = (sys.executable, "-m", "ray.scripts.scripts")
    run(ROOT, *ray, "get-auth-token", "--generate")  # where there is none yet
    start = [*ray, "start", "--block", "--num-cpus=1"]
    short = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # Ray's sockets lie there, and names of sockets are short
    head = ["--head", "--include-dashboard=false", f"--port={address.partition(':')[2]}", f"--temp-dir={short}"]
    ask = f"import ray; ray.init('{address}', logging_level='error'); print(len(ray.nodes()))"
    count, token = (sys.executable, "-c", ask), {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    raylets = []
    try:
        for name, kind, options in (("one", own, head), ("two", "another", [f"--address={address}"])):
            (tmp_path / name).mkdir()
            environment = ENVIRONMENT | token | {"TMPDIR": str(tmp_path / name), "RAY_worker_niceness": "0"}
            command = [*start, f"--labels=machine={kind}", *options]
            raylets.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
            wait_for(lambda: run(ROOT, *count, check=False, **token).stdout.split() == [str(len(raylets))])
        yield address
    finally:
        for raylet in reversed(raylets):
            raylet.terminate()
            raylet.wait()
        shutil.rmtree(short, ignore_errors=True)


@needs_ray
def test_the_study_on_two_machines_that_share_a_remote_alone(tmp_path: Path, cluster: str) -> None:
    """Four arms from five seeds, all runs of a seed on one kind of machine: the bytes of a serial `dvc repro`."""
    seeds = [10, 11, 12, 13, 14]
    serial = on_the_sample(tmp_path / "serial", arms=["note_plain", "he", "baseline", "own_rate"], seeds=seeds)
    study = share(Path(shutil.copytree(serial, tmp_path / "study")))
    ran = repro(serial)
    printed = launch(study, "--remote", "shared", "--address", cluster)
    done = [("done", name) for name in ran if name not in ("check", "fetch", "prepare")]
    assert sorted(ended(printed.stdout)) == sorted(done)
    assert "warning" not in printed.stderr
    assert (study / "dvc.lock").read_bytes() == (serial / "dvc.lock").read_bytes()
    assert outputs(study) == outputs(serial)

    lock = yaml.safe_load((study / "dvc.lock").read_text())["stages"]

    def machines(stage: str) -> set[str]:
        """Those whose cache has the first output of `stage`."""
        md5 = lock[stage]["outs"][0]["md5"]
        there = tmp_path.glob(f"*/bnstudy-*/files/md5/{md5[:2]}/{md5[2:]}")
        return {path.relative_to(tmp_path).parts[0] for path in there}

    runs = [name for _, name in done if re.match("train|averages|tolerance", name)]
    by_seed = [set().union(*(machines(name) for name in runs if name.endswith(str(seed)))) for seed in seeds]
    assert len(runs) == 30
    assert sorted(by_seed, key=min) == [{"one"}, {"one"}, {"one"}, {"two"}, {"two"}]


@needs_ray
@pytest.mark.parametrize(("share_of_one", "there", "given"), [(1.0, 2, {"0", "1"}), (0.5, 1, {"0"})])
def test_every_gpu_is_used_and_shared_as_asked(toy: Path, share_of_one: float, there: int, given: set[str]) -> None:
    """By what Ray is told is there: no run asks PyTorch for one."""
    edit(toy, "runtime.launch.gpus", share_of_one)
    launched = start(toy, LONG=f"{PLAIN} {HE}", RAY_OVERRIDE_RESOURCES=json.dumps({"CPU": 2, "GPU": there}))
    wait_for(lambda: len(trail(toy)) == 2)
    assert {psutil.Process(process).environ()["CUDA_VISIBLE_DEVICES"] for *_, process in trail(toy)} == given
    output, _ = launched.communicate(timeout=200)
    assert launched.returncode == 0, output


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """A remote on a real sshd of its own: its configuration in DVC, and the environment that has the key to it."""
    sshd, port, home = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin"), free_port(), tmp_path / "home/.ssh"
    if not (sshd and find_spec("dvc_ssh")):
        pytest.skip("needs sshd and dvc-ssh")
    home.mkdir(parents=True, mode=0o700)
    for key in (home / "id_ed25519", tmp_path / "host"):
        run(tmp_path, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    kind, public = (tmp_path / "host.pub").read_text().split()[:2]
    (home / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {public}\n")
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nAuthorizedKeysFile {home}/id_ed25519.pub\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it drops its privileges
    process = subprocess.Popen([sshd, "-D", "-e", "-f", str(tmp_path / "sshd_config")], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listens(port))
        yield {"url": f"ssh://127.0.0.1:{port}{tmp_path}/there"}, {"HOME": str(tmp_path / "home")}
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def s3() -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """A remote on a mock of S3 that is a server of its own."""
    if not (find_spec("moto") and find_spec("dvc_s3")):
        pytest.skip("needs moto[server] and dvc-s3")
    endpoint = f"http://127.0.0.1:{(port := free_port())}"
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    process = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listens(port))
        make = f"import boto3; boto3.client('s3', endpoint_url={endpoint!r}).create_bucket(Bucket='bucket')"
        run(ROOT, sys.executable, "-c", make, **keys)
        yield {"url": "s3://bucket/study", "endpointurl": endpoint}, keys
    finally:
        process.terminate()
        process.wait()


@needs_ray
@pytest.mark.parametrize("kind", ["ssh", "s3"])
def test_a_remote_over_a_network(unmade: Path, made: Path, tmp_path: Path, kind: str, request: Any) -> None:
    """Nobody but the environment has the keys."""
    options, keys = request.getfixturevalue(kind)
    study = Path(shutil.copytree(unmade, tmp_path / "study"))
    run(study, "dvc", "remote", "add", "--local", kind, options.pop("url"))
    for name, value in options.items():
        run(study, "dvc", "remote", "modify", "--local", kind, name, value)
    assert sorted(ended(launch(study, "--remote", kind, **keys).stdout)) == sorted(("done", name) for name in ALL[2:])
    assert (study / "dvc.lock").read_bytes() == (made / "dvc.lock").read_bytes()
    shutil.rmtree(study / ".dvc/cache")
    restored = ended(launch(study, "--remote", kind, **keys).stdout)
    assert {("restored", name) for name in TRAINS} <= set(restored)
    assert {state for state, _ in restored} == {"restored"}


@needs_ray
def test_a_stage_that_fails_stops_only_what_needs_it(toy: Path) -> None:
    done = launch(toy, check=False, FAIL=HE)
    assert done.returncode == 1
    assert sorted(ended(done.stdout)) == [("done", TRAINS[0]), ("failed", TRAINS[1])]
    *_, failed, left = done.stderr.strip().splitlines()
    assert failed == "  train@he-10: error: step 3: the loss is not finite (logs/study/train@he-10.log)"
    assert "python src/train.py he 10" in (toy / "logs/study/train@he-10.log").read_text()
    assert left == "  not run, since they need these: evaluate"
    assert sorted(ended(launch(toy).stdout)) == [("done", "evaluate"), ("done", TRAINS[1])]
    assert begun(toy) == {PLAIN: 1, HE: 1}


@needs_ray
@pytest.mark.parametrize("remote", [(), ("--remote", "shared")], ids=["one machine", "a remote"])
def test_a_killed_worker_is_replaced_and_its_run_goes_on(toy: Path, remote: tuple[str, ...]) -> None:
    launched = start(toy, *remote, LONG=PLAIN)
    state = (toy.parent / f"shared/states/train@{PLAIN}" if remote else toy / "checkpoints") / f"{PLAIN}.state"
    wait_for(lambda: step(state) > 5)
    kill_worker(toy, PLAIN)
    output, _ = launched.communicate(timeout=200)
    assert launched.returncode == 0, output
    first, second = [at for name, at, _ in trail(toy) if name == PLAIN]
    assert first == 0
    assert second > 5
    assert not state.exists()
    [scratch] = (toy.parent / "scratch").glob("bnstudy-*")
    remove_abandoned(scratch)  # as the next launch does
    assert not list(scratch.glob("run-*"))


@needs_ray
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_every_run_and_the_next_launch_goes_on(toy: Path, number: int) -> None:
    launched = start(toy, LONG=PLAIN)
    wait_for(lambda: step(toy / f"checkpoints/{PLAIN}.state") > 3)
    if number == signal.SIGINT:
        os.killpg(launched.pid, number)  # as a terminal does
    else:
        launched.terminate()
    output, _ = launched.communicate(timeout=60)
    assert launched.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[signal.Signals(number)], output
    assert "Traceback" not in output
    assert not any(psutil.pid_exists(process) for *_, process in trail(toy))
    launch(toy)
    assert [at for name, at, _ in trail(toy) if name == PLAIN][1] > 3


@needs_ray
def test_a_killed_driver_started_again_redoes_nothing_that_was_sent(toy: Path) -> None:
    launched = start(toy, "--remote", "shared", LONG=HE)
    state = toy.parent / f"shared/states/train@{HE}/{HE}.state"
    wait_for(lambda: step(state) > 3 and list(toy.parent.glob("shared/runs/*/*")))
    launched.kill()
    launched.communicate()
    wait_for(lambda: not any(psutil.pid_exists(process) for *_, process in trail(toy)))
    printed = launch(toy, "--remote", "shared").stdout
    assert ("restored", TRAINS[0]) in ended(printed)
    assert begun(toy) == {PLAIN: 1, HE: 2}
    assert max(at for name, at, _ in trail(toy) if name == HE) > 3
    elsewhere = Path(shutil.copytree(toy, toy.parent / "other/study", ignore=shutil.ignore_patterns("cache", "models")))
    launch(elsewhere, "--remote", "shared")
    assert not begun(elsewhere)


@needs_ray
def test_two_drivers_at_once_do_no_harm(toy: Path) -> None:
    """Of two clones, to one remote; in one folder, the second is refused."""
    other = Path(shutil.copytree(toy, toy.parent / "other/study"))
    both = [start(folder, "--remote", "shared") for folder in (toy, other)]
    wait_for((toy / ".dvc/tmp/launch.lock").exists)
    refused = launch(toy, check=False)
    assert (refused.returncode, refused.stderr) == (1, "error: another launch is under way in this folder\n")
    for launched in both:
        output, _ = launched.communicate(timeout=200)
        assert launched.returncode == 0, output
    assert (toy / "dvc.lock").read_bytes() == (other / "dvc.lock").read_bytes()


@needs_ray
@pytest.mark.parametrize(("url", "says"), [("/nowhere", "no such folder"), ("/sys/kernel", "cannot be written")])
def test_a_remote_that_is_down_or_read_only_is_said_before_anything_runs(toy: Path, url: str, says: str) -> None:
    run(toy, "dvc", "remote", "add", "--local", "bad", url)
    done = launch(toy, "--remote", "bad", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: --remote bad: ")
    assert says in done.stderr
    assert not trail(toy)


@needs_ray
def test_a_full_disk_on_a_worker_is_named(toy: Path) -> None:
    scratch = toy.parent / "scratch"
    scratch.mkdir()
    mounted = f"mount -t tmpfs -o size=100k tmpfs {scratch} && exec {' '.join(COMMAND)}"
    unshare = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted)
    if subprocess.run(("unshare", "-rm", "true"), capture_output=True).returncode:
        pytest.skip("no name spaces here, to mount a small disk in")
    done = run(toy, *unshare, check=False, **environment(toy))
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert not trail(toy)


def test_without_ray_it_says_how_to_get_it(toy: Path) -> None:
    hidden = "import sys; sys.modules['ray'] = None; import importlib.util; " \
             "importlib.util.find_spec = lambda name, found=importlib.util.find_spec: name != 'ray' and found(name); " \
             "from bnstudy import launch, run; run(launch.main)"  # fmt: skip
    done = run(toy, sys.executable, "-c", hidden, check=False, **environment(toy))
    assert (done.returncode, done.stderr) == (1, f"error: {NO_RAY}\n")
    assert "\nray:" in (ROOT / "Makefile").read_text()


def test_runs_of_a_seed_are_placed_on_one_kind_of_machine(capsys: pytest.CaptureFixture[str]) -> None:
    def node(processors: int, **labels: str) -> dict[str, Any]:
        return {"Resources": {"CPU": processors}, "Labels": labels}

    names = [f"train@{arm}-{seed}" for arm in ("plain", "he_2") for seed in range(9)]
    names += [f"{part}@{seed}" for part in ("averages", "mechanism") for seed in range(9)]
    names += ["sweep@plain", "batch@with-16"]
    assert place([node(4), node(4)][:1], names, {}) == {}
    assert set(place([node(4, machine="new"), node(8, machine="new")], names, {}).values()) == {"new"}
    assert not capsys.readouterr().err
    two = [node(8, machine="new"), node(4, machine="old")]
    kinds = place(two, names, {})
    for seed in range(9):
        assert len({kinds[name] for name in names if name.endswith((f"-{seed}", f"@{seed}"))}) == 1
    assert Counter(kinds[f"averages@{seed}"] for seed in range(9)) == {"new": 6, "old": 3}
    assert kinds["sweep@plain"] == kinds["batch@with-16"] == "new"
    assert place(two, ["train@plain-3", "train@plain-4"], {3: "old", 4: "new"}) == {
        "train@plain-3": "old",
        "train@plain-4": "new",
    }
    assert not capsys.readouterr().err
    place(two, names, {3: "older"})
    assert "seed 3 has run on older, which is not here" in capsys.readouterr().err
    place([node(8, machine="new"), node(4)], names, {})
    assert "not every machine says its kind" in capsys.readouterr().err
