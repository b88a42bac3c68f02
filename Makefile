# make demo   the whole study on 5,000 digits, in a throw-away clone: minutes, and no download but packages
# make study  the study of params.yaml on MNIST: `dvc repro`
# make test   linters, type checker and every test
# make lock   resolve the dependencies of pyproject.toml anew (needs uv; UV=--upgrade for newer versions)

PYTHON ?= python3
VENV := $(CURDIR)/.venv
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes --no-deps
export PATH := $(VENV)/bin:$(PATH)

# Three seeds of 5,000 digits: what a laptop does in two minutes.
DEMO := -S data.source=sample -S data.validation_size=500 -S 'study.seeds=[0,1,2]' \
        -S train.steps=120 -S train.batch_size=256 -S train.evaluate_every=10

.PHONY: help venv demo study test lock
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

study: venv
	dvc repro

# In a clone, so that this checkout stays as it is.
demo: venv
	@rm -rf .demo && git clone --quiet . .demo
	@cd .demo && PYTHONPATH=src python -m bnstudy.page && dvc exp run --quiet --name demo $(DEMO)
	@cd .demo && dvc plots show --out page >/dev/null
	@echo
	@cd .demo && PYTHONPATH=src python -m bnstudy.summarize
	@echo "figures: .demo/plots/figures/    charts: .demo/page/index.html"

test: $(VENV)/test
	ruff check
	ruff format --check
	mypy
	pytest -n 2

LOCK = uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
       --no-annotate --quiet --custom-compile-command "make lock" $(UV)
lock:
	$(LOCK) -o requirements/study.lock
	$(LOCK) --extra test --constraint requirements/study.lock -o requirements/test.lock
