"""What the study's pictures have beside `bnstudy.style`: letters that a phone shows well, and their tables."""

from contextlib import AbstractContextManager
from pathlib import Path

import pandas as pd

from bnstudy import BadInput, style
from bnstudy.style import COLORS

RED, ORANGE, BLUE, SKY, GREEN = COLORS[:5]
OURS = {"legend.handlelength": 1.3, "legend.handletextpad": 0.5, "legend.columnspacing": 1.0, "lines.linewidth": 1.6}
STUDY = Path("study")  # from the repository's root, where all commands run


def styled(width: float) -> AbstractContextManager[None]:
    """The settings for a figure of `width` inches: those of all pictures, and ours.

    Letters grow with the picture: on a phone, where it is 370 pixels wide, they are 10 pixels high.
    """
    return style.styled(width, **OURS, **{"font.size": 2 * width})


def table(name: str) -> pd.DataFrame:
    """`study/plots/<name>.csv`, as `judge` wrote it. Raises `BadInput` where it cannot be read."""
    path = STUDY / "plots" / f"{name}.csv"
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); `dvc repro study/dvc.yaml:judge` writes it") from None
