"""What judges version 3 of the study, and what trained for it, stands as in the commit that fixed the rules."""

import hashlib
import json
import re
from typing import Any

import yaml

from bnstudy.study.claim import judge
from bnstudy.study.claims import CLAIMS
from bnstudy.study.params import load
from conftest import ROOT, run
from made_up import held

COMMIT = re.search(r"^\| 3 \|.*`([0-9a-f]{40})`", (ROOT / "docs/changes.md").read_text(), re.MULTILINE)[1]
SCRIPTS = [f"src/study_{name}.py" for name in ("sweep", "train", "averages", "mechanism")]
STAGES = ("sweep", "train", "averages", "long", "mechanism")
GROWS = {"entries", "seeds", "plot"}  # and the seeds of `long`
# Of all that the parameters say of each run: what is trained, and what its record says was trained.
DEFINED = "50d3d4dcd0656f622d7bb115fb28c3c2da1e1c410f7abe07bf94394edf9ce87a"
# Of what is found of made-up runs: every number of every part of a claim, with its verdict.
JUDGED = "077c8464dbf8f18d37acaa46213bff18188efcd9152f05ea66ece704d2736186"


def digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def then(path: str) -> Any:
    return yaml.safe_load(run(ROOT, "git", "show", f"{COMMIT}:{path}").stdout)


def now(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def test_the_engine_and_the_scripts_that_train_stand_still() -> None:
    run(ROOT, "git", "diff", "--exit-code", COMMIT, "--", "src/bnstudy/engine", *SCRIPTS)
    before, after = then("study/dvc.yaml")["stages"], now("study/dvc.yaml")["stages"]
    assert before["sweep"].pop("matrix") == {"entry": "${sweep}"}
    assert after["sweep"].pop("matrix") == {"entry": "${entries}"}
    assert {stage: after[stage] for stage in STAGES} == {stage: before[stage] for stage in STAGES}


def test_rules_arms_and_rates_are_those_that_were_fixed() -> None:
    before, after = then("study/params.yaml"), now("study/params.yaml")
    for tree in (before, after):
        tree["long"].pop("seeds")
    assert {key: value for key, value in after.items() if key not in GROWS} == {
        key: value for key, value in before.items() if key not in GROWS
    }
    assert json.loads((ROOT / "study/fixed_rules.json").read_text()) == before["rules"]
    assert after["arms"]["same_rate"]["learning_rate"] == after["arms"]["baseline"]["learning_rate"]


def test_the_parameters_still_say_the_same_of_every_run() -> None:
    """DVC sees the files that trainings read, but not how `bnstudy.study.params` reads them."""
    study, said = load(ROOT / "study/params.yaml"), list[Any]()
    groups = {"train": study.arms, "averages": study.averages, "long": study.long.arms, "sweep": study.sweep}
    for stage, group in groups.items():
        for name, one in group.items():
            rates = one.learning_rates if stage == "sweep" else [one.learning_rate]
            said += [study.arm(one, rate).model_dump(exclude_none=True) for rate in rates]
            said.append(study.definition(stage, name))
    assert digest(said) == DEFINED
    runtime = now("params.yaml")["runtime"]
    assert (runtime["threads"], runtime["deterministic"]) == (1, True)


def test_the_same_runs_are_judged_alike() -> None:
    """Words may change, and the code; what is measured and how it is held against a rule may not."""
    found = [
        [one.name, one.verdict, *(f"{number:.4g}" for part in one.parts for number in (part.value, part.low, part.high)
                                  if number is not None)]
        for one in judge(CLAIMS, held())
    ]  # fmt: skip
    assert digest(found) == JUDGED
