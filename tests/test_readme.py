"""README and the pages: links, commands, marks and snippets that are right, and no more than a first reader takes."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from bnstudy.engine.models import to_bytes
from bnstudy.engine.network import build
from conftest import PARAMS, ROOT

README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data/README.md", *sorted((ROOT / "docs").glob("*.md"))]
TARGETS = {*" ".join(re.findall(r"^([a-z -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)).split()}


def written() -> set[Path]:
    """What the stages write, which need not be here yet."""
    stages = [
        stage
        for name in ("dvc.yaml", "study/dvc.yaml")
        for stage in yaml.safe_load((ROOT / name).read_text())["stages"].values()
    ]
    outs = [out for stage in stages for out in stage.get("outs", []) + stage.get("metrics", [])]
    return {ROOT / (out if isinstance(out, str) else next(iter(out))) for out in outs}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_its_links_and_commands_lead_somewhere(page: Path) -> None:
    text, made = page.read_text(), written()
    links = {page.parent / link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if ":" not in link}
    scripts = {ROOT / name for name in re.findall(r"(?:python|bash) ((?:src|tools|docs)/\S+\.(?:py|sh))", text)}
    missing = [path for path in links | scripts if not path.exists() and Path(path.resolve()) not in made]
    assert not missing
    assert set(re.findall(r"(?:`|^|&& )make ([a-z-]+)", text, re.MULTILINE)) <= TARGETS


def test_it_is_read_in_minutes_and_what_is_written_into_it_has_its_place() -> None:
    assert len(README.split()) <= 650
    assert re.findall(r"^<!-- (\w+) -->$", README, re.MULTILINE) == ["note", "rerun", "headline"]
    for name in ("note", "rerun", "headline"):
        assert re.search(rf"<!-- {name} -->\n.+\n<!-- /{name} -->\n", README, re.DOTALL)


def test_a_model_is_loaded_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models/batch_norm").mkdir(parents=True)
    Path("data/prepared").mkdir(parents=True)
    arm, cpu = PARAMS.arm("batch_norm"), torch.device("cpu")
    content = to_bytes(build(arm.network, 10, cpu), "batch_norm", arm, 10, cpu)
    Path("models/batch_norm/10.safetensors").write_bytes(content)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    np.save("data/prepared/test_images.npy", np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8))
    (code,) = re.findall(r"```python\n(.+?)```", (ROOT / "docs/models.md").read_text(), re.DOTALL)
    exec(code, {})
    assert len(capsys.readouterr().out.split(",")) == 10
