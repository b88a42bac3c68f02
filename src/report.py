"""Stage `report`: the nine claims with their figures, as a page and as Markdown. No result in either is typed by hand.

report/index.html  one page that needs nothing but itself
report/README.md   the same, shorter, for where Markdown is shown
"""

import base64
import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from bnstudy import run
from bnstudy.analysis.claim import CLAIMS_FILE, LEVEL, MARKS, POINTS, Finding
from bnstudy.analysis.claims import risen
from bnstudy.analysis.headline import SUMMARIES, result
from bnstudy.analysis.inference import estimate
from bnstudy.files import write
from bnstudy.params import AVERAGES_ARM, Params, Rules, load
from bnstudy.records import read_csv, read_plot, read_reproductions
from bnstudy.settings import SETTINGS, read_json
from bnstudy.tuning import Choices, remark

FIGURES, FIRST = Path("report/figures"), Path("data/first_version")
CHANGES, REGISTERED_RULES = Path("docs/changes.md"), Path("docs/registered_rules.json")
DATA_NAMES = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "kmnist": "Kuzushiji-MNIST",
    "sample": "5,000 digits of MNIST",
}
FLOOR = math.log1p(9 * math.exp(-10 / 3))  # of the loss where the logits have batch norm without a gain


def pictures() -> dict[str, dict[str, str]]:
    """Those that `plot` drew, by name: what is seen, which stands in the file as its title, and the file in base64."""
    found = {}
    for path in (FIGURES / f"{name}.svg" for name in ("dip", "ladder", "rates")):
        if path.exists():
            svg = path.read_bytes()
            alt = ET.fromstring(svg).findtext("{http://www.w3.org/2000/svg}title") or ""  # noqa: S314 (our own)
            found[path.stem] = {"alt": alt, "data": base64.b64encode(svg).decode()}
    return found


def first_version() -> dict[str, Any]:
    """What the first version's own tables say against it."""
    sweep, warmup = read_csv(FIRST / "sweep.csv"), read_csv(FIRST / "warmup.csv")
    claims = read_json(FIRST / "claims.json", list[dict[str, Any]])
    after = (
        sweep[sweep["kind"] == "rate"]
        .set_index(["variant", "learning_rate", "seed"])["validation_accuracy"]
        .sort_index()
    )
    accuracies = warmup.set_index(["statistics", "decay", "step", "seed"])["test_accuracy"].sort_index()
    moving = accuracies["moving"].unstack("seed")
    precise = accuracies["precise"].droplevel("decay").unstack("seed").mean(axis=1)
    last = int(warmup["step"].max())
    dips = {}
    for decay in (0.9, 0.95, 0.99, 0.999):
        bottom = int((moving.loc[decay].mean(axis=1) - precise).idxmin())
        dips[decay] = {"step": bottom, "weight": decay**bottom, "accuracy": moving.loc[decay, bottom].mean()}
    best = after["batch_norm_hidden"].groupby("learning_rate").mean().idxmax()
    part = next(part for claim in claims for part in claim["parts"] if part["low"] == part["high"] is not None)
    steps = sorted(warmup["step"].unique())
    (warm,) = [part for claim in claims for part in claim["parts"] if part["part"] == "decay 0.95"]
    return {
        "steps": int(sweep["step"].max()),
        "seeds": sweep["seed"].nunique(),
        "ladder": [
            (name, rate, after[variant, rate].mean())
            for name, variant, rate in (
                ("plain", "plain", 0.1),
                ("He's initial weights", "plain_he", 0.1),
                ("plain", "plain", 0.01),
                ("He's initial weights", "plain_he", 0.01),
                ("batch norm", "batch_norm_hidden", 0.01),
                ("batch norm", "batch_norm_hidden", best),
            )
        ],
        "he_worse": int((after["plain_he", 0.1] < after["plain", 0.1]).sum()),
        "least_p": 2.0 ** (1 - sweep["seed"].nunique()),
        "no_width": part,
        "warm": {"by": warm["estimate"], "after": max(step for step in steps if step < warm["estimate"])},
        "dips": dips,
        "last": last,
        "slow": moving.loc[0.999, last].mean(),
        "never": moving.loc[1.0, last].mean(),
        "slow_worse": int((moving.loc[0.999, last] < moving.loc[1.0, last]).sum()),
    }


