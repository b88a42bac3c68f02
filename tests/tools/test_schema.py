"""params.schema.json beside what `bnstudy.params` takes and refuses."""

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import schema
from bnstudy import BadInput
from bnstudy.params import load
from conftest import ROOT
from test_params import COMMITTED, JUNK, PATHS, changed

WRITTEN = json.loads((ROOT / "params.schema.json").read_text())
EDITOR = jsonschema.Draft202012Validator(WRITTEN)


def test_it_is_that_of_the_models_and_the_comments() -> None:
    assert schema.schema((ROOT / "params.yaml").read_text()) == WRITTEN, "run: python tools/schema.py"


def test_it_is_a_schema_and_takes_the_committed_file_which_names_it() -> None:
    EDITOR.check_schema(WRITTEN)
    EDITOR.validate(COMMITTED)
    first, *_ = (ROOT / "params.yaml").read_text().splitlines()
    assert first == f"# yaml-language-server: $schema={schema.SCHEMA}"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("train.decay", 1.5),
        ("train.epsilon", 0),
        ("train.keep_prob", 0),
        ("train.batch_size", 60_001),
        ("train.learning_rate.decay_step", 5),
        ("evaluation.moments", []),
        ("networks.plain.normalization", "bach"),
        ("networks.plain.initialiser", "he"),
        ("networks.plain.rate", "own"),
        ("networks.Plain", COMMITTED["networks"]["plain"]),
        ("sweep.steps", 0),
        ("sweep.steps", 1.5),
        ("refine.target", 1),
        ("refine.finalists", ["with"]),
        ("study.seeds", []),
        ("study.seeds", [1, 1]),
        ("study.seeds", [2**31]),
        ("study.arms", ["../x"]),
        ("arms.he.rate", "chosen"),
        ("arms.he.step", 5),
        ("runtime.device", "gpu"),
        ("runtime.mirrors", ["http://example.org/mnist/"]),
        ("runtime.threads", "auto"),
        ("plot.width", 21),
    ],
)
def test_an_editor_underlines_what_is_out_of_range(path: str, value: Any) -> None:
    assert not EDITOR.is_valid(changed(tuple(path.split(".")), value))


@given(path=st.sampled_from(PATHS), value=JUNK)
def test_an_editor_underlines_nothing_that_is_taken(
    tmp_path_factory: pytest.TempPathFactory, path: tuple[str, ...], value: Any
) -> None:
    tree = changed(path, value)
    file = tmp_path_factory.mktemp("junk") / "params.yaml"
    file.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    try:
        load(file)
    except BadInput:
        return
    EDITOR.validate(tree)


def test_a_comment_is_found_behind_its_key_or_above_it() -> None:
    text = """\
# the file

# the section
a:
  b: 1    # behind
  # above, in
  # two lines
  c:
  - 1
  d: "#5"
e: 2
"""
    assert schema.comments(text) == {("a",): "the section", ("a", "b"): "behind", ("a", "c"): "above, in two lines"}


@pytest.mark.parametrize("path", ["train.keep_prob", "runtime.device", "data.validation_size"])
def test_an_editor_says_what_a_key_means(path: str) -> None:
    section, key = path.split(".")
    held = WRITTEN["$defs"][WRITTEN["properties"][section]["$ref"].removeprefix("#/$defs/")]["properties"][key]
    assert len(held["description"]) > 10


def test_it_is_written_where_it_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    schema.main()
    assert Path("params.schema.json").read_bytes() == (ROOT / "params.schema.json").read_bytes()
