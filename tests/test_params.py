"""Every key of params.yaml, given every kind of wrong value: one clear message, never a traceback."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bnstudy.params import BadInput, load

ROOT = Path(__file__).parent.parent
COMMITTED: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())

KeyPath = tuple[str, ...]


def key_paths(tree: dict[str, Any], above: KeyPath = ()) -> Iterator[KeyPath]:
    for key, value in tree.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from key_paths(value, (*above, key))


PATHS = list(key_paths(COMMITTED))
# `variants` maps names of the reader's own choosing: a key one level below may be any name.
FIXED = [path for path in PATHS if not (len(path) == 2 and path[0] == "variants")]


def changed(path: KeyPath, value: Any) -> dict[str, Any]:
    tree = copy.deepcopy(COMMITTED)
    at = tree
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return tree


def message(tmp_path: Path, tree: Any) -> str:
    """What `load` says to a file with `tree`; fails if it takes it."""
    file = tmp_path / "params.yaml"
    file.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    with pytest.raises(BadInput) as refused:
        load(file)
    return str(refused.value).removeprefix(f"{file}: ").removeprefix(f"{file}:\n")


def test_the_committed_file_is_valid_and_frozen() -> None:
    params = load(ROOT / "params.yaml")
    assert params.model_dump(exclude_none=True).keys() == COMMITTED.keys()
    with pytest.raises(ValueError, match="frozen"):
        params.train.steps = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("variants.batch_norm.decay", 1.5, "variants.batch_norm.decay: 1.5 is not in [0, 1]"),
        ("variants.batch_norm.epsilon", 0, "variants.batch_norm.epsilon: 0 is not above 0"),
        ("variants.plain.decay", 0.9, "variants.plain.decay: is not used with normalization none"),
        (
            "variants.plain.normalization",
            "batch",
            "variants.plain.normalize_logits: is missing with normalization batch",
        ),
        (
            "variants.plain.normalization",
            "bach",
            "variants.plain.normalization: 'bach' is not 'none', 'batch', 'layer' or 'group'",
        ),
        ("train.steps", 0, "train.steps: 0 is not a whole number of at least 1"),
        ("train.steps", 1.5, "train.steps: 1.5 is not a whole number"),
        ("train.steps", True, "train.steps: True is not a whole number"),
        ("train.keep_prob", float("nan"), "train.keep_prob: nan is not a finite number"),
        ("train.learning_rate.initial", float("inf"), "train.learning_rate.initial: inf is not a finite number"),
        ("train.learning_rate.initial", -0.1, "train.learning_rate.initial: -0.1 is not above 0"),
        ("train.stepz", 5, "train.stepz: is not a known key; did you mean steps?"),
        (
            "train.learning_rate.decay_step",
            5,
            "train.learning_rate.decay_step: is not a known key; did you mean decay_steps?",
        ),
        (
            "variants.plain.initialiser",
            "he",
            "variants.plain.initialiser: is not a known key; did you mean initializer?",
        ),
        ("trian", {}, "trian: is not a known key; did you mean train?"),
        ("study.seeds", [], "study.seeds: [] is not a list of one or more different seeds"),
        ("study.seeds", [1, 1], "study.seeds: [1, 1] is not a list of one or more different seeds"),
        ("study.seeds", [-1], "study.seeds.0: -1 is not a whole number in [0, 2147483648)"),
        (
            "study.variants",
            ["plain", "plane"],
            "study.variants: plane is not one of batch_norm, batch_norm_hidden, plain, plain_he; did you mean plain?",
        ),
        ("evaluate.targets", [0.97, 0.95], "evaluate.targets: [0.97, 0.95] is not an ascending list of fractions"),
        ("data.validation_size", 60000, "data.validation_size: 60000 is not below 60000"),
        ("runtime.device", "gpu", "runtime.device: 'gpu' is not auto, cpu, cuda, cuda:N or mps"),
        (
            "runtime.mirrors",
            ["http://example.org/mnist/"],
            "runtime.mirrors.0: 'http://example.org/mnist/' is not https://…, file:///… or http:// on loopback",
        ),
        ("rates.plain_e", 0.1, "rates.plain_e: is no variant; did you mean plain_he?"),
        ("sweep.learning_rates", [1, 2.5], "sweep.learning_rates.0: 1 is not written as a decimal, like 1.0"),
        ("train", None, "train: None is not a section of keys"),
    ],
)
def test_one_message_names_key_value_and_what_is_allowed(tmp_path: Path, path: str, value: Any, says: str) -> None:
    assert message(tmp_path, changed(tuple(path.split(".")), value)) == says


@pytest.mark.parametrize("name", ["../x", "/x", "a b", "é", "A", "", "x" * 65, "-x", "a;b", "$(id)"])
def test_a_variant_name_cannot_leave_the_project_or_reach_a_shell(tmp_path: Path, name: str) -> None:
    tree = changed(("variants", name), COMMITTED["variants"]["plain"])
    assert "is not lower-case letters, digits and _" in message(tmp_path, tree)


@pytest.mark.parametrize(
    ("key", "written"),
    [("train.learning_rate.initial", "1e-3"), ("train.steps", "2e3"), ("train.steps", "0100"), ("train.steps", "1:30")],
)
def test_a_number_that_yaml_reads_as_text_is_explained(tmp_path: Path, key: str, written: str) -> None:
    """Or that YAML 1.1, as PyYAML speaks it, reads as another number than YAML 1.2, as DVC does."""
    text = yaml.safe_dump(changed(tuple(key.split(".")), "WRITTEN")).replace("WRITTEN", written)
    assert message(tmp_path, text).startswith(f"{key}: '{written}' is text, not a number")


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text().replace("  keep_prob: 0.7", "  keep_prob: 0.7\n  keep_prob: 0.8")
    assert "the key 'keep_prob' stands twice" in message(tmp_path, text)


@pytest.mark.parametrize("text", ["", "[]", "a: [", "\x00", "- " * 9, "train: *x", "!!python/object:os.system {}"])
def test_a_file_that_is_no_params_file(tmp_path: Path, text: str) -> None:
    assert message(tmp_path, text)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        load(tmp_path / "params.yaml")


@pytest.mark.parametrize("path", FIXED, ids=".".join)
def test_every_key_is_needed(tmp_path: Path, path: KeyPath) -> None:
    tree = copy.deepcopy(COMMITTED)
    at = tree
    for key in path[:-1]:
        at = at[key]
    del at[path[-1]]
    assert re.search(rf"^{re.escape('.'.join(path))}: is missing", message(tmp_path, tree), re.MULTILINE)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(path=st.sampled_from(PATHS), value=JUNK)
def test_junk_anywhere_is_taken_or_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, path: KeyPath, value: Any
) -> None:
    file = tmp_path_factory.mktemp("junk") / "params.yaml"
    file.write_text(yaml.safe_dump(changed(path, value), allow_unicode=True), encoding="utf-8")
    try:
        load(file)
    except BadInput as refused:
        says = str(refused)
    else:
        return
    assert path[0] in says


@given(junk=st.binary(max_size=60))
def test_random_bytes_are_refused_in_words(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    file = tmp_path_factory.mktemp("junk") / "params.yaml"
    file.write_bytes(junk)
    with pytest.raises(BadInput):
        load(file)
