"""After which updates a training is evaluated. Imports no PyTorch."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnstudy.study.params import Evaluation


@dataclass(frozen=True)
class When:
    """After which updates what is evaluated.

    By moving averages the last batch and the validation split after `coarse`, and the test split after those of them
    in `tested`; if `corrected`, by averages less their start the validation split after `coarse` and `fine`.
    """

    coarse: Collection[int]
    tested: Collection[int]
    fine: Collection[int] = ()
    corrected: bool = False


def geometric(steps: int, first: int, per_decade: int) -> list[int]:
    """Whole numbers, ascending and distinct, from `first` to `steps` >= 1, evenly spaced by their logarithm.

    From 1 with 8 a decade: 1, 2, 3, 4, 6, 7, 10, 13, 18, 24, 32, 42, 56, 75, 100, ...
    """
    found, exponent = {steps}, 0
    while (step := round(first * 10 ** (exponent / per_decade))) < steps:
        found.add(step)
        exponent += 1
    return sorted(found)


def fine(steps: int, start: int, end: int, factor: float) -> list[int]:
    """Whole numbers, ascending and distinct, from `start` to `end` or `steps`, each `factor` > 1 times the last."""
    found, exponent = set[int](), 0
    while (step := round(start * factor**exponent)) <= min(end, steps):
        found.add(step)
        exponent += 1
    return sorted(found)


def ages(decay: float, steps: int, spans: Iterable[Sequence[float]]) -> list[int]:
    """The updates, at most `steps`, at which averages of `decay` have the ages -ln(decay) * updates of `spans`.

    A span (first, last, by) holds first, first + by, ..., up to last. Averages of decays 0 and 1 have no age.
    """
    if not 0 < decay < 1:
        return []
    unit = -math.log(decay)
    counts = [(first, math.floor((last - first) / by + 1e-9) + 1, by) for first, last, by in spans]
    wanted = [first + place * by for first, count, by in counts for place in range(count)]
    return sorted({step for age in wanted if 1 <= (step := round(age / unit)) <= steps})


def moments(evaluation: "Evaluation", steps: int) -> list[int]:
    """The moments within `steps` updates, and the last update."""
    return sorted({*(moment for moment in evaluation.moments if moment < steps), steps})


def when(evaluation: "Evaluation", steps: int) -> When:
    """What the study's `evaluation` says of a training of `steps` updates."""
    between, tested = evaluation.fine, moments(evaluation, steps)
    coarse = {*geometric(steps, evaluation.first, evaluation.per_decade), *tested}
    return When(sorted(coarse), tested, fine(steps, between.start, between.end, between.factor), corrected=True)
