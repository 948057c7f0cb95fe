# Everything runs in .venv, which the first target that needs it sets up. `make` alone lists the targets.

SEED ?= 0
WORKDIR ?= runs/quickstart
ARGS ?=
PORT ?= 8000
PYTEST_ARGS ?= -n 2 --dist worksteal

VENV := .venv
BIN := $(VENV)/bin
# The machine's own first, for which venv is most likely there; then those that the tests run with, newest first.
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14)
# jax and flax of today want Python 3.12; 3.11 has the last releases that it can run. The environment's own Python decides,
# so this is asked when something is installed, not before the environment is there.
LINE := import sys; print("py311" if sys.version_info < (3, 12) else "py312")
CONSTRAINTS = constraints-$(shell $(BIN)/python -c '$(LINE)').txt
# Byte code is written at the first import; writing all of it now takes 40 seconds on two cores. Where the
# environment forbids it, every start would compile 1,900 modules: 8 seconds instead of 3.
unexport PYTHONDONTWRITEBYTECODE
INSTALL = $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c $(CONSTRAINTS)
LIGHT := not torch and not real_model and not slow and not tpu and not gpu and not browser

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart notebook docs docs-serve test test-all lint format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A finished run of another seed is moved aside, so that its results stay and this one starts afresh.
quickstart: $(VENV)/runtime.stamp  ## train a tiny model in minutes (SEED=0 WORKDIR=runs/quickstart ARGS=...)
	@summary=$(WORKDIR)/summary.json; \
	if [ -f $$summary ] && ! grep -Eq '"seed": *$(SEED)([^0-9]|$$)' $$summary; then \
	  kept=$(WORKDIR)-$$(date +%Y%m%d-%H%M%S); mv $(WORKDIR) $$kept && echo "The earlier run of another seed is now in $$kept."; \
	fi
	$(BIN)/python -m experiments.train --config=configs/quickstart.py --workdir=$(WORKDIR) --config.seed=$(SEED) $(ARGS)

notebook: $(VENV)/notebook.stamp  ## open the notebooks in Jupyter (ARGS=--no-browser on a machine far away)
	$(BIN)/jupyter lab $(ARGS) notebooks

docs: $(VENV)/docs.stamp  ## make the documentation site, site/index.html
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -c docs -d .cache/doctrees . site $(ARGS)
	@echo "The site is in site/index.html."

docs-serve: docs  ## make the site and serve it at http://localhost:8000 (PORT=8000)
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory site $(PORT)

test: lint  ## check format, lint and types, then run the quick tests
	$(BIN)/python -m pytest -m "$(LIGHT)" $(PYTEST_ARGS)

test-all: lint  ## the same with the heavy tests; see CONTRIBUTING.md for what they need
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/test.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/test.stamp  ## format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and all caches (runs/ stays)
	rm -rf $(VENV) .cache .hypothesis .pytest_cache .ruff_cache build dist site *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@for python in $(PYTHONS); do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  first=$(firstword $(PYTHONS)); version=$$($$first --version 2>/dev/null || echo missing); \
	  echo "asyppo_jax needs Python 3.11 or newer, but $$first is $$version: install one, or name one with make PYTHON=/path/to/python3.12." >&2; exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$($$found --version)."; \
	$$found -m venv --clear $(VENV) || { rm -rf $(VENV); \
	  echo "$$found cannot make a virtual environment: install python3-venv (on Debian and Ubuntu) and try again." >&2; exit 1; }

$(VENV)/runtime.stamp: pyproject.toml constraints-py311.txt constraints-py312.txt | $(BIN)/python
	@echo "Installing what training needs (about a minute)."
	$(INSTALL) -e .
	@touch $@

$(VENV)/notebook.stamp: pyproject.toml constraints-py311.txt constraints-py312.txt | $(BIN)/python
	@echo "Installing what training and Jupyter need (about a minute)."
	$(INSTALL) -e ".[notebook]"
	@touch $(VENV)/runtime.stamp $@

$(VENV)/docs.stamp: pyproject.toml constraints-py311.txt constraints-py312.txt | $(BIN)/python
	@echo "Installing what training and the documentation site need (about a minute)."
	$(INSTALL) -e ".[docs]"
	@touch $(VENV)/runtime.stamp $@

# One call for everything: it is faster than two. The extra `test` contains `docs`.
$(VENV)/test.stamp: pyproject.toml constraints-py311.txt constraints-py312.txt | $(BIN)/python
	@echo "Installing what training, tests and checks need (about two minutes)."
	$(INSTALL) -e ".[test,dev]"
	@touch $(VENV)/runtime.stamp $(VENV)/docs.stamp $@
