# The two commands of the README are `make demo` and `make test`; all work from a fresh clone,
# without root, inside .venv and .tox.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PRODUCT := setup.py pyproject.toml MANIFEST.in README.md \
	$(shell find ntmobile twisted -name '*.py' -o -name py.typed)

.PHONY: help demo install test lint docs bench clean

help:
	@echo 'make demo   install into .venv and show the platform at work on this machine'
	@echo 'make test   ruff, mypy and all tests (tox)'
	@echo 'make lint   ruff and mypy only'
	@echo 'make docs   build the documents into docs/_build/html'
	@echo 'make bench  measure it beside its peers: docs/benchmarks.md (20 minutes; ONLY=relay,tunnel)'
	@echo 'make clean  remove everything these made'

demo: install
	@$(BIN)/ntm demo

install: $(VENV)/.installed

test: $(VENV)/.tox-installed
	@rm -rf build ntmobile.egg-info
	$(BIN)/tox run

lint: $(VENV)/.tox-installed
	@rm -rf build ntmobile.egg-info
	$(BIN)/tox run -e ruff,mypy

docs: $(VENV)/.tox-installed
	$(BIN)/tox run -e docs
	@echo 'see docs/_build/html/index.html'

# The wheel is measured (-P), not this directory.
bench: $(VENV)/.bench-installed
	@$(BIN)/python -P -m ntmobile.bench $(if $(ONLY),--only $(ONLY)) \
		$(if $(REPEAT),--repeat $(REPEAT)) --out docs

clean:
	rm -rf $(VENV) .tox build dist ntmobile.egg-info docs/_build _trial_temp* \
		.mypy_cache .ruff_cache .hypothesis
	find ntmobile tests twisted docs -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'make: ntmobile needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...' >&2; \
		exit 1; }
	@echo 'making $(VENV) ...'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo 'make: cannot make a virtual environment (Debian: apt install python3-venv)' >&2; \
		exit 1; }

# A wheel, not an editable install, which would hide twisted/plugins from twistd. Old build
# directories would put modules that are gone into it.
$(VENV)/.installed: $(PRODUCT) | $(BIN)/python
	@echo 'installing ntmobile into $(VENV) ...'
	@rm -rf build ntmobile.egg-info
	@$(PIP) install --upgrade --force-reinstall --no-deps .
	@$(PIP) install --use-pep517 .
	@rm -rf build ntmobile.egg-info
	@touch $@

$(VENV)/.bench-installed: $(VENV)/.installed
	@$(PIP) install --use-pep517 '.[bench]' || \
		echo 'make: no peers and profiler from PyPI; what needs them is skipped'
	@rm -rf build ntmobile.egg-info
	@touch $@

$(VENV)/.tox-installed: | $(BIN)/python
	@echo 'installing tox into $(VENV) ...'
	@$(PIP) install 'tox>=4.11'
	@touch $@
