"""Stage `report`: the nine claims with their figures, as a page and as Markdown. No result in either is typed by hand.

report/index.html     one page that needs nothing but itself
report/README.md      the same, shorter, for where Markdown is shown
report/figures/*.svg  one figure per claim, and one more; light or dark as the reader's system asks
"""

import base64
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from pydantic import TypeAdapter

from bnstudy import BadInput, run
from bnstudy.analysis import style
from bnstudy.analysis.claim import MARKS, Claim, Finding, Results, percent
from bnstudy.analysis.claims import CLAIMS, read_claims
from bnstudy.analysis.claims.training import FLOOR, hidden_figure
from bnstudy.analysis.headline import markdown_headline, read_summaries, result
from bnstudy.files import whole_folder, write
from bnstudy.params import Params, load
from bnstudy.records import read_json, read_tidy

TEMPLATES = Path(__file__).parent / "bnstudy/analysis"
ENVIRONMENT_FILE = Path("metrics/environment.json")


def draw(results: Results) -> dict[str, bytes]:
    """The figures for which there are runs, by name: `claim_1` … `claim_9` and `hidden`, as SVG."""
    looks = style.looks([*results.curves["variant"], *results.sweep["variant"]])
    with style.styled(style.FONT):
        figures = {f"claim_{claim.id}": claim.draw(results, looks) for claim in CLAIMS}
        figures["hidden"] = hidden_figure(results.curves, looks)
        return {name: style.adaptive(style.to_svg(drawn)) for name, drawn in figures.items() if drawn}


def made_with(environment: list[dict[str, Any]]) -> str:
    """How many runs were trained in which environment. `BadInput` if `environment` does not say so."""
    try:
        return "; ".join(
            f"{len(made['runs'])} runs with PyTorch {made['torch']} on {made['gpu'] or made['processor']}"
            for made in environment
            if made["stage"] == "train"
        )
    except KeyError as error:
        raise BadInput(f"{ENVIRONMENT_FILE}: {error} is missing; `dvc repro` writes it anew") from None


def breakable(text: str) -> Markup:
    """`text` for HTML, with a line break allowed after each underscore: names are long for a phone."""
    return Markup("_<wbr>").join(escape(part) for part in text.split("_"))


def claim_on_page(claim: Claim, finding: Finding, params: Params) -> dict[str, Any]:
    """What the templates show of a claim."""
    return {
        **{name: getattr(finding, name) for name in ("id", "claim", "measured", "verdict")},
        "figure": f"claim_{claim.id}",
        "reading": claim.reading(finding, params.summarize),
        "parts": [(part, claim.shown(part)) for part in finding.parts],
        "runs": ", ".join(str(count) for count in sorted({part.runs for part in finding.parts})) or "0",
    }


def render(template: str, known: dict[str, Any]) -> bytes:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"percent": percent, "breakable": breakable}
    return templates.get_template(template).render(known).encode()


def main() -> None:
    params = load()
    claims, summaries = read_claims(), read_summaries(params.study)
    environment = read_json(ENVIRONMENT_FILE, TypeAdapter(list[dict[str, Any]]))
    results = Results(
        curves=read_tidy(Path("plots/curves.csv"), ["seed", "step", "train_loss", "test_accuracy", "hidden_50"]),
        warmup=read_tidy(Path("plots/warmup.csv"), ["seed", "step", "decay", "test_accuracy"]),
        sweep=read_tidy(Path("plots/sweep.csv"), ["seed", "learning_rate", "batch_size", "diverged"]),
        targets=params.evaluate.targets,
        averaged=params.warmup.variant,
        settings=params.sweep,
        rules=params.summarize,
    )
    images = draw(results)
    known = {
        "claims": [claim_on_page(claim, finding, params) for claim, finding in claims],
        "result": result(claims),
        "headline": markdown_headline(summaries, claims),
        "images": {name: base64.b64encode(image).decode() for name, image in images.items()},
        "marks": MARKS,
        "floor": FLOOR,
        "made_with": made_with(environment),
        "rates": {name: params.rate_of(name) for name in params.rates},
        "data": params.data,
        "study": params.study,
        "variants": params.variants,
        "train": params.train,
        "warmup": params.warmup,
        "sweep": params.sweep,
        "rules": params.summarize,
    }
    pages = {name: render(f"{name}.j2", known) for name in ("index.html", "README.md")}

    for name, page in pages.items():
        write(Path("report", name), page)
    with whole_folder(Path("report/figures")) as folder:
        for name, image in images.items():
            write(folder / f"{name}.svg", image)
    print(f"wrote report/index.html, report/README.md and {len(images)} figures. {result(claims)}")


if __name__ == "__main__":
    run(main)
