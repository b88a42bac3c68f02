"""The section `rules` of `study/params.yaml`: by what each claim is judged. Its comments stand there."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from bnstudy.params import Count, InnerFraction, Positive, Section, allowed, ascending

Difference = Annotated[float, Field(ge=-1, le=1)]  # of two accuracies
Decays = Annotated[list[InnerFraction], allowed(ascending, "is not a list of one or more ascending decays")]
Span = Annotated[list[Positive], Field(min_length=2, max_length=2), allowed(ascending, "is not ascending")]


class Rule(Section):
    expected: str
    because: str


class Speed(Rule):
    """Claims 1, 2 and 4: a ratio of updates until a target."""

    target: InnerFraction
    below: Positive


class Between(Rule):
    above: Positive
    below: Positive

    def disagreements(self) -> Iterator[str]:
        if self.above >= self.below:
            yield f"above: {self.above:g} is not less than `below`"


class Share(Between):
    target: InnerFraction


class Tolerance(Rule):
    target: InnerFraction
    at_least: Positive


class Thousand(Rule):
    decay: InnerFraction
    step: Count
    below: Difference


class Ready(Between):
    decays: Decays
    within: InnerFraction


class Dip(Between):
    decays: Decays
    ages: Span
    deep: Difference


class Cause(Rule):
    decay: InnerFraction
    within: InnerFraction
    shift: Positive
    small_start: Span
    small_loss: InnerFraction
    weight: InnerFraction
    means_below: Difference


class Standardized(Rule):
    decays: Decays
    weights: Span
    below: Difference


class Correction(Rule):
    decays: Decays
    first: Count
    at_most: InnerFraction


class UpdateOps(Rule):
    step: Count
    above: Difference


class Ladder(Section):
    after: Count


class Rules(Section):
    note: Speed
    tuned: Speed
    share: Share
    momentum: Speed
    tolerance: Tolerance
    thousand: Thousand
    ready: Ready
    dip: Dip
    cause: Cause
    standardized: Standardized
    correction: Correction
    update_ops: UpdateOps
    ladder: Ladder
