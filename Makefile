# Every target sets up what it needs; none needs another one first. Bare `make` lists them.

PYTHON ?= $(or $(shell command -v python3.11),$(shell command -v python3),python3.11)
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
RUNS   ?= runs/demo
WORKERS ?= logical
TESTS  := PYTHONDONTWRITEBYTECODE= HF_HUB_OFFLINE=1 WANDB_MODE=offline OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
RECORDS ?= 10000 20000
KILLS   ?= 200
DAMAGES ?= 60
ERRNOS  ?= 10

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all lint hooks prose notebooks wheel-check paper-tables curves agreement site bench-tables calibration pretrain pretrain-check clean soak bench bench-check gpu-check

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 18

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11 or later, or give PYTHON=…"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(READY) ## the virtual environment, which every other target makes too

demo: $(READY) ## a first look: the toybox fine-tuned in three arms, what they showed, and a page (11 to 19 minutes on 2 cores)
	$(BIN)/python -m bayesdiff.demo --runs $(RUNS)

test: $(READY) ## the tests, offline, on the CPU, one worker a core (WORKERS=1: one)
	$(TESTS)

test-all: $(READY) ## also the slow tests
	$(TESTS) -m 'not gpu'

soak: $(READY) ## kill, starve and damage a small study, and compare what it ends as (KILLS=200 DAMAGES=60 ERRNOS=10)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak --kills $(KILLS) --damages $(DAMAGES) --errnos $(ERRNOS)

lint: $(READY) ## ruff, mypy --strict, codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	git ls-files -z | xargs -0 $(BIN)/codespell

hooks: $(READY) ## run the linters before each commit
	$(BIN)/pre-commit install

prose: ## how long the sentences of README, docs and results pages are
	@$(PYTHON) tests/prose.py

notebooks: $(READY) ## run the notebooks again, in place
	$(BIN)/jupyter execute --inplace --NotebookClient.record_timing=False notebooks/*.ipynb

wheel-check: $(READY) ## build the wheel, install it elsewhere, run its commands
	$(BIN)/python tests/wheel_check.py

paper-tables: $(READY) ## tables, figures and the page of claims, from the records in results/
	$(BIN)/python -m bayesdiff.tables results/toybox
	$(BIN)/python -m bayesdiff.claims results/toybox
	$(BIN)/python -m bayesdiff.tables results/wide
	$(BIN)/python -m bayesdiff.studies.bases results/toybox results/wide

curves: $(READY) ## the verdict on public curves of others, and what such curves could show
	$(BIN)/python -m bayesdiff.studies.public_curves results/curves

agreement: $(READY) ## the labels of checkpoints beside those of a blind rater
	$(BIN)/python -m bayesdiff.studies.blind results/toybox

bench-tables: $(READY) ## how tables grow with records: time and memory of 10,000 and 20,000 made ones (RECORDS="10000 20000")
	$(BIN)/python -m tests.bench_tables $(RECORDS)

site: $(READY) ## pages of the committed records: results/toybox/site/index.html, and one file a study (not committed)
	$(BIN)/python -m bayesdiff.report results/toybox
bench: $(READY) ## speed as ratios on one thread, written to results/bench/cpu.json (5 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench

bench-check: $(READY) ## the same ratios against the committed ones: fails where one grew beyond its spread
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench --check

gpu-check: $(READY) ## on a GPU: its tests, then time and memory at Stable Diffusion's size, to results/gpu/CARD.json (8 minutes)
	PYTHONPATH=tests $(BIN)/python -m tests.gpu_check

calibration: $(READY) ## error rates and power of the verdict, by simulation
	$(BIN)/python -m bayesdiff.calibration experiments/detector_calibration.yaml

pretrain: $(READY) ## retrain every part of the toybox from nothing (hours; resumable)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,pretrain]'
	for part in autoencoder dino clip denoiser; do $(BIN)/python -m bayesdiff.pretraining.$$part || exit 1; done

pretrain-check: $(READY) ## measure the shipped toybox weights against their bars
	$(BIN)/python -m bayesdiff.pretraining.check

clean: ## remove caches (not runs, not the virtual environment)
	rm -rf .pytest_cache .ruff_cache .mypy_cache build dist
	find bayesdiff tests -name __pycache__ -type d -exec rm -rf {} +
