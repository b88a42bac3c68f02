"""The words for a claim and its parts, and metrics/claims.json."""

import re
from pathlib import Path
from typing import Any

import pytest

from bnstudy import BadInput
from bnstudy.analysis.claim import CLAIMS_FILE, Claim, Finding, Part, filled, read_findings, write_findings
from bnstudy.analysis.claims import CLAIMS, read_claims
from bnstudy.params import load
from conftest import ROOT

RULES = load(ROOT / "params.yaml").summarize
QUANTITIES = {quantity.name: quantity for claim in CLAIMS for quantity in claim.quantities}
PART = Part(
    part="to 97%, original",
    quantity="ratio of steps",
    estimate=0.5,
    low=0.25,
    high=0.75,
    bound="exact",
    p=0.0625,
    probability_better=1,
    runs=5,
    censored_a=0,
    censored_b=0,
    rule="below 1×",
    verdict="supported",
)


def changed(**change: Any) -> Part:
    return PART.model_copy(update=change)


def found(number: int, verdict: Any, *parts: Part, open_because: str | None = None) -> tuple[Claim, Finding]:
    finding = Finding(
        id=number, claim="It is.", measured="So.", verdict=verdict, open_because=open_because, parts=parts
    )
    return CLAIMS[number - 1], finding


def reading(number: int, verdict: Any, *parts: Part, open_because: str | None = None) -> str:
    claim, finding = found(number, verdict, *parts, open_because=open_because)
    return claim.reading(finding, RULES)


@pytest.mark.parametrize(
    ("change", "estimate", "interval", "missed"),
    [
        ({}, "0.500×", "0.250 to 0.750", ""),
        ({"estimate": 123.4, "low": 99.0, "high": 1234.0}, "123×", "99.0 to 1.23e+03", ""),
        (
            {"bound": "at most", "low": None, "censored_b": 2},
            *("≤ 0.500×", "up to 0.750", "not reached by 2 of 5 runs without"),
        ),
        (
            {"bound": "none", "estimate": None, "low": None, "high": None, "censored_a": 1, "censored_b": 2},
            *("no estimate", "no interval", "not reached by 1 of 5 runs with batch norm and 2 of 5 runs without"),
        ),
        (
            {"quantity": "lag", "bound": "at least", "estimate": 1234.5, "low": 1000, "high": None}
            | {"censored_a": 3, "p": None},
            *("≥ 1,234 updates", "from 1,000", "not reached by 3 of 5 runs"),
        ),
        ({"quantity": "difference of test accuracy", "low": -0.25}, "+50.00 points", "−25.00 to +75.00", ""),
        ({"quantity": "difference of test accuracy", "low": -1e-9}, "+50.00 points", "+0.00 to +75.00", ""),
        ({"quantity": "accuracy"}, "50.00%", "25.00% to 75.00%", ""),
        ({"quantity": "training loss minus the floor", "estimate": -0.5}, "−0.5000 nats", "+0.2500 to +0.7500", ""),
        ({"quantity": "difference of range", "low": None, "high": None}, "+0.50 decades", "no interval", ""),
    ],
)
def test_a_part_as_text(change: dict[str, Any], estimate: str, interval: str, missed: str) -> None:
    part = changed(**change)
    assert QUANTITIES[part.quantity].shown(part) == (estimate, interval, missed)


NUMBERS = "to 97%, original: 0.500× (0.250 to 0.750)."


@pytest.mark.parametrize(
    ("number", "verdict", "runs", "text"),
    [
        (1, "supported", 5, "Batch norm got to each target in fewer updates than the network without"),
        (1, "refuted", 5, "To one target or more, batch norm took more updates than the network without"),
        (2, "not decided", 5, "Not decided, since an interval leaves both answers open"),
        (2, "not decided", 3, "Not decided, since a verdict takes 5 runs, not 3"),
    ],
)
def test_what_is_said_follows_the_verdict(number: int, verdict: str, runs: int, text: str) -> None:
    assert reading(number, verdict, changed(runs=runs, verdict=verdict)) == f"{text} – {NUMBERS}"


def test_claim_5_says_that_it_is_open_because_the_averages_were_cold() -> None:
    part = changed(quantity="ratio of standard deviations", verdict="not decided")
    because = "0.999 was not warm in time"
    assert reading(5, "not decided", part, open_because=because) == f"Not decided, since {because} – {NUMBERS}"
    assert "both answers open" in reading(5, "not decided", part)


def test_a_target_that_few_runs_reached_is_why_a_claim_is_open() -> None:
    lost = changed(estimate=None, low=None, high=None, verdict="not decided")
    text = reading(1, "not decided", PART, lost)
    assert text.startswith("Not decided, since too few runs got that far for an estimate – ")


def test_there_are_words_for_every_verdict_on_every_claim() -> None:
    assert [claim.id for claim in CLAIMS] == list(range(1, 10))
    texts = {filled(text, RULES) for claim in CLAIMS for text in (claim.statement, claim.supported, claim.refuted)}
    assert len(texts) == 27
    assert "The final accuracies differ by more than 0.1 points" in texts
    assert "A decay of 0.999 is more stable than 0.95 once warm." in texts
    assert not any(re.search("[{}]", text) for text in texts)
    assert reading(8, "not measured").startswith("Not measured")


def test_findings_are_read_as_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    findings = [found(1, "supported", PART, changed(low=None))[1], found(2, "not measured")[1]]
    write_findings(findings)
    assert read_findings() == findings


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"rule":', '"rules":'),
        ('"estimate": ', '"estimate": "?", "e": '),
        ('"supported"', '"open"'),
        ('"ratio of steps"', '"accuracy"'),
        ('"id": 9', '"id": 8'),
        ("]\n", ""),
    ],
)
def test_claims_of_another_study_are_refused(
    old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_findings([found(1, "supported", PART)[1], *(found(number, "not measured")[1] for number in range(2, 10))])
    assert [finding.id for _, finding in read_claims()] == list(range(1, 10))
    text = CLAIMS_FILE.read_text()
    assert old in text
    CLAIMS_FILE.write_text(text.replace(old, new))
    with pytest.raises(BadInput, match=rf"{CLAIMS_FILE}: "):
        read_claims()
