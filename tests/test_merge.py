"""Results of two branches, merged as CONTRIBUTING.md says, by the real DVC."""

import re
import subprocess
from pathlib import Path

from conftest import ENVIRONMENT, ROOT, run

PIPELINE = """\
stages:
  train:
    wdir: {top}
    matrix: {{seed: "${{seeds}}"}}
    cmd: echo ${{item.seed}} >> trained && mkdir -p {at}runs && echo ${{item.seed}} > {at}runs/${{item.seed}}
    outs: ["{at}runs/${{item.seed}}"]
  judge:
    wdir: {top}
    cmd: cat {at}runs/* > {at}judged
    deps: [{at}runs]
    params: [{at}params.yaml: [seeds]]
    outs: [{at}judged: {{cache: false}}]
"""


def test_two_branches_that_each_add_a_seed_are_merged_without_training(tmp_path: Path) -> None:
    """By the commands of CONTRIBUTING.md, on a small pipeline; the editor and the installation of `make` left out."""
    (commands,) = re.findall(r"```\n(git merge other.+?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    keep = "sed -i '/^[<=>]/d' params.yaml study/params.yaml"
    for old, new in {
        "git merge other": "! git merge -q other",
        "$EDITOR params.yaml study/params.yaml": keep,
        "make records": "dvc pull -q -r records",
        "git commit": "git commit -qm both",
    }.items():
        assert old in commands
        commands = commands.replace(old, new)

    def shell(script: str) -> None:
        run(tmp_path, "bash", "-ec", script, DVC_SITE_CACHE_DIR=str(tmp_path / ".dvc/tmp"))

    def release(seed: int) -> str:
        return f"""echo '- {seed}' | tee -a params.yaml >> study/params.yaml
            dvc repro -q dvc.yaml study/dvc.yaml; dvc push -q -r records; git add --all; git commit -qm {seed}"""

    (tmp_path / "study").mkdir()
    for name, top, at in (("dvc.yaml", ".", ""), ("study/dvc.yaml", "..", "study/")):
        (tmp_path / name).write_text(PIPELINE.format(top=top, at=at))
        (tmp_path / f"{at}params.yaml").write_text("seeds:\n")
    (tmp_path / ".dvcignore").write_text("study/records\n")
    shell(f"""git init -q -b main; dvc init -q; dvc config core.analytics false
        dvc remote add -q records study/records; echo trained >> .gitignore
        {release(1)}; git checkout -qb other; {release(2)}; git checkout -q main; {release(3)}
        rm -rf trained runs study/runs .dvc/cache .dvc/tmp/*""")
    shell(commands)
    assert not (tmp_path / "trained").exists()
    assert (tmp_path / "study/judged").read_text().split() == ["1", "2", "3"]
    assert "main" in run(tmp_path, "git", "branch", "--contains", "other").stdout
    assert subprocess.run(["dvc", "status", "-q"], cwd=tmp_path, env=ENVIRONMENT).returncode == 0
