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
from typing import Annotated, Any, Literal, Self, get_args

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
AVERAGES_ARM = "note_batch_norm"  # the name under which the runs that carry the averages are shown beside the arms


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
Name = Annotated[str, Field(pattern="^([a-z][a-z0-9_]{0,63})$"), refused_as("is not lower-case letters, digits and _")]
Names = Annotated[list[Name], allowed(distinct, "is not a list of one or more different names"), LISTED]
Rates = Annotated[list[Rate], allowed(ascending, "is not an ascending list of rates"), LISTED]
SomeSeeds = Annotated[
    list[Seed], allowed(lambda seeds: not seeds or distinct(seeds), "is not a list of different seeds")
]
Decays = Annotated[list[Fraction], allowed(ascending, "is not an ascending list of decays"), LISTED]
Accumulator = Annotated[float, Field(gt=0, lt=1e38)]  # float32 ends there
Precision = Literal["float32", "bfloat16"]
Normalization = Literal["none", "batch", "layer", "group"]
Initializer = Literal["truncated_normal", "he"]
Finalist = Literal["without", "hidden", "everywhere"]
Contestant = Literal["without", "with"]
Device = Annotated[
    str, Field(pattern="^(auto|cpu|mps|cuda(:[0-9]{1,3})?)$"), refused_as("is not auto, cpu, cuda, cuda:N or mps")
]
MIRROR = re.compile(r"(https://|file:///|http://(localhost|127(\.[0-9]{1,3}){3}|\[::1\])[:/])\S*")
Mirror = Annotated[
    str,
    Field(pattern=f"^({MIRROR.pattern})$"),
    refused_as("is not https://…, file:///… or http:// on loopback"),
]


