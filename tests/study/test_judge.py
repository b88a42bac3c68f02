"""The whole stage on made-up runs: its tables against values computed otherwise, and the same bytes each time."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter
from ruamel.yaml import YAML

import study_judge
from bnstudy.study import theory
from bnstudy.study.claim import Finding
from bnstudy.study.params import Study
from bnstudy.study.records import Results
from made_up import ENVIRONMENT, SEEDS, STUDY, V1, V2, averages, curves, mechanism, sweep, write


def study_of(folder: Path, params: Study) -> None:
    """Made-up runs of `params` in the folder, and its study/params.yaml."""
    made = Results(curves(params), averages(params), sweep(params), mechanism(params), params)
    write(made, folder)
    with (folder / "study/params.yaml").open("w") as file:
        YAML(typ="safe").dump(params.model_dump(exclude_none=True), file)


def judged(folder: Path) -> dict[str, bytes]:
    study_judge.main()
    written = [path for name in ("metrics", "plots") for path in (folder / "study" / name).rglob("*.*")]
    return {str(path.relative_to(folder / "study")): path.read_bytes() for path in written}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    study_of(root, STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        judged(root)
    return root


def table(folder: Path, name: str) -> Any:
    return pd.read_csv(folder / f"study/plots/{name}.csv")


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / f"study/metrics/{name}.json").read_text())


def test_the_same_runs_give_the_same_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(folder)
    (folder / "study/metrics/summary/removed.json").write_text("{}")
    first = {name: (folder / "study" / name).read_bytes() for name in ("metrics/claims.json", "plots/dip.csv")}
    again = judged(folder)
    assert first == {name: again[name] for name in first}
    arms = [*STUDY.arms, *STUDY.averages, *STUDY.long.arms]
    names = {f"metrics/summary/{arm}.json" for arm in arms} | {"metrics/claims.json", "metrics/environment.json"}
    names |= {f"plots/{name}.csv" for name in ("curves", "dip", "theory", "ladder", "rates", "mechanism")}
    assert set(again) == names
    lines = capsys.readouterr().out.splitlines()[:12]
    assert lines[1].startswith(" 2 ✓ holds        With both tuned, batch norm is faster.  4.")


def test_the_findings(folder: Path) -> None:
    found = TypeAdapter(list[Finding]).validate_json((folder / "study/metrics/claims.json").read_bytes())
    assert [one.verdict for one in found] == ["holds"] * 12
    assert [one.question for one in found] == ["faster"] * 5 + ["averages"] * 6 + ["update_ops"]
    assert [one.name for one in found] == [name for name in type(STUDY.rules).model_fields if name != "ladder"]


def test_the_dip_is_the_gap_to_precise_statistics_over_the_seeds(folder: Path) -> None:
    dip, runs = table(folder, "dip"), averages(STUDY)
    row = dip[(dip["decay"] == 0.99) & (dip["step"] == 139) & (dip["start_variance"] == 10)].iloc[0]
    at = runs[(runs["step"] == 139) & (runs["network"] == "note_batch_norm")]
    precise = at[at["statistics"] == "precise"].set_index("seed")["accuracy"]
    gaps = at[(at["statistics"] == "start_10")].set_index("seed")["accuracy"] - precise
    assert row["statistics"] == "moving"
    assert row[["difference", "low", "high"]].tolist() == pytest.approx([gaps.mean(), gaps.min(), gaps.max()], abs=1e-5)
    assert (row["seeds"], row["conv1_variance"], row["conv2_variance"]) == (10, V1, V2)
    assert (row["age"], row["start_weight"]) == pytest.approx((-139 * math.log(0.99), 0.99**139), rel=1e-5)
    assert list(dip) == study_judge.DIP
    kinds = {*map(tuple, dip[["network", "statistics", "start_variance"]].to_numpy().tolist())}
    corrected = {("note_batch_norm", "corrected", 1.0), ("note_batch_norm", "means_corrected", 1.0)}
    starts = {("note_batch_norm", "moving", start) for start in (1.0, 10.0, 0.1)}
    assert kinds == corrected | starts | {("standardized", kind, 1.0) for kind in ("moving", "corrected")}
    assert not dip.isna().any().any()


def test_the_theorys_lines(folder: Path) -> None:
    lines = table(folder, "theory")
    assert lines.groupby(["network", "start_variance"]).size().to_dict() == {
        ("note_batch_norm", 0.1): 200,
        ("note_batch_norm", 1.0): 200,
        ("note_batch_norm", 10.0): 200,
        ("standardized", 1.0): 200,
    }
    row = lines[(lines["start_variance"] == 10)].iloc[120]
    assert row["excess"] == pytest.approx(theory.excess(row["start_weight"], V1, V2, 10), rel=1e-4)
    usual = lines[(lines["network"] == "note_batch_norm") & (lines["start_variance"] == 1)]
    assert usual.loc[usual["excess"].idxmax(), "start_weight"] == pytest.approx(0.249, abs=0.01)


def test_the_ladder(folder: Path) -> None:
    ladder = table(folder, "ladder").set_index("rung")
    assert list(ladder.index) == [
        "note_plain",
        "plain_own_rate",
        "baseline",
        "same_rate",
        "own_rate",
        "everywhere",
        "he",
        "he_ramp",
    ]
    assert ladder["from"].fillna("").tolist() == ["", *ladder.index[:5], "note_plain", "note_plain"]
    assert ladder["side"].tolist() == [0] * 6 + [1] * 2
    assert ladder.loc["own_rate", "label"] == "its own rate (0.1)"
    change = ladder.loc["own_rate", "accuracy"] - ladder.loc["same_rate", "accuracy"]
    assert ladder.loc["own_rate", "change"] == pytest.approx(change, abs=1e-5)
    assert ladder.loc["own_rate", "low"] < change < ladder.loc["own_rate", "high"]
    assert pd.isna(ladder.loc["note_plain", "change"])


def test_the_rates(folder: Path) -> None:
    rates = table(folder, "rates")
    assert len(rates) == sum(len(one.learning_rates) * len(one.seeds) for one in STUDY.sweep.values())
    lost = rates[(rates["entry"] == "plain") & (rates["learning_rate"] == 3.2)]
    assert lost["diverged"].tolist() == [1, 1, 1]
    assert lost["accuracy"].isna().all()
    best = rates[rates["best"] == 1].groupby("entry")["learning_rate"].first()
    assert best["plain"] == 0.01
    assert best["batch_norm_he"] == 0.032
    assert best["tuning_own_rate"] == 0.056  # all reach 98% at once, and the first of them counts
    reached = rates[rates["entry"] == "tuning_own_rate"]["updates_to_98"]
    assert reached.between(57, 59).all()  # the first evaluation after 50, but for the way there


@pytest.mark.parametrize(
    ("accuracies", "updates", "by_accuracy", "by_updates"),
    [
        ([0.97, 0.99, 0.98], [300, 250, 200], 2.0, 3.0),
        ([0.97, 0.99, 0.98], [np.nan, np.nan, np.nan], 2.0, 2.0),  # none gets there: the most accurate
        ([0.97, 0.99, 0.98], [300, 250, np.nan], 2.0, 2.0),
        ([0.97, np.nan, np.nan], [np.nan] * 3, 1.0, 1.0),  # the others diverged
    ],
)
def test_the_best_rate(accuracies: list[float], updates: list[float], by_accuracy: float, by_updates: float) -> None:
    runs = pd.DataFrame({"learning_rate": [1.0, 2.0, 3.0], "accuracy": accuracies, "updates_to_98": updates})
    assert study_judge.best_rate(runs, None) == by_accuracy
    assert study_judge.best_rate(runs, 0.98) == by_updates
    some = pd.concat([runs, runs.assign(updates_to_98=[np.nan, 240, 220])])  # one seed of the first never does
    assert study_judge.best_rate(some, 0.98) == by_updates


def test_the_mechanism(folder: Path) -> None:
    found = table(folder, "mechanism")
    assert len(found) == 2 * STUDY.mechanism.points
    assert found["difference"].tolist()[:: STUDY.mechanism.points - 1][:2] == pytest.approx([0, -0.5])


def test_the_summaries(folder: Path) -> None:
    runs = curves(STUDY)
    last = runs[(runs["arm"] == "own_rate") & (runs["step"] == 500)]
    found = read(folder, "summary/own_rate")
    assert found["test_accuracy"] == pytest.approx(last["test_accuracy"].mean(), rel=1e-5)
    assert (found["test_loss"], found["updates_to_95"]) == (0.1, pytest.approx(32, rel=0.05))
    assert found["updates_to_98"] == pytest.approx(80, rel=0.05)
    assert set(read(folder, "summary/note_plain")) == {"test_accuracy", "test_loss"}  # none ever gets there
    assert read(folder, "summary/note_plain_long")["updates_to_95"] == pytest.approx(1500, rel=0.1)


def test_the_environments(folder: Path) -> None:
    runs, here = read(folder, "environment")
    assert {key: runs[key] for key in ENVIRONMENT} == ENVIRONMENT
    assert len(runs["runs"]) == len(list((folder / "study/runs").rglob("*.json")))
    assert here["mixed_seeds"] == []


def test_seeds_whose_runs_were_made_on_two_kinds_of_machines_are_told() -> None:
    other = ENVIRONMENT | {"processor": "B"}
    runs = {"train/he/22": ENVIRONMENT, "train/he/23": ENVIRONMENT, "train/own_rate/23": other, "sweep/plain": other}
    one, two, here = study_judge.environments(runs, STUDY)
    assert (one["runs"], two["runs"]) == (["train/he/22", "train/he/23"], ["train/own_rate/23", "sweep/plain"])
    assert here["mixed_seeds"] == [23]
    tolerance = {"sweep/tolerance_plain_he": ENVIRONMENT, "sweep/tolerance_batch_norm_hidden_he": other}
    assert study_judge.environments(tolerance, STUDY)[-1]["mixed_seeds"] == STUDY.registered
    assert study_judge.environments(dict.fromkeys(tolerance, other), STUDY)[-1]["mixed_seeds"] == []


def test_a_small_study_goes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seeds, few arms, decays and entries; no other starts and no long runs."""
    network = STUDY.averages["note_batch_norm"]
    small = network.model_copy(update={"decays": [0.5, 0.9, 0.95], "steps": 200, "other_starts": None})
    some = ("note_plain", "baseline", "own_rate")
    study = STUDY.model_copy(
        update={
            "seeds": SEEDS[:2],
            "arms": {name: STUDY.arms[name].model_copy(update={"steps": 200}) for name in some},
            "averages": {"note_batch_norm": small},
            "long": STUDY.long.model_copy(update={"seeds": [], "arms": {}}),
            "mechanism": STUDY.mechanism.model_copy(update={"seeds": [22], "points": 5}),
            "entries": ["plain"],
        }
    )
    study_of(tmp_path, study)
    monkeypatch.chdir(tmp_path)
    written = judged(tmp_path)
    found = {one["name"]: one for one in json.loads(written["metrics/claims.json"])}
    assert [name for name, one in found.items() if one["verdict"] != "not measured"] == ["note", "tuned"]
    assert found["tuned"]["why"] == "2 seeds are too few for an interval."
    assert found["cause"]["sentence"].startswith("Not measured: no moving statistics of decay 0.99")
    assert {*pd.read_csv(tmp_path / "study/plots/dip.csv")["decay"]} == {0.5, 0.9, 0.95}
    assert pd.read_csv(tmp_path / "study/plots/ladder.csv").empty  # nothing has 300 updates


def test_no_runs_but_of_the_arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = {"averages": {}, "entries": [], "long": STUDY.long.model_copy(update={"seeds": [], "arms": {}})}
    none = STUDY.mechanism.model_copy(update={"seeds": []})
    study_of(tmp_path, STUDY.model_copy(update=empty | {"mechanism": none, "seeds": SEEDS[:1]}))
    monkeypatch.chdir(tmp_path)
    written = judged(tmp_path)
    for name in ("dip", "theory", "rates", "mechanism"):
        assert written[f"plots/{name}.csv"].count(b"\n") == 1
