# make run    the daemon on config/kernels.toml, in the foreground
# make test   the tests
# make check  formatting, lint, types and tests

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONFIG ?= config/kernels.toml

.PHONY: run test check lint bench soak test-systemd clean

run: $(VENV)/.demo
	@$(BIN)/kernel-supervisor run $(CONFIG)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 3 --dist loadfile -m "not systemd and not slow"

check: lint
	$(BIN)/python -m pytest -n 3 --dist loadfile -m "not systemd and not slow" --cov=supervisor.core --cov-branch --cov-fail-under=100

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(if $(WRITE),--write)

soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak $(SOAK)

test-systemd: $(VENV)/.dev
	$(BIN)/python -m pytest -m systemd -v

# An interpreter that is too old is told before pip fails in its own words.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make: Python 3.11 or newer is needed, $(PYTHON) is %d.%d: use make PYTHON=..." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[demo]"
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[demo,dev]"
	@touch $@

$(VENV)/.bench: $(VENV)/.dev benchmarks/requirements.txt
	$(BIN)/python -m pip install --quiet --requirement benchmarks/requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
