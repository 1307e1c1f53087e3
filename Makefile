# Needs Python >= 3.11 with venv, git and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
HTA := $(HOME)/.cache/sotad/hta
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt
DEFECT ?= full-logits
IMPLEMENTER ?= scripted

.PHONY: demo test test-slow test-engines bench lint clean

demo: $(VENV)/.demo ## a whole campaign on this machine, from nothing to a verdict
	$(BIN)/sotad demo --defect $(DEFECT) --implementer $(IMPLEMENTER)

test: $(VENV)/.test ## the default suite: fast, deterministic
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not slow and not engines" $(ARGS)

test-slow: $(VENV)/.test ## what takes minutes: every crash point, every demo
	$(BIN)/python -m pytest -m "slow and not engines" $(ARGS)

test-engines: $(VENV)/.test ## real vLLM and SGLang on the CPU (6 GB), real Codex and Claude CLIs (npm, 640 MB); installs them
	$(BIN)/python -m pytest -m engines $(ARGS)

bench: $(VENV)/.bench $(HTA)/.done ## every figure that the documentation quotes, as ratios measured in one run
	$(BIN)/python -m tests.benchmarks $(ARGS)

lint: $(VENV)/.test ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove what was built; campaigns in demo-state stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sotad needs Python 3.11 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml .ci/constraints.txt
	$(PIP) --editable '.[demo]'
	touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml .ci/constraints.txt
	$(PIP) --editable '.[demo,test,lint]'
	touch $@ $(VENV)/.demo

$(HTA)/.done: ## a rival of the trace reader, with dependencies of its own; its rows are left out where it does not install
	$(PYTHON) -m venv $(HTA)
	-$(HTA)/bin/python -m pip install --quiet --disable-pip-version-check HolisticTraceAnalysis==0.5.0 'pandas<3' && touch $@

$(VENV)/.bench: $(VENV)/.test
	$(PIP) --editable '.[demo,test,lint,bench]'
	touch $@
