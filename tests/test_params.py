"""params.yaml: every key given every kind of wrong value gets a clear message; `dvc exp run -S` changes one line."""

import argparse
import copy
import re
from collections.abc import Callable, Iterator
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
from bnstudy.params import Name, Network, Seed, argument, load
from conftest import ROOT, run

COMMITTED: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
NETWORKS = ", ".join(COMMITTED["networks"])

KeyPath = tuple[str, ...]


def key_paths(tree: dict[str, Any], above: KeyPath = ()) -> Iterator[KeyPath]:
    for key, value in tree.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from key_paths(value, (*above, key))


PATHS = list(key_paths(COMMITTED))
# These map names of the reader's own choosing; a ramp is optional.
FREE = {path for path in PATHS if len(path) == 2 and path[0] in ("networks", "arms")} | {
    ("arms", "he_ramp", "ramp_steps")
}


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
    file.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree, sort_keys=False))
    with pytest.raises(BadInput) as refused:
        load(file)
    return str(refused.value).removeprefix(f"{file}: ").removeprefix(f"{file}:\n")


def test_the_committed_file_is_valid_and_frozen() -> None:
    params = load(ROOT / "params.yaml")
    assert params.model_dump(exclude_none=True).keys() == COMMITTED.keys()
    with pytest.raises(ValueError, match="frozen"):
        params.train.decay = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("train.decay", 1.5, "train.decay: 1.5 is not less than or equal to 1"),
        ("train.epsilon", 0, "train.epsilon: 0 is not greater than 0"),
        ("networks.plain.groups", 4, "networks.plain.groups: is not used with normalization none"),
        (
            "networks.plain.normalization",
            "group",
            "\n".join(
                f"networks.plain.{key}: is missing with normalization group" for key in ("normalize_logits", "groups")
            ),
        ),
        (
            "networks.plain.normalization",
            "bach",
            "networks.plain.normalization: 'bach' is not 'none', 'batch', 'layer' or 'group'",
        ),
        ("train.batch_size", 1, "train.batch_size: 1 is not greater than or equal to 2"),
        ("sweep.steps", 1.5, "sweep.steps: 1.5 is not a valid integer"),
        ("sweep.steps", True, "sweep.steps: True is not a valid integer"),
        ("train.keep_prob", float("nan"), "train.keep_prob: nan is not a finite number"),
        ("train.learning_rate.initial", float("inf"), "train.learning_rate.initial: inf is not a finite number"),
        ("train.learning_rate.initial", -0.1, "train.learning_rate.initial: -0.1 is not greater than 0"),
        ("train.learning_rate.ramp_steps", -1, "train.learning_rate.ramp_steps: -1 is not greater than or equal to 0"),
        ("train.decai", 5, "train.decai: is not a known key; did you mean decay?"),
        (
            "train.learning_rate.decay_step",
            5,
            "train.learning_rate.decay_step: is not a known key; did you mean decay_steps?",
        ),
        (
            "networks.plain.initialiser",
            "he",
            "networks.plain.initialiser: is not a known key; did you mean initializer?",
        ),
        ("trian", {}, "trian: is not a known key; did you mean train?"),
        ("study.seeds", [], "study.seeds: [] is not a list of one or more different seeds"),
        ("study.seeds", [1, 1], "study.seeds: [1, 1] is not a list of one or more different seeds"),
        ("study.seeds", [-1], "study.seeds.0: -1 is not greater than or equal to 0"),
        ("batch.seeds", [10, 101], "batch.seeds: 101 is a tuning seed: no run that chose a rate is judged"),
        ("long.arm_seeds", [3], "long.arm_seeds: 3 is not one of study.seeds"),
        (
            "arms.note_batch_norm",
            {"network": "plain", "rate": "own", "steps": 5},
            "arms.note_batch_norm: is the name of the runs under `averages`",
        ),
        (
            "networks.without",
            {"normalization": "none", "initializer": "he", "rate": 0.1},
            "networks.without: is the name of a finalist",
        ),
        (
            "sweep.networks",
            ["plain", "batch_norm_hidden", "batch_norm", "plan"],
            f"sweep.networks: plan is not one of {NETWORKS}; did you mean plain?",
        ),
        (
            "arms.he.network",
            "plane",
            f"arms.he.network: plane is not one of without, hidden, everywhere, {NETWORKS}; did you mean plain?",
        ),
        (
            "arms.same_rate.rate",
            "own",
            "arms.same_rate: claims take it for network hidden at the rate baseline, without ramp_steps; "
            "give another arm a name of its own",
        ),
        (
            "arms.he_ramp.ramp_steps",
            None,
            "arms.he_ramp: claims take it for network plain_he at the rate note, with ramp_steps; "
            "give another arm a name of its own",
        ),
        ("arms.he.rate", "ours", "arms.he.rate: 'ours' is not a rate above 0 or note, own or baseline"),
        ("networks.plain.rate", "own", "networks.plain.rate: 'own' is not a rate above 0 or the word chosen"),
        ("networks.plain.rate", None, "networks.plain.rate: None is not a rate above 0 or the word chosen"),
        (
            "averages.network",
            "plain",
            "averages.network: plain has no moving averages: its normalization is not batch",
        ),
        (
            "refine.finalists",
            ["hidden", "everywhere"],
            "\n".join(
                [
                    f"arms.baseline.network: without is not one of hidden, everywhere, {NETWORKS}",
                    "arms.same_rate.rate: baseline takes without in refine.finalists",
                    "tolerance.contestants: without takes without in refine.finalists",
                    "batch.contestants: without takes without in refine.finalists",
                ]
            ),
        ),
        ("rules.warm_from", 6.0, "rules.warm_from: 6 is not below warm_to"),
        ("batch.images", 1000, "batch.sizes: 1024 is above images, so that one update would take more"),
        ("batch.tuning_images", 1000, "batch.sizes: 1024 is above tuning_images, so that one update would take more"),
        (
            "data.validation_size",
            1,
            "averages.images: 1 images in batches of 1000 leave one alone, which has no variance",
        ),
        (
            "averages.images",
            2001,
            "averages.images: 2001 images in batches of 1000 leave one alone, which has no variance",
        ),
        (
            "evaluation.moments",
            [200, 100],
            "evaluation.moments: [200, 100] is not an ascending list of updates",
        ),
        ("data.validation_size", 60000, "data.validation_size: 60000 is not below 60000"),
        ("runtime.device", "gpu", "runtime.device: 'gpu' is not auto, cpu, cuda, cuda:N or mps"),
        (
            "runtime.mirrors",
            ["http://example.org/mnist/"],
            "runtime.mirrors.0: 'http://example.org/mnist/' is not https://…, file:///… or http:// on loopback",
        ),
        ("runtime.threads", 0, "runtime.threads: 0 is not a whole number from 1 to 1024 or the word all"),
        ("runtime.threads", "auto", "runtime.threads: 'auto' is not a whole number from 1 to 1024 or the word all"),
        (
            "runtime.checkpoint_every",
            True,
            "runtime.checkpoint_every: True is not a whole number above 0 or the word auto",
        ),
        ("runtime.memory_fraction", None, "runtime.memory_fraction: None is not a valid number"),
        ("sweep.learning_rates", [1, 2.5], "sweep.learning_rates.0: 1 is not written as a decimal, like 1.0"),
        ("train", None, "train: None is not a section of keys"),
    ],
)
def test_one_message_names_key_value_and_what_is_allowed(tmp_path: Path, path: str, value: Any, says: str) -> None:
    assert message(tmp_path, changed(tuple(path.split(".")), value)) == says