def summaries(arms: list[str]) -> dict[str, dict[str, Any]]:
    paths = {arm: SUMMARIES / f"{arm}.json" for arm in arms}
    return {arm: read_json(path, dict[str, Any]) for arm, path in paths.items() if path.exists()}


def batch_sizes() -> list[dict[str, Any]]:
    """Of each batch size: each contestant's rate and mean accuracy over the seeds, and the paired difference."""
    table, sizes = read_plot("batch"), []
    table["edge"] = table["edge"].astype(object).fillna("")  # no text at all reads as numbers
    for size, rows in table.groupby("batch_size"):
        cells = {name: cell.set_index("seed") for name, cell in rows.groupby("contestant")}
        accuracies = {name: cell["validation_accuracy"] for name, cell in cells.items()}
        difference = POINTS.text(estimate(list(accuracies["with"] - accuracies["without"]))) if len(cells) > 1 else ""
        shown = {
            name: {"accuracy": accuracies[name].mean(), **cell.iloc[0][["learning_rate", "edge"]]}
            for name, cell in cells.items()
        }
        sizes.append({"size": size, "cells": shown, "difference": difference})
    return sizes


def preliminary(params: Params) -> str:
    """What is said of verdicts over fewer runs than were registered; those to more updates judge some claims alone."""
    study, long, registered = params.study, params.long, params.registered
    if len(study.seeds) < registered.seeds:
        return f" All verdicts are preliminary: {len(study.seeds)} of {registered.seeds} registered seeds."
    missing = [
        f"{made} of {of} registered runs of {what} to {long.steps:,} updates"
        for what, made, of in (
            (AVERAGES_ARM, len(long.averages_seeds), registered.long_averages_seeds),
            (long.arm, len(long.arm_seeds), registered.long_arm_seeds),
        )
        if made < of
    ]
    return f" Claims 1, 5, 6 and 7 are preliminary: {', '.join(missing)}." if missing else ""


def other_rules(rules: Rules) -> list[str]:
    """What each rule is that is not as it was registered."""
    now, registered = rules.model_dump(), read_json(REGISTERED_RULES, dict[str, Any])
    return [f"{name} {now[name]} in place of {rule}" for name, rule in registered.items() if now[name] != rule]


def mixed(params: Params) -> str:
    """The networks that `mechanism` evaluates, and what their curve shows, in words."""
    table = read_plot("mechanism")
    curve = table[(table["where"] == "all") & (table["what"] == "both")]
    if curve.empty:
        return "left out here."
    gaps = curve.set_index("start_weight")["difference"].sort_index(ascending=False)
    dip = risen(gaps, list(gaps.index), params.rules.dip_to)
    long = set(params.long.averages_seeds)
    lengths = {params.long.steps if seed in long else params.averages.steps for seed in params.mechanism.seeds}
    updates = " or ".join(f"{length:,}" for length in sorted(lengths))
    return (
        f"{count(params.mechanism.seeds, 'finished network')}, of {updates} updates, evaluated with so much of the "
        f"start mixed into precise statistics. After its rise it is lowest {-100 * dip.min():.0f} points down, where "
        f"{float(str(dip.idxmin())):.0%} is left."
    )


def ramp(params: Params) -> str:
    """What the caption of the ladder says of the arm whose rate is ramped up."""
    arm, after = params.arms.get("he_ramp"), params.rules.after
    if not arm or not arm.ramp_steps or "he_ramp" not in params.study.arms:
        return ""
    until = "these same" if arm.ramp_steps == after else "the first"
    return f", and the rate ramped up besides, over {until} {arm.ramp_steps} updates (claim 4 says where that ends)"


