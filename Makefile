# Emberlog. `make help` lists the verbs. Everything bootstraps from python3 alone; nothing is installed outside .venv
# except the local model's files, which go once per machine into the model store (~/.cache/emberlog/models).
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.emberlog-setup

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test live check bench format docs lock clean

help: ## list the verbs
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(STAMP) ## create .venv with the locked dependencies, fetch and build the local model

$(STAMP): requirements.lock pyproject.toml client/pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . --editable client
	$(BIN)/python -m adapters.providers.local.fetch
	@touch $@

demo: setup ## eight agents embed the standard library's docstrings; the gateway is killed once on the way
	$(BIN)/emberlog demo

serve: setup ## run the gateway with embedded Postgres, Valkey and the local model
	$(BIN)/emberlog serve

ON_16 := tests/conformance tests/integration/test_append_only.py tests/integration/test_appender.py tests/integration/test_log_order.py tests/integration/test_log_faults.py tests/integration/test_disk_full.py tests/integration/test_archive.py tests/integration/test_log_export.py tests/integration/test_migrations.py tests/integration/test_projections_views.py tests/integration/test_rebuild.py tests/integration/test_parking.py
NOT_ON_16 := --ignore-glob='tests/conformance/test_provider_*.py' --ignore=tests/conformance/test_live_suite.py --ignore=tests/conformance/test_scenarios.py --ignore=tests/conformance/test_control_plane_scenarios.py

# Three processes for two cores, since tests wait, each with servers of its own; the tests of a file share theirs. In the order of the
# folders: the acceptance tests, which take longest, come first, and what is left for the end is short.
TOGETHER := -n 3 --dist loadfile --no-loadscope-reorder

# Hundreds of processes load the same modules, and each would compile them.
unexport PYTHONDONTWRITEBYTECODE

test: setup ## run every test; what is Postgres's own on the oldest supported one too
	EMBERLOG_TEST_POSTGRES=16 $(BIN)/python -m pytest -q $(TOGETHER) $(ON_16) $(NOT_ON_16)
	$(BIN)/python -m pytest -q $(TOGETHER)

live: setup ## ask the real providers whose credentials are in the environment what tests/conformance asks of simulated ones
	$(BIN)/python -m pytest -q -rs --no-header tests/live/providers.py

check: setup ## what CI checks before the tests: lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## measure this machine: requests/s, latency, CPU per request, texts per provider call
	$(BIN)/emberlog bench

format: setup ## format the code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

docs: setup ## write docs/events.md and docs/api.md from the code
	$(BIN)/python -m gateway.events_page > docs/events.md
	$(BIN)/python -m gateway.api_page > docs/api.md

lock: ## recompile requirements.lock from the ranges in pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
		--extra openai --extra bedrock --extra vertex --extra local --extra otlp --group pyproject.toml:dev pyproject.toml --output-file requirements.lock

clean: ## remove the environment and what tools left behind
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
