# Skiff's tasks. `make help` lists them; the logic is in Go and in scripts/.
GO        ?= go
VERSION   ?= $(shell cat VERSION)
COMMIT    ?= $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
BUILT     ?= $(shell git log -1 --format=%cI 2>/dev/null)
PKG       := github.com/skiff-containers/skiff/internal/kit/version
# What the builder tells clients of itself: the linked module's version.
BUILDKIT  := $(shell $(GO) list -m -f '{{.Version}}' github.com/moby/buildkit 2>/dev/null)
LDFLAGS   := -s -w -X $(PKG).Version=$(VERSION) -X $(PKG).Commit=$(COMMIT) -X $(PKG).Built=$(BUILT) \
             -X github.com/moby/buildkit/version.Version=$(BUILDKIT)
# One set of flags for building and testing: the cache is filled once.
export CGO_ENABLED := 0
BUILD     := $(GO) build -buildvcs=false
# What many threads of the shim are in at once.
RACE      := ^(TestConformance|TestManyAtOnce|TestSlowClient|TestSecondClient|TestExecInside|TestShimKilled|TestKilledInMidStream|TestUpgrade|TestScale|TestExternalConformance)$$
SHIM      := internal/daemon/shimbin/skiff-shim

.PHONY: parity clients help build demo test test-unit test-root test-vm test-vm-short test-race test-race-short lint bench bench-api bench-launch fuzz fuzz-short golden clean deps

help: ## list the tasks
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

build: ## bin/skiff, bin/skiff-build, bin/skiffd (with skiff-shim inside)
	@mkdir -p bin
	$(BUILD) -ldflags '$(LDFLAGS)' -o bin/skiff-shim ./cmd/skiff-shim
	@ln -sf skiff-shim bin/skiff-runtime
	@cmp -s bin/skiff-shim $(SHIM) || cp bin/skiff-shim $(SHIM)
	$(BUILD) -ldflags '$(LDFLAGS)' -tags embedshim -o bin/skiffd ./cmd/skiffd
	$(BUILD) -ldflags '$(LDFLAGS)' -o bin/skiff ./cmd/skiff
	$(BUILD) -ldflags '$(LDFLAGS)' -o bin/skiff-build ./cmd/skiff-build

deps: ## install the Debian packages that demo, tests and benchmarks use
	@scripts/deps.sh $(DEPS)

demo: deps build ## build an image, run it, publish, push, pull: the tour (as root)
	@scripts/demo.sh

test: deps build test-unit test-root test-vm test-race-short fuzz-short ## everything; what CI runs (as root)

test-unit: ## unit tests, no root needed
	$(GO) vet ./...
	$(GO) test ./...

test-root: ## kernel and end-to-end tests on the built binaries (as root)
	scripts/test-root.sh

test-vm: build ## root tests in a virtual machine: control groups v2, AppArmor (PKGS=… RUN=… SYSTEMD=1 SELINUX=1 VM_PACKAGES=…)
	PKGS="$(PKGS)" RUN="$(RUN)" SYSTEMD="$(SYSTEMD)" SELINUX="$(SELINUX)" V="$(V)" VM_PACKAGES="$(VM_PACKAGES)" scripts/test-vm.sh

test-vm-short: build ## those of them that take two minutes
	LIST=scripts/vm/list-short scripts/test-vm.sh

test-race: ## the shim's tests with the shim under the race detector (as root, needs gcc)
	SKIFF_RACE=1 $(GO) test -tags root -count=1 -timeout 20m ./internal/runtime/shim

test-race-short: ## three minutes of that, and the unit tests of what runs side by side
	@command -v gcc >/dev/null || { echo "test-race-short: SKIPPED, there is no gcc for the race detector" >&2; exit 0; }; \
	CGO_ENABLED=1 $(GO) test -race -timeout 5m ./internal/runtime/shim ./internal/runtime/oci && \
	SKIFF_RACE=1 $(GO) test -tags root -count=1 -timeout 10m -run '$(RACE)' ./internal/runtime/shim

clients: build ## build compose, buildx and testcontainers-go, minutes; then test with them (as root)
	scripts/clients.sh
	SKIFF_BIN="$(CURDIR)/bin" $(GO) test -tags root -count=1 -timeout 20m ./test/clients

parity: build ## the same scripts on dockerd and skiffd (as root; DOCKERD=path)
	SKIFF_BIN="$(CURDIR)/bin" DOCKERD="$(DOCKERD)" $(GO) test -tags root -count=1 -v -timeout 30m -run '$(or $(RUN),TestParity)' ./test/parity

lint: ## golangci-lint with the house rules
	scripts/lint.sh

bench: build ## side by side with the engines that are installed (as root)
	scripts/bench.sh
	scripts/bench-api.sh

bench-api: build ## the API beside dockerd's: 10, 100, 1000 containers, then load (as root; ARGS=…)
	scripts/bench-api.sh $(ARGS)

bench-launch: build ## the launcher beside runc, crun and bubblewrap (as root; PEERS=…)
	PEERS="$(PEERS)" scripts/bench-launch.sh

fuzz: ## each fuzz target for 20 s
	scripts/fuzz.sh

fuzz-short: ## what reads specifications and the shim's messages, for 5 s each
	FUZZTIME=5s scripts/fuzz.sh FuzzDecodeSpec FuzzCheck FuzzWire FuzzCompile FuzzDevices FuzzProperties FuzzMessage FuzzConversation

golden: ## rewrite the golden files
	UPDATE=1 $(GO) test ./...

clean: ## remove what build made
	rm -rf bin $(SHIM)
