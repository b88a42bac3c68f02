# make demo   the whole study on 5,000 digits, in a throw-away clone: minutes, and no download but packages
# make study  the study of params.yaml on MNIST: `dvc repro`, with JOBS=n trainings side by side (else one a core)
# make records  fetch what every training recorded from records/: to judge by other rules without training again
#             (then make study MISSING=--allow-missing: to add a variant or a rate to the committed results)
# make verify hash all results and their cache, hold them against what is committed, and train one run again
#             (VERIFY=--no-retrain: 20 minutes less; VERIFY="--run train@plain-0": that one)
# make bench  our training step beside idiomatic PyTorch, TF-slim and the floor: 20 minutes on two quiet cores
# make torture  kill it, damage it, lie to it, some hundred ways each: twenty minutes, and a table of what survived
#             (TORTURE="--kills 5 --only kills": less)
# make test   linters, type checker and every test
# make lock   resolve the dependencies of pyproject.toml anew (needs uv; UV=--upgrade for newer versions)

PYTHON ?= python3
# Trainings at a time: each takes one core (runtime.threads), or shares the GPU.
JOBS ?= $(shell command -v nvidia-smi >/dev/null && echo 1 || getconf _NPROCESSORS_ONLN)
VENV := $(CURDIR)/.venv
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes --no-deps
export PATH := $(VENV)/bin:$(PATH)

# Small enough for two cores and a few minutes; all four networks, five seeds of everything.
DEMO := -S data.source=sample -S data.validation_size=500 -S rates.plain_he=0.003 \
        -S 'study.variants=[batch_norm,plain,batch_norm_hidden,plain_he]' \
        -S train.steps=40 -S train.batch_size=64 -S train.evaluate_every=20 \
        -S 'warmup.seeds=[0,1,2,3,4]' -S warmup.steps=20 -S warmup.evaluate_every=20 -S warmup.precise_images=500 \
        -S 'warmup.decays=[0.95,0.999,1.0]' -S 'sweep.variants=[batch_norm_hidden,plain_he]' -S 'sweep.seeds=[0,1,2,3,4]' \
        -S sweep.steps=10 -S 'sweep.learning_rates=[0.003,0.03,0.3]' -S 'sweep.batch_sizes=[16,64]'

.PHONY: help venv demo study records verify bench torture test lock
help:
	@sed -n 's/^# make/make/p' Makefile

venv: $(VENV)/study
$(VENV)/study: requirements/study.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	    { echo "error: $(PYTHON) is not Python 3.11 to 3.13: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "installing the locked dependencies into .venv"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -r $<
	@PYTHONPATH=src $(VENV)/bin/python -m bnstudy.page
	@touch $@

$(VENV)/test: requirements/test.lock $(VENV)/study
	@$(PIP) -r $<
	@touch $@

# Single stages of the same kind do not touch each other, and DVC's lock keeps their records apart.
SIDE_BY_SIDE = dvc status | sed -nE 's/^((train|warmup|sweep_[a-z]+)@.*):$$/\1/p' | \
               xargs -r -P $(JOBS) -n $(EACH) dvc --wait-for-lock repro $(MISSING) --single-item

# Stages a call of DVC, which takes as long to start as a stage of the demo.
EACH = 1
study: venv
	@PYTHONPATH=src python -c 'from bnstudy import params, stage; stage.run(params.load)'
	dvc repro prepare
	@[ $(JOBS) = 1 ] || $(SIDE_BY_SIDE)
	dvc repro $(MISSING)

# In a clone, so that this checkout stays as it is.
demo: EACH = 5
demo: venv
	@rm -rf .demo && git clone --quiet . .demo
	@cd .demo && PYTHONPATH=src python -m bnstudy.page && dvc exp run --name demo $(DEMO) prepare
	@cd .demo && $(SIDE_BY_SIDE)
	@cd .demo && dvc repro && dvc plots show --out page >/dev/null
	@cd .demo && echo && PYTHONPATH=src python -m bnstudy.summarize && echo
	@echo "report:  .demo/report/index.html"
	@echo "figures: .demo/plots/figures/"
	@echo "charts:  .demo/page/index.html   (what \`dvc plots show\` draws)"

# The weights are not in git, and an empty folder in place of theirs would count as a change.
records: venv
	@dvc pull --quiet --allow-missing
	@[ ! -d models ] || find models -empty -delete

verify: venv
	@PYTHONPATH=src python -m bnstudy.verify $(VERIFY)

# TensorFlow wants an older Python and older packages than the study: an environment of its own.
SLIM := $(CURDIR)/.venv-slim
bench: venv
	@$(MAKE) --silent $(SLIM)/slim || { rm -rf $(SLIM); echo "TensorFlow 2.13 does not install here: going on without it"; }
	@PYTHONPATH=src python benchmarks/bench.py $(BENCH)
$(SLIM)/slim: requirements/slim.lock
	@python3.11 -m venv $(SLIM)
	@$(SLIM)/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes --no-deps \
	    --only-binary :all: -r $<
	@touch $@

torture: $(VENV)/test
	@PYTHONPATH=src python tests/torture.py $(TORTURE)

test: $(VENV)/test
	ruff check
	ruff format --check
	mypy
	mypy benchmarks
	pytest -n 2 --dist loadgroup

LOCK = uv pip compile --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --quiet \
       --custom-compile-command "make lock" $(UV)
lock:
	$(LOCK) --universal pyproject.toml -o requirements/study.lock
	$(LOCK) --universal pyproject.toml --extra test --constraint requirements/study.lock -o requirements/test.lock
	$(LOCK) requirements/slim.in -o requirements/slim.lock
