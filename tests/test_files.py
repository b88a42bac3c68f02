"""Files and folders are there whole or not at all, also when the process is killed or the disk is full."""

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bnstudy.files import forget_finished, leftovers, whole_folder, write


@pytest.fixture
def ended() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_is_written_with_its_folders_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a/b/file"
    for content in (b"first", b"", b"\x00second\r\n"):
        write(path, content)
        assert path.read_bytes() == content
        assert names(tmp_path) == ["a", "a/b", "a/b/file"]


def test_a_file_that_is_a_read_only_link_into_a_cache_is_replaced_and_the_cache_kept(tmp_path: Path) -> None:
    cached, path = tmp_path / "cached", tmp_path / "file"
    cached.write_bytes(b"old")
    cached.chmod(0o444)
    path.symlink_to(cached)
    write(path, b"new")
    assert (path.read_bytes(), cached.read_bytes(), path.is_symlink()) == (b"new", b"old", False)


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path, ended: int) -> None:
    kept = [".file.1", f".file.{os.getppid()}", ".file.x", f".other.{ended}", f"file.{ended}"]
    for name in (*kept, f".file.{ended}"):
        (tmp_path / name).touch()
    assert leftovers(tmp_path / ".file.") == [tmp_path / f".file.{ended}"]
    write(tmp_path / "file", b"")
    assert names(tmp_path) == sorted([*kept, "file"])


@pytest.mark.parametrize("limit", [0, 1000])
def test_without_room_the_old_file_stays_and_the_error_names_it(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "file"
    write(path, b"old")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as refused:
            write(path, bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert (refused.value.errno, refused.value.filename) == (errno.EFBIG, str(path))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_folder_replaces_the_old_one_whole(tmp_path: Path, ended: int) -> None:
    target = tmp_path / "a/target"
    target.mkdir(parents=True)
    (target / "old").touch()
    (tmp_path / f"a/target.partial-{ended}").mkdir()
    with whole_folder(target) as folder:
        (folder / "new").touch()
        assert names(target) == ["old"]
    assert names(tmp_path) == ["a", "a/target", "a/target/new"]


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), ValueError("x"), OSError(errno.ENOSPC, "No space left", "half")]
)
def test_a_folder_that_fails_leaves_the_old_one(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").touch()

    def fail() -> None:
        with whole_folder(target) as folder:
            (folder / "half").touch()
            raise error

    with pytest.raises(type(error)) as refused:
        fail()
    assert names(tmp_path) == ["target", "target/old"]
    if isinstance(refused.value, OSError):
        assert refused.value.filename == str(target)


def test_states_of_finished_runs_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    gone = ["train/a/0.finished", "train/a/0.state", "train/a/0/part.state"]
    for name in (*gone, "train/a/1.state", "sweep/a.finished"):
        write(Path("checkpoints", name), b"")
    forget_finished("train")
    forget_finished("nothing-there")
    assert names(tmp_path / "checkpoints") == ["sweep", "sweep/a.finished", "train", "train/a", "train/a/1.state"]
