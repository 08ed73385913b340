# Needs Python 3.11 or newer and make; everything else is installed into .venv and node_modules.
ifndef PYTHON
PYTHON := $(firstword $(foreach python,python3.11 python3.12 python3.13 python3.14 python3,$(shell command -v $(python))))
endif
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)

.DEFAULT_GOAL := help
.PHONY: help setup demo dev test test-all fuzz check lint types bench bench-policy bench-tokens format lock clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(VENV)/.python-packages node_modules/.npm-packages ## Install everything (the other targets do it when needed)

demo: setup ## A tour of the gate with real calls, half a minute
	@$(BIN)/airgate demo

dev: setup ## Start the gate, an OpenID provider and a sample upstream, and stay
	@$(BIN)/airgate dev

test: setup ## Unit tests and end-to-end tests against the running gate
	@$(BIN)/pytest --cov --cov-report=term $(TESTS)

test-all: setup ## All tests, including those inside production's Python versions
	@$(BIN)/pytest --cov --cov-report=term tests/unit tests/e2e tests/runtime

fuzz: setup ## A million mutated tokens, ten to twenty minutes
	@$(BIN)/python tests/fuzz

check: lint types test ## Format, lint, types, tests: run it before you propose a change

lint: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

# The edge runs 3.12 to 3.14, the command-line tool whatever the desk has: src/ holds for all of them.
types: setup
	@for version in 3.11 3.12 3.13 3.14; do echo "mypy src, Python $$version"; $(BIN)/mypy --python-version $$version src || exit 1; done
	@echo "mypy airgate"; $(BIN)/mypy airgate

bench: setup ## Measure the gate beside bare Workers (results in bench/)
	@$(BIN)/python -m bench

bench-tokens: setup ## Measure what refusing a token costs beside accepting one
	@$(BIN)/python -m bench.refusals

bench-policy: setup ## Measure decisions beside Cedar, Casbin and Rego (results in bench/)
	@$(BIN)/python -m bench.decisions

format: setup ## Format the code and fix what can be fixed
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: setup ## Renew the lock files after a change to pyproject.toml or package.json
	@echo "uv==$$($(BIN)/uv --version | cut -d' ' -f2)" | \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --output-file requirements-uv.txt -
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --group dev --output-file requirements-dev.txt pyproject.toml
	@$(BIN)/npm install --package-lock-only

clean: ## Remove what set-up and the stack made
	@rm -rf $(VENV) node_modules .airgate .wrangler .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	@find airgate src tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(VENV)/.python-packages: requirements-dev.txt requirements-uv.txt pyproject.toml
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Airgate needs Python 3.11 or newer. Install it, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Setting up Python packages in $(VENV) ..."
	@"$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-uv.txt
	@$(BIN)/uv pip install --quiet --require-hashes --requirement requirements-dev.txt
	@$(BIN)/uv pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

node_modules/.npm-packages: package.json package-lock.json .npmrc | $(VENV)/.python-packages
	@echo "Setting up npm packages in node_modules ..."
	@$(BIN)/npm ci --ignore-scripts --loglevel=error
	@touch $@
