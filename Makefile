# Two commands do everything: `make demo` and `make test`. They need Python, pip and a C compiler.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INPUTS := pyproject.toml constraints.txt $(wildcard requirements/*.txt)
# every version and hash is in requirements/; of PyTorch only the version: CPU or CUDA is this machine's choice
LOCKED := $(PIP) install -q --require-hashes --no-deps --use-pep517 -r requirements
TORCH := $(PIP) install -q -c constraints.txt torch
PACKAGE := $(PIP) install -q --no-deps --no-build-isolation -e .

.PHONY: demo quick test test-slow bench torture check docs setup matrix lock licences clean
.DELETE_ON_ERROR:

# DEMO="--size smoke --out runs/smoke" gives other arguments to `avhubert demo`
DEMO ?=

demo: .venv/.run
	$(BIN)/avhubert demo $(DEMO)

# for every edit: style and the tests marked `quick`, under a minute
quick: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m quick

# before a commit: all tests but the long ones, under 10 minutes on 2 cores
test: .venv/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

# the long ones: CI runs them
test-slow: .venv/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

# speed against the published behaviour, for the results page: under 25 minutes on 2 idle cores; ONLY="forward search"
# measures these two
bench: .venv/.bench
	$(BIN)/python benchmarks/run.py $(if $(ONLY),--only $(ONLY)) --record
	$(BIN)/python docs/generate.py

# the campaign of faults in full: hours; PART=kills runs one part, CASES=20 fewer cases; interrupted, it goes on
torture: .venv/.dev
	$(BIN)/python -m tests.faults.campaign $(if $(PART),--part $(PART)) $(if $(CASES),--cases $(CASES))

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the documentation site, in site/
docs: .venv/.docs
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q

setup: .venv/.dev

.venv/bin/python:
	$(PYTHON) -m venv .venv

# what `avhubert demo` uses: the package and the voice for the synthetic corpus
.venv/.run: $(INPUTS) | .venv/bin/python
	$(LOCKED)/run.txt
	$(TORCH)
	$(PACKAGE)
	touch $@

# and what the tests use
.venv/.dev: $(INPUTS) .venv/.run
	$(LOCKED)/dev.txt
	@# KenLM is compiled from C++; without it, tests of n-grams are skipped
	-$(LOCKED)/lm.txt
	touch $@

# and what the baseline of the measurements needs
.venv/.bench: $(INPUTS) .venv/.dev
	$(LOCKED)/bench.txt
	touch $@

# and what the documentation site needs
.venv/.docs: $(INPUTS) | .venv/bin/python
	$(LOCKED)/docs.txt
	$(TORCH)
	$(PACKAGE)
	touch $@

# the quick tests on every Python of this machine, each with the oldest and the newest requirements; hours, several GB.
# MATRIX="--python 3.12 --versions oldest" runs one of them, MATRIX=--old those whose row is of an older state: it also
# continues a run that was interrupted
MATRIX ?=

matrix: .venv/.uv
	$(BIN)/python scripts/matrix.py $(MATRIX)
	$(BIN)/python scripts/matrix.py --wheels

# pins all requirements again; LOCK=--upgrade takes the newest releases
LOCK ?=

lock: .venv/.uv
	$(BIN)/python scripts/lock.py $(LOCK)

# the page of the licences of all requirements
licences: .venv/.dev
	$(BIN)/python scripts/licences.py

.venv/.uv: | .venv/bin/python
	$(PIP) install -q uv
	touch $@

clean:
	rm -rf .venv .matrix runs site .mypy_cache .ruff_cache .pytest_cache .hypothesis
