# Tasks for developers and new users; `make help` lists them.

CARGO ?= cargo
# A static binary, as in the image.
STATIC := $(shell uname -m)-unknown-linux-gnu
# On Linux, what is built, tested and shown is linked as in the image, wherever glibc and its static library are at hand:
# the C library resolves names, and one that is loaded does so in another way. Elsewhere the tests say what was skipped.
ifneq ($(and $(findstring host: $(STATIC),$(shell rustc -vV)),$(filter /%,$(shell cc -print-file-name=libc.a))),)
export CARGO_BUILD_TARGET := $(STATIC)
export CARGO_TARGET_$(shell echo $(STATIC) | tr a-z- A-Z_)_RUSTFLAGS := -C target-feature=+crt-static
BUILT := target/$(STATIC)/debug
else
BUILT := target/debug
endif
OPERATOR := $(BUILT)/itwin-credential-operator
TESTBED := $(BUILT)/testbed
# Tests mostly wait for servers, so run more of them than there are cores.
TEST_THREADS ?= 16
# The name of a test, or a part of it, to run only matching tests: make test ARGS=renewal
ARGS ?=

# `required` fails if the machine cannot run pods, instead of skipping `make e2e`; `off` always skips it.
E2E ?= auto
ifneq ($(CLUSTER),)
# the tests run pods only on a node of the testbed
override E2E := off
endif
E2E_IMAGE := target/image/itwin-credential-operator.tar

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build everything.
	$(CARGO) build --locked --workspace

.PHONY: first-build
first-build:
	@scripts/first-build $(BUILT)

.PHONY: demo
demo: first-build ## Show the main task on a local cluster, step by step; KEEP=1 leaves the cluster running.
	@# only what the demo runs
	$(CARGO) build --locked --package itwin-credential-operator --package testbed --bins
	$(TESTBED) demo $(OPERATOR)

# With the features of the tests, which differ from those of `make build`: one build serves programs and tests.
.PHONY: test-build
test-build: ## Build the programs and the tests.
	$(CARGO) build --locked --workspace --bins --tests

# After that build, not at the same time: both use the same folder, and crates of others are compiled once.
.PHONY: last-release
last-release: test-build ## Build the release that the upgrade test starts from, where git has its commit; once.
	@CARGO="$(CARGO)" scripts/last-release

.PHONY: tests
tests: last-release
	$(TESTBED) run -- $(CARGO) test --locked --workspace --no-fail-fast -- --test-threads $(TEST_THREADS) $(ARGS)

.PHONY: test
test: tests ## Run all tests, with a real API server and authorization server.
ifeq ($(ARGS),)
	@$(MAKE) --no-print-directory e2e
endif

# The older Kubernetes versions: each has its pins in crates/testbed/tools/kubernetes-VERSION.
KUBERNETES_VERSIONS ?= \
	$(sort $(patsubst crates/testbed/tools/kubernetes-%,%,$(wildcard crates/testbed/tools/kubernetes-*)))
MATRIX_TESTS := --test chart --test cluster --test installation --test tenants

.PHONY: matrix
matrix: build ## Run the tests of operator and chart on each older Kubernetes version, or on those of KUBERNETES_VERSIONS.
	$(CARGO) test --locked $(MATRIX_TESTS) --no-run
	@CARGO="$(CARGO)" scripts/last-release
	@failed=; for version in $(KUBERNETES_VERSIONS); do \
		echo "matrix: Kubernetes $$version"; \
		if KUBERNETES_VERSION=$$version $(TESTBED) run -- $(CARGO) test --locked $(MATRIX_TESTS) --no-fail-fast -- \
			--test-threads $(TEST_THREADS) $(ARGS); then \
			echo "matrix: Kubernetes $$version: passed"; \
		else \
			echo "matrix: Kubernetes $$version: FAILED"; failed="$$failed $$version"; \
		fi; \
	done; test -z "$$failed" || { echo "matrix: FAILED on$$failed"; exit 1; }

.PHONY: e2e
e2e: test-build ## Install the chart and the image on a real node and check that a pod can use its token (needs root and Linux).
ifeq ($(E2E),off)
	@echo "e2e: SKIPPED because of E2E=off or CLUSTER"
