# What a developer runs. Only Go is needed beforehand; the rest comes from Debian.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
GOFLAGS_BUILD = -trimpath -ldflags "-s -w -X main.version=$(VERSION)"
STATICCHECK = go run honnef.co/go/tools/cmd/staticcheck@v0.8.2
SHELL_SCRIPTS = $(shell git ls-files -co --exclude-standard '*.sh' .ci/run e2e/runbook scripts | xargs grep -lE '^\#!.*sh' 2>/dev/null | sort -u)
# Without root, by sudo.
APT = $(if $(filter 0,$(shell id -u)),,sudo )apt-get
UNIT = $(shell go list ./... | grep -v /e2e)

.PHONY: all build vet lint shellcheck unit roots manifests client fuzz e2e e2e-full test demo demo-down clean

all: build

build:
	CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build $(GOFLAGS_BUILD) -o dist/linux_amd64/pgbaton ./cmd/pgbaton
	CGO_ENABLED=0 GOOS=linux GOARCH=arm64 go build $(GOFLAGS_BUILD) -o dist/linux_arm64/pgbaton ./cmd/pgbaton

# The demo is a module of its own, so that its plot library is not the product's.
vet:
	go vet ./...
	cd e2e/demo && go vet ./...

lint: vet shellcheck
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); test -z "$$unformatted" || { echo "gofmt: $$unformatted"; exit 1; }
	$(STATICCHECK) ./...
	cd e2e/demo && $(STATICCHECK) ./...

# SC1091: what a script sources is on the machine it runs on.
shellcheck:
	@command -v shellcheck >/dev/null || { $(APT) update -q && $(APT) install -qy --no-install-recommends shellcheck; }
	shellcheck -e SC1091 $(SHELL_SCRIPTS)

# Real servers answer these, so no result is taken from Go's cache, and some are about milliseconds, so one package is run at a time. Debian 12's PgBouncer 1.18 is one of them.
unit: roots
	@test -x /usr/sbin/pgbouncer || { $(APT) update -q && $(APT) install -qy --no-install-recommends pgbouncer; }
	@command -v curl >/dev/null || { $(APT) update -q && $(APT) install -qy --no-install-recommends curl; }
	go test -race -count=1 -p 1 $(UNIT)

# The file systems that real servers run in: made on first use, needs root.
roots:
	scripts/lab-root.sh trixie
	scripts/lab-root.sh sid

# A module of its own, so that the Kubernetes types are not the product's.
manifests:
	cd manifests/check && go vet ./... && go test -count=1 ./...

# Another one: a client that is generated from the document that a running serve hands out.
client: roots
	cd e2e/client && go run ./generate && go vet ./... && go test -count=1 ./...

# What reads what others write, fed with what nobody would write: a minute for requests, less for files.
FUZZTIME ?= 60s
fuzz:
	scripts/fuzz.sh ./httpapi FuzzRequests $(FUZZTIME)
	scripts/fuzz.sh ./pgb FuzzReadFile 10s
	scripts/fuzz.sh ./pgb FuzzConsole 10s
	scripts/fuzz.sh ./configversion FuzzLine 10s
	scripts/fuzz.sh ./httpapi FuzzParseTokens 10s

# One package at a time: what is measured shares two cores with nothing else. -v shows the figures.
e2e: roots
	go test -count=1 -p 1 -timeout 20m $$(go list ./e2e/... | grep -v '/e2e$$')
	cd e2e/demo && go test -count=1 -timeout 20m ./...
	go test -count=1 -timeout 90m -v ./e2e

e2e-full: roots
	go test -count=1 -timeout 240m -v ./e2e -full

test: lint build unit manifests client fuzz e2e

demo:
	go run -C e2e/demo . $(if $(SUITE),-suite $(SUITE))

demo-down:
	go run -C e2e/demo . down

clean:
	rm -rf bin dist demo-report
