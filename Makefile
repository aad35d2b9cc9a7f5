# Everything runs in this checkout's own .venv: `make reproduce` and `make test` need Python >= 3.11, make and git.
# Installed once; again only when pyproject.toml or constraints.txt is newer than the installation.

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export OMP_NUM_THREADS ?= 1

PYTHON ?= python3
SCALE ?= paper
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: reproduce test speed lint environment clean

reproduce: $(INSTALLED)
	$(BIN)/leakboard reproduce --scale quick --fresh --out build/here

# Two workers, each with whole files: what one test of a file has computed serves the others.
test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadscope

# What every execution costs, on CUDA where there is one, into results/$(SCALE)/; one run alone: ONLY='lenet and dlg'.
speed: $(INSTALLED)
	$(BIN)/python -m pytest benchmarks/speed --scale $(SCALE) -k '$(ONLY)'

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

environment: $(INSTALLED)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Leakboard needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[pipeline,lpips,cluster,ggl,dp,diffusion,flower,test,dev]'
	@touch $@

# Trained victims and what `leakboard run` wrote stay in build/.
clean:
	rm -rf .venv build/here build/ci .mypy_cache .pytest_cache .ruff_cache src/leakboard.egg-info
