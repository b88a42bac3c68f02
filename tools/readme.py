"""Write the headline of report/README.md and its first picture into README.md, after `dvc repro`.

python tools/readme.py
"""

import re
from pathlib import Path

from marks import between

ROOT = Path(__file__).resolve().parents[1]


def written(page: str, report: str) -> str:
    """`page` with what stands first in `report` between its marks: the paragraph below the title, and a picture."""
    said = report.partition("\n\n")[2].partition("\n\n")[0].strip()
    pictures = re.findall(r"^!\[.*\]\(figures/\w+\.svg\)$", report, re.MULTILINE)[:1]
    shown = [said, *(picture.replace("](", "](report/") for picture in pictures)]
    return between(page, "headline", "\n\n".join(shown) + "\n")


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(written(page.read_text(), (ROOT / "report/README.md").read_text()))