def test_a_command_line_is_refused_as_the_file_is() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"^'X!' is not lower-case letters, digits and _$"):
        argument(Name)("X!")
    assert argument(Seed)("7") == 7


@pytest.mark.parametrize("name", ["../x", "/x", "a b", "é", "A", "", "x" * 65, "-x", "a;b", "$(id)"])
def test_a_name_cannot_leave_the_project_or_reach_a_shell(tmp_path: Path, name: str) -> None:
    tree = changed(("networks", name), COMMITTED["networks"]["plain"])
    assert "is not lower-case letters, digits and _" in message(tmp_path, tree)


def test_all_faults_are_told_in_one_go(tmp_path: Path) -> None:
    tree = changed(("train", "batch_size"), 0)
    tree["networks"]["plain"] |= {"normalize_logits": True, "groups": 2}
    tree["data"]["validation_size"] = 60_000
    del tree["plot"]["width"]
    assert message(tmp_path, tree).splitlines() == [
        "data.validation_size: 60000 is not below 60000",
        "train.batch_size: 0 is not greater than or equal to 2",
        "networks.plain.normalize_logits: is not used with normalization none",
        "networks.plain.groups: is not used with normalization none",
        "plot.width: is missing",
    ]


def test_groups_divide_the_channels_of_every_layer(tmp_path: Path) -> None:
    group = {"normalization": "group", "initializer": "he", "normalize_logits": True, "rate": 0.1}
    tree = changed(("networks", "plain"), group | {"groups": 3})
    assert message(tmp_path, tree).splitlines() == [
        f"networks.plain.groups: 3 does not divide the {n} channels of a layer" for n in (16, 32, 1024, 10)
    ]
    Network.model_validate(group | {"groups": 2})
    Network.model_validate(group | {"groups": 16, "normalize_logits": False})


