# The two commands of the README, and what a developer needs besides.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo demo-all test test-slow test-slurm test-storage lint coverage bench bench-gpu bench-compare docs weights clean

demo: .venv/ready  ## set up, and run the demo study: results/demo/
	snakemake --cores all

demo-all: .venv/ready  ## ten methods on both small networks, 79 minutes of CPU time: results/demo_all/
	snakemake --cores all --configfile workflow/config/demo_all.yaml

test: .venv/ready  ## set up, and run the tests
	pytest -n logical --maxprocesses 4 --dist worksteal

test-slow: .venv/ready  ## kills at random moments, long fuzzing: minutes
	pytest -n logical --maxprocesses 4 --dist worksteal -m slow

test-slurm: .venv/slurm  ## as root, 9 minutes: a study on a one-node SLURM, which is brought up and taken down
	EIL_SLURM=1 pytest tests/cluster

test-storage: .venv/storage  ## studies without a shared disk, through an S3 server here and through rsync: minutes
	pytest -m slow tests/workflow/test_storage.py

lint: .venv/ready
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow
	snakemake --lint

bench: .venv/ready  ## time steps, evaluator, loader and start-up
	pytest tests/benchmarks --benchmark-only --benchmark-enable --benchmark-autosave -p no:xdist

docs: .venv/docs  ## the documentation site, in half a minute: site/
	mkdocs build --strict

weights: .venv/ready  ## train the weights that the small backbones come with, in about four minutes
	snakemake --cores all --configfile workflow/config/pretrain_birds.yaml
	python -m eil.backbones.weights results/pretrain_birds/runs

coverage: .venv/ready  ## simulate how often the intervals cover the truth, in three minutes: results/coverage.md
	python tests/benchmarks/interval_coverage.py --out results
	python tests/benchmarks/chosen_on_val.py --out results

bench-gpu: .venv/ready  ## all about speed on a GPU, in eight minutes (PHOTOS=/path/to/tiny-imagenet-200)
	python tests/benchmarks/gpu.py --out results $(if $(PHOTOS),--photos $(PHOTOS))

bench-compare: .venv/ready  ## the same, held against the last that was saved, as ratios
	pytest tests/benchmarks --benchmark-only --benchmark-enable --benchmark-compare --benchmark-columns=median -p no:xdist

# Rebuilt when what is to be installed changes.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,pretrained,timm]'
	touch $@

.venv/slurm: .venv/ready
	pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[slurm]'
	touch $@

.venv/docs: .venv/ready
	pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

.venv/storage: .venv/ready
	pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[storage,storage-test]'
	touch $@

clean:
	rm -rf .venv site results/demo results/smoke results/data
