# TaskFlow: `make` without a target prints this help. Every target installs what it needs; later runs are fast.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: attack bench-tenants pin-images pin-uv fuzz-rest bench-jobs bench-arrays images kind-up kind-down test-chart e2e model chaos chaos-all chaos-long gen bench bench-rest bench-rollout bench-pages bench-sse bench-scale bench-scaling bench-rules bench-schedules bench-flush bench-fairness bench-retention bench-start bench-templates help demo up down status test test-unit test-contract test-integration test-e2e lint fmt setup programs clean

UV_VERSION := $(shell sed -n 's/^uv==\([^ ]*\).*/\1/p' tools/uv.txt)
UV := $(shell command -v uv 2>/dev/null || echo .bootstrap/bin/uv)
BIN := .venv/bin
BUILDER := docker
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
PYTEST := $(BIN)/python -m pytest
# Much of a test's time is waiting: more processes than cores.
WORKERS := 4
SHARED := $(PYTEST) -n $(WORKERS)
# Runs these folders, then the check of the rights that all the stacks of tests/e2e used.
define WITH_RIGHTS
logs=$$(mktemp -d); trap "rm -rf $$logs" EXIT; export AUDIT_LOGS=$$logs; \
$(SHARED) $(1); $(PYTEST) tests/e2e/test_rights.py
endef

help: ## print this help
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Try it
demo: setup ## run real Tasks through the whole product and show the results; KEEP=1 leaves it running
	@$(BIN)/taskflow-local demo $(if $(KEEP),--keep)

up: setup ## start TaskFlow on this machine: etcd, kube-apiserver, Redis, PostgreSQL, MinIO, operator, API
	@$(BIN)/taskflow-local up

down: setup ## stop TaskFlow on this machine
	@$(BIN)/taskflow-local down

status: setup ## show the state of each component
	@$(BIN)/taskflow-local status

##@ Check it
test: setup programs ## all tests: unit, contract, integration, end to end (a quarter of an hour); WORKERS=4 processes
	@$(call WITH_RIGHTS,tests)

test-unit: setup ## tests without sockets (a minute)
	@$(SHARED) tests/unit

test-contract: setup programs ## contract tests of each port against each real server
	@$(PYTEST) tests/contract

test-integration: setup programs ## tests of single parts on real servers
	@$(SHARED) tests/integration

test-e2e: setup programs ## end-to-end tests of the whole product through kubectl
	@$(call WITH_RIGHTS,tests/e2e)

test-chart: setup programs ## tests of the Helm chart: rendering, refusals, security, alerts, a real API server
	@$(SHARED) tests/chart

e2e: setup ## install, use, upgrade and remove the chart in the cluster of KUBECONFIG_E2E, or in a new kind cluster
	@if [ -n "$${KUBECONFIG_E2E:-}" ]; then $(PYTEST) -s tests/cluster; else kind/run; fi

