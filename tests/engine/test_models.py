"""A trained network as a file."""

import json
import struct

import torch

from bnstudy.engine.models import to_bytes
from bnstudy.engine.network import build
from conftest import setting_of

BATCH = setting_of().network
CPU = torch.device("cpu")


def test_saved_weights_have_the_same_bytes_each_time_and_no_pickle() -> None:
    content = to_bytes(build(BATCH, 0, CPU), "batch_norm", BATCH, 0, CPU)
    assert all(to_bytes(build(BATCH, 0, CPU), "batch_norm", BATCH, 0, CPU) == content for _ in range(5))
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert json.loads(header["__metadata__"]["bnstudy"])["network"]["decay"] == 0.95
    assert header["fc1.weight"]["shape"] == [1024, 64, 7, 7]
