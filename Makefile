# Everything a person needs to try, test and change tlkit. Needs Python >= 3.10 and make, nothing else.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
COGGED := README.md $(wildcard docs/reference/*.md)

.PHONY: help install demo test stress check lint fix docs site clean

help:     ## show this
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

install: $(READY)  ## build the environment in .venv

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(READY)  ## fit, evaluate and predict on a sample folder, offline
	rm -rf .demo && mkdir .demo
	cd .demo && ../$(BIN)/tlkit sample digits digits
	cd .demo && ../$(BIN)/tlkit fit digits
	cd .demo && ../$(BIN)/tlkit predict digits/test/7/*.png

test: $(READY)  ## run every test
	$(BIN)/python -m pytest --numprocesses 2

stress: $(READY)  ## break files and fits on purpose, a short count of each
	$(BIN)/python tests/stress/fuzz.py images --count 400
	$(BIN)/python tests/stress/fuzz.py heads --count 400
	$(BIN)/python tests/stress/kills.py --count 4
	$(BIN)/python tests/stress/nodes.py --count 2
	$(BIN)/python tests/stress/sorting.py --count 10
	$(BIN)/python tests/stress/flood.py --seconds 10
	$(BIN)/python tests/stress/poison.py --count 6
	$(BIN)/python tests/stress/kill_points.py --every 5
	$(BIN)/python tests/stress/timm_models.py 'test_*' 'shvit_*'

check: lint test  ## lint and test

lint: $(READY)  ## format, lint, types, the import law, generated documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/cog --check $(COGGED)

fix: $(READY)  ## put right what a program can: format, lint, generated documents
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/cog -r $(COGGED)

docs: $(READY)  ## write the generated parts of the README and of docs/
	$(BIN)/cog -r $(COGGED)

site: $(READY)  ## make the documentation, site/index.html; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:    ## remove the environment and everything generated
	rm -rf $(VENV) .demo build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
