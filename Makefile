# Everything is made in .venv; nothing else on the machine is touched.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
HOST   :=

.DEFAULT_GOAL := help
.PHONY: help demo test soak bench load simulate check format clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

$(VENV)/.user: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; name another with PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing flagrelay into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.user
	@echo "installing the test tools into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@

$(VENV)/.load: $(VENV)/.user
	@echo "installing locust into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group load
	@touch $@

demo: $(VENV)/.user ## Run the main job: 200 streams, one un-release (ARGS="--seconds 10")
	@$(BIN)/flagrelay demo $(ARGS)

test: $(VENV)/.dev ## Run all tests, a real Redis included (ARGS="-k drain")
	@$(BIN)/python -m pytest --numprocesses=4 --dist=loadfile $(ARGS)

MINUTES ?= 10
soak: $(VENV)/.dev ## Streams, changes and faults, nothing lost (MINUTES=10)
	@$(BIN)/python loadtests/soak.py --minutes $(MINUTES) $(ARGS)

bench: $(VENV)/.dev ## Measure everything, write docs/performance (ARGS="--quick")
	@$(BIN)/python loadtests/benchmark.py $(ARGS)

load: $(VENV)/.load ## Locust on a relay of its own, or on yours (HOST=https://relay.example)
	@$(BIN)/python loadtests/load.py $(if $(HOST),--host '$(HOST)') $(ARGS)

simulate: $(VENV)/.dev ## What 10,000 to 10 million SDKs need (ARGS="--sdks 300000")
	@$(BIN)/python loadtests/scaling.py simulate $(ARGS)

check: $(VENV)/.dev ## Format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove the virtual environment and all caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
