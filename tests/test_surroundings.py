"""Other people's surroundings: git as they have set it up, terminals, users, and projects that read the results."""

import json
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import yaml

from conftest import ENVIRONMENT, ROOT, run
from toy import commit, damage, edit, repro

PAGE = (ROOT / "docs/troubleshooting.md").read_text()


@pytest.fixture
def strange(tmp_path: Path) -> str:
    """A git configuration that fails or changes whatever it can."""
    hooks = tmp_path / "templates/hooks"
    hooks.mkdir(parents=True)
    for name in ("pre-commit", "commit-msg", "post-checkout", "reference-transaction"):
        (hooks / name).write_text("#!/bin/sh\nexit 1\n")
        (hooks / name).chmod(0o755)
    (tmp_path / "attributes").write_text("* text eol=crlf ident filter=swap\n*.csv working-tree-encoding=UTF-16\n")
    (tmp_path / "ignored").write_text("*.csv\n*.json\n*.lock\n*.svg\nmetrics/\nplots\n")
    settings = {
        "core.attributesFile": tmp_path / "attributes",
        "core.excludesFile": tmp_path / "ignored",
        "core.hooksPath": hooks,
        "commit.gpgSign": "true",
        "gpg.program": "false",
        "filter.swap.smudge": "tr a b",
        "filter.swap.clean": "tr b a",
        "init.templateDir": hooks.parent,
        "protocol.file.allow": "never",
    }
    for name, value in settings.items():
        run(tmp_path, "git", "config", "--file", "gitconfig", name, str(value))
    return str(tmp_path / "gitconfig")


@pytest.fixture
def origin(made: Path, tmp_path: Path) -> str:
    """The address of a repository that holds nothing but git's objects, as a server's does."""
    run(tmp_path, "git", "clone", "--quiet", "--bare", str(made), "origin.git")
    return (tmp_path / "origin.git").as_uri()


@pytest.fixture
def fresh(origin: str, tmp_path: Path) -> Path:
    run(tmp_path, "git", "clone", "--quiet", origin, "fresh")
    return tmp_path / "fresh"


