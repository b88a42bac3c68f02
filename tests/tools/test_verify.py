"""`make verify` on a small study made by the real DVC: whole, damaged in each way, stale, cloned, in a bad state."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import verify
from bnstudy import run as run_stage
from conftest import ROOT, clone, run
from test_pipeline import SMALL, SMALL_SWEEP, SMALL_TRAIN, SMALL_WARMUP, append, edit, params, repro, write_params

MODEL, SUMMARY = "models/batch_norm/0.safetensors", "metrics/summary/batch_norm.json"
HISTORY = "metrics/history/batch_norm/0.csv"
WHAT = ["outputs", "cache", "records", "dvc.lock", "its history", "README.md", "evaluations"]
AGAIN = ["files in git again", "evaluations again", "train@batch_norm-0 again"]
Found = dict[str, tuple[str, str]]  # what was checked: its state and what was found
Verify = Callable[..., Found]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest study, reproduced once and committed, with its headline in a README."""
    folder = clone(tmp_path_factory.mktemp("study"))
    tree = params(folder)
    small = {
        "study": {"variants": ["batch_norm"], "seeds": [0]},
        "train": tree["train"] | SMALL_TRAIN,
        "warmup": tree["warmup"] | SMALL_WARMUP | {"decays": [0.95]},
        "sweep": tree["sweep"] | SMALL_SWEEP | {"learning_rates": [0.1], "batch_sizes": [16]},
        "runtime": tree["runtime"] | {"threads": 1},
    }
    write_params(folder, tree | SMALL | small)
    repro(folder)
    # Trained with one thread; from now on another number is asked for, which says how and not which.
    edit("runtime", "threads", value=2)(folder)
    repro(folder, "check")
    (headline,) = re.findall(
        r"^\d+ claims: .+?\n\n(?:\|.+\n)+", (folder / "report/README.md").read_text(), re.MULTILINE
    )
    (folder / "README.md").write_text(f"# Study\n\n<!-- headline -->\n{headline}<!-- /headline -->\n\nMore.\n")
    run(folder, "dvc", "push")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "results")
    return folder


