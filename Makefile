# `make demo` and `make test` set up what they need. PYTHON names the interpreter to start from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup demo test slow check format docs clean

help:
	@echo "make demo    train, evaluate and predict on drawn streets: a first look, in minutes"
	@echo "make test    the tests"
	@echo "make slow    the tests that take minutes"
	@echo "make check   format, lint, types, import direction"
	@echo "make format  put the code into its format"
	@echo "make docs    the documentation, into site/"
	@echo "make setup   .venv with everything"

setup: $(VENV)/dev.stamp

demo: $(VENV)/demo.stamp
	$(BIN)/segformer demo --out demo

test: $(VENV)/dev.stamp
	$(BIN)/pytest -m "not slow and not gpu and not browser"

slow: $(VENV)/dev.stamp
	$(BIN)/pytest -m slow

check: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/dev.stamp
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) demo site

$(BIN)/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.11"'
	$(PYTHON) -m venv $(VENV)

# The stamps are newer than pyproject.toml exactly when what it asks for is installed.
$(VENV)/demo.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[train]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/demo.stamp
