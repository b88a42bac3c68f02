"""Run `python -m bnstudy.train` with these arguments until its first update is done, and print the time (Unix, s)."""

import json
import runpy
import time
from collections.abc import Iterator
from typing import Any

from bnstudy import training

updates = training.updates


def first_update(*arguments: Any, **keywords: Any) -> Iterator[Any]:
    _, loss, _ = next(updates(*arguments, **keywords))
    loss.item()  # waits for a GPU
    print(json.dumps({"first_update": time.time()}))
    raise SystemExit


training.updates = first_update
runpy.run_module("bnstudy.train", run_name="__main__")
