"""params.yaml and study/params.yaml: every key given a wrong value, and a file that is none, are refused in words."""

import argparse
import copy
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bnstudy import BadInput
from bnstudy.params import Name, Params, Section, Seed, argument, check, load, load_as
from bnstudy.study.params import Study
from conftest import ROOT

KeyPath = tuple[str, ...]
FILES: dict[str, tuple[type[Section], dict[str, Any]]] = {
    name: (kind, load_yaml(ROOT / name)) for name, kind in (("params.yaml", Params), ("study/params.yaml", Study))
}
NOTE, STUDY = (tree for _, tree in FILES.values())
OPTIONAL = {"ramp_steps", "standardize", "other_starts", "target"}
NAMED = {
    *NOTE["models"],
    *STUDY["arms"],
    *STUDY["averages"],
    *STUDY["long"]["arms"],
    *STUDY["sweep"],
}  # by whoever wrote


def key_paths(tree: Any, above: KeyPath = ()) -> Iterator[KeyPath]:
    for key, value in tree.items() if isinstance(tree, dict) else ():
        yield (*above, key)
        yield from key_paths(value, (*above, key))


KEYS = [(name, path) for name, (_, tree) in FILES.items() for path in key_paths(tree)]


def changed(name: str, path: KeyPath, *value: Any) -> dict[str, Any]:
    """A file with another value for a key, or without the key."""
    tree = copy.deepcopy(FILES[name][1])
    at = reduce(getitem, path[:-1], tree)
    del at[path[-1]]
    if value:
        at[path[-1]] = value[0]
    return tree


def message(name: str, tree: object) -> str:
    """What is said to a file that is refused."""
    with pytest.raises(BadInput) as refused:
        check(FILES[name][0], tree, Path(name))
    return str(refused.value).removeprefix(f"{name}:").lstrip()


@pytest.mark.parametrize("name", FILES)
def test_the_committed_file_is_taken_and_frozen(name: str) -> None:
    params = load_as(FILES[name][0], ROOT / name)
    assert params.model_dump(exclude_none=True) == FILES[name][1]
    with pytest.raises(ValueError, match="frozen"):
        params.seeds = []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("data.source", "mnits", "'mnits' is not 'mnist', 'fashion_mnist', 'kmnist' or 'sample'"),
        ("data.validation_size", 60000, "60000 is not below 60000"),
        ("models", {}, "{} is not one or more models"),
        ("models.Plain", {}, "'Plain' is not lower-case letters, digits and _"),
        ("models.batch_norm.normalization", "bach", "'bach' is not 'none', 'batch', 'layer' or 'group'"),
        ("models.batch_norm.decay", 1.5, "1.5 is not less than or equal to 1"),
        ("models.batch_norm.epsilon", 0, "0 is not greater than 0"),
        ("models.batch_norm.epsilon", "1e-3", "'1e-3' is not a valid number"),
        ("models.plain.decay", 0.9, "is not used with normalization none"),
        ("models.plain.initialiser", "he", "is not a known key; did you mean initializer?"),
        ("train", None, "None is not a section of keys"),
        ("train.step", 5, "is not a known key; did you mean steps?"),
        ("train.steps", 0, "0 is not greater than or equal to 1"),
        ("train.steps", True, "True is not a valid integer"),
        ("train.batch_size", 1, "1 is not greater than or equal to 2"),
        ("train.optimizer.momentum", 0.9, "is not used with adagrad"),
        ("train.optimizer.initial_accumulator", 1e38, f"1e+38 is not less than {10**38}"),
        ("train.learning_rate.initial", float("inf"), "inf is not a finite number"),
        ("train.learning_rate.decay_rate", 0.0, "0.0 is not greater than 0"),
        ("train.keep_prob", float("nan"), "nan is not a finite number"),
        ("train.evaluations_per_decade", 101, "101 is not less than or equal to 100"),
        ("plot.width", 1, "1 is not greater than or equal to 2"),
        ("runtime.device", "gpu", "'gpu' is not auto, cpu, cuda, cuda:N or mps"),
        ("runtime.deterministic", 1, "1 is not a valid boolean"),
        ("runtime.threads", "auto", "'auto' is not a whole number from 1 to 1024 or the word all"),
        ("runtime.mirrors", ["http://x.org/"], "'http://x.org/' is not https://…, file:///… or http:// on loopback"),
        ("runtime.launch.cpus", 0, "0 is not a number above 0 or the word auto"),
        ("seeds", [], "[] is not a list of one or more different seeds"),
        ("seeds", [1, 1], "[1, 1] is not a list of one or more different seeds"),
        ("seeds", 10, "10 is not a valid list"),
        # study/params.yaml
        ("study: evaluation.fine.start", 500, "500 is not below end, 500"),
        ("study: evaluation.moments", [200, 100], "[200, 100] is not an ascending list of updates"),
        ("study: arms.he.learning_rate", [0.1], "[0.1] is not a valid number"),
        ("study: arms.standardized", STUDY["arms"]["he"], "is named twice under arms, averages and long"),
        ("study: averages.standardized.decays", [0.9, 0.5], "[0.9, 0.5] is not an ascending list of decays"),
        ("study: averages.standardized.ages", [[2.0, 1.0, 0.1]], "[2.0, 1.0, 0.1] is not [first, last, step]"),
        ("study: averages.note_batch_norm.other_starts.decays", [0.97], "0.97 is not one of decays"),
        ("study: mechanism.seeds", [23], "23 is not one of seeds"),
        ("study: seeds", [21], "21 is not one of registered"),
        ("study: entries", ["all"], "all is not one of sweep"),
        ("study: entries", ["plain", "plain"], "['plain', 'plain'] is not a list of different names"),
        ("study: sweep.tuning_baseline.target", 98, "98 is not less than 1"),
        ("study: rules.note.belo", 1.0, "is not a known key; did you mean below?"),
    ],
)
def test_one_line_names_key_value_and_what_is_allowed(path: str, value: Any, says: str) -> None:
    name = "study/params.yaml" if path.startswith("study: ") else "params.yaml"
    path = path.removeprefix("study: ")
    keys = tuple(path.split("."))
    tree = copy.deepcopy(FILES[name][1])
    reduce(getitem, keys[:-1], tree)[keys[-1]] = value
    lines = message(name, tree).splitlines()
    assert any(re.fullmatch(rf"{re.escape(path)}(\.\d+)?: {re.escape(says)}", line) for line in lines)


