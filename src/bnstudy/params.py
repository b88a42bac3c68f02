"""`params.yaml`, typed and frozen: every key once, with its type and range.

`load` checks the whole file; stage `check` does so before all others. Each script hands on only the sections that its
stage declares in `dvc.yaml`.
"""

import argparse
import difflib
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError
from ruamel.yaml import YAML

from bnstudy import BadInput

PARAMS_FILE = Path("params.yaml")


def allowed(test: Callable[[Any], object], reads: str) -> AfterValidator:
    """A validator that refuses a value failing `test` with the message `<value> <reads>`."""

    def check(value: Any) -> Any:
        if not test(value):
            raise PydanticCustomError("allowed", "{reads}", {"reads": reads})
        return value

    return AfterValidator(check)


def refused_as(reads: str) -> WrapValidator:
    """A validator that gives one message for a union, where pydantic gives one for each of its members."""

    def check(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError:
            raise PydanticCustomError("allowed", "{reads}", {"reads": reads}) from None

    return WrapValidator(check)


def written_as_decimal(value: Any) -> Any:
    if isinstance(value, int):
        raise PydanticCustomError("allowed", "is not written as a decimal, like 1.0")
    return value


def distinct(values: list[Any]) -> bool:
    return len(set(values)) == len(values) > 0


def ascending(values: list[Any]) -> bool:
    return distinct(values) and values == sorted(values)


def schema(**keys: Any) -> Any:
    """What `params.schema.json` says of a validator: an editor cannot run it."""
    return Field(json_schema_extra=keys)


def whole(pattern: re.Pattern[str]) -> Any:
    return schema(pattern=f"^({pattern.pattern})$")


NAMED = schema(additionalProperties=False)
LISTED = schema(minItems=1, uniqueItems=True)
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
InnerFraction = Annotated[float, Field(gt=0, lt=1)]
Inches = Annotated[float, Field(ge=2, le=20)]
Count = Annotated[int, Field(ge=1)]
Threads = Annotated[int, Field(ge=1, le=1024)]
BatchSize = Annotated[int, Field(ge=2, le=60_000)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Seeds = Annotated[list[Seed], allowed(distinct, "is not a list of one or more different seeds"), LISTED]
# A run and its file are named after what stands in params.yaml, where 1 and 1.0 would be two.
Rate = Annotated[Positive, BeforeValidator(written_as_decimal)]
# A name becomes part of a command, a path and a stage's name.
NAME = re.compile("[a-z][a-z0-9_]{0,63}")
Name = Annotated[str, allowed(NAME.fullmatch, "is not lower-case letters, digits and _"), whole(NAME)]
Names = Annotated[list[Name], allowed(distinct, "is not a list of one or more different names"), LISTED]
DEVICE = re.compile("auto|cpu|mps|cuda(:[0-9]{1,3})?")
Device = Annotated[str, allowed(DEVICE.fullmatch, "is not auto, cpu, cuda, cuda:N or mps"), whole(DEVICE)]
MIRROR = re.compile(r"(https://|file:///|http://(localhost|127(\.[0-9]{1,3}){3}|\[::1\])[:/])\S*")
Mirror = Annotated[str, allowed(MIRROR.fullmatch, "is not https://…, file:///… or http:// on loopback"), whole(MIRROR)]


def argument(kind: Any) -> Callable[[str], Any]:
    """An argparse type: a value that params.yaml may hold as `kind`."""

    def parse(text: str) -> Any:
        try:
            return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)).validate_strings(text)
        except ValidationError as error:
            raise argparse.ArgumentTypeError(describe(error.errors(include_url=False)[0])) from None

    return parse


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def disagreements(self) -> Iterator[str]:
        """`key: what is wrong` for each value that does not fit the others of this section."""
        yield from ()

    @model_validator(mode="after")
    def values_agree(self) -> Self:
        if faults := list(self.disagreements()):
            raise PydanticCustomError("disagreements", "", {"faults": faults})
        return self


