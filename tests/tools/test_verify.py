"""`make verify` on the small study: whole, damaged in each way, stale, cloned, in a bad state."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import verify
from bnstudy import run as run_stage
from bnstudy.records import Reproduction, read_reproductions
from conftest import ROOT, run
from small import append, edit, replace, repro

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # in DVC
RUN = "train@note_plain-10"
MODEL, HISTORY = "models/train/note_plain/10.safetensors", "metrics/train/note_plain/10.csv"
WHAT = ["outputs", "cache", "records", "dvc.lock", "its history", "README.md"]
AGAIN = ["files in git again", "evaluations again", f"{RUN} again"]
Found = dict[str, tuple[str, str]]  # what was checked: its state and what was found
Verify = Callable[..., Found]


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verify:
    """Run it in the current folder; its lines. It must exit with 1 exactly where one of them says FAILED."""

    def verified(*arguments: str) -> Found:
        monkeypatch.setattr(sys, "argv", ["verify", *arguments])
        code: Any = 0
        try:
            run_stage(verify.main)
        except SystemExit as exit_:
            code = exit_.code
        *lines, last = capsys.readouterr().out.splitlines()
        assert "made again here: " in last
        found = {}
        for line in lines:
            what, _, text = line[10:].partition(": ")
            found[what] = (line[:8].strip(), text)
        assert code == int(any(state == "FAILED" for state, _ in found.values()))
        return found

    return verified


def compared() -> Found:
    """What it finds in the current folder by comparing hashes alone."""
    return dict(verify.compare_hashes(verify.read_study()))


def commit(study: Path) -> None:
    """Have DVC and git take whatever lies there for the results."""
    run(study, "dvc", "commit", "--force")
    run(study, "dvc", "push")
    run(study, "git", "add", "--all")
    run(study, "git", "commit", "--quiet", "--message", "forged")


def cached(study: Path, path: str, cache: str = ".dvc/cache") -> Path:
    """The object of the output `path` in the cache, or in another place that DVC keeps."""
    stages = yaml.safe_load((study / "dvc.lock").read_text())["stages"].values()
    (md5,) = (out["md5"] for stage in stages for out in stage.get("outs", []) if out["path"] == path)
    return study / cache / "files/md5" / str(md5)[:2] / str(md5)[2:]


def flip(path: Path) -> None:
    """One bit of the byte in the middle; DVC's read-only mode and the time of change stay."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def snapshot(study: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in study.rglob("*")
        if path.is_file() and not {".git", "tmp"} & set(path.parts[len(study.parts) :])
    }


def test_a_whole_study_and_what_is_made_again_beside_it(copy: Path, verified: Verify) -> None:
    edit(copy, "runtime.threads", 2)  # trained with one: params.yaml says how, and not which
    repro(copy, "check")
    before = snapshot(copy)
    found = verified("--run", RUN)
    assert list(found) == [*WHAT, *AGAIN]
    assert {state for state, _ in found.values()} == {"ok"}, found
    assert found["evaluations again"][1].startswith("2 networks")
    assert snapshot(copy) == before
    assert list((copy / ".dvc/tmp").glob("verify-*")) == []


def test_forged_files_in_git_do_not_come_out_of_the_records(copy: Path) -> None:
    """Whatever `dvc commit` was made to say of them."""
    replace("metrics/claims.json", "note_plain", "all of it")(copy)
    replace("settings/train/he/10.json", '"steps": 3', '"steps": 4')(copy)
    commit(copy)
    assert {state for state, _ in compared().values()} == {"ok"}
    state, text = verify.write_again(verify.read_study(), copy / ".dvc/tmp")
    assert state == "FAILED"
    assert {part.split()[0] for part in text.split("; ")} == {"metrics/claims.json", "settings/train"}


def test_a_forged_accuracy_is_not_that_of_the_weights(copy: Path) -> None:
    *rows, last = (copy / HISTORY).read_text().splitlines()
    (copy / HISTORY).write_text("\n".join([*rows, f"{last.rpartition(',')[0]},0.999"]) + "\n")
    run(copy, "dvc", "commit", "--force", RUN)
    repro(copy)
    commit(copy)
    assert {state for state, _ in compared().values()} == {"ok"}
    state, text = verify.evaluate_again(verify.read_study())
    assert (state, text) == ("FAILED", f"{MODEL} does not give the last row of {HISTORY}")