else
	@if $(TESTBED) node; then \
		set -ex; \
		PREBUILT=1 IMAGE=localhost/itwin-credential-operator ARCHIVE=$(E2E_IMAGE) scripts/image; \
		E2E_IMAGE=$(abspath $(E2E_IMAGE)) $(TESTBED) run --node -- \
			$(CARGO) test --locked --offline --test e2e -- --ignored --nocapture; \
	else \
		echo "e2e: SKIPPED: this machine cannot run pods, see above"; \
		test "$(E2E)" != required; \
	fi
endif

.PHONY: e2e-binary
e2e-binary: ## Build the binary of the image for `make e2e`, where this machine can run pods.
	@if test "$(E2E)" != off && $(TESTBED) node 2>/dev/null; then ONLY_BINARY=1 PREBUILT=1 scripts/image; fi

.PHONY: image
image: ## Build the image; PREBUILT=1 uses no base image, ARCH=arm64 selects the architecture, TAG and IMAGE set its name.
	@PREBUILT=$(PREBUILT) ARCH=$(ARCH) TAG=$(TAG) IMAGE=$(IMAGE) ARCHIVE=$(ARCHIVE) scripts/image

.PHONY: unit
unit: ## Run the tests that need no server.
	$(CARGO) test --locked --workspace --lib --test crds --test docs --test hostile --test monitoring \
		--test packaging --test tidy

.PHONY: simulate
simulate: ## Play N scenarios (default 1000) of the simulation; each failing seed is printed.
	SIMULATION_SCENARIOS=$(N) $(CARGO) test --locked --test simulation every_scenario -- --nocapture

# Here, or where the user has it.
DENY := PATH="$(abspath target/tools/bin):$$PATH" $(CARGO) deny

.PHONY: check
check: ## Check format, lints, licenses, generated files, documentation and prose.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings
	$(CARGO) test --locked --quiet --test crds --test docs --test hostile --test monitoring --test packaging --test tidy
	node charts/values-table.mjs --check
	node charts/values-schema.mjs --check
	@$(MAKE) --no-print-directory prose workflows
	@if $(DENY) --version >/dev/null 2>&1; then \
		$(DENY) --locked check bans licenses sources; \
	else \
		echo "check: licenses and bans SKIPPED: cargo-deny is not installed; run \`make audit-tools\`"; \
	fi

# Builds a program once from a pinned Go module: its folder, its package, how long that takes, 1 if it needs C, and tags.
define go_program
	@echo "building $(@F) ($(3), once)"
	@mkdir -p $(@D)
	cd $(1) && CGO_ENABLED=$(or $(4),0) GOWORK=off go build -trimpath -tags '$(5)' -ldflags '-s -w' -o $(abspath $@) $(2)
endef

# A changed pin builds it again.
VALE := target/tools/vale
$(VALE): tools/vale/go.mod tools/vale/go.sum
	$(call go_program,tools/vale,github.com/vale-cli/vale/v3/cmd/vale,about 2 minutes,1)

.PHONY: prose
prose: $(VALE) ## Check spelling and style of the documentation.
	@# the API reference is generated from code
	@$(VALE) --config tools/vale/vale.ini --output line --glob '!docs/api-reference.md' \
		$(filter-out CHANGELOG.md,$(wildcard *.md)) docs examples charts

ACTIONLINT := target/tools/actionlint
$(ACTIONLINT): tools/actionlint/go.mod tools/actionlint/go.sum
	$(call go_program,tools/actionlint,github.com/rhysd/actionlint/cmd/actionlint,about 30 seconds)

# Installed from one pinned package in a folder of its own.
ZIZMOR := target/tools/zizmor/bin/zizmor
$(ZIZMOR): tools/zizmor/requirements.txt
	@python3 -m venv target/tools/zizmor && target/tools/zizmor/bin/pip install --quiet --require-hashes --requirement $<
	@touch $@

