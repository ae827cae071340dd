# make demo   trains lenet5 on digits and predicts some of them
# make test   lint and tests
# make setup  only the virtual environment, which the other two make by themselves
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test

setup: .venv/ready

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "cnnzoo needs Python 3.10 or newer; name one by PYTHON=..."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

demo: .venv/ready
	$(BIN)/python scripts/demo.py

test: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest
