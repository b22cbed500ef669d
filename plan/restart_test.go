package plan_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/plan"
)

// three is a cluster of m1, the primary, and m2 and m3, streaming and caught up. change mends it for a case.
func three(change ...func(*plan.View)) plan.View {
	v := plan.View{MaximumLag: 1 << 20}
	for i, name := range []string{"m1", "m2", "m3"} {
		m := plan.Member{Name: name, Role: "replica", State: "streaming", Reachable: true, Timeline: 3, ServerVersion: 170005,
			Receive: plan.Lag{Known: true}, Replay: plan.Lag{Known: true}}
		if i == 0 {
			m.Role, m.State, m.Receive, m.Replay = "leader", "running", plan.Lag{}, plan.Lag{}
		}
		v.Members = append(v.Members, m)
	}
	for _, do := range change {
		do(&v)
	}
	return v
}

// at changes a member: 1 is m1.
func at(n int, do func(*plan.Member)) func(*plan.View) {
	return func(v *plan.View) { do(&v.Members[n-1]) }
}

// pending gives all members parameters that wait for a restart: "max_connections 100 200".
func pending(changes ...string) func(*plan.View) {
	return func(v *plan.View) {
		for i := range v.Members {
			waits := map[string]patroni.Change{}
			for _, c := range changes {
				f := strings.Fields(c)
				waits[f[0]] = patroni.Change{Old: f[1], New: f[2]}
			}
			v.Members[i].PendingRestart, v.Members[i].Pending = true, maps.Clone(waits)
		}
	}
}

func replaying(n int, bytes int64) func(*plan.View) {
	return at(n, func(m *plan.Member) { m.Replay.Bytes = bytes })
}

// lines writes a plan as "restart m2, switchover m1 m3".
func lines(p plan.Plan) string {
	var all []string
	for _, s := range p.Steps {
		all = append(all, strings.TrimSpace(s.Kind+" "+s.Member+" "+s.Candidate))
	}
	return strings.Join(all, ", ")
}

const (
	raised  = "max_connections 100 200"
	lowered = "max_worker_processes 16 8"
	buffers = "shared_buffers 128MB 256MB"
)

func TestRestart(t *testing.T) {
	single := func(v *plan.View) { v.Members = v.Members[:1] }
	for _, c := range []struct {
		name string
		view plan.View
		o    plan.RestartOptions
		want string
	}{
		{"all", three(), plan.RestartOptions{Rolling: true}, "restart m2, restart m3, switchover m1 m2"},
		{"nothing is pending", three(), plan.RestartOptions{Pending: true}, ""},
		{"raised", three(pending(raised)), plan.RestartOptions{Pending: true}, "restart m2, restart m3, switchover m1 m2"},
		{"shared_buffers", three(pending(buffers)), plan.RestartOptions{Pending: true},
			"restart m2, restart m3, switchover m1 m2"},
		{"lowered", three(pending(lowered)), plan.RestartOptions{Pending: true}, "restart-in-place m1, restart m2, restart m3"},
		{"lowered, and shared_buffers", three(pending(lowered, buffers)), plan.RestartOptions{Pending: true},
			"restart-in-place m1, restart m2, restart m3"},
		{"both", three(pending(raised, lowered)), plan.RestartOptions{Pending: true},
			"restart m2, restart m3, restart-in-place m1, restart m2, restart m3"},
		{"not known what", three(pending()), plan.RestartOptions{Pending: true},
			"restart m2, restart m3, restart-in-place m1, restart m2, restart m3"},
		{"most lag first", three(pending(raised), replaying(3, 10<<20)), plan.RestartOptions{Pending: true},
			"restart m3, restart m2, switchover m1 m2"},
		{"the primary stays", three(pending(raised)), plan.RestartOptions{Pending: true, KeepLeader: true},
			"restart m2, restart m3, restart-in-place m1"},
		{"one member", three(single), plan.RestartOptions{Rolling: true}, "restart-in-place m1"},
		{"older", three(at(2, func(m *plan.Member) { m.ServerVersion = 170006 })), plan.RestartOptions{OlderThan: 170006},
			"restart m3, switchover m1 m2"},
		{"named", three(), plan.RestartOptions{Members: []string{"m3"}}, "restart m3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := plan.Forecast(c.view, nil, c.o)
			if err != nil {
				t.Fatal(err)
			}
			if got := lines(p); got != c.want {
				t.Errorf("%s\nwanted %s", got, c.want)
			}
		})
	}
}

// A change of the dynamic configuration while m3 starts has Patroni forget that m3 waits for a restart (4.0.7). It has kept the larger value
// of the primary of then all the same.
func TestSecondPassIsNotForgotten(t *testing.T) {
	done := did("restart m2", "restart m3", "restart-in-place m1")
	o := all(plan.RestartOptions{Pending: true})
	if got := decided(plan.Next(three(), done, o)); got != "over: all are restarted" {
		t.Errorf("nothing gets smaller: %s", got)
	}
	done[2].SecondPass = true
	for _, want := range []string{"restart m2", "restart m3", "over: all are restarted"} {
		got := decided(plan.Next(three(), done, o))
		if got != want {
			t.Errorf("after %v: %s, want %s", done, got, want)
		}
		if strings.HasPrefix(want, "restart") {
			done = append(done, did(want)...)
		}
	}
}
