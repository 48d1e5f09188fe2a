# make demo         train on digits with wrong labels, in four ways
# make test         lint, format, types, layers, doctests and tests
# make test-slow    the tests that take a minute, and the notebooks
# make docs         build docs/_build/html; a warning is an error
# make test-all     all of these, and the tests that take too long for every day
# make test-newest  the core alone on newer Pythons, its tests on the newest
# make lock         requirements-lock-*.txt: what the Pythons at hand passed with
#
# Each first sets up .venv, when the requirements or pyproject.toml changed.
# `make PYTHON=/path/to/python test` uses that interpreter as it is instead.

VENV := .venv
REQUIREMENTS := requirements.txt requirements/core.txt requirements/lab.txt
# Python compiles what is imported: a small part of what is installed.
PIP_INSTALL = $(VENV)/bin/python -m pip install --quiet --quiet --no-compile \
	--disable-pip-version-check
PYTEST = $(RUN) -m pytest forgetsam tests notebooks --doctest-modules \
	--nbmake $(PYTEST_ARGS)
# Two processes, a file of tests at a time; PYTEST_ARGS= runs one after another.
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder

LINT_IMPORTS = $(RUN) -c "from importlinter.cli import lint_imports_command as \
	lint; lint(['--no-cache', '--no-logo'])"

ifeq ($(origin PYTHON),command line)
RUN := $(PYTHON)
else
RUN := $(VENV)/bin/python
DEMO_SETUP := $(VENV)/.installed
TEST_SETUP := $(VENV)/.installed-dev
endif

.DELETE_ON_ERROR:
.PHONY: help demo test test-slow docs test-all test-newest lock lint setup setup-dev

help:
	@sed -n 's/^# \{0,1\}//p; /^$$/q' Makefile

demo: setup
	@rm -rf runs/demo
	@$(RUN) -m scripts.demo --workdir=runs/demo

test: lint
	@$(PYTEST) -m "not slow and not long"

test-slow: setup-dev
	@$(PYTEST) -m "slow and not long"

# PyTorch is needed to test that its files are read; nothing else uses it.
test-all: lint
	@echo "[setup] installing torch for the tests of its files"
	@$(RUN) -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(PYTEST)
	@$(RUN) scripts/pythons.py --all

docs: setup-dev
	@$(RUN) -m sphinx -M html docs docs/_build --fail-on-warning --keep-going \
		--nitpicky --quiet
	@echo "[docs] docs/_build/html/index.html"

test-newest: setup-dev
	@$(RUN) scripts/pythons.py

lock: setup-dev
	@$(RUN) scripts/pythons.py --lock

lint: setup-dev
	@echo "[lint] ruff check, ruff format, mypy, import-linter"
	@$(RUN) -m ruff check --quiet .
	@$(RUN) -m ruff format --quiet --check .
	@$(RUN) -m mypy
	@report=$$($(LINT_IMPORTS)) || { echo "$$report"; exit 1; }

setup: $(DEMO_SETUP)
setup-dev: $(TEST_SETUP)

$(VENV)/.created:
	@scripts/create_venv.sh $(VENV)
	@touch $@

$(VENV)/.installed: $(REQUIREMENTS) | $(VENV)/.created
	@echo "[setup] installing requirements.txt into $(VENV):" \
		"about 2.5 GB, one to three minutes"
	@$(PIP_INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: $(REQUIREMENTS) requirements/dev.txt pyproject.toml \
		| $(VENV)/.created
	@echo "[setup] installing forgetsam and its development tools into" \
		"$(VENV): about 2.8 GB, one to three minutes"
	@$(PIP_INSTALL) -e '.[lab,dev]'
	@touch $@ $(VENV)/.installed
