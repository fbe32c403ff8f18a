# Hebb's tasks. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

TRIPLE ?= $(shell uname -m)-unknown-linux-musl
export CARGO_TARGET_DIR ?= $(CURDIR)/target
BIN := $(CARGO_TARGET_DIR)/$(TRIPLE)/release
# One profile, one target and the whole workspace for image, tests and demo: every dependency is compiled once.
CARGO_FLAGS := --release --locked --target $(TRIPLE) --workspace

.PHONY: help
help: ## List the tasks
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 20

.PHONY: demo
demo: cluster-install ## Try Hebb on a real Kubernetes: sets up everything, streams real data, kills parts of it on the way
	@data=$$(e2e/data/fetch.sh); source e2e/cluster/env.sh; $$HEBB_IN_NODE $(BIN)/demo --data "$$data"

.PHONY: test
test: lint test-unit test-e2e ## Every test: lints, unit and property tests, API server, real cluster
	@echo "every test passed"

.PHONY: lint
lint: toolchain ## Formatting, lints, documentation
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --all-targets --quiet

.PHONY: test-unit
test-unit: toolchain ## Unit and property tests, the store against a real Redis, definitions and crashes against a real API server
	e2e/cluster/packages.sh redis-server alert control-plane
	e2e/cluster/binaries.sh api >/dev/null
	e2e/chart.sh
	e2e/manifests.sh
	cd e2e/gitops && go test ./...
	cargo test $(CARGO_FLAGS)

# They need the cluster, so that a plain `cargo test` passes them over. `permissions` judges what the others have left in
# the audit log.
# Encrypted Redis takes minutes more: `make test-redis` has it, of every kind.
E2E_SKIP := --skip an_encrypted
E2E_TESTS := --test cluster --test day_two --test alerts --test redis --test network --test backup
.PHONY: test-e2e
test-e2e: cluster-install ## Tests on the real cluster: kills, drift, silence, deletion
	cargo test $(CARGO_FLAGS) $(E2E_TESTS) --test permissions --no-run --quiet
	@data=$$(e2e/data/fetch.sh); source e2e/cluster/env.sh; export HEBB_E2E_DATA=$$data; \
	  for tests in "$(E2E_TESTS)" "--test permissions"; do \
	    $$HEBB_IN_NODE "$$(command -v cargo)" test --offline $(CARGO_FLAGS) $$tests -- --ignored --nocapture --test-threads=1 $(E2E_SKIP); \
	  done

.PHONY: test-redis
test-redis: cluster-install ## Every kind of Redis on the real cluster, each in the clear and encrypted
	cargo test $(CARGO_FLAGS) --test redis --no-run --quiet
	@data=$$(e2e/data/fetch.sh); source e2e/cluster/env.sh; export HEBB_E2E_DATA=$$data; \
	  $$HEBB_IN_NODE "$$(command -v cargo)" test --offline $(CARGO_FLAGS) --test redis -- --ignored --nocapture --test-threads=1

.PHONY: test-hpa
test-hpa: cluster-install ## Workers scaled by a HorizontalPodAutoscaler with a real metrics-server
	e2e/cluster/metrics.sh
	cargo test $(CARGO_FLAGS) --test hpa --no-run --quiet
	@data=$$(e2e/data/fetch.sh); source e2e/cluster/env.sh; export HEBB_E2E_DATA=$$data; \
	  $$HEBB_IN_NODE "$$(command -v cargo)" test --offline $(CARGO_FLAGS) --test hpa -- --ignored --nocapture

.PHONY: test-certificates
test-certificates: cluster-install ## Redis encrypted by certificates of a real cert-manager
	e2e/cluster/cert-manager.sh up
	cargo test $(CARGO_FLAGS) --test certificates --no-run --quiet
	@data=$$(e2e/data/fetch.sh); source e2e/cluster/env.sh; export HEBB_E2E_DATA=$$data; \
	  $$HEBB_IN_NODE "$$(command -v cargo)" test --offline $(CARGO_FLAGS) --test certificates -- --ignored --nocapture --test-threads=1
	e2e/cluster/cert-manager.sh down

.PHONY: test-web
test-web: build ## The dashboards: the page in a headless Chromium, `hebb top` in tmux, over a live stream; pictures in target/web
	@e2e/cluster/packages.sh web
	node e2e/web/test.mjs $(BIN)/hebb target/web
	e2e/web/top.sh $(BIN)/hebb

.PHONY: test-openapi
test-openapi: build ## The HTTP API against its OpenAPI document: schemathesis (from PyPI) asks a live `hebb start`
	e2e/openapi.sh $(BIN)/hebb $(CARGO_TARGET_DIR)/openapi $(ARGS)

.PHONY: test-monitoring
test-monitoring: build ## Metrics, alert rules and dashboards by a real Prometheus that scrapes a live stream and an operator
	@e2e/cluster/packages.sh control-plane monitoring
	e2e/monitoring/metrics.sh $(BIN)/hebb
	e2e/monitoring/test.sh $(BIN)/hebb

