package kube_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/kube/node"
	"github.com/pgbaton/pgbaton/e2e/lab"
)

// kube is the node with the manifests' cluster on it.
type kube struct {
	*node.Node
	made      string // folder
	manifests string // a copy of them, with passwords
	version   string // of pgbaton, the tag of its image
}

// pod is what we read of one.
type pod struct {
	Metadata struct {
		Name              string
		Annotations       map[string]string
		Labels            map[string]string
		DeletionTimestamp string
	}
	Status struct {
		Phase      string
		Conditions []struct{ Type, Status string }
	}
}

func (p pod) ready() bool {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True"
		}
	}
	return false
}

func (k *kube) pods(ctx context.Context, selector string) ([]pod, error) {
	out, err := k.Kubectl(ctx, "", "get", "pods", "--selector", selector, "--output", "json")
	if err != nil {
		return nil, err
	}
	var list struct{ Items []pod }
	return list.Items, json.Unmarshal([]byte(out), &list)
}

const members = "application=patroni,cluster-name=cluster"

// state is what Patroni with the Kubernetes DCS writes of a member into its pod's annotation.
type state struct {
	State            string
	Role             string
	ReplicationState string `json:"replication_state"`
	Timeline         int
}

// leader is who holds the lock, as Patroni's own object says.
func (k *kube) leader(ctx context.Context) (string, error) {
	out, err := k.Kubectl(ctx, "", "get", "endpoints", "cluster", "--output", "jsonpath={.metadata.annotations.leader}")
	if err == nil && out == "" {
		err = fmt.Errorf("nobody holds the lock")
	}
	return out, err
}

// whole waits until there is a leader, all members run, and two stream from it.
func (k *kube) whole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	return lab.Until(ctx, 300*time.Millisecond, "the cluster to be whole", func(ctx context.Context) error {
		leader, err := k.leader(ctx)
		if err != nil {
			return err
		}
		pods, err := k.pods(ctx, members)
		if err != nil {
			return err
		}
		streaming, timelines := 0, map[int]bool{}
		for _, p := range pods {
			var s state
			if err := json.Unmarshal([]byte(p.Metadata.Annotations["status"]), &s); err != nil {
				return fmt.Errorf("%s has no status yet: %w", p.Metadata.Name, err)
			}
			timelines[s.Timeline] = true
			switch {
			case !p.ready() || s.State != "running":
				return fmt.Errorf("%s: ready %t, %+v", p.Metadata.Name, p.ready(), s)
			case p.Metadata.Name != leader && s.ReplicationState == "streaming":
				streaming++
			}
		}
		if len(pods) != 3 || streaming != 2 || len(timelines) != 1 {
			return fmt.Errorf("%d members, %d stream, timelines %v", len(pods), streaming, timelines)
		}
		return nil
	})
}

// patronictl runs it in a member's container, as manifests/README.md writes it.
func (k *kube) patronictl(ctx context.Context, args ...string) (string, error) {
	leader, err := k.leader(ctx)
	if err != nil {
		return "", err
	}
	return k.Kubectl(ctx, "", append([]string{"exec", leader, "--container", "patroni", "--", "patronictl", "-c", "/etc/patroni/patroni.yml"},
		args...)...)
}

// unpaused checks that no pooler is paused, as pgbaton on each member sees them.
func (k *kube) unpaused(ctx context.Context) error {
	leader, err := k.leader(ctx)
	if err != nil {
		return err
	}
	out, err := k.Kubectl(ctx, "", "exec", leader, "--container", "patroni", "--", "/callbacks/pgbaton", "status", "--output", "json")
	var status struct {
		Poolers []struct {
			Pooler, Paused, Error string
		}
	}
	if problem := json.Unmarshal([]byte(out), &status); problem != nil {
		return fmt.Errorf("%w: %w: %s", err, problem, out)
	}
	if len(status.Poolers) == 0 {
		return fmt.Errorf("no pooler: %s", out)
	}
	for _, p := range status.Poolers {
		if p.Error != "" || p.Paused != "no" {
			return fmt.Errorf("pooler %s: paused %s, %s", p.Pooler, p.Paused, p.Error)
		}
	}
	return nil
}

// save writes what can be known of a cluster into a folder.
func (k *kube) save(dir string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir = filepath.Join(dir, "pgbaton-kube-logs", time.Now().Format("150405"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return
	}
	_ = k.SaveLogs(filepath.Join(dir, "node"))
	for name, args := range map[string][]string{
		"pods.txt":   {"describe", "pods"},
		"events.txt": {"get", "events", "--sort-by=.lastTimestamp"},
		"list.txt":   {"get", "all,endpoints", "--output", "wide"},
	} {
		out, err := k.Kubectl(ctx, "", args...)
		_ = os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, "%s\n%v\n", out, err), 0o644)
	}
	for _, selector := range []string{members, "app=pgbouncer", "app=probe", "app=pgbench"} {
		pods, _ := k.pods(ctx, selector)
		for _, p := range pods {
			out, err := k.Kubectl(ctx, "", "logs", "--timestamps", "--all-containers", p.Metadata.Name)
			_ = os.WriteFile(filepath.Join(dir, p.Metadata.Name+".log"), fmt.Appendf(nil, "%s\n%v\n", out, err), 0o644)
		}
	}
	fmt.Println("logs are in", dir)
}

// noLogInRefused looks into the members' logs: every password that the manifests hand out is the right one, from wherever it is used.
func (k *kube) noLogInRefused(ctx context.Context) error {
	pods, err := k.pods(ctx, members)
	if err != nil {
		return err
	}
	for _, p := range pods {
		out, err := k.Kubectl(ctx, "", "logs", p.Metadata.Name, "--container", "patroni")
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			if strings.Contains(line, "password authentication failed") {
				return fmt.Errorf("%s: %s", p.Metadata.Name, line)
			}
		}
	}
	return nil
}

// check is what every test ends with: nothing is left of it.
func (k *kube) check(t *testing.T) {
	t.Helper()
	ctx := context.Background() // t.Context has ended in a cleanup
	if err := k.whole(ctx); err != nil {
		t.Error(err)
	}
	if err := k.unpaused(ctx); err != nil {
		t.Error(err)
	}
	if err := k.noLogInRefused(ctx); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		k.save(os.TempDir())
	}
}

// evict asks for what kubectl drain asks for.
func (k *kube) evict(ctx context.Context, pod string) (string, error) {
	body := fmt.Sprintf(`{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": %q, "namespace": "default"}}`, pod)
	return k.Kubectl(ctx, body, "create", "--raw", "/api/v1/namespaces/default/pods/"+pod+"/eviction", "-f", "-")
}