.PHONY: workflows
workflows: $(ACTIONLINT) ## Check the workflows in .github: their syntax, and their security where zizmor can be installed.
	$(ACTIONLINT)
	@if $(MAKE) --no-print-directory $(ZIZMOR); then \
		$(ZIZMOR) --offline --quiet --persona pedantic .github/workflows; \
	else \
		echo "workflows: zizmor SKIPPED: Python 3 with venv and pip is needed to install it"; \
	fi

.PHONY: bench
N ?= 1000
bench: ## Measure the operator with N credentials (default 1000); writes a table and target/bench-N.json.
	# a release build of the load generator too: it shares the processor with the operator
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --locked --release --target $(STATIC) --workspace
	target/$(STATIC)/release/testbed bench target/$(STATIC)/release/itwin-credential-operator $(N)

.PHONY: plot
plot: ## Draw docs/scale.svg from docs/measurements (needs jq and gnuplot).
	scripts/plot

# Without service discovery, which is most of the build.
PROMETHEUS := target/tools/prometheus
$(PROMETHEUS): tools/prometheus/go.mod tools/prometheus/go.sum
	$(call go_program,tools/prometheus,github.com/prometheus/prometheus/cmd/prometheus,about 3 minutes,,remove_all_sd)

PROMTOOL := target/tools/promtool
$(PROMTOOL): tools/prometheus/go.mod tools/prometheus/go.sum
	$(call go_program,tools/prometheus,github.com/prometheus/prometheus/cmd/promtool,about 1 minute,,remove_all_sd)

.PHONY: dashboard
dashboard: $(PROMETHEUS) $(PROMTOOL) ## Draw docs/dashboard-*.png with the recorded outage (needs Chromium, pngquant and Node.js).
	PROMETHEUS=$(abspath $(PROMETHEUS)) PROMTOOL=$(abspath $(PROMTOOL)) scripts/dashboard-screenshot

.PHONY: record-outage
record-outage: test-build ## Record the metrics of an outage for the alerts and the dashboard (takes 25 minutes).
	$(TESTBED) run -- node scripts/record-outage.mjs $(abspath $(OPERATOR)) tests/alerts/outage.test.yaml

.PHONY: audit
audit: ## Check dependencies against the advisory database (needs network access and cargo-deny).
	$(DENY) --locked check advisories

.PHONY: audit-tools
audit-tools: ## Install cargo-deny for `make check` and `make audit`.
	$(CARGO) install --locked --root target/tools cargo-deny@0.20.2

COSIGN := target/tools/cosign
$(COSIGN): tools/cosign/go.mod tools/cosign/go.sum
	$(call go_program,tools/cosign,github.com/sigstore/cosign/v3/cmd/cosign,about 5 minutes)

HELM := target/tools/helm
$(HELM): crates/testbed/tools/helm/go.mod crates/testbed/tools/helm/go.sum
	$(call go_program,crates/testbed/tools/helm,helm.sh/helm/v4/cmd/helm,about 2 minutes)

# Installs Debian packages that are missing, as root or with sudo.
define packages
	@dpkg --status $(1) >/dev/null 2>&1 || { \
		sudo=; test "$$(id -u)" = 0 || sudo=sudo; \
		$$sudo apt-get update && $$sudo apt-get install --yes --no-install-recommends $(1); \
	}
endef

.PHONY: release-tools
release-tools: publish-tools ## Install what `make release` needs (Debian packages as root or with sudo).
	$(CARGO) install --locked --root target/tools cargo-auditable@0.7.7 cargo-cyclonedx@0.5.9
	rustup target add aarch64-unknown-linux-gnu
	$(call packages,buildah ca-certificates gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static)

.PHONY: publish-tools
publish-tools: $(COSIGN) $(HELM) ## Install what the steps of `make release` need that publish and verify.
	$(call packages,jq skopeo)

# What `release` does: everything, or only a part (RELEASING.md).
RELEASE_STEPS ?= build publish

.PHONY: release
release: ## Build VERSION reproducibly, push it to RELEASE_REGISTRY, sign and verify it; DRY_RUN=1 prints the commands only.
	@scripts/release $(if $(DRY_RUN),--dry-run) "$(VERSION)" $(RELEASE_STEPS)