WITH_A_NUMBER = yaml.safe_dump(changed(("networks", "plain", "rate"), "NUMBER"))


@settings(max_examples=20)
@given(written=st.from_regex(r"[-+]?[0-9][0-9_.:]{0,4}[0-9]([eE][-+]?[0-9]{1,2})?", fullmatch=True))
@example(written="1e-3")  # text to YAML 1.1
@example(written="1e-05")  # as `dvc exp run -S networks.plain.rate=0.00001` writes it
@example(written="010")  # 8 in YAML 1.1
@example(written="1:30")  # 90 in YAML 1.1
def test_a_number_is_what_dvc_reads(tmp_path_factory: pytest.TempPathFactory, written: str) -> None:
    file = tmp_path_factory.mktemp("number") / "params.yaml"
    file.write_text(WITH_A_NUMBER.replace("NUMBER", written))
    to_dvc = load_yaml(file)["networks"]["plain"]["rate"]
    if isinstance(to_dvc, float | int) and 0 < to_dvc < float("inf"):
        assert load(file).networks["plain"].rate == to_dvc
    else:
        with pytest.raises(BadInput, match=r"networks\.plain\.rate: .* is not a rate above 0"):
            load(file)


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    lines = (ROOT / "params.yaml").read_text().splitlines()
    line = next(i for i, text in enumerate(lines) if text.startswith("  keep_prob:"))
    text = "\n".join([*lines[: line + 1], "  keep_prob: 0.8", *lines[line + 1 :]])
    assert message(tmp_path, text).startswith(f'cannot be read: line {line + 2}: found duplicate key "keep_prob"')


@pytest.mark.parametrize("text", ["", "[]", "a: [", "\x00", "- " * 9, "train: *x", "!!python/object:os.system {}"])
def test_a_file_that_is_no_params_file(tmp_path: Path, text: str) -> None:
    assert message(tmp_path, text)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        load(tmp_path / "params.yaml")


@pytest.mark.parametrize("path", [path for path in PATHS if path not in FREE], ids=".".join)
def test_every_key_is_needed(tmp_path: Path, path: KeyPath) -> None:
    tree = copy.deepcopy(COMMITTED)
    at = tree
    for key in path[:-1]:
        at = at[key]
    del at[path[-1]]
    assert re.search(rf"^{re.escape('.'.join(path))}: is missing", message(tmp_path, tree), re.MULTILINE)


@pytest.mark.parametrize("path", [("study", "arms"), ("sweep", "networks")], ids=".".join)
def test_a_new_name_comes_with_the_entry_that_it_takes(tmp_path: Path, path: KeyPath) -> None:
    tree = changed(path, [*COMMITTED[path[0]][path[1]], "of_mine"])
    entry = re.search("a new one is an entry `(of_mine: .*)` under `([a-z]+)`", message(tmp_path, tree))
    assert entry
    tree[entry[2]] |= yaml.safe_load(entry[1])
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    load(tmp_path / "params.yaml")


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


def test_an_experiment_changes_one_line_for_each_key_that_it_sets(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "dvc.yaml").write_text("stages: {copy: {cmd: cp params.yaml copy, params: [data], outs: [copy]}}\n")
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "dvc", "init", "--quiet")
    run(tmp_path, "dvc", "config", "core.analytics", "false")
    run(tmp_path, "git", "add", "--all")
    run(tmp_path, "git", "commit", "--quiet", "--message", "start")
    run(tmp_path, "dvc", "exp", "run", "-S", "batch.tuning_seeds=[100,102]", "-S", "train.decay=0.99")
    assert run(tmp_path, "git", "diff", "--numstat", "params.yaml").stdout == "2\t2\tparams.yaml\n"


def test_every_key_is_set_in_a_line_of_its_own(tmp_path: Path) -> None:
    """By what `dvc exp run -S` calls."""
    new: dict[type, Callable[[Any], Any]] = {
        bool: lambda value: str(not value).lower(),
        int: lambda value: value + 7,
        float: lambda value: value / 2 + 0.125,
        str: lambda _: "other",
        list: lambda value: [*value[:-1], 77],
    }
    file, overrides = tmp_path / "params.yaml", []
    file.write_bytes((ROOT / "params.yaml").read_bytes())
    for path in PATHS:
        value = reduce(getitem, path, COMMITTED)
        if not isinstance(value, dict) and value != []:  # an empty list becomes two lines
            overrides.append(f"{'.'.join(path)}={new[type(value)](value)}")
    apply_overrides(file, overrides)
    pairs = list(zip((ROOT / "params.yaml").read_text().splitlines(), file.read_text().splitlines(), strict=True))
    assert sum(before != after for before, after in pairs) == len(overrides)
