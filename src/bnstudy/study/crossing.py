"""When a training reaches a target: as an interval between two evaluations, and compared between paired runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bnstudy.study.statistics import Estimate, estimate, rounded

IN_A_ROW = 3  # evaluations at or above the target that make a crossing: one may be luck


@dataclass(frozen=True)
class Crossing:
    """The target was reached in (after, by]: of updates, or of whatever else grows (images, learning rates)."""

    after: float  # 0: it may have been at once
    by: float  # inf: never, as far as the run tells
    interpolated: float | None = None  # the best guess between two evaluations; None: they do not surround it

    def point(self) -> "Crossing":
        """As if the interpolated time were exact, for a sensitivity check; unchanged where there is none."""
        return self if self.interpolated is None else exactly(self.interpolated)


def crossing(steps: Sequence[float], accuracies: Sequence[float], target: float) -> Crossing:
    """When the accuracies of evaluations after ascending `steps` reached `target`, in the same unit.

    The first of three evaluations in a row at or above it ends the interval, and the evaluation before it begins it.
    One or two at the run's end are no crossing: `by` is inf, but the interval begins before them, for it may be one.
    Interpolated by the step's logarithm, which the grid is even in, and accuracy as it is: finite even at 0 and 1.
    """
    evaluations = list(zip(steps, accuracies, strict=True))
    reached = [accuracy >= target for _, accuracy in evaluations]
    first = next(i for i in range(len(reached) + 1) if all(reached[i : i + IN_A_ROW]))  # at the end, of fewer
    step_before, accuracy_before = evaluations[first - 1] if first > 0 else (0.0, math.nan)
    if first + IN_A_ROW > len(evaluations):
        return Crossing(step_before, math.inf)
    step, accuracy = evaluations[first]
    if first == 0:
        return Crossing(0.0, step)
    way = (target - accuracy_before) / (accuracy - accuracy_before)
    interpolated = step_before * (step / step_before) ** way
    return Crossing(step_before, step, min(max(interpolated, step_before), step))


def ratio(a: Sequence[Crossing], b: Sequence[Crossing], *, null: float = 1.0, floor: float = 1.0) -> Estimate:
    """The geometric mean of a / b over pairs, at the adverse ends of both; p tests whether it is `null`.

    A run that never got there lies between its last step and inf: it bounds the ratio, and no pair is left out. One
    such run of a leaves the upper end unbounded, one of b makes the lower end 0. `floor` stands for an `after` of 0:
    nothing is reached before the first update (of learning rates: give 0, which leaves that end unbounded).
    """
    ends_a, ends_b = ([log_ends(run, floor) for run in side] for side in (a, b))
    pairs = list(zip(ends_a, ends_b, strict=True))
    result = estimate(
        [point_a - point_b for (_, point_a, _), (_, point_b, _) in pairs],
        lows=[low_a - high_b for (low_a, _, _), (_, _, high_b) in pairs],
        highs=[high_a - low_b for (_, _, high_a), (low_b, _, _) in pairs],
        null=math.log(null),
    )
    value = None if result.value is None else rounded(math.exp(result.value))
    low, high = rounded(math.exp(result.low)), rounded(math.exp(result.high))
    ends = tuple((rounded(math.exp(low)), rounded(math.exp(high))) for low, high in result.ends)
    return replace(result, value=value, low=low, high=high, ends=ends)


def geometric_mean(times: Sequence[Crossing], *, floor: float = 1.0) -> Estimate:
    """The geometric mean, likewise; nothing is tested."""
    return replace(ratio(times, [exactly(1.0)] * len(times), floor=floor), p=None)


def exactly(time: float) -> Crossing:
    """A time that is known."""
    return Crossing(time, time, time)


def log_ends(run: Crossing, floor: float) -> tuple[float, float, float]:
    """The logarithms of a crossing's lower end, best guess and upper end."""
    start = run.after if run.after > 0 else floor
    low, high = math.log(start) if start > 0 else -math.inf, math.log(run.by)
    if run.interpolated is not None:
        return low, math.log(run.interpolated), high
    finite = [end for end in (low, high) if math.isfinite(end)]
    return low, math.fsum(finite) / max(len(finite), 1), high
