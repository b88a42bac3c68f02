"""A trained network as a file, and back: safetensors, no pickle."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from bnstudy import BadInput
from bnstudy.engine.device import environment
from bnstudy.engine.network import Network

if TYPE_CHECKING:
    from bnstudy.params import Arm


def to_bytes(network: Network, name: str, arm: "Arm", seed: int, device: torch.device) -> bytes:
    """Weights and moving averages, float32, with what trained them; `name` is that of the model or arm.

    One metadata key: safetensors writes several in an order that changes from run to run.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    record = described(name, arm, seed) | {"environment": environment(device)}
    return save(state, {"bnstudy": json.dumps(record)})


def described(name: str, arm: "Arm", seed: int) -> dict[str, Any]:
    return {"name": name, "seed": seed, "arm": arm.model_dump(exclude_none=True)}


def from_file(path: Path, name: str, arm: "Arm", seed: int) -> Network:
    """The network that `to_bytes` wrote. Raises `BadInput` unless it was trained as `arm` says, from `seed`."""
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {})["bnstudy"])
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if {key: record[key] for key in ("name", "seed", "arm")} != described(name, arm, seed):
            raise BadInput(f"{path}: was not trained as the parameters say; `dvc checkout {path}`, then `dvc repro`")
        network = Network(arm.network)
        network.load_state_dict(state)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{path}: is not a model of this study ({reason}); remove it and run `dvc repro`") from None
    return network
