"""Stage `train`: train one variant from one seed, and write its weights and its history.

python -m bnstudy.train --variant batch_norm --seed 0
"""

import argparse
import json
import time
from pathlib import Path

import torch
from safetensors.torch import save
from tqdm import tqdm

from bnstudy import device as devices
from bnstudy.checkpoint import Checkpoint, catch_signals
from bnstudy.network import Network, build
from bnstudy.params import BadInput, Runtime, Seed, Train, Variant, argument, load
from bnstudy.stage import arguments_of_stage, run, write, write_table
from bnstudy.training import Row, at_rate, history


def to_safetensors(network: Network, name: str, variant: Variant, seed: int, device: torch.device) -> bytes:
    """Weights and moving averages, float32, with what is needed to build the network again and what trained it.

    One metadata key: safetensors writes several in an order that changes from run to run.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    record = {
        "variant": name,
        "seed": seed,
        "network": variant.model_dump(exclude_none=True),
        "environment": devices.environment(device),
    }
    return save(state, {"bnstudy": json.dumps(record)})


def train_run(name: str, variant: Variant, train: Train, seed: int, runtime: Runtime) -> None:
    """Write `models/<name>/<seed>.safetensors` and `metrics/history/<name>/<seed>.csv`."""
    device = devices.prepare(runtime)
    catch_signals()
    network = build(variant, seed, device)
    checkpoint = Checkpoint(f"train/{name}/{seed}", [variant.model_dump(), train.model_dump(), seed], device, runtime)
    started, rows = time.time(), list[Row]()
    with tqdm(total=train.steps, desc=f"{name} seed {seed}", unit="step", disable=None) as bar:
        for row in history(network, train, seed, device, checkpoint):
            rows.append(row)
            bar.update(row.step - bar.n)
            bar.set_postfix_str(f"loss {row.train_loss:.4g}, test accuracy {row.test_accuracy:.2%}")
    write_table(Path("metrics/history", name, f"{seed}.csv"), Row._fields, rows)
    write(Path("models", name, f"{seed}.safetensors"), to_safetensors(network, name, variant, seed, device))
    seconds = devices.log(f"train/{name}/{seed}", device, started)
    checkpoint.finish()
    print(
        f"{name} seed {seed}: {train.steps} steps on {device} in {seconds:.0f} s, test accuracy {row.test_accuracy:.2%}"
    )


def main() -> None:
    params = load()  # before the arguments, which come from it where DVC runs this
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", required=True, help="a name under `variants` in params.yaml")
    parser.add_argument("--seed", required=True, type=argument(Seed))
    arguments = parser.parse_args(arguments_of_stage("variant", "seed"))
    if arguments.variant not in params.variants:
        raise BadInput(f"--variant: {arguments.variant} is not one of {', '.join(params.variants)}")
    variant, rate = params.variants[arguments.variant], params.rates[arguments.variant]
    train_run(arguments.variant, variant, at_rate(params.train, rate), arguments.seed, params.runtime)


if __name__ == "__main__":
    run(main)
