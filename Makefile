# `make run` and `make test` are all that a fresh machine with Python 3.11+ and make needs.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH := torch==2.13.0
ARGS ?=
MINUTES ?= 30

.PHONY: run test soak study-report setup docs lint clean

run: .venv/core.done          ## a small paired sweep on the embedded data, and its report
	$(BIN)/python run.py -m +sweeps=first_look $(ARGS)
	$(BIN)/joyful report multirun/first_look

test: .venv/all.done          ## the tests of every change (ARGS="-k name" for some, ARGS="-m quick" for most in a minute)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=20 --durations-min=2 $(ARGS)

soak: .venv/all.done          ## tests that are rare or long, faults at full counts, with new seeds for at least MINUTES
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.support.soak --minutes $(MINUTES) $(ARGS)

study-report: .venv/core.done ## every table and figure of study/RESULTS.md from study/archives/, without training
	$(BIN)/python -m study.report $(ARGS)

setup: .venv/all.done         ## everything: text encoder, launchers, test and benchmark dependencies

docs: .venv/all.done          ## the documentation site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site $(ARGS)

lint: .venv/all.done          ## ruff, mypy, and the links and references of the documentation site
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

# torch comes first and by its pinned version, so that nothing else chooses another build of it
.venv/core.done: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	-$(BIN)/python -m pip uninstall --quiet --yes joyful 2> /dev/null  # version 0.1 had that name
	$(PIP) $(TORCH)
	$(PIP) --constraint constraints.txt --editable '.[train]'
	touch $@

.venv/all.done: .venv/core.done
	$(PIP) --constraint constraints.txt --editable '.[train,text,sweep,lightning,import,tensorboard,mlflow,wandb,notebooks,benchmarks,test,docs,lint]'
	touch $@

clean:
	rm -rf .venv site
