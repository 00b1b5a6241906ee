# Everything runs in .venv, made from the hashed lock; a rule of the lock's own makes it, so the second run starts at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DRAWN := demo/out/photos/truth.json
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(READY): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Kith needs Python 3.11 or newer; say which: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: setup
setup: $(READY) ## Make .venv with everything the other commands need

.PHONY: demo
demo: $(READY) ## Photos to people on the embedded stack, to demo/out/report.html (PHOTOS=folder MODEL_PACK=name-or-path)
	$(BIN)/python -m demo $(if $(PHOTOS),--photos "$(PHOTOS)") $(if $(MODEL_PACK),--pack "$(MODEL_PACK)")

.PHONY: test
test: $(READY) ## Every test
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadscope

.PHONY: test-quick
test-quick: $(READY) ## Unit and contract tests only
	$(BIN)/python -m pytest -q tests/unit tests/contract

.PHONY: up
up: $(READY) $(if $(PHOTOS),,$(DRAWN)) ## Start the stack for grpcurl (PHOTOS=folder it may read; default: drawn ones)
	$(BIN)/kith up --photos "$(or $(PHOTOS),$(dir $(DRAWN)))" $(if $(MODEL_PACK),--pack "$(MODEL_PACK)")

$(DRAWN): | $(READY)
	$(BIN)/python -m demo.drawing $(dir $(DRAWN))

.PHONY: down
down: $(READY) ## Stop it
	$(BIN)/kith down

.PHONY: check
check: $(READY) ## Format, lint, types, layers, protos, stub drift, manifests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python protos/generate.py --check
	@if command -v npx >/dev/null; then npx --yes @bufbuild/buf@$(BUF_VERSION) lint; else echo "no node here: buf lint NOT run (stub drift was)"; fi
	$(BIN)/python -m deploy.k8s.validate

BUF_VERSION := 1.75.0

.PHONY: format
format: $(READY) ## Put everything into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: stubs
stubs: $(READY) ## Make shared/gen from protos
	$(BIN)/python protos/generate.py

.PHONY: status-doc
status-doc: $(READY) ## Make docs/status.md from running servers
	$(BIN)/python -m deploy.local.rpc_status --write docs/status.md

.PHONY: bench
bench: $(READY) ## Measure (AREA=detection, default every area; MODEL_PACK=folder PHOTOS=folder NAME=of-the-result)
	$(BIN)/python -m bench $(AREA) $(if $(MODEL_PACK),--pack "$(MODEL_PACK)") $(if $(PHOTOS),--photos "$(PHOTOS)") $(if $(SIZE),--size "$(SIZE)") $(if $(NAME),--name "$(NAME)")

.PHONY: lock
lock: $(READY) ## Make the hashed locks from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra cpu --extra local --extra dev $(LOCK_FLAGS) -o requirements/dev.lock
	$(BIN)/uv pip compile pyproject.toml --extra cpu $(LOCK_FLAGS) -o requirements/cpu.lock
	$(BIN)/uv pip compile pyproject.toml --extra gpu $(LOCK_FLAGS) -o requirements/gpu.lock

LOCK_FLAGS := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header
