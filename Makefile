# `make demo` runs the whole chain on this machine, `make test` checks and tests it; both install what they need.

# The first Python that is new enough; another one:  make PYTHON=/path/to/python
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := .venv/installed
LLAMA := $(shell sed -n 's/^llama-cpp-python==//p' constraints.txt)
TORCH := $(shell grep '^torch==' constraints.txt)
LLAMA_CMAKE ?= -DCMAKE_C_FLAGS=-U__AMX_INT8__ -DCMAKE_CXX_FLAGS=-U__AMX_INT8__
# pip before 25.1 cannot install a dependency group, so the names are read from the one place that has them.
DEV = $(shell $(PYTHON) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['dependency-groups']['dev'])")

.DEFAULT_GOAL := help
.PHONY: help venv demo test check test-slow test-gpu test-newest bench-startup bench-export bench-training bench-decoding bench-serving bench-decomposers bench-replication bench-peers base model clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(INSTALLED)  ## install everything into .venv (again when constraints.txt or pyproject.toml change)

$(INSTALLED): constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "edgedc needs Python 3.11 or later: make PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "== 1 of 2: torch, alone and at exactly one version (about a minute)"
	@# A range, or letting another package ask for torch, would take several GB of CUDA packages on Linux.
	$(PIP) install --quiet "$(TORCH)"
	@if $(PIP) cache list llama_cpp_python 2>/dev/null | grep -q 'llama_cpp_python-$(LLAMA)-'; then \
		echo "== 2 of 2: everything else (about a minute); llama-cpp-python is taken from pip's cache"; \
	else \
		echo "== 2 of 2: everything else. llama-cpp-python $(LLAMA) is compiled from source once: about 4 minutes on"; \
		echo "   2 cores, with nothing on the screen meanwhile. The wheel stays in pip's cache for the next time."; \
	fi
	@# Without llama.cpp's AMX kernels, which crash when GCC has compiled them (see edgedc/backends/llamacpp.py).
	CMAKE_ARGS="$(LLAMA_CMAKE)" $(PIP) install --quiet -c constraints.txt -e '.[all]' $(DEV)
	@touch $@

demo: $(INSTALLED)  ## the main job, offline: teach, train, export, decompose, pair, bench
	$(BIN)/edgedc demo

check: $(INSTALLED)  ## lint, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: check  ## check, then the default tests
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-slow: $(INSTALLED)  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

test-gpu: $(INSTALLED)  ## training, and graphs for CUDA, on an NVIDIA GPU
	$(BIN)/python -m pytest -m gpu -rs

test-newest:  ## the tests with the newest packages (transformers 5, without optimum), in a folder of their own
	test -x build/newest/bin/python || $(PYTHON) -m venv build/newest
	build/newest/bin/python -m pip --disable-pip-version-check install --quiet "$(TORCH)"
	CMAKE_ARGS="$(LLAMA_CMAKE)" build/newest/bin/python -m pip --disable-pip-version-check install --quiet --upgrade \
		--upgrade-strategy eager -e '.[export,serve,hub,qlora]' $(DEV) "$(TORCH)"
	build/newest/bin/python -m pytest -m "not gpu and (not slow or oracle)" -o cache_dir=build/newest/cache

bench-startup: $(INSTALLED)  ## how fast `edgedc --help` starts, against click alone
	$(BIN)/python benchmarks/startup.py

bench-export: $(INSTALLED)  ## wall time and memory of a GGUF export, against llama.cpp's own converter: some minutes
	$(BIN)/python benchmarks/export_speed.py

bench-training: $(INSTALLED)  ## tokens/s and memory of training, against plain transformers (and TRL where installed): some minutes
	$(BIN)/python benchmarks/training_speed.py

bench-decoding: $(INSTALLED)  ## tokens/s, questions/s and memory of a decomposer, against the engines below it: some minutes
	$(BIN)/python benchmarks/decoding_speed.py

bench-serving: $(INSTALLED)  ## questions/s through `edgedc serve`, by 1, 4 and 16 clients, against the decomposer behind it: some minutes
	$(BIN)/python benchmarks/serving_speed.py

bench-decomposers: $(INSTALLED)  ## recorded decomposers on GSM8K, by the measures of edgedc/bench/decompositions.py
	$(BIN)/python benchmarks/box_model.py

bench-peers: $(INSTALLED)  ## edgedc against what one would write instead: a minute or two
	$(BIN)/python benchmarks/peers.py

bench-replication: $(INSTALLED)  ## the paper in miniature: students really trained, teacher and solver simulated: about an hour; resumes
	$(BIN)/python -m benchmarks.replication

base: $(INSTALLED)  ## pre-train the demo's base model again: 75 minutes on one core; resumes
	$(BIN)/python -m train.documents build/demo-base.jsonl 150000
	$(BIN)/edgedc train --from-scratch tiny --epochs 1 --batch-size 16 --checkpoint-every 1000 --threads 1 \
		build/demo-base.jsonl edgedc/models/demo-base

# Socratic GSM8K and StrategyQA, as their authors publish them.
DATA ?= $(or $(EDGEDC_DATA),../shared/data)
REAL := --gsm8k $(DATA)/gsm8k/train_socratic.jsonl --strategyqa $(DATA)/strategyqa/train.json

model: $(INSTALLED)  ## make a decomposer from $(DATA), the model named default: two and a quarter hours on one core; resumes
	$(BIN)/python -m train.corpus build/base.jsonl --count 95000 --seed 1 $(REAL) --gsm8k-share 0.55 --strategyqa-share 0.08 \
		--hops-share 0.05 --microworld-share 0.05 --worked-share 0.1 --reworded-share 0.6 --document-share 0.4
	test -d build/box-base || $(BIN)/edgedc train --recipe box-base build/base.jsonl build/box-base
	$(BIN)/python -m train.corpus build/middle.jsonl --count 150000 --seed 3 $(REAL) --gsm8k-share 0.65 --strategyqa-share 0.12 \
		--hops-share 0.04 --microworld-share 0.04 --worked-share 0.03 --reworded-share 0.4 --document-share 0.15
	test -d build/box || $(BIN)/edgedc train --recipe box build/middle.jsonl build/box
	$(BIN)/python -m train.corpus build/check.jsonl --count 300 --seed 9 --hops-share 0.1 --microworld-share 0.1 --worked-share 0
	$(BIN)/edgedc export --recipe box --prompts build/check.jsonl build/box build/box-bundle
	rm -rf edgedc/models/default edgedc/models/default-weights
	cp -r build/box-bundle edgedc/models/default && cp -r build/box edgedc/models/default-weights
	$(BIN)/python benchmarks/box_model.py --card --model edgedc/models/default --data $(DATA)

clean:  ## remove .venv, caches and what was built
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
