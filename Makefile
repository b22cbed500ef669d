# What a developer runs. Only Go is needed beforehand; the rest comes from Debian.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
GOFLAGS_BUILD = -trimpath -ldflags "-s -w -X main.version=$(VERSION)"
STATICCHECK = go run honnef.co/go/tools/cmd/staticcheck@v0.8.2
SHELL_SCRIPTS = $(shell git ls-files -co --exclude-standard '*.sh' .ci/run e2e/runbook scripts | xargs grep -lE '^\#(!.*sh| shellcheck shell=)' 2>/dev/null | sort -u)
TIMES = $(CURDIR)/bin/times.json
GOTEST_BINARY = $(CURDIR)/bin/gotest
GOTEST = $(GOTEST_BINARY) -times $(TIMES) --
# maintenance/real is whole clusters: e2e-full runs it.
UNIT = $(shell go list ./... | grep -vE '/e2e|/maintenance/real$$')
# Those that meet no server and measure nothing but themselves.
PURE = $(shell go list ./api ./config/... ./configversion ./docs ./file ./scripts/...)

.PHONY: all build vet lint shellcheck tools unit unit-servers unit-pure race roots manifests client packages packages-check release bench dashboard-picture fuzz e2e e2e-lab e2e-alone e2e-packages e2e-together e2e-full test kube kube-full demo-kube demo demo-down clean

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
shellcheck: tools
	shellcheck -e SC1091 $(SHELL_SCRIPTS)

# What is not Go's.
tools:
	@scripts/tools.sh

