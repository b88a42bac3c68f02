"""What the runs cost: take up what their logs say, before `tools/pages.py` writes it into the pages.

python tools/cost.py [LOGS …]

Logs are not in git. benchmarks/results/cost.csv keeps, of each run, its seconds, the images that it trained on and the
processor; of a run that was made again, the last. Seconds are those of one run beside the others of its machine,
evaluations included; of one that was interrupted, since it went on.
"""

import json
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bnstudy.records import METRICS
from bnstudy.settings import read_setting

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "benchmarks/results/cost.csv"
COLUMNS = ["run", "started", "processor", "seconds", "images"]


def images(run: str) -> int:
    """How many images the trainings of `run` took, in the current folder."""
    kind = run.partition("/")[0]
    if kind == "mechanism":
        return 0
    if kind in ("train", "averages"):
        setting = read_setting(run)
        return setting.steps * setting.batch_size
    rows = pd.read_csv(METRICS / f"{run}.csv")
    last = rows.groupby(["learning_rate", "seed", "batch_size"])["step"].max().reset_index()
    return int((last["step"] * last["batch_size"]).sum())


def logged(folder: Path) -> pd.DataFrame:
    """The runs whose logs lie in `folder` and whose tables lie below the current one."""
    rows = []
    for path in sorted(folder.rglob("*.json")):
        log = json.loads(path.read_text(encoding="utf-8"))
        if (METRICS / f"{log['run']}.json").is_file():
            on = log["gpu"] or log["processor"]
            rows.append((log["run"], log["started"], on, log["seconds"], images(log["run"])))
    return pd.DataFrame(rows, columns=COLUMNS)


def table(cost: pd.DataFrame) -> str:
    """One row per processor or GPU."""
    lines = ["| on | runs | hours of one core or GPU | seconds per 1,024 images |", "| --- | --: | --: | --: |"]
    for processor, runs in cost.groupby("processor"):
        hours, each = runs["seconds"].sum() / 3600, runs["seconds"].sum() / runs["images"].sum() * 1024
        lines.append(f"| {processor} | {len(runs)} | {hours:.1f} | {each:.2f} |")
    return "\n".join(lines) + "\n"


def line(cost: pd.DataFrame) -> str:
    """The same in a sentence."""
    hours = [f"{runs['seconds'].sum() / 3600:.1f} hours on {name}" for name, runs in cost.groupby("processor")]
    took = f"The {len(cost)} runs whose times were kept took {' and '.join(hours)}"
    return f"{took}, one core or GPU each ([more](benchmarks/README.md)).\n"


def read() -> pd.DataFrame:
    return pd.read_csv(FILE)


if __name__ == "__main__":
    found = pd.concat([read(), *(logged(Path(folder)) for folder in sys.argv[1:] or ["logs"])])
    found = found.sort_values("started").drop_duplicates("run", keep="last").sort_values("run")
    FILE.write_text(found.to_csv(index=False, lineterminator="\n"))
