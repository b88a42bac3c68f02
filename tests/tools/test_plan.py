"""The plan beside what DVC then runs, on a small made-up pipeline; `test_pipeline` does so on the study."""

import json
import re
import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo
from hypothesis import given
from hypothesis import strategies as st

import plan
from conftest import run
from plan import MAY, RESTORE, RUN, Plan, Step

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # in DVC

# `first` copies a parameter, `sign` only its sign, so that `last` has nothing to do where the sign stays.
PIPELINE = """\
stages:
  first:
    matrix: {which: [a, b]}
    cmd: python work/copy.py ${item.which} > first_${item.which}
    params: ["numbers.${item.which}"]
    deps: [work]
    outs: ["first_${item.which}"]
  sign:
    cmd: cat first_a first_b | tr -d 0-9 > signs
    deps: [first_a, first_b]
    outs: [signs]
  last:
    cmd: cp signs last
    deps: [signs]
    params: [other]
    metrics: [{last: {cache: false}}]
"""
COPY = """\
import sys
print({line.split(":")[0].strip(): line.split(":")[1] for line in open("params.yaml")}[sys.argv[1]])
"""
PARAMS = "numbers:\n  a: 1\n  b: 2\nother: 3\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline before its first run."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "work").mkdir()
    (folder / "work/copy.py").write_text(COPY)
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "params.yaml").write_text(PARAMS)
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "config", "core.analytics", "false")
    return folder


@pytest.fixture(scope="module")
def reproduced(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reproduced") / "made"
    shutil.copytree(made, folder)
    run(folder, "dvc", "repro")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "made")
    return folder


