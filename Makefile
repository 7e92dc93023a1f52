# Everything a user types. Each target installs what it needs into .venv first.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup demo check test test-all lint notebooks docs

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/.setup: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -c constraints.txt -e .
	@touch $@

.venv/.dev: .venv/.setup
	$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

.venv/.torch: .venv/.setup
	$(PIP) -c constraints.txt -e '.[dev,notebooks,parity]'
	@touch $@

.venv/.notebooks: .venv/.setup
	$(PIP) -c constraints.txt -e '.[notebooks]'
	@touch $@

.venv/.docs: .venv/.setup
	$(PIP) -c constraints.txt -e '.[docs]'
	@touch $@

setup: .venv/.setup  ## Install the project into .venv

demo: .venv/.setup  ## Train, evaluate and draw an SE-ResNet on handwritten digits (a minute)
	$(BIN)/senet-jax train demo

# A file's tests stay in one process, where they share what they compile, and files in their order.
# What the tests are rewritten to is kept even where the shell says to keep no bytecode.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: lint  ## Check the style and run the quick tests (about a minute on 2 cores)
	$(PYTEST) -m 'not slow and not heavy'

test: .venv/.dev  ## Run the tests (7 to 17 minutes on 2 cores)
	$(PYTEST) -m 'not slow'

# With the fusion emitters and names that tests/conftest.py leaves out: as users have them. Types and
# shapes are checked at every call.
test-all: .venv/.torch docs  ## Run all tests, the slow ones, the notebooks, those of PyTorch, and the docs
	XLA_FLAGS="$(XLA_FLAGS) --xla_cpu_use_fusion_emitters=true" FLAX_PROFILE=1 \
		JAX_TRACEBACK_IN_LOCATIONS_LIMIT=100 CHECK_ANNOTATIONS=1 $(PYTEST)

lint: .venv/.dev  ## Check format, style, prose and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python .ci/check_prose
	$(BIN)/mypy

notebooks: .venv/.notebooks  ## Execute the notebooks, in place
	$(BIN)/jupyter nbconvert --config notebooks/nbconvert.json --to notebook --execute --inplace notebooks/*.ipynb

docs: .venv/.docs  ## Build the pages and the docstrings as a site that can be searched, build/docs
	$(BIN)/python -m sphinx -W --keep-going -q -c .ci/docs -d build/doctrees . build/docs
