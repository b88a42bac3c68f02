"""docs/tour.md, replayed: each of its commands reaches the stages and the errors that stand below it. `make tour`.

`make test` leaves this file out: it trains for minutes.
"""

import re
import sys
from pathlib import Path

import tour
from conftest import clone, run
from toy import commit


def gist(printed: str) -> list[str]:
    """Of what a command prints, what is the same on every machine: kinds of stages, parameters, errors; in any order.

    Which seed's stage is named differs: of stages that only come from the cache DVC names some.
    """
    return sorted(re.findall(r"\w+@\w+|study/\w+|'plot'|(?:models|train)\.[\w.]+|error: .+", printed))


def test_the_tour_prints_what_it_says(tmp_path: Path) -> None:
    folder = clone(tmp_path / "demo")
    run(folder, sys.executable, "tools/small.py")
    run(folder, "dvc", "repro", "dvc.yaml")
    commit(folder)
    played, written = tour.outputs(tour.play(tour.TEXT, folder)), tour.outputs(tour.TEXT)
    assert len(written) > 15
    assert [(command, gist(printed)) for command, printed in played] == [
        (command, gist(printed)) for command, printed in written
    ]
