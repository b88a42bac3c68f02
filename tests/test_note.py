"""The note's pipeline: what reruns after each change, the bytes it makes, what it refuses, and what people read."""

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import evaluate as evaluation
import plot
from bnstudy.params import load
from conftest import ENVIRONMENT, ROOT, clone, run
from toy import commit, edit, reached, repro, until

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # in DVC

Change = Callable[[Path], None]
MODELS, SEEDS = ("batch_norm", "plain"), (10, 11)
RUNS = [f"{model}-{seed}" for model in MODELS for seed in SEEDS]
BATCH_NORM, PLAIN = RUNS[:2], RUNS[2:]
LAYER_NORM = {"normalization": "layer", "normalize_logits": False, "epsilon": 0.001, "initializer": "he"}


def train(*runs: str) -> list[str]:
    return [f"train@{name}" for name in runs]


def evaluate(*runs: str) -> list[str]:
    return [f"evaluate@{name}" for name in runs]


@pytest.fixture(scope="session")
def note(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The note on the sample, two seeds and 12 updates, reproduced once and committed."""
    folder = clone(tmp_path_factory.mktemp("note") / "note")
    edit(folder, "data", {"source": "sample", "validation_size": 300})
    edit(folder, "seeds", [*SEEDS])
    for key, value in {"steps": 12, "batch_size": 32, "evaluations_per_decade": 2}.items():
        edit(folder, f"train.{key}", value)
    ran, _ = repro(folder)
    assert ran == {"fetch", "prepare", *train(*RUNS), *evaluate(*RUNS), "plot"}
    commit(folder)
    return folder


@pytest.fixture
def copy(note: Path, tmp_path: Path) -> Path:
    """A copy of the reproduced note with its cache, to change at will."""
    return Path(shutil.copytree(note, tmp_path / "note", symlinks=True))


@pytest.fixture
def fresh(note: Path, tmp_path: Path) -> Path:
    """A fresh clone of it, the data prepared: no weights, no curves."""
    folder = tmp_path / "fresh"
    run(note, "git", "clone", "--quiet", str(note), str(folder))
    assert repro(folder, "prepare")[0] == {"fetch", "prepare"}
    return folder


def below(*runs: str) -> list[str]:
    """These trainings and all that depends on them."""
    return [*train(*runs), *evaluate(*runs), "plot"]


def to(path: str, value: object) -> Change:
    return lambda folder: edit(folder, path, value)


def replace(file: str, old: str, new: str) -> Change:
    def change(folder: Path) -> None:
        text = (folder / file).read_text(encoding="utf-8")
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def reverse_the_keys(folder: Path) -> None:
    def turned(value: Any) -> Any:
        return {key: turned(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    params = yaml.safe_load((folder / "params.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump(turned(params), sort_keys=False))


def another_runtime(folder: Path) -> None:
    runtime = {"device": "cpu", "deterministic": False, "threads": 2, "checkpoint_every": 1, "memory_fraction": 0.5}
    launch = {"cpus": 2, "gpus": 0.2}
    edit(folder, "runtime", runtime | {"tensorboard": True, "mirrors": ["https://example.org/"], "launch": launch})


def outputs(folder: Path) -> dict[str, bytes]:
    """Every byte that the note's pipeline wrote, and what its lock says of it."""
    files = [path for part in ("data", "models", "curves", "metrics", "plots") for path in (folder / part).rglob("*")]
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in [*files, folder / "dvc.lock"] if path.is_file()
    }


OF_ALL = {
    "steps": 13,
    "batch_size": 33,
    "optimizer.initial_accumulator": 0.2,
    "learning_rate.initial": 0.2,
    "learning_rate.staircase": False,
}


@pytest.mark.parametrize(
    ("change", "runs"),
    [
        pytest.param(to("models.batch_norm.decay", 0.9), below(*BATCH_NORM), id="decay"),
        pytest.param(to("models.plain.initializer", "he"), below(*PLAIN), id="initializer"),
        *(pytest.param(to(f"train.{key}", value), below(*RUNS), id=key) for key, value in OF_ALL.items()),
        pytest.param(to("seeds", [*SEEDS, 12]), below("batch_norm-12", "plain-12"), id="one more seed"),
        pytest.param(to("models.layer_norm", LAYER_NORM), below("layer_norm-10", "layer_norm-11"), id="a third model"),
        pytest.param(to("seeds", [11]), ["plot"], id="one seed less"),
        pytest.param(to("data.validation_size", 299), ["prepare", *below(*RUNS)], id="data"),
        pytest.param(to("plot.width", 5.0), ["plot"], id="plot"),
        pytest.param(another_runtime, [], id="runtime"),
        pytest.param(replace("params.yaml", "seeds:", "# a remark\nseeds:"), [], id="a comment"),
        pytest.param(reverse_the_keys, [], id="the order of keys"),
        pytest.param(replace("dvc.yaml", "Train one model", "Train a model"), [], id="a description"),
        pytest.param(replace("src/bnstudy/params.py", ": is missing", ": is not there"), [], id="a message"),
        pytest.param(replace("src/bnstudy/engine/rows.py", "import csv", "import csv  #"), below(*RUNS), id="engine"),
        pytest.param(replace("src/evaluate.py", "0.95", "0.9"), [*evaluate(*RUNS), "plot"], id="the target"),
    ],
)
def test_a_change_reaches_what_depends_on_it(copy: Path, change: Change, runs: list[str]) -> None:
    change(copy)
    assert reached(copy, "dvc.yaml") == set(runs)


