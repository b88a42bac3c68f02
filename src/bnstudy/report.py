"""Stage `report`: the nine claims with their figures, as a page and as Markdown. No result in either is typed by hand.

report/index.html     one page that needs nothing but itself
report/README.md      the same, shorter, for where Markdown is shown
report/figures/*.svg  a figure a claim, and one more; light or dark as the reader's system asks
"""

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from bnstudy.claims import FLOOR, percent
from bnstudy.figures import draw
from bnstudy.params import BadInput, Summarize, load
from bnstudy.plot import read
from bnstudy.stage import run, write

MARKS = {"supported": "✓", "refuted": "✗", "not decided": "?", "not measured": "–"}
# A supported claim holds in every part, a refuted one fails in one part at least.
LEADS = {
    "1 supported": "Batch norm got to each target in fewer updates than the network without",
    "1 refuted": "To one target or more, batch norm took more updates than the network without",
    "2 supported": "Batch norm got to each target in fewer updates than the fair baseline, too",
    "2 refuted": "To one target or more, batch norm took more updates than the fair baseline",
    "3 supported": "The final accuracies differ by more than {accuracy_margin:g}",
    "3 refuted": "In one setting or more, the final accuracies differ by less than {accuracy_margin:g}",
    "4 supported": "Both decays warmed up as the note says",
    "4 refuted": "One decay or both did not warm up as the note says",
    "5 supported": "Late in the run, accuracy moved less from evaluation to evaluation under {slow_decay:g}",
    "5 refuted": "Late in the run, accuracy moved more from evaluation to evaluation under {slow_decay:g}",
    "6 supported": "With averages never updated, evaluation mode failed while training mode looked fine",
    "6 refuted": "With averages never updated, evaluation mode did not fail, or training mode did not look fine",
    "7 supported": "The training loss kept above the floor with normalized logits",
    "7 refuted": "The training loss fell below the floor with normalized logits",
    "8 supported": "Batch norm works over a wider range of learning rates",
    "8 refuted": "In one setting or more, batch norm works over a narrower range of learning rates",
    "9 supported": "The advantage changes with the batch size by more than {accuracy_margin:g}",
    "9 refuted": "In one setting or more, the batch size changes the advantage by less than {accuracy_margin:g}",
}
# How a quantity is written, by how its name begins: format and unit. Accuracies and their differences are fractions.
FORMS = {
    "ratio": ("#.3g", "×"),
    "difference": ("+.4f", ""),
    "steps": (",.0f", " updates"),
    "accuracy": (".4f", ""),
    "nats": ("+.4f", " nats"),
    "decades": ("+.2f", " decades"),
}
# DVC reads every metric as YAML. To it, a page that starts so is a list of one text, which holds no metric; the page
# is a metric because a plain output outside the cache would switch the run cache off, and a plot must be plottable.
WRAP = "<!-- To DVC, which reads this as YAML, the page is a list of one text:\n- |\n -->\n"


def shown(part: dict[str, Any]) -> dict[str, str]:
    """`estimate`, `interval` and `missed` (runs that did not get there) of a part, as text."""
    spec, unit = next((form for start, form in FORMS.items() if part["quantity"].startswith(start)), (".4g", ""))
    estimate, low, high = (
        part[key] if part[key] is None else format(part[key], spec).rstrip(".").replace("-", "−")
        for key in ("estimate", "low", "high")
    )
    bound = {"at least": "≥ ", "at most": "≤ "}.get(part["bound"], "")
    ends = f"{low} to {high}" if low and high else f"from {low}" if low else f"up to {high}" if high else "no interval"
    sides = {" with batch norm": part["censored_a"], " without": part["censored_b"]}
    paired = part["quantity"].startswith("ratio")
    missed = [f"{count} of {part['runs']} runs{side if paired else ''}" for side, count in sides.items() if count]
    return {
        "estimate": f"{bound}{estimate}{unit}" if estimate else "no estimate",
        "interval": ends,
        "missed": f"not reached by {' and '.join(missed)}" if missed else "",
    }


def reading(claim: dict[str, Any], rules: Summarize) -> str:
    """What became of a claim, with its numbers, in one sentence."""
    parts = claim["parts"]
    if not parts:
        return "Not measured: this study leaves out a variant or a run that it takes."
    lead = LEADS.get(f"{claim['id']} {claim['verdict']}", "").format(**rules.model_dump())
    if claim["verdict"] == "not decided":
        runs = min(part["runs"] for part in parts)
        why = claim["open_because"] or "an interval leaves both answers open"
        if all(part["estimate"] is None for part in parts if part["verdict"] == claim["verdict"]):
            why = "too few runs got that far for an estimate"
        if runs < rules.minimum_runs:
            why = f"a verdict takes {rules.minimum_runs} runs, not {runs}"
        lead = f"Not decided, since {why}"
    texts = [(part["part"], shown(part)) for part in parts]
    return f"{lead} – " + "; ".join(f"{label}: {text['estimate']} ({text['interval']})" for label, text in texts) + "."


