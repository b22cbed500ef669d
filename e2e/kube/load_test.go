package kube_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
	"github.com/pgbaton/pgbaton/e2e/seen"
)

// load is an application and pgbench, both in pods, through the Service of the poolers.
type load struct {
	t     *testing.T
	logs  *exec.Cmd // follows the probe's, which are gone with its pod
	said  *bytes.Buffer
	began time.Time
}

// startLoad returns when clients write. args are the probe's.
func startLoad(t *testing.T, args ...string) *load {
	t.Helper()
	ctx := t.Context()
	l := &load{t: t, said: &bytes.Buffer{}}
	t.Cleanup(l.remove)
	words, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	l.kubectl(strings.ReplaceAll(probePod, "ARGS", string(words)), "apply", "-f", "-")
	l.kubectl("", "apply", "-k", pgbench(t))
	l.kubectl("", "wait", "pod/probe", "--for=condition=Ready", "--timeout=60s")
	l.logs = cluster.KubectlCommand(context.Background(), "logs", "--follow", "pod/probe")
	l.logs.Stdout = l.said
	if err := l.logs.Start(); err != nil {
		t.Fatal(err)
	}
	waiting, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	err = lab.Until(waiting, 500*time.Millisecond, "pgbench to work", func(ctx context.Context) error {
		out, err := cluster.Kubectl(ctx, "", "logs", "job/pgbench", "--container", "pgbench")
		if err == nil && !strings.Contains(out, "progress: ") {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	l.began = time.Now()
	return l
}

// pgbench is the manifests' load with another image, without an end of its own.
func pgbench(t *testing.T) string {
	own := filepath.Join(cluster.made, "load")
	text := `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
- ../manifests/pgbench
images:
- {name: postgres, newName: debian, newTag: trixie}
patches:
- target: {kind: Job, name: pgbench}
  patch: |
    - {op: replace, path: /spec/template/spec/containers/0/command/3, value: "86400"}
`
	if err := os.MkdirAll(own, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(own, "kustomization.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return own
}

// stop ends the load and says what it has seen. pgbench ends by itself at its first error, and where that is expected nobody asks.
func (l *load) stop(broken bool) seen.Report {
	l.t.Helper()
	ctx := context.Background()
	jobs, err := cluster.pods(ctx, "app=pgbench")
	if err != nil {
		l.t.Fatal(err)
	}
	for _, p := range jobs {
		if p.Status.Phase != "Running" && !broken {
			out, _ := cluster.Kubectl(ctx, "", "logs", p.Metadata.Name, "--container", "pgbench", "--tail", "15")
			l.t.Errorf("pgbench is %s: %s", p.Status.Phase, out)
		}
	}
	l.kubectl("", "delete", "pod/probe")
	ended := make(chan error, 1)
	go func() { ended <- l.logs.Wait() }()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		l.t.Fatal("the probe's log does not end")
	}
	l.logs = nil
	var report seen.Report
	if err := json.Unmarshal(l.said.Bytes(), &report); err != nil {
		l.t.Fatalf("the probe says %q: %v", l.said, err)
	}
	return report
}

// remove is for the end of a test, however it ends.
func (l *load) remove() {
	l.kubectl("", "delete", "pod/probe", "job/pgbench", "--ignore-not-found")
	if l.logs != nil && l.logs.Process != nil {
		_ = l.logs.Process.Kill()
		_ = l.logs.Wait()
	}
}

// kubectl fails the test where kubectl does; it goes on where the test's own context has ended.
func (l *load) kubectl(input string, args ...string) {
	l.t.Helper()
	out, err := cluster.Kubectl(context.Background(), input, args...)
	must(l.t, out, err)
}

const probePod = `apiVersion: v1
kind: Pod
metadata: {name: probe, labels: {app: probe, database-client: pooled}}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 70
  securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: probe
    image: probe:1
    args: ARGS
    env:
    - {name: PGHOST, value: pgbouncer}
    - {name: PGPORT, value: "5432"}
    - {name: PGUSER, value: postgres}
    - {name: PGDATABASE, value: postgres}
    - {name: PGPASSWORD, valueFrom: {secretKeyRef: {name: cluster-credentials, key: superuser-password}}}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
`
