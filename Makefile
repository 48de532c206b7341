# make setup | demo | test | lint, lock to pin anew, and audit to ask what is known to be wrong with what is pinned.
#
# Everything runs in an environment of the repository's own, .venv. It needs Python 3.11 or newer, make and the package
# index. `make setup ACCELERATOR=gpu` installs the CUDA build; later calls keep to what is installed.

PYTHON ?= python3
ACCELERATOR ?= $(or $(patsubst .venv/installed-%,%,$(firstword $(wildcard .venv/installed-*))),cpu)
export ACCELERATOR

UV_VERSION := 0.13.8
PIP_AUDIT_VERSION := 2.10.1
BIN := .venv/bin
INSTALLED := .venv/installed-$(ACCELERATOR)
COMPILE := pip compile pyproject.toml --extra dev --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	--quiet --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: setup demo test test-unit test-integration lint lock audit

setup: $(INSTALLED)

# A run that is there already goes on where it stopped; one that is finished shows its table again.
demo: setup
	$(BIN)/medcritical demo

test: test-unit test-integration

# One of them has Prometheus itself check the queries of the dashboard.
test-unit: setup
	tools/promtool.sh >/dev/null
	$(BIN)/pytest tests/unit --numprocesses=auto --dist=loadfile

test-integration: setup
	tools/chromium.sh
	$(BIN)/pytest tests/integration -m "not gpu"

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

lock: .bootstrap/uv-$(UV_VERSION)
	ACCELERATOR=cpu tools/uv.sh $(COMPILE) --extra cpu --output-file requirements/cpu.txt
	ACCELERATOR=gpu tools/uv.sh $(COMPILE) --extra gpu --output-file requirements/gpu.txt

# Asks the package index, which knows of advisories (the PyPA's and GitHub's). What it cannot tell of fails, too.
audit: .bootstrap/uv-$(UV_VERSION)
	for pins in requirements/*.txt; do \
		sed 's/+cpu$$//' $$pins >.bootstrap/pins.txt; \
		tools/uv.sh tool run --from pip-audit==$(PIP_AUDIT_VERSION) pip-audit --strict --no-deps --disable-pip \
			--progress-spinner off --requirement .bootstrap/pins.txt || exit; \
	done

.bootstrap/uv-$(UV_VERSION):
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'error: Python 3.11 or newer is needed: make PYTHON=...')"
	$(PYTHON) -m venv --clear .bootstrap
	.bootstrap/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	touch $@

# The sync takes away what another set left behind: both vLLM builds are the same import name.
$(INSTALLED): .bootstrap/uv-$(UV_VERSION) requirements/$(ACCELERATOR).txt pyproject.toml
	test -x $(BIN)/python || tools/uv.sh venv --quiet --python .bootstrap/bin/python .venv
	rm -f .venv/installed-*
	tools/uv.sh pip sync --compile-bytecode --python $(BIN)/python requirements/$(ACCELERATOR).txt
	tools/uv.sh pip install --python $(BIN)/python --no-deps --editable .
	touch $@
