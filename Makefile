# make help lists the targets.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
FUZZTIME ?= 60s

# The go.mod says which Go is needed; another one is not downloaded behind your back.
export GOTOOLCHAIN = local

.PHONY: help build check lint race test interop interop-vault test-vm fuzz bench demo notices picture deps deps-vm clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the static ./cryptctl
	CGO_ENABLED=0 GOEXPERIMENT=runtimesecret $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o cryptctl ./cmd/cryptctl

check: lint race ## formatting, vet, staticcheck, and the tests under the race detector

lint:
	@out=$$($(GO) tool gofumpt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "gofumpt would change:"; echo "$$out"; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) vet -tags vm ./test/vm/...
	$(GO) tool staticcheck -tags vm ./test/vm/...
	GOOS=darwin $(GO) build ./...
	cd test/interop && $(GO) vet ./...

race: deps # with a part of the power cuts: all of them take minutes here
	$(GO) test -race -short ./...

test: deps ## all tests; as root it installs the Debian packages they need
	$(GO) test ./...
	@$(MAKE) --no-print-directory interop

interop: # cryptsetup and the libraries of others as judges
	cd test/interop && $(GO) test -v ./... >interop.log 2>&1 || { cat interop.log; exit 1; }
	@grep -E '^(ok|---|    ---) |SUMMARY' test/interop/interop.log | grep -v '    --- PASS' || true

interop-vault: ## a real Vault as judge: compiles it, 3 to 5 minutes and 800 MB the first time
	cd test/interop/vault && $(GO) vet . && $(GO) test -v . >vault.log 2>&1 || { cat vault.log; exit 1; }
	@grep -E '^(ok|---) ' test/interop/vault/vault.log

test-vm: deps-vm ## the scenarios in virtual machines, on a real kernel
	$(GO) test -tags vm -count=1 -timeout 30m -v ./test/vm/... >test/vm/vm.log 2>&1 || { cat test/vm/vm.log; exit 1; }
	@grep -E '^(ok|---) |SUMMARY' test/vm/vm.log

fuzz: ## run every fuzz target for FUZZTIME (60s)
	@set -e; found=0; for pkg in $$($(GO) list ./...); do \
		list=$$($(GO) test -list '^Fuzz' $$pkg); \
		for target in $$(echo "$$list" | grep '^Fuzz' || true); do \
			found=$$((found + 1)); echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$pkg; \
		done; \
	done; echo "$$found fuzz targets"; test $$found -gt 0

bench: build ## measure against cryptsetup; takes minutes
	$(GO) run ./bench -cryptctl ./cryptctl

demo: build ## do the main job on a disk image, without root
	demo/run.sh ./cryptctl

notices: ## write THIRD_PARTY_NOTICES anew, from what the program links
	$(GO) test ./cmd/cryptctl -run '^TestNotices$$' -update

picture: ## draw the packages in docs/architecture.md anew, from its table
	$(GO) test ./cmd/cryptctl -run '^TestPicture$$' -update

deps: # what the tests need of Debian
	@test/packages.sh test/packages.txt probe/testdata/packages.txt test/interop/packages.txt

deps-vm: # what the virtual machines need of Debian
	@test/packages.sh test/vm/packages.txt

clean: ## remove what the build made
	rm -f cryptctl test/interop/interop.log test/interop/vault/vault.log test/vm/vm.log
