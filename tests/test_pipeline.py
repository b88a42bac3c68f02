"""The real pipeline through the real DVC, on the sample: what reruns after each change, and the bytes it makes.

Before each rerun, `make plan` has said it.
"""

import json
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from dvc.repo import Repo

import plan
from conftest import ROOT, clone, run

pytestmark = pytest.mark.xdist_group("pipeline")  # one worker reproduces the study once for all of these

# Small enough that a training takes a second beside its imports.
SMALL: dict[str, Any] = {
    "data": {"source": "sample", "validation_size": 500},
    "study": {"variants": ["batch_norm", "plain"], "seeds": [0, 1]},
}
SMALL_TRAIN = {"steps": 3, "batch_size": 32, "evaluate_every": 2}
SMALL_WARMUP = {"seeds": [0], "steps": 3, "evaluate_every": 2, "decays": [0.5, 0.95, 0.999, 1.0], "precise_images": 64}
SMALL_SWEEP = {"variants": ["plain"], "seeds": [0], "steps": 2, "learning_rates": [0.01, 0.1], "batch_sizes": [16, 64]}

WARMUP = ["warmup@0"]
RATES = ["sweep_rates@plain-0.01", "sweep_rates@plain-0.1"]
BATCHES = ["sweep_batches@plain-16", "sweep_batches@plain-64"]
BELOW = ["summarize", "plot", "report"]
CHECK = ["check"]  # whenever a parameter has another value


def params(study: Path) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((study / "params.yaml").read_text())
    return tree


