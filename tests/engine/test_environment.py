"""Environment variables by which PyTorch and Numba would compute other bits: the engine takes them away."""

import os
import subprocess
import sys
from functools import cache

import pytest

from conftest import ROOT

CODE = """
import hashlib
import bnstudy.engine.fast_cpu
import torch
from bnstudy.engine import device, network, training
from bnstudy.params import load
from bnstudy.settings import setting
params = load()
setting = setting(params, "batch_norm", 0.1, 2).at(batch_size=32)
where = device.prepare(params.runtime.model_copy(update={"device": "cpu", "threads": 1}))
net = network.build(setting.network, 0, where)
random = torch.Generator().manual_seed(0)
images = torch.randint(0, 256, (64, 28, 28), generator=random, dtype=torch.uint8)
labels = torch.randint(0, 10, (64,), generator=random)
list(training.updates(net, training.accumulators(net, setting), images, labels, setting, 0))
digest = hashlib.sha256()
for tensor in net.state_dict().values():
    digest.update(tensor.numpy().tobytes())
print(digest.hexdigest(), device.environment(where))
"""


@cache
def two_updates(**environment: str) -> str:
    """The digest of the weights after two updates, and the environment that the run records."""
    environ = ENVIRONMENT | {"PYTHONPATH": str(ROOT / "src")} | environment
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


ENVIRONMENT = {
    key: value for key, value in os.environ.items() if not key.startswith(("ONEDNN", "MKL", "NUMBA", "ATEN"))
}


@pytest.mark.parametrize(
    "settings",
    [
        {
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "MKL_CBWR": "COMPATIBLE",
            "NUMBA_CPU_NAME": "generic",
            "NUMBA_CPU_FEATURES": "",
            "ATEN_CPU_CAPABILITY": "default",
        },
        {"NUMBA_DISABLE_JIT": "1"},  # with which those of Numba would have no effect
    ],
)
def test_variables_that_change_bits_are_taken_away(settings: dict[str, str]) -> None:
    assert two_updates(**settings) == two_updates()
