"""`params.yaml`, typed and frozen: every key once, with its type and range.

`load` checks the whole file, whichever script reads it. The sections that both pipelines share come first, then those
of the note's `params.yaml`; the study's are in `bnstudy.study.params`.
"""

import argparse
import difflib
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
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


def distinct(values: list[Any]) -> bool:
    return len(set(values)) == len(values) > 0


def ascending(values: list[Any]) -> bool:
    return distinct(values) and values == sorted(values)


Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
InnerFraction = Annotated[float, Field(gt=0, lt=1)]
Inches = Annotated[float, Field(ge=2, le=20)]
Count = Annotated[int, Field(ge=1)]
Threads = Annotated[int, Field(ge=1, le=1024)]
BatchSize = Annotated[int, Field(ge=2, le=60_000)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Seeds = Annotated[list[Seed], allowed(distinct, "is not a list of one or more different seeds")]
# A name becomes part of a command, a path and a stage's name.
Name = Annotated[str, Field(pattern="^([a-z][a-z0-9_]{0,63})$"), refused_as("is not lower-case letters, digits and _")]
Accumulator = Annotated[float, Field(gt=0, lt=1e38)]  # float32 ends there
Device = Annotated[
    str, Field(pattern="^(auto|cpu|mps|cuda(:[0-9]{1,3})?)$"), refused_as("is not auto, cpu, cuda, cuda:N or mps")
]
MIRROR = re.compile(r"(https://|file:///|http://(localhost|127(\.[0-9]{1,3}){3}|\[::1\])[:/])\S*")
Mirror = Annotated[
    str,
    Field(pattern=f"^({MIRROR.pattern})$"),
    refused_as("is not https://…, file:///… or http:// on loopback"),
]


def argument(kind: Any) -> Callable[[str], Any]:
    """An argparse type: a value that params.yaml may hold as `kind`."""

    def parse(text: str) -> Any:
        try:
            return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)).validate_strings(text)
        except ValidationError as error:
            fault = describe(error.errors(include_url=False)[0])
            raise argparse.ArgumentTypeError(fault.removeprefix("the file: ")) from None

    return parse


