"""The plan beside what DVC then runs, on the small study; `test_pipeline` does so on the whole one."""

import json
import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo
from hypothesis import given
from hypothesis import strategies as st

import plan
from bnstudy import waves
from conftest import run
from plan import MAY, RESTORE, RUN, Plan, Step
from small import ALL, TRAINS, append, edit, repro

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # in DVC
SWEEPS = ["sweep@plain", "sweep@batch_norm"]


def planned(folder: Path) -> Plan:
    with Repo(folder) as repo:
        return plan.plan(repo)


def actions(found: Plan) -> dict[str, str]:
    return {step.stage: step.action for step in found.steps}


def test_nothing_was_ever_run(unmade: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(unmade)
    found = planned(unmade)
    assert actions(found) == dict.fromkeys(ALL, RUN)
    assert plan.told(found) == [
        "not in dvc.lock: new, or never run",
        "  will run  check, prepare, sweep (all 2), tune, train (all 2), evaluate    time unknown",
    ]


def test_a_setting_of_one_arm_then_back(copy: Path) -> None:
    assert plan.told(planned(copy))[0].startswith("nothing to run")
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("settings/**/*")}
    edit(copy, "arms.he.steps", 4)
    told = plan.told(planned(copy))
    assert told[:3] == ["arms.he.steps: 3 → 4", "  will run  check, tune", "tune resolves other settings"]
    assert told[3].split("  ")[1:3] == ["will run", "train@he-10, evaluate"]
    assert told[3].endswith("by earlier logs")
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("settings/**/*")} == before
    assert repro(copy) == ({"check", "tune", "train@he-10", "evaluate"}, set())
    edit(copy, "arms.he.steps", 3)
    assert actions(planned(copy)) == {"check": RUN, "tune": RUN, "train@he-10": RESTORE, "evaluate": RUN}
    assert repro(copy) == ({"check", "tune", "evaluate"}, {"train@he-10"})


def test_an_arm_that_comes_back(copy: Path) -> None:
    """The file of its setting is gone, but the one that will be written is that of its last run."""
    edit(copy, "study.arms", ["he"])
    assert repro(copy)[0] == {"check", "tune", "evaluate"}
    edit(copy, "study.arms", ["note_plain", "he"])
    assert not (copy / "settings/train/note_plain").exists() or not list((copy / "settings/train/note_plain").iterdir())
    assert actions(planned(copy)) == {"check": RUN, "tune": RUN, "evaluate": RUN}
    assert repro(copy)[0] == {"check", "tune", "evaluate"}


def test_a_value_that_check_refuses(copy: Path) -> None:
    edit(copy, "arms.he.steps", 0)
    done = run(copy, "python", str(Path(plan.__file__)), check=False)
    assert done.returncode == 1
    assert not done.stdout
    assert done.stderr.startswith("error: params.yaml: arms.he.steps: 0 ")


def test_a_setting_of_the_tuning(copy: Path) -> None:
    """What `tune` will choose cannot be told before the sweep has run."""
    edit(copy, "train.keep_prob", 1.0)
    found = planned(copy)
    assert actions(found) == dict.fromkeys(["check", *SWEEPS, "tune", "evaluate"], RUN) | dict.fromkeys(TRAINS, MAY)
    assert "check resolves other settings" in plan.told(found)
    assert "their settings depend on what tune chooses" in plan.told(found)


def test_the_same_bytes_stop_the_chain(copy: Path) -> None:
    append(copy / "src/sweep.py", "# a remark\n")
    edit(copy, "rules.useless", 0.4)
    edit(copy, "plot.width", 5.0)
    assert actions(planned(copy)) == {
        "check": RUN,
        **dict.fromkeys(SWEEPS, RUN),
        **dict.fromkeys(["tune", *TRAINS], MAY),
        "evaluate": RUN,
    }
    assert repro(copy) == ({"check", *SWEEPS, "evaluate"}, set())


def test_code_a_command_an_output_and_a_new_stage(copy: Path) -> None:
    append(copy / "src/bnstudy/engine/grid.py", "# a remark\n")
    append(copy / "metrics/claims.json", "by hand")
    text = (copy / "dvc.yaml").read_text()
    (copy / "dvc.yaml").write_text(text.replace("python src/prepare.py", "python -B src/prepare.py"))
    edit(copy, "study.seeds", [10, 11])
    reasons = {step.stage: step.reasons for step in planned(copy).steps if step.changed}
    assert reasons == {
        **dict.fromkeys(["check", "tune"], ("study.seeds: [10] → [10, 11]",)),
        "prepare": ("another command",),
        **dict.fromkeys(TRAINS, ("src/bnstudy/engine modified (grid.py)",)),
        "train@note_plain-11": ("not in dvc.lock: new, or never run",),
        "train@he-11": ("not in dvc.lock: new, or never run",),
        "evaluate": ("metrics/claims.json is not what the stage wrote",),
    }


