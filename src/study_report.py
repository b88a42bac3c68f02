"""Stage `report`: the study's answers, pictures, claims and limits. No result in it is typed by hand.

study/report/README.md   for where Markdown is shown
study/report/index.html  the same, as one page that needs nothing but itself
"""

import base64
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jinja2
import pandas as pd
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pydantic import TypeAdapter, ValidationError

from bnstudy import BadInput, run
from bnstudy.files import write
from bnstudy.study import earlier, theory
from bnstudy.study.claim import INTERVAL, MARKS, Finding, too_few
from bnstudy.study.params import Shared, Study, load
from bnstudy.study.rules import Rules
from bnstudy.study.statistics import FEWEST
from bnstudy.study.style import STUDY, table

CHANGES = Path("docs/changes.md")
FIXED = STUDY / "fixed_rules.json"  # `rules` of study/params.yaml in the commit that fixed them
TITLES = {
    "dip": "What the averages cost: the dip",
    "cause": "The cause removed",
    "ladder": "The ladder: what each step adds",
    "rates": "Accuracy against learning rate",
}
OPEN = {"not shown": "The runs do not decide.", "not measured": "Not measured yet."}
# Each question: the claim that answers it first, its answer by that claim's verdict, and the claims that follow.
QUESTIONS = {
    "Is it faster?": (
        "tuned",
        OPEN | {"holds": "Yes, in updates.", "refuted": "Not twice as fast, once both are tuned."},
        ("note", "share", "momentum", "tolerance"),
    ),
    "What do the averages cost, and why?": (
        "dip",
        OPEN | {"holds": "Much of the accuracy, for a while.", "refuted": "Not what was expected."},
        ("thousand", "ready", "cause", "standardized", "correction"),
    ),
    "And without the update ops?": (
        "update_ops",
        OPEN | {"holds": "Evaluation is much worse, though training is as good.", "refuted": "It is not much worse."},
        (),
    ),
}
FLOOR = math.log1p(9 * math.exp(-10 / 3))  # of the training loss where the last layer has batch norm without a gain


