"""The simulation of many workers beside what can be told without one."""

import math

from hypothesis import given
from hypothesis import strategies as st

from scale import Costs, simulate


@given(st.integers(1, 300), st.integers(1, 300))
def test_runs_of_one_length_go_in_rounds(runs: int, workers: int) -> None:
    costs = Costs()
    rounds = math.ceil(runs / workers) * (costs.run + costs.worker)
    lock = costs.lock * runs * (runs - 1) / 2
    driver = runs * (costs.plan + costs.record + costs.check) + lock
    found = simulate(runs, workers, costs)
    assert math.isclose(found["seconds"], rounds + driver)
    assert math.isclose(found["driver"], driver)


@given(st.integers(1, 300), st.integers(1, 300))
def test_one_more_worker_never_hurts(runs: int, workers: int) -> None:
    assert simulate(runs, workers + 1, Costs())["seconds"] <= simulate(runs, workers, Costs())["seconds"]