@pytest.fixture
def here(reproduced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the reproduced pipeline, and the working folder."""
    folder = Path(shutil.copytree(reproduced, tmp_path / "made"))
    monkeypatch.chdir(folder)
    return folder


def planned(folder: Path) -> Plan:
    with Repo(folder) as repo:
        return plan.plan(repo)


def actions(found: Plan) -> dict[str, str]:
    return {step.stage: step.action for step in found.steps}


def repro(folder: Path, *options: str) -> tuple[set[str], set[str]]:
    """What `dvc repro` runs, and what it restores."""
    out = run(folder, "dvc", "repro", *options).stdout
    ran = set(re.findall(r"^Running stage '(.+)':", out, re.MULTILINE))
    return ran, set(re.findall(r"^Stage '(.+)' is cached", out, re.MULTILINE))


def test_nothing_was_ever_run(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    found = planned(made)
    assert actions(found) == dict.fromkeys(["first@a", "first@b", "sign", "last"], RUN)
    assert plan.told(found) == ["not in dvc.lock: new, or never run", "  will run  first (all 2), sign, last"]


def test_a_changed_parameter_then_back(here: Path) -> None:
    assert plan.told(planned(here))[0].startswith("nothing to run")
    (here / "params.yaml").write_text(PARAMS.replace("1", "-1"))
    found = planned(here)
    assert plan.told(found) == [
        "numbers.a: 1 → -1",
        "  will run  first@a",
        "what reads the outputs of these, where they come out different",
        "  may run   sign, last",
    ]
    assert repro(here) == ({"first@a", "sign", "last"}, set())
    (here / "params.yaml").write_text(PARAMS)
    found = planned(here)
    assert actions(found) == {"first@a": RESTORE, "sign": MAY, "last": MAY}
    assert plan.told(found)[1].split() == ["restores", "first@a", "from", "the", "run", "cache"]
    assert repro(here) == (set(), {"first@a", "sign", "last"})


def test_the_same_bytes_stop_the_chain(here: Path) -> None:
    (here / "params.yaml").write_text(PARAMS.replace("1", "7").replace("3", "4"))
    assert actions(planned(here)) == {"first@a": RUN, "sign": MAY, "last": RUN}
    (here / "params.yaml").write_text(PARAMS.replace("1", "7"))
    assert actions(planned(here)) == {"first@a": RUN, "sign": MAY, "last": MAY}
    assert repro(here) == ({"first@a", "sign"}, set())


def test_code_a_command_an_output_and_a_new_stage(here: Path) -> None:
    (here / "work/copy.py").write_text(f"{COPY}\n")
    (here / "last").write_text("by hand")
    text = PIPELINE.replace("cat first_a first_b", "cat first_[ab]").replace("[a, b]", "[a, b, c]")
    (here / "dvc.yaml").write_text(text)
    (here / "params.yaml").write_text(PARAMS.replace("  b: 2\n", "  b: 2\n  c: 5\n"))
    reasons = {step.stage: step.reasons for step in planned(here).steps}
    assert reasons == {
        "first@a": ("work modified (copy.py)",),
        "first@b": ("work modified (copy.py)",),
        "first@c": ("not in dvc.lock: new, or never run",),
        "sign": ("another command",),
        "last": ("last is not what the stage wrote",),
    }


def test_outputs_that_only_the_cache_has(here: Path) -> None:
    (here / "first_a").unlink()
    found = planned(here)
    assert actions(found) == {"first@a": RESTORE}
    assert found.missing == []
    assert repro(here) == (set(), {"first@a"})


def test_a_fresh_clone(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, "git", "clone", "--quiet", str(here), "clone")
    clone = tmp_path / "clone"
    monkeypatch.chdir(clone)
    found = planned(clone)
    assert found.steps == []
    assert plan.told(found) == [
        "4 stages with results that are not here, since they are not in git:",
        "  first (all 2), sign, last",
        "  `dvc repro` makes them again; `dvc repro --allow-missing` does not",
    ]
    (clone / "params.yaml").write_text(PARAMS.replace("3", "4"))
    found = planned(clone)
    assert actions(found) == {"last": RUN}
    assert found.first == ["sign"]
    assert plan.told(found)[-2].startswith("  but what will run reads these")
    assert plan.told(found)[-1] == "    sign"
    assert repro(clone, "sign") == ({"first@a", "first@b", "sign"}, set())
    assert repro(clone, "--allow-missing") == ({"last"}, set())


def test_times_are_those_of_earlier_logs(tmp_path: Path) -> None:
    for name, seconds in {"a/0": 100.0, "a/1": 500.0, "b/0": 600.0}.items():
        log = tmp_path / "train" / f"{name}.json"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(json.dumps({"seconds": seconds}))
    commands = {f"train@a-{n}": f"python src/train.py a {n}" for n in range(6)} | {"last": "cp signs last"}
    found = Plan([], [], [], commands)
    assert plan.duration([*commands], found, tmp_path) == "50 min by earlier logs"
    assert plan.duration(["last"], found, tmp_path) == ""


NAMES = st.lists(st.from_regex(r"[a-z_]{1,12}(@[a-z_0-9.-]{1,15})?", fullmatch=True), unique=True, max_size=90)


@given(stages=NAMES, data=st.data())
def test_it_fits_a_terminal(stages: list[str], data: st.DataObject) -> None:
    reasons = st.lists(st.text("ab →\n", min_size=1, max_size=150), min_size=1, max_size=6).map(tuple)
    actions = st.sampled_from([RUN, RESTORE, MAY])
    steps = [Step(name, data.draw(actions), data.draw(reasons)) for name in stages[::2]]
    lines = plan.told(Plan(steps, stages[1::2], stages[1::2], dict.fromkeys(stages, "cmd")), Path("nowhere"))
    assert 0 < len(lines) <= plan.LINES
    assert max(map(len, lines)) <= plan.WIDTH


def test_while_another_dvc_is_at_work(here: Path) -> None:
    with Repo(here) as repo, repo.lock:
        done = run(here, "python", str(Path(plan.__file__)), check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: another DVC is at work")


def test_outside_a_repository_of_dvc(tmp_path: Path) -> None:
    done = run(tmp_path, "python", str(Path(plan.__file__)), check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: DVC says: ")
