# Needs python 3.11+, pip and make; everything else goes into $(VENV).
#   make demo DEMO_ARGS="…"      arguments of `beholder demo`
#   make test PYTEST_ARGS="…"    arguments of pytest
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"   torch without CUDA on Linux

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
DEMO_ARGS ?=
PYTEST_ARGS ?=

BIN := $(VENV)/bin
UNFINISHED := $(VENV)/.unfinished

export OMP_WAIT_POLICY := PASSIVE
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint docs clean python cut_off

help:
	@echo "make demo    install, then run the demo on the bundled world"
	@echo "make test    install, then run the quick tests (slow ones: make test PYTEST_ARGS='-m slow')"
	@echo "make lint    ruff and pyright"
	@echo "make docs    build the documentation into docs/_build/html; warnings are errors"
	@echo "make clean   remove $(VENV), caches and built pages; runs are kept"

demo: $(VENV)/.installed
	$(BIN)/beholder demo $(DEMO_ARGS)

test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf $(VENV) docs/_build build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis
	find src tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

python:
	@"$(PYTHON)" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || { \
	  echo "beholder needs Python 3.11 or newer; '$(PYTHON)' is $$({ "$(PYTHON)" --version 2>&1 || echo missing; } | tail -n 1). Try: make PYTHON=python3.11" >&2; \
	  exit 1; }

# A stamp is written last, and only by an install that ran to its end. One that was cut off leaves $(UNFINISHED) behind:
# no stamp counts then, and the next install starts empty, because pip takes half-copied packages for installed ones.
ifneq ($(wildcard $(UNFINISHED)),)
cut_off := cut_off
endif
cut_off:

define install
	@trap 'exit 130' INT TERM HUP; \
	rm -f $@; \
	if [ -e $(UNFINISHED) ]; then echo "the last install was cut off: starting again"; rm -rf $(VENV); fi; \
	mkdir -p $(VENV) && touch $(UNFINISHED) && \
	{ [ -x $(BIN)/pip ] || "$(PYTHON)" -m venv $(VENV); } && \
	{ $(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e "$(1)" || { rm -f $(UNFINISHED); exit 1; }; } && \
	rm -f $(UNFINISHED) && touch $@
endef

$(VENV)/.installed: pyproject.toml constraints.txt $(cut_off) | python
	@echo "installing into $(VENV): one to three minutes, about 1.5 GB"
	$(call install,.)

$(VENV)/.installed-%: pyproject.toml constraints.txt $(cut_off) | python
	@echo "installing [$*] into $(VENV): one to three minutes, about 1.7 GB"
	$(call install,.[$*])
