# make demo   the whole study on 5,000 digits, in a throwaway clone: minutes, and no download but packages
# make study  the study of params.yaml on MNIST: `dvc repro`, with JOBS=n trainings side by side (else one per core)
# make ray    install Ray (240 MB), with which `make study` takes all cores and GPUs of this machine, or many machines
#             (LAUNCH="--remote NAME --address auto", see docs/scale.md)
# make plan   what `dvc repro` will run, what it may run, and why
# make records  fetch what every training recorded from records/: to judge by other rules without training again
#             (then make study MISSING=--allow-missing: to add an arm or a seed to the committed results)
# make verify compare all results and their cache with dvc.lock, make again what is cheap, and train one run again
#             (VERIFY=--no-retrain: without the latter, which may take half an hour; VERIFY="--run train@he-20": that one)
# make bench  our training step beside idiomatic PyTorch, TF-slim and the floor: 20 minutes on two quiet cores
# make torture  kill it, forge its caches, fill its disk: a quarter of an hour, and a table of what survived
#             (TORTURE="--kills 5 --only kills": less)
# make read   install what reads the results, without PyTorch: dvc plots show, metrics, params, in .venv-read
# make judge  judge the committed runs by other rules there: change `rules` or `plot` in params.yaml first
# make test   linters, type checker and every test but those on Ray
# make test-launch  the tests of running on Ray: twenty minutes
# make lock   resolve the dependencies of pyproject.toml anew (needs uv; UV=--upgrade for newer versions)

PYTHON ?= python3
# Trainings at a time: each takes one core (runtime.threads), or shares the GPU.
JOBS ?= $(shell command -v nvidia-smi >/dev/null && echo 1 || getconf _NPROCESSORS_ONLN)
# Relative, since a target cannot have a space in its name and the path of the checkout may.
VENV := .venv
READ := .venv-read
SLIM := .venv-slim
INSTALL := -m pip --quiet --disable-pip-version-check install --require-hashes --no-deps
SUPPORTED = $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
    { echo "error: $(PYTHON) is not Python 3.11 to 3.13: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
SYSTEM_PATH := $(PATH)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# Small enough for two cores and three minutes: the dip of two decays, and the ladder but for its side steps.
DEMO := -S data.source=sample -S data.validation_size=300 -S train.batch_size=64 -S train.decay=0.9 \
        -S evaluation.per_decade=8 -S 'evaluation.moments=[60]' \
        -S 'sweep.networks=[plain_he,batch_norm_hidden]' -S 'sweep.learning_rates=[0.003,0.03,0.3]' \
        -S 'sweep.seeds=[100]' -S sweep.steps=40 \
        -S 'refine.finalists=[without,hidden]' -S 'refine.factors=[1.0]' -S 'refine.seeds=[100]' -S refine.steps=40 \
        -S refine.target=0.8 -S 'study.seeds=[10,11]' -S 'study.arms=[note_plain,baseline,same_rate,own_rate]' \
        -S arms.note_plain.steps=60 -S arms.baseline.steps=60 -S arms.same_rate.steps=60 -S arms.own_rate.steps=60 \
        -S averages.steps=80 -S averages.images=300 -S averages.precise_images=300 -S 'averages.decays=[0.9,0.95,1.0]' \
        -S long.steps=80 -S 'long.arm_seeds=[]' -S 'long.averages_seeds=[10,11]' \
        -S 'mechanism.seeds=[10]' -S mechanism.points=9 \
        -S 'tolerance.contestants=[with]' -S 'tolerance.learning_rates=[0.03,0.3,3.0]' -S tolerance.steps=20 \
        -S 'batch.contestants=[with]' -S 'batch.sizes=[16,64]' -S 'batch.factors=[1.0]' -S 'batch.tuning_seeds=[100]' \
        -S 'batch.seeds=[10]' -S batch.images=500 -S batch.tuning_images=250 \
        -S rules.note_target=0.8 -S rules.contest_target=0.85 -S rules.after=60 -S rules.frozen_after=80 \
        -S 'rules.judged_decays=[0.9,0.95]' -S rules.fast_decay=0.9 -S rules.slow_decay=0.95

.PHONY: help venv read demo ray study plan records judge verify bench torture test test-launch lock
help:
	@sed -n '/^$$/q; s/^# //p' Makefile

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

study: venv
	@if [ -e $(VENV)/ray ]; then PYTHONPATH=src python -m bnstudy.launch $(MISSING) $(LAUNCH); \
	else echo "on this machine alone, without Ray (make ray)" && \
	    python tools/side_by_side.py --jobs $(JOBS) $(MISSING) && dvc repro $(MISSING); fi

# In a clone, so that this checkout stays as it is. DVC takes as long to start as a stage of the demo: seven at a time.
demo: venv
	@mkdir .demo.lock 2>/dev/null || { echo "error: make demo is under way here already (else: rmdir .demo.lock)"; exit 1; }
	@lock="$$PWD/.demo.lock"; trap 'rmdir "$$lock"' EXIT; trap 'exit 130' INT TERM; set -e; \
	rm -rf .demo; git clone --quiet . .demo; cd .demo; \
	python tools/page.py; dvc exp run --name demo $(DEMO) prepare; \
	python tools/side_by_side.py --jobs $(JOBS) --each 7; \
	dvc repro; git add --all; \
	git -c user.name=bnstudy -c user.email=demo@localhost commit --quiet --message "The study in small"; \
	dvc plots show >/dev/null; echo; python src/evaluate.py; echo
	@echo "report:   .demo/report/index.html"
	@echo "pictures: .demo/report/figures/   the dip, the ladder, accuracy against rate"
	@echo "charts:   .demo/dvc_plots/index.html   what \`dvc plots show\` draws"
	@echo "next:     docs/tour.md   change one number, and see what reruns"

plan: venv
	@python tools/plan.py

# The weights are not in git, and an empty folder in place of theirs would count as a change.
PULL = dvc pull --quiet --allow-missing --remote records && { [ ! -d models ] || find models -empty -delete; }
records: venv
	@$(PULL)

# A change that needs a training ends here with "No module named 'torch'".
judge: export PATH := $(CURDIR)/$(READ)/bin:$(SYSTEM_PATH)
judge: read
	@$(PULL)
	dvc repro --allow-missing

verify: venv
	@python tools/verify.py $(VERIFY)

# TensorFlow needs an older Python and older packages than the study: an environment of its own.
bench: venv
	@$(MAKE) --silent $(SLIM)/slim || { rm -rf $(SLIM); echo "TensorFlow 2.13 does not install here: going on without it"; }
	@python tools/benchmarks/bench.py $(BENCH)
$(SLIM)/slim: requirements/slim.lock
	@python3.11 -m venv $(SLIM)
	@$(SLIM)/bin/python $(INSTALL) --only-binary :all: -r $<
	@touch $@

torture: $(VENV)/test
	@python tools/torture.py $(TORTURE)

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