def result(claims: list[dict[str, Any]]) -> str:
    """The study in a sentence: how many claims hold, and the ratio of updates to the highest target in each setting."""
    counts = Counter(claim["verdict"] for claim in claims)
    verdicts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in MARKS if counts[verdict])
    ratios = []
    for claim, place in zip(claims, ("in the original's setting", "against the fair baseline"), strict=False):
        for part in [part for part in claim["parts"] if part["estimate"] is not None][-1:]:
            text = shown(part)
            value = text["estimate"].replace("≤", "at most").replace("≥", "at least").replace("×", " times")
            ratios.append(
                f"{value} the updates {part['part'].split(',')[0]} {place} ({text['interval']}, {part['verdict']})"
            )
    return f"{len(claims)} claims: {verdicts}{'; batch norm took ' * bool(ratios)}{', and '.join(ratios)}."


def headline(summary: dict[str, dict[str, Any]], claims: list[dict[str, Any]]) -> str:
    """The result and a row a variant, in Markdown. The README quotes it."""
    rows = []
    for variant, values in summary.items():
        accuracy = values["test_accuracy"]
        low, high = accuracy["low"], accuracy["high"]
        interval = "one seed" if low is None else f"{low:.2%} to {high:.2%}"
        row = {
            "variant": f"`{variant}`",
            "seeds": values["runs"],
            "test accuracy": f"{accuracy['mean']:.2%} ({interval})",
        }
        for target, steps in values["steps_to"].items():
            count, middle = steps["reached"], steps["median"]
            some = f" ({count} of {values['runs']})" if 0 < count < values["runs"] else ""
            row[f"updates to {target}"] = (
                f"{middle:,.10g}" if middle is not None else "-" if count else "never"
            ) + some
        rows.append(row)
    lines = [list(rows[0]), ["---", *["--:"] * (len(rows[0]) - 1)], *(row.values() for row in rows)]
    return f"{result(claims)}\n\n" + "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def made_with(environment: list[dict[str, Any]]) -> str:
    """How many runs were trained in which environment."""
    return "; ".join(
        f"{len(made['runs'])} runs with PyTorch {made['torch']} on {made['gpu'] or made['processor']}"
        for made in environment
        if made["stage"] == "train"
    )


def breakable(text: str) -> Markup:
    """`text` for HTML, with a line break allowed after each underscore: names are long for a phone."""
    return Markup("_<wbr>").join(escape(part) for part in text.split("_"))


def wrapped(text: str) -> bytes:
    """`text` with WRAP at its start, or behind the document type, and all lines after it indented."""
    kind = "<!DOCTYPE html>"
    rest = text.removeprefix(kind).lstrip("\n")
    start = kind if text.startswith(kind) else ""
    return (start + WRAP + "".join(f" {line}" if line.strip() else line for line in rest.splitlines(True))).encode()


def load_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); `dvc repro` writes it") from None


def main() -> None:
    params = load()
    results = [Path("metrics", f"{name}.json") for name in ("claims", "summary", "environment")]
    claims, summary, environment = map(load_json, results)
    curves = read(Path("plots/curves.csv"), ["variant", "seed", "step", "train_loss", "test_accuracy", "hidden_50"])
    warmup = read(Path("plots/warmup.csv"), ["seed", "step", "decay", "test_accuracy"])
    sweep = read(Path("plots/sweep.csv"), ["variant", "seed", "learning_rate", "batch_size", "diverged"])
    images = draw(curves, warmup, sweep, params.evaluate.targets, params.sweep.target_accuracy, params.summarize)
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"percent": percent, "shown": shown, "breakable": breakable}
    known = {
        "images": {name: base64.b64encode(image).decode() for name, image in images.items()},
        "marks": MARKS,
        "floor": FLOOR,
        "rates": {name: rate or params.train.learning_rate.initial for name, rate in params.rates.items()},
        "data": params.data,
        "study": params.study,
        "variants": params.variants,
        "train": params.train,
        "warmup": params.warmup,
        "sweep": params.sweep,
        "rules": params.summarize,
        "claims": claims,
    }
    try:
        known |= {
            "readings": {claim["id"]: reading(claim, params.summarize) for claim in claims},
            "result": result(claims),
            "headline": headline(summary, claims),
            "made_with": made_with(environment),
        }
        pages = {
            path: wrapped(templates.get_template(template).render(known))
            for path, template in {"report/index.html": "report.html.j2", "report/README.md": "report.md.j2"}.items()
        }
    except (LookupError, TypeError, AttributeError, ValueError, jinja2.UndefinedError) as error:
        raise BadInput(
            f"{' or '.join(map(str, results))}: is not of this study ({error!r}); `dvc repro` writes it anew"
        ) from None
    for path, page in pages.items():
        write(Path(path), page)
    for name, image in images.items():
        write(Path("report/figures", f"{name}.svg"), image)
    print(f"wrote report/index.html, report/README.md and {len(images)} figures. {result(claims)}")


if __name__ == "__main__":
    run(main)
