# What a developer runs. Only Go is needed beforehand; the rest comes from Debian.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
GOFLAGS_BUILD = -trimpath -ldflags "-s -w -X main.version=$(VERSION)"
STATICCHECK = go run honnef.co/go/tools/cmd/staticcheck@v0.8.2
SHELL_SCRIPTS = $(shell git ls-files -co --exclude-standard '*.sh' .ci/run e2e/runbook scripts | xargs grep -lE '^\#!.*sh' 2>/dev/null | sort -u)
# Without root, by sudo.
APT = $(if $(filter 0,$(shell id -u)),,sudo )apt-get
UNIT = $(shell go list ./... | grep -v /e2e)

.PHONY: all build vet lint shellcheck unit e2e e2e-full test demo demo-down clean

all: build

build:
	CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build $(GOFLAGS_BUILD) -o dist/linux_amd64/pgbaton ./cmd/pgbaton
	CGO_ENABLED=0 GOOS=linux GOARCH=arm64 go build $(GOFLAGS_BUILD) -o dist/linux_arm64/pgbaton ./cmd/pgbaton

vet:
	go vet ./...

lint: vet shellcheck
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); test -z "$$unformatted" || { echo "gofmt: $$unformatted"; exit 1; }
	$(STATICCHECK) ./...

# SC1091: what a script sources is on the machine it runs on.
shellcheck:
	@command -v shellcheck >/dev/null || { $(APT) update -q && $(APT) install -qy --no-install-recommends shellcheck; }
	shellcheck -e SC1091 $(SHELL_SCRIPTS)

unit:
	go test -race $(UNIT)

# The real programs in a lab of their own; needs root. The lab's roots are made on first use.
e2e:
	go test -count=1 -timeout 60m ./e2e/...

e2e-full:
	go test -count=1 -timeout 60m $$(go list ./e2e/... | grep -v '/e2e$$')
	go test -count=1 -timeout 240m ./e2e -full

test: lint build unit e2e

demo:
	go run ./e2e/demo $(if $(SUITE),-suite $(SUITE))

demo-down:
	go run ./e2e/demo down

clean:
	rm -rf bin dist demo-report
