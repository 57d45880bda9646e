# `make` or `make help` lists the targets. Needs Python 3.11, 3.12 or 3.13, make and git; everything else is set up here.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Every service and command is a process of its own: without byte code kept, each compiles all it imports again.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.set-up
PYTHON ?=
MEMBERS := $(wildcard libs/*/pyproject.toml services/*/pyproject.toml)
SERVICES := $(notdir $(patsubst %/,%,$(dir $(wildcard services/*/pyproject.toml))))
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
WORKERS ?= 2

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## run the whole system on embedded servers: files to Gold, faults, decisions (under a minute)
	@$(PY) -m holdfast_cli.demo

up: ## start everything in containers (docker compose), wait until it is healthy
	@mkdir -p data
	@$(COMPOSE) up -d --build
	@$(COMPOSE) ps

test: $(STAMP) ## run all tests on real servers; those that need Docker skip, with the reason, where no engine answers
	@$(PY) -m pytest -q -n $(WORKERS) --dist worksteal -m "not docker and not e2e" tests
	@$(PY) -m pytest -q -m "docker or e2e" tests/e2e

check: $(STAMP) ## lint, format, types, layers, locked requirements, generated tables
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy libs/*/src services/*/src
	$(BIN)/lint-imports --no-cache
	$(PY) deploy/lock.py check
	$(PY) deploy/tables.py check

lock: $(STAMP) ## resolve deploy/requirements again (needs a package index)
	@command -v uv >/dev/null || $(PY) -m pip install --quiet uv
	@$(PY) deploy/lock.py write

tables: $(STAMP) ## write the table of every event, fault and code again (services/planner/EVENTS.md)
	@$(PY) deploy/tables.py write

bench-quick: $(STAMP) ## measure a graph of 100,000 nodes, one drift in it, 64 writers on one graph
	@$(PY) -m tests.bench

bench-pipeline: $(STAMP) ## measure a pipeline beside plain polars and deltalake (ROWS=10000000)
	@$(PY) -m tests.bench.pipeline $(or $(ROWS),10000000)

conformance: $(STAMP) ## run the conformance vectors (HOLDFAST_CONFORMANCE names their folder)
	@$(PY) -m pytest -q tests/conformance

simulate: $(STAMP) ## run the seeded simulations: all services, and the reconciler alone (SEEDS=2000 START=0)
	@SEEDS=$(or $(SEEDS),2000) START=$(or $(START),0) $(PY) -m pytest -q -n $(WORKERS) \
	  tests/simulation/test_reconciler_seeds.py tests/simulation/system/test_system_seeds.py

images: ## build the image of every service
	@for service in $(SERVICES); do \
	  echo "holdfast/$$service"; \
	  docker build -q -f deploy/Dockerfile --build-arg SERVICE=$$service -t holdfast/$$service . >/dev/null; \
	done

setup: $(STAMP) ## only set up .venv (every target that needs it does so by itself)

# uv where there is one, else pip; both check the hashes. Touched last, so that a broken set-up is done again.
$(STAMP): deploy/requirements/dev.txt $(MEMBERS)
	@set -euo pipefail; \
	uv=; needs=sys; if uv --version >/dev/null 2>&1; then uv=uv; else needs=sys,ensurepip,venv; fi; \
	python="$(PYTHON)"; \
	for candidate in python3.11 python3.12 python3.13 python3 python; do \
	  [ -z "$$python" ] || break; \
	  if "$$candidate" -c "import $$needs; raise SystemExit(not (3, 11) <= sys.version_info < (3, 14))" 2>/dev/null; \
	  then python="$$candidate"; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "make: needs Python 3.11, 3.12 or 3.13 with the venv module (Debian: apt install python3-venv);" >&2; \
	  echo "      name another one with: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$python and $${uv:-pip} (once)"; \
	if [ -n "$$uv" ]; then \
	  [ -x $(PY) ] || uv venv --quiet --no-project --python "$$("$$python" -c 'import sys; print(sys.executable)')" $(VENV); \
	  install="uv pip install --quiet --python $(PY)"; \
	else \
	  [ -x $(PY) ] || "$$python" -m venv $(VENV); \
	  $(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip --upgrade >/dev/null; \
	  install="$(PY) -m pip install --quiet --disable-pip-version-check"; \
	fi; \
	$$install --require-hashes -r deploy/requirements/dev.txt; \
	$$install --no-deps --no-build-isolation $(foreach m,$(MEMBERS),-e ./$(patsubst %/,%,$(dir $(m)))); \
	touch $(STAMP)

.PHONY: help demo up test check lock bench-quick bench-pipeline conformance simulate images setup
