"""Run every command of docs/tour.md in .demo, which `make demo` made, and write there what it prints."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOUR = ROOT / "docs/tour.md"
TEXT = TOUR.read_text()
BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)


def play(text: str, folder: Path) -> str:
    """`text` with what its commands, the lines that begin with `$`, print in `folder`.

    Raises `CalledProcessError` at the first that fails.
    """
    here = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120"}

    def shown(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=os.environ | here,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        lines = done.stdout.replace(folder.as_uri(), "file://…").rstrip().splitlines()
        return "".join(f"{line.rstrip()}\n" for line in [f"$ {command}", *lines])

    def block(found: re.Match[str]) -> str:
        return "".join(shown(line[2:]) for line in found[0].splitlines() if line.startswith("$ "))

    return BLOCK.sub(block, text)


def outputs(text: str) -> list[tuple[str, str]]:
    """Each command of the tour, and what stands below it."""
    blocks = "".join(BLOCK.findall(text))
    return [(found[1], found[2]) for found in re.finditer(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", blocks, re.MULTILINE)]


if __name__ == "__main__":
    TOUR.write_text(play(TEXT, ROOT / ".demo"))
