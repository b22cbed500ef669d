package kube_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

const callerPod = `apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {LABEL}}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: caller
    image: debian:trixie
    command: [sleep, infinity]
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`

// connects reports whether a pod gets a TCP connection.
func connects(ctx context.Context, pod, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	_, err = cluster.Kubectl(ctx, "", "exec", pod, "--", "timeout", "3", "bash", "-c", "exec 3<>/dev/tcp/"+host+"/"+port)
	return err
}

// Who reaches whom, with the network's enforcement: an application without a label reaches nothing, one with a label what that is for.
func TestNetworkPolicies(t *testing.T) {
	t.Cleanup(func() { cluster.check(t) })
	const postgres, pooler = "cluster:5432", "pgbouncer:5432"
	const patroni, serve = "cluster-0.cluster-members:8008", "cluster-0.cluster-members:8009"
	for _, c := range []struct {
		name, label string
		reaches     []string
	}{
		{"stranger", "", nil},
		{"pooled", "database-client: pooled", []string{pooler}},
		{"direct", "database-client: direct", []string{postgres}},
		{"operator", "database-client: operator", []string{serve}},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := "caller-" + c.name
			out, err := cluster.Kubectl(t.Context(), strings.NewReplacer("NAME", pod, "LABEL", c.label).Replace(callerPod), "apply", "-f", "-")
			must(t, out, err)
			t.Cleanup(func() {
				out, err := cluster.Kubectl(context.Background(), "", "delete", "pod", pod)
				must(t, out, err)
			})
			out, err = cluster.Kubectl(t.Context(), "", "wait", "pod/"+pod, "--for=condition=Ready", "--timeout=60s")
			must(t, out, err)
			for _, to := range c.reaches { // the network learns of the pod a moment after it is Ready
				waiting, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				must(t, to, lab.Until(waiting, 300*time.Millisecond, fmt.Sprintf("%s to reach %s", pod, to), func(ctx context.Context) error {
					return connects(ctx, pod, to)
				}))
				cancel()
			}
			for _, to := range []string{postgres, pooler, patroni, serve} {
				if !strings.Contains(strings.Join(c.reaches, " "), to) && connects(t.Context(), pod, to) == nil {
					t.Errorf("%s reaches %s", pod, to)
				}
			}
		})
	}
}