class Data(Section):
    source: Literal["mnist", "sample"]
    validation_size: Count

    def disagreements(self) -> Iterator[str]:
        images = {"mnist": 60_000, "sample": 4_000}[self.source]
        if self.validation_size >= images:
            yield f"validation_size: {short(self.validation_size)} is not below {images}"


class Study(Section):
    variants: Names
    seeds: Seeds


class Variant(Section):
    """A network: `None` marks a key that its normalization does not use, and that must then be absent."""

    normalization: Literal["none", "batch", "layer", "group"] = Field(description="of each layer's inputs")
    initializer: Literal["truncated_normal", "he"] = Field(
        description="truncated_normal: standard deviation 0.1, cut at two of them; he: scaled by fan-in"
    )
    normalize_logits: bool | None = Field(None, description="whether the last layer is normalized too; not with none")
    epsilon: Positive | None = Field(None, description="added to variances, above 0; not with none")
    scale: bool | None = Field(None, description="whether a gain is trained; not with none")
    decay: Fraction | None = Field(None, description="of the moving averages, in [0, 1]; only with batch")
    groups: Count | None = Field(None, description="a divisor of every layer's channels; only with group")

    def disagreements(self) -> Iterator[str]:
        wanted = set() if self.normalization == "none" else {"normalize_logits", "epsilon", "scale"}
        wanted |= {"batch": {"decay"}, "group": {"groups"}}.get(self.normalization, set())
        for key in ("normalize_logits", "epsilon", "scale", "decay", "groups"):
            if (getattr(self, key) is not None) != (key in wanted):
                what = "is missing" if key in wanted else "is not used"
                yield f"{key}: {what} with normalization {self.normalization}"
        channels = (16, 32, 1024, 10) if self.normalize_logits else (16, 32, 1024)
        for n in channels:
            if self.groups and n % self.groups:
                yield f"groups: {short(self.groups)} does not divide the {n} channels of a layer"


class LearningRate(Section):
    initial: Positive
    decay_rate: PositiveFraction
    decay_steps: Count
    staircase: bool


class Train(Section):
    steps: Count
    batch_size: BatchSize
    learning_rate: LearningRate
    initial_accumulator: Annotated[float, Field(gt=0, lt=1e38)]  # float32 ends there
    keep_prob: PositiveFraction
    evaluate_every: Count
    precision: Literal["float32", "bfloat16"]


class Evaluate(Section):
    targets: Annotated[list[InnerFraction], allowed(ascending, "is not an ascending list of fractions"), LISTED]


class Warmup(Section):
    variant: Name
    seeds: Seeds
    steps: Count
    decays: Annotated[list[Fraction], allowed(ascending, "is not an ascending list of decays"), LISTED]
    evaluate_every: Count
    precise_images: Annotated[int, Field(ge=2)]


class Sweep(Section):
    variants: Names
    seeds: Seeds
    steps: Count
    learning_rates: Annotated[list[Rate], allowed(ascending, "is not an ascending list of rates"), LISTED]
    batch_sizes: Annotated[list[BatchSize], allowed(ascending, "is not an ascending list of sizes"), LISTED]
    target_accuracy: InnerFraction


class Summarize(Section):
    confidence: InnerFraction
    minimum_runs: Count
    accuracy_margin: InnerFraction
    warm_within: InnerFraction
    slow_decay: Fraction
    slow_steps: Annotated[
        list[Count],
        allowed(lambda v: ascending(v) and len(v) == 2, "is not two ascending steps"),
        schema(minItems=2, maxItems=2),
    ]
    fast_decay: Fraction
    fast_steps: Count
    useless_accuracy: InnerFraction
    fine_accuracy: InnerFraction


class Plot(Section):
    width: Inches
    height: Inches


