"""The typed, frozen form of `params.yaml`: each key once, with its type and range.

`load` checks the whole file before a stage touches anything. A stage's `main` then hands on only the sections that its
stage declares in `dvc.yaml` (a test reads both). `runtime` is declared by none: it changes how, never what.
"""

import argparse
import difflib
import re
import reprlib
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

PARAMS_FILE = Path("params.yaml")
DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)$")
# Of anchors in anchors, repr() would never end.
SHORT = reprlib.Repr()
SHORT.maxlevel, SHORT.maxlist, SHORT.maxdict, SHORT.maxstring, SHORT.maxlong, SHORT.maxother = 3, 20, 9, 60, 60, 60

Value = TypeVar("Value", float, int, str, list[str], list[int], list[float])


class BadInput(Exception):
    """What a person can put right: `bnstudy.stage.run` prints it as one message, not a traceback, and exits with 1."""


def allowed(test: Callable[[Any], bool], reads: str) -> AfterValidator:
    """A validator that refuses a value failing `test` with the message `<value> <reads>`."""

    def check(value: Value) -> Value:
        if not test(value):
            raise PydanticCustomError("allowed", "{reads}", {"reads": reads})
        return value

    return AfterValidator(check)


def float_written(value: Any) -> Any:
    if isinstance(value, int):
        raise PydanticCustomError("allowed", "{reads}", {"reads": "is not written as a decimal, like 1.0"})
    return value


def distinct(values: list[Any]) -> bool:
    return len(set(values)) == len(values) > 0


def ascending(values: list[Any]) -> bool:
    return distinct(values) and values == sorted(values)


