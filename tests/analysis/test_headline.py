"""The summaries, by hand and through the real DVC, and the headline in its two layouts."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_claim import PART, changed, found

from bnstudy import BadInput
from bnstudy.analysis import headline
from bnstudy.analysis.headline import Mean, Reached, Summary, read_summaries, write_summaries
from bnstudy.params import Study
from conftest import run

VARIANTS = ["batch_norm", "plain", "batch_norm_hidden", "plain_he"]
ACCURACY = Mean(mean=0.98765, low=0.98, high=0.99)


def summary(accuracy: Mean = ACCURACY, **updates_to: Reached) -> Summary:
    """Of three runs; targets by name: `at_97`."""
    return Summary(
        runs=3,
        confidence=0.95,
        test_accuracy=accuracy,
        test_loss=Mean(mean=0.0312345, low=0.03, high=0.04),
        updates_to={f"{name.removeprefix('at_')}%": found for name, found in updates_to.items()},
    )


SUMMARIES = {
    "a": summary(at_97=Reached(median=1201, reached=2), at_99=Reached(median=None, reached=0)),
    "b": summary(
        Mean(mean=0.98765, low=None, high=None),
        at_97=Reached(median=None, reached=1),
        at_99=Reached(median=101.5, reached=3),
    ),
}


@pytest.mark.parametrize(
    ("steps", "median"),
    [
        ([101], 101),
        ([None], None),
        ([301, 101, 201], 201),
        ([101, 202], 151.5),
        ([None, 101, 201], 201),
        ([None, None, 101], None),
        ([None, 101], None),  # between 101 and never
        ([101, None, 201, 301], 251),
    ],
)
def test_median_counts_never_as_later_than_any_step(steps: list[int | None], median: float | None) -> None:
    done = [step for step in steps if step is not None]
    assert headline.reached(steps) == Reached(median=median, reached=len(done))


@given(st.lists(st.none() | st.integers(1, 10_000), min_size=1, max_size=9))
def test_median_is_a_number_exactly_where_more_than_half_reached_it(steps: list[int | None]) -> None:
    median = headline.reached(steps).median
    done = [step for step in steps if step is not None]
    enough = len(done) > len(steps) / 2
    assert (median is not None) == enough
    if median is not None:
        assert 2 * sum(step < median for step in done) <= len(steps)
        assert 2 * (sum(step > median for step in done) + len(steps) - len(done)) <= len(steps)


def test_mean_of_two_accuracies_far_apart_has_an_interval_of_accuracies() -> None:
    found = headline.mean([0.3, 0.999], 0.95)
    assert found.low is not None
    assert found.high is not None
    assert (found.mean, found.low >= 0.3, found.high <= 0.999) == (0.6495, True, True)
    assert headline.mean([0.5, 0.5], 0.95) == Mean(mean=0.5, low=0.5, high=0.5)
    assert headline.mean([0.5], 0.95) == Mean(mean=0.5, low=None, high=None)


def test_the_headline_by_hand() -> None:
    claims = [found(1, "supported", PART), found(2, "not measured")]
    assert headline.markdown_headline(SUMMARIES, claims).splitlines() == [
        "2 claims: 1 supported, 1 not measured. Batch norm took 0.500 times the updates to 97% in the original's "
        "setting (interval: 0.250 to 0.750; supported).",
        "",
        "| variant | seeds | test accuracy (95% interval) | updates to 97% | updates to 99% |",
        "| --- | --: | --: | --: | --: |",
        "| `a` | 3 | 98.77% (98.00% to 99.00%) | 1,201 (2 of 3 runs) | never |",
        "| `b` | 3 | 98.77% (one seed) | 1 of 3 runs | 101.5 |",
    ]
    header, first, second, blank, *lines = headline.text_headline(SUMMARIES, claims).splitlines()
    assert " ".join(header.split()) == "variant seeds test accuracy (95% interval) updates to 97% updates to 99%"
    assert " ".join(first.split()) == "a 3 98.77% (98.00% to 99.00%) 1,201 (2 of 3 runs) never"
    assert " ".join(second.split()) == "b 3 98.77% (one seed) 1 of 3 runs 101.5"
    assert not blank
    assert [" ".join(line.split()) for line in lines] == [
        "1 It is. supported ratio of steps 0.500× (0.250 to 0.750), to 97%, original",
        "2 It is. not measured",
    ]


def test_a_line_shows_the_first_part_with_the_verdict_of_the_claim() -> None:
    refuted = [changed(part=name, verdict="refuted", bound="at least", high=None) for name in ("slow", "fast")]
    *_, line = headline.text_headline(SUMMARIES, [found(1, "refuted", PART, *refuted)]).splitlines()
    assert " ".join(line.split()) == "1 It is. refuted ratio of steps ≥ 0.500× (from 0.250), slow"


def test_the_result_counts_verdicts_and_quotes_the_highest_target_with_an_estimate() -> None:
    last = changed(part="to 99%, original", bound="at most", low=None)
    lost = changed(part="to 99%, fair", estimate=None, low=None, high=None)
    claims = [
        found(1, "supported", PART, last),
        found(2, "refuted", changed(part="to 98%, fair", verdict="refuted"), lost),
        found(3, "supported", changed(quantity="difference of test accuracy")),
        found(4, "not measured"),
    ]
    assert headline.result(claims) == (
        "4 claims: 2 supported, 1 refuted, 1 not measured. Batch norm took at most 0.500 times the updates to 99% in "
        "the original's setting (interval: up to 0.750; supported), and 0.500 times the updates to 98% against the "
        "fair baseline (interval: 0.250 to 0.750; refuted)."
    )
    assert headline.result(claims[3:]) == "1 claims: 1 not measured."


def test_summaries_are_read_as_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_summaries({"gone": SUMMARIES["a"]})
    write_summaries(SUMMARIES)
    assert sorted(path.name for path in Path("metrics/summary").iterdir()) == ["a.json", "b.json"]
    read = read_summaries(Study(variants=["b", "a"], seeds=[0]))
    assert list(read.items()) == [("b", SUMMARIES["b"]), ("a", SUMMARIES["a"])]
    with pytest.raises(BadInput, match=r"metrics/summary/c\.json: cannot be read"):
        read_summaries(Study(variants=["c"], seeds=[0]))


# `dvc metrics show` and `dvc exp show`


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one stage, whose metrics are the folder of summaries of four variants."""
    folder = tmp_path_factory.mktemp("metrics")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        targets = {f"at_{target}": Reached(median=1051, reached=3) for target in (95, 97, 98, 99)}
        never = targets | {"at_98": Reached(median=None, reached=0)}
        write_summaries({name: summary(ACCURACY, **(never if name == "plain" else targets)) for name in VARIANTS})
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    (folder / "dvc.yaml").write_text(
        "stages:\n  summarize:\n    cmd: 'true'\n    metrics:\n      - metrics/summary:\n          cache: false\n"
    )
    run(folder, "dvc", "commit", "--force", "--quiet")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "results")
    return folder


def test_dvc_metrics_show_is_a_table_of_one_row_per_variant(repository: Path) -> None:
    header, *rows = run(repository, "dvc", "metrics", "show").stdout.splitlines()
    assert header.split() == ["Path", "test_accuracy", "test_loss", "updates_to_98"]
    assert [row.split() for row in rows] == [
        [f"metrics/summary/{name}.json", "0.98765", "0.03123", "never" if name == "plain" else "1051"]
        for name in sorted(VARIANTS)
    ]
    assert max(map(len, [header, *rows])) <= 120


def test_dvc_exp_show_has_few_metrics(repository: Path) -> None:
    header, workspace, *_ = csv.reader(io.StringIO(run(repository, "dvc", "exp", "show", "--csv").stdout))
    shown: dict[str, Any] = dict(zip(header, workspace, strict=True))
    metrics = {name: value for name, value in shown.items() if name.startswith("metrics/")}
    assert len(metrics) == 3 * len(VARIANTS) <= 15
    assert metrics["metrics/summary/plain_he.json:test_accuracy"] == "0.98765"
    assert json.loads(run(repository, "dvc", "metrics", "diff", "--json", "HEAD").stdout) == {}
