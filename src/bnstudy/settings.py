"""What one training is given: its whole setting, resolved from params.yaml and the tuning, as a file of its own.

`check` writes those of the sweep, `shortlist` those of the refinement, `tune` those of everything that is judged, to
`settings/`, which is in git. A training depends on its file alone, so that it reruns when its own setting changed, and
not otherwise: a new choice of the same rate, or a new decay for a network without batch norm, leaves the same bytes.
"""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from bnstudy import BadInput
from bnstudy.params import (
    Accumulator,
    BatchSize,
    Count,
    Evaluation,
    Fraction,
    Initializer,
    LearningRate,
    Name,
    Normalization,
    Params,
    Positive,
    PositiveFraction,
    Precision,
    Section,
    describe,
)

SETTINGS = Path("settings")
BACK = "`dvc repro` or `git restore` brings it back"
Kind = TypeVar("Kind")


class Variant(Section):
    """A network as it is built: what its normalization does not use is absent."""

    normalization: Normalization
    initializer: Initializer
    normalize_logits: bool | None = None
    epsilon: Positive | None = None
    decay: Fraction | None = None
    groups: Count | None = None


class Setting(Section):
    """All that determines a training, beside its seed, the data and the code."""

    name: Name
    network: Variant
    steps: Count
    batch_size: BatchSize
    learning_rate: LearningRate
    initial_accumulator: Accumulator
    keep_prob: PositiveFraction
    precision: Precision
    evaluation: Evaluation | None = None  # None: after the last update alone

    def at(self, rate: float | None = None, *, steps: int | None = None, batch_size: int | None = None) -> "Setting":
        """With another initial rate, number of updates or batch size."""
        rates = self.learning_rate if rate is None else self.learning_rate.model_copy(update={"initial": rate})
        changes = {"learning_rate": rates, "steps": steps or self.steps, "batch_size": batch_size or self.batch_size}
        return self.model_copy(update=changes)

    def to_bytes(self) -> bytes:
        return to_json(self.model_dump(exclude_none=True))


def setting(
    params: Params, network: str, rate: float, steps: int, *, ramp_steps: int | None = None, on_grid: bool = True
) -> Setting:
    """The setting of `network`, a name under `networks`, at the initial learning rate `rate`."""
    train, design = params.train, params.networks[network]
    changes = {"initial": rate} | ({} if ramp_steps is None else {"ramp_steps": ramp_steps})
    return Setting(
        name=network,
        network=Variant(
            **design.model_dump(exclude={"rate"}),
            epsilon=None if design.normalization == "none" else train.epsilon,
            decay=train.decay if design.normalization == "batch" else None,
        ),
        steps=steps,
        batch_size=train.batch_size,
        learning_rate=train.learning_rate.model_copy(update=changes),
        initial_accumulator=train.initial_accumulator,
        keep_prob=train.keep_prob,
        precision=train.precision,
        evaluation=params.evaluation if on_grid else None,
    )


def read_setting(name: str) -> Setting:
    """`settings/<name>.json`; `BadInput` if it cannot be read or is something else."""
    return read_json(SETTINGS / f"{name}.json", Setting)


def to_json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def read(path: Path) -> bytes:
    """What stands in `path`; `BadInput` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); {BACK}") from None


def read_json(path: Path, kind: type[Kind]) -> Kind:
    """What stands in `path`; `BadInput` if it cannot be read or is not of that kind."""
    content = read(path)
    try:
        return TypeAdapter(kind).validate_json(content)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise BadInput(f"{path}: {fault['msg'] if fault['type'] == 'json_invalid' else describe(fault)}") from None
