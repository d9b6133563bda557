# Every target does its own set-up. A bare machine needs Python 3.11 (or newer), git and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
RUN ?= runs/digits

.PHONY: setup check test demo docs picture mutations benchmark clean

setup: .venv/ready  ## .venv with the exact versions of requirements.lock

.venv/ready: requirements.lock requirements-teachers.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-teachers.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

check: setup  ## format, lint, types, direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

JOBS ?= 0

test: setup  ## all tests (JOBS=2: two at a time, for larger machines); the second call is for those that compile or export, without the runtime shape checks
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not untyped"
	DISTIL_UNTYPED=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m untyped

demo: setup  ## a teacher makes a small student better, with the proof, in about two minutes
	$(BIN)/distil run recipes/digits.yaml

docs: setup  ## the documentation as a site, in docs/_build
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build

picture: setup  ## the picture of a report in the README, from a finished run (needs Chromium)
	$(BIN)/python scripts/picture_report.py $(RUN) docs/report.png

mutations: setup  ## breaks the code on purpose, and sees the tests notice
	$(BIN)/python -m pytest tests/faults/test_mutations.py --runxfail -q

benchmark: setup  ## distil's loop against hand-written ones, side by side
	$(BIN)/python benchmarks/step_time.py
	$(BIN)/python benchmarks/memory_flat.py --quick

clean:
	rm -rf .venv docs/_build runs
