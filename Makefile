# make demo   the whole study on 5,000 digits, in a throw-away clone: minutes, and no download but packages
# make study  the study of params.yaml on MNIST: `dvc repro`
# make test   linters, type checker and every test
# make lock   resolve the dependencies of pyproject.toml anew (needs uv; UV=--upgrade for newer versions)

PYTHON ?= python3
VENV := $(CURDIR)/.venv
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes --no-deps
export PATH := $(VENV)/bin:$(PATH)

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
	@touch $@

$(VENV)/test: requirements/test.lock $(VENV)/study
	@$(PIP) -r $<
	@touch $@

study: venv
	dvc repro

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
