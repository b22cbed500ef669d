package kube_test

import (
	"context"
	"flag"
	"path/filepath"
	"strings"
	"testing"
)

var definitions = flag.String(
	"definitions",
	"",
	"folder with the operators' own CustomResourceDefinitions: SGCluster.yaml and SGDbOps.yaml of "+
		"StackGres, postgresql.crd.yaml of Zalando's operator",
)

// TestCustomResources has the API server check the overlays against the operators' own definitions, which are not ours to ship. Nothing is
// created of them: their operators are not here.
func TestCustomResources(t *testing.T) {
	if *definitions == "" {
		t.Skip("-definitions names no folder")
	}
	found, err := filepath.Glob(filepath.Join(*definitions, "*.yaml"))
	must(t, *definitions, err)
	if len(found) == 0 {
		t.Fatalf("no definition in %s", *definitions)
	}
	for _, file := range found {
		out, err := cluster.Kubectl(t.Context(), "", "create", "--filename", file)
		must(t, out, err)
		t.Cleanup(func() {
			out, err := cluster.Kubectl(context.Background(), "", "delete", "--filename", file)
			must(t, out, err)
		})
		out, err = cluster.Kubectl(t.Context(), "", "wait", "--filename", file, "--for=condition=Established", "--timeout=60s")
		must(t, out, err)
	}
	for overlay, kinds := range map[string][]string{"stackgres": {"sgcluster", "sgdbops"}, "spilo": {"postgresql"}} {
		dir := filepath.Join(cluster.manifests, "overlays", overlay)
		out, err := cluster.Kubectl(t.Context(), "", "apply", "--dry-run=server", "--validate=strict", "-k", dir)
		must(t, out, err)
		if overlay == "stackgres" {
			more, err := cluster.Kubectl(t.Context(), "", "create", "--dry-run=server", "--validate=strict", "--filename",
				filepath.Join(dir, "restart.yaml"))
			must(t, more, err)
			out += more
		}
		t.Logf("%s:\n%s", overlay, out)
		for _, kind := range kinds {
			if !strings.Contains(out, kind+".") {
				t.Errorf("%s: no %s was looked at", overlay, kind)
			}
		}
	}
}
