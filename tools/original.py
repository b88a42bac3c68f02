"""Set the note's own code beside our seeds, in docs/original.md: after `dvc repro`.

python tools/original.py
"""

from pathlib import Path

import pandas as pd

from marks import between

ROOT = Path(__file__).resolve().parents[1]
PAGE, CURVES = ROOT / "docs/original.md", ROOT / "plots/curves.csv"
# Test accuracy of the note's own code, run twice in TensorFlow 2.13, after so many updates.
ORIGINAL = {
    "note_batch_norm": {100: [0.963, 0.960], 200: [0.977], 500: [0.984], 700: [0.986]},
    "note_plain": {100: [0.526, 0.501], 200: [0.800, 0.702], 500: [0.886, 0.893], 760: [0.917]},
}


def ours(curves: pd.DataFrame) -> dict[tuple[str, int], "pd.Series[float]"]:
    """The test accuracies of our seeds beside each of the original's: at the nearest evaluation of the test split."""
    tested, found = curves.dropna(subset="test_accuracy"), {}
    for arm, accuracies in ORIGINAL.items():
        rows = tested[tested["arm"] == arm]
        for step in accuracies:
            nearest = rows["step"].iloc[int((rows["step"] - step).abs().argmin())]
            found[arm, step] = rows.loc[rows["step"] == nearest, "test_accuracy"]
    return found


def table(curves: pd.DataFrame) -> str:
    found = ours(curves)
    seeds = len(next(iter(found.values())))
    heading = f"| arm | updates | the note's code | here, {seeds} seed{'s, lowest to highest' if seeds > 1 else ''} |"
    lines = [heading, "| --- | --: | --: | --: |"]
    for (arm, step), values in found.items():
        both = " and ".join(f"{accuracy:.1%}" for accuracy in ORIGINAL[arm][step])
        here = f"{values.min():.1%} to {values.max():.1%}" if seeds > 1 else f"{values.min():.1%}"
        lines.append(f"| `{arm}` | {step} | {both} | {here} |")
    return "\n".join(lines) + "\n"


def written(page: str, curves: pd.DataFrame) -> str:
    return between(page, "beside", table(curves))


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(), pd.read_csv(CURVES)))
