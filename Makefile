# redisflow: everything a person does with the checkout. Needs Python 3.11+ and make.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
unexport PYTHONDONTWRITEBYTECODE  # the tests start hundreds of processes, each of which would compile the package anew

.PHONY: help setup demo check test test-faults soak audit bench bench-peers bench-compare bench-report docs backend-page screenshots clean

help:  ## show these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

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
	$(BIN)/bandit --quiet --recursive redisflow --configfile pyproject.toml
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

test: check  ## every check and every test
	$(BIN)/python -m pytest -n 3 --dist worksteal

audit: setup  ## known vulnerabilities of the dependencies; needs the network
	$(BIN)/pip-audit --skip-editable

test-faults: setup  ## the faults and sizes that take minutes
	$(BIN)/python -m pytest -m slow tests

soak: setup  ## faults for ten minutes under load, then the books; SOAK="--minutes 3 --seed 7"
	$(BIN)/python -m bench.soak $(SOAK)

bench: setup  ## measure this checkout: drain, chains, submit, latency, memory, claims
	$(BIN)/python -m bench run --suite drain,chain,submit,latency,memory,claim --peers redisflow --runs 3

bench-peers: setup  ## install the queues to compare with, each into an environment of its own
	$(BIN)/python -m bench peers

bench-compare: setup  ## measure everything, alternating with the peers (about an hour, on a quiet machine)
	$(BIN)/python -m bench run --suite all

bench-report: setup  ## write plots and tables of the last measurements into docs/
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m bench report

docs: backend-page $(VENV)/.docs-ready  ## build the documentation site in site/; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --clean
	$(BIN)/python -m tools.site_check site
	@echo "Read it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory site"

backend-page: setup  ## write docs/backend.md and docs/reference/cli.md anew from the code
	$(BIN)/python -m tools.backend_page
	$(BIN)/python -m tools.cli_page

$(VENV)/.docs-ready: $(VENV)/.ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

screenshots: setup  ## a picture of every page of the dashboard into docs/images (needs chromium and its driver)
	$(BIN)/python -m docs.screenshots

clean:  ## remove what the targets made
	rm -rf $(VENV) dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
