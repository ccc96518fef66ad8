# Everything starts from a fresh Debian machine with python3 and make; `make` lists the words.
# Another Python: make PYTHON=/usr/bin/python3 test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
COMPILE = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate pyproject.toml

RUNTIME_PACKAGES := libturbojpeg0
TEST_PACKAGES := $(RUNTIME_PACKAGES) dcmtk dicom3tools libgdcm-tools libimage-exiftool-perl \
	libjpeg-turbo-progs orthanc orthanc-dicomweb buildah debootstrap \
	chromium curl nodejs prometheus

.DEFAULT_GOAL := help
.PHONY: help setup run test check faults bench shots image lock clean

help: ## list these words
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.dev ## make .venv with everything that development needs

run: $(VENV)/.runtime ## start the service, and the embedded archive where no other is configured
	@tools/apt-install $(RUNTIME_PACKAGES) || echo "note: going on without $(RUNTIME_PACKAGES)" >&2
	@exec $(BIN)/jpegstow serve

test: $(VENV)/.dev ## run the tests; ARGS="-k stow" goes to pytest
	@tools/apt-install $(TEST_PACKAGES) || echo "note: what needs a missing tool is skipped" >&2
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: $(VENV)/.dev ## lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

faults: $(VENV)/.dev ## kill and disturb everything for up to ten minutes; ARGS="--seed 7" as it was
	@tools/apt-install $(RUNTIME_PACKAGES)
	$(BIN)/python -m tests.faults $(ARGS)

bench: $(VENV)/.dev ## measure on this machine; ARGS=--quick for a first look
	@tools/apt-install $(RUNTIME_PACKAGES)
	$(BIN)/python -m tests.bench.transforms $(ARGS)
	$(BIN)/python -m tests.bench.upload $(ARGS)
	$(BIN)/python -m tests.bench.queue $(ARGS)
	$(BIN)/python -m tests.bench.archive $(ARGS)

shots: $(VENV)/.dev ## make the README's screenshots anew
	JPEGSTOW_SCREENSHOTS=docs/screenshots $(BIN)/python -m pytest tests/test_pages.py tests/test_pages_queue.py

image: ## build the container image with docker or buildah
	@if docker info >/dev/null 2>&1; then docker build -t jpegstow .; \
	else buildah build --format docker -t jpegstow .; fi

lock: | $(BIN)/python ## bring both lock files up to date with pyproject.toml
	$(PIP) install uv
	$(COMPILE) --output-file requirements.lock
	$(COMPILE) --group dev --constraint requirements.lock --output-file requirements-dev.lock

clean: ## remove whatever these words have made, but not data/
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@tools/make-venv $(PYTHON) $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements-dev.lock
	$(PIP) install --no-deps --editable .
	@touch $@ $(VENV)/.runtime
