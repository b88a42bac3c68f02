"""The real pipeline through the real DVC, on the sample: what reruns after each change, and the bytes it makes.

Before each rerun, `make plan` has said it.
"""

import json
import re
import shutil
import tomllib
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from dvc.repo import Repo

import plan
import small
import tour
from conftest import ROOT, clone, once, run, shared
from small import replace

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # in DVC

# Small enough that a training takes a second beside its imports. Each pair of values goes into one section.
SMALL: dict[str, dict[str, Any]] = {
    "data": {"source": "sample", "validation_size": 100},
    "train": {"batch_size": 32},
    "evaluation": {"moments": [5]},
    "sweep": {"networks": ["plain", "batch_norm_hidden"], "learning_rates": [0.01, 0.1], "seeds": [100], "steps": 4},
    "refine": {"finalists": ["without", "hidden"], "factors": [1.0], "seeds": [100], "steps": 6, "target": 0.2},
    "study": {"seeds": [10, 11], "arms": ["note_plain", "own_rate"]},
    "averages": {"images": 100, "precise_images": 100, "decays": [0.5, 0.95, 0.999, 1.0], "steps": 6},
    "long": {"arm_seeds": [10], "averages_seeds": [10], "steps": 8},
    "mechanism": {"seeds": [10], "points": 3},
    "rules": {"after": 5},
    "tolerance": {"contestants": ["with"], "learning_rates": [0.01, 0.1], "steps": 3},
    "batch": {
        "contestants": ["with"],
        "sizes": [16],
        "factors": [1.0],
        "tuning_seeds": [100],
        "seeds": [10],
        "images": 20,  # fewer than train.batch_size
        "tuning_images": 32,
    },
}
SWEEP_PLAIN, SWEEP_BATCH = "sweep@plain", "sweep@batch_norm_hidden"
REFINE_PLAIN, REFINE_BATCH = "refine@without-1.0", "refine@hidden-1.0"
NOTE = ["train@note_plain-10", "train@note_plain-11"]
OWN = ["train@own_rate-10", "train@own_rate-11"]
AVERAGES = ["averages@10", "averages@11", "mechanism@10"]
WITH = ["tolerance@with-10", "tolerance@with-11", "batch@with-16"]
BELOW = ["evaluate", "plot", "report"]
CHECK = ["check"]  # whenever a parameter has another value
ALL = [
    *("check", "fetch", "prepare", SWEEP_PLAIN, SWEEP_BATCH, "shortlist", REFINE_PLAIN, REFINE_BATCH, "tune"),
    *(*NOTE, *OWN, *AVERAGES, *WITH, *BELOW),
]


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
    folders = ("data", "settings", "models", "metrics", "plots", "report")
    files = [path for folder in folders for path in (study / folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(study)): path.read_bytes() for path in files if path.name != ".gitignore"}


