.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test check style types layers mirror unit node api page upstream cluster cluster-down e2e takeover bench bench-scale lock clean

help:                  ## show this list
	@grep -E '^[a-z0-9-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  \1 — /'

demo: $(VENV)/installed ## a sandbox with sample Services, the proxy and its page; Ctrl-C ends it
	@exec $(BIN)/userspace-proxy demo $(if $(PORT),--port=$(PORT))

test: ## everything: installs what it needs, checks the form, runs all tests
	@tests/tools/prepare.sh
	@$(MAKE) --no-print-directory check node api page upstream

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

unit: $(VENV)/installed-dev ## values in, values out, and sockets on loopback
	$(BIN)/pytest tests/unit

node: $(VENV)/installed-dev ## real kernel: rules, routes and sockets in namespaces
	$(BIN)/pytest tests/node tests/faults

api: $(VENV)/installed-dev ## real kube-apiserver and etcd
	$(BIN)/pytest tests/cluster --ignore=tests/cluster/upstream --ignore=tests/cluster/nodes/test_takeover.py

page: $(VENV)/installed-dev ## real Chromium
	$(BIN)/pytest tests/page

upstream: $(VENV)/installed-dev ## a choice of Kubernetes' own tests on a whole cluster (minutes, root)
	$(BIN)/pytest tests/cluster/upstream

cluster: $(VENV)/installed-dev ## a whole cluster in namespaces that stays: NODES=3 PROXY=nftables, kubeadm, … (root)
	@PYTHON=$(BIN)/python tests/tools/prepare.sh
	@$(BIN)/python -m tests.cluster.nodes up $(if $(NODES),--nodes=$(NODES)) $(if $(PROXY),--proxy=$(PROXY)) $(if $(CNI),--cni=$(CNI))

cluster-down: $(VENV)/installed-dev ## take it down; nothing is left
	@$(BIN)/python -m tests.cluster.nodes down

e2e: $(VENV)/installed-dev ## Kubernetes' own tests, writes docs/conformance.md: PROXY=nftables GROUP=services (an hour, root)
	@PYTHON=$(BIN)/python tests/tools/prepare.sh
	@$(BIN)/python -m tests.cluster.upstream $(if $(PROXY),--proxy=$(PROXY)) $(if $(GROUP),--group=$(GROUP))

takeover: $(VENV)/installed-dev ## from kube-proxy to us and back while clients connect; prints what it cost (minutes, root)
	@PYTHON=$(BIN)/python tests/tools/prepare.sh
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
