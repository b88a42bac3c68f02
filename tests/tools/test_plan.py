"""The plan beside what DVC then runs."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo

import plan
from conftest import ROOT, run
from plan import LACKS, MAY, RESTORE, RUN, Step
from toy import ALL, ARMS, EVALUATES, MECHANISM, NOTE, TRAINS, edit, repro

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # in DVC
BOTH = ("dvc.yaml", "study/dvc.yaml")
JUDGE = "study/dvc.yaml:judge"
TOOL = (sys.executable, str(ROOT / "tools/plan.py"))


def planned() -> list[Step]:
    """In the working folder."""
    with Repo() as repo:
        return plan.plan(repo)


def actions() -> dict[str, str]:
    return {step.stage: step.action for step in planned()}


def told() -> str:
    return "\n".join(plan.told(planned(), ALL))


def test_nothing_was_ever_run(unmade: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(unmade)
    assert actions() == dict.fromkeys(ALL, RUN)
    every = "fetch, prepare, train (all 2), evaluate (all 2), plot, study/train (all 4), study/mechanism (all 2),"
    assert told() == f"will run: {every}\nstudy/judge; time unknown\n    never run"


def test_an_arm_of_the_study_and_a_model_of_the_note_then_back(copy: Path) -> None:
    assert told().startswith("nothing to run")
    edit(copy, "arms.he.rate", 0.2, "study/params.yaml")
    edit(copy, "models.plain.initializer", "he")
    changed = [TRAINS[1], EVALUATES[1], "plot", *ARMS[2:]]  # all of which read the parameter themselves
    assert actions() == dict.fromkeys(changed, RUN) | dict.fromkeys([*MECHANISM, JUDGE], MAY)
    lines = told().splitlines()
    assert "    models.plain.initializer: truncated_normal -> he" in lines
    assert lines[lines.index("    arms.he.rate: 0.1 -> 0.2") - 1].startswith(
        "will run: study/train@he-22, study/train@he-23; "
    )
    assert lines[-1] == "    where what it reads comes out different"
    # The toys' trainings do not read their rate: the chain stops at them.
    assert repro(copy, *BOTH) == ({*changed}, set())
    edit(copy, "arms.he.rate", 0.1, "study/params.yaml")
    assert actions() == dict.fromkeys(ARMS[2:], RESTORE) | dict.fromkeys([*MECHANISM, JUDGE], MAY)
    assert repro(copy, *BOTH) == (set(), {*ARMS[2:]})


def test_code_a_command_an_output_and_a_seed(copy: Path) -> None:
    (copy / "src/bnstudy/engine/toy.py").write_text("ANSWER = 43\n")
    (copy / "study/metrics/claims.json").write_text("by hand")
    (copy / "dvc.yaml").write_text((copy / "dvc.yaml").read_text().replace("python src/plot", "python -B src/plot"))
    edit(copy, "seeds", [10, 11])
    why = {step.stage: step.why for step in planned() if step.action == RUN}
    engine, new = "src/bnstudy/engine modified", ["train@batch_norm-11", "train@plain-11"]
    new += [name.replace("train", "evaluate") for name in new]
    assert why == dict.fromkeys([*TRAINS, *EVALUATES, *ARMS, *MECHANISM], engine) | dict.fromkeys(new, "never run") | {
        "plot": "another command; seeds: [10] -> [10, 11]",
        JUDGE: "study/metrics/claims.json is not what it wrote",
    }


def test_outputs_that_only_the_cache_has(copy: Path) -> None:
    (copy / "study/runs/train/plain/22.csv").unlink()
    assert actions()[ARMS[0]] == RESTORE
    shutil.rmtree(copy / "models")
    shutil.rmtree(copy / ".dvc/cache/files/md5")
    found = actions()
    assert found[TRAINS[0]] == found[ARMS[0]] == LACKS
    assert "not here: " in told()
    assert "`make records` brings what was recorded" in told()


def test_times_are_those_of_earlier_runs(tmp_path: Path) -> None:
    for name, took in {"train/plain/0": 100.0, "train/plain/1": 500.0, "study/train/he/22": 600.0}.items():
        log = tmp_path / f"{name}.json"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(json.dumps({"seconds": took}))
    assert plan.seconds(["train@plain-0", "train@batch_norm-7", "evaluate@plain-0", "plot"], tmp_path) == 600
    assert plan.seconds(["train@plain-0", ARMS[0]], tmp_path) == 300 + 600
    steps = [Step(f"train@plain-{seed}", RUN, "why") for seed in range(5)]
    known = [f"train@plain-{seed}" for seed in range(9)]
    assert plan.told(steps, known, tmp_path)[0] == "will run: train@plain-0 to plain-4 (5 of 9); 25 min"
    assert plan.told([Step("study/dvc.yaml:sweep@a", RUN, "why")], ["a"], tmp_path)[0].endswith("; time unknown")


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("params.yaml", "seeds:", "\tseeds:", "params.yaml"),
        ("dvc.yaml", "stages:", "\tstages:", "dvc.yaml"),
        ("params.yaml", "height: 4.0", "height: 0.0", "plot.height: 0.0 "),
        ("study/params.yaml", "per_decade: 16", "per_decade: 0", "evaluation.per_decade: 0 "),
    ],
)
def test_what_is_refused_is_said_in_one_line(tmp_path: Path, file: str, old: str, new: str, says: str) -> None:
    """By DVC itself, or by the stage that reads it, which need not be stale."""
    for name in (".dvc/config", *BOTH, "params.yaml", "study/params.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    run(tmp_path, "git", "init", "--quiet")
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1))
    done = run(tmp_path, *TOOL, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


def test_where_nothing_but_ascii_can_be_printed() -> None:
    done = run(ROOT, *TOOL, PYTHONIOENCODING="ascii")
    assert done.stdout
    assert {*NOTE} < {*ALL}


def test_outside_a_repository_of_dvc(tmp_path: Path) -> None:
    done = run(tmp_path, *TOOL, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: DVC says: ")
