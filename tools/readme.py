"""Write the headline of report/README.md and its first picture into README.md, after `dvc repro`.

python tools/readme.py
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARKS = "<!-- headline -->\n", "<!-- /headline -->"


def written(page: str, report: str) -> str:
    """`page` with what stands first in `report` between its marks: the paragraph below the title, and a picture."""
    said = report.split("\n\n")[1].strip()
    pictures = re.findall(r"^!\[.*\]\(figures/\w+\.svg\)$", report, re.MULTILINE)[:1]
    shown = [said, *(picture.replace("](", "](report/") for picture in pictures)]
    before, rest = page.split(MARKS[0])
    return before + MARKS[0] + "\n\n".join(shown) + "\n" + MARKS[1] + rest.split(MARKS[1])[1]


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(written(page.read_text(), (ROOT / "report/README.md").read_text()))