def reproductions() -> list[str]:
    """What came of the runs that were made again, those on the same machines together."""
    told: dict[str, list[str]] = {}
    for again in read_reproductions():
        told.setdefault(again.machines(), []).append(again.told())
    return [f"{machines}: {', '.join(runs)}" for machines, runs in told.items()]


def made_with(environments: list[dict[str, Any]]) -> list[str]:
    """How many runs were made in which environment."""
    return [
        f"{count(made['runs'], 'run')} with PyTorch {made['torch']} on {made['gpu'] or made['processor']}"
        for made in environments
        if "runs" in made
    ]


def count(things: Sequence[Any], name: str) -> str:
    return f"{len(things)} {name}s" if len(things) > 1 else f"1 {name}"


def mixed_seeds(environments: list[dict[str, Any]]) -> list[int]:
    """The seeds whose runs were made in more than one environment, so that a pair of them may mix machines."""
    paired = ("train/", "averages/", "tolerance/")
    runs = [made.get("runs", []) for made in environments]
    counts = Counter(chain(*({name.rpartition("/")[2] for name in names if name.startswith(paired)} for names in runs)))
    return sorted(int(seed) for seed, count in counts.items() if count > 1)


def tuned_in(environments: list[dict[str, Any]]) -> int:
    """In how many environments the runs were made that chose the rates."""
    return sum(any(run.startswith(("sweep/", "refine/")) for run in made.get("runs", [])) for made in environments)


def breakable(text: str) -> Markup:
    """`text` for HTML, with a line break allowed after each underscore: names are long for a phone."""
    return Markup("_<wbr>").join(escape(part) for part in text.split("_"))


def render(template: str, known: dict[str, Any]) -> bytes:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "bnstudy/analysis"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {
        "breakable": breakable,
        "percent": "{:.1%}".format,
        "remark": remark,
        "markdown": lambda text: Markup(MarkdownIt().render(text)),  # noqa: S704 (our own file)
    }
    return templates.get_template(template).render(known).encode()


def main() -> None:
    params = load()
    findings, choices = read_json(CLAIMS_FILE, list[Finding]), read_json(SETTINGS / "choices.json", Choices)
    changes = CHANGES.read_text(encoding="utf-8").partition("\n")[2].strip()
    environments = read_json(Path("metrics/environment.json"), list[dict[str, Any]])
    name = DATA_NAMES[params.data.source]
    said = f"On {name}: {result(findings)}"
    if params.data.source == "mnist":
        said = f"{result(findings)}{preliminary(params)}"
    known = {
        "data_name": name,
        "findings": findings,
        "result": said,
        "pictures": pictures(),
        "steps": {name: arm.steps for name, arm in params.arms.items()} | {AVERAGES_ARM: params.averages.steps},
        "longer": {params.long.arm: params.long.arm_seeds, AVERAGES_ARM: params.long.averages_seeds},
        "other_rules": other_rules(params.rules),
        "mixed": mixed(params),
        "ramp": ramp(params),
        "tuned_in": tuned_in(environments),
        "summaries": summaries([*params.study.arms, AVERAGES_ARM]),
        "choices": choices,
        "first": first_version(),
        "changes": changes,
        "made_with": made_with(environments),
        "mixed_seeds": mixed_seeds(environments),
        "reproductions": reproductions(),
        "level": LEVEL,
        "marks": MARKS,
        "floor": FLOOR,
        "data": params.data,
        "train": params.train,
        "evaluation": params.evaluation,
        "sweep": params.sweep,
        "refine": params.refine,
        "study": params.study,
        "averages": params.averages,
        "long": params.long,
        "batch": params.batch,
        "batch_sizes": batch_sizes(),
        "rules": params.rules,
    }
    pages = {name: render(f"{name}.j2", known) for name in ("index.html", "README.md")}

    for name, page in pages.items():
        write(Path("report", name), page)
    print(f"wrote report/index.html and report/README.md. {said}")


if __name__ == "__main__":
    run(main)
