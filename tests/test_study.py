"""The study's pipeline on the sample, with the real DVC: what reruns after each change, and the bytes it makes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

import toy
from conftest import ROOT, browse, clone, run
from toy import commit, reached, repro

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # in DVC

PIPELINE = "study/dvc.yaml"
RUNS = ["sweep@batch_norm_hidden_he", "train@note_plain-22", "train@own_rate-22", "averages@note_batch_norm-22"]
READ = ["judge", "plot", "report"]
ALL = [*RUNS, "mechanism@22", *READ]


def edit(folder: Path, path: str, value: object) -> None:
    """Another value for a key of study/params.yaml."""
    toy.edit(folder, path, value, "study/params.yaml")


def stages(folder: Path, *options: str) -> set[str]:
    """Those of the study that `dvc repro` runs."""
    return {stage.removeprefix(f"{PIPELINE}:") for stage in repro(folder, *options, PIPELINE)[0]}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study made small by the demo's tool, and smaller: reproduced once and committed."""
    folder = clone(tmp_path_factory.mktemp("study") / "study")
    run(folder, "python", "tools/small.py")
    arms = yaml.safe_load((folder / "study/params.yaml").read_text())["arms"]
    edit(folder, "arms", {name: arms[name] for name in ("note_plain", "own_rate")})
    edit(folder, "entries", ["batch_norm_hidden_he"])
    for arm in ("arms.note_plain", "arms.own_rate", "sweep.batch_norm_hidden_he"):
        edit(folder, f"{arm}.steps", 12)
    edit(folder, "averages.note_batch_norm.steps", 40)
    edit(folder, "averages.note_batch_norm.decays", [0.5, 0.95, 1.0])
    edit(folder, "averages.note_batch_norm.images", 100)
    edit(folder, "averages.note_batch_norm.precise_images", 100)
    edit(folder, "mechanism.points", 2)
    edit(folder, "evaluation.moments", [12])
    edit(folder, "seeds", [22])
    commit(folder, "small")
    assert stages(folder) == {"prepare", "fetch", *ALL}
    commit(folder)
    return folder


@pytest.fixture
def copy(study: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(study, tmp_path / "study", symlinks=True))


def edited(path: str, value: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder, path, value)


def new_seed_of_the_note(folder: Path) -> None:
    (folder / "params.yaml").write_text((folder / "params.yaml").read_text() + "- 12\n")


def another_comment(folder: Path) -> None:
    (folder / "study/params.yaml").write_text("# A comment.\n" + (folder / "study/params.yaml").read_text())


@pytest.mark.parametrize(
    ("change", "runs"),
    [
        pytest.param(edited("arms.note_plain.learning_rate", 0.2), ["train@note_plain-22", *READ], id="an arm"),
        pytest.param(edited("sweep.batch_norm_hidden_he.steps", 9), [RUNS[0], *READ], id="an entry"),
        pytest.param(edited("averages.note_batch_norm.images", 90), [*ALL[3:]], id="the averages"),
        pytest.param(edited("evaluation.first", 4), ALL, id="evaluation"),
        pytest.param(edited("mechanism.points", 3), ["mechanism@22", *READ], id="mechanism"),
        pytest.param(edited("rules.note.expected", "no idea"), READ, id="a rule"),
        pytest.param(edited("plot.width", 6.0), ["plot", "report"], id="plot"),
        pytest.param(another_comment, [], id="a comment"),
        pytest.param(new_seed_of_the_note, [], id="the note's seeds"),
    ],
)
def test_a_change_reaches_what_depends_on_it(copy: Path, change: Callable[[Path], None], runs: list[str]) -> None:
    change(copy)
    assert reached(copy, PIPELINE) == set(runs)


def test_a_changed_arm_trains_alone(copy: Path) -> None:
    edit(copy, "arms.note_plain.learning_rate", 0.2)
    trained = {"train@note_plain-22", "judge"}
    assert trained <= stages(copy) <= trained | {*READ}
    run(copy, "git", "checkout", "--quiet", ".")
    assert stages(copy) <= {*READ}
    assert run(copy, "git", "status", "--porcelain").stdout == ""


def test_a_training_runs_again_to_the_same_bytes_and_nothing_below_it(copy: Path) -> None:
    for stage in ("train@own_rate-22", "averages@note_batch_norm-22"):
        ran, _ = repro(copy, "--force", "--single-item", f"{PIPELINE}:{stage}")
        assert ran == {f"{PIPELINE}:{stage}"}
    assert run(copy, "git", "status", "--porcelain").stdout == ""
    assert stages(copy) == set()


def test_other_images_are_refused_in_one_line_and_nothing_is_lost(copy: Path) -> None:
    text = (copy / "params.yaml").read_text()
    (copy / "params.yaml").write_text(text.replace("validation_size: 500", "validation_size: 400"))
    done = run(copy, "dvc", "repro", PIPELINE, check=False)
    assert done.returncode != 0
    assert "its images are not those of the study" in done.stderr
    assert "Traceback" not in done.stderr
    (copy / "params.yaml").write_text(text)
    assert stages(copy) <= {*READ}
    assert run(copy, "git", "status", "--porcelain").stdout == ""