Positive = Annotated[float, allowed(lambda v: v > 0, "is not above 0")]
Fraction = Annotated[float, allowed(lambda v: 0 <= v <= 1, "is not in [0, 1]")]
PositiveFraction = Annotated[float, allowed(lambda v: 0 < v <= 1, "is not in (0, 1]")]
InnerFraction = Annotated[float, allowed(lambda v: 0 < v < 1, "is not in (0, 1)")]
Inches = Annotated[float, allowed(lambda v: 2 <= v <= 20, "is not in [2, 20]")]
Count = Annotated[int, allowed(lambda v: v >= 1, "is not a whole number of at least 1")]
Seed = Annotated[int, allowed(lambda v: 0 <= v < 2**31, "is not a whole number in [0, 2147483648)")]
Seeds = Annotated[list[Seed], allowed(distinct, "is not a list of one or more different seeds")]
BatchSize = Annotated[int, allowed(lambda v: 2 <= v <= 60_000, "is not a whole number in [2, 60000]")]
# DVC names a run and its file after what stands in params.yaml: 1 and 1.0 would be two.
Rate = Annotated[Positive, BeforeValidator(float_written)]
# A name becomes a folder and part of a stage's name: letters, digits and underscores keep it inside the project.
Name = Annotated[
    str, allowed(re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII).fullmatch, "is not lower-case letters, digits and _")
]
Names = Annotated[list[Name], allowed(distinct, "is not a list of one or more different names")]
Device = Annotated[
    str,
    allowed(re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?", re.ASCII).fullmatch, "is not auto, cpu, cuda, cuda:N or mps"),
]
Mirror = Annotated[
    str,
    allowed(
        re.compile(r"(https://|file:///|http://(localhost|127(\.\d{1,3}){3}|\[::1\])[:/])\S*").match,
        "is not https://…, file:///… or http:// on loopback",
    ),
]


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


class Data(Section):
    source: Literal["mnist", "sample"]
    validation_size: Count

    @model_validator(mode="after")
    def leaves_training_images(self) -> Self:
        images = {"mnist": 60_000, "sample": 4_000}[self.source]
        if self.validation_size >= images:
            raise PydanticCustomError(
                "key", "{key}: {v} is not below {n}", {"key": "validation_size", "v": self.validation_size, "n": images}
            )
        return self


class Study(Section):
    variants: Names
    seeds: Seeds


class Variant(Section):
    """A network: `None` marks a key that its normalization does not use, and that must then be absent."""

    normalization: Literal["none", "batch", "layer", "group"]
    initializer: Literal["truncated_normal", "he"]
    normalize_logits: bool | None = None
    epsilon: Positive | None = None
    scale: bool | None = None
    decay: Fraction | None = None
    groups: Count | None = None

    @model_validator(mode="after")
    def keys_fit_normalization(self) -> Self:
        wanted = set() if self.normalization == "none" else {"normalize_logits", "epsilon", "scale"}
        wanted |= {"batch": {"decay"}, "group": {"groups"}}.get(self.normalization, set())
        for key in ("normalize_logits", "epsilon", "scale", "decay", "groups"):
            if (getattr(self, key) is not None) != (key in wanted):
                what = "is missing" if key in wanted else "is not used"
                context = {"key": key, "what": what, "normalization": self.normalization}
                raise PydanticCustomError("key", "{key}: {what} with normalization {normalization}", context)
        for channels in (16, 32, 1024) + ((10,) if self.normalize_logits else ()):
            if self.groups and channels % self.groups:
                raise PydanticCustomError(
                    "key", "groups: {v} does not divide {channels} channels", {"v": self.groups, "channels": channels}
                )
        return self


class LearningRate(Section):
    initial: Positive
    decay_rate: PositiveFraction
    decay_steps: Count
    staircase: bool


class Train(Section):
    steps: Count
    batch_size: BatchSize
    learning_rate: LearningRate
    initial_accumulator: Annotated[float, allowed(lambda v: 0 < v < 1e38, "is not above 0 and below 1e38")]
    keep_prob: PositiveFraction
    evaluate_every: Count
    precision: Literal["float32", "bfloat16"]


class Evaluate(Section):
    targets: Annotated[list[InnerFraction], allowed(ascending, "is not an ascending list of fractions")]


class Warmup(Section):
    variant: Name
    seeds: Seeds
    steps: Count
    decays: Annotated[list[Fraction], allowed(ascending, "is not an ascending list of decays")]
    evaluate_every: Count
    precise_images: Annotated[int, allowed(lambda v: v >= 2, "is not a whole number of at least 2")]


class Sweep(Section):
    variants: Names
    seeds: Seeds
    steps: Count
    learning_rates: Annotated[list[Rate], allowed(ascending, "is not an ascending list of rates")]
    batch_sizes: Annotated[list[BatchSize], allowed(ascending, "is not an ascending list of sizes")]
    target_accuracy: InnerFraction


class Summarize(Section):
    confidence: InnerFraction
    minimum_runs: Count
    accuracy_margin: InnerFraction
    warm_within: InnerFraction
    slow_decay: Fraction
    slow_steps: Annotated[list[Count], allowed(lambda v: ascending(v) and len(v) == 2, "is not two ascending steps")]
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
    threads: Annotated[int, allowed(lambda v: 1 <= v <= 1024, "is not a whole number in [1, 1024]")] | None
    checkpoint_every: Count | None
    memory_fraction: PositiveFraction | None
    mirrors: list[Mirror]


class Params(Section):
    data: Data
    study: Study
    variants: dict[Name, Variant]
    rates: dict[Name, Positive | None]
    train: Train
    evaluate: Evaluate
    warmup: Warmup
    sweep: Sweep
    summarize: Summarize
    plot: Plot
    runtime: Runtime

    @model_validator(mode="after")
    def named_variants_exist(self) -> Self:
        for key, names in {
            "study.variants": self.study.variants,
            "sweep.variants": self.sweep.variants,
            "warmup.variant": [self.warmup.variant],
        }.items():
            for name in names:
                if name not in self.variants:
                    context = {"key": key, "v": name, "names": ", ".join(self.variants)}
                    context["near"] = nearest(name, self.variants)
                    raise PydanticCustomError("key", "{key}: {v} is not one of {names}{near}", context)
        for name in self.variants.keys() ^ self.rates.keys():
            what = "is missing (null: train.learning_rate.initial)"
            if name not in self.variants:
                what = "is no variant" + nearest(name, self.variants)
            raise PydanticCustomError("key", "rates.{name}: {what}", {"name": name, "what": what})
        if self.variants[self.warmup.variant].normalization != "batch":
            context = {"v": self.warmup.variant}
            raise PydanticCustomError("key", "warmup.variant: {v} has no moving averages: it is not batch", context)
        return self


class UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys; here the second is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


# PyYAML reads 010 as 8 and 1:30 as 90, by YAML 1.1; DVC does not, by 1.2. As text, each is refused.
UniqueKeyLoader.yaml_implicit_resolvers = {
    first: [(tag, DECIMAL if tag == "tag:yaml.org,2002:int" else pattern) for tag, pattern in tests]
    for first, tests in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load(path: Path = PARAMS_FILE) -> Params:
    """Read and check `path`. Raises `BadInput` with a line `key: value and what is allowed` for each fault."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), UniqueKeyLoader)  # noqa: S506 (it is a SafeLoader)
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:  # as of `!!int ''`
        raise BadInput(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        faults = "\n".join(describe(fault) for fault in error.errors(include_url=False))
        raise BadInput(f"{path}: {faults}" if "\n" not in faults else f"{path}:\n{faults}") from None


def describe(fault: ErrorDetails) -> str:
    """One line for a fault: the key, the value, and what is allowed."""
    path = [str(part) for part in fault["loc"] if part != "[key]"]
    key, value, kind = ".".join(path) or "the file", short(fault["input"]), fault["type"]
    if kind == "allowed":
        return f"{key}: {value} {fault['msg']}"
    if kind == "key":
        return f"{key}.{fault['msg']}" if path else fault["msg"]
    if kind == "missing":
        return f"{key}: is missing"
    if kind == "extra_forbidden":
        return f"{key}: is not a known key{nearest(path[-1], known_keys(path[:-1]))}"
    if kind == "finite_number":
        return f"{key}: {value} is not a finite number"
    if kind in ("float_type", "int_type") and isinstance(fault["input"], str):
        return f"{key}: {value} is text, not a number (write 0.001, not 1e-3: YAML reads that as text)"
    expected = {"int_type": "a whole number", "model_type": "a section of keys", "dict_type": "a section of keys"}
    return f"{key}: {value} is not {expected.get(kind) or fault['msg'].removeprefix('Input should be ')}"


def nearest(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def known_keys(path: list[str]) -> list[str]:
    """The keys that the section at `path` knows."""
    model: type[BaseModel] = Params
    for name in path:
        if name in model.model_fields:
            annotation = model.model_fields[name].annotation
            model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else Variant
    return list(model.model_fields)


def short(value: object) -> str:
    try:
        text = SHORT.repr(value)
    except ValueError:  # a whole number of more than 4,300 digits
        text = hex(value) if isinstance(value, int) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "…"
