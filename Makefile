# The book: build it, check it, read it at the keyboard. `make help` lists what there is.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# a reader's own kernels and settings do not come before those of this book
export JUPYTER_PREFER_ENV_PATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help book test test-site nbval execute lab bench drift record clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | \
	  while IFS='|' read -r target text; do printf '%-16s %s\n' "$$target" "$$text"; done

# The environment, made again when a pinned version changes. PYTHON=python3.12 picks another Python.
$(VENV)/.ready: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || { echo "Making $(VENV) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "Installing the pinned packages into $(VENV) (a few minutes the first time) ..."
	$(BIN)/python -m pip install --progress-bar on -r requirements.txt
	@touch $@

book: $(VENV)/.ready  ## build the site into _build/html, executing what changed
	@$(BIN)/python tools/build.py

test: $(VENV)/.ready  ## run all tests: pytest over tests/, and every notebook, strictly
	@$(BIN)/python tools/run_tests.py --tests

test-site: $(VENV)/.ready  ## build the site and test it in Chromium, which must be installed
	@$(BIN)/python tools/test_site.py

nbval: $(VENV)/.ready  ## only the notebooks: run them, compare every stored output
	@$(BIN)/python tools/run_tests.py

execute: $(VENV)/.ready  ## run all notebooks and store their outputs
	@$(BIN)/python tools/execute.py

lab: $(VENV)/.ready  ## open the notebooks in JupyterLab
	@test -f _build/drawn/cover.png || $(BIN)/python -m walkthrough.cover _build/drawn/cover.png
	@JUPYTER_CONFIG_PATH="$(CURDIR)/tools/jupyter" $(BIN)/jupyter lab \
	  --LabApp.default_url=/lab/tree/book/index.md $(LAB)

# RECORD=1 keeps the result for the book, whose figures must then be drawn again: make execute
bench: $(VENV)/.ready  ## measure the speed of a step beside torch.optim, five minutes, on a quiet machine
	@$(BIN)/python tools/bench.py $(if $(RECORD),--record)

# TORCH=2.14.1 asks another release, RECORD=1 records the answer, TORCH_PYTHON=... runs the parity tests there
drift: $(VENV)/.ready  ## has PyTorch changed under the book? TORCH=2.14.1 asks another release
	@$(BIN)/python tools/drift.py $(if $(TORCH),--torch $(TORCH)) $(if $(RECORD),--record) \
	  $(if $(TORCH_PYTHON),--python $(TORCH_PYTHON))

record: $(VENV)/.ready  ## record the digests of what the panels show, in book/source-map.yml
	@$(BIN)/python tools/drift.py --record

clean:  ## remove what was built (the environment stays: rm -r .venv removes it too)
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