def read(path: Path, kind: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes(), strict=False)
    except (OSError, ValidationError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is not what `judge` writes"
        raise BadInput(f"{path}: cannot be read ({what}); `dvc repro study/dvc.yaml:judge` writes it") from None


def few(finding: Finding) -> bool:
    """Whether it has too few seeds for any verdict."""
    return any(part.runs < FEWEST for part in finding.parts)


def fewest_seeds(findings: Sequence[Finding]) -> int:
    """Of all parts of these measured claims."""
    return min(part.runs for one in findings for part in one.parts)


def told(finding: Finding) -> str:
    """What was found; and the verdict, where the claim does not hold although there are seeds enough."""
    open_or_refuted = finding.verdict in ("refuted", "not shown") and not few(finding)
    return f"{finding.sentence}{f' (Claim {finding.id}: {finding.verdict}.)' if open_or_refuted else ''}"


def answers(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The three questions, each with a short answer and what was found."""
    by_name, answered = {one.name: one for one in findings}, []
    for title, (first, leads, others) in QUESTIONS.items():
        main = by_name[first]
        lead = f"No verdict yet: {too_few(main.parts[0].runs)}." if few(main) else leads[main.verdict]
        if first == "dip" and main.verdict == by_name["cause"].verdict == "holds":
            lead += " They start far from the first layer's variance."
        measured = [by_name[name] for name in (first, *others) if by_name[name].verdict != "not measured"]
        found = [told(one).replace(f"({INTERVAL} ", "(") for one in measured]
        answered.append({"title": title, "lead": lead, "found": found})
    return answered


def headline(findings: Sequence[Finding], registered: int = 0) -> str:
    """The study in a few sentences of Markdown, for the README; preliminary while there are fewer seeds than that."""
    by_name = {one.name: one for one in findings}
    parts = [one for name in ("tuned", "dip", "update_ops") if (one := by_name[name]).parts]
    if not parts:
        return "Nothing is measured yet."
    seeds = fewest_seeds(parts)
    said = " ".join(told(one) for one in parts)
    return f"{said} Preliminary: {seeds} seed{'s' * (seeds > 1)}." if seeds < max(registered, FEWEST) else said


def preliminary(params: Study, findings: Sequence[Finding]) -> str:
    """What is said of verdicts over fewer seeds than were registered."""
    if not any(one.parts for one in findings):
        return "Nothing is measured yet: this page shows what will be asked, and how it will be judged."
    seeds, registered = len(params.seeds), len(params.registered)
    if seeds >= registered:
        return ""
    return f"Preliminary: {seeds} of {registered} registered seeds so far. Verdicts may change with the others."


def moved(rules: Rules) -> list[str]:
    """Each rule that is not as it was fixed before the runs: `<rule>: <value> in place of <value>`."""
    fixed = json.loads(FIXED.read_bytes()) if FIXED.exists() else {}
    now = rules.model_dump(mode="json")
    return [
        f"{claim}.{key}: {now[claim][key]} in place of {value}"
        for claim, rule in fixed.items()
        for key, value in rule.items()
        if now[claim][key] != value
    ]


def pictures() -> dict[str, dict[str, str]]:
    """Those that `plot` drew, by name: what is seen, which stands in the file as its title."""
    found = {}
    for path in (STUDY / f"report/figures/{name}.svg" for name in TITLES):
        if path.exists():
            title = ET.fromstring(path.read_bytes()).findtext("{http://www.w3.org/2000/svg}title") or ""  # noqa: S314
            found[path.stem] = {"title": TITLES[path.stem], "seen": title.replace("[", "(").replace("]", ")")}
    return found


def formula() -> dict[str, str]:
    """The theory with the variances that were measured: where the dip begins and is lowest, and its condition."""
    rows = table("theory")
    rows = rows[rows["start_variance"] == 1].drop_duplicates("network").set_index("network")
    found = {name: (row["conv1_variance"], row["conv2_variance"]) for name, row in rows.iterrows()}
    if "note_batch_norm" not in found:
        return {}
    v1, v2 = found["note_batch_norm"]
    lowest, early = theory.bottom(v1, v2), theory.zero(v1, v2)
    return {
        "v1": f"{v1:.2g}",
        "v2": f"{v2:.2g}",
        "bottom": "none" if lowest is None else f"{lowest:.2f}",
        "zero": "none" if early is None else f"{early:.2f}",
        "condition": f"{theory.condition(v1, v2):.2g}",
        "standardized": f"{theory.condition(*found['standardized']):.2g}" if "standardized" in found else "",
    }


def cost(params: Study) -> dict[str, int]:
    """All that the parameters name: trainings, their updates, and the largest batch."""
    judged, long = len(params.seeds), len(params.long.seeds)
    runs: list[tuple[Shared, int]] = [(arm, judged) for arm in (*params.arms.values(), *params.averages.values())]
    runs += [(arm, long) for arm in params.long.arms.values()]
    runs += [(entry, len(entry.learning_rates) * len(entry.seeds)) for entry in params.swept.values()]
    return {
        "runs": sum(count for _, count in runs),
        "updates": sum(one.steps * count for one, count in runs),
        "batch": max(one.batch_size for one, _ in runs),
    }


def machines(environments: Sequence[dict[str, Any]]) -> list[str]:
    """On what, and with what, how many stages were made."""
    counts: dict[str, int] = defaultdict(int)
    for made in environments:
        if runs := made.get("runs"):
            counts[f"PyTorch {made['torch']} on {made['gpu'] or made['processor']}"] += len(runs)
    return [f"{on} ({count} stage{'s' * (count > 1)})" for on, count in counts.items()]


def chosen(params: Study, rates: pd.DataFrame) -> list[dict[str, str]]:
    """Of each arm whose network and optimizer the sweep tries: its rate, and the best of that entry."""
    best, found = rates[rates["best"] == 1].groupby("entry")["learning_rate"].first(), []
    for name, arm in params.arms.items():
        entries = {
            key: entry
            for key, entry in params.swept.items()
            if (entry.network, entry.optimizer) == (arm.network, arm.optimizer)
            and key in best
            and not {*entry.seeds} & {*params.registered}
        }
        for key, entry in sorted(entries.items(), key=lambda one: one[1].target is None)[:1]:
            tried = entry.learning_rates
            criterion = f"fewest updates to {100 * entry.target:g}%" if entry.target else "accuracy"
            edge = {tried[0]: ", the lowest tried", tried[-1]: ", the highest tried"}.get(best[key], "")
            best_one = "yes" if arm.learning_rate == best[key] else f"no: {best[key]:g}"
            row = {"arm": name, "rate": f"{arm.learning_rate:g}", "entry": key, "criterion": criterion}
            found.append(row | {"best": best_one + edge})
    return found


def markdown(known: dict[str, Any]) -> str:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "bnstudy/study"),
        autoescape=False,  # noqa: S701
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["row"] = lambda text: str(text).replace("|", r"\|").replace("\n", " ")
    return templates.get_template("report.md.j2").render(known)


def page(text: str) -> str:
    """The Markdown as one HTML page: pictures inside, verdicts in color, cells of tables labeled for narrow screens."""
    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(text)
    label(tokens)
    body = parser.renderer.render(tokens, parser.options, {})
    body = body.replace("<table", '<div class="scroll"><table').replace("</table>", "</table></div>")
    for word, mark in MARKS.items():
        kind = word.replace(" ", "-")
        body = body.replace(f"{mark} {word}", f'<span class="verdict {kind}">{mark} {word}</span>')
    for path in (STUDY / "report/figures").glob("*.svg"):
        data = base64.b64encode(path.read_bytes()).decode()
        body = body.replace(f'src="figures/{path.name}"', f'src="data:image/svg+xml;base64,{data}"')
    title = text.partition("\n")[0].removeprefix("# ")
    shell = (Path(__file__).parent / "bnstudy/study/page.html.j2").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=False).from_string(shell).render(title=title, body=body)  # noqa: S701


def label(tokens: Sequence[Token]) -> None:
    """Each cell of a table but the first of its row says under what heading it stands, as an attribute.

    A table of four columns, of long texts, is stacked on a narrow screen; a wider one, of short ones, scrolls there.
    """
    headings: list[str] = []
    column, opened = 0, tokens[0]
    for before, token in pairwise(tokens):
        if before.type == "table_open":
            headings, opened = [], before
        elif before.type == "tr_open":
            column = 0
        elif before.type == "th_open":
            headings.append(token.content)
        elif before.type == "thead_close" and len(headings) <= 4:
            opened.attrSet("class", "stack")
        elif before.type == "td_open":
            if column:
                before.attrSet("data-label", headings[column])
            column += 1


def main() -> None:
    params = load()
    findings = read(STUDY / "metrics/claims.json", list[Finding])
    environments = read(STUDY / "metrics/environment.json", list[dict[str, Any]])
    text = markdown(
        {
            "params": params,
            "rules": params.rules,
            "data": getattr(params.data, "name", ""),
            "findings": findings,
            "questions": answers(findings),
            "moved": moved(params.rules),
            "preliminary": preliminary(params, findings),
            "pictures": pictures(),
            "theory": formula(),
            "earlier": earlier.said(),
            "mended": earlier.mended(),
            "changes": CHANGES.read_text(encoding="utf-8").partition("\n")[2].strip() if CHANGES.exists() else "",
            "cost": cost(params),
            "machines": machines(environments),
            "mixed": environments[-1].get("mixed_seeds", []) if environments else [],
            "chosen": chosen(params, table("rates")),
            "marks": MARKS,
            "fewest": FEWEST,
            "floor": FLOOR,
        }
    )
    written = page(text)
    write(STUDY / "report/README.md", text.encode())
    write(STUDY / "report/index.html", written.encode())
    print(f"wrote {STUDY}/report/README.md and index.html")


if __name__ == "__main__":
    run(main)
