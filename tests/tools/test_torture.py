"""A few cases of `make torture`, so that it still runs when it is wanted."""

import os
import re
import signal
import subprocess
import sys
import time

import psutil

from conftest import ROOT, run


def test_a_few_cases_survive() -> None:
    words = ["tools/torture.py", "--seed", "1", "--cases", "2", "--only", "saves"]
    printed = run(ROOT, sys.executable, *words).stdout
    counts = re.findall(r"^\| (.+) \| (\d+) \| (\d+) \|$", printed, re.MULTILINE)
    assert len(counts) == 1, printed
    assert all(tried == survived != "0" for _, tried, survived in counts), printed


def test_an_interrupt_ends_everything_that_it_started() -> None:
    words = [sys.executable, "tools/torture.py", "--only", "saves", "kills"]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while len(started := psutil.Process(process.pid).children(recursive=True)) < 3:  # two workers, and what one runs
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    assert "interrupted" in process.communicate(timeout=60)[1]
    assert not psutil.wait_procs(started, 10)[1]
