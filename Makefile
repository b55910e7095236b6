# Everything sets itself up first: Python >= 3.11 and a C++17 compiler are all that is needed.
#   make demo | cuda | test | test-cuda | torture | bench | lint | lpips | setup | clean
# PYTHON=... picks the interpreter the environment is made with; ARGS=... goes to pytest.

SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV_PYTHON := .venv/bin/python
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
            $$p -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && echo $$p && break; done)
endif

.PHONY: help setup demo cuda test test-cuda torture bench lint lpips clean

help:
	@sed -n '2,3s/^# *//p' Makefile

setup:
	@$(or $(PYTHON),false) -c '$(NEW_ENOUGH)' 2>/dev/null || \
	  { echo "set-up: no Python >= 3.11 found$(if $(PYTHON), ($(PYTHON) is none)); install one or give PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) scripts/setup_environment.py

# The CUDA backend, for the card found here or for CUDA_ARCHS, such as CUDA_ARCHS="75;90"; needs nvcc.
cuda:
	@$(or $(PYTHON),python3) scripts/setup_environment.py --cuda "$(CUDA_ARCHS)"

demo: setup
	@$(VENV_PYTHON) demo/run.py

test: setup
	@$(VENV_PYTHON) -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

# Compiles the CUDA sources for every supported kind of card; prints registers, shared memory and spills.
test-cuda: setup
	@DGR_CUDA_ARCHITECTURES=sm_75,sm_80,sm_90,sm_120 $(VENV_PYTHON) -m pytest tests/cuda -rP $(ARGS)

# Full disks and the like, kills at random moments, hostile inputs, the native code under sanitizers: half an hour.
torture: setup
	@$(VENV_PYTHON) -m tests.torture.machine
	@$(VENV_PYTHON) -m tests.torture.kills --count 200
	@$(VENV_PYTHON) -m tests.torture.hostile --count 10000
	@$(VENV_PYTHON) -m tests.torture.sanitized

bench: setup
	@test -n "$(RULER)" -a -n "$(SCENE)" || \
	  { echo "usage: make bench RULER=<folder of a reference rasteriser> SCENE=<COLMAP dataset with points3D>" >&2; exit 2; }
	@$(VENV_PYTHON) benchmarks/rasterizer.py --prototype $(RULER)
	@$(VENV_PYTHON) benchmarks/training.py --source $(SCENE)

lint: setup
	@$(VENV_PYTHON) -m ruff check .

lpips: setup
	@$(VENV_PYTHON) tools/fetch_lpips.py

clean:
	rm -rf .venv .setup.lock output build submodules/*/build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
