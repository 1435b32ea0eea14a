.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Most tests wait rather than compute, so there are more processes than cores. Tests of one module
# share what they set up, and so a process.
PYTEST := $(BIN)/pytest --dist=loadscope
# Tests have deadlines and builds don't.
BUILD := nice -n 19 $(BIN)/python -m

.PHONY: help demo test check style types layers mirror unit node api page upstream build
.PHONY: build-control-plane build-image build-nodes cluster cluster-down e2e takeover bench bench-scale lock clean

help:                  ## show this list
	@grep -E '^[a-z0-9-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  \1 — /'

demo: $(VENV)/installed ## a sandbox with sample Services, the proxy and its page; Ctrl-C ends it
	@exec $(BIN)/userspace-proxy demo $(if $(PORT),--port=$(PORT))

# The longest first: node computes, upstream waits.
test: ## everything: installs what it needs, checks the form, builds, runs all tests
	@tests/tools/prepare.sh
	@$(MAKE) --no-print-directory $(VENV)/installed-dev
	@$(MAKE) --no-print-directory --jobs=4 --keep-going --output-sync=target \
	  build-control-plane build-image build-nodes check upstream node page api

check: style types layers mirror unit ## all that needs neither root nor a cluster

style: $(VENV)/installed-dev ## format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/installed-dev ## mypy --strict
	$(BIN)/mypy

layers: $(VENV)/installed-dev ## who may import whom (pyproject: tool.importlinter)
	$(BIN)/lint-imports

mirror: $(VENV)/installed-dev ## every module has its test module, and the other way round
	$(BIN)/python tests/tools/mirror.py

unit: $(VENV)/installed-dev ## values in, values out, and sockets on loopback; in its own network namespace
	$(PYTEST) tests/unit -n 4

node: $(VENV)/installed-dev ## real kernel: rules, routes and sockets in namespaces
	$(PYTEST) tests/node tests/faults -n 6

api: build-control-plane $(if $(filter 0,$(shell id -u)),build-image) ## real kube-apiserver and etcd
	$(PYTEST) tests/cluster --ignore=tests/cluster/upstream --ignore=tests/cluster/nodes -n 4

page: $(VENV)/installed-dev ## real Chromium
	$(PYTEST) tests/page

upstream: build-nodes ## whole clusters, and a choice of Kubernetes' own tests on them (minutes, root)
	$(PYTEST) tests/cluster/nodes tests/cluster/upstream --ignore=tests/cluster/nodes/test_takeover.py \
	  -n 3 --dist=load

build: build-control-plane build-image build-nodes ## all programs and images that tests run (ten minutes the first time)

build-control-plane: $(VENV)/installed-dev ## etcd, kube-apiserver, kubectl
	@$(BUILD) tests.cluster.build

build-image: $(VENV)/installed-dev ## the image of our Dockerfile (root)
	@$(BUILD) tests.cluster.image

build-nodes: build-control-plane ## containerd, kubelet, upstream's tests and the images of pods (root)
	@$(BUILD) tests.cluster.nodes build --with-upstream

cluster: $(VENV)/installed-dev ## a whole cluster in namespaces that stays: NODES=3 PROXY=nftables, kubeadm, … (root)
	@PYTHON=$(BIN)/python tests/tools/prepare.sh
	@$(BIN)/python -m tests.cluster.nodes up $(if $(NODES),--nodes=$(NODES)) $(if $(PROXY),--proxy=$(PROXY)) $(if $(CNI),--cni=$(CNI))

cluster-down: $(VENV)/installed-dev ## take it down; nothing is left
	@$(BIN)/python -m tests.cluster.nodes down

e2e: $(VENV)/installed-dev ## Kubernetes' own tests, with both CNIs, writes docs/conformance.md: PROXY=nftables GROUP=services CNI=bridge (two hours, root)
	@PYTHON=$(BIN)/python tests/tools/prepare.sh
	@$(BIN)/python -m tests.cluster.upstream $(if $(PROXY),--proxy=$(PROXY)) $(if $(GROUP),--group=$(GROUP)) $(if $(CNI),--cni=$(CNI))

takeover: build-nodes ## from kube-proxy to us and back while clients connect; prints what it cost (minutes, root)
	@$(BIN)/pytest tests/cluster/nodes/test_takeover.py -s

bench: $(VENV)/installed-dev ## us and peers on the same work, in namespaces; writes docs/benchmarks.md (minutes, root)
	$(BIN)/python -m benchmarks

bench-scale: $(VENV)/installed-dev ## ten thousand Services, by real etcd and kube-apiserver; writes docs/benchmarks-scale.md (minutes, root)
	$(BIN)/python -m benchmarks.scale

lock: $(VENV)/installed-dev ## write the three requirements files anew
	$(BIN)/uv pip compile -q --universal --python-version=3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --extra=build pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version=3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --extra=build --extra=iptables pyproject.toml -o requirements-image.lock
	$(BIN)/uv pip compile -q --universal --python-version=3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --extra=dev pyproject.toml -o requirements-dev.lock

clean: ## remove the virtual environment and what tools left
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist

$(VENV)/installed: requirements.lock pyproject.toml
	@tests/tools/venv.sh $(PYTHON) $(VENV) requirements.lock
	@touch $@

$(VENV)/installed-dev: requirements-dev.lock pyproject.toml
	@tests/tools/venv.sh $(PYTHON) $(VENV) requirements-dev.lock
	@touch $@ $(VENV)/installed
