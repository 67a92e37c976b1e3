# What a developer runs. `make` alone lists the targets.

# Outside the checkout, so that a fresh clone builds warm and a mounted checkout stays small.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/postern/target
# rustup puts cargo here, and only login shells have it in their path.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

# KEEP=1 leaves running what the target has started.
KEEP ?=
# Of the benchmark: for how long it begins new rounds, and what its result is called.
BENCH_SECONDS ?= 400
BENCH_NAME ?= latest
# Of the soak: how long, and which faults come when; without a seed always others.
SOAK_SECONDS ?= 600
SOAK_SEED ?=
# How long sidecar and PostgreSQL are killed.
KILL_SECONDS ?= 300
# For which kinds of machine images [this] and releases [all] are made: x86_64, aarch64 or both, "x86_64 aarch64".
MACHINE ?=
export MACHINE

# $(call part,name,command): runs one part of a target and tells how long it took.
define part
@echo "== $(1)"
@start=$$(date +%s); $(2) && echo "-- $(1): $$(($$(date +%s) - start)) s"
endef

.PHONY: help
help: ## List the targets
	@echo "usage: make TARGET [KEEP=1] [BENCH_SECONDS=400] [BENCH_NAME=latest] [SOAK_SECONDS=600] [MACHINE=aarch64]"
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: ## Send four calls with curl through a gate and show their rows; KEEP=1 leaves it running
	@scripts/need cc cargo curl
	@echo "building the release sidecar; the first time that takes a minute or several"
	@cargo build --quiet --release --no-default-features --package postern-sidecar --package postern-tests --bin postern-sidecar --bin postern-demo
	@"$(CARGO_TARGET_DIR)/release/postern-demo" --sidecar "$(CARGO_TARGET_DIR)/release/postern-sidecar" $(if $(filter-out 0,$(KEEP)),--keep)

.PHONY: test
test: ## Check format and lints, build, and run all tests
	@scripts/need cc cargo curl dnsmasq go h2load nghttp nginx node openssl postgres promtool python3 sqlite3 sslscan strace systemd-analyze
	$(call part,control plane,scripts/kubernetes)
	$(call part,format,cargo fmt --all --check && cargo fmt --manifest-path fuzz/Cargo.toml --check)
	$(call part,lints,cargo clippy --workspace --all-targets --features postern-tests/e2e -- --deny warnings)
	$(call part,lints of the fuzz targets,cargo clippy --manifest-path fuzz/Cargo.toml --no-default-features --locked -- --deny warnings)
	$(call part,generated files of the chart,scripts/chart --check && scripts/dashboards --check)
	$(call part,alert rules,tests/rules/check)
	$(call part,build,cargo build --workspace --bins --tests)
	$(call part,tests,cargo test --workspace --lib --bins --tests --no-fail-fast)

.PHONY: test-slow
test-slow: ## Fuzz what takes bytes from outside, FUZZ_SECONDS=60 for each target; reloads; a soak of two minutes
	@scripts/need cc cargo
	$(call part,fuzz,scripts/fuzz)
	@$(MAKE) --no-print-directory reloads
	@$(MAKE) --no-print-directory soak SOAK_SECONDS=120

.PHONY: fmt
fmt: ## Format the code
	@cargo fmt --all

.PHONY: lint
lint: ## Run clippy; a warning is an error
	@scripts/need cc cargo
	@cargo clippy --workspace --all-targets --features postern-tests/e2e -- --deny warnings

.PHONY: generate
generate: ## Write the generated files anew: JSON Schemas, definitions of the API, its reference, columns of the log, what charts say and render
	@scripts/need cc cargo python3
	@scripts/kubernetes helm
	@cargo run --quiet --package postern-crds --features generate --bin crdgen
	@scripts/chart
	@scripts/manifests "$$(scripts/kubernetes where helm)"
	@scripts/dashboards
	@UPDATE=1 cargo test --quiet --package sidecar-config --test it schema
	@UPDATE=1 cargo test --quiet --package postern-postgres --lib columns

