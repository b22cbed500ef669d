package kube_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// noStall is what clients may wait for where nobody is made to: two cores are busy with a whole cluster.
const noStall = time.Second

// noLease is what clients may wait for in a planned event, however busy the two cores are: who waits longer waits for the lease to end.
const noLease = 15 * time.Second

// event is something that is done to the cluster, and what clients may see of it.
type event struct {
	rounds int
	do     func(t *testing.T, leader string)
	stall  time.Duration // the longest of any client; 0: noLease
	probe  []string
	broken bool // clients are cut off, and what they were told is what is shown
}

// try does it so often, under load, and returns the stalls, in order of length.
func (e event) try(t *testing.T) []time.Duration {
	t.Helper()
	t.Cleanup(func() { cluster.check(t) })
	l := startLoad(t, e.probe...)
	type span struct{ from, to time.Time }
	var spans []span
	for range e.rounds {
		leader, err := cluster.leader(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		from := time.Now()
		e.do(t, leader)
		if err := cluster.whole(t.Context()); err != nil {
			t.Fatal(err)
		}
		spans = append(spans, span{from, time.Now()})
	}
	report := l.stop(e.broken)
	if errors := report.Errors(); e.broken {
		t.Logf("%d errors: %q; %d of %d acknowledged writes are lost", len(errors), errors, report.Lost, report.Acknowledged)
	} else {
		for _, text := range errors {
			t.Error(text)
		}
		if report.Lost > 0 {
			t.Errorf("%d of %d acknowledged writes are lost", report.Lost, report.Acknowledged)
		}
	}
	var stalls []time.Duration
	for _, s := range spans {
		gap := report.Longest(s.from, s.to)
		t.Logf("stall %.2f s, %.2f s after the command", gap.Length().Seconds(), gap.From.Sub(s.from).Seconds())
		stalls = append(stalls, gap.Length())
	}
	slices.Sort(stalls)
	if worst, most := stalls[len(stalls)-1], cmp.Or(e.stall, noLease); worst > most {
		t.Errorf("stall of %s, at most %s is claimed", worst, most)
	}
	return stalls
}

func must(t *testing.T, out string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// another waits until somebody else than before holds the lock.
func another(t *testing.T, before string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := lab.Until(ctx, 200*time.Millisecond, "another leader", func(ctx context.Context) error {
		leader, err := cluster.leader(ctx)
		if err == nil && leader == before {
			err = fmt.Errorf("it is still %s", leader)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSwitchover(t *testing.T) {
	event{rounds: rounds(2, 5), do: func(t *testing.T, leader string) {
		out, err := cluster.patronictl(t.Context(), "switchover", "--force")
		must(t, out, err)
		another(t, leader)
	}}.try(t)
}

func TestDeletePrimary(t *testing.T) {
	event{rounds: rounds(2, 5), do: func(t *testing.T, leader string) {
		out, err := cluster.Kubectl(t.Context(), "", "delete", "pod", leader)
		must(t, out, err)
	}}.try(t)
}

func TestRestartInPlace(t *testing.T) {
	event{rounds: rounds(1, 3), do: func(t *testing.T, leader string) {
		out, err := cluster.patronictl(t.Context(), "restart", "cluster", leader, "--force")
		must(t, out, err)
	}}.try(t)
}

func TestRolloutMembers(t *testing.T) {
	event{rounds: rounds(1, 2), do: func(t *testing.T, _ string) {
		out, err := cluster.Kubectl(t.Context(), "", "rollout", "restart", "statefulset/cluster")
		must(t, out, err)
		out, err = cluster.Kubectl(t.Context(), "", "rollout", "status", "statefulset/cluster", "--timeout=300s")
		must(t, out, err)
	}}.try(t)
}

func rolloutPoolers(t *testing.T) {
	out, err := cluster.Kubectl(t.Context(), "", "rollout", "restart", "deployment/pgbouncer")
	must(t, out, err)
	out, err = cluster.Kubectl(t.Context(), "", "rollout", "status", "deployment/pgbouncer", "--timeout=300s")
	must(t, out, err)
}

// Clients whose connections have a lifetime leave a pooler that goes, before it ends.
func TestRolloutPoolers(t *testing.T) {
	event{rounds: 1, probe: []string{"-lifetime", "5s"}, do: func(t *testing.T, _ string) { rolloutPoolers(t) }}.try(t)
}

// A switchover while the old poolers wait for their clients to leave: those can be paused as before.
func TestSwitchoverAfterRollout(t *testing.T) {
	event{rounds: 1, probe: []string{"-lifetime", "5s"}, do: func(t *testing.T, leader string) {
		rolloutPoolers(t)
		out, err := cluster.patronictl(t.Context(), "switchover", "--force")
		must(t, out, err)
		another(t, leader)
	}}.try(t)
}

// Poolers that start during a switchover are held and let go with the others.
func TestScaleDuringSwitchover(t *testing.T) {
	event{rounds: 1, probe: []string{"-lifetime", "2s"}, do: func(t *testing.T, leader string) {
		scaled := make(chan error, 1)
		go func() {
			_, err := cluster.Kubectl(context.Background(), "", "scale", "deployment/pgbouncer", "--replicas=4")
			scaled <- err
		}()
		out, err := cluster.patronictl(t.Context(), "switchover", "--force")
		must(t, out, err)
		must(t, "scale", <-scaled)
		another(t, leader)
		out, err = cluster.Kubectl(t.Context(), "", "rollout", "status", "deployment/pgbouncer", "--timeout=120s")
		must(t, out, err)
	}}.try(t)
	out, err := cluster.Kubectl(t.Context(), "", "scale", "deployment/pgbouncer", "--replicas=2")
	must(t, out, err)
}

// A drain: the eviction of the primary's pod, which a PodDisruptionBudget allows while the other members are there, and not a second one.
func TestEvictPrimary(t *testing.T) {
	event{rounds: 1, do: func(t *testing.T, leader string) {
		out, err := cluster.evict(t.Context(), leader)
		must(t, out, err)
		pods, err := cluster.pods(t.Context(), members)
		must(t, "pods", err)
		for _, p := range pods {
			if p.Metadata.Name == leader {
				continue
			}
			if out, err := cluster.evict(t.Context(), p.Metadata.Name); err == nil {
				t.Errorf("a second member was evicted while the first one was away: %s", out)
			}
		}
	}}.try(t)
}

// containerID is the containerd's name of a pod's container as it runs now.
func containerID(t *testing.T, pod, container string) string {
	t.Helper()
	id, err := cluster.Kubectl(t.Context(), "", "get", "pod", pod, "--output",
		`jsonpath={.status.containerStatuses[?(@.name=="`+container+`")].containerID}`)
	must(t, id, err)
	return strings.TrimPrefix(id, "containerd://")
}

// More CPU for the primary's pod: its container goes on.
func TestResizeInPlace(t *testing.T) {
	event{rounds: 1, stall: noStall, do: func(t *testing.T, leader string) {
		before := containerID(t, leader, "patroni")
		out, err := cluster.Kubectl(t.Context(), "", "patch", "pod", leader, "--subresource", "resize", "-p",
			`{"spec": {"containers": [{"name": "patroni", "resources": {"requests": {"cpu": "150m"}}}]}}`)
		must(t, out, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err = lab.Until(ctx, 500*time.Millisecond, "the pod to have what it asks for", func(ctx context.Context) error {
			out, err := cluster.Kubectl(ctx, "", "get", "pod", leader, "--output",
				`jsonpath={.status.containerStatuses[?(@.name=="patroni")].resources.requests.cpu}`)
			if err == nil && out != "150m" {
				err = fmt.Errorf("it has %s", out)
			}
			return err
		})
		must(t, "resize", err)
		if after := containerID(t, leader, "patroni"); after != before {
			t.Errorf("another container: %s, %s before", after, before)
		}
	}}.try(t)
}
