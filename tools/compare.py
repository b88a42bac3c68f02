"""What a change does to the results, as Markdown: `python tools/compare.py main`, against any commit.

Verdicts that flipped, intervals that moved, figures, parameters and metrics; from what is in git, without PyTorch.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bnstudy import BadInput, run

CLAIMS = "metrics/claims.json"
FIGURES = ("plots", "report")
CHANGES = {"A": "new", "D": "gone", "M": "changed"}


def ask(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BadInput(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout


def parts(claims: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each part of each claim by its name."""
    return {f"{claim['id']}: {part['part']}": part for claim in claims for part in claim.get("parts", [])}


def flipped(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> list[list[str]]:
    """A row for each claim or part whose verdict is another: its name, and the verdicts before and after."""
    rows = []
    for name in dict.fromkeys([*before, *after]):
        old, new = (some.get(name, {}).get("verdict", "–") for some in (before, after))
        if old != new:
            rows.append([name, old, new])
    return rows


def moved(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[list[str]]:
    """A row for each part that both have, with another estimate or interval."""
    old, new = parts(before), parts(after)
    rows = [[name, interval(old[name]), interval(new[name])] for name in new if name in old]
    return [row for row in rows if row[1] != row[2]]


def interval(part: dict[str, Any]) -> str:
    return f"{part['estimate']} ({part['interval']})"


def table(title: str, head: list[str], rows: list[list[str]]) -> list[str]:
    """A section with a Markdown table, or with the word none."""
    if not rows:
        return [f"### {title}", "", "none", ""]
    cells = [head, ["---"] * len(head), *rows]
    return [f"### {title}", "", *(f"| {' | '.join(text.replace('|', '/') for text in row)} |" for row in cells), ""]


def dvc_diff(title: str, what: str, base: str) -> list[str]:
    """A section with DVC's own table, which has a head also where nothing differs."""
    rows = ask("dvc", what, "diff", "--md", base).strip().splitlines()
    return [f"### {title}", "", *(rows if len(rows) > 2 else ["none"]), ""]


def compared(base: str) -> list[str]:
    """The lines of the page: the working tree against the commit `base`."""
    base = ask("git", "rev-parse", "--verify", "--end-of-options", f"{base}^{{commit}}").strip()
    held = ask("git", "ls-tree", "--name-only", base, CLAIMS)
    before = json.loads(ask("git", "show", f"{base}:{CLAIMS}")) if held else []
    after = json.loads(Path(CLAIMS).read_text(encoding="utf-8"))
    claims = [{f"{claim['id']}. {claim['claim']}": claim for claim in some} for some in (before, after)]
    listed = ask("git", "diff", "--no-renames", "--name-status", base, "--", *FIGURES).splitlines()
    changes = [line.split("\t") for line in listed if line.endswith(".svg")]
    sides = ["before", "after"]
    return [
        f"## Results, against {base[:9]}",
        "",
        *table("Verdicts that flipped", ["claim", *sides], flipped(*claims)),
        *table("Parts whose verdict flipped", ["claim: part", *sides], flipped(parts(before), parts(after))),
        *table("Intervals that moved", ["claim: part", *sides], moved(before, after)),
        *table("Figures", ["figure", "is"], [[name, CHANGES.get(state, state)] for state, name in changes]),
        *dvc_diff("Parameters", "params", base),
        *dvc_diff("Metrics", "metrics", base),
    ]


def main() -> None:
    if len(sys.argv) != 2:
        raise BadInput("name one commit: python tools/compare.py main")
    print("\n".join(compared(sys.argv[1])))


if __name__ == "__main__":
    run(main)
