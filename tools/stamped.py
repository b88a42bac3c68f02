"""Which runs did dvc.lock give new code since they were last made? Part of `make verify`.

`dvc commit` writes the hashes of today's code beside the outputs of yesterday's run. In the history of dvc.lock that
shows as a commit in which a run's code or command changed and none of its outputs did. A new run that gave the same
bytes shows the same, so this is told and not called a failure.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Stages = dict[str, dict[str, Any]]
NOW = "not committed"


class NotHereError(Exception):
    """The history, or part of it, is not in this checkout."""


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise NotHereError(" ".join(done.stderr.split()) or f"git {words[0]} failed")
    return done.stdout


def parse(text: str) -> Stages:
    try:
        return dict(yaml.load(text, yaml.CSafeLoader)["stages"])
    except (yaml.YAMLError, TypeError, KeyError, ValueError):
        return {}  # a commit whose dvc.lock cannot be read says nothing of any run


def versions() -> Iterator[tuple[str, Stages]]:
    """dvc.lock as it is, then as each commit left it that changed it, newest first."""
    yield NOW, parse(Path("dvc.lock").read_text(encoding="utf-8"))
    for commit in git("log", "--first-parent", "--format=%h", "--", "dvc.lock").split():
        try:
            yield commit, parse(git("show", f"{commit}:./dvc.lock"))
        except NotHereError:
            yield commit, {}  # dvc.lock was removed


def code(stage: dict[str, Any]) -> list[object]:
    """Command and code of a stage, as one version of dvc.lock has them."""
    deps = {dep["path"]: dep.get("md5") for dep in stage.get("deps", []) if dep["path"].startswith("src/")}
    return [stage.get("cmd"), deps]


def outputs(stage: dict[str, Any]) -> dict[str, str | None]:
    return {out["path"]: out.get("md5") for out in stage.get("outs", [])}


def find(runs: list[str]) -> tuple[dict[str, list[str]], str | None]:
    """The commits that stamped some of `runs` since each was last made, newest first, with those runs.

    Second, what part of the history is not here, if it does not go back to when all of them were made.
    """
    found: dict[str, list[str]] = {}
    unmade = set(runs)
    history = versions()
    newer_name, newer = next(history)
    try:
        for name, older in history:
            for run in sorted(unmade):
                if run not in older or run not in newer or outputs(older[run]) != outputs(newer[run]):
                    unmade.discard(run)  # made in `newer`
                elif code(older[run]) != code(newer[run]):
                    found.setdefault(newer_name, []).append(run)
            if not unmade:
                return found, None
            newer_name, newer = name, older
        shallow = git("rev-parse", "--is-shallow-repository").strip() == "true"
    except NotHereError as why:
        return found, str(why)
    return found, f"the history before {newer_name}: this clone is shallow" if shallow else None