@pytest.fixture
def copy(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the study with its cache, to damage at will."""
    folder = Path(shutil.copytree(study, tmp_path / "study", symlinks=True))
    monkeypatch.chdir(folder)
    return folder


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
    return study / cache / "files/md5" / md5[:2] / md5[2:]


def flip(path: Path) -> None:
    """One bit of the byte in the middle; DVC's read-only mode and the time of change stay."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: str, old: str, new: str) -> Callable[[Path], None]:
    def change(study: Path) -> None:
        text = (study / path).read_text()
        assert old in text
        (study / path).write_text(text.replace(old, new, 1))

    return change


def snapshot(study: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in study.rglob("*")
        if path.is_file() and not {".git", "tmp"} & set(path.parts[len(study.parts) :])
    }


def test_a_whole_study_and_what_is_made_again_beside_it(copy: Path, verified: Verify) -> None:
    before, temporary = snapshot(copy), sorted((copy / ".dvc/tmp").glob("verify-*"))
    assert json.loads(Path("metrics/environment.json").read_text())[0]["threads"] == 1
    found = verified()
    assert list(found) == [*WHAT, *AGAIN]
    assert {state for state, _ in found.values()} == {"ok"}, found
    assert snapshot(copy) == before
    assert sorted((copy / ".dvc/tmp").glob("verify-*")) == temporary == []


def test_forged_files_in_git_do_not_come_out_of_the_records(copy: Path) -> None:
    """Whatever `dvc commit` was made to say of them."""
    forged = ["metrics/claims.json", "plots/curves.csv", "report/index.html"]
    claims = json.loads(Path(forged[0]).read_text())
    claims[0]["verdict"] = "supported"
    Path(forged[0]).write_text(json.dumps(claims, indent=2, ensure_ascii=False) + "\n")
    append("plots/curves.csv", Path("plots/curves.csv").read_text().splitlines()[-1] + "\n")(copy)
    replace("report/index.html", "</body>", "<p>And all of it is true.</p></body>")(copy)
    commit(copy)
    assert {state for what, (state, _) in compared().items() if what != "README.md"} == {"ok"}
    state, text = verify.summarize_again(verify.read_study(), copy / ".dvc/tmp")
    assert state == "FAILED"
    assert {part.split()[0] for part in text.split("; ")} == set(forged)


def test_a_forged_accuracy_is_neither_that_of_the_history_nor_that_of_the_weights(copy: Path) -> None:
    evaluation = copy / "metrics/evaluation/batch_norm.json"
    record = json.loads(evaluation.read_text())
    record["runs"][0]["test_accuracy"] += 0.01
    evaluation.write_text(json.dumps(record, indent=1) + "\n")
    commit(copy)
    found = compared()
    assert found["evaluations"][0] == "FAILED"
    assert found["evaluations"][1].startswith("batch_norm-0: its evaluation is not that of the network")
    assert {state for what, (state, _) in found.items() if what != "evaluations"} == {"ok"}
    state, text = verify.evaluate_again(verify.read_study(), copy / ".dvc/tmp")
    assert (state, text) == ("FAILED", "the evaluation of seed 0 by evaluate@batch_norm comes out otherwise")


def test_code_that_never_ran_is_stamped_and_does_not_give_the_bytes(copy: Path) -> None:
    append(
        "src/bnstudy/engine/training.py",
        "\nlearning_rate = lambda schedule, step, real=learning_rate: 0.9 * real(schedule, step)\n",
    )(copy)
    commit(copy)
    found = compared()
    assert found["its history"][0] == "stamped"
    assert "5 runs' code changed without new outputs" in found["its history"][1]
    assert {state for what, (state, _) in found.items() if what != "its history"} == {"ok"}
    state, text = verify.train_again(verify.read_study(), "train@batch_norm-0", copy / ".dvc/tmp")
    assert state == "FAILED"
    assert f"{MODEL} comes out with other bytes" in text


@pytest.mark.parametrize(("fact", "value"), [("torch", "1.0.0"), ("gpu", "GTX 1080"), ("device", "cuda:999")])
def test_a_run_from_an_environment_that_is_not_here(copy: Path, fact: str, value: str) -> None:
    evaluation = copy / "metrics/evaluation/batch_norm.json"
    record = json.loads(evaluation.read_text())
    record["runs"][0]["environment"][fact] = value
    evaluation.write_text(json.dumps(record, indent=1) + "\n")
    run(copy, "dvc", "commit", "--force", "evaluate@batch_norm")
    state, text = verify.train_again(verify.read_study(), "train@batch_norm-0", copy / ".dvc/tmp")
    assert state == "not here"
    assert f"{fact} {value} (here: " in text


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
            {"cache": "(data/prepared) is damaged", "dvc.lock": "`dvc status` ends with"},
            id="a manifest",
        ),
        pytest.param(lambda study: flip(study / MODEL), {"outputs": f"{MODEL} is not that of"}, id="a model"),
        pytest.param(
            lambda study: flip(study / "data/prepared/test_images.npy"),
            {"outputs": "data/prepared is not that of"},
            id="an image",
        ),
        pytest.param(
            replace(SUMMARY, '"mean": 0.', '"mean": 0.9'),
            {"outputs": "metrics/summary is not that of"},
            id="a metric",
        ),
        pytest.param(
            append(SUMMARY, "}"),
            {"outputs": "metrics/summary is not that of"},
            id="a metric that is none",
        ),
        pytest.param(append("plots/curves.csv", "\n"), {"outputs": "plots/curves.csv is not"}, id="a table"),
        pytest.param(append("report/index.html", "\n"), {"outputs": "report/index.html is not"}, id="the page"),
        pytest.param(
            lambda study: next((study / "report/figures").iterdir()).unlink(),
            {"outputs": "report/figures is not"},
            id="a figure",
        ),
        pytest.param(
            lambda study: (study / "metrics/claims.json").unlink(),
            {"outputs": "metrics/claims.json is missing"},
            id="no claims",
        ),
        pytest.param(
            replace("README.md", "| 1 |", "| 5 |"), {"README.md": "its headline is not that of"}, id="a figure in it"
        ),
        pytest.param(
            edit("train", "batch_size", value=16),
            {"dvc.lock": "train in params.yaml has changed (train@batch_norm-0, report)"},
            id="a parameter",
        ),
        pytest.param(
            append("src/bnstudy/analysis/claims.py", "# a remark\n"),
            {"dvc.lock": "src/bnstudy/analysis modified (summarize, report)"},
            id="code",
        ),
        pytest.param(
            replace("dvc.yaml", "src/plot.py\n", "src/plot.py --new\n"),
            {"dvc.lock": "changed command (plot)"},
            id="a command",
        ),
        pytest.param(
            edit("study", "seeds", value=[0, 1]),
            {"dvc.lock": "never run (train@batch_norm-1); study.seeds in"},
            id="a seed",
        ),
        pytest.param(
            lambda study: shutil.copy(study / MODEL, study / "models/batch_norm/1.safetensors"),
            {"dvc.lock": "models/batch_norm modified (evaluate@batch_norm)"},
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
    assert verified("--run", "train@batch_norm-0")["train@batch_norm-0 again"] == ("left out", "a check above failed")


@pytest.mark.parametrize("missing", [[MODEL], ["models", "data"]])
def test_what_is_not_here_is_no_failure(copy: Path, missing: list[str]) -> None:
    for name in missing:
        path = copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    states = {what: state for what, (state, _) in compared().items()}
    assert states == dict.fromkeys(WHAT, "ok") | {"outputs": "not here"}


def test_what_another_python_summarized_is_not_here(copy: Path) -> None:
    """Its record of itself may differ; where more does, it cannot tell whether that is why."""
    environments = json.loads(Path("metrics/environment.json").read_text())
    environments[-1]["python"] = "3.99.0"
    Path("metrics/environment.json").write_text(json.dumps(environments, indent=2) + "\n")
    append("plots/curves.csv", "\n")(copy)
    commit(copy)
    state, text = verify.summarize_again(verify.read_study(), copy / ".dvc/tmp")
    assert state == "not here"
    assert text.startswith("what they were made with: python 3.99.0 (here: ")


def cloned(study: Path, folder: Path) -> Path:
    """A fresh clone: no weights, no data, no cache."""
    run(study, "git", "clone", "--quiet", str(study), str(folder))
    return folder


@pytest.fixture
def fresh(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = cloned(study, tmp_path / "fresh")
    monkeypatch.chdir(folder)
    return folder


def change_lock(study: Path, change: Callable[[dict[str, Any]], object]) -> None:
    lock = yaml.safe_load((study / "dvc.lock").read_text())
    change(lock["stages"])
    (study / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))


def test_a_fresh_clone_has_no_weights_and_yet_nothing_stale(fresh: Path, verified: Verify) -> None:
    found = verified("--run", "train@batch_norm-0")
    states = {what: state for what, (state, _) in found.items()}
    missing = ["outputs", "cache", *AGAIN[1:]]
    assert states == dict.fromkeys([*WHAT, AGAIN[0]], "ok") | dict.fromkeys(missing, "not here")
    append("src/bnstudy/analysis/figures.py", "# a remark\n")(fresh)
    assert compared()["dvc.lock"] == ("FAILED", "src/bnstudy/analysis modified (summarize, report)")


def test_a_clone_judges_by_another_rule_without_a_training(fresh: Path) -> None:
    """What the runs recorded comes from records/, in git: neither an image nor a weight is needed."""
    kept = [path for path in (fresh / "records").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) < 100_000
    run(fresh, "make", f"--makefile={ROOT}/Makefile", "--old-file=.venv/study", "records")
    assert repro(fresh, "--allow-missing") == []
    edit("summarize", "minimum_runs", value=3)(fresh)
    assert repro(fresh, "--allow-missing") == ["check", "summarize", "report"]
    assert [path.name for path in (fresh / "data").iterdir()] == ["params.checked"]
    assert not (fresh / "models").exists()


def test_a_clone_whose_lock_has_another_model_than_was_evaluated(fresh: Path) -> None:
    change_lock(fresh, lambda stages: stages["train@batch_norm-0"]["outs"][-1].update(md5="0" * 32))
    state, text = compared()["dvc.lock"]
    assert state == "FAILED"
    assert text.startswith(("models/batch_norm deleted (evaluate@batch_norm)", "metrics/history"))


def test_a_run_that_is_no_longer_in_the_study_stays_in_its_lock(fresh: Path) -> None:
    def removed(stages: dict[str, Any]) -> None:
        out = {"path": "models/batch_norm/9.safetensors", "hash": "md5", "md5": "0" * 32, "size": 1}
        stages["train@batch_norm-9"] = {"cmd": "true", "outs": [out]}

    change_lock(fresh, removed)
    assert compared()["dvc.lock"][0] == "ok"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda study: (study / "dvc.lock").unlink(), "dvc.lock: is not here"),
        (append("dvc.lock", "x: ["), "dvc.lock: is not valid YAML"),
        (lambda study: (study / "dvc.lock").write_text("[]"), "dvc.lock: the file: [] is not"),
        (lambda study: (study / "dvc.lock").write_bytes(b"\xff"), "dvc.lock: is not valid YAML"),
        (
            lambda study: change_lock(study, lambda stages: stages["plot"]["outs"][0].update(md5="../../x")),
            "dvc.lock: stages.plot.outs.0.md5: '../../x' String should match pattern",
        ),
        (append("dvc.yaml", "x: ["), "DVC says: "),
        (lambda study: (study / "dvc.yaml").unlink(), "dvc.yaml: is not here"),
        (lambda study: shutil.rmtree(study / ".dvc"), "DVC says: "),
        (lambda study: shutil.rmtree(study / ".git"), "DVC says: "),
        (append("params.yaml", "x: ["), "params.yaml: cannot be read: line"),
        (edit("train", "batch_size", value=0), "train.batch_size: 0 is not"),
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
    with pytest.raises(SystemExit, match="error: --run: train@plain-7 is not one of train@batch_norm-0"):
        run_stage(verify.main)
