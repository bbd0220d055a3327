# make run    the daemon on config/kernels.toml, in the foreground
# make lab    the same with a JupyterLab beside it, in an environment of its own
# make test   the tests
# make check  formatting, lint, types and tests

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONFIG ?= config/kernels.toml
JUPYTER := .jupyter
# The long ones first, so that none is left over when the others are done.
EACH := -n 3 --dist loadfile --no-loadscope-reorder tests/soak tests/faults tests/e2e tests/fuzz tests
QUICK := not systemd and not deb and not image and not vm and not slurm and not slow
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' supervisor/version.py)

.PHONY: run lab test check lint bench soak test-ported test-warm test-slurm test-many test-systemd test-vm deb test-deb test-image test-jupyter clean

run: $(VENV)/.demo
	@$(BIN)/kernel-supervisor run $(CONFIG)

# The daemon is ended with it if it was begun by it; its kernels go as on_exit says.
lab: $(JUPYTER)/.lab
	@export PATH="$(CURDIR)/$(JUPYTER)/bin:$$PATH"; \
	if ! kernel-supervisor status --config $(CONFIG) >/dev/null 2>&1; then \
		kernel-supervisor run $(CONFIG) & trap "kill $$!; wait" EXIT; \
	fi; \
	jupyter lab --no-browser --ServerApp.jpserver_extensions=supervisor.jupyter=True \
		--SupervisedKernels.configuration=$(abspath $(CONFIG)) $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(EACH) -m "$(QUICK)" $(AGAIN)

check: lint
	$(BIN)/python -m pytest $(EACH) -m "$(QUICK)" --cov=supervisor.core --cov-branch --cov-fail-under=100

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(NAMES) $(if $(WRITE),--write)

soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak $(SOAK)

# Programs that were written for jupyter_client, with fifty ipykernels at a time.
test-ported: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow tests/e2e/test_ported.py

# WARM_PYTHONS: further interpreters with an ipykernel, separated by colons; WARM_ROUNDS: how often.
test-warm: $(VENV)/.dev
	$(BIN)/python -m pytest tests/warm tests/e2e/test_warm.py tests/faults/test_killed_while_warm.py

# Kernels as jobs of a real Slurm, two nodes on this machine.
test-slurm: $(VENV)/.dev
	$(BIN)/python -m pytest -m slurm -v $(SLURM) $(AGAIN) tests/slurm

# MANY (1000) kernels as jobs of a cluster that is one process: minutes.
test-many: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow --log-cli-level=info tests/slurm/test_many.py

test-systemd: $(VENV)/.dev
	$(BIN)/python -m pytest -m systemd -v $(AGAIN)

# Not in .ci/run: by emulation all of it takes hours. VM="-k trixie-memory" chooses checks.
test-vm: $(VENV)/.dev
	$(BIN)/python -m pytest -m vm -v $(VM)

# A package for this Debian and its Python, in build/; needs debhelper.
deb: | $(VENV)/bin/python
	rm -rf build/deb build/kernel-supervisor_* && mkdir -p build/deb/docs
	cp -r packaging/debian packaging/man.py packaging/kernel-supervisor.rules config/kernels.toml build/deb
	cp docs/*.md README.md LICENSE build/deb/docs
	cp CHANGELOG.md build/deb
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/deb .
	printf 'kernel-supervisor (%s) unstable; urgency=medium\n\n  * %s\n\n -- %s  %s\n' "$(VERSION)" \
		"See CHANGELOG.md." "$$(sed -n 's/^Maintainer: //p' packaging/debian/control)" "$$(date -R -r CHANGELOG.md)" \
		> build/deb/debian/changelog
	cd build/deb && PIP="$(abspath $(BIN))/python -m pip" dpkg-buildpackage --build=binary --no-sign

# What that package does in a real systemd; test-image: the steps of the Containerfile, without an engine.
test-deb test-image: test-%: $(VENV)/.dev
	$(BIN)/python -m pytest -m $* -v

test-jupyter: $(JUPYTER)/.dev
	PATH="$(CURDIR)/$(JUPYTER)/bin:$$PATH" $(JUPYTER)/bin/python -m pytest -v -p no:unraisableexception $(AGAIN) tests/jupyter tests/page

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

$(JUPYTER)/bin/python:
	$(PYTHON) -m venv $(JUPYTER)

.jupyter: $(JUPYTER)/.dev

$(JUPYTER)/.lab: pyproject.toml | $(JUPYTER)/bin/python
	$(JUPYTER)/bin/python -m pip install --quiet --editable ".[demo,jupyter]" "jupyterlab>=4"
	@touch $@

$(JUPYTER)/.dev: $(JUPYTER)/.lab tests/jupyter/requirements.txt tests/jupyter/package.json
	$(JUPYTER)/bin/python -m pip install --quiet --requirement tests/jupyter/requirements.txt
	-cp tests/jupyter/package.json $(JUPYTER)/ && npm install --silent --prefix $(JUPYTER)
	@touch $@

clean:
	rm -rf $(VENV) $(JUPYTER) .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
