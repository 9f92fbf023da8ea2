# The book: build it, check it, read it at the keyboard. `make help` lists what there is.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# a reader's own kernels and settings do not come before those of this book
export JUPYTER_PREFER_ENV_PATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help book test test-site nbval execute lab drift record kills bad-input platforms clean test-distributed mutants wrong-books search test-cuda bench

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | \
	  while IFS='|' read -r target text; do printf '%-16s %s\n' "$$target" "$$text"; done

# The environment, made again when a pinned version changes. PYTHON=python3.12 picks another Python.
# Nothing is compiled beforehand: most of it is never imported, and that halves the time.
$(VENV)/.ready: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || { echo "Making $(VENV) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "Installing the pinned packages into $(VENV) (a few minutes the first time) ..."
	$(BIN)/python -m pip install --progress-bar on --no-compile -r requirements.txt
	@touch $@

book: $(VENV)/.ready  ## build the site into _build/html, executing what changed
	@$(BIN)/python tools/build.py

# LONG=1 runs the tests of the longest checks too, which are skipped otherwise
test: $(VENV)/.ready  ## run all tests: pytest over tests/, and every notebook, strictly
	@$(BIN)/python tools/run_tests.py --tests $(if $(LONG),--long)

# PRETEND=1 takes a device that every machine has: real values, and nothing may mix with the CPU
test-cuda: $(VENV)/.ready  ## on a machine with CUDA: the tests for it and every notebook, recorded
	@$(BIN)/python tools/run_cuda.py $(if $(PRETEND),--pretend)

test-site: $(VENV)/.ready  ## build the site and test it in Chromium, from the system's packages
	@$(BIN)/python tools/test_site.py

test-distributed: $(VENV)/.ready  ## the tests with one, two and four processes, some of them killed on purpose
	@$(BIN)/python -m pytest -q tests/test_distributed.py --distributed

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

# N=3 kills that often, SEED=0 draws the same runs again, RECORD=1 records the result for the page
kills: $(VENV)/.ready  ## kill training runs at random moments, resume them, compare: N=100
	@$(BIN)/python tools/kills.py -n $(or $(N),100) $(if $(SEED),--seed $(SEED)) \
	  $(if $(RECORD),--record)

bad-input: $(VENV)/.ready  ## make all calls that must fail, in both libraries; RECORD=1 records what came of them
	@$(BIN)/python tools/bad_input.py $(if $(RECORD),--record)

# ONLY="avx2 alone" runs some; PYTHONS="Python-3.12=path/to/python" adds other Pythons with the pinned packages
platforms: $(VENV)/.ready  ## notebooks and tests under other instructions, threads, locales, paths, without a network
	@$(BIN)/python tools/platforms.py $(if $(ONLY),--only $(ONLY)) $(if $(PYTHONS),--python $(PYTHONS)) \
	  $(if $(RECORD),--record)

# SECONDS=60 SEED=0 asks a sample, NBVAL=40 asks the notebooks about 40 of them, RECORD=1 keeps it
mutants: $(VENV)/.ready  ## plant small faults in minioptim and see whether a test turns red
	@$(BIN)/python tools/mutants.py $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(ONLY),--only "$(ONLY)") $(if $(NBVAL),--nbval $(NBVAL)) $(if $(RECORD),--record)

wrong-books: $(VENV)/.ready  ## plant faults in notebooks and pages and see which check finds each
	@$(BIN)/python tools/wrong_books.py $(if $(ONLY),--only "$(ONLY)") $(if $(RECORD),--record)

# N=20000, or SECONDS=60; SEED=7 asks again what was asked with it
search: $(VENV)/.ready  ## compare random runs with torch.optim, other ones each time: N=20000
	@$(BIN)/python tools/search.py $(if $(N),--n $(N)) $(if $(SECONDS),--seconds $(SECONDS)) \
	  $(if $(SEED),--seed $(SEED)) $(if $(RECORD),--record)

clean:  ## remove what was built (the environment stays: rm -r .venv removes it too)
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