.PHONY: figures
figures: ## Measure the shipped binary: size, time to ready, idle memory
	@scripts/need cc cargo curl sqlite3
	$(call part,static build,scripts/static sidecar)
	@$(MAKE) --no-print-directory decide-figures
	$(call part,figures,cargo run --quiet --package postern-tests --bin postern-figures -- "$$(scripts/static sidecar)")

.PHONY: decide-figures
decide-figures: ## Count what decisions cost among many routes and identities; fails above its bounds
	@scripts/need cc cargo valgrind
	$(call part,build of the decisions,cargo build --quiet --release --package sidecar-decide --bins)
	$(call part,cost of decisions,scripts/decide-figures "$(CARGO_TARGET_DIR)/release")

.PHONY: reloads
reloads: ## Change a busy gate's configuration 300 times: no request may fail, its memory may not grow
	@scripts/need cc cargo curl
	$(call part,build,cargo build --workspace --bins)
	$(call part,reloads,cargo run --quiet --package postern-tests --bin postern-soak -- reloads 300)

.PHONY: revocations
revocations: ## Suspend a client of 20 pods 200 times: prints how long it takes from kubectl patch to a refusal by all
	@scripts/need cc cargo curl go
	$(call part,control plane,scripts/kubernetes)
	$(call part,build,cargo build --workspace --bins)
	$(call part,revocations,REVOCATION_PODS=20 REVOCATION_SAMPLES=200 cargo test --quiet --package postern-tests --test it -- --nocapture a_suspension_reaches_every_pod)

.PHONY: log-plans
log-plans: ## Ask PostgreSQL how it finds 5 million rows of the request log by time, identity and reason: indexes, and few rows
	@scripts/need cc cargo postgres
	$(call part,build,cargo build --workspace --bins --tests)
	$(call part,plans,PLAN_ROWS=5000000 cargo test --quiet --workspace --test it plans:: -- --nocapture)

.PHONY: bench-operator
bench-operator: ## Measure the operator with 200 workloads, 1,000 pods, 2,000 clients: time, requests, memory; ends by itself
	@scripts/need cc cargo curl go
	$(call part,control plane,scripts/kubernetes)
	$(call part,build,cargo build --release --package postern-operator --bin postern-operator)
	$(call part,harness,cargo build --package postern-tests --bin postern-scale)
	$(call part,figures,timeout 1800 "$(CARGO_TARGET_DIR)/debug/postern-scale" "$(CARGO_TARGET_DIR)/release/postern-operator")

.PHONY: soak
soak: ## Have everything around a busy gate fail at random for SOAK_SECONDS=600: its rows are what clients count
	@scripts/need cc cargo curl sqlite3
	$(call part,build,cargo build --workspace --bins)
	$(call part,soak,cargo run --quiet --package postern-tests --bin postern-soak -- faults $(SOAK_SECONDS) $(SOAK_SEED))

.PHONY: kills
kills: ## Kill sidecar and PostgreSQL at random under load for KILL_SECONDS=300: no row may be there twice, nor more be lost than a batch
	@scripts/need cc cargo curl postgres
	$(call part,build,cargo build --workspace --bins --tests)
	$(call part,kills,SHIP_KILL_SECONDS=$(KILL_SECONDS) cargo test --workspace --test it kills_at_any_moment -- --nocapture)

.PHONY: bench
bench: ## Compare with HAProxy what a request, a connection and an idle connection cost, in about 10 minutes after the build
	@scripts/need cc cargo h2load haproxy nginx postgres
	$(call part,static build,scripts/static sidecar)
	$(call part,client,cargo build --release --package postern-bench)
	@mkdir -p bench/results
	$(call part,rounds,"$(CARGO_TARGET_DIR)/release/postern-bench" "$$(scripts/static sidecar)" $(BENCH_SECONDS) bench/results/$(BENCH_NAME))

.PHONY: bench-log
bench-log: ## Only what rows cost of it: processor time of writing, compressing, sending; how long clients wait meanwhile
	@scripts/need cc cargo h2load nginx postgres
	$(call part,static build,scripts/static sidecar)
	$(call part,client,cargo build --release --package postern-bench)
	@mkdir -p bench/results
	$(call part,rounds,"$(CARGO_TARGET_DIR)/release/postern-bench" rows "$$(scripts/static sidecar)" $(BENCH_SECONDS) bench/results/$(BENCH_NAME))