def test_a_changed_decay_trains_one_model_and_changed_back_nothing(copy: Path) -> None:
    before, lines = outputs(copy), {}
    edit(copy, "models.batch_norm.decay", 0.5)
    assert repro(copy) == (set(below(*BATCH_NORM)), set())
    for command in ("params diff", "metrics diff", "metrics show"):
        lines[command] = run(copy, "dvc", *command.split(), COLUMNS="110").stdout.splitlines()
        assert max(map(len, lines[command])) <= 110
    assert re.fullmatch(r"params.yaml +models.batch_norm.decay +0.95 +0.5", lines["params diff"][1])
    assert {tuple(line.split()[:2]) for line in lines["metrics diff"][1:]} == {
        (f"metrics/batch_norm/{seed}.json", f"test_{what}") for seed in SEEDS for what in ("accuracy", "loss")
    }
    shown = [line.split()[0] for line in lines["metrics show"]]
    assert shown[1:5] == [f"metrics/{name.replace('-', '/')}.json" for name in RUNS]
    edit(copy, "models.batch_norm.decay", 0.95)
    assert repro(copy) == ({"plot"}, {*train(*BATCH_NORM), *evaluate(*BATCH_NORM)})
    assert outputs(copy) == before


def test_a_new_model_needs_no_code_and_what_was_removed_leaves_no_trace(copy: Path) -> None:
    models = yaml.safe_load((copy / "params.yaml").read_text())["models"]
    edit(copy, "models", {"batch_norm": models["batch_norm"], "layer_norm": LAYER_NORM})
    edit(copy, "seeds", [10])
    out = run(copy, "dvc", "repro").stdout
    assert set(re.findall("^Running stage '(.+)':", out, re.MULTILINE)) == set(below("layer_norm-10"))
    named = {"batch_norm", "layer_norm"}
    table = pd.read_csv(copy / "plots/curves.csv")
    assert (set(table["model"]), set(table["seed"])) == (named, {10})
    shown = run(copy, "dvc", "metrics", "show").stdout
    assert set(re.findall(r"metrics/(\w+)/(\d+)", shown)) == {(model, "10") for model in named}
    assert set(re.findall(r"^(\w+)  \d", out, re.MULTILINE)) == named
    picture = (copy / "plots/curves.svg").read_text()
    assert "layer_norm" in picture
    assert "plain" not in picture
    assert repro(copy) == (set(), set())


def test_a_fresh_clone_trains_what_changed_and_forced_the_same_bytes(fresh: Path, note: Path) -> None:
    def trained(path: str, value: object) -> set[str]:
        edit(fresh, path, value)
        ran, _ = repro(fresh, "--allow-missing", "--dry", "train")
        run(fresh, "git", "restore", ".")
        return ran

    assert repro(fresh, "--allow-missing") == (set(), set())
    assert trained("seeds", [*SEEDS, 12]) == set(train("batch_norm-12", "plain-12"))
    assert trained("models.batch_norm.decay", 0.5) == set(train(*BATCH_NORM))
    edit(fresh, "models.batch_norm.decay", 0.5)
    edit(fresh, "seeds", [10])
    assert repro(fresh, "--allow-missing") == (set(below("batch_norm-10")), set())

    again = {"prepare", "train@plain-10", "evaluate@plain-10"}
    assert repro(fresh, "--force", "--single-item", *sorted(again, reverse=True))[0] == again
    made, known = outputs(fresh), outputs(note)
    assert {f"{part}/plain/10" for part in ("models", "curves", "metrics")} == {
        name.rpartition(".")[0] for name in made if "plain/10" in name and made[name] == known[name]
    }
    assert all(made[name] == known[name] for name in made if name.startswith("data/"))


