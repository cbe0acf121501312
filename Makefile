# make repro      environment, then the whole pipeline on the bundled data, then the metrics
# make test       environment, then the whole suite
# make check      format, lint, types, import direction
# make notebook   JupyterLab, and in it a copy of docs/outline.ipynb
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Without its files each of the suite's processes would compile the project and the tests anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup repro check test soak notebook

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON) found; try: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

repro: setup
	reprise check
	dvc repro
	reprise metrics

check: setup
	ruff format --check .
	ruff check .
	mypy
	pytest tests/test_imports.py

# Three workers for two cores: some tests wait, and each worker more collects all of them once more.
test: setup
	pytest -n 3 --dist loadfile --no-loadscope-reorder -m 'not soak'

soak: setup
	pytest -m soak

notebook: .venv/bin/jupyter-lab
	cp -n docs/outline.ipynb docs/my_outline.ipynb
	jupyter lab docs/my_outline.ipynb

.venv/bin/jupyter-lab: .venv/.ready
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[notebook]'
	@touch $@
