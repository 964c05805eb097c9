# `make demo` and `make test` do all the set-up on a machine that has only Python 3.11, git and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TORCH  := torch>=2.11,<2.14
# mbrl-lib pins old versions of everything it needs, yet runs beside today's: hence --no-deps.
MBRL   := mbrl==0.2.0 hydra-core==1.3.8 antlr4-python3-runtime==4.9.3 termcolor

.PHONY: demo test test-slow test-gpu lint install format docs clean
.DEFAULT_GOAL := test

demo: install
	$(BIN)/mbkit train pets env=cartpole preset=demo seed=1

test: lint
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

test-slow: install
	$(BIN)/python -m pytest -m slow

test-gpu: install
	$(BIN)/python -m pytest -m gpu

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# No network is needed, and notebooks are not executed: their outputs are stored, and the tests execute them.
docs: install
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

install: $(STAMP)

$(STAMP): pyproject.toml Makefile
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found"; exit 2; }
	$(BIN)/python -c "" 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps $(MBRL)
	@touch $(STAMP)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
