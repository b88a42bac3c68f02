"""Stages side by side through the real DVC, here and on a real Ray: the lock of a serial `dvc repro`, and faults.

On the pipelines of `toy.py`. What needs Ray is skipped where it is not installed: `make test-launch`.
"""

import json
import multiprocessing
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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from rich.console import Console

from bnstudy import workspace
from bnstudy.launch import Launch, git, gone, place, places, seed_of
from bnstudy.params import load_runtime
from bnstudy.workspace import Result, new_folder, remove_abandoned
from conftest import ENVIRONMENT, ROOT, run
from toy import ALL, ARMS, EVALUATES, NOTE, TRAINS, edit, repro, share, until

needs_ray = pytest.mark.skipif(not find_spec("ray"), reason="Ray is not installed: make test-launch")
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # in DVC
COMMAND = (sys.executable, "-m", "bnstudy.launch")
HERE, RAY = ("--jobs=2",), ("--remote=shared",)
BOTH = pytest.mark.parametrize("how", [HERE, pytest.param(RAY, marks=needs_ray)], ids=["here", "on Ray"])
NORM, PLAIN = "batch_norm-10", "plain-10"


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


@BOTH
def test_the_lock_is_that_of_a_serial_run(toy: Path, made: Path, tmp_path: Path, how: tuple[str, ...]) -> None:
    printed = launch(toy, *how, "dvc.yaml", "study/dvc.yaml").stdout
    for name in ("dvc.lock", "study/dvc.lock", "models/plain/10.safetensors", "study/metrics/claims.json"):
        assert (toy / name).read_bytes() == (made / name).read_bytes()
    assert sorted(ended(printed)) == sorted(("done", name) for name in ALL[2:])
    assert "Running stage" not in printed[printed.index("done") :]
    assert not list((tmp_path / "scratch").glob("bnstudy-*/run-*"))


def test_one_pipeline_and_what_it_needs(toy: Path) -> None:
    """Also where strangers' configuration of git has every call of it fail."""
    config = toy.parent / "gitconfig"
    config.write_text("[commit]\n gpgSign = true\n[core]\n hooksPath = /nowhere\n fsmonitor = /bin/false\n")
    printed = launch(toy, *HERE, "study/dvc.yaml", GIT_CONFIG_GLOBAL=str(config)).stdout
    assert sorted(ended(printed)) == sorted(("done", name) for name in ALL if name.startswith("study/"))
    assert not (toy / "models").exists()


