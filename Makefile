.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests start thousands of processes, and each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE
PREPARE := PYTHON='$(PYTHON)' tests/tools/prepare.sh
# Writes once a minute for how long a command has run.
WITH_TIME := '$(PYTHON)' tests/tools/progress.py

# Two processes per core, on two cores. Where tests of a module share costly fixtures, they run in one.
PYTEST := tests/tools/pytest.sh
IN_PARALLEL := -n 4 --dist=worksteal
BY_MODULE := -n 4 --dist=loadscope
FORM := style types layers mirror form litter workflows
NODE_TESTS := tests/node tests/faults
API_TESTS := tests/cluster --ignore=tests/cluster/upstream --ignore=tests/cluster/nodes
BUILD := $(BIN)/python -m
# What runs compiled modules: by themselves, with a real kernel, and as workers of an agent.
COMPILED_TESTS := $(addprefix tests/unit/,dataplane balance facts policy) tests/simulation/test_calls_contract.py \
  $(addprefix tests/node/test_,agent_traffic.py agent_client_addresses.py agent_waiting.py proxy_protocol.py)
REMOVE_COMPILED := find userspace_proxy -name "*.cpython-*.so" -delete
SEED_TESTS := tests/simulation/test_simulation.py
UNIT_TESTS := tests/unit tests/kit tests/tools tests/benchmarks tests/simulation
# Annotations that are read, event loops, command lines, simulated systems, child processes, pytest.
BY_PYTHON := tests/unit/test_*.py $(addprefix tests/unit/,model facts config cli embedding lookup nodes sources/kubernetes) tests/kit
PROJECTS := pyproject.toml kubectl-userspace-proxy/pyproject.toml pytest-userspace-proxy/pyproject.toml
ONE_AT_A_TIME := $(MAKE) --no-print-directory --keep-going

# All targets but those of $(VENV) are names, not files.
.PHONY: $(shell grep -oE '^[a-z0-9-]+:' $(firstword $(MAKEFILE_LIST)) | tr -d : | sort -u)

help:                  ## show this list
	@grep -E '^[a-z0-9-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  \1 — /'

demo: ## start a sandbox with sample Services, the proxy and its page; Ctrl-C stops it
	@echo "make demo: a sandbox with sample Services, the proxy and its page, ready in about 5 s; the first time in about a minute"
	@$(PREPARE) demo
	@$(WITH_TIME) $(MAKE) --no-print-directory --silent $(VENV)/installed
	@exec $(BIN)/userspace-proxy demo $(if $(PORT),--port=$(PORT))

test: ## what a contributor runs before a commit: installs what it needs; form, unit and node tests, API server, page
	@echo "make test: form, unit, node, API server and page tests, one part after another; 6 to 11 minutes on two cores, the first time 9 to 18"
	@$(PREPARE) test build
	@$(WITH_TIME) $(MAKE) --no-print-directory test-parts

