"""Stage `check`, before all others: refuse a bad params.yaml while every output is still there.

DVC removes a stage's outputs before it runs its command. All stages come after this one, whose own outputs persist:

data/params.checked             says so
settings/sweep/<network>.json   the setting of each network in the sweep, but for its rate, see `bnstudy.settings`
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from bnstudy import BadInput, run
from bnstudy.files import whole_folder, write
from bnstudy.params import load
from bnstudy.settings import SETTINGS, setting


def main() -> None:
    params = load()
    if params.runtime.tensorboard and not find_spec("tensorboard"):
        raise BadInput("runtime.tensorboard: true takes TensorBoard: pip install 'tensorboard>=2.19,<3'")
    if sys.stdout.isatty():
        announce()
    steps, rate = params.sweep.steps, params.sweep.learning_rates[0]
    with whole_folder(SETTINGS / "sweep") as folder:
        for network in params.sweep.networks:
            write(folder / f"{network}.json", setting(params, network, rate, steps, on_grid=False).to_bytes())
    write(Path("data/params.checked"), b"Every value in params.yaml is allowed.\n")


def announce() -> None:
    """Say what runs now, before the first training does: one changed number may start hours of them."""
    subprocess.run([sys.executable, "tools/plan.py"], check=False)
    print(
        "Ctrl-C stops it and keeps finished runs. `git restore params.yaml` undoes a change, one by -S too; then\n"
        "`make records` and `dvc repro --allow-missing` restore the committed results without training."
    )


if __name__ == "__main__":
    run(main)
