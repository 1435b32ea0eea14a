.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests start thousands of processes, and each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

# Most tests wait rather than compute, so there are more processes than cores. The tests of a module
# share fixtures, so they run in one process.
PYTEST := tests/tools/pytest.sh
FORM := style types layers mirror form
# Tests have deadlines and builds don't.
BUILD := nice -n 19 $(BIN)/python -m

.PHONY: help demo test check style types layers mirror form unit coverage node api page upstream build
.PHONY: build-control-plane build-promtool build-toxiproxy-cli build-envtest-go build-image build-nodes cluster cluster-down e2e takeover faults bench bench-scale docs lock clean

help:                  ## show this list
	@grep -E '^[a-z0-9-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  \1 — /'

demo: $(VENV)/installed ## start a sandbox with sample Services, the proxy and its page; Ctrl-C stops it
	@exec $(BIN)/userspace-proxy demo $(if $(PORT),--port=$(PORT))

# Two parts at a time, each in several processes: with more, two cores are so busy that deadlines
# pass. The longest parts first: node computes, upstream waits.
test: ## everything: install dependencies, check the style, build, run all tests
	@tests/tools/prepare.sh
	@$(MAKE) --no-print-directory $(VENV)/installed-dev
	@$(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target \
	  build-control-plane build-image build-nodes build-promtool build-toxiproxy-cli build-envtest-go $(FORM) coverage corpus upstream node page api

check: $(FORM) unit corpus ## all checks that need neither root nor a cluster

style: $(VENV)/installed-dev ## check format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/installed-dev ## mypy --strict
	$(BIN)/mypy

layers: $(VENV)/installed-dev ## check which package imports which (pyproject: tool.importlinter)
	$(BIN)/lint-imports

mirror: $(VENV)/installed-dev ## check that each module has a test module, and vice versa
	$(BIN)/python -m tests.tools.mirror

form: $(VENV)/installed-dev ## check sizes, import cycles, background tasks, exceptions, class names
	$(BIN)/python -m tests.tools.form

unit: $(VENV)/installed-dev ## unit tests, in a network namespace with only loopback
	$(PYTEST) unit tests/unit tests/tools -n 4

# Half as much CPU time again as unit, so check runs unit and test runs this.
coverage: export COVERAGE_FILE := $(CURDIR)/.coverage/data
coverage: $(VENV)/installed-dev ## the unit tests, and a check that they cover 95 % of the package, and pure modules completely
	@rm -rf .coverage && mkdir .coverage
	RUN="$(BIN)/coverage run -m pytest" $(PYTEST) unit tests/unit tests/tools -n 4
	$(BIN)/coverage combine --quiet
	$(BIN)/python -m tests.tools.covered

.PHONY: corpus fuzz
corpus: $(VENV)/installed-dev ## replay the corpus of the fuzzer
	$(PYTEST) corpus tests/fuzz -n 2

node: $(VENV)/installed-dev ## tests with a real kernel: rules, routes and sockets in namespaces
	$(PYTEST) node tests/node tests/faults tests/soak tests/reliability --ignore=tests/reliability/test_matrix.py -n 6

api: build-control-plane build-promtool build-toxiproxy-cli build-envtest-go $(if $(filter 0,$(shell id -u)),build-image build-nodes) ## tests with a real kube-apiserver and etcd
	$(PYTEST) api tests/cluster --ignore=tests/cluster/upstream --ignore=tests/cluster/nodes -n 4

page: $(VENV)/installed-dev ## tests with a real Chromium
	$(PYTEST) page tests/page

upstream: build-nodes ## tests with whole clusters, including some of Kubernetes' own tests (minutes, root)
	$(PYTEST) upstream tests/cluster/nodes tests/cluster/upstream --ignore=tests/cluster/nodes/test_takeover.py \
	  -n 3 --dist=load

build: build-control-plane build-image build-nodes build-promtool build-toxiproxy-cli build-envtest-go ## build all programs and images that tests run (ten minutes the first time)

build-control-plane: $(VENV)/installed-dev ## build etcd, kube-apiserver, kubectl
	@$(BUILD) tests.cluster.build

build-promtool: $(VENV)/installed-dev ## build promtool, which tests the alerts in examples/monitoring
	@$(BUILD) tests.cluster.promtool

build-toxiproxy-cli: $(VENV)/installed-dev ## build toxiproxy-cli, a client of toxiproxy in Go
	@$(BUILD) tests.cluster.toxiproxy_cli

build-envtest-go: $(VENV)/installed-dev ## build the tests of examples/envtest-go
	@$(BUILD) tests.cluster.envtest_go

build-image: $(VENV)/installed-dev ## build the image of the Dockerfile (root)
	@$(BUILD) tests.cluster.image

build-nodes: build-control-plane ## build containerd, kubelet, upstream's tests and the pods' images (root)
	@$(BUILD) tests.cluster.nodes build --with-upstream

cluster: $(VENV)/installed-dev ## start a whole cluster in namespaces: NODES=3 PROXY=nftables, nftables-auto, kubeadm, … FAMILIES=ipv4, dual, ipv6 (root)
	@PYTHON=$(BIN)/python tests/tools/prepare.sh
	@$(BIN)/python -m tests.cluster.nodes up $(if $(NODES),--nodes=$(NODES)) $(if $(PROXY),--proxy=$(PROXY)) $(if $(CNI),--cni=$(CNI)) $(if $(FAMILIES),--families=$(FAMILIES))

cluster-down: $(VENV)/installed-dev ## stop that cluster and remove everything it created
	@$(BIN)/python -m tests.cluster.nodes down

e2e: $(VENV)/installed-dev ## run Kubernetes' own tests, write docs/conformance.md: PROXY=nftables-kernel GROUP=services CNI=bridge FAMILIES=ipv6 (three hours, root)
	@PYTHON=$(BIN)/python tests/tools/prepare.sh
	@$(BIN)/python -m tests.cluster.upstream $(if $(PROXY),--proxy=$(PROXY)) $(if $(GROUP),--group=$(GROUP)) $(if $(CNI),--cni=$(CNI)) $(if $(FAMILIES),--families=$(FAMILIES))

takeover: build-nodes ## migrate from kube-proxy and back while clients connect; print the failures (minutes, root)
	@$(BIN)/pytest tests/cluster/nodes/test_takeover.py -s

faults: build-control-plane ## break endpoints, clients, processes, …; write docs/reliability.md: ROWS='endpoint-*' JOBS=2 (minutes, root)
	@$(BIN)/python -m tests.reliability $(if $(ROWS),--rows='$(ROWS)') $(if $(JOBS),--jobs=$(JOBS))

bench: $(VENV)/installed-dev ## compare this proxy with others, in namespaces; write docs/benchmarks.md (minutes, root)
	$(BIN)/python -m benchmarks

bench-scale: $(VENV)/installed-dev ## benchmark ten thousand Services with a real API server; write docs/benchmarks-scale.md (minutes, root)
	$(BIN)/python -m benchmarks.scale

.PHONY: soak
soak: build-nodes ## mixed load beside kube-proxy while everything changes, for SOAK_S=3600 seconds; RATE=250 new connections a second (root)
	$(BIN)/python -m tests.soak $(if $(SOAK_S),--seconds=$(SOAK_S)) $(if $(RATE),--rate=$(RATE))

fuzz: $(VENV)/installed-dev $(VENV)/installed-fuzz ## fuzz all parsers for FUZZ_S=600 seconds in all: TARGETS="yaml http", … (x86-64)
	$(BIN)/python -m tests.fuzz $(if $(FUZZ_S),--seconds=$(FUZZ_S)) $(TARGETS)

docs: $(VENV)/installed-dev ## regenerate what is made from code: tables in docs/, the page made from docs/, the blocking API
	$(BIN)/python -m tests.tools.settings_pages
	$(BIN)/python -m tests.tools.api_pages
	$(BIN)/python -m tests.tools.guide_page
	$(BIN)/python -m tests.tools.blocking_api

lock: $(VENV)/installed-dev ## regenerate the requirements files
	$(BIN)/uv pip compile -q --universal --python-version=3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --extra=build pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version=3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --extra=build --extra=dns --extra=iptables pyproject.toml -o requirements-image.lock
	$(BIN)/uv pip compile -q --universal --python-version=3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --extra=dev pyproject.toml -o requirements-dev.lock
	$(BIN)/uv pip compile -q --universal --python-version=3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --group=fuzz -o requirements-fuzz.lock

clean: ## remove the virtual environment and the tools' caches
	rm -rf $(VENV) .coverage .fuzz .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist

$(VENV)/installed: requirements.lock pyproject.toml
	@tests/tools/venv.sh $(PYTHON) $(VENV) requirements.lock
	@touch $@

$(VENV)/installed-dev: requirements-dev.lock pyproject.toml
	@tests/tools/venv.sh $(PYTHON) $(VENV) requirements-dev.lock
	@touch $@ $(VENV)/installed

$(VENV)/installed-fuzz: requirements-fuzz.lock $(VENV)/installed-dev
	@$(BIN)/python -m pip --quiet --disable-pip-version-check install --require-hashes -r requirements-fuzz.lock
	@touch $@
