"""Write what the results come to into the pages that quote them: `python tools/pages.py`, after `dvc repro`.

Such a part of a page lies between `<!-- name -->` and `<!-- /name -->`.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import pandas as pd
from pydantic import TypeAdapter

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import study_report
from bnstudy.params import load
from bnstudy.study import params as study
from bnstudy.study.claim import Finding

ROOT = Path(__file__).resolve().parents[1]
# Test accuracy of the note's own code, run twice in TensorFlow 2.13, after so many updates.
ORIGINAL = {
    "batch_norm": {100: [0.963, 0.960], 200: [0.977], 500: [0.984], 700: [0.986]},
    "plain": {100: [0.526, 0.501], 200: [0.800, 0.702], 500: [0.886, 0.893], 760: [0.917]},
}
CLAIMS = ROOT / "study/metrics/claims.json"


def between(page: str, name: str, content: str) -> str:
    """`page` with `content`, whole lines, between the marks `name`. Raises ValueError where these are not there."""
    before, _, after = re.split(rf"(?<=<!-- {name} -->\n)(.*)(?=<!-- /{name} -->)", page, flags=re.DOTALL)
    return before + content + after


def note() -> str:
    """What the note's picture shows, in words."""
    params = load(ROOT / "params.yaml")
    said = []
    for model in params.models:
        runs = [json.loads((ROOT / f"metrics/{model}/{seed}.json").read_text()) for seed in params.seeds]
        reached = [run["updates_to_95"] for run in runs if "updates_to_95" in run]
        test = f"{100 * mean(run['test_accuracy'] for run in runs):.1f}%"
        target = "95% validation accuracy"
        if len(reached) == len(runs):
            found = f"reaches {target} after {mean(reached):.0f} updates"
        elif reached:
            found = f"reaches {target} in {len(reached)} of {len(runs)} runs"
        else:
            found = f"does not reach {target} within {params.train.steps:,} updates"
        said.append(f"`{model}` {found}; its final test accuracy is {test}")
    return (
        f"{'. '.join(said)}. Means of {len(params.seeds)} seeds. Solid lines: test images, with a band from the lowest "
        "seed to the highest; dashed: the last training batch.\n"
    )


def findings() -> list[Finding]:
    return TypeAdapter(list[Finding]).validate_json(CLAIMS.read_bytes()) if CLAIMS.exists() else []


def registered() -> int:
    """How many seeds the study is to have."""
    return len(study.load(ROOT / "study/params.yaml").registered)


def headline() -> str:
    """The study in a few sentences."""
    if not (found := findings()):
        return "The runs that it judges are being made.\n"
    return study_report.headline(found, registered()) + "\n"


def figures() -> str:
    """What the claims on averages found, for docs/advice.md."""
    measured = [one for one in findings() if one.question == "averages" and one.parts]
    if not measured:
        return "The figures follow with the study's results.\n"
    said = "\n".join(f"- {one.sentence}" for one in measured)
    return f"By {study_report.fewest_seeds(measured)} of the {registered()} seeds of the study:\n\n{said}\n"


def beside() -> str:
    """The note's own code beside our seeds, at their nearest evaluation of the test split, as Markdown."""
    curves = pd.read_csv(ROOT / "plots/curves.csv")
    tested = curves[curves["split"] == "test"]
    lines = ["| model | updates | the note's code | here, lowest to highest seed | after |"]
    lines.append("| --- | --: | --: | --: | --: |")
    for model, accuracies in ORIGINAL.items():
        rows = tested[tested["model"] == model]
        for step, original in accuracies.items():
            nearest = rows["step"].iloc[int((rows["step"] - step).abs().argmin())]
            ours = rows.loc[rows["step"] == nearest, "accuracy"]
            both = " and ".join(f"{accuracy:.1%}" for accuracy in original)
            lines.append(f"| `{model}` | {step} | {both} | {ours.min():.1%} to {ours.max():.1%} | {nearest} |")
    return "\n".join(lines) + "\n"


PARTS: dict[tuple[str, str], Callable[[], str]] = {
    ("README.md", "note"): note,
    ("README.md", "headline"): headline,
    ("docs/advice.md", "figures"): figures,
    ("docs/original.md", "beside"): beside,
}


if __name__ == "__main__":
    for (page, name), content in PARTS.items():
        path = ROOT / page
        path.write_text(between(path.read_text(), name, content()))
