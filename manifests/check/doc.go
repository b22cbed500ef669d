// Package check holds the manifests to what can be known without a cluster: they build, every
// object is what its API accepts, and every name and path in them leads somewhere. It is a module
// of its own, so that the Kubernetes types do not become dependencies of pgbaton.
//
// Run it with: cd manifests/check && go test -count=1 ./...
//
// -count=1 is needed: for its cache, go looks at the files of this module only, and would not see
// that a manifest has changed.
package check
