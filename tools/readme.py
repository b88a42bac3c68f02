"""Write the headline of report/README.md, its first picture and the verdicts into README.md, after `dvc repro`.

python tools/readme.py
"""

import re
from pathlib import Path

from marks import between

ROOT = Path(__file__).resolve().parents[1]


def written(page: str, report: str) -> str:
    """`page` with what `report` comes to between its marks: the paragraph below the title, a picture, the verdicts."""
    said = report.partition("\n\n")[2].partition("\n\n")[0].strip()
    pictures = re.findall(r"^!\[.*\]\(figures/\w+\.svg\)$", report, re.MULTILINE)[:1]
    shown = [said, *(picture.replace("](", "](report/") for picture in pictures)]
    verdicts = re.findall(r"^\| (\d\. .+?) \|.*\| (\S .+?) \|$", report, re.MULTILINE)
    if verdicts:
        shown.append(
            "\n".join(["|claim | verdict|", "|--- | ---|", *(f"|{claim} | {word}|" for claim, word in verdicts)])
        )
    return between(page, "headline", "\n\n".join(shown) + "\n")


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(written(page.read_text(), (ROOT / "report/README.md").read_text()))