lint: setup ## formatting, style, types, imports, sizes, CRDs against models
	@echo "ruff"; $(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "mypy"; $(BIN)/mypy
	@echo "import-linter"; $(BIN)/lint-imports --no-cache
	@echo "sizes"; $(BIN)/python tools/check_sizes.py
	@echo "generated pages"; $(BIN)/python tools/gen_pages.py --check
	@echo "CRDs against models"; $(PYTEST) -q -p no:cacheprovider tests/unit/taskflow_core/domain/test_crd_matches_models.py

bench: setup programs ## latency, throughput, CPU and memory against a floor of the same run (5 minutes); N=1000 Tasks per round
	@$(BIN)/python -m bench

bench-arrays: setup programs ## a million items in one Task against plain Celery chunks (2 minutes); N=1000000 ROUNDS=3
	@$(BIN)/python -m bench.arrays

bench-scaling: setup programs ## a burst from zero to ten pods and back, against KEDA-like rules (7 minutes); N=2000 Tasks
	@$(BIN)/python -m bench.scaling

bench-flush: setup programs ## time from FLUSHALL until 2,000 open Tasks are queued again (2 minutes); N=2000
	@$(BIN)/python -m bench.flush

bench-fairness: setup programs ## effect of N=50000 queued Tasks of one namespace on another namespace (8 minutes)
	@$(BIN)/python -m bench.fairness

bench-tenants: setup programs ## what 1, 100 and 1,000 namespaces cost, idle and with an open Task each (8 minutes); SIZES=1,100
	@$(BIN)/python -m bench.tenants

bench-retention: setup programs ## effect of deleting N=100000 finished Tasks on running Tasks (25 minutes)
	@$(BIN)/python -m bench.retention

bench-start: setup programs ## time from exec of a cold worker to its first handler (2 minutes); ROUNDS=7
	@$(BIN)/python -m bench.start

bench-templates: setup programs ## what TaskTemplates cost the API server, and how it answers hostile payloads (2 minutes)
	@$(BIN)/python -m bench.templates

bench-rules: setup ## simulation of our scaling rule against KEDA with an HPA (seconds); SEED=1
	@$(BIN)/python -m bench.rules

bench-schedules: setup programs ## memory and CPU of N=10000 schedules, and the delay of DUE=1000 ticks in one second (5 minutes)
	@$(BIN)/python -m bench.schedules

bench-pages: setup programs ## latency of a history page among 1,000 and among N=100000 Tasks (2 minutes)
	@$(BIN)/python -m bench.pages

bench-rest: setup programs ## reads and creates through REST against bare FastAPI and the API server itself (2 minutes)
	@$(BIN)/python -m bench.rest

bench-sse: setup programs ## latency of changes sent to N=1000 listeners (2 minutes)
	@$(BIN)/python -m bench.sse

bench-rollout: setup programs ## a rollout of a pool under 500 running Tasks (2 minutes); fails if a Task fails
	@$(BIN)/python -m bench.rollout

bench-scale: setup programs ## effect of 1,000 to 100,000 open Tasks on other Tasks (25 minutes); SIZES=0,1000,10000
	@$(BIN)/python -m bench.scale

bench-jobs: setup ## a Task against a Job, one pod each, in the cluster of KUBECONFIG; NAMESPACE=default has a pool, N=20 (2 minutes)
	@$(BIN)/python -m bench.jobs

fuzz-rest: setup programs ## N=20000 valid and invalid requests, generated from the OpenAPI document, to a running API (5 minutes); SEED=1
	@$(BIN)/python -m tests.rest_fuzz $(or $(N),20000) $(SEED)

model: setup ## check all states of the protocol model with four faults at once, about a million (4 minutes)
	@$(BIN)/python -m tests.model

chaos: setup programs ## inject two faults into each part while Tasks run; FAULTS=a,b SEED=1 choose the faults (5 minutes)
	@$(BIN)/python -m tests.chaos $(if $(FAULTS),--faults $(FAULTS),--sample 2) $(if $(SEED),--seed $(SEED))

chaos-all: setup programs ## inject every fault once (15 minutes); SEED=1
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED))

chaos-long: setup programs ## inject faults into all parts in parallel, 42 per 2,500 of N=20000 Tasks (40 minutes); SEED=1
	@$(BIN)/python -m tests.chaos --rounds 0 --mixed $(or $(N),20000) --rate 20 --strikes 6 --rest 20 $(if $(SEED),--seed $(SEED))

attack: setup programs ## ten minutes of random commands with the login of a hostile worker, beside another tenant; SECONDS=600 SEED=1
	@$(BIN)/python -m tests.attack --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

gen: setup ## regenerate the reference pages and parts of the chart
	@$(BIN)/python tools/gen_pages.py

fmt: setup ## format the code and apply automatic fixes
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

##@ Install it
images: ## build the images with Docker; BUILDER=podman, REGISTRY=registry.example.com/team
	@for target in operator api worker minio; do \
	  echo "$(REGISTRY)$(if $(REGISTRY),/)taskflow-$$target:$(VERSION)"; \
	  $(BUILDER) build --quiet --target $$target --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) \
	    --tag "$(REGISTRY)$(if $(REGISTRY),/)taskflow-$$target:$(VERSION)" . || exit 1; \
	done

pin-images: ## write base-images.lock: the digests of the base images, from their registries; needs Docker. Review and commit it
	@python3 tools/base_images.py pin

pin-uv: setup ## write tools/uv.txt: the version UV_VERSION of uv and the hashes of its wheels
	@{ head -1 tools/uv.txt; echo "uv==$(UV_VERSION)" | $(UV) pip compile --quiet --generate-hashes --no-header --no-annotate -; } > tools/uv.txt.new
	@mv tools/uv.txt.new tools/uv.txt

kind-up: ## create a cluster of one node with kind
	@kind create cluster --config kind/cluster.yaml

kind-down: ## delete the kind cluster
	@kind delete cluster --name taskflow

##@ Set it up
setup: .venv/.synced ## install the Python packages from the lock file into .venv

programs: setup ## find, download or build the servers for tests and local mode (once, at most 15 minutes)
	@$(BIN)/python -m taskflow_local.programs
	@$(BIN)/python -m taskflow_local.programs versitygw promtool helm helm4 actionlint kube-score

clean: ## remove .venv and tool caches; built programs stay in the user's cache
	rm -rf .venv .bootstrap .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/.synced: pyproject.toml uv.lock | $(if $(findstring .bootstrap,$(UV)),.bootstrap/bin/uv)
	@echo "installing Python packages into .venv (half a minute the first time)"
	@$(UV) sync --quiet --frozen --all-extras
	@touch $@

.bootstrap/bin/uv: | tools/uv.txt
	@echo "installing uv $(UV_VERSION) into .bootstrap"
	@python3 -m venv .bootstrap
	@.bootstrap/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r tools/uv.txt