@pytest.mark.parametrize("file", FILES)
def test_every_key_is_needed(file: str) -> None:
    for path in (path for name, path in KEYS if name == file and path[-1] not in OPTIONAL | NAMED):
        key = re.escape(".".join(path))
        assert re.search(rf"^{key}: is missing", message(file, changed(file, path)), re.MULTILINE)


def test_all_faults_are_told_in_one_go() -> None:
    tree = changed("params.yaml", ("plot", "width"))
    tree["models"]["plain"] |= {"normalization": "group", "groups": 3}
    assert message("params.yaml", tree).splitlines() == [
        "models.plain.epsilon: is missing with normalization group",
        *(f"models.plain.groups: 3 does not divide the {n} channels of a layer" for n in (16, 32, 1024)),
        "plot.width: is missing",
    ]


@pytest.mark.parametrize("model", ["../x", "/x", "a b", "é", "A", "", "x" * 65, "-x", "a;b", "$(id)", "a\n"])
def test_a_name_cannot_leave_the_project_or_reach_a_shell(model: str) -> None:
    tree = NOTE | {"models": {model: NOTE["models"]["plain"]}}
    assert "is not lower-case letters, digits and _" in message("params.yaml", tree)


def test_a_command_line_is_refused_as_the_file_is() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"^'X!' is not lower-case letters, digits and _$"):
        argument(Name)("X!")
    assert argument(Seed)("7") == 7


TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TEXT.replace("  keep_prob", "  keep_prob: 0.8\n  keep_prob"), 'found duplicate key "keep_prob"'),
        (TEXT.replace("  steps", "\tsteps"), "that cannot start any token"),
        ("", "the file: None is not a section of keys"),
        ("[]", "the file: [] is not a section of keys"),
        *((text, "cannot be read: ") for text in ("a: [", "\x00", "train: *x", "!!python/object:os.system {}")),
    ],
)
def test_a_file_that_is_no_params_file(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(BadInput, match=re.escape(says)):
        load(tmp_path / "params.yaml")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"cannot be read: .*No such file"):
        load_as(FILES[name][0], tmp_path / name)


@settings(max_examples=20)
@given(written=st.from_regex(r"[-+]?[0-9][0-9_.:]{0,4}[0-9]([eE][-+]?[0-9]{1,2})?", fullmatch=True))
@example(written="1e-3")  # text to YAML 1.1
@example(written="1e-05")  # as `dvc exp run -S models.batch_norm.epsilon=0.00001` writes it
@example(written="010")  # 8 in YAML 1.1
@example(written="1:30")  # 90 in YAML 1.1
def test_a_number_is_what_dvc_reads(tmp_path_factory: pytest.TempPathFactory, written: str) -> None:
    file = tmp_path_factory.mktemp("number") / "params.yaml"
    file.write_text(TEXT.replace("epsilon: 0.001", f"epsilon: {written}"))
    to_dvc = load_yaml(file)["models"]["batch_norm"]["epsilon"]
    if isinstance(to_dvc, float | int) and 0 < to_dvc < float("inf"):
        assert load(file).models["batch_norm"].epsilon == to_dvc
    else:
        with pytest.raises(BadInput, match=r"models\.batch_norm\.epsilon: .* is not "):
            load(file)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(key=st.sampled_from(KEYS), value=JUNK)
def test_junk_anywhere_is_taken_or_refused_in_words(key: tuple[str, KeyPath], value: object) -> None:
    name, path = key
    with suppress(BadInput):
        check(FILES[name][0], changed(name, path, value), Path(name))


@given(junk=st.binary(max_size=60) | JUNK.map(lambda value: yaml.safe_dump(value).encode()))
def test_a_file_of_junk_is_refused_in_words(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    file = tmp_path_factory.mktemp("junk") / "params.yaml"
    file.write_bytes(junk)
    for kind, _ in FILES.values():
        with pytest.raises(BadInput):
            load_as(kind, file)


def test_every_key_is_set_in_a_line_of_its_own(tmp_path: Path) -> None:
    """By what `dvc exp run -S` calls."""
    (tmp_path / "params.yaml").write_text(TEXT)
    values: dict[str, Any] = {
        ".".join(path): reduce(getitem, path, NOTE) for name, path in KEYS if name == "params.yaml"
    }
    overrides = [f"{key}={value / 2}" for key, value in values.items() if type(value) in (int, float)]
    apply_overrides(tmp_path / "params.yaml", [*overrides, "seeds=[7,8,9]"])
    pairs = zip(TEXT.splitlines(), (tmp_path / "params.yaml").read_text().splitlines(), strict=True)
    assert sum(before != after for before, after in pairs) == len(overrides) + 3