def on_the_sample(folder: Path, **chosen: list[Any]) -> Path:
    """The study on the sample, not yet run; `chosen` takes the place of its seeds or arms."""
    clone(folder)
    tree = params(folder)
    for section, changes in SMALL.items():
        tree[section] |= changes
    tree["study"] |= chosen
    for arm in tree["arms"].values():
        arm["steps"] = 6
    write_params(folder, tree)
    run(folder, "git", "commit", "--quiet", "--all", "--message", "small")
    return folder


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study on the sample, reproduced once and committed."""

    def make(folder: Path) -> None:
        on_the_sample(folder)
        assert sorted(repro(folder)) == sorted(ALL)
        run(folder, "git", "add", "--all")
        run(folder, "git", "commit", "--quiet", "--message", "results")

    return once(shared(tmp_path_factory, "study"), make)


@pytest.fixture
def copy(study: Path, tmp_path: Path) -> Path:
    """A copy of the reproduced study with its cache, to change at will."""
    return Path(shutil.copytree(study, tmp_path / "study", symlinks=True))


def edit(*path: str, value: Any) -> Callable[[Path], None]:
    return lambda study: small.edit(study, ".".join(path), value)


def append(file: str, text: str) -> Callable[[Path], None]:
    return lambda study: small.append(study / file, text)


def reverse_the_keys(study: Path) -> None:
    write_params(study, dict(reversed(params(study).items())))


def add_an_arm(study: Path) -> None:
    tree = params(study)
    tree["arms"]["other"] = {"network": "batch_norm_hidden", "rate": 0.2, "steps": 5}
    tree["study"]["arms"].append("other")
    write_params(study, tree)


def overrule(network: str, rate: float) -> Callable[[Path], None]:
    return edit("networks", network, "rate", value=rate)


def planned(study: Path) -> dict[str, str]:
    """What `make plan` says of each stage that it names."""
    with chdir(study), Repo() as repo:
        return {step.stage: step.action for step in plan.plan(repo).steps}


def held(said: dict[str, str], ran: set[str]) -> None:
    """What it says will run did run; what ran, it said will run or may run."""
    will = {stage for stage, action in said.items() if action == plan.RUN}
    assert will <= ran <= {stage for stage, action in said.items() if action in (plan.RUN, plan.MAY)}


@pytest.mark.parametrize(
    ("change", "reruns"),
    [
        pytest.param(
            edit("study", "seeds", value=[10, 11, 12]),
            [*CHECK, "tune", "train@note_plain-12", "train@own_rate-12", "averages@12", "tolerance@with-12", *BELOW],
            id="one more seed",
        ),
        pytest.param(
            edit("refine", "target", value=0.21),
            [*CHECK, "shortlist", "tune", "report"],
            id="the target of tuning, which chooses the same rates",
        ),
        pytest.param(edit("rules", "after", value=6), [*CHECK, *BELOW], id="a rule"),
        pytest.param(edit("plot", "width", value=5.0), [*CHECK, "plot", "report"], id="plot"),
        pytest.param(edit("runtime", "threads", value=2), CHECK, id="runtime"),
        pytest.param(append("params.yaml", "\n# a remark\n"), [], id="a comment"),
        pytest.param(reverse_the_keys, [], id="the order of keys"),
        # The same bytes come out, so that the stages below have nothing to do.
        pytest.param(append("src/averages.py", "# a remark\n"), AVERAGES[:2], id="a script"),
    ],
)
def test_a_change_reruns_exactly_what_depends_on_it(
    copy: Path, change: Callable[[Path], None], reruns: list[str]
) -> None:
    change(copy)
    said = planned(copy)
    ran = repro(copy)
    assert sorted(ran) == sorted(reruns)
    held(said, set(ran))
    # What it threatens with and is not run hangs on the tuning: no more is known before.
    assert "shortlist" in ran or said.keys() - set(ran) <= {"tune", "mechanism@10", *BELOW}


@pytest.mark.parametrize(
    ("change", "tuning", "stale"),
    [
        pytest.param(
            edit("train", "learning_rate", "initial", value=0.05),
            [*CHECK, "shortlist", "tune"],
            [*NOTE, *AVERAGES[:2], "evaluate", "report"],
            id="the note's rate",
        ),
        pytest.param(
            edit("refine", "seeds", value=[100, 102]),
            [*CHECK, "shortlist", REFINE_PLAIN, REFINE_BATCH, "tune"],
            ["evaluate", "report"],
            id="one more tuning seed, which chooses the same rates",
        ),
        pytest.param(
            overrule("batch_norm_hidden", 0.3),
            [*CHECK, "shortlist", REFINE_BATCH, "tune"],
            [*OWN, *WITH, "evaluate", "report"],
            id="a rate that overrules the choice",
        ),
        pytest.param(
            add_an_arm,
            [*CHECK, "tune"],
            ["train@other-10", "train@other-11", "evaluate", "report"],
            id="one more arm",
        ),
        pytest.param(edit("batch", "sizes", value=[8, 16]), CHECK, ["batch@with-8", "evaluate"], id="one more size"),
    ],
)
def test_what_is_stale_once_the_rates_are_chosen(
    copy: Path, change: Callable[[Path], None], tuning: list[str], stale: list[str]
) -> None:
    """The tuning runs; then `dvc status` names what a change reaches itself."""
    change(copy)
    assert sorted(repro(copy, "tune")) == sorted(tuning)  # the order of siblings is DVC's own
    status = json.loads(run(copy, "dvc", "status", "--json").stdout)
    assert sorted(status) == sorted(stale)


TRAININGS = [SWEEP_PLAIN, SWEEP_BATCH, REFINE_PLAIN, REFINE_BATCH, *NOTE, *OWN, *AVERAGES, *WITH]


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        # What trainings depend on is resolved by `check`, `shortlist` and `tune`.
        pytest.param(edit("train", "batch_size", value=16), ["check", "shortlist", "tune", "report"], id="batch size"),
        pytest.param(
            replace("src/bnstudy/engine/network.py", "0.87962566103423978", "0.8796256610342398"),
            TRAININGS,
            id="a constant of the engine",
        ),
        pytest.param(replace("src/bnstudy/params.py", ": is missing", ": is not there"), ["check"], id="a message"),
        pytest.param(
            replace("src/bnstudy/files.py", "Write the whole file", "Write one whole file"), [], id="a docstring"
        ),
        pytest.param(replace("src/bnstudy/progress.py", "min left", "minutes left"), [], id="a line of the log"),
    ],
)
def test_what_a_change_makes_stale(copy: Path, change: Callable[[Path], None], stale: list[str]) -> None:
    """As `dvc status` says before anything runs: the stages that a change reaches itself, without those below them."""
    change(copy)
    status = json.loads(run(copy, "dvc", "status", "--json").stdout)
    assert sorted(status) == sorted(stale)


def test_a_second_run_does_nothing_and_forced_ones_give_the_same_bytes(copy: Path) -> None:
    """A training keeps its state until DVC has recorded its results."""
    before = outputs(copy)
    assert repro(copy) == []
    edit("runtime", "checkpoint_every", value=1)(copy)
    trainings = [SWEEP_PLAIN, NOTE[0], AVERAGES[0]]
    assert repro(copy, "--force", "--single-item", *trainings) == trainings
    runs = ("train/note_plain/10", "averages/10", *(f"sweep/plain/{rate}-100" for rate in (0.01, 0.1)))
    states = {str(path.relative_to(copy)) for path in (copy / "checkpoints").rglob("*") if path.is_file()}
    assert states == {f"checkpoints/{name}.finished" for name in runs}
    others = [name for name in ALL if name not in trainings]
    assert repro(copy, "--force", "--single-item", *others) == others
    assert not any((copy / name).exists() for name in states)
    assert outputs(copy) == before


def test_a_removed_seed_and_arm_are_in_no_table(copy: Path) -> None:
    edit("study", "arms", value=["note_plain"])(copy)
    edit("study", "seeds", value=[10])(copy)
    assert sorted(repro(copy)) == sorted([*CHECK, "tune", *BELOW])
    assert (copy / "models/train/own_rate/10.safetensors").is_file()
    assert {path.stem for path in (copy / "metrics/summary").iterdir()} == {"note_plain", "note_batch_norm"}
    assert not (copy / "settings/train/own_rate").exists()
    curves = pd.read_csv(copy / "plots/curves.csv")
    assert set(curves["arm"]) == {"note_plain", "note_batch_norm"}
    assert set(curves["seed"]) == {10}


def test_git_stays_clean_of_data_weights_and_histories(study: Path) -> None:
    tracked = run(study, "git", "ls-files").stdout.splitlines()
    assert {"dvc.lock", "metrics/summary/own_rate.json", "plots/curves.csv", "settings/choices.json"} <= set(tracked)
    assert not [
        name
        for name in tracked
        if re.match(r"data/(raw|prepared)/|models/|metrics/(sweep|train|averages|batch)/", name)
    ]
    assert run(study, "git", "status", "--porcelain").stdout == ""


def test_every_command_of_the_tour(copy: Path) -> None:
    """On a study that is smaller still: so what is printed differs in numbers, and in how many stages it names.

    It changes the decay, of which all depends that has moving averages, and nothing else.
    """
    before = outputs(copy)
    unchanged = (copy / "params.yaml").read_text()
    edit("train", "decay", value=0.8)(copy)
    said = planned(copy)
    (copy / "params.yaml").write_text(unchanged)
    shown, printed = (tour.outputs(text) for text in (tour.TEXT, tour.play(tour.TEXT, copy)))
    assert [(command, bool(out)) for command, out in printed] == [(command, bool(out)) for command, out in shown]
    everywhere = [dict(outs) for outs in (shown, printed)]
    for outs in everywhere:
        assert re.search(r"train.decay +0.9\d* +0.8", outs["dvc params diff"])
        assert "own_rate.json" in outs["dvc metrics diff"]
        assert "Running stage 'tune'" in outs["dvc repro | grep Running"]
    for pairs in (shown, printed):
        changed, back = (re.findall("'(.+)'", out) for command, out in pairs if command.startswith("dvc repro"))
        assert set(OWN) <= set(changed)
        assert not set(NOTE) & set(changed)
        assert set(back) == {"check", "shortlist", "tune", "evaluate", "report"}
    tuned = [*CHECK, SWEEP_BATCH, "shortlist", REFINE_BATCH, "tune"]
    assert sorted(changed) == sorted([*tuned, *OWN, *AVERAGES, *WITH, *BELOW])
    held(said, set(changed))
    made = outputs(copy)
    assert {path for path in before if made.get(path) != before[path]} == set()


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
    edit("rules", "contest_target", value=0.5)(copy)
    edit("plot", "width", value=5.0)(copy)
    assert re.findall(r"^Running stage '(.+)':", stdout("dvc", "repro"), re.MULTILINE) == [*CHECK, *BELOW]
    assert "rules.contest_target" in stdout("dvc", "params", "diff")
    assert "test_accuracy" in stdout("dvc", "metrics", "show")
    stdout("dvc", "plots", "show", "--out", "page")
    assert "accuracy" in (copy / "page/index.html").read_text()
    assert "nothing to run" in stdout("python", str(ROOT / "tools/plan.py"))


def test_the_example_of_the_model_note(copy: Path) -> None:
    _, code, _ = re.split("```(?:python)?\\n", (ROOT / "docs/models.md").read_text())
    digits = json.loads(run(copy, "python", "-c", code, PYTHONPATH="src").stdout)
    assert len(digits) == 10
    assert set(digits) <= set(range(10))
