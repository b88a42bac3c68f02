# make           install what the pipelines need into .venv, locked; then `source .venv/bin/activate`
# make demo      the note on 5,000 digits, in a throwaway clone: a minute or two, and no download but packages
# make study-demo  the study in small, likewise: four minutes on two cores
# make launch    run what is stale in the note side by side, each training on a core or GPU (PIPELINE=study/dvc.yaml: in
#                the study; LAUNCH="--jobs 2"; after `make ray`, on many machines: see docs/scale.md)
# make ray       install Ray (240 MB)
# make plan      what `dvc repro` will run, why, and how long it took before
# make records   fetch what the study's trainings recorded, from study/records: to judge without training again
# make read      install what reads the results, without PyTorch, into .venv-read
# make judge     judge the recorded trainings by other rules there: change `rules` in study/params.yaml first
# make verify    in a clone, make again what is cheap and one training, and compare (VERIFY=--no-retrain: not the latter)
# make bench     our training step beside idiomatic PyTorch, TF-slim and the floor: 20 minutes on two quiet cores
# make torture   kill it, forge its caches, fill its disk: a quarter of an hour, and a table of what survived
# make tour      replay docs/tour.md on 5,000 digits, and compare: five minutes
# make test      linters, types, and every test but those of `make torture`, `make tour` and `make test-launch`
# make test-launch  the tests of many machines, on Ray: twenty minutes
# make lock      resolve the dependencies of pyproject.toml anew (needs uv; UV=--upgrade for newer versions)

PYTHON ?= python3
# Relative, since a target cannot have a space in its name and the path of the checkout may.
VENV := .venv
READ := .venv-read
SLIM := .venv-slim
INSTALL := -m pip --quiet --disable-pip-version-check install --require-hashes --no-deps
SUPPORTED = $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
    { echo "error: $(PYTHON) is not Python 3.11 to 3.13: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
SYSTEM_PATH := $(PATH)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
unexport PYTHONWARNINGS PYTHONSAFEPATH  # DVC's own imports warn; scripts import what lies beside them

PIPELINE ?= dvc.yaml

.PHONY: venv help read ray demo study-demo launch plan records judge verify bench torture tour test test-launch lock
venv: $(VENV)/study
$(VENV)/study: requirements/study.lock
	@$(SUPPORTED)
	@echo "installing the locked dependencies into .venv"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python $(INSTALL) -r $<
	@$(VENV)/bin/python tools/page.py
	@touch $@

$(VENV)/test: requirements/test.lock $(VENV)/study
	@$(VENV)/bin/python $(INSTALL) -r $<
	@touch $@

read: $(READ)/read
$(READ)/read: requirements/read.lock
	@$(SUPPORTED)
	@echo "installing what reading needs into $(READ)"
	@$(PYTHON) -m venv $(READ)
	@$(READ)/bin/python $(INSTALL) -r $<
	@$(READ)/bin/python tools/page.py
	@touch $@

ray: $(VENV)/ray
$(VENV)/ray: requirements/launch.lock $(VENV)/study
	@$(VENV)/bin/python $(INSTALL) -r $<
	@touch $@

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

# In a clone, so that this checkout stays as it is. A stranger's hooks, ignored names and signing key stay out of it.
GIT := git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c commit.gpgSign=false -c protocol.file.allow=always \
    -c user.name=bnstudy -c user.email=demo@localhost
define small
	@set -e; rm -rf .demo; $(GIT) clone --quiet --template= --config core.excludesFile=/dev/null . .demo; cd .demo; \
	python tools/page.py; python tools/small.py; PYTHONPATH=src python -m bnstudy.launch $(1); \
	$(GIT) add --all; $(GIT) commit --quiet --message "In small"; dvc plots show $(2) >/dev/null
endef

demo: venv
	$(call small,dvc.yaml,plots/curves.csv)
	@cd .demo && python src/plot.py
	@echo "picture:  .demo/plots/curves.svg"
	@echo "charts:   .demo/dvc_plots/index.html   what \`dvc plots show\` draws"
	@echo "next:     docs/tour.md   change one number, and see what reruns"

study-demo: venv
	$(call small,dvc.yaml study/dvc.yaml)
	@echo "report:   .demo/study/report/index.html"
	@echo "charts:   .demo/dvc_plots/index.html   what \`dvc plots show\` draws"

launch: venv
	@PYTHONPATH=src python -m bnstudy.launch $(PIPELINE) $(LAUNCH)

plan: venv
	@python tools/plan.py

# The remote's name is this clone's own: in a commit, DVC takes its relative path from the root of the file system.
# The weights are not in git, and an empty folder in place of theirs would count as a change.
# DVC removes a damaged record, and says nothing.
PULL = dvc remote add --quiet --local --force records study/records && \
    dvc pull --quiet --allow-missing --remote records && { [ ! -d study/models ] || find study/models -empty -delete; } && \
    { [ -z "$$($(GIT) ls-files --deleted study/records)" ] || \
    { echo "error: files in study/records were damaged: \`git restore study/records\`, then the same again"; exit 1; }; }
records: venv
	@$(PULL)

# A change that needs a training ends here with "No module named 'torch'".
judge: export PATH := $(CURDIR)/$(READ)/bin:$(SYSTEM_PATH)
judge: read
	@$(PULL)
	dvc repro --allow-missing study/dvc.yaml:report

verify: venv
	@python tools/verify.py $(VERIFY)

# TensorFlow needs an older Python and older packages than the study: an environment of its own.
bench: venv
	@$(MAKE) --silent $(SLIM)/slim || { rm -rf $(SLIM); echo "TensorFlow 2.13 does not install here: going on without it"; }
	@python tools/bench/bench.py $(BENCH)
$(SLIM)/slim: requirements/slim.lock
	@python3.11 -m venv $(SLIM)
	@$(SLIM)/bin/python $(INSTALL) --only-binary :all: -r $<
	@touch $@

torture: $(VENV)/test
	@pytest -q tests/torture.py $(TORTURE)

tour: $(VENV)/test
	@pytest -q tests/replay.py

test: $(VENV)/test
	ruff check
	ruff format --check
	mypy
	pytest -n 2 --dist worksteal

$(VENV)/remotes: requirements/remotes.lock $(VENV)/ray
	@$(VENV)/bin/python $(INSTALL) -r $<
	@touch $@

test-launch: $(VENV)/test $(VENV)/remotes
	pytest tests/test_launch.py

LOCK = uv pip compile --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --quiet \
       --custom-compile-command "make lock" $(UV)
lock:
	$(LOCK) --universal pyproject.toml --extra train -o requirements/study.lock
	$(LOCK) --universal pyproject.toml --constraint requirements/study.lock -o requirements/read.lock
	$(LOCK) --universal pyproject.toml --extra train --extra test --constraint requirements/study.lock -o requirements/test.lock
	$(LOCK) --universal pyproject.toml --extra train --extra launch --constraint requirements/study.lock -o requirements/launch.lock
	$(LOCK) --universal pyproject.toml --extra train --extra launch --extra remotes --constraint requirements/launch.lock -o requirements/remotes.lock
	$(LOCK) requirements/slim.in -o requirements/slim.lock