class Section(BaseModel):
    """A block of keys: all of them, no others, each of its own type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def disagreements(self) -> Iterator[str]:
        """`key: what is wrong` for each value that does not fit the others of this section."""
        yield from ()

    @model_validator(mode="after")
    def values_agree(self) -> Self:
        if faults := list(self.disagreements()):
            raise PydanticCustomError("disagreements", "", {"faults": faults})
        return self


class Design(Section):
    """What network is built. `None` marks a key that its normalization does not use, and that must then be absent."""

    normalization: Literal["none", "batch", "layer", "group"]
    initializer: Literal["truncated_normal", "he"]
    normalize_logits: bool | None = None
    decay: Fraction | None = None
    epsilon: Positive | None = None
    groups: Count | None = None
    standardize: Literal[True] | None = None

    def disagreements(self) -> Iterator[str]:
        used = {
            "none": [],
            "batch": ["normalize_logits", "decay", "epsilon"],
            "layer": ["normalize_logits", "epsilon"],
            "group": ["epsilon", "groups"],
        }[self.normalization]
        for key in ("normalize_logits", "decay", "epsilon", "groups"):
            if (getattr(self, key) is not None) != (key in used):
                what = "is missing" if key in used else "is not used"
                yield f"{key}: {what} with normalization {self.normalization}"
        for channels in (16, 32, 1024):
            if self.groups and channels % self.groups:
                yield f"groups: {short(self.groups)} does not divide the {channels} channels of a layer"


class LearningRate(Section):
    """initial * decay_rate ** (update / decay_steps), the exponent rounded down if `staircase`."""

    initial: Positive
    decay_rate: PositiveFraction
    decay_steps: Count
    staircase: bool
    ramp_steps: Count | None = None  # updates over which it first rises linearly


class Optimizer(Section):
    """Adagrad as in TensorFlow, or stochastic gradient descent with momentum."""

    name: Literal["adagrad", "sgd"]
    initial_accumulator: Accumulator | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None

    def disagreements(self) -> Iterator[str]:
        for key, name in (("initial_accumulator", "adagrad"), ("momentum", "sgd")):
            if (getattr(self, key) is not None) != (name == self.name):
                yield f"{key}: is {'missing' if name == self.name else 'not used'} with {self.name}"


class Training(Section):
    """How a network is trained."""

    steps: Count
    batch_size: BatchSize
    optimizer: Optimizer
    learning_rate: LearningRate
    keep_prob: PositiveFraction
    precision: Literal["float32", "bfloat16"]


class Arm(Training):
    """A network and how it is trained: all that determines a run, beside its seed, the images and the code."""

    network: Design


class Data(Section):
    source: Literal["mnist", "fashion_mnist", "kmnist", "sample"]
    validation_size: Annotated[int, Field(ge=2)]

    def disagreements(self) -> Iterator[str]:
        images = 4_000 if self.source == "sample" else 60_000
        if self.validation_size >= images:
            yield f"validation_size: {short(self.validation_size)} is not below {images}"


class Train(Training):
    evaluations_per_decade: Annotated[int, Field(ge=1, le=100)]


class Plot(Section):
    width: Inches
    height: Inches


class Launch(Section):
    cpus: Annotated[Positive | Literal["auto"], refused_as("is not a number above 0 or the word auto")]
    gpus: PositiveFraction


class Runtime(Section):
    device: Device
    deterministic: bool
    threads: Annotated[Threads | Literal["all"], refused_as("is not a whole number from 1 to 1024 or the word all")]
    checkpoint_every: Annotated[Count | Literal["auto"], refused_as("is not a whole number above 0 or the word auto")]
    memory_fraction: PositiveFraction
    tensorboard: bool
    mirrors: list[Mirror]
    launch: Launch


class Params(Section):
    """The note's `params.yaml`."""

    data: Data
    models: Annotated[dict[Name, Design], allowed(len, "is not one or more models")]
    train: Train
    plot: Plot
    runtime: Runtime
    seeds: Seeds

    def arm(self, model: str) -> Arm:
        """All that determines a run of `model`, a name under `models`, beside its seed."""
        return Arm(network=self.models[model], **{key: getattr(self.train, key) for key in Training.model_fields})


Kind = TypeVar("Kind", bound=Section)


def load(path: Path = PARAMS_FILE) -> Params:
    """The note's parameters. Raises `BadInput` with a line `key: value and what is allowed` for each fault."""
    return load_as(Params, path)


def load_as(kind: type[Kind], path: Path) -> Kind:
    """`path`, a YAML file of sections, as `kind`. Raises `BadInput` as `load` does."""
    return check(kind, read(path), path)


def load_runtime(path: Path = PARAMS_FILE) -> Runtime:
    """The section `runtime` alone, whatever else stands there: the study computes as the note does."""
    raw = read(path)
    return check(OnlyRuntime, {"runtime": raw.get("runtime")} if isinstance(raw, dict) else raw, path).runtime


class OnlyRuntime(Section):
    runtime: Runtime


def read(path: Path) -> Any:
    # With DVC's own parser: to another, 1e-3 is text, 010 is eight, and of two equal keys the last one counts.
    try:
        raw = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except Exception as error:  # junk makes it raise IndexError, RecursionError and more
        mark = getattr(error, "problem_mark", None)
        what = f"line {mark.line + 1}: {getattr(error, 'problem', '')}" if mark else " ".join(str(error).split())
        raise BadInput(f"{path}: cannot be read: {what}") from None
    return raw


def check(kind: type[Kind], raw: Any, path: Path) -> Kind:
    try:
        return kind.model_validate(raw)
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
        return f"{key}: is not a known key{nearest(path[-1], keys_below(Section))}"
    if kind == "model_type":
        return f"{key}: {value} is not a section of keys"
    return f"{key}: {value} {fault['msg'].replace('Input should be', 'is not', 1)}"


def keys_below(kind: type[Section]) -> set[str]:
    return {*kind.model_fields}.union(*(keys_below(section) for section in kind.__subclasses__()))


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
