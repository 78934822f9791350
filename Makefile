# Truekeep: `make demo` shows the whole loop, `make test` proves it. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv

.PHONY: help venv lock crds lint unit images up install demo e2e test test-full bench down

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.done: requirements.lock
	@echo "[venv] installing the locked packages into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8'
	@VIRTUAL_ENV=$(VENV) $(UV) pip sync --quiet --require-hashes requirements.lock --allow-empty-requirements
	@VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --no-deps -e . 'uv>=0.8'
	@touch $@

venv: $(VENV)/.done ## make the virtual environment from the lock

lock: ## re-make requirements.lock from pyproject.toml
	$(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --quiet -o requirements.lock
