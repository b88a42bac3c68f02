"""A few cases of `make torture`, so that it still runs when it is wanted."""

import re
import sys

from conftest import ROOT, run


def test_a_few_cases_survive() -> None:
    words = ["tools/torture.py", "--seed", "1", "--cases", "2", "--only", "saves", "environment"]
    printed = run(ROOT, sys.executable, *words).stdout
    counts = re.findall(r"^\| (.+) \| (\d+) \| (\d+) \|$", printed, re.MULTILINE)
    assert len(counts) == 2, printed
    assert all(tried == survived != "0" for _, tried, survived in counts), printed