def make(folder: Path, target: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """`make`, with these packages in place of an installation."""
    shutil.copy(ROOT / "Makefile", folder)
    return run(folder, "make", "--assume-old=venv", target, check=check, **environment)


def tracked(folder: Path) -> dict[str, bytes]:
    names = run(folder, "git", "ls-files", "-z").stdout.rstrip("\0").split("\0")
    return {name: (folder / name).read_bytes() for name in names}


def row(message: str) -> None:
    """The page has a row on it."""
    assert any(message in line.split("|")[1] for line in PAGE.splitlines() if line.startswith("|"))


# Row: git clone -c core.autocrlf=true
def test_no_byte_is_changed_on_the_way_through_git(made: Path, strange: str, tmp_path: Path) -> None:
    for configuration, option in ((os.devnull, "core.autocrlf=true"), (os.devnull, "core.eol=crlf"), (strange, "a.b=")):
        options = ("-c", option, "-c", "core.hooksPath=/dev/null", "-c", "protocol.file.allow=always")
        shutil.rmtree(tmp_path / "clone", ignore_errors=True)
        clone = ("git", *options, "clone", "--quiet", "--template=", "--config", option, str(made), "clone")
        run(tmp_path, *clone, GIT_CONFIG_GLOBAL=configuration)
        assert tracked(tmp_path / "clone") == tracked(made)
        make(tmp_path / "clone", "records")
        assert tracked(tmp_path / "clone") == tracked(made)
        assert (tmp_path / "clone/study/runs/train/he/22.csv").exists()


def test_a_pull_that_removes_a_damaged_record_fails_and_says_how_to_mend_it(fresh: Path) -> None:
    before = tracked(fresh)
    damage(next(path for path in sorted((fresh / "study/records/files/md5").rglob("*")) if path.is_file()))
    done = make(fresh, "records", check=False)
    assert done.returncode
    assert "error: files in study/records were damaged: `git restore study/records`" in done.stdout
    run(fresh, "git", "restore", "study/records")
    make(fresh, "records")
    assert tracked(fresh) == before


# Row: a git origin; dvc exp push
def test_an_experiment_is_pushed_to_git_and_nowhere_else(copy: Path, origin: str, tmp_path: Path) -> None:
    assert "core.remote" not in run(copy, "dvc", "config", "--list").stdout  # `exp push` would take it
    run(copy, "git", "remote", "add", "origin", origin)
    run(copy, "dvc", "exp", "run", "--temp", "--name", "more", "--set-param", "seeds=[10, 11]", "dvc.yaml")
    root = {*Path("/").iterdir()}
    said = run(copy, "dvc", "exp", "push", "origin", "more").stdout
    assert "Pushed experiment more" in said
    assert "uploaded" not in said
    shutil.rmtree(copy / "study/records")
    assert "no remote specified" in run(copy, "dvc", "push", "--remote", "records", "--all-commits", check=False).stderr
    run(copy, "dvc", "exp", "remove", "--git-remote", "origin", "more")
    run(copy, "dvc", "exp", "push", "--remote", "records", "origin", "more")
    assert {*(copy / "study/records").iterdir()} == {copy / "study/records/files"}
    assert {*Path("/").iterdir()} == root
    run(tmp_path, "git", "clone", "--quiet", origin, "other")
    run(tmp_path / "other", "dvc", "exp", "pull", "origin", "more")
    applied = run(tmp_path / "other", "dvc", "exp", "apply", "more", check=False)
    row("Checkout failed for following targets")
    assert "Checkout failed for following targets" in applied.stderr
    assert (tmp_path / "other/metrics/plain/11.json").exists()
    run(tmp_path / "other", "dvc", "checkout", "--allow-missing")


# Rows: dvc get, dvc.api.read, dvc import; dvc artifacts get
def test_another_project_reads_the_results_from_an_address(made: Path, origin: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    run(tmp_path / "other", "dvc", "init", "--quiet", "--no-scm")

    def dvc(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run(tmp_path / "other", "dvc", *words, check=check)

    def same(here: str, there: str) -> bool:
        return (tmp_path / "other" / here).read_bytes() == (made / there).read_bytes()

    dvc("get", origin, "study/metrics", "--out", "got")
    assert same("got/claims.json", "study/metrics/claims.json")
    dvc("import", origin, "plots/curves.csv")
    assert same("curves.csv", "plots/curves.csv")
    for what, word in (("read('study/metrics/claims.json'", "holds"), ("params_show('study/params.yaml'", "[22, 23]")):
        assert (
            word
            in run(tmp_path, sys.executable, "-c", f"import dvc.api; print(dvc.api.{what}, repo='{origin}'))").stdout
        )

    assert "No storage files available" in dvc("get", origin, "study/runs", "--out", "none", check=False).stderr
    row("No storage files available")
    assert "study/runs --remote web --remote-config url=" in PAGE
    web = ("--remote", "web", "--remote-config", f"url={made / 'study/records'}")
    dvc("get", origin, "study/runs", "--out", "runs", *web)
    assert same("runs/train/he/22.csv", "study/runs/train/he/22.csv")
    for name in ("dvc.yaml", "study/dvc.yaml"):  # what `dvc artifacts get` would name is not in any remote
        assert "artifacts" not in yaml.safe_load((ROOT / name).read_text())


# Row: dvc pull in a fresh clone
def test_the_first_pull_says_what_the_page_explains(fresh: Path) -> None:
    done = run(fresh, "dvc", "pull", check=False)
    row(done.stderr.partition(".")[0])
    assert "Checkout failed for following targets" in done.stderr
    make(fresh, "records")
    assert repro(fresh, "--allow-missing", "dvc.yaml", "study/dvc.yaml") == (set(), set())


# Rows: what notebooks hand on; latin-1
def draw(folder: Path, **surroundings: str) -> list[bytes]:
    """What the note's last stage draws of made-up metrics, in an empty folder."""
    for model, seed in product(("batch_norm", "plain"), (10, 11)):
        columns = {"step": [1, 10], "batch_accuracy": [0.1, 0.8], "test_accuracy": [0.1, seed / 20]}
        curve = [{"column": name, "values": values} for name, values in columns.items()]
        (folder / "metrics" / model).mkdir(parents=True, exist_ok=True)
        (folder / f"metrics/{model}/{seed}.json").write_text(json.dumps({"test_accuracy": seed / 20, "curve": curve}))
    shutil.copy(ROOT / "params.yaml", folder)
    edit(folder, "seeds", [10, 11])
    command = (sys.executable, str(ROOT / "src/plot.py"))
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT | surroundings, capture_output=True)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert b"batch_norm  52.50 " in done.stdout
    return [(folder / f"plots/curves.{kind}").read_bytes() for kind in ("csv", "svg")]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return draw(tmp_path_factory.mktemp("usual"))


@pytest.mark.parametrize(
    "surroundings",
    [
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "TZ": "Pacific/Kiritimati"},
        {"PYTHONWARNINGS": "error", "HOME": "/proc/none", "MPLCONFIGDIR": "/proc/none", "COLUMNS": "9"},
    ],
    ids=["notebook", "no UTF-8", "no home"],
)
def test_the_picture_is_the_same_anywhere(tmp_path: Path, drawn: list[bytes], surroundings: dict[str, str]) -> None:
    (tmp_path / "matplotlibrc").write_text("font.size: 40\nsvg.fonttype: none\nbackend: TkAgg\n")
    assert draw(tmp_path, **surroundings) == drawn


@pytest.mark.parametrize("shell", ["{} >/dev/full 2>/dev/full", "set -o pipefail; {} | true", "{} >&-"])
def test_a_stage_that_cannot_print_has_done_its_work(tmp_path: Path, shell: str) -> None:
    code = "import sys, time; sys.path.insert(0, sys.argv[1]); import bnstudy; bnstudy.run(lambda: "
    code += "(time.sleep(0.2), print('a' * 10**6, flush=True), print('b', file=sys.stderr), open('done', 'w').close()))"
    (tmp_path / "stage.py").write_text(code)
    command = shell.format(f"'{sys.executable}' stage.py '{ROOT / 'src'}'")
    run(tmp_path, "bash", "-c", command, DVC_STAGE="plot")
    assert (tmp_path / "done").exists()
    if "full" in shell:  # but who asks for output is told
        assert run(tmp_path, "bash", "-c", command, check=False).returncode


# Row: commit.gpgsign, a global hook
def test_the_demo_is_made_under_a_strangers_configuration(made: Path, strange: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "toy"))
    (folder / "tools").mkdir()
    for name in ("page", "small"):
        (folder / f"tools/{name}.py").write_text("")
    edit(folder, "seeds", [10, 11])
    commit(folder)
    make(folder, "demo", GIT_CONFIG_GLOBAL=strange)
    names = run(folder / ".demo", "git", "ls-tree", "-r", "--name-only", "HEAD").stdout.split()
    assert {"metrics/plain/11.json", "plots/curves.csv", "dvc.lock"} <= {*names}


