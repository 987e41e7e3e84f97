# make help lists the targets. PYTHON is the Python to use (3.10-3.13), VENV
# the environment to make: make test PYTHON=python3.11 VENV=~/venvs/lshfm
# STACK=onedl takes OneDL's forks of OpenMMLab's packages, MMCV=compiled
# compiles mmcv's operators: 7 to 30 minutes, and a C++ compiler. make test
# shows coverage where Python can count lines cheaply, from 3.12 on; COV=--cov
# asks for it elsewhere, and COV= leaves it out.
VENV ?= .venv
PYTHON ?= python3
STACK ?= openmmlab
MMCV ?= torchvision
TASK ?= faster_rcnn
# Of the command line alone, not of the environment.
DATA =
COV ?= $(shell $(PYTHON) -c \
	'import sys; print("--cov" * (sys.version_info >= (3, 12)))')

SHELL := bash
COMPILED := $(if $(filter compiled,$(MMCV)),--compiled)
STAMP := $(VENV)/.installed-$(STACK)-$(MMCV)
# Of what pip says on stdout, what tells how far it is.
BRIEF := awk '/^ *(Downloading|Using cached|Installing)/ \
	{ print substr($$0, 1, 79); fflush() }'

.PHONY: help env test slow gpu lint docs errors demo families mmrazor bench \
	startup scale operators study api clean
.DELETE_ON_ERROR:

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' \
		$(MAKEFILE_LIST)

env: $(STAMP)  ## set up $(VENV): about 6 GB, 2 minutes

# Each step finds what an interrupted run has left, and goes on from there.
$(STAMP): requirements.lock pyproject.toml setup.py \
		$(wildcard lshfm_mm/compat/*.py) \
		$(wildcard lshfm_mm/compat/mmcv_ext/*.py)
	@$(PYTHON) -m lshfm_mm doctor --machine $(COMPILED)
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m lshfm_mm doctor --machine --stack $(STACK)
	@echo '[1/3] packages (5.5 GB once installed)'
	@SECONDS=0; set -o pipefail; PIP_DISABLE_PIP_VERSION_CHECK=1 \
		$(VENV)/bin/python -m pip install --progress-bar off \
		-c requirements.lock -e '.[$(STACK),dev,docs]' | $(BRIEF) \
		&& echo "$$SECONDS s"
	@echo '[2/3] mmcv'
	@SECONDS=0; $(VENV)/bin/python -m lshfm_mm install_mmcv $(COMPILED) \
		&& echo "$$SECONDS s"
	@echo '[3/3] check'
	@SECONDS=0; $(VENV)/bin/python -m lshfm_mm doctor && echo "$$SECONDS s"
	@touch $@

test: env  ## run the fast tests, and show what they leave out
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile $(COV)

slow: env  ## run the slow tests
	$(VENV)/bin/python -m pytest -m slow

gpu: env  ## run the tests of a GPU, write docs/gpu.md
	$(VENV)/bin/python benchmarks/gpu_report.py --out docs/gpu.md

lint: env  ## check style, types and requirements
	$(VENV)/bin/python -m ruff check
	$(VENV)/bin/python -m ruff format --check
	$(VENV)/bin/python -m mypy lshfm_mm
	$(VENV)/bin/python -m pip check

errors: env  ## write docs/errors.md: what is said of wrong inputs
	WRITE_ERRORS=1 $(VENV)/bin/python -m pytest tests/test_bad_inputs.py

demo: env  ## teach a small model; TASK=retinanet|single|multi, DATA=aquarium
	$(VENV)/bin/python tools/demo.py --task $(or $(DATA),$(TASK))

docs: env  ## build the site in build/site; a dead link is an error
	$(VENV)/bin/python -m sphinx -q -W --keep-going -b html -c docs . \
		build/site
	@echo site: build/site/docs/index.html

families: env  ## take configs of all families of mmdet and mmpretrain whole
	$(VENV)/bin/python -m pip install -q -c requirements.lock -e '.[families]'
	$(VENV)/bin/python benchmarks/families

mmrazor: env  ## take MMRazor's own configs all the way, an hour
	WRITE_MMRAZOR=1 $(VENV)/bin/python -m pytest -m '' \
		tests/test_mmrazor_configs.py

bench: env  ## time training steps, write docs/benchmarks.md
	$(VENV)/bin/python benchmarks/step --json docs/benchmarks.json \
		--out docs/benchmarks.md

startup: env  ## seconds to the first step, write docs/startup.md
	$(VENV)/bin/python benchmarks/startup.py --out docs/startup.md

scale: env  ## how what we add grows, write docs/scale.md
	$(VENV)/bin/python benchmarks/scale.py --out docs/scale.md

operators: env  ## mmcv's operators against compiled ones, docs/operators.md
	$(VENV)/bin/python benchmarks/compare_operators --out docs/operators.md

study: env  ## run the study, write docs/results*.md, plots, README.md's
	$(VENV)/bin/python benchmarks/study

api: env  ## write the list of public names, tests/api.txt
	$(VENV)/bin/python -m tests.test_api

clean:  ## remove caches and build products; $(VENV) stays
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache \
		.hypothesis
	find . -path './$(VENV)' -prune -o -name __pycache__ -type d -print0 \
		| xargs -0 rm -rf