# Tests have deadlines, so nothing else runs beside them.
test-parts: # what make test does, with what it needs from Debian
	@$(MAKE) --no-print-directory --jobs=3 packages-test $(VENV)/installed-dev build-control-plane
	@$(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target $(FORM)
	@tests/tools/with_ledger.sh $(ONE_AT_A_TIME) unit corpus node api page

test-all: ## what make test leaves out: coverage, the compiled form, all steerings, containers, whole clusters with upstream's tests (root)
	@echo "make test-all: coverage, the compiled form, long tests, whole clusters; about 25 minutes on two cores, the first time about 45"
	@$(PREPARE) long
	@$(WITH_TIME) $(MAKE) --no-print-directory test-all-parts

test-all-parts: # the same of make test-all
	@$(ONE_AT_A_TIME) $(VENV)/installed-dev build
	@tests/tools/with_ledger.sh $(ONE_AT_A_TIME) coverage compiled-tests long upstream

# Uses the demo, and checks that it leaves nothing behind.
TOUR := 'python3 -m tests.tools.demo_tour'
FRESH := $(BIN)/python -m tests.tools.fresh_roots

fresh: packages-long $(VENV)/installed-dev ## the README's two commands as the first ones on minimal Debian 12, 13 and testing: SUITES=trixie (an hour, root)
	@echo "make fresh: the demo, then make test, in a new root of each Debian; 15 to 30 minutes each on two cores"
	@$(FRESH) $(addprefix --suite=,$(SUITES)) $(TOUR) 'make test'

fresh-short: packages-long $(VENV)/installed-dev ## a part of it for each commit: the demo on Debian 13, and the unit tests that differ by Python there and on testing (root)
	@echo "make fresh-short: the demo in a new root of Debian 13, and unit tests that differ by Python there and on testing; 4 to 7 minutes on two cores"
	@$(FRESH) --suite=trixie $(TOUR) 'make unit-by-python'
	@$(FRESH) --suite=forky 'make unit-by-python'

KERNELS_RUN := $(BIN)/python -m tests.kernels

kernels: packages-kernels $(VENV)/installed-dev ## a smoke and the tests marked kernel in machines with Debian's kernels: KERNELS="5.10 uml-6.1" FULL=1 (all of tests/node) MATRIX=1 (kernels that lack something) (root)
	@echo "make kernels: a smoke and marked tests, two machines at a time; 20 minutes on two cores without KVM, the first time 5 more"
	@$(KERNELS_RUN) $(FULL:%=--parts=smoke,full) $(KERNELS)
	@$(if $(MATRIX),$(KERNELS_RUN).matrix)

kernels-full: # what runs each night
	@$(MAKE) --no-print-directory kernels FULL=1 MATRIX=1

kernels-short: packages-kernels $(VENV)/installed-dev ## a part of it for each commit: the smoke on the oldest and the newest kernel, with one root (root)
	@echo "make kernels-short: the smoke on two kernels; 3 to 6 minutes on two cores"
	@$(KERNELS_RUN) --parts=smoke --root=bookworm 5.10 newest

packages: packages-long ## install all that the tests need from Debian (root), or name what is missing

packages-%: # what a part needs from the distribution
	@$(PREPARE) $*

# The path of a module, or of its test, as that of its test.
MODULE_TO_TEST := sed -E 's,^userspace_proxy/,tests/unit/,; s,^kubectl-.*_kubectl/,tests/unit/,; s,^pytest-.*_testing/,tests/kit/,; s,/(test_)?([^/]*[.]py)$$,/test_\2,'

quick: packages-node $(FORM) ## form and own unit tests of what isn't committed, or of PATHS="userspace_proxy/balance …", in a minute
	@git ls-files --exclude-standard $(or $(PATHS),--modified --others) | $(MODULE_TO_TEST) | sort -u | \
	  grep -E '^tests/(unit|kit|tools)/.*/?test_' | xargs -r ls 2>/dev/null | xargs -r $(BIN)/pytest -q -m "not long" -n 2

check: packages-node $(FORM) unit corpus ## all checks that need neither root nor a cluster

style: $(VENV)/installed-dev ## check format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/installed-dev ## mypy --strict; the examples with mypy and pyright, both strict
	$(BIN)/mypy
	$(BIN)/python -m tests.tools.typed_examples

layers: $(VENV)/installed-dev ## check which package imports which (pyproject: tool.importlinter)
	$(BIN)/lint-imports

mirror: $(VENV)/installed-dev ## check that each module has a test module, and vice versa
	$(BIN)/python -m tests.tools.mirror

form: $(VENV)/installed-dev ## report the largest modules and subpackages; check functions, import cycles, background tasks, exceptions, classes
	$(BIN)/python -m tests.tools.form

litter: $(VENV)/installed-dev ## check that git tracks no ignored and no large file
	$(BIN)/python -m tests.tools.litter

objects: packages-objects ## check that BPF objects are what their sources make, by Debian 12's clang: WRITE=1 replaces them
	$(PYTHON) -m tests.tools.bpf_objects $(if $(WRITE),--write)

workflows: $(VENV)/installed-dev ## lint the workflows, and check that their steps are targets of this file
	$(BIN)/python -m tests.tools.workflows

unit: packages-node $(VENV)/installed-dev build-actionlint ## unit tests, in a network namespace with only loopback
	$(PYTEST) unit $(UNIT_TESTS) -m "not long" --timeout=300 $(IN_PARALLEL)

unit-by-python: packages-node $(VENV)/installed-dev ## those unit tests that a new Python breaks first
	$(PYTEST) unit-by-python $(BY_PYTHON) -m "not long" --timeout=300 $(IN_PARALLEL)

# Two to three times the CPU time of unit, so test runs unit and test-all runs this.
coverage: export COVERAGE_FILE := $(CURDIR)/.coverage/data
# Their processes aren't measured.
coverage: UNIT_TESTS += --ignore=$(SEED_TESTS)
coverage: packages-node $(VENV)/installed-dev build-actionlint ## the unit tests, and a check that they cover 95 % of the package, and pure modules completely
	@rm -rf .coverage && mkdir .coverage
	@# As on other machines, which costs nothing: another locale, day and, with room there, file system.
	@set -e; if [ "$$(df --output=avail /dev/shm | tail -n 1)" -gt 2000000 ]; then \
	  TMPDIR=$$(mktemp -d /dev/shm/XXXXXX); trap 'rm -rf "$$TMPDIR"' EXIT; export TMPDIR; fi; \
	  LC_ALL=C TZ=Pacific/Apia PYTHONWARNINGS=error RUN="$(BIN)/coverage run -m pytest" $(PYTEST) coverage $(UNIT_TESTS) --hypothesis-profile=thorough $(IN_PARALLEL)
	$(BIN)/coverage combine --quiet
	$(BIN)/python -m tests.tools.covered

corpus: $(VENV)/installed-dev ## replay the corpus of the fuzzer
	$(PYTEST) corpus tests/fuzz $(IN_PARALLEL)

node: packages-node $(VENV)/installed-dev ## tests with a real kernel: rules, routes and sockets in namespaces
	$(PYTEST) node $(NODE_TESTS) -m "not long" $(BY_MODULE)

api: packages-test build-control-plane ## tests with a real kube-apiserver and etcd
	$(PYTEST) api $(API_TESTS) -m "not long" $(BY_MODULE)

page: packages-test $(VENV)/installed-dev ## tests with a real Chromium
	$(PYTEST) page tests/page -m "not long" -n 2 --dist=worksteal

long: build ## tests that make test leaves out: other steerings, containers, CoreDNS, promtool, helm, envtest (root)
	$(PYTEST) long $(NODE_TESTS) $(API_TESTS) -m long --ignore=tests/faults/bounds $(BY_MODULE)
	@# Alone, because these limit times.
	$(PYTEST) long-bounds tests/faults/bounds -m long -n 0
	go=$$($(BIN)/python -c 'from tests.cluster.build import find_go; print(find_go())') && \
	  cd benchmarks/goload && GOWORK=off GOTOOLCHAIN=local $$go test -count=1 -vet=all .
	@# Not beside tests that count dials beyond loopback: Chromium asks for routes.
	$(PYTEST) long-page tests/page -m long -n 2 --dist=worksteal

upstream: build-nodes build-helm ## tests with whole clusters, including some of Kubernetes' own tests (minutes, root)
	$(PYTEST) upstream tests/cluster/nodes tests/cluster/upstream \
	  --ignore=tests/cluster/nodes/test_takeover.py -n 3 --dist=load

build: build-control-plane build-image build-nodes build-promtool build-actionlint build-helm build-envtest-go ## build all programs and images that tests run (the first time: 20 minutes)

build-control-plane: $(VENV)/bin/python ## build etcd, kube-apiserver, kubectl
	@$(BUILD) tests.cluster.build

build-promtool: $(VENV)/installed-dev ## build promtool, which tests the alerts in examples/monitoring
	@$(BUILD) tests.cluster.tools promtool

build-actionlint: $(VENV)/installed-dev ## build actionlint, which lints the workflows
	@$(BUILD) tests.cluster.tools actionlint

build-helm: $(VENV)/installed-dev ## build helm, which renders and checks the chart
	@$(BUILD) tests.cluster.tools helm

build-envtest-go: $(VENV)/installed-dev ## build the tests of examples/envtest-go
	@$(BUILD) tests.cluster.tools envtest-go.test

build-image: $(VENV)/installed-dev ## build the image of the Dockerfile, print its sizes (root)
	@$(BUILD) tests.cluster.image

build-nodes: build-control-plane ## build containerd, kubelet, upstream's tests and the pods' images (root)
	@$(BUILD) tests.cluster.nodes build --with-upstream

cluster: $(VENV)/installed-dev ## start a whole cluster in namespaces: NODES=3 PROXY=nftables, nftables-auto, kubeadm, … FAMILIES=ipv4, dual, ipv6 (root)
	@PYTHON=$(BIN)/python tests/tools/prepare.sh long
	@$(BIN)/python -m tests.cluster.nodes up $(if $(NODES),--nodes=$(NODES)) $(if $(PROXY),--proxy=$(PROXY)) $(if $(CNI),--cni=$(CNI)) $(if $(FAMILIES),--families=$(FAMILIES))

cluster-down: $(VENV)/installed-dev ## stop that cluster and remove everything it created
	@$(BIN)/python -m tests.cluster.nodes down

e2e: $(VENV)/installed-dev ## run Kubernetes' own tests, write docs/conformance.md: PROXY=nftables-kernel GROUP=services CNI=bridge FAMILIES=ipv6 (three hours, root)
	@PYTHON=$(BIN)/python tests/tools/prepare.sh long
	@$(BIN)/python -m tests.cluster.upstream $(if $(PROXY),--proxy=$(PROXY)) $(if $(GROUP),--group=$(GROUP)) $(if $(CNI),--cni=$(CNI)) $(if $(FAMILIES),--families=$(FAMILIES))

takeover: build-nodes build-helm ## migrate from kube-proxy and back while clients connect; print the failures (minutes, root)
	@$(BIN)/pytest tests/cluster/nodes/test_takeover.py -s

faults: build-control-plane ## break endpoints, clients, processes, …; write docs/reliability.md: ROWS='endpoint-*' JOBS=2 (minutes, root)
	@$(BIN)/python -m tests.reliability $(if $(ROWS),--rows='$(ROWS)') $(if $(JOBS),--jobs=$(JOBS))

bench: $(VENV)/installed-dev ## compare this proxy with others, in namespaces; print the goals, write docs/benchmarks.md (minutes, root)
	$(BIN)/python -m benchmarks

bench-scale: $(VENV)/installed-dev ## benchmark ten thousand Services with a real API server; write docs/benchmarks-scale.md (minutes, root)
	$(BIN)/python -m benchmarks.scale

bench-nodes: $(VENV)/installed-dev ## measure how a thousand agents are read, with fake ones (a minute)
	$(BIN)/python -m benchmarks.nodes

soak: build-nodes ## mixed load beside kube-proxy while everything changes, for SOAK_S=3600 seconds; an hour writes docs/soak.md; RATE=250 new connections a second (root)
	$(BIN)/python -m tests.soak $(if $(SOAK_S),--seconds=$(SOAK_S)) $(if $(RATE),--rate=$(RATE))

zero: build-control-plane ## scale a workload to zero and back under random load, CYCLES=100 times; fail if a connection is lost (minutes)
	$(BIN)/python -m tests.cluster.resting_cycles $(if $(CYCLES),--cycles=$(CYCLES)) $(if $(SEED),--seed=$(SEED))

fuzz: $(VENV)/installed-dev $(VENV)/installed-fuzz ## fuzz all parsers for FUZZ_S=600 seconds in all: TARGETS="yaml http", … (x86-64); draw new examples
	$(BIN)/python -m tests.fuzz $(if $(FUZZ_S),--seconds=$(FUZZ_S)) $(TARGETS)
	nice -n 19 $(BIN)/pytest tests/unit tests/kit tests/faults tests/fuzz -m hypothesis --hypothesis-profile=explore $(IN_PARALLEL)

HALVES := data node
SIMULATED := $(HOME)/.cache/userspace-proxy/simulation
SIMULATION = $(BIN)/python -m tests.simulation --half=$$half
# Those of a day, above what campaigns and commits run.
OF_TODAY = $$(( $$(date +%s) / 86400 * 100000 ))

simulate: $(VENV)/installed-dev ## simulate the halves with SEEDS=10000 seeds each from FIRST=0 on, with TABLE=1 of what judged, or draw one: HALF=node SEED=7
	@status=0; for half in $(or $(HALF),$(HALVES)); do \
	  $(SIMULATION) $(if $(SEED),--seed=$(SEED),--seeds=$(or $(SEEDS),10000) $(if $(FIRST),--first=$(FIRST)) $(if $(TABLE),--table) --jobs=2) || status=1; done; exit $$status

simulate-new: $(VENV)/installed-dev ## what runs each night: seeds of the day, SEEDS=50000 each; what they find, with diagrams, is in ~/.cache/userspace-proxy/simulation
	@rm -rf $(SIMULATED) && mkdir -p $(SIMULATED)
	@set -o pipefail; status=0; for half in $(or $(HALF),$(HALVES)); do \
	  $(SIMULATION) --seeds=$(or $(SEEDS),50000) --first=$(or $(FIRST),$(OF_TODAY)) --table --jobs=$$(nproc) | tee $(SIMULATED)/$$half.txt || status=1; done; exit $$status

simulate-mutants: $(VENV)/installed-dev ## break a half in one place at a time, and print what finds each: HALF=node COUNT=60 DRAW=1
	@mkdir -p $(SIMULATED); status=0; for half in $(or $(HALF),$(HALVES)); do \
	  $(BIN)/python -m tests.simulation.mutants --half=$$half --out=$(SIMULATED)/mutants-$$half-$(or $(DRAW),0).json $(if $(COUNT),--count=$(COUNT)) $(if $(DRAW),--draw=$(DRAW)) $(if $(SEEDS),--seeds=$(SEEDS)) || status=1; done; exit $$status

docs: $(VENV)/installed-dev ## regenerate what is made from code: tables in docs/, the page made from docs/, the chart's schema
	$(BIN)/python -m tests.tools.generated

dist: $(VENV)/installed-dev ## build all wheels and source distributions of the last commit into dist/, twice, and check them
	@$(BIN)/python -m tests.tools.distributions

sbom: $(VENV)/installed-dev ## write the list of the image's Python packages to dist/, as CycloneDX
	@$(BIN)/python -m tests.tools.sbom

locked-wheels: $(VENV)/installed-dev ## check that each locked package has wheels for x86-64 and arm64 on each Python
	@$(BIN)/python -m tests.tools.locked_wheels

check-version: $(VENV)/installed-dev ## check that TAG=v0.1.0 is of this version, and that the CHANGELOG has its notes
	@$(BIN)/python -m tests.tools.notes --tag="$$TAG" >/dev/null

release-check: packages $(if $(TAG),check-version) dist sbom locked-wheels chart site workflows build-image ## all that a tag does but uploading, for the last commit: TAG=v0.1.0 (root)

notes: $(VENV)/installed-dev ## print what the CHANGELOG says about a version: VERSION=0.1.0
	@$(BIN)/python -m tests.tools.notes $(VERSION)

release-notes: $(VENV)/installed-dev ## check that TAG=v0.1.0 is of this version, write its notes to dist/notes.md, with links to the tag
	@mkdir -p dist
	@$(BIN)/python -m tests.tools.notes --tag="$$TAG" > dist/notes.md

manifests: build-helm ## render examples/deploy from the chart
	@$(BUILD) tests.cluster.chart

site: $(VENV)/installed-dev $(VENV)/installed-site ## build the site from docs/ into site/; dead links and anchors fail (SITE_URL=URL: where it will be)
	$(BIN)/python -m tests.tools.site

recording: $(VENV)/installed-dev $(VENV)/installed-site ## record the demo's page with Chromium, write docs/images/demo.webp
	$(BIN)/python -m tests.page.recording

release-variables: ## check that the environment has the variables of a release, which .github/actionlint.yaml lists
	@for name in $$(sed -n 's/^  - \([A-Z_]*\) .*/\1/p' .github/actionlint.yaml); do \
	  [ -n "$${!name}" ] || { echo "error: the repository's variable $$name isn't set" >&2; exit 1; }; done

chart: $(VENV)/bin/python ## package the chart into dist
	@$(BUILD) tests.cluster.chart_package package

push-chart: $(VENV)/bin/python ## push dist's chart with docker's login: CHARTS=oci://HOST/FOLDER
	@$(BUILD) tests.cluster.chart_package push "$$CHARTS"

lock: $(VENV)/installed-dev ## regenerate the requirements files
	$(BIN)/uv pip compile -q --universal --python-version=3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --extra=build pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version=3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --extra=build --extra=iptables pyproject.toml -o requirements-image.lock
	$(BIN)/uv pip compile -q --universal --python-version=3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --extra=dev pyproject.toml -o requirements-dev.lock
	$(BIN)/uv pip compile -q --universal --python-version=3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --group=compile -o requirements-compile.lock
	$(BIN)/uv pip compile -q --universal --python-version=3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --group=fuzz -o requirements-fuzz.lock
	$(BIN)/uv pip compile -q --universal --python-version=3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --constraints=requirements-dev.lock --group=site -o requirements-site.lock

compiled: $(VENV)/installed-compile ## compile the data plane in place, as the image does; make pure undoes it
	@image/compile.sh $(BIN)/python . .

pure: # remove the compiled modules
	@$(REMOVE_COMPILED)

compiled-tests: packages-node compiled ## tests of the data plane in its compiled form, with unit tests of what it calls
	@trap '$(REMOVE_COMPILED)' EXIT; \
	  $(PYTEST) compiled $(COMPILED_TESTS) -k "not simulated" -m "not long and not pure" --timeout=300 $(BY_MODULE)

clean: pure ## remove the virtual environment, compiled modules and the tools' caches
	rm -rf $(VENV) .coverage .fuzz .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist site

$(VENV)/bin/python:
	@tests/tools/venv.sh '$(PYTHON)' $(VENV)

$(VENV)/installed: requirements.lock $(PROJECTS) | $(VENV)/bin/python
	@tests/tools/venv.sh '$(PYTHON)' $(VENV) requirements.lock
	@touch $@

$(VENV)/installed-dev: requirements-dev.lock $(PROJECTS) | $(VENV)/bin/python
	@tests/tools/venv.sh '$(PYTHON)' $(VENV) requirements-dev.lock
	@touch $@ $(VENV)/installed

$(VENV)/installed-compile $(VENV)/installed-fuzz $(VENV)/installed-site: $(VENV)/installed-%: requirements-%.lock $(VENV)/installed-dev
	@$(BIN)/python -m pip --quiet --disable-pip-version-check install --require-hashes -r $<
	@touch $@
