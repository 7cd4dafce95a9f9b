# Kaon. `make help` lists the targets.
GO        ?= go
CLANG     ?= clang-19
BIN       := bin/kaon
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS   := -s -w -X main.version=$(VERSION)
SUDO      := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
KERNELS   ?= 5.10,6.1,6.12,newest
export CGO_ENABLED := 0
# The same for all that is built, so that every package is compiled once.
export GOFLAGS    := $(filter-out -trimpath,$(GOFLAGS)) -trimpath

.PHONY: help build run lab ui check-ui test test-unit test-kernel test-vm e2e e2e-full cluster kernels lint generate check-generate fuzz bench docs clean cross image

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

build: ## bin/kaon, for this machine
	$(GO) build -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/kaon

run: build ## build, then start the agent with the default programs (as root)
	$(SUDO) $(BIN) up $(ARGS)

lab: build ## build, then open the accelerator lab
	$(BIN) lab $(ARGS)

test: ## everything that this machine can test
	.ci/test

test-unit: ## tests that need neither root nor a kernel
	$(GO) test -short ./...

test-kernel: ## all tests natively; those of the kernel need root
	$(GO) test -count=1 -timeout 30m ./...

test-vm: ## the kernel tests on Debian's kernels 5.10, 6.1, 6.12 and the newest, two at a time, in qemu (VM="-run Exec": more flags)
	$(GO) run ./test/vm -parallel 2 -kernels $(KERNELS) $(VM)

e2e: ## tests on a real Kubernetes cluster on this machine (root; builds Kubernetes once, which takes ten minutes)
	.ci/install e2e
	$(MAKE) cluster
	KAON_E2E=1 $(GO) test -count=1 -timeout 30m ./test/e2e/...

cluster: ## etcd, Kubernetes and Prometheus for the e2e tests, built once and kept in the user's cache
	$(GO) run ./test/e2e/cluster/up -build

e2e-full: ## and those that take long
	.ci/install e2e
	$(MAKE) cluster
	KAON_E2E=full $(GO) test -count=1 -timeout 90m ./test/e2e/...

kernels: ## docs/reference/kernels.md: what each kernel makes of each built-in program
	$(GO) run ./test/vm -kernels $(KERNELS) -library docs/reference/kernels.md ./programs

lint: ## vet, formatting, golangci-lint where it is installed
	.ci/lint

generate: ## objects, tables and reference pages from their sources (needs clang-19 and llvm-19)
	$(GO) run ./bpf/generate
	$(GO) generate ./internal/series
	KAON_CLANG=$(CLANG) $(GO) run ./cmd/kaon build --all
	$(MAKE) -B -C internal/engine/testdata CLANG=$(CLANG)
	$(MAKE) -B -C internal/ebpfexporter/testdata CLANG=$(CLANG)
	$(MAKE) -B -C internal/kubebpf/testdata CLANG=$(CLANG)
	$(MAKE) docs

docs: ## the generated part of the documentation
	$(GO) test -count=1 ./internal/doctor -run TestDocument -update
	$(GO) test -count=1 ./internal/manifest/schema -update
	$(GO) test -count=1 ./internal/agent -run TestFiguresDocument -update
	$(GO) test -count=1 ./programs -run TestIndex -update
	$(GO) test -count=1 ./deploy/monitoring -run TestCurrent -update
	$(GO) test -count=1 -timeout 30m ./deploy/helm -run 'TestCurrent|TestManifests' -update
	$(GO) test -count=1 ./cmd/kaon -run TestCommandLinePage -update

check-generate: generate ## fails if what is committed is not what make generate makes
	git diff --exit-code --stat

ui: ## the lab's page from its sources (needs Node 20 or later and the npm registry); the same sources make the same bytes
	cd ui && for try in 1 2 3; do npm ci --ignore-scripts --silent && break; [ $$try -lt 3 ] || exit 1; done && npm run --silent build

check-ui: ui ## fails if what is committed is not what make ui makes
	git diff --exit-code --stat -- ui

fuzz: ## each fuzzer for a short time (FUZZTIME=10s)
	.ci/fuzz

bench: ## the figures of docs/reference/figures.md, as ratios (BENCH=-smoke: briefly; BENCH="-write docs/reference/figures.md -library docs/reference/costs.md")
	$(GO) run ./test/bench $(BENCH)

cross: ## binaries for linux/amd64 and linux/arm64
	GOARCH=amd64 $(GO) build -ldflags '$(LDFLAGS)' -o bin/kaon-linux-amd64 ./cmd/kaon
	GOARCH=arm64 $(GO) build -ldflags '$(LDFLAGS)' -o bin/kaon-linux-arm64 ./cmd/kaon

# Everything in the image is as old as the commit, so that the same commit makes the same digest.
IMAGE     ?= ghcr.io/kaon-project/kaon:$(VERSION)
image: cross ## bin/image (OCI layout, both architectures) and bin/kaon-image.tar (for ctr images import), without an engine
	$(GO) run ./deploy/image -name $(IMAGE) -layout bin/image -archive bin/kaon-image.tar -license LICENSE -version $(VERSION) \
		-revision "$(shell git rev-parse HEAD 2>/dev/null)" -created $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null),0) \
		amd64=bin/kaon-linux-amd64 arm64=bin/kaon-linux-arm64

clean: ## what was built
	rm -rf bin