def test_runs_say_what_made_them_and_others_are_refused(copy: Path) -> None:
    made = json.loads((copy / "study/runs/train/own_rate/22.json").read_text())
    params = yaml.safe_load((copy / "study/params.yaml").read_text())
    assert made["parameters"]["own_rate"] == params["arms"]["own_rate"]
    edit(copy, "arms.own_rate.learning_rate", 0.2)
    done = run(copy, "python", "src/study_judge.py", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: study/runs/train/own_rate/22.json: does not hold a run of the parameters")


def test_the_runs_hold_what_the_study_asks_for(study: Path) -> None:
    history = pd.read_csv(study / "study/runs/train/own_rate/22.csv")
    assert history["corrected_accuracy"].notna().all()
    averages = pd.read_csv(study / "study/runs/averages/note_batch_norm/22.csv")
    kinds = {"moving", "corrected", "precise", "batch", "start_10", "start_0.1", "means_corrected"}
    assert set(averages["statistics"]) == kinds
    precise = averages[averages["statistics"] == "precise"]
    assert set(precise["step"]) == set(averages["step"])
    assert (precise[["conv1_variance", "conv2_variance"]] > 0).all(axis=None)


def test_it_ends_in_a_page(study: Path, tmp_path: Path) -> None:
    page = Path(shutil.copy(study / "study/report/index.html", tmp_path))
    assert "preliminary" in page.read_text(encoding="utf-8").lower()
    width, console = browse(page, "document.documentElement.scrollWidth")
    assert width <= 360, "a phone scrolls sideways"
    assert console == []
    assert {path.name for path in (study / "study/report/figures").iterdir()} == {"dip.svg", "rates.svg"}


def test_the_arms_of_the_note_are_the_notes_models() -> None:
    """The study has a copy of the note's setting, so that playing with the note makes nothing of it stale."""
    note = yaml.safe_load((ROOT / "params.yaml").read_text())
    study = yaml.safe_load((ROOT / "study/params.yaml").read_text())
    pairs = {"plain": study["arms"]["note_plain"], "batch_norm": study["averages"]["note_batch_norm"]}
    for model, arm in pairs.items():
        assert arm["network"] == note["models"][model]
        assert arm["optimizer"] == note["train"]["optimizer"]
        assert arm["batch_size"] == note["train"]["batch_size"]
        assert arm["learning_rate"] == note["train"]["learning_rate"]["initial"]
    shared = {key: note["train"]["learning_rate"][key] for key in ("decay_rate", "decay_steps", "staircase")}
    assert study["train"] == shared | {key: note["train"][key] for key in ("keep_prob", "precision")}
    assert not {*note["seeds"]} & {*range(22, 52)}


def test_a_training_of_the_sweep_ends_once_it_is_at_the_target_or_not_finite(copy: Path) -> None:
    path = copy / "study/runs/sweep/batch_norm_hidden_he.csv"
    edit(copy, "sweep.batch_norm_hidden_he.target", 0.001)
    run(copy, "python", "src/study_sweep.py", "batch_norm_hidden_he")
    table = pd.read_csv(path)
    assert table.groupby("learning_rate")["step"].apply(list).tolist() == [[5, 7, 9]] * 3
    run(copy, "python", "src/study_judge.py")
    table[:-1].to_csv(path, index=False)
    assert "12 updates" in run(copy, "python", "src/study_judge.py", check=False).stderr

    edit(copy, "sweep.batch_norm_hidden_he.target", 0.999)
    edit(copy, "sweep.batch_norm_hidden_he.learning_rates", [0.003, 1e30])
    run(copy, "python", "src/study_sweep.py", "batch_norm_hidden_he")
    last = pd.read_csv(path).groupby("learning_rate").last(skipna=False)
    assert last["step"].tolist() == [12, 5]
    assert last["diverged"].tolist() == [0, 1]
    assert last["corrected_accuracy"].isna().tolist() == [False, True]
    run(copy, "python", "src/study_judge.py")


def test_an_arm_goes_on_though_its_loss_is_no_longer_finite_and_is_judged(copy: Path) -> None:
    edit(copy, "arms.note_plain.learning_rate", 1e30)
    run(copy, "python", "src/study_train.py", "note_plain", "22")
    table = pd.read_csv(copy / "study/runs/train/note_plain/22.csv")
    assert table["step"].iloc[-1] == 12
    assert table["train_loss"].isna().iloc[-1]
    assert table["test_accuracy"].iloc[-1] == pytest.approx(0.1, abs=0.05)
    run(copy, "python", "src/study_judge.py")
    json.loads((copy / "study/metrics/summary/note_plain.json").read_text(), parse_constant=pytest.fail)
