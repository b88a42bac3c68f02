"""The nine claims of the study, judged from what `bnstudy.tables` has read: one function a claim.

A claim is a dictionary, as it stands in `metrics/claims.json`: id, claim, measured (how, in a sentence), verdict,
open_because (why it is not decided, if not by its intervals) and parts. A part is one comparison over the seeds, held
against a rule of `params.yaml`. Parts whose variants or decays were not run are left out.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bnstudy.params import Summarize, Sweep
from bnstudy.statistics import Comparison, paired_difference, paired_ratio, verdict
from bnstudy.tables import Run

Claim = dict[str, Any]
Part = dict[str, Any]
Runs = dict[str, list[Run]]  # of each variant, in the order of the seeds
SETTINGS = {"original": ("batch_norm", "plain"), "fair": ("batch_norm_hidden", "plain_he")}
# Nats. Of mean 0 and variance 1 over ten balanced classes, a logit is at best 3 for its own and -1/3 for the others.
FLOOR = math.log(1 + 9 * math.exp(-10 / 3))


def digits(value: float | None) -> float | None:
    """`value` to 6 significant digits: fewer than two machines may differ in."""
    return None if value is None else float(f"{value:.6g}")


def percent(share: float) -> str:
    return f"{100 * share:.10g}%"


def part(
    label: str,
    quantity: str,
    found: Comparison,
    rules: Summarize,
    *,
    above: float | None = None,
    below: float | None = None,
    beyond: float | None = None,
    inclusive: bool = False,
    alone: bool = False,
) -> Part:
    """One part, judged: supported above `above` and below `below`; or beyond ±`beyond`, and refuted within.

    `inclusive`: also at `above` and at `below`.
    `alone`: a was compared with a constant, so that `p` and `probability_better` say nothing.
    """
    judged: str
    if beyond is None:
        judged = verdict(found, above=above, below=below, inclusive=inclusive, minimum_runs=rules.minimum_runs)
        limits = {"at least" if inclusive else "above": above, "at most" if inclusive else "below": below}
        rule = " and ".join(f"{word} {limit:g}" for word, limit in limits.items() if limit is not None)
    else:
        within = verdict(found, above=-beyond, below=beyond, minimum_runs=rules.minimum_runs)
        judged = {"supported": "refuted", "refuted": "supported"}.get(within, within)
        rule = f"beyond ±{beyond:g}"
    return {
        "part": label,
        "quantity": quantity,
        **{name: digits(getattr(found, name)) for name in ("estimate", "low", "high")},
        "bound": found.bound,
        **{name: None if alone else digits(getattr(found, name)) for name in ("p", "probability_better")},
        "runs": found.pairs,
        "censored_a": found.censored_a,
        "censored_b": found.censored_b,
        "rule": rule,
        "verdict": judged,
    }


def claim(number: int, text: str, measured: str, parts: list[Part], open_because: str | None = None) -> Claim:
    """Supported if every part is, refuted if any part is, not measured without parts."""
    verdicts = {part["verdict"] for part in parts}
    judged = "refuted" if "refuted" in verdicts else "supported" if verdicts == {"supported"} else "not decided"
    judged = judged if parts else "not measured"
    return {
        "id": number,
        "claim": text,
        "measured": measured,
        "verdict": judged,
        "open_because": open_because,
        "parts": parts,
    }


def constant(
    values: Sequence[float],
    label: str,
    quantity: str,
    rules: Summarize,
    *,
    above: float | None = None,
    below: float | None = None,
) -> Part:
    """The part that says how the mean of `values` lies to `above` or `below`."""
    found = paired_difference(values, [0.0] * len(values), confidence=rules.confidence)
    return part(label, quantity, found, rules, above=above, below=below, alone=True)


def faster(number: int, setting: str, runs: Runs, curves: pd.DataFrame, sweep: pd.DataFrame, rules: Summarize) -> Claim:
    """Claims 1 and 2: a part a target that a run of either variant reached; in the fair setting, also the rates."""
    limit, variants, parts = int(curves["step"].max()), SETTINGS[setting], []
    for target in runs[variants[0]][0].steps_to if runs.keys() >= set(variants) else ():
        a, b = ([record.steps_to[target] for record in runs[variant]] for variant in variants)
        if any(step is not None for step in a + b):
            found = paired_ratio(a, b, limit, confidence=rules.confidence)
            parts.append(part(f"to {percent(target)}, {setting}", "ratio of steps", found, rules, below=1))
    how = (
        f"Updates to the first evaluation with that validation accuracy, {' over '.join(variants)}, geometric mean "
        f"over the seeds; a run that did not get there counts as {limit}, its end"
    )
    if setting == "original":
        return claim(number, "Batch norm converges faster, in the original's setting.", f"{how}.", parts)
    how = "; ".join([how, *(rate_used(variant, curves, sweep) for variant in variants if parts)])
    return claim(number, "Batch norm still converges faster, against a fair baseline.", f"{how}.", parts)


def rate_used(variant: str, curves: pd.DataFrame, sweep: pd.DataFrame) -> str:
    """At which rate `variant` was trained, and which one the sweep found best."""
    used, best = float(curves.loc[curves["variant"] == variant, "learning_rate"].iloc[0]), best_rate(variant, sweep)
    if best is None:
        return f"{variant} at the rate {used:g}, not swept"
    agrees = math.isclose(used, best, rel_tol=1e-6)
    return f"{variant} at the rate {used:g}, " + ("the sweep's best" if agrees else f"not the sweep's best, {best:g}")


def best_rate(variant: str, sweep: pd.DataFrame) -> float | None:
    """The rate with the highest mean validation accuracy, the smallest of equal ones; None without a sweep."""
    rows = sweep[(sweep["variant"] == variant) & (sweep["kind"] == "rate")]
    means = rows.groupby("learning_rate")["validation_accuracy"].mean().round(9)
    return None if means.empty else float(means.index[int(means.argmax())])


def final_accuracy(runs: Runs, rules: Summarize) -> Claim:
    parts = []
    for setting, variants in SETTINGS.items():
        if runs.keys() >= set(variants):
            a, b = ([record.test_accuracy for record in runs[variant]] for variant in variants)
            found = paired_difference(a, b, confidence=rules.confidence)
            parts.append(part(setting, "difference of test accuracy", found, rules, beyond=rules.accuracy_margin))
    how = "Test accuracy after the last update, with batch norm minus without, mean over the seeds."
    return claim(3, "Batch norm changes the final accuracy.", how, parts)


def under(warmup: pd.DataFrame, seed: int, statistics: str, decay: float | None = None) -> "pd.Series[float]":
    """Test accuracy by step under one kind of statistics."""
    rows = warmup[(warmup["seed"] == seed) & (warmup["statistics"] == statistics)]
    return (rows if decay is None else rows[rows["decay"] == decay]).set_index("step")["test_accuracy"]


def lag(warmup: pd.DataFrame, seed: int, decay: float, within: float) -> int | None:
    """The first evaluated step from which on moving averages stay near precise statistics; None if there is none.

    Near: at most `within` apart in test accuracy, to 9 decimals, since a difference of just `within` is common.
    """
    apart = (under(warmup, seed, "moving", decay) - under(warmup, seed, "precise")).abs().round(9)
    last_far = max(apart.index[apart > within], default=0)
    return next((int(step) for step in apart.index if step > last_far), None)


def needs_warmup(warmup: pd.DataFrame, variant: str, rules: Summarize) -> Claim:
    slow, fast, parts, end = rules.slow_decay, rules.fast_decay, [], int(warmup["step"].max())
    for decay, (above, below) in [(slow, rules.slow_steps), (fast, (None, rules.fast_steps))]:
        if decay in set(warmup["decay"]):
            lags = [lag(warmup, seed, decay, rules.warm_within) for seed in warmup["seed"].unique()]
            found = paired_ratio(lags, [1] * len(lags), end + 1, confidence=rules.confidence)
            label = f"decay {decay:g}"
            parts.append(part(label, "steps", found, rules, above=above, below=below, inclusive=True, alone=True))
    how = (
        f"Updates to the first evaluation from which on the test accuracy of {variant} under moving averages stays "
        f"within {rules.warm_within:g} of that under precise statistics, geometric mean over the seeds; a run that is "
        "cold at its end counts as one update more."
    )
    text = f"A decay of {slow:g} needs about 1,000 steps of warm-up; {fast:g} learns the statistics quickly."
    return claim(4, text, how, parts)


def late_spread(warmup: pd.DataFrame, seed: int, decay: float) -> float:
    """Standard deviation of the change from one evaluation to the next in the second half; nan for fewer than three."""
    accuracy = under(warmup, seed, "moving", decay)
    return round(float(accuracy[accuracy.index >= accuracy.index.max() / 2].diff().std()), 12)


def more_stable(warmup: pd.DataFrame, variant: str, rules: Summarize) -> Claim:
    slow, fast, parts, open_because = rules.slow_decay, rules.fast_decay, [], None
    how = (
        f"Standard deviation of the change in test accuracy of {variant} from one evaluation to the next, in the "
        "second half of the run, paired by seed"
    )
    if {slow, fast} <= set(warmup["decay"]):
        seeds = warmup["seed"].unique()
        a, b = ([late_spread(warmup, seed, decay) for seed in seeds] for decay in (slow, fast))
        least, most = min(a + b), max(a + b)
        if least > 0:  # in units of the least, since `paired_ratio` wants 1 or more
            a, b = ([spread / least for spread in side] for side in (a, b))
            found = paired_ratio(a, b, most / least, confidence=rules.confidence)
            parts = [part(f"{slow:g} over {fast:g}", "ratio of standard deviations", found, rules, below=1)]
        elif least == 0:  # it has no logarithm
            found = paired_difference(b, a, confidence=rules.confidence)
            parts = [part(f"{fast:g} minus {slow:g}", "difference of standard deviations", found, rules, above=0)]
        lags = [lag(warmup, seed, slow, rules.warm_within) for seed in seeds]
        cold = sum(steps is None or steps > warmup["step"].max() / 2 for steps in lags)
        if cold:  # what is still on its way says nothing of a warm one
            parts = [part | {"verdict": "not decided"} for part in parts]
            how += f"; in {cold} of {len(seeds)} seeds {slow:g} was not warm before that half"
            open_because = f"{slow:g} was not warm in time"
    text = f"A decay of {slow:g} is more stable than {fast:g} once warm."
    return claim(5, text, f"{how}.", parts, open_because)


def useless_without_updates(warmup: pd.DataFrame, variant: str, rules: Summarize) -> Claim:
    parts = []
    if 1.0 in set(warmup["decay"]):
        moving, batch = (
            [float(under(warmup, seed, *which).iloc[-1]) for seed in warmup["seed"].unique()]
            for which in (("moving", 1.0), ("batch",))
        )
        parts = [
            constant(moving, "evaluation mode, decay 1", "accuracy", rules, below=rules.useless_accuracy),
            constant(batch, "the batch's own statistics", "accuracy", rules, above=rules.fine_accuracy),
        ]
    how = f"Test accuracy of {variant} after {warmup['step'].max()} updates, mean over the seeds."
    return claim(6, "Without the update ops, evaluation mode is useless while training looks fine.", how, parts)


def loss_floor(curves: pd.DataFrame, rules: Summarize) -> Claim:
    parts = []
    for variant, limits in [("batch_norm", {"above": 0.0}), ("batch_norm_hidden", {"below": 0.0})]:
        rows = curves[curves["variant"] == variant]
        if not rows.empty:
            least = rows.groupby("seed", sort=False)["train_loss"].min() - FLOOR
            found = constant(list(least), variant, "nats", rules, **limits)
            if variant == "batch_norm_hidden" and found["verdict"] == "refuted":
                found["verdict"] = "not decided"  # a loss that is still above the floor may just need more updates
            parts.append(found)
    how = (
        "A run's least training loss, among means from one evaluation to the next, minus ln(1 + 9 exp(-10/3)), mean "
        "over the seeds; without batch norm on the logits it must get below."
    )
    return claim(7, f"The logits' batch norm puts a floor of {FLOOR:.4f} under the training loss.", how, parts)


def decades(rates: Sequence[float]) -> NDArray[np.float64]:
    """How much of a logarithmic axis is nearer to each of two or more ascending `rates` than to the others, in decades.

    The first and the last reach as far outwards as inwards.
    """
    logs = np.log10(rates)
    middles = (logs[1:] + logs[:-1]) / 2
    return np.diff([2 * logs[0] - middles[0], *middles, 2 * logs[-1] - middles[-1]])


def decades_that_work(variant: str, table: pd.DataFrame, sweep: Sweep) -> list[float]:
    """How wide a range of rates reaches the target, a number a seed, in decades; of two or more rates."""
    rows = table[(table["kind"] == "rate") & (table["variant"] == variant)]
    works = (rows["validation_accuracy"] >= sweep.target_accuracy) & (rows["diverged"] == 0)
    works_SR = rows.assign(works=works).pivot_table("works", "seed", "learning_rate")[sweep.learning_rates]
    return list(works_SR.to_numpy(float) @ decades(sweep.learning_rates))


def widens(table: pd.DataFrame, sweep: Sweep, rules: Summarize) -> Claim:
    parts, found = [], dict[str, list[float]]()
    if len(sweep.learning_rates) > 1:
        found = {variant: decades_that_work(variant, table, sweep) for variant in sweep.variants}
    for setting, (a, b) in SETTINGS.items():
        if found.keys() >= {a, b}:
            wider = paired_difference(found[a], found[b], confidence=rules.confidence)
            parts.append(part(setting, "decades", wider, rules, above=0))
    each = "".join(
        f"; {variant} {np.mean(widths):.3g} decades, best at {best_rate(variant, table):g}"
        for variant, widths in found.items()
        if parts
    )
    how = (
        f"Decades of learning rates with {percent(sweep.target_accuracy)} validation accuracy after {sweep.steps} "
        "updates, each rate standing for what is nearest to it, with batch norm minus without, mean over the seeds"
    )
    return claim(8, "Batch norm widens the range of learning rates that work.", f"{how}{each}.", parts)


def depends_on_batch(table: pd.DataFrame, sweep: Sweep, rules: Summarize) -> Claim:
    rows = table[table["kind"] == "batch"]
    accuracy = {name: own.pivot_table("test_accuracy", "seed", "batch_size") for name, own in rows.groupby("variant")}
    parts = []
    for setting, (a, b) in SETTINGS.items():
        if {a, b} <= set(sweep.variants):
            advantage = (accuracy[a] - accuracy[b]).dropna(axis=1)  # at the sizes that both have
            sizes = sorted(advantage.columns.astype(int).tolist())
            if len(sizes) > 1:
                large, small = (list(advantage[size]) for size in (sizes[-1], sizes[0]))
                label = f"{setting}, {sizes[-1]} against {sizes[0]} images"
                found = paired_difference(large, small, confidence=rules.confidence)
                parts.append(part(label, "difference of advantage", found, rules, beyond=rules.accuracy_margin))
    how = (
        f"Advantage in test accuracy after {sweep.steps} updates, with batch norm minus without, at the largest batch "
        "size minus that at the smallest, mean over the seeds."
    )
    return claim(9, "The advantage of batch norm depends on the batch size.", how, parts)


def judge(
    runs: Runs,
    curves: pd.DataFrame,
    warmup: pd.DataFrame,
    warmup_variant: str,
    sweep_table: pd.DataFrame,
    sweep: Sweep,
    rules: Summarize,
) -> list[Claim]:
    """The nine claims. The tables are those of `bnstudy.tables`; `sweep` says what was run for `sweep_table`."""
    return [
        faster(1, "original", runs, curves, sweep_table, rules),
        faster(2, "fair", runs, curves, sweep_table, rules),
        final_accuracy(runs, rules),
        needs_warmup(warmup, warmup_variant, rules),
        more_stable(warmup, warmup_variant, rules),
        useless_without_updates(warmup, warmup_variant, rules),
        loss_floor(curves, rules),
        widens(sweep_table, sweep, rules),
        depends_on_batch(sweep_table, sweep, rules),
    ]
