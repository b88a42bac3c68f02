"""A trained network as a file."""

import json
import struct
from pathlib import Path

import pytest

from bnstudy import BadInput
from bnstudy.engine.models import from_file, to_bytes
from bnstudy.engine.network import build
from conftest import PARAMS
from tiny import CPU

ARM = PARAMS.arm("batch_norm")


def saved() -> bytes:
    return to_bytes(build(ARM.network, 0, CPU), "batch_norm", ARM, 0, CPU)


def test_saved_weights_have_the_same_bytes_each_time_and_no_pickle() -> None:
    content = saved()
    assert all(saved() == content for _ in range(5))
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert json.loads(header["__metadata__"]["bnstudy"])["arm"]["network"]["decay"] == 0.95
    assert header["fc1.weight"]["shape"] == [1024, 64, 7, 7]


def test_weights_of_another_training_are_refused(tmp_path: Path) -> None:
    (path := tmp_path / "10.safetensors").write_bytes(saved())
    from_file(path, "batch_norm", ARM, 0)
    others = [("plain", ARM, 0), ("batch_norm", ARM, 1), ("batch_norm", ARM.model_copy(update={"steps": 7}), 0)]
    for name, arm, seed in others:
        with pytest.raises(BadInput, match="was not trained as the parameters say"):
            from_file(path, name, arm, seed)
