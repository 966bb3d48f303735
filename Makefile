# Needs python3 (3.11 or newer) with its venv module, and make. Everything else is installed into
# virtual environments beside this file. `make PYTHON=python3.13 test` takes another interpreter.

PYTHON ?= python3
VENV ?= .venv
DEMO_VENV ?= .venv-demo
LOWEST_VENV ?= .venv-lowest
DEMO_OUT ?= demo-out
WORKERS ?= 2
PYTEST_ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO_INSTALLED := $(DEMO_VENV)/.installed
LOWEST_INSTALLED := $(LOWEST_VENV)/.installed
PIP := -m pip --disable-pip-version-check --quiet

# One thread a worker: torch and OpenMP would otherwise start as many threads each as there are cores.
# A worker that has nothing left takes tests from one that waits for a long one.
OPTIONS := -n $(WORKERS) --dist worksteal
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest $(OPTIONS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-lowest lint mypy docs dist bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## */  make \1#/p' $(MAKEFILE_LIST) | awk -F'#' '{ printf "%-20s%s\n", $$1, $$2 }'

demo: $(DEMO_INSTALLED)  ## attack the classifier that ships in the package, without torch
	$(DEMO_VENV)/bin/jataug demo -o $(DEMO_OUT)

test: $(INSTALLED)  ## all tests but the heavy ones
	$(PYTEST) -m "not heavy" $(PYTEST_ARGS)

test-all: $(INSTALLED)  ## all tests
	$(PYTEST) $(PYTEST_ARGS)

# With Python 3.11 or 3.12: the lowest numpy has no build for 3.13. The models are exported anew, by the
# lowest torch. tests/export are left out: they want operators newer than the lowest onnx.
test-lowest: $(LOWEST_INSTALLED)  ## as test, with the lowest versions allowed, without tests/export
	OMP_NUM_THREADS=1 JATAUG_CACHE=$${JATAUG_CACHE:-$(abspath .cache)/lowest} \
		$(LOWEST_VENV)/bin/pytest $(OPTIONS) -m "not heavy" --ignore=tests/export $(PYTEST_ARGS)

lint: $(INSTALLED)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory mypy

# The wheel, from another folder: only there do export/ and cli/ have the names they are imported by.
mypy: $(INSTALLED)
	rm -rf build .whl/dist .whl/site
	$(BIN)/python -m build --wheel --no-isolation --outdir .whl/dist . > .whl.log 2>&1 || { cat .whl.log; exit 1; }
	rm -rf build .whl.log
	$(BIN)/python $(PIP) install --no-deps --target .whl/site .whl/dist/*.whl
	cd .whl && MYPYPATH=site $(abspath $(BIN))/mypy --config-file ../pyproject.toml -p jataug

docs: $(INSTALLED)  ## the pages of docs/ and the API, into .docs/; a warning fails
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs .docs

dist: $(INSTALLED)  ## wheel and sdist, the same bytes from the same tree
	$(BIN)/python .ci/dist.py dist

BENCHES := speed excess bridge precision loaders conformance coverage scale strength training training_colour

bench: $(INSTALLED)  ## every benchmark, one after the other: hours
	@set -e; for name in $(BENCHES); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py; done

clean:  ## remove what these targets made; the downloads in .cache stay
	rm -rf $(VENV) $(DEMO_VENV) $(LOWEST_VENV) $(DEMO_OUT) build dist .docs .whl *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) install "torch==2.13.0" -c constraints.txt
	$(BIN)/python $(PIP) install -e ".[dev]" -c constraints.txt
	touch $@

$(LOWEST_INSTALLED): pyproject.toml constraints-lowest.txt
	rm -rf $(LOWEST_VENV)
	$(PYTHON) -m venv $(LOWEST_VENV)
	$(LOWEST_VENV)/bin/python $(PIP) install -e ".[dev]" -c constraints-lowest.txt
	touch $@

# onnxruntime and onnxruntime-gpu share one module folder: a fresh environment holds exactly one of them.
$(DEMO_INSTALLED): pyproject.toml constraints.txt
	rm -rf $(DEMO_VENV)
	$(PYTHON) -m venv $(DEMO_VENV)
	extra=cpu; if nvidia-smi -L > /dev/null 2>&1; then extra=gpu; fi; \
	echo "demo: installing .[$$extra]"; \
	$(DEMO_VENV)/bin/python $(PIP) install -e ".[$$extra]" -c constraints.txt
	touch $@
