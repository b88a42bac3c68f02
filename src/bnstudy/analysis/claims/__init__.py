"""The nine claims of the study, one module per group of them: statement, rule, sentences and figure."""

from bnstudy import BadInput
from bnstudy.analysis.claim import CLAIMS_FILE, Claim, Finding, read_findings
from bnstudy.analysis.claims import averages, sweep, training

CLAIMS: tuple[Claim, ...] = (
    training.ORIGINAL,
    training.FAIR,
    training.FINAL_ACCURACY,
    averages.WARM_UP,
    averages.STABILITY,
    averages.NO_UPDATES,
    training.FLOOR_OF_LOSS,
    sweep.LEARNING_RATES,
    sweep.BATCH_SIZES,
)


def read_claims() -> list[tuple[Claim, Finding]]:
    """Each claim with what `summarize` found of it; `BadInput` if `metrics/claims.json` is not of these claims."""
    findings = read_findings()
    known = [{quantity.name for quantity in claim.quantities} for claim in CLAIMS]
    found = [{part.quantity for part in finding.parts} for finding in findings]
    same = [finding.id for finding in findings] == [claim.id for claim in CLAIMS]
    if not same or not all(names <= allowed for names, allowed in zip(found, known, strict=True)):
        raise BadInput(f"{CLAIMS_FILE}: is not of these claims; `dvc repro` writes it anew")
    return list(zip(CLAIMS, findings, strict=True))
