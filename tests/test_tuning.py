"""How rates are chosen, beside small tables whose answer can be seen, and what an arm becomes by the choices."""

import math
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnstudy.engine.rows import ShortRow
from bnstudy.engine.short import best_rate
from bnstudy.params import Arm, Network, Params
from bnstudy.settings import Setting, setting
from bnstudy.tuning import Choices, choose, choose_rates, edge_of, refined, resolve, shortlist, slowness, times
from conftest import PARAMS

RATES = [0.01, 0.1, 1.0]


def short(rate: float, seed: int, step: int, accuracy: float) -> ShortRow:
    return ShortRow(seed, 1024, rate, step, 0, 0.5, 0.5, accuracy)


def sweep(**accuracies: list[float]) -> pd.DataFrame:
    """Of each network, the accuracy at each of RATES; its two seeds lie as far above it as below."""
    rows = [
        (network, *short(rate, seed, 150, accuracy + off))
        for network, its in accuracies.items()
        for rate, accuracy in zip(RATES, its, strict=True)
        for seed, off in ((100, 0.01), (101, -0.01))
    ]
    return pd.DataFrame(rows, columns=["network", *ShortRow._fields])


def refinement(**curves: list[list[float]]) -> pd.DataFrame:
    """Of each rate, named like `r0_1`, the accuracies of each seed after 100, 200, … updates."""
    rows = [
        short(float(name[1:].replace("_", ".")), 100 + seed, 100 * (at + 1), accuracy)
        for name, seeds in curves.items()
        for seed, accuracies in enumerate(seeds)
        for at, accuracy in enumerate(accuracies)
    ]
    return pd.DataFrame(rows, columns=ShortRow._fields)


def with_rate(network: str, rate: float) -> Params:
    networks = PARAMS.networks | {network: PARAMS.networks[network].model_copy(update={"rate": rate})}
    return PARAMS.model_copy(update={"networks": networks})


def test_a_network_gets_the_rate_of_the_best_mean_accuracy_and_an_edge_is_told() -> None:
    found = choose_rates(sweep(plain=[0.9, 0.8, 0.1], batch_norm=[0.7, 0.95, 0.9]), PARAMS.networks)
    assert found["plain"].model_dump() == {"rate": 0.01, "accuracy": 0.9, "edge": "lowest", "overruled": False}
    assert found["batch_norm"].model_dump() == {"rate": 0.1, "accuracy": 0.95, "edge": None, "overruled": False}


def test_a_number_in_params_yaml_overrules_the_sweep() -> None:
    found = choose_rates(sweep(plain=[0.9, 0.8, 0.1]), with_rate("plain", 0.02).networks)
    assert found["plain"].model_dump() == {"rate": 0.02, "accuracy": 0.9, "edge": "lowest", "overruled": True}


def test_the_best_network_of_each_kind_goes_on() -> None:
    accuracies = {"plain": 0.8, "plain_he": 0.9, "batch_norm_hidden": 0.7, "batch_norm": 0.95, "batch_norm_he": 0.94}
    found = choose_rates(sweep(**{name: [0.1, best, 0.1] for name, best in accuracies.items()}), PARAMS.networks)
    kinds = {"without": "plain_he", "hidden": "batch_norm_hidden", "everywhere": "batch_norm"}
    assert {kind: shortlist(kind, found, PARAMS.networks) for kind in kinds} == kinds


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_a_batch_size_is_tuned_as_the_sweep_is(accuracies: list[float]) -> None:
    rows = [short(rate, seed, 150, a) for rate, a in zip(RATES, accuracies, strict=True) for seed in (100, 101)]
    assert best_rate(rows) == RATES[accuracies.index(max(accuracies))]


def test_the_fewest_updates_to_the_target_are_chosen() -> None:
    """Half-way, in the logarithm, between 100 and 200 at the rate 0.1; at 0.18 one evaluation later in each seed."""
    fast, slow = [0.97, 0.99, 0.99, 0.99, 0.99], [0.90, 0.97, 0.99, 0.99, 0.99]
    table = refinement(r0_056=[slow, slow], r0_1=[fast, fast], r0_18=[slow, slow])
    found = refined("plain", "chosen", table, 0.98)
    assert (found.rate, found.edge, found.overruled) == (0.1, None, False)
    assert found.updates == pytest.approx(100 * math.sqrt(2), rel=1e-5)


def test_a_rate_at_which_a_seed_never_gets_there_is_slower_than_any_at_which_all_do() -> None:
    fast, slow, never = [0.99] * 5, [0.9, 0.9, 0.99, 0.99, 0.99], [0.9, 0.99, 0.9, 0.9, 0.99]
    found = refined("plain", "chosen", refinement(r0_1=[fast, never], r0_18=[slow, slow]), 0.98)
    assert (found.rate, found.edge) == (0.18, "highest")


def test_without_any_seed_at_the_target_the_best_last_accuracy_is_chosen() -> None:
    found = refined("plain", "chosen", refinement(r0_1=[[0.5, 0.6]], r0_18=[[0.6, 0.7]]), 0.98)
    assert (found.rate, found.updates) == (0.18, None)


