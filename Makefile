# redisflow: everything a person does with the checkout. Needs Python 3.11+ and make.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup demo check test bench docs screenshots clean

help:  ## show these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup: $(VENV)/.ready  ## make the environment in .venv

$(VENV)/.ready: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: setup  ## run a real workflow, kill a worker in the middle, watch the rescue
	@$(BIN)/redisflow demo

check: setup  ## lint, types, import layers, schemas
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

test: check  ## every check and every test
	$(BIN)/python -m pytest

bench: setup  ## claims/s, steps/s, latency, bytes a run
	$(BIN)/python -m bench.claim
	$(BIN)/python -m bench.drain

screenshots: setup  ## a picture of every page of the dashboard into docs/images (needs chromium and its driver)
	$(BIN)/python -m docs.screenshots

clean:  ## remove what the targets made
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