@pytest.mark.parametrize(
    ("path", "value", "stage", "says"),
    [
        ("data.source", "mnits", "fetch", "'mnits' is not 'mnist', 'fashion_mnist', 'kmnist' or 'sample'"),
        ("models.batch_norm.decay", 1.5, r"train@batch_norm-1\d", "1.5 is not less than or equal to 1"),
        ("plot.width", 1.0, "plot", "1.0 is not greater than or equal to 2"),
    ],
)
def test_the_first_script_refuses_in_one_line_and_the_mend_brings_all_back(
    copy: Path, path: str, value: object, stage: str, says: str
) -> None:
    before = outputs(copy)
    edit(copy, path, value)
    refused = run(copy, "dvc", "repro", check=False)
    assert refused.returncode
    message, failure = refused.stderr.splitlines()[:2]
    assert message == f"error: params.yaml: {path}: {says}"
    assert re.match(f"ERROR: failed to reproduce '{stage}'", failure)
    assert "Traceback" not in refused.stdout + refused.stderr
    run(copy, "git", "restore", "params.yaml")
    assert repro(copy)[0] <= {"plot"}
    assert outputs(copy) == before


def test_a_training_that_was_stopped_goes_on_to_the_same_bytes(copy: Path) -> None:
    before = outputs(copy)
    edit(copy, "runtime.checkpoint_every", 1)
    command, state = ("python", "src/train.py", "batch_norm", "10"), copy / "checkpoints/train/batch_norm/10.state"
    (copy / "models/batch_norm/10.safetensors").unlink()
    with subprocess.Popen(command, cwd=copy, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as training:
        until(state.exists)
        training.send_signal(signal.SIGINT)
        _, said = training.communicate()
    assert training.returncode == 130
    stopped = re.fullmatch(r"train/batch_norm/10: stopped; kept the state after update (\d+) in checkpoints/.+\n", said)
    assert stopped
    assert not (copy / "models/batch_norm/10.safetensors").exists()
    assert run(copy, *command).stderr == f"train/batch_norm/10: going on after update {stopped[1]}\n"
    assert outputs(copy) == before
    again = run(copy, "dvc", "repro", "--force", "--single-item", "train@batch_norm-10", "plot")
    assert "going on" not in again.stderr  # what DVC has recorded is trained again, not taken over
    assert outputs(copy) == before


def test_an_experiment_elsewhere_runs_the_code_that_is_there(copy: Path) -> None:
    before = outputs(copy)
    replace("src/bnstudy/engine/schedule.py", "import math", 'import math\n\nprint("engine:", __file__)')(copy)
    change = ("--set-param", "models.batch_norm.decay=0.5")
    out = run(copy, "dvc", "exp", "run", "--temp", "--name", "fast", *change, "train@batch_norm-10").stdout
    [ran] = re.findall(r"^engine: (.+)/src/bnstudy/engine/schedule.py$", out, re.MULTILINE)
    assert ran.startswith(f"{copy}/.dvc/tmp/exps/")
    assert outputs(copy) == before


def test_the_page_opens_with_the_notes_picture(copy: Path) -> None:
    run(copy, "dvc", "plots", "show")
    page = (copy / "dvc_plots/index.html").read_text(encoding="utf-8")
    first = json.JSONDecoder().raw_decode(page[page.index('{"$schema"') :])[0]
    assert first["title"]["text"] == "The note, accuracy with and without batch norm"
    rows = pd.DataFrame(first["data"]["values"])
    assert set(rows["model"]) == {"batch_norm", "plain"}
    assert set(rows["split"]) == {"training batch", "test"}
    assert set(rows["seed"].astype(int)) == {*SEEDS}


@pytest.mark.parametrize(
    ("accuracies", "updates"),
    [
        ([0.95, 0.99, 0.99], 10),  # at the first evaluation already
        ([0.90, 0.95, 0.99], 100),  # at an evaluation
        ([0.90, 1.00, 0.99], 10**1.5),  # half way, by the logarithm
        ([0.80, 0.90, 1.00], 10**2.5),
        ([0.94, 0.96, 0.90], 10**1.5),  # first reached, though left again
        ([0.90, 0.94, 0.9499], None),
    ],
)
def test_updates_until_the_target_are_interpolated(accuracies: list[float], updates: float | None) -> None:
    assert evaluation.updates_to(0.95, [10, 100, 1000], accuracies) == (updates and pytest.approx(updates))


def test_mean_and_spread_over_the_seeds_are_printed() -> None:
    params = load(ROOT / "params.yaml")
    runs: dict[tuple[str, int], dict[str, Any]] = {
        (model, seed): {"test_accuracy": 0.96 + 0.01 * place}
        for model in ("batch_norm", "plain")
        for place, seed in enumerate(params.seeds)
    }
    for seed, updates in zip(params.seeds, (100.0, 120.0), strict=False):
        runs["batch_norm", seed]["updates_to_95"] = updates
    assert plot.summary(params, runs).splitlines() == [
        "            test accuracy, %  updates to 95%",
        "batch_norm  97.00 ± 1.00      110 ± 14 (2 of 3)",
        "plain       97.00 ± 1.00      not reached",
    ]
    one = params.model_copy(update={"seeds": [params.seeds[0]]})
    assert plot.summary(one, runs).splitlines()[1:] == [
        "batch_norm  96.00             100",
        "plain       96.00             not reached",
    ]