class Runtime(Section):
    device: Device
    deterministic: bool
    threads: Annotated[Threads | Literal["all"], refused_as("is not a whole number from 1 to 1024 or the word all")]
    checkpoint_every: Annotated[Count | Literal["auto"], refused_as("is not a whole number above 0 or the word auto")]
    memory_fraction: PositiveFraction
    mirrors: list[Mirror]


OwnOrShared = Annotated[Positive | Literal["shared"], refused_as("is not a rate above 0 or the word shared")]


class Params(Section):
    data: Data
    study: Study
    variants: Annotated[dict[Name, Variant], NAMED]
    rates: Annotated[dict[Name, OwnOrShared], NAMED]
    train: Train
    evaluate: Evaluate
    warmup: Warmup
    sweep: Sweep
    summarize: Summarize
    plot: Plot
    runtime: Runtime

    def rate_of(self, variant: str) -> float:
        """The initial learning rate of `variant`: its own, or the shared one of `train`."""
        own = self.rates[variant]
        return self.train.learning_rate.initial if own == "shared" else own

    def disagreements(self) -> Iterator[str]:
        for key, names in {
            "study.variants": self.study.variants,
            "sweep.variants": self.sweep.variants,
            "warmup.variant": [self.warmup.variant],
        }.items():
            for name in names:
                if name not in self.variants:
                    yield f"{key}: {name} is not one of {', '.join(self.variants)}{nearest(name, self.variants)}"
        for name in self.variants:
            if name not in self.rates:
                yield f"rates.{name}: is missing (a rate, or shared: train.learning_rate.initial)"
        for name in self.rates:
            if name not in self.variants:
                yield f"rates.{name}: is not the name of a variant{nearest(name, self.variants)}"
        averaged = self.variants.get(self.warmup.variant)
        if averaged and averaged.normalization != "batch":
            yield f"warmup.variant: {self.warmup.variant} has no moving averages: its normalization is not batch"


def load(path: Path = PARAMS_FILE) -> Params:
    """Read and check `path`. Raises `BadInput` with a line `key: value and what is allowed` for each fault."""
    try:  # with DVC's own parser: to another, 1e-3 is text, 010 is eight, and of two equal keys the last one counts
        raw = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except Exception as error:  # junk makes it raise IndexError, RecursionError and more
        mark = getattr(error, "problem_mark", None)
        what = f"line {mark.line + 1}: {getattr(error, 'problem', '')}" if mark else " ".join(str(error).split())
        raise BadInput(f"{path}: cannot be read: {what}") from None
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        faults = "\n".join(describe(fault) for fault in error.errors(include_url=False))
        raise BadInput(f"{path}: {faults}" if "\n" not in faults else f"{path}:\n{faults}") from None


def describe(fault: ErrorDetails) -> str:
    """One line for a fault: the key, the value, and what is allowed; one for each value that does not fit others."""
    path = [str(part) for part in fault["loc"] if part != "[key]"]
    key, value, kind = ".".join(path) or "the file", short(fault["input"]), fault["type"]
    if kind == "disagreements":
        return "\n".join(".".join([*path, line]) for line in fault["ctx"]["faults"])
    if kind == "missing":
        return f"{key}: is missing"
    if kind == "extra_forbidden":
        known = {key for section in Section.__subclasses__() for key in section.model_fields}
        return f"{key}: is not a known key{nearest(path[-1], known)}"
    if kind == "model_type":
        return f"{key}: {value} is not a section of keys"
    return f"{key}: {value} {fault['msg'].replace('Input should be', 'is not', 1)}"


def nearest(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, set(words) - {word}, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def short(value: object) -> str:
    """`value` in at most 60 characters, even if it is lists within lists without end."""
    shortest = reprlib.Repr()
    shortest.maxstring = shortest.maxlong = 60
    try:
        text = shortest.repr(value)
    except ValueError:  # a whole number of more than 4,300 digits
        text = "a number too large to print"
    return text if len(text) <= 60 else text[:57] + "…"
