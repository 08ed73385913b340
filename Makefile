# Needs Python 3.11 or newer and make; everything else is installed into .venv and node_modules.
ifndef PYTHON
PYTHON := $(firstword $(foreach python,python3.11 python3.12 python3.13 python3.14 python3,$(shell command -v $(python))))
endif
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)

.DEFAULT_GOAL := help
.PHONY: help setup demo dev test test-gate test-runtimes test-units test-stack coverage fuzz check lint types bench \
  bench-policy bench-tokens bench-ops bench-audit bench-exchange format lock clean test-airflow airflow-units-3.3 \
  airflow-units-2.11 airflow-types demo-airflow bench-airflow bench-attest lock-airflow

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(VENV)/.python-packages node_modules/.npm-packages ## Install everything (the other targets do it when needed)

demo: setup ## A tour of the gate with real calls, half a minute
	@$(BIN)/airgate demo

dev: setup ## Start the gate, an OpenID provider and a sample upstream, and stay
	@$(BIN)/airgate dev

# Parts of the tests run side by side, one for each processor. Each shows what it printed when it is over, and one that
# fails doesn't stop the others. The running gate is tested alone: some of what it does has to be done in time.
SIDE_BY_SIDE = --no-print-directory --keep-going --jobs=$(shell getconf _NPROCESSORS_ONLN || echo 2) \
  $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
# Wrangler is started a few hundred times: Node keeps what it has compiled of it.
test test-airflow: export NODE_COMPILE_CACHE := $(CURDIR)/$(VENV)/.node-compiled

test: setup ## All tests: units, the running gate, and the same units on every Python that the gate runs on
ifdef TESTS
	@$(BIN)/pytest $(TESTS)
else
	@failed=0; $(MAKE) --no-print-directory test-gate || failed=1; \
	echo "The other parts run side by side, and each is shown when it is over: runtimes, stack, units."; \
	$(MAKE) $(SIDE_BY_SIDE) test-runtimes test-stack test-units || failed=1; exit $$failed
endif

test-gate: setup
	@$(BIN)/pytest tests/e2e/gate

# The unit tables of src/, on this Python among others. The other unit tests are the next part.
test-runtimes: setup
	@$(BIN)/pytest tests/runtime

test-units: setup
	@units=$$($(BIN)/python tests/runtime/matrix.py) && $(BIN)/pytest $$units

test-stack: setup
	@$(BIN)/pytest --ignore=tests/e2e/gate tests/e2e

coverage: setup ## What the unit tests reach of src/, by branches
	@$(BIN)/pytest --cov --cov-report=term tests/unit

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

bench-tokens: setup ## Measure what verifying, knowing and refusing a token costs (results in bench/)
	@$(BIN)/python -m bench.tokens_speed

bench-policy: setup ## Measure decisions beside Cedar, Casbin and Rego (results in bench/)
	@$(BIN)/python -m bench.decisions

bench-ops: setup ## Measure how soon a publish and a revocation are in force, and how fast logs are replayed
	@$(BIN)/python -m bench.ops
	@$(BIN)/python -m bench.replay

bench-audit: setup ## Measure what the audit log costs a call, and how fast logs are verified (results in bench/)
	@$(BIN)/python -m bench.audit
	@$(BIN)/python -m bench.verify

bench-exchange: setup ## Measure what exchanging a token costs beside a plain call (results in bench/)
	@$(BIN)/python -m bench.exchange

# Real Airflow, each version in an environment of its own below .airflow, made from its freeze when that has changed.
test-airflow: setup ## The Airflow provider in Airflow 3.3 and 2.11, against the running gate (minutes)
	@$(BIN)/python -m airgate.dev.airflow
	@$(MAKE) $(SIDE_BY_SIDE) airflow-units-3.3 airflow-units-2.11 airflow-types
	@$(BIN)/pytest -c tests/airflow/pytest.ini tests/airflow/e2e

airflow-units-3.3 airflow-units-2.11: airflow-units-%: setup
	@.airflow/$*/bin/python -m pytest -c tests/airflow/unit/pytest.ini tests/airflow/unit

airflow-types: setup
	@$(BIN)/mypy --python-executable .airflow/3.3/bin/python airflow_plugin/airgate_provider

demo-airflow: setup ## An unchanged Airflow DAG goes through the gate, about a minute
	@$(BIN)/python -m airgate.demo_airflow

bench-airflow: setup ## Measure what the Airflow provider costs a task beside the stock hook
	@$(BIN)/python -m airgate.dev.airflow
	@$(BIN)/python tests/airflow/bench/run.py

bench-attest: setup ## Measure what fetching a connection costs more when Airflow attests its tasks (results in bench/)
	@$(BIN)/python -m airgate.dev.airflow
	@PYTHONPATH=tests/airflow/e2e $(BIN)/python tests/airflow/bench/attest.py

lock-airflow: setup ## Renew the freezes of Airflow that the provider is tested with
	@for release in 3.3.2 2.11.2; do \
	  printf 'apache-airflow==%s\napache-airflow-providers-http==6.3.0\n' $$release | \
	  $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    --group airflow_plugin/pyproject.toml:test --output-file airflow_plugin/requirements-airflow-$${release%.*}.txt - || exit 1; \
	done

format: setup ## Format the code and fix what can be fixed
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: setup ## Renew the lock files after a change to pyproject.toml or package.json
	@echo "uv==$$($(BIN)/uv --version | cut -d' ' -f2)" | \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --output-file requirements-uv.txt -
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --group dev --output-file requirements-dev.txt pyproject.toml
	@$(BIN)/npm install --package-lock-only

clean: ## Remove what set-up and the stack made
	@rm -rf $(VENV) .airflow node_modules .airgate .wrangler .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
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
