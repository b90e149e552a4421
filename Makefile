# What one runs here. A machine with Python 3.11 or newer and make needs nothing else.
#   make PYTHON=python3.13 demo      another Python
#   make TORCH_INDEX=https://… demo  another index for torch (see tools/install.py)
#   make NEWEST=1 test               the newest versions that pyproject.toml allows, in place of constraints.txt

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
TWO := -n 2 --dist loadfile # two processes of one thread each: twice as fast on two cores

.PHONY: demo test lab lint format build-notebooks package release-check clean

demo: $(STAMP)  ## trace Dallas → Texas → Austin and swap Texas for California
	@$(BIN)/mi-workshop demo

test: export HF_HUB_OFFLINE = 1
test: export OMP_NUM_THREADS = 1
test: export PYTHONDONTWRITEBYTECODE = # else each process compiles the tests anew, where an image sets it
test: $(STAMP)  ## every test, then every notebook
	$(BIN)/python -m pytest $(TWO)
	MI_WORKSHOP_OFFLINE=1 MI_WORKSHOP_CACHE=$(CURDIR)/.venv/test-cache $(BIN)/python -m pytest $(TWO) --nbval-lax --nbval-current-env --nbval-cell-timeout=60 notebooks

lab: $(STAMP)  ## open the notebooks
	@$(BIN)/mi-workshop lab

lint: $(STAMP)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

build-notebooks: $(STAMP)  ## notebooks/src → notebooks, executed
	$(BIN)/python notebooks/build.py

package: $(STAMP)  ## sdist in dist/, the wheel built from it, both checked
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python tools/check_package.py

release-check: $(STAMP)  ## fails while the public address is a placeholder
	$(BIN)/python tools/release_check.py

clean:
	rm -rf .venv dist

$(STAMP): pyproject.toml constraints.txt tools/install.py
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) here: install Python 3.11 or newer, or name one: make PYTHON=/path/to/python"; exit 2; }
	$(PYTHON) tools/install.py .venv
	@touch $@