def test_names_that_git_is_told_to_ignore_are_the_page_says_how_not(copy: Path, strange: str) -> None:
    done = run(copy, "dvc", "status", "dvc.yaml", check=False, GIT_CONFIG_GLOBAL=strange)
    assert "dvc.lock' is git-ignored" in done.stderr
    row("dvc.lock is git-ignored")
    run(copy, "git", "config", "core.excludesFile", "/dev/null")
    run(copy, "dvc", "status", "dvc.yaml", GIT_CONFIG_GLOBAL=strange)


# Rows: DVC's own
def test_a_user_without_a_name(copy: Path) -> None:
    nobody = ["unshare", "--user", "--map-user=12345", "env", *(f"-u{name}" for name in ("USER", "LOGNAME"))]
    if not shutil.which("unshare") or subprocess.run([*nobody, "true"]).returncode:
        pytest.skip("needs user namespaces")
    assert "getpwuid(): uid not found" in run(copy, *nobody, "dvc", "status", "dvc.yaml", check=False).stderr
    row("getpwuid(): uid not found")
    run(copy, *nobody, "USER=me", "dvc", "repro", "--force", "--single-item", "plot")


def test_a_repository_of_sha256_and_a_path_beyond_ascii(copy: Path, tmp_path: Path) -> None:
    folder = copy.rename(tmp_path / "Ü")
    assert repro(folder, "--force", "--single-item", "plot")[0] == {"plot"}
    done = run(folder, "dvc", "exp", "run", "--temp", "--set-param", "plot.width=5.0", "plot", check=False)
    assert "'ascii' codec can't encode" in done.stderr
    row("'ascii' codec can't encode")
    shutil.rmtree(folder / ".git")
    run(folder, "git", "init", "--quiet", "--object-format=sha256")
    commit(folder)
    assert "unknown object format 'sha256'" in run(folder, "dvc", "params", "diff", check=False).stderr
    row("unknown object format 'sha256'")


def test_a_list_that_two_stages_track(copy: Path) -> None:
    study = yaml.safe_load((copy / "study/params.yaml").read_text())
    edit(copy, "arms", study["arms"] | {"he": {"rates": [1, 2]}}, "study/params.yaml")
    edit(copy, "stages.judge.params", [{"study/params.yaml": ["rules", "arms"]}], "study/dvc.yaml")
    said = run(copy, "dvc", "params", "diff").stdout
    row("a list twice over")
    assert "[1, 2, 1, 2]" in said
    once = "import dvc.api; print(dvc.api.params_show('study/params.yaml')['arms']['he']['rates'])"
    assert run(copy, sys.executable, "-c", once).stdout == "[1, 2]\n"