# It keeps the times of all tests, for the table at the end.
$(GOTEST_BINARY): $(wildcard scripts/gotest/*.go)
	go build -o $@ ./scripts/gotest

# Real servers answer these, so no result is taken from Go's cache, and some are about milliseconds, so one package is run at a time.
unit: unit-servers unit-pure

unit-servers: roots $(GOTEST_BINARY)
	$(GOTEST) -race -count=1 -p 1 $(filter-out $(PURE),$(UNIT))
	$(GOTEST) -count=1 -p 3 -run Hostile ./patroni ./pgb ./postgres

unit-pure: $(GOTEST_BINARY)
	nice -n 19 $(GOTEST) -race -count=1 -p 2 $(PURE)

# What unit takes long to compile, without running it.
race:
	go build -race ./...

# The file systems that real servers run in: made on first use, side by side; needs root.
roots: tools
	@scripts/lab-root.sh trixie & scripts/lab-root.sh sid; sid=$$?; wait $$! && exit $$sid

# A module of its own, so that the Kubernetes types are not the product's.
manifests: $(GOTEST_BINARY)
	cd manifests/check && go vet ./... && $(GOTEST) -count=1 ./...

# Another one: a client that is generated from the document that a running serve hands out.
client: roots $(GOTEST_BINARY)
	cd e2e/client && go run ./generate && go vet ./... && $(GOTEST) -count=1 ./...

# deb, rpm, image, list of modules and checksums, in dist/packages. Another module, so that nfpm is not the product's.
packages: build
	scripts/packages.sh $(VERSION)

# Install, purge, unpack and run them; needs root.
packages-check: packages roots $(GOTEST_BINARY)
	cd packaging && go vet ./... && nice $(GOTEST) -count=1 $$(go list ./... | grep -v '/installed$$')

# The deb of make packages on a cluster under systemd, and nothing else of pgbaton.
e2e-packages: roots $(GOTEST_BINARY)
	cd packaging && $(GOTEST) -v -count=1 -timeout 10m ./installed

# A version's packages, from a clean commit that CHANGELOG.md knows: make release VERSION=v0.2.0
release:
	scripts/release.sh "$(VERSION)"

# The demo N times, and of its figures the median, in bench-report/.
N ?= 5
bench:
	for n in $$(seq $(N)); do go run -C e2e/demo . $(if $(SUITE),-suite $(SUITE)) -out $(CURDIR)/bench-report/$$n || exit 1; done
	go run -C e2e/demo . bench $(CURDIR)/bench-report

# docs/dashboard.png: the panels of monitoring/dashboard.json during a switchover and a restart, as a Prometheus answers.
dashboard-picture: roots
	go run -C e2e/demo . $(if $(SUITE),-suite $(SUITE)) dashboard $(CURDIR)/docs/dashboard.png

# What reads what others write, fed with what nobody would write: a minute for requests, less for files.
FUZZTIME ?= 60s
fuzz:
	nice -n 19 scripts/fuzz.sh ./httpapi FuzzRequests $(FUZZTIME)
	nice -n 19 scripts/fuzz.sh ./pgb FuzzReadFile 10s
	nice -n 19 scripts/fuzz.sh ./pgb FuzzConsole 10s
	nice -n 19 scripts/fuzz.sh ./configversion FuzzLine 10s
	nice -n 19 scripts/fuzz.sh ./httpapi FuzzParseTokens 10s

e2e: e2e-lab e2e-alone packages e2e-packages e2e-together

# What is measured shares two cores with nothing else. Cases of one suite follow one another, so that they can share a cluster. -v shows the figures.
e2e-alone: roots $(GOTEST_BINARY)
	cd e2e/demo && $(GOTEST) -count=1 -timeout 20m ./...
	$(GOTEST) -v -count=1 -timeout 40m ./e2e -cases alone -suites trixie $(E2E)
	$(GOTEST) -v -count=1 -timeout 40m ./e2e -cases alone -suites sid $(E2E)

# What waits, for a lease or for a lock to end, does so side by side.
e2e-together: roots $(GOTEST_BINARY)
	$(GOTEST) -v -count=1 -timeout 40m -parallel 3 ./e2e -cases together $(E2E)

# The lab itself.
e2e-lab: roots $(GOTEST_BINARY)
	$(GOTEST) -count=1 -p 1 -timeout 20m $$(go list ./e2e/... | grep -v '/e2e$$')

e2e-full: roots $(GOTEST_BINARY)
	$(GOTEST) -v -count=1 -timeout 240m -parallel 4 ./e2e -full
	$(GOTEST) -v -count=1 -timeout 40m ./maintenance/real

# First what measures nothing: packages are fetched and unpacked while Go compiles. Last what waits more than it works; what only works takes
# what that leaves.
test:
	rm -f $(TIMES)
	$(MAKE) tools $(GOTEST_BINARY)
	$(MAKE) -j3 --output-sync=target roots lint build manifests race client packages-check
	$(MAKE) unit-servers
	$(MAKE) e2e-alone
	$(MAKE) e2e-lab
	$(MAKE) e2e-packages
	$(MAKE) -j3 e2e-together fuzz unit-pure
	@$(GOTEST_BINARY) -times $(TIMES) -slowest 20

# A real Kubernetes of one node, in namespaces of its own; needs root. Kubernetes is built on first use, which takes as long as make test.
kube: roots packages
	scripts/kube-tools.sh
	cd e2e/kube && go vet ./... && go test -v -count=1 -timeout 60m ./...

kube-full: roots packages
	scripts/kube-tools.sh
	cd e2e/kube && go vet ./... && go test -v -count=1 -timeout 180m . -full

# The demo on that Kubernetes: a switchover and the deletion of the primary's pod. Its report is in demo-report, as that of make demo.
demo-kube: roots packages
	scripts/kube-tools.sh
	cd e2e/kube && go test -v -count=1 -timeout 60m -run '^TestDemo$$' . -demo $(CURDIR)/bin/demo-kube.json
	go run -C e2e/demo . kube $(CURDIR)/bin/demo-kube.json

demo:
	go run -C e2e/demo . $(if $(SUITE),-suite $(SUITE))

demo-down:
	go run -C e2e/demo . down

clean:
	rm -rf bin dist demo-report bench-report
