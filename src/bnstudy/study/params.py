"""`study/params.yaml`, typed and frozen: every key once, with its type and range."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from bnstudy.params import (
    Arm,
    BatchSize,
    Count,
    Design,
    Fraction,
    InnerFraction,
    LearningRate,
    Name,
    Optimizer,
    Plot,
    Positive,
    PositiveFraction,
    Section,
    Seed,
    Seeds,
    allowed,
    ascending,
    distinct,
    load_as,
)
from bnstudy.study.rules import Rules

STUDY_PARAMS = Path("study/params.yaml")
Rates = Annotated[list[Positive], allowed(ascending, "is not an ascending list of rates")]
SomeSeeds = Annotated[
    list[Seed], allowed(lambda seeds: not seeds or distinct(seeds), "is not a list of different seeds")
]
Entries = Annotated[list[Name], allowed(lambda names: not names or distinct(names), "is not a list of different names")]
Decays = Annotated[list[Fraction], allowed(ascending, "is not an ascending list of decays")]
Updates = Annotated[list[Count], allowed(ascending, "is not an ascending list of updates")]
Spans = Annotated[
    list[Annotated[list[Positive], allowed(lambda s: len(s) == 3 and s[0] <= s[1], "is not [first, last, step]")]],
    allowed(len, "is not one or more spans [first, last, step]"),
]


class Data(Section):
    name: Annotated[str, Field(min_length=1, max_length=40)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Train(Section):
    keep_prob: PositiveFraction
    precision: Literal["float32", "bfloat16"]
    decay_rate: PositiveFraction
    decay_steps: Count
    staircase: bool


class Fine(Section):
    start: Count
    end: Count
    factor: Annotated[float, Field(gt=1)]

    def disagreements(self) -> Iterator[str]:
        if self.start >= self.end:
            yield f"start: {self.start} is not below end, {self.end}"


class Evaluation(Section):
    first: Count
    per_decade: Annotated[int, Field(ge=1, le=100)]
    fine: Fine
    moments: Updates


class Shared(Section):
    """What an arm and an entry of the sweep have in common."""

    network: Design
    optimizer: Optimizer
    ramp_steps: Count | None = None
    batch_size: BatchSize
    steps: Count


class StudyArm(Shared):
    learning_rate: Positive


class OtherStarts(Section):
    decays: Decays
    variances: Annotated[list[Positive], allowed(distinct, "is not a list of different variances")]
    ages: Spans


class Averages(StudyArm):
    decays: Decays
    ages: Spans
    images: Count
    precise_images: Annotated[int, Field(ge=2)]
    other_starts: OtherStarts | None = None

    def disagreements(self) -> Iterator[str]:
        if self.network.normalization != "batch":
            yield f"network.normalization: {self.network.normalization} keeps no moving averages; only batch does"
        if self.other_starts and (others := sorted({*self.other_starts.decays} - {*self.decays})):
            yield f"other_starts.decays: {others[0]} is not one of decays"


class Long(Section):
    seeds: SomeSeeds
    arms: dict[Name, StudyArm]


class Mechanism(Section):
    seeds: SomeSeeds
    points: Annotated[int, Field(ge=2, le=1000)]


class Entry(Shared):
    learning_rates: Rates
    seeds: Seeds
    target: InnerFraction | None = None


class Study(Section):
    """`study/params.yaml`."""

    data: Data
    train: Train
    evaluation: Evaluation
    arms: dict[Name, StudyArm]
    averages: dict[Name, Averages]
    long: Long
    mechanism: Mechanism
    sweep: dict[Name, Entry]
    rules: Rules
    plot: Plot
    entries: Entries
    registered: Seeds
    seeds: Seeds

    def disagreements(self) -> Iterator[str]:
        names = [*self.arms, *self.averages, *self.long.arms]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"arms.{name}: is named twice under arms, averages and long"
        if unknown := [name for name in self.entries if name not in self.sweep]:
            yield f"entries: {unknown[0]} is not one of sweep"
        if unregistered := sorted({*self.seeds} - {*self.registered}):
            yield f"seeds: {unregistered[0]} is not one of registered"
        if others := sorted({*self.mechanism.seeds} - {*self.seeds}):
            yield f"mechanism.seeds: {others[0]} is not one of seeds"

    @property
    def swept(self) -> dict[str, Entry]:
        """The entries of the sweep that are run."""
        return {name: self.sweep[name] for name in self.entries}

    def definition(self, stage: str, name: str) -> dict[str, Any]:
        """The part of the parameters that defines the runs of `name`: its stage depends on it, its runs record it."""
        stages: dict[str, Mapping[str, Section]] = {
            "sweep": self.sweep,
            "train": self.arms,
            "averages": self.averages,
            "long": self.long.arms,
        }
        sections = {name: stages[stage][name], "train": self.train, "evaluation": self.evaluation, "data": self.data}
        return {key: section.model_dump(exclude_none=True) for key, section in sections.items()}

    def arm(self, shared: Shared, learning_rate: float) -> Arm:
        """All that determines a training, beside its seed, the images and the code."""
        train = self.train
        return Arm(
            network=shared.network,
            steps=shared.steps,
            batch_size=shared.batch_size,
            optimizer=shared.optimizer,
            learning_rate=LearningRate(
                initial=learning_rate,
                decay_rate=train.decay_rate,
                decay_steps=train.decay_steps,
                staircase=train.staircase,
                ramp_steps=shared.ramp_steps,
            ),
            keep_prob=train.keep_prob,
            precision=train.precision,
        )


def load(path: Path = STUDY_PARAMS) -> Study:
    """Read and check the study's parameters. Raises `BadInput` with a line for each fault."""
    return load_as(Study, path)
