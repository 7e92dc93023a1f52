# Everything a user types. Each target installs what it needs into .venv first.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint notebooks

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
	$(PIP) -c constraints.txt -e '.[dev,notebooks,torch]'
	@touch $@

.venv/.notebooks: .venv/.setup
	$(PIP) -c constraints.txt -e '.[notebooks]'
	@touch $@

setup: .venv/.setup  ## Install the project into .venv

demo: .venv/.setup  ## Train, evaluate and draw an SE-ResNet on handwritten digits (a minute)
	$(BIN)/senet-jax train demo

test: .venv/.dev  ## Run the tests (about 14 minutes on 2 cores)
	$(BIN)/python -m pytest -n 2 -m 'not slow'

test-all: .venv/.torch  ## Run all tests, the slow ones, the notebooks and those of PyTorch too
	$(BIN)/python -m pytest -n 2

lint: .venv/.dev  ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

notebooks: .venv/.notebooks  ## Execute the notebooks, in place
	$(BIN)/jupyter nbconvert --config notebooks/nbconvert.json --to notebook --execute --inplace notebooks/*.ipynb
