# A fresh Debian machine with Python 3.11+ and make is all that is needed.
SHELL := /bin/sh
PYTHON ?= python3
NODES ?= 64
SEED ?= 1
UV ?= uv
BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet --quiet

.PHONY: help install demo test unit lint types arrows bench acceptance lock clean

help:
	@echo 'make demo [NODES=64] [SEED=1]  a simulated cluster with everything before it'
	@echo 'make test                      all tests, setting up what they need'
	@echo 'make lint types arrows         what CI holds besides'
	@echo 'make bench [BENCH_JSON=FILE]   benchmarks, ratios within one run'
	@echo 'make acceptance                long runs, and the images contents'
	@echo 'make lock                      write the locks anew (needs uv)'

install: $(STAMP)

# Done once, and again when a lock or the build changes.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Pitwall needs Python 3.11 or newer; $(PYTHON) is older. Give another: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo 'Python cannot make a virtual environment here; run: apt-get install python3-venv' >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo 'Installing from requirements.lock'
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)
	@exec $(BIN)/pitwall demo --nodes $(NODES) --seed $(SEED) $(DEMO)

test: $(STAMP)
	@sh tests/system_packages.sh
	@$(BIN)/pytest -m 'not acceptance' $(TESTS)

unit: $(STAMP)
	@$(BIN)/pytest tests/unit $(TESTS)

lint: $(STAMP)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .

types: $(STAMP)
	@$(BIN)/mypy

arrows: $(STAMP)
	@$(BIN)/lint-imports

bench: $(STAMP)
	@sh tests/system_packages.sh
	@$(BIN)/pytest tests/benchmarks -m '' -s $(TESTS)

acceptance: $(STAMP)
	@sh tests/system_packages.sh
	@$(BIN)/pytest -m acceptance -s $(TESTS)

lock:
	@command -v $(UV) >/dev/null || { echo 'make lock needs uv; run: python3 -m pip install uv' >&2; exit 1; }
	$(UV) pip compile pyproject.toml --universal --python-version 3.11 --extra server --extra dev --generate-hashes --quiet -o requirements.lock
	$(UV) pip compile pyproject.toml --universal --python-version 3.11 --extra server -c requirements.lock --generate-hashes --quiet -o requirements-server.lock
	$(UV) pip compile pyproject.toml --universal --python-version 3.11 -c requirements.lock --generate-hashes --quiet -o requirements-agent.lock
	echo hatchling | $(UV) pip compile - --universal --python-version 3.11 -c requirements.lock --generate-hashes --quiet -o requirements-build.lock

clean:
	rm -rf .venv .demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache tests/artifacts
