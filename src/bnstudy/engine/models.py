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
    from collections.abc import Callable

    from bnstudy.settings import Variant


def to_bytes(network: Network, arm: str, variant: "Variant", seed: int, device: torch.device) -> bytes:
    """Weights and moving averages, float32, with what is needed to build the network again and what trained it.

    One metadata key: safetensors writes several in an order that changes from run to run.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    record = {
        "arm": arm,
        "seed": seed,
        "network": variant.model_dump(exclude_none=True),
        "environment": environment(device),
    }
    return save(state, {"bnstudy": json.dumps(record)})


def from_file(
    path: Path, arm: str, seed: int, variant: "Callable[[dict[str, Any]], Variant]"
) -> tuple[Network, dict[str, object]]:
    """Rebuild the network that `to_bytes` wrote, and tell in what environment it was trained (`device.environment`).

    `variant` makes a typed variant of the recorded one. Raises `BadInput` unless the file is that of `arm` and `seed`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {})["bnstudy"])
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if (record["arm"], record["seed"]) != (arm, seed):
            raise BadInput(f"{path}: holds {record['arm']} seed {record['seed']}, not {arm} seed {seed}")
        network = Network(variant(record["network"]))
        network.load_state_dict(state)
        trained_in = dict(record["environment"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{path}: is not a model of this study ({reason}); remove it and run `dvc repro`") from None
    return network, trained_in
