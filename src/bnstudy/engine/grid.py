"""The updates after which a training is evaluated. Imports no PyTorch: the analysis and its tests use it too."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnstudy.settings import Setting


def grid(steps: int, per_decade: int = 16, first: int = 5) -> list[int]:
    """The evaluation steps of a training of `steps` >= 1 updates: geometric from `first` on, and the last.

    Whole numbers, ascending and distinct, at most `steps`. With the defaults neighbors are 15% apart (to whole
    updates): 5, 6, 7, 8, 9, 10, 12, 14, ...; 43 of them for 2,000 updates, 54 for 10,000.
    """
    evaluations = {steps}
    exponent = 0
    while (step := round(first * 10 ** (exponent / per_decade))) < steps:
        evaluations.add(step)
        exponent += 1
    return sorted(evaluations)


def evaluations(setting: "Setting") -> list[int]:
    """The steps after which `setting`'s training is evaluated: its grid and its moments, or the last alone."""
    when, steps = setting.evaluation, setting.steps
    if when is None:
        return [steps]
    return sorted({*grid(steps, when.per_decade, when.first), *(moment for moment in when.moments if moment < steps)})


def tested(setting: "Setting") -> list[int]:
    """Those of `evaluations` that take in the test split too: the moments, and the last."""
    moments = setting.evaluation.moments if setting.evaluation else []
    return [step for step in evaluations(setting) if step in moments or step == setting.steps]