def write_params(study: Path, tree: dict[str, Any]) -> None:
    (study / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


def repro(study: Path, *arguments: str) -> list[str]:
    """`dvc repro`, and the stages that it ran, in order; those restored from the run cache are not among them."""
    out = run(study, "dvc", "repro", *arguments).stdout
    return re.findall(r"^Running stage '(.+)':", out, re.MULTILINE)


def outputs(study: Path) -> dict[str, bytes]:
    """Every byte that the pipeline wrote."""
    folders = ("data", "models", "metrics", "plots", "report")
    files = [path for folder in folders for path in (study / folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(study)): path.read_bytes() for path in files if path.name != ".gitignore"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study on the sample, reproduced once and committed."""
    folder = clone(tmp_path_factory.mktemp("study"))
    tree = params(folder)
    small = {"train": tree["train"] | SMALL_TRAIN, "warmup": tree["warmup"] | SMALL_WARMUP}
    write_params(folder, tree | SMALL | small | {"sweep": tree["sweep"] | SMALL_SWEEP})
    assert sorted(repro(folder)) == sorted(ALL)
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "results")
    return folder


TRAINS = [f"train@{variant}-{seed}" for variant in ("batch_norm", "plain") for seed in (0, 1)]
EVALUATES = ["evaluate@batch_norm", "evaluate@plain"]
ALL = ["check", "fetch", "prepare", *TRAINS, *EVALUATES, *WARMUP, *RATES, *BATCHES, *BELOW]


@pytest.fixture
def copy(study: Path, tmp_path: Path) -> Path:
    """A copy of the reproduced study with its cache, to change at will."""
    return Path(shutil.copytree(study, tmp_path / "study", symlinks=True))


def edit(*path: str, value: Any) -> Callable[[Path], None]:
    def change(study: Path) -> None:
        tree = params(study)
        at = tree
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        write_params(study, tree)

    return change


def append(file: str, text: str) -> Callable[[Path], None]:
    def change(study: Path) -> None:
        with (study / file).open("a") as stream:
            stream.write(text)

    return change


def replace(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(study: Path) -> None:
        text = (study / file).read_text()
        assert old in text
        (study / file).write_text(text.replace(old, new))

    return change


def reverse_the_keys(study: Path) -> None:
    write_params(study, dict(reversed(params(study).items())))


def add_a_variant(study: Path) -> None:
    tree = params(study)
    tree["rates"]["other"] = 0.01
    tree["variants"]["other"] = tree["variants"]["plain"] | {"initializer": "he"}
    tree["study"]["variants"].append("other")
    write_params(study, tree)


@pytest.mark.parametrize(
    ("change", "reruns"),
    [
        pytest.param(
            edit("variants", "batch_norm", "decay", value=0.5),
            [*CHECK, *TRAINS[:2], EVALUATES[0], *WARMUP, *BELOW],
            id="a decay",
        ),
        pytest.param(
            edit("train", "learning_rate", "initial", value=0.05),
            [*CHECK, *TRAINS, *EVALUATES, *WARMUP, *BATCHES, *BELOW],
            id="learning rate",
        ),
        pytest.param(
            edit("rates", "plain", value=0.01),
            [*CHECK, *TRAINS[2:], EVALUATES[1], *BATCHES, *BELOW],
            id="a rate of its own",
        ),
        pytest.param(
            edit("warmup", "decays", value=[0.95, 0.999, 1.0]),
            [*CHECK, *WARMUP, "summarize", "report"],
            id="the decays of warmup",
        ),
        pytest.param(
            edit("sweep", "learning_rates", value=[0.01, 0.03, 0.1]),
            [*CHECK, "sweep_rates@plain-0.03", "summarize", "report"],
            id="one more rate to sweep",
        ),
        pytest.param(
            edit("study", "seeds", value=[0, 1, 2]),
            [*CHECK, "train@batch_norm-2", "train@plain-2", *EVALUATES, *BELOW],
            id="one more seed",
        ),
        pytest.param(
            add_a_variant, [*CHECK, "train@other-0", "train@other-1", "evaluate@other", *BELOW], id="one more variant"
        ),
        pytest.param(
            edit("evaluate", "targets", value=[0.5]), [*CHECK, *EVALUATES, "summarize", "report"], id="targets"
        ),
        pytest.param(edit("plot", "width", value=5.0), [*CHECK, "plot"], id="plot"),
        pytest.param(edit("runtime", "threads", value=2), CHECK, id="runtime"),
        pytest.param(append("params.yaml", "\n# a remark\n"), [], id="a comment"),
        pytest.param(reverse_the_keys, [], id="the order of keys"),
        # The same bytes come out, so that the stages below have nothing to do.
        pytest.param(append("src/warmup.py", "# a remark\n"), WARMUP, id="a script"),
    ],
)
@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # in DVC
def test_a_change_reruns_exactly_what_depends_on_it(
    copy: Path, change: Callable[[Path], None], reruns: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(copy)
    monkeypatch.chdir(copy)
    with Repo(copy) as study:
        actions = {step.stage: step.action for step in plan.plan(study).steps}
    ran = repro(copy)
    assert sorted(ran) == sorted(reruns)
    will = {stage for stage, action in actions.items() if action == plan.RUN}
    assert will <= set(ran) <= {stage for stage, action in actions.items() if action in (plan.RUN, plan.MAY)}
    assert actions.keys() - set(ran) <= set(BELOW)  # it threatens with no training that is not run


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        pytest.param(
            edit("train", "batch_size", value=16), ["check", *TRAINS, *WARMUP, *RATES, "report"], id="batch size"
        ),
        pytest.param(
            replace("src/bnstudy/engine/network.py", "0.87962566103423978", "0.8796256610342398"),
            [*TRAINS, *EVALUATES, *WARMUP, *RATES, *BATCHES],
            id="a constant of the engine",
        ),
        pytest.param(replace("src/bnstudy/params.py", ": is missing", ": is not there"), ["check"], id="a message"),
        pytest.param(
            replace("src/bnstudy/files.py", "Write the whole file", "Write one whole file"), [], id="a docstring"
        ),
        pytest.param(replace("src/bnstudy/__init__.py", "interrupted", "stopped"), [], id="a line of the log"),
    ],
)
def test_what_a_change_makes_stale(copy: Path, change: Callable[[Path], None], stale: list[str]) -> None:
    """As `dvc status` says before anything runs: the stages that a change reaches itself, without those below them."""
    change(copy)
    status = json.loads(run(copy, "dvc", "status", "--json").stdout)
    assert sorted(status) == sorted(stale)


def test_a_second_run_does_nothing_and_a_forced_third_gives_the_same_bytes(copy: Path) -> None:
    before = outputs(copy)
    assert repro(copy) == []
    assert sorted(repro(copy, "--force")) == sorted(ALL)
    assert outputs(copy) == before


def test_changed_and_changed_back_restores_from_the_run_cache(copy: Path) -> None:
    before, committed = outputs(copy), (copy / "params.yaml").read_text()
    edit("warmup", "decays", value=[0.95, 1.0])(copy)
    assert sorted(repro(copy)) == sorted([*CHECK, *WARMUP, "summarize", "report"])
    (copy / "params.yaml").write_text(committed)
    # Seconds: what these write in git, or keep, switches the run cache off.
    assert repro(copy) == ["check", "summarize", "report"]
    assert outputs(copy) == before


def test_a_removed_seed_and_variant_leave_no_trace(copy: Path) -> None:
    edit("study", "seeds", value=[1])(copy)
    edit("study", "variants", value=["plain"])(copy)
    assert sorted(repro(copy)) == sorted([*CHECK, "evaluate@plain", *BELOW])
    assert (copy / "models/batch_norm/0.safetensors").is_file()
    assert [path.name for path in (copy / "metrics/summary").iterdir()] == ["plain.json"]
    (details,) = json.loads((copy / "metrics/summary/plain.json").read_text())["details"]
    assert details["runs"] == 1
    curves = pd.read_csv(copy / "plots/curves.csv")
    assert set(curves["variant"]) == {"plain"}
    assert set(curves["seed"]) == {1}


def test_a_run_keeps_its_state_until_dvc_has_recorded_its_results(copy: Path) -> None:
    edit("runtime", "checkpoint_every", value=1)(copy)
    repro(copy, "--force", "--single-item", TRAINS[0], WARMUP[0], RATES[0])
    runs = ("train/batch_norm/0", "warmup/0", "sweep/plain/rate_0.01/0")
    states = {str(path.relative_to(copy)) for path in (copy / "checkpoints").rglob("*") if path.is_file()}
    assert states == {f"checkpoints/{name}.finished" for name in runs}
    repro(copy, "--force", "--single-item", EVALUATES[0], "summarize")
    assert not any((copy / name).exists() for name in states)


@pytest.mark.parametrize("name", ["x; touch owned", "$(touch owned)", "x'; touch owned; '", "ünï code"])
def test_no_shell_reads_a_name(copy: Path, name: str) -> None:
    edit("study", "variants", value=[name])(copy)
    done = run(copy, "dvc", "repro", check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    assert not (copy / "owned").exists()


def test_git_stays_clean_of_data_weights_and_histories(study: Path) -> None:
    tracked = run(study, "git", "ls-files").stdout.splitlines()
    assert {"dvc.lock", "metrics/summary/plain.json", "plots/curves.csv", "plots/confusion.csv"} <= set(tracked)
    assert not [
        name for name in tracked if re.match(r"data/(raw|prepared)/|models/.*|metrics/(history|evaluation)/", name)
    ]
    assert run(study, "git", "status", "--porcelain").stdout == ""


def test_params_metrics_and_plots_show_what_an_experiment_changed(copy: Path) -> None:
    run(copy, "dvc", "exp", "run", "--set-param", "evaluate.targets=[0.05]")
    assert "evaluate.targets" in run(copy, "dvc", "params", "diff").stdout
    assert "updates_to_5" in run(copy, "dvc", "metrics", "diff").stdout
    assert "evaluate.targets" in run(copy, "dvc", "exp", "show", "--csv").stdout
    run(copy, "dvc", "plots", "show", "--out", "page")
    assert "accuracy" in (copy / "page/index.html").read_text()


NOT_TO_READ = {"torch", "numba", "torchvision", "safetensors", "mlxtend"}  # the extra `train` of pyproject.toml
WITHOUT = f"""\
import importlib.metadata, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(NOT_TO_READ)}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

def without(cls, name, found=importlib.metadata.Distribution.from_name.__func__):
    if name in {sorted(NOT_TO_READ)}:
        raise importlib.metadata.PackageNotFoundError(name)
    return found(cls, name)

sys.meta_path.insert(0, Refuse())
importlib.metadata.Distribution.from_name = classmethod(without)
"""


def test_reading_and_judging_need_no_pytorch(copy: Path, tmp_path: Path) -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["train"]
    assert {re.split(r"\W", requirement)[0] for requirement in extra} == NOT_TO_READ
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)  # Python runs it at its start

    def stdout(*command: str) -> str:
        return run(copy, *command, PYTHONPATH=str(tmp_path)).stdout

    assert run(copy, "python", "-c", "import torch", check=False, PYTHONPATH=str(tmp_path)).returncode == 1
    edit("summarize", "confidence", value=0.5)(copy)
    edit("plot", "width", value=5.0)(copy)
    assert re.findall(r"^Running stage '(.+)':", stdout("dvc", "repro"), re.MULTILINE) == [*CHECK, *BELOW]
    assert "summarize.confidence" in stdout("dvc", "params", "diff")
    assert "test_accuracy" in stdout("dvc", "metrics", "show")
    stdout("dvc", "plots", "show", "--out", "page")
    assert "accuracy" in (copy / "page/index.html").read_text()
    assert "nothing to run" in stdout("python", str(ROOT / "tools/plan.py"))


def test_the_example_of_the_model_note(copy: Path) -> None:
    _, code, _ = re.split("```(?:python)?\\n", (ROOT / "docs/models.md").read_text())
    digits = json.loads(run(copy, "python", "-c", code, PYTHONPATH="src").stdout)
    assert len(digits) == 10
    assert set(digits) <= set(range(10))