@given(st.lists(st.floats(1, 1e4) | st.just(math.inf), min_size=1, max_size=4), st.floats(0.1, 0.9))
def test_faster_is_less_slow(its: list[float], factor: float) -> None:
    assert slowness([time * factor for time in its]) <= slowness(its)


def test_edges() -> None:
    assert [edge_of(rate, RATES) for rate in RATES] == ["lowest", None, "highest"]
    assert edge_of(0.1, [0.1]) is None


def test_a_rate_times_a_factor_is_a_short_number() -> None:
    assert times(0.032, 1.8) == 0.0576
    assert times(0.032, 0.56) == 0.0179  # of 0.01792


@pytest.fixture(scope="module")
def choices() -> Choices:
    """`plain_he` and `batch_norm_hidden` win; the latter is faster than `batch_norm`."""
    table = sweep(
        plain=[0.8, 0.7, 0.1], plain_he=[0.9, 0.8, 0.1], batch_norm_hidden=[0.9, 0.96, 0.9], batch_norm=[0.7, 0.95, 0.9]
    )
    return chosen(PARAMS, table)


def chosen(params: Params, table: pd.DataFrame) -> Choices:
    fast, slow = [0.99] * 5, [0.9, 0.9, 0.99, 0.99, 0.99]
    networks = {"without": "plain_he", "hidden": "batch_norm_hidden", "everywhere": "batch_norm"}
    return choose(
        params,
        networks,  # type: ignore[arg-type]  # mypy widens the literals
        table,
        {
            "without": refinement(r0_01=[slow], r0_018=[slow[1:]]),
            "hidden": refinement(r0_1=[fast], r0_18=[slow]),
            "everywhere": refinement(r0_1=[slow], r0_18=[slow]),
        },
    )


def test_the_contest_is_the_best_without_against_the_faster_of_two_with(choices: Choices) -> None:
    assert choices.contest == {"without": "without", "with": "hidden"}
    assert list(choices.lines())[-1] == (
        "everywhere: batch_norm at the rate 0.1, there after 287 updates (the lowest of those tried: the best may lie "
        "beyond)"
    )


def test_a_rate_that_was_never_tried_wins_no_contest() -> None:
    table = sweep(plain_he=[0.9, 0.8, 0.1], batch_norm_hidden=[0.9, 0.96, 0.9], batch_norm=[0.7, 0.95, 0.9])
    overruled = PARAMS.networks | {"batch_norm": PARAMS.networks["batch_norm"].model_copy(update={"rate": 0.5})}
    found = chosen(PARAMS.model_copy(update={"networks": overruled}), table)
    assert (found.finalists["everywhere"].rate, found.contest["with"]) == (0.5, "hidden")


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ({"network": "plain", "rate": "note"}, ("plain", 0.1, 0)),
        ({"network": "plain", "rate": "own"}, ("plain", 0.01, 0)),
        ({"network": "plain_he", "rate": "note", "ramp_steps": 100}, ("plain_he", 0.1, 100)),
        ({"network": "without", "rate": "own"}, ("plain_he", 0.018, 0)),
        ({"network": "hidden", "rate": "baseline"}, ("batch_norm_hidden", 0.018, 0)),
        ({"network": "hidden", "rate": "own"}, ("batch_norm_hidden", 0.1, 0)),
        ({"network": "plain", "rate": 0.5}, ("plain", 0.5, 0)),
    ],
)
def test_an_arm_becomes_a_network_at_a_rate(choices: Choices, arm: dict[str, Any], expected: tuple[Any, ...]) -> None:
    found = resolve(PARAMS, choices, Arm.model_validate(arm | {"steps": 700}), None)
    assert (found.name, found.learning_rate.initial, found.learning_rate.ramp_steps) == expected
    assert found.steps == 700
    assert resolve(PARAMS, choices, Arm.model_validate(arm | {"steps": 700}), 10_000).steps == 10_000


def test_an_overruled_network_keeps_its_number_through_the_refinement() -> None:
    found = refined("plain", 0.02, refinement(r0_1=[[0.99] * 5]), 0.98)
    assert (found.rate, found.overruled) == (0.02, True)


def test_a_setting_holds_what_its_network_uses_and_comes_back_from_its_file() -> None:
    """So that a new decay leaves the bytes of a network without moving averages."""
    decay = PARAMS.model_copy(update={"train": PARAMS.train.model_copy(update={"decay": 0.5})})
    for name, same in (("plain", True), ("batch_norm", False)):
        before, after = setting(PARAMS, name, 0.1, 5).to_bytes(), setting(decay, name, 0.1, 5).to_bytes()
        assert (before == after) is same
        assert Setting.model_validate_json(before) == setting(PARAMS, name, 0.1, 5)


@pytest.mark.parametrize(
    ("network", "kind"),
    [
        ({"normalization": "none"}, "without"),
        ({"normalization": "batch", "normalize_logits": False}, "hidden"),
        ({"normalization": "batch", "normalize_logits": True}, "everywhere"),
        ({"normalization": "layer", "normalize_logits": False}, None),
    ],
)
def test_kinds_of_networks(network: dict[str, Any], kind: str | None) -> None:
    assert Network.model_validate(network | {"initializer": "he", "rate": "chosen"}).kind() == kind
