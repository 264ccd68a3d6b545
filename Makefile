# What one does with Huashi. Every target installs what it needs; nothing has to be prepared.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
INSTALLED := .venv/.installed
NODE := tests/contract/asyncapi docs/integrating/examples

.PHONY: help demo up down test simulate malformed lint contracts manifests bench bench-deadlines lock

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

# Its day begins at 09:00 in Qionghai, so that what must not stay overnight has its day.
demo: $(INSTALLED) ## reports come in, are settled or climb: a county in two minutes
	@export RUN_DIR="$(CURDIR)/.run/demo" TIME_SCALE=600 PROFILES=profiles/qionghai; \
	export TIME_ANCHOR="$$(date -u +%FT%TZ)/$$(date -u +%F)T01:00:00Z"; \
	trap '$(BIN)/python -m deploy.local down' EXIT; \
	$(BIN)/python -m deploy.local down; \
	$(BIN)/python -m deploy.local up; \
	$(BIN)/huashi demo

up: $(INSTALLED) ## start the local stack; what it is, .run/stack.json says
	@$(BIN)/python -m deploy.local up

down: $(INSTALLED) ## end the local stack
	@$(BIN)/python -m deploy.local down

test: $(INSTALLED) ## all tests, on servers that they start themselves
	@$(BIN)/python -m pytest -q --durations=10 -n 2 --dist loadfile --no-loadscope-reorder

simulate: $(INSTALLED) ## a million simulated cases on all processors; CASES=10000 for fewer
	@$(BIN)/python -W ignore -m tests.simulator --cases $(or $(CASES),1000000)

malformed: $(INSTALLED) ## a million malformed inputs over both doors; INPUTS=10000 for fewer
	@$(BIN)/python -W ignore -m tests.malformed --inputs $(or $(INPUTS),1000000)

lint: $(INSTALLED) ## style, types, the container file
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/mypy services cli deploy
	@$(BIN)/hadolint Dockerfile

contracts: $(INSTALLED) ## write docs/contracts/ anew: OpenAPI and AsyncAPI documents, schemas
	@$(BIN)/python -m services.bus.contracts docs/contracts

manifests: $(INSTALLED) ## render the Kubernetes manifests and validate them
	@$(BIN)/python -m pytest -q tests/contract/test_manifests.py

bench: $(INSTALLED) ## events a second, beside the plain way, in one run
	@$(BIN)/python -m bench.throughput

bench-deadlines: $(INSTALLED) ## how late deadlines fire, with a million armed
	@$(BIN)/python -m bench.deadlines

lock: $(INSTALLED) ## pin all dependencies anew, with hashes
	@$(BIN)/uv pip compile -q --upgrade --generate-hashes --no-header --no-annotate \
	  pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile -q --upgrade --generate-hashes --no-header --no-annotate \
	  --extra development pyproject.toml -o requirements-development.lock

$(INSTALLED): requirements-development.lock pyproject.toml deploy/local/install.sh \
  $(NODE:=/package-lock.json)
	@deploy/local/install.sh
	@test -x $(BIN)/python || python3 -m venv .venv
	@echo "installing the Python packages into .venv"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes \
	  -r requirements-development.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps \
	  --no-build-isolation --editable .
	@echo "installing the check of the AsyncAPI document and the example in Node"
	@for folder in $(NODE); do PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --prefix $$folder \
	  --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null; done
	@touch $@
