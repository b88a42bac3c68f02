"""Stage `plot`: accuracy against updates, each model, mean and band over the seeds.

    python src/plot.py

plots/curves.csv   the curves of all runs, one row per model, seed, split (training batch or test) and evaluation
plots/curves.svg   the picture

Prints what each model reaches, and its spread over the seeds.
"""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pandas as pd

from bnstudy import BadInput, run
from bnstudy.files import forget_finished, write
from bnstudy.params import Params, Plot, load
from bnstudy.style import COLORS, blank, error_axis, error_of, styled, ticks, to_svg

METRICS = Path("metrics")
SPLITS = {"training batch": ("batch_accuracy", (0, (4, 2))), "test": ("test_accuracy", "solid")}  # column, line
MODELS = [COLORS[place] for place in (0, 2, 4, 1, 3, 5, 6, 7, 8)]  # those beside each other far apart
UPDATES = [1, 3, 10, 30, 100, 300, 1000, 3000, 10_000]


def read(model: str, seed: int) -> dict[str, Any]:
    path = METRICS / model / f"{seed}.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found["curve"] = pd.DataFrame({part["column"]: part["values"] for part in found["curve"]})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: cannot be read ({error!r}); `dvc repro` or `git restore` brings it") from None
    return found


def tidy(runs: dict[tuple[str, int], dict[str, Any]]) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"step": found["curve"]["step"], "accuracy": found["curve"][column]}).assign(
            model=model, seed=seed, split=split
        )
        for (model, seed), found in runs.items()
        for split, (column, _) in SPLITS.items()
    ]
    return pd.concat(parts)[["model", "seed", "split", "step", "accuracy"]]


def figure(curves: pd.DataFrame, plot: Plot) -> bytes:
    with styled(plot.width):
        drawn, axes = blank(plot.width, plot.height)
        for place, (model, of_model) in enumerate(curves.groupby("model", sort=False)):
            color = MODELS[place % len(MODELS)]
            for split, rows in of_model.groupby("split", sort=False):
                over_seeds = rows.groupby("step")["accuracy"]
                low, middle, high = (error_of(over_seeds.agg(how)) for how in ("min", "mean", "max"))
                line, label = SPLITS[str(split)][1], f"{model}, {split}"
                axes.plot(middle.index, middle, color=color, linestyle=line, linewidth=1.6, label=label)
                if split == "test":
                    axes.fill_between(low.index, low, high, color=color, alpha=0.18, linewidth=0)
        axes.set_xscale("log")
        axes.set_xlim(curves["step"].min(), curves["step"].max())
        ticks(axes.xaxis, UPDATES, [f"{updates:,}" for updates in UPDATES])
        error_axis(axes)
        axes.set_xlabel("updates")
        axes.set_ylabel("accuracy")
        axes.legend(loc="upper left", handlelength=2.5, handletextpad=0.6)
        return to_svg(drawn, title(curves))


def title(curves: pd.DataFrame) -> str:
    """What is seen, for readers who do not see it."""
    last = curves[(curves["split"] == "test") & (curves["step"] == curves["step"].max())]
    ends = last.groupby("model", sort=False)["accuracy"].mean()
    reached = ", ".join(f"{model} {accuracy:.1%}" for model, accuracy in ends.items())
    return f"Accuracy against updates, mean and band over the seeds; test accuracy after the last: {reached}."


def summary(params: Params, runs: dict[tuple[str, int], dict[str, Any]]) -> str:
    """One line a model: mean and standard deviation over the seeds."""

    def spread(values: list[float], form: str) -> str:
        if not values:
            return "not reached"
        deviation = f" ± {form.format(stdev(values))}" if len(values) > 1 else ""
        short = f" ({len(values)} of {len(params.seeds)})" if len(values) < len(params.seeds) else ""
        return form.format(mean(values)) + deviation + short

    rows = [("", "test accuracy, %", "updates to 95%")]
    for model in params.models:
        of_model = [runs[model, seed] for seed in params.seeds]
        accuracy = spread([100 * found["test_accuracy"] for found in of_model], "{:.2f}")
        updates = spread([found["updates_to_95"] for found in of_model if "updates_to_95" in found], "{:.0f}")
        rows.append((model, accuracy, updates))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def remove_others(runs: dict[tuple[str, int], dict[str, Any]]) -> None:
    """Remove the metrics of runs that params.yaml no longer names."""
    for path in sorted(METRICS.glob("*/*.json")):
        if (path.parent.name, path.stem) not in {(model, str(seed)) for model, seed in runs}:
            path.unlink()
            print(f"removed {path}: params.yaml names no such run")
            if not any(path.parent.iterdir()):
                path.parent.rmdir()


def main() -> None:
    params = load()
    runs = {(model, seed): read(model, seed) for model in params.models for seed in params.seeds}

    remove_others(runs)
    curves = tidy(runs)
    write(Path("plots/curves.csv"), curves.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())
    write(Path("plots/curves.svg"), figure(curves, params.plot))
    forget_finished("train")
    print(summary(params, runs))


if __name__ == "__main__":
    run(main)