def test_code_that_never_ran_is_stamped_and_does_not_give_the_bytes(copy: Path) -> None:
    append(
        copy / "src/bnstudy/engine/training.py",
        "\nlearning_rate = lambda schedule, step, real=learning_rate: 0.9 * real(schedule, step)\n",
    )
    commit(copy)
    found = compared()
    assert found["its history"][0] == "stamped"
    assert "2 runs' code changed without new outputs" in found["its history"][1]
    assert {state for what, (state, _) in found.items() if what != "its history"} == {"ok"}
    state, text = verify.run_again(verify.read_study(), RUN, copy / ".dvc/tmp")
    assert state == "FAILED"
    assert f"{MODEL} comes out with other bytes" in text


@pytest.mark.parametrize(("fact", "value"), [("gpu", "GTX 1080"), ("device", "cuda:999")])
def test_a_run_from_another_kind_of_machine(copy: Path, fact: str, value: str) -> None:
    path = copy / HISTORY.replace(".csv", ".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {fact: value}))
    run(copy, "dvc", "commit", "--force", RUN)
    study = verify.read_study()
    state, text = verify.run_again(study, RUN, copy / ".dvc/tmp")
    assert state == "not here"
    assert text.startswith(f"made on another kind of machine: {fact} {value} (here: ")
    assert verify.evaluate_again(study)[0] == "ok"  # it comes out all the same
    state, text = verify.run_again(study, RUN, copy / ".dvc/tmp", record=True)
    assert (state, text.rpartition("; ")[2]) == ("ok", "its tables come out the same")
    (again,) = (one for one in read_reproductions() if one.run == RUN)
    assert (again.same, again.made_in[fact], again.accuracies) == (True, value, None)
    assert again.again_in == verify.made_in(verify.read_study(), "train@he-10")[0]


def test_a_record_of_other_bytes(copy: Path) -> None:
    """As between kinds of machines: recorded with the accuracy beside that of the seeds."""
    path = copy / HISTORY
    *rows, last = path.read_text().splitlines()
    values = dict(zip(rows[0].split(","), last.split(","), strict=True)) | {"validation_accuracy": "0.999"}
    path.write_text("\n".join([*rows, ",".join(values.values())]) + "\n")
    run(copy, "dvc", "commit", "--force", RUN)
    before = set(copy.glob("reproductions/*"))
    assert verify.run_again(verify.read_study(), RUN, copy / ".dvc/tmp", record=True)[0] == "FAILED"
    (new,) = set(copy.glob("reproductions/*")) - before
    found = Reproduction.model_validate_json(new.read_text())
    assert found.study == run(copy, "git", "rev-parse", "--short=12", "HEAD").stdout.strip()
    assert not found.same
    assert found.accuracies
    assert found.accuracies[0] == 0.999
    assert found.accuracies[1] < 0.9
    assert found.seeds == (0.999, 0.999)
    assert "in place of 99.90% (its seeds 99.90% to 99.90%)" in found.told()


def test_what_is_told_of_a_run_that_was_made_again() -> None:
    on_gpu = {"processor": "A", "gpu": "B"}
    facts = {"study": "c", "run": "train@he-20", "made_in": {"processor": "A"}, "again_in": on_gpu, "same": False}
    lost = Reproduction.model_validate(facts | {"accuracies": None, "seeds": None})
    assert (lost.machines(), lost.told()) == ("Made on A, again on B", "train@he-20 other bytes")
    apart = lost.model_copy(update={"accuracies": (0.95, 0.96), "made_in": on_gpu})
    assert (apart.machines(), apart.told()) == ("On B", "train@he-20 96.00% in place of 95.00% in its last row")


def flip_cached(study: Path) -> None:
    flip(cached(study, MODEL))
    assert "up to date" in run(study, "dvc", "status").stdout


def flip_cached_and_remove(study: Path) -> None:
    flip_cached(study)
    (study / MODEL).unlink()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        pytest.param(flip_cached, {"cache": f"({MODEL}) is damaged"}, id="in the cache"),
        pytest.param(flip_cached_and_remove, {"cache": f"({MODEL}) is damaged"}, id="in the cache, and none beside it"),
        pytest.param(
            lambda study: flip(cached(study, HISTORY, "records")),
            {"records": f"({HISTORY}) is damaged"},
            id="in the records",
        ),
        pytest.param(
            lambda study: flip(cached(study, "data/prepared")),
            {"cache": "(data/prepared) is damaged", "dvc.lock": "DVC cannot compare it: KeyError"},
            id="a manifest",
        ),
        pytest.param(lambda study: flip(study / MODEL), {"outputs": f"{MODEL} is not that of"}, id="a model"),
        pytest.param(
            lambda study: flip(study / "data/prepared/test_images.npy"),
            {"outputs": "data/prepared is not that of"},
            id="an image",
        ),
        pytest.param(
            lambda study: append(study / "metrics/claims.json", "\n"),
            {"outputs": "metrics/claims.json is not that of"},
            id="claims",
        ),
        pytest.param(
            lambda study: (study / "settings/train/he/10.json").unlink(),
            {"outputs": "settings/train is not that of"},
            id="a setting",
        ),
        pytest.param(
            lambda study: (study / "metrics/claims.json").unlink(),
            {"outputs": "metrics/claims.json is missing"},
            id="no claims",
        ),
        pytest.param(
            replace("README.md", "Claims: 2", "Claims: 5"),
            {"README.md": "its headline is not that of"},
            id="a figure in it",
        ),
        pytest.param(
            lambda study: edit(study, "arms.he.steps", 4),
            {"dvc.lock": "3 → 4 (tune); tune resolves other settings (train@he-10, evaluate)"},
            id="a parameter",
        ),
        pytest.param(
            lambda study: append(study / "src/evaluate.py", "# a remark\n"),
            {"dvc.lock": "src/evaluate.py modified (evaluate)"},
            id="code",
        ),
        pytest.param(
            replace("dvc.yaml", "src/evaluate.py\n", "src/evaluate.py --new\n"),
            {"dvc.lock": "another command (evaluate)"},
            id="a command",
        ),
        pytest.param(
            lambda study: edit(study, "study.seeds", [10, 11]),
            {"dvc.lock": "not in dvc.lock: new, or never run (train@note_plain-11, train@he-11)"},
            id="a seed",
        ),
        pytest.param(
            lambda study: shutil.copy(study / HISTORY, study / "metrics/train/9.csv"),
            {"dvc.lock": "metrics/train modified (evaluate)"},
            id="a file too many",
        ),
    ],
)
def test_each_damage_is_found_by_its_check_and_by_no_other(
    copy: Path, verified: Verify, damage: Callable[[Path], object], expected: dict[str, str]
) -> None:
    damage(copy)
    found = verified("--no-retrain")
    failed = {what for what, (state, _) in found.items() if state == "FAILED"}
    # An output that is not that of the lock makes what reads it stale, if DVC sees it.
    assert failed - ({"dvc.lock"} if "outputs" in expected else set()) == expected.keys()
    for what, text in expected.items():
        assert found[what][0] == "FAILED"
        assert text in found[what][1]


