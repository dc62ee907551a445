SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Everything that is installed for this repository goes to .tmp/, which git ignores.
BIN := $(CURDIR)/.tmp/bin
GOLANGCI_VERSION := v2.15.0
GOVULNCHECK_VERSION := v1.9.0
MODULES := cmd/tocsin internal proto rules services/alerter services/collector services/notifier test
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

.PHONY: help
help: ## Say what make can do
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: build
build: ## Build the tocsin command into .tmp/bin
	@mkdir -p $(BIN)
	go build -trimpath -o $(BIN)/tocsin ./cmd/tocsin

.PHONY: demo
demo: build ## Run the whole system against a simulated RunPod in which things go wrong
	@$(BIN)/tocsin demo --data .tocsin/demo

.PHONY: up
up: build ## Run the whole system against RunPod (needs RUNPOD_API_KEY; CONFIG=tocsin.yaml takes a file)
	@$(BIN)/tocsin up --data .tocsin/up $(if $(CONFIG),--config $(CONFIG))

.PHONY: test
test: redis compiler ## Install what the tests need and run them all
	@# -count=1: the tests that run the binaries do not know when those change. The timeout
	@# is for a test that hangs, not for a machine that is slow: Go's own is 10 minutes.
	go test -race -count=1 -timeout 45m work
	@# Under the race detector the simulated nights are shorter; here they are whole.
	go test -timeout 45m ./test/pack
	go test -count=1 ./test/arch

.PHONY: fault
fault: redis ## Break the whole by plans drawn from seeds: SEED=7 plays one again, RUNS=200 makes many, FLAGS=-scene=fence
	go test -count=1 -v -timeout 0 -run 'TestNothingIsLostOrInvented' ./test/fault -args -seed $(or $(SEED),0) -runs $(or $(RUNS),1) $(FLAGS)

.PHONY: fault-guards
fault-guards: redis ## See make fault fail without each guard by which nothing is lost: GUARD=head takes one away
	@SEED=$(or $(SEED),1) RUNS=$(or $(RUNS),3) test/fault/guards/run $(GUARD)

.PHONY: compose-test
compose-test: ## Start deploy/compose.yaml, kill each container and compare what is told (needs a Docker Engine)
	@# On Linux, images that were not pulled are stood in for by these.
	@[ "$$(uname -s)" != Linux ] || test/install redis-server busybox
	@mkdir -p $(BIN)
	@go build -o $(BIN)/compose-test ./test/compose
	@$(BIN)/compose-test

.PHONY: redis
redis:
	@test/install redis-server

# The race detector needs cgo, which needs a C compiler.
.PHONY: compiler
compiler:
	@set -- $$(go env CC); command -v "$$1" >/dev/null || test/install gcc

# ONLY, COMPARE, JSON and PROFILE are for make bench; FLAGS passes on anything
# else that its -help tells.
JSON ?= .tmp/bench.json
.PHONY: bench
bench: redis ## Measure Tocsin as a whole (ONLY=latency runs one, COMPARE=old.json shows both, PROFILE=dir writes profiles)
	@mkdir -p $(BIN)
	@go build -o $(BIN)/bench ./test/bench
	@$(BIN)/bench -json $(JSON) $(if $(ONLY),-only $(ONLY)) $(if $(COMPARE),-compare $(COMPARE)) $(if $(PROFILE),-profile $(PROFILE)) $(FLAGS)

.PHONY: bench-parts
bench-parts: redis ## Run the Go benchmarks of single parts
	go test -run '^$$' -bench . -benchmem ./internal/... ./services/alerter/... ./services/notifier/...

.PHONY: gen
gen: export GOWORK = off
gen: ## Generate Go from proto/ (buf and its plugins are pinned in tools/go.mod)
	@buf=$$(go -C tools tool -n buf); $$buf format -w proto; $$buf lint; $$buf generate

.PHONY: docs
docs: ## Write docs/fields.md from the table of fields and functions
	@go run ./cmd/tocsin rules fields --markdown >docs/fields.md

.PHONY: breaking
breaking: export GOWORK = off
breaking: ## Compare proto/ with what was released last (proto/baseline.binpb)
	@buf=$$(go -C tools tool -n buf); $$buf breaking --against proto/baseline.binpb

.PHONY: baseline
baseline: export GOWORK = off
baseline: ## Take proto/ as it is as the baseline of `make breaking`
	@buf=$$(go -C tools tool -n buf); $$buf build -o proto/baseline.binpb

.PHONY: lint
lint: $(BIN)/golangci-lint-$(GOLANGCI_VERSION) ## Lint every module
	@$< run $(MODULES:%=./%/...)

$(BIN)/golangci-lint-$(GOLANGCI_VERSION):
	@mkdir -p $(BIN)
	GOWORK=off GOBIN=$(BIN) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@mv $(BIN)/golangci-lint $@

.PHONY: alone
alone: export GOWORK = off
alone: ## Vet each module as if the others were not there, and check its go.mod
	@for m in $(MODULES); do \
	  echo "alone: $$m"; \
	  go -C $$m vet ./...; \
	  go -C $$m mod tidy -diff; \
	done

.PHONY: vuln
vuln: $(BIN)/govulncheck-$(GOVULNCHECK_VERSION) ## Look for known vulnerabilities in what is called
	@for m in $(MODULES); do echo "vuln: $$m"; $< -C $$m ./...; done

$(BIN)/govulncheck-$(GOVULNCHECK_VERSION):
	@mkdir -p $(BIN)
	GOWORK=off GOBIN=$(BIN) go install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)
	@mv $(BIN)/govulncheck $@
