# make demo and make test need Python 3.10 or newer and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help demo test lint format docs bench-selectors bench-speed clean

help:
	@echo "make demo             the quickstart on real data: a table and a picture"
	@echo "make test             style, types and tests; ARGS='-k name' goes to pytest"
	@echo "make lint | format    check or mend the style"
	@echo "make docs             the documentation as HTML in docs/_build"
	@echo "make bench-selectors  default selectors on real data (see docs/benchmarks.md)"
	@echo "make bench-speed      a training step against its floor"

# torch comes first and alone: its exact version has a build without CUDA where one is
# provided, which a later request must not replace.
$(INSTALLED): pyproject.toml constraints.txt
	@test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python examples/quickstart.py

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	$(BIN)/sphinx-build -W -b html docs docs/_build

bench-selectors: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/selectors.py

bench-speed: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/speed.py

clean:
	rm -rf .venv docs/_build .mypy_cache .pytest_cache .ruff_cache *.egg-info
