# `make run` and `make test` do all the set-up on a machine that has Python 3.11 or later; the second time they are fast.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# a process of tests a core: threads of each would only be in the others' way
test: export OMP_NUM_THREADS = 1

.PHONY: run serve test check bench lock clean

run: $(VENV)/.installed ## Serve the chat page and the API on http://127.0.0.1:8000
	$(BIN)/fetchgate serve

test: $(VENV)/.installed-dev ## Lint, type-check and test everything, with real components
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

check: test ## The same as test, by the name that pre-commit uses

bench: $(VENV)/.installed-dev ## Measure a turn's overhead, a gate's decision, and the knowledge base
	$(BIN)/fetchgate bench turn
	$(BIN)/fetchgate bench gate
	$(BIN)/fetchgate bench kb

lock: $(VENV)/.installed-dev ## Pin every dependency anew
	$(BIN)/pip-compile --quiet --allow-unsafe --strip-extras --no-emit-find-links --no-emit-index-url --no-annotate --output-file requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --allow-unsafe --strip-extras --no-emit-find-links --no-emit-index-url --no-annotate --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml
	sed -i 's/^\(torch==[0-9.]*\)+.*/\1/' requirements.lock requirements-dev.lock  # the build, CPU or CUDA, is the index's choice

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "FetchGate needs Python 3.11 or later; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	sh tests/install_browser.sh
	touch $@

clean: ## Forget the environment and everything that was made in it
	rm -rf $(VENV) var
