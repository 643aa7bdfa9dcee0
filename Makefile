# `make demo` and `make test` are all the set-up there is: each first makes the virtual
# environment if it is missing or out of date. ARGS="..." is handed on to the command.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two pips in one environment would step on each other.
.NOTPARALLEL:

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
# Errors only.
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: help demo test lint format docs bench-downstream bench-paper clean

help:  ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.installed-test  ## Run the quickstart example.
	$(BIN)/python examples/quickstart.py $(ARGS)

# One thread for each worker, or two workers would fight for two cores.
test: lint  ## Lint, then run the tests and doctests (ARGS go to pytest).
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(VENV)/.installed-test  ## Check style, formatting and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy ipcae_sklearn

format: $(VENV)/.installed-test  ## Repair style and formatting where a tool can.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-docs  ## Build the documentation into docs/_build.
	$(BIN)/sphinx-build -W --keep-going docs docs/_build $(ARGS)

bench-downstream: $(VENV)/.installed-bench  ## Judge selectors by what comes after.
	$(BIN)/python benchmarks/downstream.py $(ARGS)

bench-paper: $(VENV)/.installed-bench  ## Reproduce the IP-CAE paper (ARGS=--quick).
	$(BIN)/python benchmarks/paper.py $(ARGS)

clean:  ## Remove what was built; the environment stays.
	rm -rf build dist *.egg-info docs/_build examples/*.png
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The package, editable, with the extra that the stamp is named after. torch comes first
# and alone: asked for together with the rest, a build with gigabytes of CUDA libraries
# may be chosen.
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV): $(TORCH) and the package with [$*]"
	@$(PIP) install $(TORCH)
	@$(PIP) install -c constraints.txt -e '.[$*]'
	@touch $@