REGISTRY := target/tools/registry
$(REGISTRY): crates/testbed/tools/registry/go.mod crates/testbed/tools/registry/go.sum
	$(call go_program,crates/testbed/tools/registry,github.com/distribution/distribution/v3/cmd/registry,about 1 minute)

.PHONY: release-test
release-test: build release-tools $(REGISTRY) ## Make a release for a registry on this machine and verify it; REBUILD=1 compiles twice.
	RELEASE_ARCHS="$(RELEASE_ARCHS)" REBUILD=$(REBUILD) TESTBED=$(abspath $(TESTBED)) scripts/release-test

.PHONY: fuzz
FUZZ_SECONDS ?= 60
# long enough for the longest private key
FUZZ_LENGTH := 20000
FUZZ_TARGETS := $(notdir $(wildcard fuzz/seeds/*))
fuzz: ## Fuzz each parser for FUZZ_SECONDS on a stack of 256 KiB (needs a nightly compiler and cargo-fuzz).
	@set -ex; for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/corpus/$$target; \
		$(CARGO) +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=$(FUZZ_LENGTH); \
	done

# What to change: `rules`, which unit tests must notice, or `operator`, the code that observes, acts and reports, which the
# simulation must notice too.
MUTATE ?= rules
# A part of the mutants, such as 0/8; without it, as many as fit into the time.
SHARD ?=
# The limit of all of them, and of the tests of one.
MINUTES ?= 60
MUTANT_SECONDS ?= $(if $(filter operator,$(MUTATE)),300,60)
MUTANTS := target/mutants/$(MUTATE)-$(if $(SHARD),$(subst /,-of-,$(SHARD)),all)
mutate_rules := --package itwin-core --package itwin-oauth
mutate_operator := --package itwin-credential-operator $(foreach part,act controller observe report,--file 'src/$(part)/**')
mutate_operator_tests := -- --lib --test simulation

.PHONY: mutants
mutants: mutants-tools ## Change the code in each possible way, for MINUTES, and count the changes that no test notices.
	@mkdir -p $(MUTANTS)
	@# a change that no test notices is a result; in random order, so that those that fit are a sample
	@status=0; PATH="$(abspath target/tools/bin):$$PATH" SIMULATION_SCENARIOS=60 timeout --signal=INT $(MINUTES)m \
		$(CARGO) mutants $(mutate_$(MUTATE)) --exclude '**/samples.rs' --exclude '**/tests.rs' --shuffle \
		--timeout $(MUTANT_SECONDS) --output $(MUTANTS) $(if $(SHARD),--shard $(SHARD) --sharding round-robin) \
		$(mutate_$(MUTATE)_tests) || status=$$?; \
	case $$status in 0|2|3|124) ;; *) exit $$status ;; esac
	@cd $(MUTANTS)/mutants.out && wc -l caught.txt timeout.txt missed.txt unviable.txt | awk '{ count[$$2] = $$1 } END { \
		killed = count["caught.txt"] + count["timeout.txt"]; all = killed + count["missed.txt"]; \
		printf "mutants: %d of %d killed (%.1f %%), %d do not compile\n", killed, all, all ? 100 * killed / all : 0, \
			count["unviable.txt"] }'
	@echo "mutants: $(MUTANTS)/mutants.out/missed.txt lists those that no test noticed"

.PHONY: mutants-tools
mutants-tools: ## Install cargo-mutants for `make mutants`.
	$(CARGO) install --locked --root target/tools cargo-mutants@27.1.0

.PHONY: generate
generate: build ## Write what is generated: CRDs, API reference, and the table and the schema of chart values.
	$(OPERATOR) crd > crds/credentials.itwin.dev.yaml
	cp crds/credentials.itwin.dev.yaml charts/itwin-credential-operator/files/crds.yaml
	node charts/values-table.mjs
	node charts/values-schema.mjs
	WRITE_API_REFERENCE=1 $(CARGO) test --locked --quiet --test docs api_reference

.PHONY: fmt
fmt: ## Format the code.
	$(CARGO) fmt --all