ChosenRate = Annotated[Positive | Literal["chosen"], refused_as("is not a rate above 0 or the word chosen")]
ArmRate = Annotated[
    Positive | Literal["note", "own", "baseline"], refused_as("is not a rate above 0 or note, own or baseline")
]
Contestants = Annotated[
    list[Contestant], allowed(distinct, "is not a list of one or two different contestants"), LISTED
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
    source: Literal["mnist", "fashion_mnist", "kmnist", "sample"]
    validation_size: Count

    def disagreements(self) -> Iterator[str]:
        images = 4_000 if self.source == "sample" else 60_000
        if self.validation_size >= images:
            yield f"validation_size: {short(self.validation_size)} is not below {images}"


class LearningRate(Section):
    initial: Positive
    decay_rate: PositiveFraction
    decay_steps: Count
    staircase: bool
    ramp_steps: Annotated[int, Field(ge=0)]


class Train(Section):
    batch_size: BatchSize
    decay: Fraction
    epsilon: Positive
    learning_rate: LearningRate
    initial_accumulator: Accumulator
    keep_prob: PositiveFraction
    precision: Precision


class Evaluation(Section):
    first: Count
    per_decade: Annotated[int, Field(ge=1, le=100)]
    moments: Annotated[list[Count], allowed(ascending, "is not an ascending list of updates"), LISTED]


class Network(Section):
    """`None` marks a key that its normalization does not use, and that must then be absent."""

    normalization: Normalization = Field(description="of each layer's inputs")
    initializer: Initializer = Field(
        description="truncated_normal: standard deviation 0.1, cut at two of them; he: scaled by fan-in"
    )
    normalize_logits: bool | None = Field(None, description="whether the last layer is normalized too; not with none")
    groups: Count | None = Field(None, description="a divisor of every layer's channels; only with group")
    rate: ChosenRate = Field(description="chosen: by `tune`; or a number above 0, to overrule it")

    def disagreements(self) -> Iterator[str]:
        wanted = {"none": set(), "group": {"normalize_logits", "groups"}}.get(self.normalization, {"normalize_logits"})
        for key in ("normalize_logits", "groups"):
            if (getattr(self, key) is not None) != (key in wanted):
                what = "is missing" if key in wanted else "is not used"
                yield f"{key}: {what} with normalization {self.normalization}"
        for n in (16, 32, 1024, *([10] if self.normalize_logits else [])):
            if self.groups and n % self.groups:
                yield f"groups: {short(self.groups)} does not divide the {n} channels of a layer"

    def kind(self) -> str | None:
        """Which finalist it may become: without batch norm, with it but for the logits, or with it everywhere."""
        if self.normalization == "batch":
            return "everywhere" if self.normalize_logits else "hidden"
        return "without" if self.normalization == "none" else None


class Sweep(Section):
    steps: Count
    networks: Names
    learning_rates: Rates
    seeds: Seeds


class Refine(Section):
    steps: Count
    target: InnerFraction
    finalists: Annotated[list[Finalist], allowed(distinct, "is not a list of one or more different finalists"), LISTED]
    factors: Rates
    seeds: Seeds


class Study(Section):
    seeds: Seeds
    arms: Names


class Arm(Section):
    network: Name
    rate: ArmRate = Field(description="note, own, baseline (that of the finalist `without`), or a number above 0")
    ramp_steps: Count | None = Field(None, description="in place of train.learning_rate.ramp_steps")
    steps: Count


class Averages(Section):
    network: Name
    rate: ArmRate
    steps: Count
    images: Count
    precise_images: Annotated[int, Field(ge=2)]
    decays: Decays


class Long(Section):
    steps: Count
    arm: Name
    arm_seeds: SomeSeeds
    averages_seeds: SomeSeeds


class Mechanism(Section):
    points: Annotated[int, Field(ge=2, le=1000)]
    seeds: Seeds


class Tolerance(Section):
    steps: Count
    contestants: Contestants
    learning_rates: Rates


class Batch(Section):
    images: Count
    tuning_images: Count
    contestants: Contestants
    sizes: Annotated[list[BatchSize], allowed(ascending, "is not an ascending list of sizes"), LISTED]
    factors: Rates
    tuning_seeds: Seeds
    seeds: Seeds

    def disagreements(self) -> Iterator[str]:
        for key in ("images", "tuning_images"):
            if self.sizes[-1] > getattr(self, key):
                yield f"sizes: {self.sizes[-1]} is above {key}, so that one update would take more"


class Registered(Section):
    seeds: Count
    long_arm_seeds: Count
    long_averages_seeds: Count


class Rules(Section):
    note_target: InnerFraction
    contest_target: InnerFraction
    contest_ratio: Positive
    after: Count
    equal_within: InnerFraction
    own_rate_gain: InnerFraction
    he_gain: InnerFraction
    warm_within: InnerFraction
    warm_from: Positive
    warm_to: Positive
    dip_from: InnerFraction
    dip_to: InnerFraction
    slow_decay: InnerFraction
    fast_decay: InnerFraction
    frozen_gain: InnerFraction
    frozen_after: Count
    useless: InnerFraction
    tolerance_target: InnerFraction
    tolerance_ratio: Positive
    judged_decays: Annotated[list[InnerFraction], allowed(ascending, "is not an ascending list of decays"), LISTED]

    def disagreements(self) -> Iterator[str]:
        for low, high in (("warm_from", "warm_to"), ("dip_from", "dip_to"), ("fast_decay", "slow_decay")):
            if getattr(self, low) >= getattr(self, high):
                yield f"{low}: {getattr(self, low):g} is not below {high}"


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


# What claims and pictures take the arms that they name for: the network, the rate, and whether it is ramped up.
NAMED_ARMS: dict[str, tuple[str, ArmRate, bool]] = {
    "note_plain": ("plain", "note", False),
    "plain_own_rate": ("plain", "own", False),
    "he": ("plain_he", "note", False),
    "he_ramp": ("plain_he", "note", True),
    "baseline": ("without", "own", False),
    "same_rate": ("hidden", "baseline", False),
    "own_rate": ("hidden", "own", False),
    "everywhere": ("everywhere", "own", False),
}
NEW_NETWORK = "`{}: {{normalization: none, initializer: he, rate: chosen}}` under `networks`"
NEW_ARM = "`{}: {{network: plain, rate: own, steps: 700}}` under `arms`"


class Params(Section):
    data: Data
    train: Train
    evaluation: Evaluation
    networks: Annotated[dict[Name, Network], NAMED]
    sweep: Sweep
    refine: Refine
    study: Study
    arms: Annotated[dict[Name, Arm], NAMED]
    averages: Averages
    long: Long
    mechanism: Mechanism
    tolerance: Tolerance
    batch: Batch
    registered: Registered
    rules: Rules
    plot: Plot
    runtime: Runtime

    def disagreements(self) -> Iterator[str]:
        for key, names, known, new in (
            ("sweep.networks", self.sweep.networks, self.networks, NEW_NETWORK),
            ("study.arms", self.study.arms, self.arms, NEW_ARM),
            ("long.arm", [self.long.arm], self.arms, NEW_ARM),
        ):
            for name in names:
                if name not in known:
                    meant = nearest(name, known) or f"; a new one is an entry {new.format(name)}"
                    yield f"{key}: {name} is not one of {', '.join(known)}{meant}"
        if AVERAGES_ARM in self.arms:
            yield f"arms.{AVERAGES_ARM}: is the name of the runs under `averages`"
        for name in {*get_args(Finalist)} & self.networks.keys():
            yield f"networks.{name}: is the name of a finalist"
        swept = {self.networks[name].kind() for name in self.sweep.networks if name in self.networks}
        for finalist in self.refine.finalists:
            if finalist not in swept:
                yield f"refine.finalists: {finalist} takes a network of that kind in sweep.networks"
        for name in (name for name in self.study.arms if name in self.arms):
            arm = self.arms[name]
            faults = list(self.cannot_resolve(f"arms.{name}", arm))
            its = arm.network, arm.rate, bool(arm.ramp_steps)
            if not faults and its != NAMED_ARMS.get(name, its):
                network, rate, ramped = NAMED_ARMS[name]
                taken = f"network {network} at the rate {rate}, {'with' if ramped else 'without'} ramp_steps"
                faults = [f"arms.{name}: claims take it for {taken}; give another arm a name of its own"]
            yield from faults
        yield from self.cannot_resolve("averages", self.averages)
        finalists = {{"hidden": "with", "everywhere": "with"}.get(name, name) for name in self.refine.finalists}
        for key, contestants in (("tolerance", self.tolerance.contestants), ("batch", self.batch.contestants)):
            for contestant in contestants:
                if contestant not in finalists:
                    takes = "without" if contestant == "without" else "hidden or everywhere"
                    yield f"{key}.contestants: {contestant} takes {takes} in refine.finalists"
        averaged = self.networks.get(self.averages.network)
        if averaged and averaged.normalization != "batch":
            yield f"averages.network: {self.averages.network} has no moving averages: its normalization is not batch"
        evaluated = min(self.averages.images, self.data.validation_size)
        if evaluated % 1000 == 1:  # see `engine.averages.evaluate_by_batch`
            yield f"averages.images: {evaluated} images in batches of 1000 leave one alone, which has no variance"
        tuning = {*self.sweep.seeds, *self.refine.seeds, *self.batch.tuning_seeds}
        for key, seeds, those in (
            ("long.arm_seeds", self.long.arm_seeds, self.study.seeds),
            ("long.averages_seeds", self.long.averages_seeds, self.study.seeds),
            ("mechanism.seeds", self.mechanism.seeds, self.study.seeds),
        ):
            if others := sorted(set(seeds) - set(those)):
                yield f"{key}: {short(others[0])} is not one of study.seeds"
        for key, seeds in (("study.seeds", self.study.seeds), ("batch.seeds", self.batch.seeds)):
            if both := sorted(tuning & set(seeds)):
                yield f"{key}: {both[0]} is a tuning seed: no run that chose a rate is judged"

    def cannot_resolve(self, key: str, arm: Arm | Averages) -> Iterator[str]:
        """Why an arm has no network or no rate, however the tuning ends."""
        known = [*self.refine.finalists, *self.networks]
        if arm.network not in known:
            yield f"{key}.network: {arm.network} is not one of {', '.join(known)}{nearest(arm.network, known)}"
        elif (
            arm.rate == "own"
            and arm.network in self.networks
            and arm.network not in self.sweep.networks
            and self.networks[arm.network].rate == "chosen"
        ):
            yield f"{key}.rate: own takes {arm.network} in sweep.networks, or a number as its rate"
        if arm.rate == "baseline" and "without" not in self.refine.finalists:
            yield f"{key}.rate: baseline takes without in refine.finalists"


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
