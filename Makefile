# Inside U-Net. `make book` and `make test` are the two commands of the README.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
PROFILE ?=
CHAPTER ?=
NAME ?=
DATASET ?=
SEED ?=
LAB_ARGS ?=
URL ?=
SITE ?=
# Empty: the newest releases instead of those that were tested together.
CONSTRAINTS ?= constraints.txt

bin := $(VENV)/bin
pip = $(bin)/python -m pip install --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) $(PIP_ARGS)
chapters := $(bin)/unet-tutorial chapters
parameters := $(if $(PROFILE),--profile $(PROFILE)) $(if $(DATASET),--dataset $(DATASET)) $(if $(SEED),--seed $(SEED))
gpu_profile := $(or $(PROFILE),gpu)
# A trial must not replace measured results.
gpu_results := $(if $(filter gpu,$(gpu_profile)),book/results/gpu,_build/results)
export JUPYTER_PLATFORM_DIRS := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
# What is imported is compiled once, at its first import; what never is, not at all.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help book site refresh lab test lint unit notebooks package results tables front-end pictures \
        lighthouse gpu-results address constraints clean

help:  ## List all commands
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16
	@echo
	@echo "Options: PROFILE=cpu|gpu|small|smoke  DATASET=isbi2012|membranes  SEED=0  CHAPTER=...  NAME=...  PIP_ARGS=...  PYTHON=python3"
	@echo "         URL=https://github.com/OWNER/NAME  SITE=https://...  CONSTRAINTS= (the newest releases)"

book: $(VENV)/.installed-book  ## Install, run all chapters on this machine, build the site
	@$(chapters) run $(parameters)
	@$(chapters) site --executed _build/executed

site: $(VENV)/.installed-book  ## Build the site from the stored outputs, without running anything
	@$(chapters) site

refresh: $(VENV)/.installed-book  ## Run chapters and renew their stored outputs (CHAPTER=2-bottleneck: one)
	@$(chapters) refresh $(CHAPTER)

lab: $(VENV)/.installed-book  ## Open JupyterLab at the first chapter (CHAPTER=2-bottleneck; LAB_ARGS=--no-browser, --allow-root ...)
	@$(bin)/jupyter lab book/$(or $(CHAPTER),0-context-and-localization).ipynb $(LAB_ARGS)

test: $(VENV)/.installed-test  ## Lint, types, unit tests, doctests, site, every cell of every chapter, the installed package
	@# What needs one core for a short time goes beside what keeps all of them busy.
	@$(MAKE) -j2 lint unit
	@$(MAKE) -j2 notebooks package

lint: $(VENV)/.installed-test  ## Style and types
	@$(bin)/ruff check .
	@$(bin)/ruff format --check .
	@$(bin)/mypy

unit: $(VENV)/.installed-test  ## Unit tests, doctests, the pages of the site
	@# Side by side with one thread each: two trainings of two threads would wait for each other.
	@OMP_NUM_THREADS=1 $(bin)/python -m pytest -n 2 --dist loadfile -q -m "not alone and not package" tests unet_tutorial
	@$(bin)/python -m pytest -q -m alone $$(grep -rl --include="test_*.py" "mark\.alone" tests)

notebooks: $(VENV)/.installed-test  ## Run every chapter and compare its facts with the stored ones
	@# Two chapters side by side, each on half of the cores: most of a chapter has work for one.
	@OMP_NUM_THREADS=$$($(bin)/python -c 'import os; print(max(1, (os.cpu_count() or 2) // 2))') \
		$(bin)/python -m pytest --nbval -n 2 --dist loadfile book

package: $(VENV)/.installed-test  ## Build wheel and sdist; install and try them in an empty environment, as Colab would
	@PIP_ARGS='$(PIP_ARGS)' $(bin)/python -m pytest -q -m package tests/test_packaging.py

results: $(VENV)/.installed-test  ## List what was measured and how (NAME=board: measure it anew; a GPU is used if there is one)
	@if [ -n "$(NAME)" ]; then $(bin)/python scripts/$(NAME).py --out book/results/$(NAME).json $(if $(PROFILE),--profile $(PROFILE)); \
	else $(bin)/unet-tutorial results list; fi

tables: $(VENV)/.installed-book  ## Carry measured numbers from book/results into the tables of README.md
	@$(bin)/unet-tutorial results tables

front-end: $(VENV)/.installed-test  ## Build what the widgets ship from unet_tutorial/widgets/js
	@$(bin)/python unet_tutorial/widgets/_build.py

pictures: $(VENV)/.installed-test  ## Record the moving pictures of README.md in a browser
	@$(bin)/python book/images/record.py

lighthouse: $(VENV)/.installed-test  ## Measure how light the pages are (needs npm and Chromium; installs Lighthouse into _build)
	@[ -x _build/lighthouse/node_modules/.bin/lighthouse ] || \
		npm install --silent --ignore-scripts --no-audit --no-fund --prefix _build/lighthouse lighthouse@12
	@$(bin)/python -m pytest -q -s tests/test_site_light.py -k lighthouse

gpu-results: $(VENV)/.installed-test  ## Run all with profile gpu and write book/results/gpu (PROFILE=smoke: a trial)
	@$(chapters) run --profile $(gpu_profile) --into _build/$(gpu_profile) --force
	@for script in scripts/*.py; do \
		name=$$(basename $$script .py); \
		echo "$$script -> $(gpu_results)/$$name.json"; \
		$(bin)/python $$script --profile $(gpu_profile) --out $(gpu_results)/$$name.json || exit 1; \
	done

address: $(VENV)/.installed-book  ## Carry the repository's address into links, badges, install lines (URL=... SITE=...)
	@$(chapters) address $(if $(URL),'$(URL)') $(if $(SITE),--site '$(SITE)')

constraints: $(VENV)/.installed-test  ## Write down the versions that are installed here
	@echo "# The versions that were tested together, renewed by: make constraints" > constraints.new
	@$(bin)/python -m pip freeze --exclude-editable --all | sed -E 's/\+cpu//; /^(setuptools|wheel)==/d; / @ /d' >> constraints.new
	@mv constraints.new constraints.txt

clean:  ## Remove what was built, not what was downloaded
	rm -rf _build

# pip comes last: an interrupted creation begins again.
$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1); try: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(VENV)/bin/pip
	@echo "Installing unet-tutorial[$*] into $(VENV) (a few minutes the first time)"
	@# A pip as old as Python 3.11's takes twice as long for the rest.
	@$(pip) --quiet --upgrade 'pip>=25'
	@$(pip) $(if $(CI),--quiet) --no-compile -e '.[$*]'
	@touch $@
