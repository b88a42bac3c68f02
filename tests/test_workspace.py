"""The folders of runs side by side: what is in use stays, what a killed worker left goes."""

import multiprocessing
from pathlib import Path

from bnstudy.workspace import new_folder, remove_abandoned


def keep_removing(scratch: Path) -> None:
    while True:
        remove_abandoned(scratch)


def test_a_worker_removes_what_a_killed_one_left_and_no_new_folder_of_another(tmp_path: Path) -> None:
    (tmp_path / "run-abandoned").mkdir()
    (tmp_path / "run-abandoned/held").touch()
    worker = multiprocessing.get_context("spawn").Process(target=keep_removing, args=(tmp_path,), daemon=True)
    worker.start()
    try:
        while (tmp_path / "run-abandoned").exists():
            assert worker.is_alive()
        for _ in range(500):
            with new_folder(tmp_path) as (folder, _):
                (folder / "result").touch()
                assert (folder / "held").exists()
            assert not folder.exists()
    finally:
        worker.kill()
        worker.join()
