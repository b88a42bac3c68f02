"""Make both pipelines small, in a throwaway clone: 5,000 digits, small batches, a few updates.

    python tools/small.py

Rewrites params.yaml and study/params.yaml in the working folder, comments and all. `make demo`, `make study-demo` and
tests run what comes out.
"""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

VALIDATION = 500
SHA256 = "3949cd0863c195f140df66d1b8ccba72c15af98d6262a1f048161b2577158237"  # of the sample's SHA256SUMS with as many
NOTE = {
    "data.source": "sample",
    "data.validation_size": VALIDATION,
    "train.batch_size": 64,
    "train.steps": 100,
    "seeds": [10, 11],
}
KEPT = {  # what the dip, the correction and the ladder take
    "arms": ["note_plain", "baseline", "same_rate", "own_rate", "everywhere"],
    "averages": ["note_batch_norm"],
}
STUDY: dict[str, Any] = {
    "data.name": "5,000 digits of MNIST",
    "data.sha256": SHA256,
    "evaluation.per_decade": 8,
    "evaluation.fine.factor": 1.2,
    "evaluation.moments": [60],
    "averages.note_batch_norm.steps": 160,
    "averages.note_batch_norm.decays": [0.9, 0.95, 0.98, 1.0],
    "averages.note_batch_norm.ages": [[0.2, 1.0, 0.2], [1.2, 2.2, 0.2], [3.0, 6.0, 1.0]],
    "averages.note_batch_norm.images": VALIDATION,
    "averages.note_batch_norm.precise_images": 1000,
    "averages.note_batch_norm.other_starts": {"decays": [0.95], "variances": [10.0, 0.1], "ages": [[6.0, 8.0, 1.0]]},
    "long.seeds": [],
    "mechanism.seeds": [22],
    "mechanism.points": 9,
    "rules.note.target": 0.8,
    "rules.tuned.target": 0.85,
    "rules.share.target": 0.85,
    "rules.ladder.after": 60,
    "entries": ["plain_he", "batch_norm_hidden_he"],
    "registered": [22, 23],
    "seeds": [22, 23],
}


def main() -> None:
    yaml = YAML()
    yaml.width = 120
    note = yaml.load(Path("params.yaml"))
    for path, value in NOTE.items():
        change(note, path, value)
    study = yaml.load(Path("study/params.yaml"))
    for section, kept in KEPT.items():
        for name in [name for name in study[section] if name not in kept]:
            del study[section][name]
    for arm in (*study["arms"].values(), *study["averages"].values(), *study["sweep"].values()):
        arm["batch_size"], arm["steps"] = 64, 60
    for entry in study["sweep"].values():
        entry["learning_rates"], entry["seeds"] = [0.003, 0.03, 0.3], [100]
    for path, value in STUDY.items():
        change(study, path, value)
    yaml.dump(note, Path("params.yaml"))
    yaml.dump(study, Path("study/params.yaml"))


def change(tree: Any, path: str, value: Any) -> None:
    """Another value for a key that is there."""
    *above, key = path.split(".")
    for name in above:
        tree = tree[name]
    assert key in tree, path
    tree[key] = value


if __name__ == "__main__":
    main()