def test_a_folder_that_will_be_whole_again(copy: Path) -> None:
    """A stage reads it, and does not run for a file in it that others write anew."""
    (copy / "settings/train/note_plain/10.json").unlink()
    (copy / "metrics/train/he/10.csv").write_text("cut off")
    assert actions(planned(copy)) == {"tune": RUN, "train@he-10": RESTORE, "evaluate": MAY}
    assert repro(copy) == ({"tune"}, {"train@he-10"})
    (copy / "settings/train/he/old.json").touch()
    (copy / "metrics/train/he/old.csv").touch()
    assert actions(planned(copy)) == {"tune": RUN, "evaluate": RUN}
    assert repro(copy) == ({"tune", "evaluate"}, set())


def test_outputs_that_only_the_cache_has(copy: Path) -> None:
    (copy / "metrics/sweep/plain.csv").unlink()
    found = planned(copy)
    assert actions(found) == {"sweep@plain": RESTORE}
    assert found.missing == []
    assert repro(copy) == (set(), {"sweep@plain"})


def test_a_fresh_clone(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = planned(fresh)
    assert found.steps == []
    assert plan.told(found)[:2] == [
        "6 stages with results that are not here, not being in git:",
        "  check, prepare, sweep (all 2), train (all 2)",
    ]
    edit(fresh, "rules.useless", 0.4)
    found = planned(fresh)
    assert actions(found) == {"check": RUN, "evaluate": RUN}
    assert found.first == TRAINS
    assert plan.told(found)[-2].startswith("  but what will run reads these")
    assert plan.told(found)[-1] == "    train (all 2)"
    run(fresh, "dvc", "pull", "--allow-missing", *TRAINS)
    (fresh / "models").rename(fresh / "no models")
    assert repro(fresh, "--allow-missing") == ({"check", "evaluate"}, set())
    shutil.rmtree(fresh / ".dvc/cache")  # as where only records/ was pulled: what is not here is not stale
    monkeypatch.chdir(fresh)
    assert waves.read_stale(allow_missing=True) == set()
    assert set(TRAINS) < waves.read_stale(allow_missing=False)


def test_times_are_those_of_earlier_logs(tmp_path: Path) -> None:
    for name, seconds in {"a/0": 100.0, "a/1": 500.0, "b/0": 600.0}.items():
        log = tmp_path / "train" / f"{name}.json"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(json.dumps({"seconds": seconds}))
    commands = {f"train@a-{n}": f"python src/train.py a {n}" for n in range(6)} | {"last": "cp signs last"}
    found = Plan([], [], [], commands)
    assert plan.duration([*commands], found, tmp_path) == "50 min by earlier logs"
    assert plan.duration(["last"], found, tmp_path) == ""
    some = Plan([], [], [], commands | {"sweep@a": "python src/sweep.py a"})
    assert plan.duration([*some.commands], some, tmp_path) == "over 50 min by earlier logs"
    assert plan.duration(["sweep@a"], some, tmp_path) == "time unknown"
    cost = tmp_path / "cost.csv"
    cost.write_text("run,seconds\ntrain/a/0,3000\ntrain/a/1,5000\nsweep/plain,10\n")
    assert plan.duration([*commands], found, tmp_path / "none", cost) == "6.7 h by what MNIST took"
    assert plan.duration([*some.commands], some, tmp_path, cost) == "50 min by logs and MNIST's"


NAMES = st.lists(st.from_regex(r"[a-z_]{1,12}(@[a-z_0-9.-]{1,15})?", fullmatch=True), unique=True, max_size=90)


@given(stages=NAMES, data=st.data())
def test_it_fits_a_terminal(stages: list[str], data: st.DataObject) -> None:
    reasons = st.lists(st.text("ab →\n", min_size=1, max_size=150), min_size=1, max_size=6).map(tuple)
    actions = st.sampled_from([RUN, RESTORE, MAY])
    steps = [Step(name, data.draw(actions), data.draw(reasons)) for name in stages[::2]]
    lines = plan.told(Plan(steps, stages[1::2], stages[1::2], dict.fromkeys(stages, "cmd")), Path("nowhere"))
    assert 0 < len(lines) <= plan.LINES
    assert max(map(len, lines)) <= plan.WIDTH


def test_while_another_dvc_is_at_work(copy: Path) -> None:
    with Repo(copy) as repo, repo.lock:
        done = run(copy, "python", str(Path(plan.__file__)), check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: another DVC is at work")


def test_outside_a_repository_of_dvc(tmp_path: Path) -> None:
    done = run(tmp_path, "python", str(Path(plan.__file__)), check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: DVC says: ")
