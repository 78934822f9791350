# Truekeep: `make demo` shows the whole loop, `make test` proves it. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
UV := $(BIN)/uv
PYTEST := $(BIN)/pytest
# All that uses the cluster runs in one process, one after the other, and the rest beside it.
TWO := -n 2 --dist loadscope
# They make a control plane of their own.
ALONE := tests/e2e/test_install.py tests/e2e/test_install_page.py tests/e2e/test_watches.py tests/cluster/test_plane.py

.PHONY: help demo test test-full test-long-alone test-long-cluster test-faults unit e2e lint format bench venv lock crds manifests render publish images up install down

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: install ## bring everything up and tell the whole story on the flight-delay example
	@$(PY) -m tests.story

test: lint install ## lint, types, unit tests, and the story and its faults on the real cluster
	@$(PYTEST) $(TWO) tests/e2e tests/cluster tests/faults tests/unit -m 'not full'

test-full: test test-long-alone test-long-cluster ## `make test`, then the long suites

test-long-alone: venv ## long suites that need no cluster, or make a control plane of their own; 25 minutes
	@$(PYTEST) $(TWO) $(ALONE) tests/unit -m full

test-long-cluster: install ## long suites on the cluster, and last what takes it down; up to 70 minutes
	@$(PYTEST) tests/e2e $(ALONE:%=--ignore=%) -m full
	@$(PYTEST) tests/cluster/test_lifecycle.py

test-faults: venv ## the story × every fault, without a cluster; an hour where nothing else runs
	@$(PYTEST) tests/faults -m full

unit: venv ## unit tests alone, no cluster
	@$(PYTEST) $(TWO) tests/unit -m 'not full'

e2e: install ## the tests on the real cluster alone
	@$(PYTEST) tests/cluster tests/e2e -m 'not full'

lint: venv ## style, types, and which room may import which
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: venv ## put the code into its standard shape
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

bench: venv ## the benchmarks, side by side with a limit or a peer
	@$(PYTEST) tests/bench -s

crds: venv ## write crds/ and docs/fields.md anew from the pydantic models, and who may name a Secret
	@$(PY) -m truekeep.api.crd crds
	@$(PY) -m truekeep.api.fields docs/fields.md
	@$(PY) -m truekeep.api.secret_policy manifests/operator/secrets.yaml

manifests: venv ## write anew what is derived of the manifests
	@$(PY) -m images derive

render: venv ## the whole installation as one file, dist/truekeep.yaml, and the kinds alone
	@$(PY) -m images render

images: venv ## build the images that changed
	@$(PY) -m images build

publish: images ## push the images to REGISTRY=host/prefix, and write what installs these, by digest, to dist/
	@test -n "$(REGISTRY)" || { echo "say where to: make publish REGISTRY=registry.example.com/ml [TAG=…] [PULL_SECRET=…]"; exit 2; }
	@$(PY) -m images publish --registry "$(REGISTRY)" --tag "$(TAG)" --pull-secret "$(PULL_SECRET)"

up: venv ## a real Kubernetes: kind where a Docker engine answers, else one node made here
	@$(PY) -m tests.cluster up

install: up images ## bring the images into the cluster and install the operator
	@$(PY) -m images load
	@$(PY) -m tests.cluster.install

down: ## remove the cluster and all that belongs to it
	@if test -x $(PY); then $(PY) -m tests.cluster down; else echo "no $(VENV), so no cluster of ours"; fi

$(VENV)/.done: requirements.lock
	@echo "[venv] installing the locked packages into $(VENV) (about half a minute)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) 2>/dev/null \
	  || { apt-get -o DPkg::Lock::Timeout=600 install -y -qq python3-venv >/dev/null && $(PYTHON) -m venv --clear $(VENV); }
	@$(PY) -m pip install --quiet --disable-pip-version-check 'uv>=0.8'
	@VIRTUAL_ENV=$(VENV) $(UV) pip sync --quiet --require-hashes requirements.lock
	@VIRTUAL_ENV=$(VENV) $(PY) -m ensurepip --upgrade >/dev/null 2>&1 || true
	@VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --no-deps -e . 'uv>=0.8' pip
	@touch $@

venv: $(VENV)/.done ## make the virtual environment from the lock

lock: venv ## make requirements.lock anew from pyproject.toml
	@$(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --quiet -o requirements.lock