def test_nothing_is_trained_where_a_result_is_not_that_of_the_lock(copy: Path, verified: Verify) -> None:
    flip(copy / MODEL)
    assert verified("--run", RUN)[f"{RUN} again"] == ("left out", "a check above failed")


def test_another_headline_keeps_nothing_from_being_made_again(copy: Path, verified: Verify) -> None:
    """As of one's own study, whose README quotes the committed one."""
    replace("README.md", "Claims: 2", "Claims: 5")(copy)
    found = verified("--no-retrain")
    assert (found["README.md"][0], found["files in git again"][0]) == ("FAILED", "ok")


@pytest.mark.parametrize("missing", [[MODEL], ["models", "data", "metrics/sweep/plain.csv"]])
def test_what_is_not_here_is_no_failure(copy: Path, missing: list[str]) -> None:
    for name in missing:
        path = copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    states = {what: state for what, (state, _) in compared().items()}
    assert states == dict.fromkeys(WHAT, "ok") | {"outputs": "not here"}


def test_what_another_python_wrote_is_not_here(copy: Path) -> None:
    """Its record of itself may differ; where more does, it cannot tell whether that is why."""
    Path("metrics/environment.json").write_text('[{"python": "3.99.0"}]')
    append(copy / "metrics/claims.json", "\n")
    commit(copy)
    state, text = verify.write_again(verify.read_study(), copy / ".dvc/tmp")
    assert state == "not here"
    assert text.startswith("what they were made with: python 3.99.0 (here: ")