def test_a_slurm_array(toy: Path, made: Path) -> None:
    """With programs in place of SLURM's that run the tasks of an array side by side, here."""
    programs = {
        "sbatch": """for n in $(seq "${1##*-}"); do SLURM_ARRAY_TASK_ID=$n "$3" & tasks="$tasks $!"; done
echo "$1 $2"; for task in $tasks; do wait "$task" || exit 1; done""",
        "srun": 'exec "$@"',
    }
    shutil.copytree(ROOT / "docs/slurm", toy / "docs/slurm")
    for name, text in programs.items():
        (toy.parent / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (toy.parent / name).chmod(0o755)
    path, arrays = f"{toy.parent}{os.pathsep}{ENVIRONMENT['PATH']}", list[str]()
    for _ in range(4):
        printed = run(toy, "docs/slurm/submit.sh", "--time=1", **environment(toy, PATH=path)).stdout
        arrays += re.findall("^--array=1-([0-9]+) --time=1$", printed, re.MULTILINE)
    assert arrays == ["4", "2", "1"]
    assert (toy / "study/dvc.lock").read_bytes() == (made / "study/dvc.lock").read_bytes()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The address of a Ray cluster of two: each has a processor, a scratch folder, and says it is of another kind.

    The toys' runs say that all of them ran on the first kind.
    """
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
        for name, kind, options in (("one", "a-toy", head), ("two", "another", [f"--address={address}"])):
            (tmp_path / name).mkdir()
            environment = ENVIRONMENT | token | {"TMPDIR": str(tmp_path / name), "RAY_worker_niceness": "0"}
            command = [*start, f"--labels=machine={kind}", *options]
            raylets.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
            until(lambda: run(ROOT, *count, check=False, **token).stdout.split() == [str(len(raylets))])
        yield address
    finally:
        for raylet in reversed(raylets):
            raylet.terminate()
            raylet.wait()
        shutil.rmtree(short, ignore_errors=True)


@needs_ray
def test_two_machines_that_share_a_remote_alone(toy: Path, tmp_path: Path, cluster: str) -> None:
    """Two arms from five seeds, all runs of a seed on one kind of machine: the bytes of a serial `dvc repro`."""
    seeds = [22, 23, 24, 25, 26]
    edit(toy, "seeds", seeds, "study/params.yaml")
    serial = Path(shutil.copytree(toy, tmp_path / "serial"))
    ran, _ = repro(serial, "study/dvc.yaml")
    printed = launch(toy, *RAY, "--address", cluster, "study/dvc.yaml")
    assert sorted(ended(printed.stdout)) == sorted(("done", name) for name in ran - {"fetch", "prepare"})
    assert "warning" not in printed.stderr
    for name in ("study/dvc.lock", "study/metrics/claims.json"):
        assert (toy / name).read_bytes() == (serial / name).read_bytes()
    lock = yaml.safe_load((toy / "study/dvc.lock").read_text())["stages"]

    def machines(stage: str) -> set[str]:
        """Those whose cache has the table of `stage`, which no other reads."""
        md5 = lock[stage]["outs"][1]["md5"]
        there = tmp_path.glob(f"*/bnstudy-*/files/md5/{md5[:2]}/{md5[2:]}")
        return {path.relative_to(tmp_path).parts[0] for path in there}

    runs = [name for name in lock if name.startswith("train")]
    by_seed = [set().union(*(machines(name) for name in runs if name.endswith(str(seed)))) for seed in seeds]
    assert len(runs) == 10
    assert sorted(by_seed, key=min) == [{"one"}, {"one"}, {"one"}, {"two"}, {"two"}]


@needs_ray
@pytest.mark.parametrize(("share_of_one", "there", "given"), [(1.0, 2, {"0", "1"}), (0.5, 1, {"0"})])
def test_every_gpu_is_used_and_shared_as_asked(toy: Path, share_of_one: float, there: int, given: set[str]) -> None:
    """By what Ray is told is there: no run asks PyTorch for one."""
    edit(toy, "runtime.launch.gpus", share_of_one)
    told = json.dumps({"CPU": 2, "GPU": there})
    launched = start(toy, *RAY, LONG=f"{NORM} {PLAIN}", RAY_OVERRIDE_RESOURCES=told)
    until(lambda: len(trail(toy)) == 2)
    assert {psutil.Process(process).environ()["CUDA_VISIBLE_DEVICES"] for *_, process in trail(toy)} == given
    output, _ = launched.communicate(timeout=200)
    assert launched.returncode == 0, output


def test_places_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = load_runtime(ROOT / "params.yaml")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert places(runtime, None) == [{}] * 8
    assert places(runtime, 3) == [{}] * 3
    assert places(runtime.model_copy(update={"threads": 3}), None) == [{}] * 2
    assert places(runtime.model_copy(update={"threads": "all"}), None) == [{}]
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: A'; echo 'GPU 1: B'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    one, two = {"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}
    assert places(runtime, None) == [one, two]
    half = runtime.launch.model_copy(update={"gpus": 0.5})
    assert places(runtime.model_copy(update={"launch": half}), None) == [one, two, one, two]
    assert places(runtime.model_copy(update={"device": "cpu"}), None) == [{}] * 8
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert places(runtime, None) == [{"CUDA_VISIBLE_DEVICES": "3"}]


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
        until(lambda: listens(port))
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
        until(lambda: listens(port))
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
    study = Path(shutil.copytree(unmade, tmp_path / "toy"))
    run(study, "dvc", "remote", "add", "--local", kind, options.pop("url"))
    for name, value in options.items():
        run(study, "dvc", "remote", "modify", "--local", kind, name, value)
    assert sorted(ended(launch(study, "--remote", kind, **keys).stdout)) == sorted(("done", name) for name in NOTE[2:])
    assert (study / "dvc.lock").read_bytes() == (made / "dvc.lock").read_bytes()
    shutil.rmtree(study / ".dvc/cache")
    restored = ended(launch(study, "--remote", kind, **keys).stdout)
    assert {("restored", name) for name in TRAINS} <= {*restored}


@BOTH
def test_a_stage_that_fails_stops_only_what_needs_it(toy: Path, how: tuple[str, ...]) -> None:
    done = launch(toy, *how, check=False, FAIL=PLAIN)
    assert done.returncode == 1
    assert sorted(ended(done.stdout)) == [("done", EVALUATES[0]), ("done", TRAINS[0]), ("failed", TRAINS[1])]
    *_, failed, left = done.stderr.strip().splitlines()
    assert failed == "  train@plain-10: error: step 3: the loss is not finite (logs/train@plain-10.log)"
    assert "python src/train.py plain 10" in (toy / "logs/train@plain-10.log").read_text()
    assert left == "  not run, since they need these: evaluate, plot"
    assert sorted(ended(launch(toy, *how).stdout)) == [("done", EVALUATES[1]), ("done", "plot"), ("done", TRAINS[1])]
    assert begun(toy) == {NORM: 1, PLAIN: 1}


@needs_ray
def test_a_killed_worker_is_replaced_and_its_run_goes_on(toy: Path) -> None:
    launched = start(toy, *RAY, LONG=PLAIN)
    state = toy.parent / "shared/states/train@plain-10/train/plain/10.state"
    until(lambda: step(state) > 5)
    [process] = [psutil.Process(process) for name, _, process in trail(toy) if name == PLAIN]
    [worker] = [parent for parent in process.parents() if parent.name().startswith("ray::")]
    worker.kill()
    output, _ = launched.communicate(timeout=200)
    assert launched.returncode == 0, output
    first, second = [at for name, at, _ in trail(toy) if name == PLAIN]
    assert first == 0
    assert second > 5
    assert not state.exists()
    [scratch] = (toy.parent / "scratch").glob("bnstudy-*")
    remove_abandoned(scratch)  # as the next launch does
    assert not list(scratch.glob("run-*"))


@BOTH
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_every_run_and_the_next_launch_goes_on(toy: Path, number: int, how: tuple[str, ...]) -> None:
    where = (toy / "checkpoints", toy.parent / "shared/states/train@plain-10")[how == RAY]
    launched = start(toy, *how, LONG=f"{PLAIN} {NORM}")
    until(lambda: step(where / "train/plain/10.state") > 3 and len(trail(toy)) == 2)
    if number == signal.SIGINT:
        os.killpg(launched.pid, number)  # as a terminal does
    else:
        launched.terminate()
    output, _ = launched.communicate(timeout=60)
    assert launched.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[signal.Signals(number)], output
    assert "Traceback" not in output
    assert not any(psutil.pid_exists(process) for *_, process in trail(toy))
    assert len(trail(toy)) == 2
    launch(toy, *how)
    assert [at for name, at, _ in trail(toy) if name == PLAIN][1] > 3


def test_what_a_killed_launch_here_left_running_is_waited_for(toy: Path) -> None:
    launched = start(toy, *HERE, LONG=f"{PLAIN} {NORM}")
    until(lambda: len(trail(toy)) == 2)
    launched.kill()
    launched.communicate()
    printed = launch(toy, *HERE).stdout
    assert "waiting: another DVC is running stages here" in printed
    assert begun(toy) == {NORM: 1, PLAIN: 1}


@needs_ray
def test_a_killed_driver_started_again_redoes_nothing_that_was_sent(toy: Path) -> None:
    launched = start(toy, *RAY, LONG=PLAIN)
    state = toy.parent / "shared/states/train@plain-10/train/plain/10.state"
    until(lambda: step(state) > 3 and list(toy.parent.glob("shared/runs/*/*/*")))
    launched.kill()
    launched.communicate()
    until(lambda: not any(psutil.pid_exists(process) for *_, process in trail(toy)))
    printed = launch(toy, *RAY).stdout
    assert ("restored", TRAINS[0]) in ended(printed)
    assert begun(toy) == {NORM: 1, PLAIN: 2}
    assert max(at for name, at, _ in trail(toy) if name == PLAIN) > 3
    elsewhere = Path(shutil.copytree(toy, toy.parent / "other/toy", ignore=shutil.ignore_patterns("cache", "models")))
    launch(elsewhere, *RAY)
    assert not begun(elsewhere)


@needs_ray
def test_what_changed_goes_to_a_worker_and_what_our_cache_has_does_not(copy: Path) -> None:
    share(copy)
    edit(copy, "arms.he.rate", 0.2, "study/params.yaml")
    assert sorted(ended(launch(copy, *RAY, "study/dvc.yaml").stdout)) == [("done", name) for name in sorted(ARMS[2:])]
    assert len(list(copy.parent.glob("shared/runs/*/*/*"))) == 2
    edit(copy, "arms.he.rate", 0.1, "study/params.yaml")
    again = launch(copy, *RAY, "study/dvc.yaml")
    assert sorted(ended(again.stdout)) == [("restored", name) for name in sorted(ARMS[2:])]
    assert len(begun(copy)) == 2


def keep_removing(scratch: Path) -> None:
    while True:
        remove_abandoned(scratch)


def test_a_worker_removes_what_a_killed_one_left_and_no_new_folder_of_another(tmp_path: Path) -> None:
    (tmp_path / "run-abandoned").mkdir()
    (tmp_path / "run-abandoned/held").touch()
    worker = multiprocessing.get_context("spawn").Process(target=keep_removing, args=(tmp_path,), daemon=True)
    worker.start()
    try:
        until(lambda: not (tmp_path / "run-abandoned").exists())
        for _ in range(500):
            with new_folder(tmp_path) as (folder, _):
                (folder / "result").touch()
                assert (folder / "held").exists()
            assert not folder.exists()
    finally:
        worker.kill()
        worker.join()


@needs_ray
def test_two_drivers_at_once_do_no_harm(toy: Path) -> None:
    """Of two clones, to one remote; in one folder, the second is refused."""
    other = Path(shutil.copytree(toy, toy.parent / "other/toy"))
    both = [start(folder, *RAY) for folder in (toy, other)]
    until((toy / ".dvc/tmp/launch.lock").exists)
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
    mounted = f"mount -t tmpfs -o size=20k tmpfs {scratch} && exec {' '.join([*COMMAND, *RAY])}"
    unshare = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted)
    if subprocess.run(("unshare", "-rm", "true"), capture_output=True).returncode:
        pytest.skip("no name spaces here, to mount a small disk in")
    done = run(toy, *unshare, check=False, **environment(toy))
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert not trail(toy)


def test_without_ray_it_says_how_to_get_it(toy: Path) -> None:
    hidden = "import importlib.util as u, sys; sys.argv += ['--remote=shared']; " \
             "u.find_spec = lambda name, found=u.find_spec: name != 'ray' and found(name); " \
             "from bnstudy import launch, run; run(launch.main)"  # fmt: skip
    done = run(toy, sys.executable, "-c", hidden, check=False, **environment(toy))
    assert (done.returncode, done.stderr) == (1, "error: --remote needs Ray: `make ray` installs it here\n")
    assert "\nray:" in (ROOT / "Makefile").read_text()


def test_runs_of_a_seed_are_placed_on_one_kind_of_machine(capsys: pytest.CaptureFixture[str]) -> None:
    def node(processors: int, **labels: str) -> dict[str, Any]:
        return {"Resources": {"CPU": processors}, "Labels": labels}

    names = [f"study/dvc.yaml:train@{arm}-{seed}" for arm in ("plain", "he_2") for seed in range(9)]
    names += [
        f"study/dvc.yaml:{part}{seed}" for part in ("averages@note_batch_norm-", "mechanism@") for seed in range(9)
    ]
    names += ["study/dvc.yaml:sweep@plain", "study/dvc.yaml:sweep@batch_16"]
    assert place([node(4), node(4)][:1], names, {}) == {}
    assert set(place([node(4, machine="new"), node(8, machine="new")], names, {}).values()) == {"new"}
    assert not capsys.readouterr().err
    two = [node(8, machine="new"), node(4, machine="old")]
    kinds = place(two, names, {})
    for seed in range(9):
        assert len({kinds[name] for name in names if name.endswith((f"-{seed}", f"@{seed}"))}) == 1
    assert Counter(kinds[f"study/dvc.yaml:mechanism@{seed}"] for seed in range(9)) == {"new": 6, "old": 3}
    assert kinds["study/dvc.yaml:sweep@plain"] == kinds["study/dvc.yaml:sweep@batch_16"] == "new"
    assert place(two, ["train@plain-3", "train@plain-4"], {3: "old", 4: "new"}) == {
        "train@plain-3": "old",
        "train@plain-4": "new",
    }
    assert not capsys.readouterr().err
    place(two, names, {3: "older"})
    assert "seed 3 has run on older, which is not here" in capsys.readouterr().err
    place([node(8, machine="new"), node(4)], names, {})
    assert "not every machine says its kind" in capsys.readouterr().err


def test_what_the_table_shows(toy: Path) -> None:
    """A line of `bnstudy.progress` by its parts, and in the title what is not under way."""
    log = toy / "log"
    log.write_text("x\nplain-10: 30 of 700 updates, loss 1.2, accuracy 71.00%, 3,400 images/s, 4 min left\n> y\n")
    line = workspace.last_line(log)
    assert line["said"] == "loss 1.2, accuracy 71.00%"
    assert workspace.last_line(ROOT / "README.md") == {}
    launching = Launch.__new__(Launch)
    launching.count = Counter(done=1)
    table = launching.table(["a", "b", "c"], {"a": Result("done", "vm")}, {"b": {"machine": "vm"} | line})
    console = Console(width=120)
    with console.capture() as captured:
        console.print(table)
    shown = captured.get()
    assert "1 done, 1 waiting" in shown
    assert re.search(r"b +. vm +. 30 of 700 +. loss 1.2, accuracy.*71.00% +. 3,400 +. 4 min left", shown)


def test_a_call_of_git_that_hangs_or_fails() -> None:
    with pytest.raises(Exception, match="`git show`: "):
        git("show", "nothing")
    with pytest.raises(Exception, match="timed out"):
        git("log", seconds=0.0)


def test_the_kind_of_this_machine() -> None:
    kind = run(ROOT, *COMMAND, "--machine", PYTHONPATH="src").stdout.strip()
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,61}[A-Za-z0-9]", kind)


def test_files_that_are_not_here_make_nothing_stale() -> None:
    here = {"changed deps": {"data/prepared": "deleted"}}
    assert gone(here)
    assert gone({"changed outs": {"models/a": "not in cache"}})
    assert not gone({"changed deps": {"study/params.yaml": {"arms.he": "modified"}}})
    assert not gone(here | {"changed outs": {"models/a": "modified"}})
    assert not gone("changed command")


def test_seeds_of_stages() -> None:
    names = ["train@plain-10", "study/dvc.yaml:averages@note_batch_norm-3", "mechanism@7", "sweep@batch_16", "judge"]
    assert [seed_of(name) for name in names] == [10, 3, 7, float("inf"), float("inf")]