.PHONY: bench-log-writers
bench-log-writers: ## Have 200 gates send their rows to one PostgreSQL: rows a second, processor time of both sides, connections
	@scripts/need cc cargo nginx postgres
	$(call part,static build,scripts/static sidecar)
	$(call part,client,cargo build --release --package postern-bench)
	@mkdir -p bench/results
	$(call part,figures,timeout 1800 "$(CARGO_TARGET_DIR)/release/postern-bench" writers "$$(scripts/static sidecar)" bench/results/writers.md)

.PHONY: charts
charts: ## Lint the charts and render each of their values
	@scripts/need python3
	@scripts/kubernetes helm
	$(call part,generated files,scripts/chart --check && scripts/dashboards --check)
	$(call part,what they render for kubectl,scripts/manifests "$$(scripts/kubernetes where helm)" --check)
	$(call part,lint,"$$(scripts/kubernetes where helm)" lint --strict charts/postern-crds charts/postern)
	$(call part,render,tests/charts/render "$$(scripts/kubernetes where helm)")

.PHONY: images
images: ## Make container images of static binaries that are built here, into the build folder, for this machine or MACHINE=aarch64
	$(call part,images,scripts/images "$(CARGO_TARGET_DIR)/images$(if $(MACHINE),-of-$(subst $() ,-,$(strip $(MACHINE))))")

.PHONY: release
release: ## Make all files of a release, twice with the same bytes, and serve with what a package of it installs
	$(call part,release,scripts/release "$(CARGO_TARGET_DIR)/release-files")
	$(call part,the same bytes again,scripts/release "$(CARGO_TARGET_DIR)/release-again" >/dev/null && \
		diff "$(CARGO_TARGET_DIR)/release-files/SHA256SUMS" "$(CARGO_TARGET_DIR)/release-again/SHA256SUMS")
	$(call part,installed,tests/release/check "$(CARGO_TARGET_DIR)/release-files")

.PHONY: cluster
cluster: images
	@scripts/kubernetes kubectl helm
	$(call part,cluster,scripts/cluster up)
	$(call part,images into the cluster,scripts/cluster load "$(CARGO_TARGET_DIR)"/images/*.tar)

.PHONY: up
up: cluster ## Bring up a Kubernetes (KUBECONFIG's, else kind's, else a node of this machine's processes) with Postern and a demo
	@scripts/demo-in-cluster

.PHONY: down
down: ## Remove it, with all that it has left on this machine
	@scripts/cluster down

.PHONY: e2e
e2e: cluster charts ## Prove it on a real Kubernetes (as `up` has it), from images to rows; KEEP=1 leaves the cluster for more
	@scripts/need postgres
	@scripts/kubernetes prometheus
	$(call part,image of Prometheus,scripts/image "$(CARGO_TARGET_DIR)/images/postern-prometheus.tar" postern-prometheus:tests --entrypoint /prometheus "$$(scripts/kubernetes where prometheus)=/prometheus" && scripts/cluster load "$(CARGO_TARGET_DIR)/images/postern-prometheus.tar")
	$(call part,end to end,KUBECONFIG="$$(scripts/cluster kubeconfig)" cargo test --workspace --features postern-tests/e2e --test e2e -- --test-threads=4)
	$(if $(filter-out 0,$(KEEP)),,@$(MAKE) --no-print-directory down)

.PHONY: e2e-figures
e2e-figures: cluster charts ## Measure there, in 15 minutes: 200 revocations, 200 changes of a route under load, two minutes without API server
	$(call part,figures,KUBECONFIG="$$(scripts/cluster kubeconfig)" POSTERN_SAMPLES=200 POSTERN_AWAY_SECONDS=120 cargo test --workspace --features postern-tests/e2e --test e2e -- --test-threads=1 changes without_an_api_server)

.PHONY: up-and-down
up-and-down: images ## Bring up a node, remove it, also after all of it was killed: the machine has to be as it was
	$(call part,up and down,tests/cluster/test "$(CARGO_TARGET_DIR)/images/postern-e2e.tar")

.PHONY: clean
clean: ## Remove what was built
	@cargo clean