def change_lock(study: Path, change: Callable[[dict[str, Any]], object]) -> None:
    lock = yaml.safe_load((study / "dvc.lock").read_text())
    change(lock["stages"])
    (study / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))


def test_a_fresh_clone_has_no_weights_and_yet_nothing_stale(fresh: Path, verified: Verify) -> None:
    found = verified("--run", RUN)
    states = {what: state for what, (state, _) in found.items()}
    missing = ["outputs", "cache", *AGAIN[1:]]
    assert states == dict.fromkeys([*WHAT, AGAIN[0]], "ok") | dict.fromkeys(missing, "not here")
    append(fresh / "src/evaluate.py", "# a remark\n")
    assert compared()["dvc.lock"] == ("FAILED", "src/evaluate.py modified (evaluate)")


def test_a_clone_judges_by_another_rule_without_a_training(fresh: Path) -> None:
    """What the runs recorded comes from records/, in git: neither an image nor a weight is needed."""
    run(fresh, "make", f"--makefile={ROOT}/Makefile", "--old-file=.venv/study", "records")
    assert repro(fresh, "--allow-missing")[0] == set()
    edit(fresh, "rules.useless", 0.4)
    assert repro(fresh, "--allow-missing")[0] == {"check", "evaluate"}
    assert not {path.name for path in (fresh / "data").iterdir()} & {"raw", "prepared"}
    assert not (fresh / "models").exists()


def test_a_run_that_is_no_longer_in_the_study_stays_in_its_lock(fresh: Path) -> None:
    def removed(stages: dict[str, Any]) -> None:
        out = {"path": "models/train/he/9.safetensors", "hash": "md5", "md5": "0" * 32, "size": 1}
        stages["train@he-9"] = {"cmd": "true", "outs": [out]}

    change_lock(fresh, removed)
    assert compared()["dvc.lock"][0] == "ok"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda study: (study / "dvc.lock").unlink(), "dvc.lock: is not here"),
        (lambda study: append(study / "dvc.lock", "x: ["), "dvc.lock: is not valid YAML"),
        (lambda study: (study / "dvc.lock").write_text("[]"), "dvc.lock: the file: [] is not"),
        (lambda study: (study / "dvc.lock").write_bytes(b"\xff"), "dvc.lock: is not valid YAML"),
        (
            lambda study: change_lock(study, lambda stages: stages["evaluate"]["outs"][0].update(md5="../../x")),
            "dvc.lock: stages.evaluate.outs.0.md5: '../../x' String should match pattern",
        ),
        (lambda study: append(study / "dvc.yaml", "x: ["), "DVC says: "),
        (lambda study: (study / "dvc.yaml").unlink(), "dvc.yaml: is not here"),
        (lambda study: shutil.rmtree(study / ".dvc"), "DVC says: "),
        (lambda study: shutil.rmtree(study / ".git"), "DVC says: "),
        (lambda study: append(study / "params.yaml", "x: ["), "params.yaml: cannot be read: line"),
        (lambda study: edit(study, "train.batch_size", 0), "train.batch_size: 0 is not"),
    ],
)
def test_a_bad_state_is_one_line(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object], message: str
) -> None:
    damage(fresh)
    monkeypatch.setattr(sys, "argv", ["verify", "--no-retrain"])
    with pytest.raises(SystemExit) as exit_:
        run_stage(verify.main)
    assert str(exit_.value).startswith("error: ")
    assert message in str(exit_.value)
    assert "\n" not in str(exit_.value)


def test_a_run_of_no_such_name(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["verify", "--run", "train@plain-7"])
    with pytest.raises(SystemExit, match="error: --run: train@plain-7 is not one of sweep@plain"):
        run_stage(verify.main)