.PHONY: test-containers
test-containers: ## The Dockerfile and compose.yaml by a container engine: a worker killed, everything restarted (ARGS=an image, to build none)
	e2e/containers.sh $(ARGS)

.PHONY: test-architectures
test-architectures: build ## A log replayed by the binaries of two architectures ends in the same bytes: OTHER=the other binary, run by qemu
	@e2e/cluster/packages.sh emulation
	e2e/architectures.sh $(BIN)/hebb "$(OTHER)"

.PHONY: scale
scale: build ## The operator with 1,000 LearningClusters: target/scale/report.json (ARGS='--clusters 100')
	@e2e/cluster/packages.sh control-plane
	$(BIN)/scale --hebb $(BIN)/hebb $(ARGS)

FAULTS := $(BIN)/faults --hebb $(BIN)/hebb
.PHONY: faults
faults: build ## Harm at every write of the operator, and planted bugs: target/faults/report.json (ARGS=--help for parts of it)
	@e2e/cluster/packages.sh control-plane
	$(FAULTS) $(ARGS)

.PHONY: replay
replay: build ## Run a red plan of `make faults` again: PLAN=target/faults/….json
	@e2e/cluster/packages.sh control-plane
	$(FAULTS) --replay "$(PLAN)"

.PHONY: bench-path
bench-path: cluster-install ## Throughput and latency through gateway, Redis and worker on the real cluster
	@data=$$(e2e/data/fetch.sh); source e2e/cluster/env.sh; $$HEBB_IN_NODE $(BIN)/bench --data "$$data"

BENCH := $(CURDIR)/target/bench
BENCH_BIN := $(CARGO_TARGET_DIR)/benches/$(TRIPLE)/release
.PHONY: bench
bench: toolchain ## The engine against its peers: target/bench/{engine,knn,perceive,patterns,nab}.json (DATA=stream or folder, NAB=clone of numenta/NAB, ARGS=--quick)
	@e2e/cluster/packages.sh bench || true
	cargo build --release --locked --quiet --manifest-path benches/Cargo.toml --target $(TRIPLE) --target-dir $(CARGO_TARGET_DIR)/benches
	@NAB="$(NAB)" benches/run.sh $(BENCH_BIN) $(BENCH) "$(DATA)" $(ARGS)

.PHONY: bench-runtime
bench-runtime: build ## Throughput and latency without Kubernetes, beside Redis alone, an empty HTTP handler, Ray and Celery (ARGS=--help)
	@e2e/cluster/packages.sh redis-server
	@data=$$(e2e/data/fetch.sh); python=$$(e2e/runtime/peers.sh); \
	  $(BIN)/runtime --hebb $(BIN)/hebb --data "$$data" --python "$$python" $(ARGS)

.PHONY: bench-overhead
bench-overhead: toolchain ## What the history of metrics and traces cost: off and on by turns, twelve rounds (ARGS=rounds)
	cargo build $(CARGO_FLAGS) --example overhead
	$(BIN)/examples/overhead $(ARGS)

.PHONY: build
build: toolchain ## The static binary, and the programs of demo and tests
	cargo build $(CARGO_FLAGS)

.PHONY: toolchain
toolchain: ## What building needs
	@command -v cargo >/dev/null || { echo "install Rust first: https://rustup.rs" >&2; exit 1; }
	@rustup target list --installed 2>/dev/null | grep -qx "$(TRIPLE)" || rustup target add "$(TRIPLE)"
	@e2e/cluster/packages.sh build

.PHONY: cluster-up
cluster-up: ## A real Kubernetes: CLUSTER=<context|kind|k3d|local>, or what this machine can do
	@e2e/cluster/up.sh

.PHONY: cluster-down
cluster-down: ## Remove the cluster of cluster-up
	@e2e/cluster/down.sh

.PHONY: cluster-install
cluster-install: build cluster-up ## The operator of this tree on the cluster, by its chart
	@e2e/install.sh $(BIN)/hebb

.PHONY: streams
streams: toolchain ## Accuracy and speed of the engine on a folder of streams: DATA=folder, CYCLES=events between two of meta-learning
	cargo run --release --locked --target $(TRIPLE) -p hebb-engine --example streams -- "$(DATA)" $(CYCLES)

.PHONY: generate
generate: toolchain ## Write the generated definitions and the golden files anew
	HEBB_UPDATE=1 cargo test $(CARGO_FLAGS) --test crds --test reference --quiet
	HEBB_UPDATE=1 cargo test $(CARGO_FLAGS) --lib --quiet golden
	@$(MAKE) --no-print-directory manifests

.PHONY: manifests
manifests: ## Write manifests/ from the Helm chart, and the chart's copies of other files
	manifests/generate.sh
