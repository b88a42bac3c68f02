"""Stage `check`, before all others: refuse a bad params.yaml while every output is still there.

DVC removes a stage's outputs before it runs its command. All stages come after this one, whose own output persists.
"""

from pathlib import Path

from bnstudy import run
from bnstudy.files import write
from bnstudy.params import load


def main() -> None:
    load()
    write(Path("data/params.checked"), b"Every value in params.yaml is allowed.\n")


if __name__ == "__main__":
    run(main)
