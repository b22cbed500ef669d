package plan_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/plan"
)

// did is what a run has done: "restart m2", "switchover m1 m3", "restart m2 failed".
func did(steps ...string) []plan.Done {
	var done []plan.Done
	for _, s := range steps {
		f := strings.Fields(s)
		d := plan.Done{Step: plan.Step{Kind: f[0], Member: f[1]}, Outcome: plan.OutcomeDone}
		if d.Kind == plan.KindSwitchover {
			d.Candidate, f = f[2], f[1:]
		}
		if len(f) > 2 {
			d.Outcome = plan.Outcome(f[2])
		}
		done = append(done, d)
	}
	return done
}

// from is what a run has done while the primary was on a timeline.
func from(timeline int, done []plan.Done) []plan.Done {
	for i := range done {
		done[i].Timeline = timeline
	}
	return done
}

// led makes a member the primary of three.
func led(n int) func(*plan.View) {
	return func(v *plan.View) {
		for i := range v.Members {
			v.Members[i].Role, v.Members[i].State = "replica", "streaming"
			v.Members[i].Receive, v.Members[i].Replay = plan.Lag{Known: true}, plan.Lag{Known: true}
		}
		v.Members[n-1].Role, v.Members[n-1].State = "leader", "running"
	}
}

// nothing waits for a restart on a member any more.
func current(n int) func(*plan.View) {
	return at(n, func(m *plan.Member) { m.PendingRestart, m.Pending = false, nil })
}

func all(o plan.RestartOptions) plan.RestartOptions {
	o.Targets = []string{"m1", "m2", "m3"}
	return o
}

func decided(d plan.Decision, err error) string {
	switch {
	case err != nil:
		return "refused: " + id(err)
	case d.Wait != nil:
		return "wait: " + d.Wait.For
	case d.Step != nil:
		return strings.TrimSpace(d.Step.Kind + " " + d.Step.Member + " " + d.Step.Candidate)
	}
	return "over: " + d.Why
}

func TestNext(t *testing.T) {
	rolling, waiting := all(plan.RestartOptions{Rolling: true}), all(plan.RestartOptions{Pending: true})
	lagging := func(p plan.Policy) plan.RestartOptions {
		return all(plan.RestartOptions{Rolling: true, MaxReplayLag: plan.DefaultLimit(), IfLagging: p})
	}
	late := func(v *plan.View) { replaying(2, 1<<30)(v); replaying(3, 1<<29)(v) }
	for _, c := range []struct {
		name string
		view plan.View
		done []plan.Done
		o    plan.Options
		want string
	}{
		{"the first", three(), nil, rolling, "restart m2"},
		{"the second", three(), did("restart m2"), rolling, "restart m3"},
		{"the first has failed", three(), did("restart m2 failed"), rolling, "restart m2"},
		{"the first is not back", three(state(2, "starting")), did("restart m2"), rolling, "wait: m2 is starting"},
		{"the first does not answer", three(at(2, func(m *plan.Member) { m.Reachable = false })), did("restart m2"), rolling,
			"wait: m2 does not answer: its REST API is not reachable"},
		{"the first has not started", three(state(2, "start failed")), did("restart m2"), rolling, "wait: m2 is start failed"},
		{"the primary is away", three(state(1, "crashed")), did("restart m2"), rolling, "wait: m1 is crashed"},
		{"not known what became of it", three(), did("restart m2 unknown"), rolling, "refused: unsettled-step"},
		{"one is at work already", three(state(3, "restarting")), nil, rolling, "wait: m3 is restarting"},
		{"a target is down", three(state(3, "stopped")), nil, rolling, "refused: member-down"},
		{"another is down", three(state(3, "stopped")), nil, plan.RestartOptions{Members: []string{"m2"}}, "restart m2"},
		{"the candidate is chosen late", three(replaying(2, 5<<20)), did("restart m2", "restart m3"), rolling, "switchover m1 m3"},
		{"the old primary's start was enough", three(led(3)), did("restart m2", "restart m3", "switchover m1 m3"), rolling,
			"over: all are restarted"},
		{"and Patroni names what waited before it", three(pending(raised), led(3)), did("restart m2", "restart m3", "switchover m1 m3"),
			waiting, "over: all are restarted"},
		{"and names no parameters", three(pending(), led(3), current(2), current(3)), did("restart m2", "restart m3", "switchover m1 m3"),
			waiting, "restart m1"},
		{"not twice", three(pending(), led(3)), did("restart m2", "restart m3", "switchover m1 m3", "restart m1"), waiting,
			"over: all are restarted"},
		{"the primary in place, and Patroni names what waited before", three(pending(raised, lowered)),
			did("restart m2", "restart m3", "restart-in-place m1", "restart m2", "restart m3"), waiting, "over: all are restarted"},
		{"to be kept, and Patroni names what waited on the replicas", three(pending(raised)), did("restart m2", "restart m3"),
			all(plan.RestartOptions{Pending: true, KeepLeader: true}), "restart-in-place m1"},
		{"a failover in between", three(led(2)), did("restart m2"), rolling, "restart m1"},
		{"a failover to one that is not restarted", three(led(3)), did("restart m2"), rolling, "restart m1"},
		{"and then its turn", three(led(3)), did("restart m2", "restart m1"), rolling, "switchover m3 m1"},
		{"never two switchovers", three(led(3)), did("restart m2", "switchover m1 m2"), rolling, "restart-in-place m3"},
		{"one that failed counts if it has moved the leader", three(led(3)), did("restart m2", "switchover m1 m2 failed", "restart m1"),
			rolling, "restart-in-place m3"},
		{"and not if it has not", three(), did("restart m2", "restart m3", "switchover m1 m2 failed"), rolling, "switchover m1 m2"},
		{"it has, and the old primary is it again", three(), from(2, did("restart m2", "restart m3", "switchover m1 m2 failed")), rolling,
			"restart-in-place m1"},
		{"maintenance mode in between", three(func(v *plan.View) { v.Maintenance = true }), did("restart m2"), rolling,
			"refused: maintenance-mode"},
		{"somebody else's switchover", three(func(v *plan.View) { v.Scheduled = nil; v.Members[0].Role = "replica" }), did("restart m2"),
			rolling, "refused: no-leader"},
		{"asked to keep the leader", three(), did("restart m2", "restart m3"), all(plan.RestartOptions{KeepLeader: true}),
			"restart-in-place m1"},
		{"no fit candidate", three(tag(2, "nofailover", true), tag(3, "nofailover", true)), did("restart m2", "restart m3"), rolling,
			"restart-in-place m1"},
		{"the one asked for is not fit", three(tag(3, "nofailover", true)), did("restart m2", "restart m3"),
			all(plan.RestartOptions{Candidate: "m3"}), "refused: candidate-unfit"},
		{"lagging, wait", three(late), did("restart m2", "restart m3"), lagging(plan.PolicyWait),
			"wait: m3 has 512MB to replay (at most 16MB)"},
		{"lagging, wait is the default", three(late), did("restart m2", "restart m3"), lagging(""),
			"wait: m3 has 512MB to replay (at most 16MB)"},
		{"lagging, in place", three(late), did("restart m2", "restart m3"), lagging(plan.PolicyInPlace), "restart-in-place m1"},
		{"lagging, refuse", three(late), did("restart m2", "restart m3"), lagging(plan.PolicyRefuse), "refused: replica-lagging"},
		{"one of them is not lagging", three(replaying(2, 1<<30)), did("restart m2", "restart m3"), lagging(plan.PolicyRefuse),
			"switchover m1 m3"},
		{"paused, wait", three(at(2, func(m *plan.Member) { m.ReplayPaused = true }), tag(3, "nofailover", true)),
			did("restart m2", "restart m3"), lagging(plan.PolicyWait),
			"wait: m2 has its replay paused (SELECT pg_wal_replay_resume() on it)"},
		{"paused, in place", three(at(2, func(m *plan.Member) { m.ReplayPaused = true }), tag(3, "nofailover", true)),
			did("restart m2", "restart m3"), lagging(plan.PolicyInPlace), "restart-in-place m1"},
		{"a larger parameter on the primary alone", three(pending(raised)), nil,
			plan.RestartOptions{Members: []string{"m1"}, KeepLeader: true}, "refused: replicas-first"},
		{"and by switchover", three(pending(raised)), nil, plan.RestartOptions{Members: []string{"m1"}}, "switchover m1 m2"},
		{"a smaller parameter on a replica alone", three(pending(lowered)), nil, plan.RestartOptions{Members: []string{"m2"}},
			"refused: primary-first"},
		{"a smaller parameter and another one on a replica", three(pending(lowered, buffers)), nil,
			plan.RestartOptions{Members: []string{"m2"}}, "restart m2"},
		{"nobody is named", three(), nil, plan.RestartOptions{}, "refused: nothing-selected"},
		{"a name that there is not", three(), nil, plan.RestartOptions{Members: []string{"m9"}}, "refused: unknown-member"},
		{"nobody is older", three(), nil, plan.RestartOptions{OlderThan: 170005}, "over: no member needs a restart"},
		{"in a standby cluster", three(at(1, func(m *plan.Member) { m.Role = "standby_leader" })), nil, rolling, "refused: standby-cluster"},

		{"a switchover", three(), nil, plan.SwitchoverOptions{}, "switchover m1 m2"},
		{"it is done", three(led(2)), did("switchover m1 m2"), plan.SwitchoverOptions{}, "over: m2 is the primary"},
		{"it has failed, and has moved the leader", three(led(3)), did("switchover m1 m2 failed"), plan.SwitchoverOptions{},
			"over: m3 is the primary"},
		{"it has failed, and has not moved the leader", three(), from(3, did("switchover m1 m2 failed")), plan.SwitchoverOptions{},
			"switchover m1 m2"},
		{"it has failed, and the old primary is it again", three(), from(2, did("switchover m1 m2 failed")), plan.SwitchoverOptions{},
			"refused: switched-back"},
		{"to the primary", three(), nil, plan.SwitchoverOptions{Candidate: "m1"}, "over: m1 is the primary already"},
		{"from here", three(), nil, plan.SwitchoverOptions{From: "m1"}, "switchover m1 m2"},
		{"from here, and it is elsewhere", three(), nil, plan.SwitchoverOptions{From: "m3"}, "over: m3 is not the primary, m1 is"},
		{"from nowhere", three(), nil, plan.SwitchoverOptions{From: "m9"}, "refused: unknown-member"},
		{"in place", three(), nil, plan.SwitchoverOptions{IfLagging: plan.PolicyInPlace}, "refused: invalid-options"},
		{"while one starts", three(state(3, "starting")), nil, plan.SwitchoverOptions{}, "wait: m3 is starting"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := decided(plan.Next(c.view, c.done, c.o)); got != c.want {
				t.Errorf("%s\nwanted %s", got, c.want)
			}
		})
	}
}

// TestForecastWaits: a plan says what would have to be waited for, and goes on behind it.
func TestForecastWaits(t *testing.T) {
	v := three(replaying(2, 1<<30), replaying(3, 1<<29), state(3, "starting"))
	o := plan.RestartOptions{Rolling: true, MaxReplayLag: plan.DefaultLimit()}
	p, err := plan.Forecast(v, nil, o)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := lines(p), "restart m2, restart m3, switchover m1 m3"; got != want {
		t.Errorf("%s\nwanted %s", got, want)
	}
	if len(p.Waits) != 1 || p.Waits[0].For != "m3 is starting" {
		t.Errorf("waits %+v", p.Waits)
	}
	if v.Members[2].State != "starting" {
		t.Error("the view was changed")
	}
	s, err := plan.Forecast(three(replaying(2, 1<<30), replaying(3, 1<<29)), nil,
		plan.SwitchoverOptions{MaxReplayLag: plan.DefaultLimit()})
	if err != nil || lines(s) != "switchover m1 m3" || len(s.Waits) != 1 {
		t.Errorf("%s, %+v, %v", lines(s), s.Waits, err)
	}
}

func TestSettled(t *testing.T) {
	limit := plan.Limit{Bytes: 16 << 20}
	synchronous := func(v *plan.View) { v.Sync, v.Members[1].Role = plan.SyncOn, "sync_standby" }
	for _, c := range []struct {
		name        string
		before, now plan.View
		who         string
		waits       string
	}{
		{"as before", three(), three(), "m2", ""},
		{"gone", three(), three(func(v *plan.View) { v.Members = v.Members[:1] }), "m2", "m2 is back in the cluster"},
		{"no primary", three(), three(at(1, func(m *plan.Member) { m.Role = "replica" })), "m2", "somebody is primary"},
		{"starting", three(), three(state(2, "starting")), "m2", "m2 is up: it is starting"},
		{"silent", three(), three(at(2, func(m *plan.Member) { m.Reachable = false })), "m2",
			"m2 is up: it does not answer: its REST API is not reachable"},
		{"not connected yet", three(), three(at(2, func(m *plan.Member) { m.State, m.PatroniVersion = "running", "4.0.7" })), "m2",
			"m2 streams"},
		{"position not known", three(), three(at(2, func(m *plan.Member) { m.Receive = plan.Lag{} })), "m2", "m2 streams"},
		{"old timeline", three(), three(at(2, func(m *plan.Member) { m.Timeline = 2 })), "m2", "m2 is on timeline 3"},
		{"behind", three(), three(replaying(2, 17<<20)), "m2", "m2 has replayed: it has 17MB to replay (at most 16MB)"},
		{"delayed, as before", three(replaying(2, 1<<29)), three(replaying(2, 1<<30)), "m2", ""},
		{"the primary itself", three(), three(), "m1", ""},
		{"an old primary", three(), three(led(2), replaying(1, 1<<30)), "m1", "m1 has replayed: it has 1GB to replay (at most 16MB)"},
		{"an old primary that is delayed now", three(), three(led(2), replaying(1, 1<<30),
			at(1, func(m *plan.Member) { m.ApplyDelay = time.Hour })), "m1", ""},
		{"and does not stream", three(), three(led(2), state(1, "running"),
			at(1, func(m *plan.Member) { m.ApplyDelay, m.PatroniVersion = time.Hour, "4.0.7" })), "m1", "m1 streams"},
		{"synchronous again", three(synchronous), three(synchronous), "m2", ""},
		{"not yet", three(synchronous), three(func(v *plan.View) { v.Sync = plan.SyncOn }), "m2",
			"0 of 1 synchronous standbys are there"},
		{"another one instead", three(synchronous), three(func(v *plan.View) { v.Sync, v.Members[2].Role = plan.SyncOn, "sync_standby" }),
			"m2", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			ok, waits := plan.Settled(c.before, c.now, c.who, limit)
			if waits != c.waits || ok != (c.waits == "") {
				t.Errorf("%v, %q; wanted %q", ok, waits, c.waits)
			}
		})
	}
	if ok, _ := plan.Settled(three(), three(replaying(2, 17<<20)), "m2", plan.Limit{}); ok {
		t.Error("without a limit a replica 17 MB behind is back")
	}
}

func TestLimit(t *testing.T) {
	for s, want := range map[string]plan.Limit{
		"8192": {Bytes: 8192}, "64MB": {Bytes: 64 << 20}, "16MiB": {Bytes: 16 << 20}, "1 GB": {Bytes: 1 << 30}, "2tb": {Bytes: 2 << 40},
		"30s": {Age: 30 * time.Second}, "1h30m": {Age: 90 * time.Minute},
	} {
		got, err := plan.ParseLimit(s)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
		if again, err := plan.ParseLimit(got.String()); err != nil || again != got {
			t.Errorf("%q is written as %q, which is read as %+v, %v", s, got, again, err)
		}
	}
	for _, s := range []string{"", "0", "0s", "-1", "-5s", "MB", "5parsecs", "9999999TB", "99999999999999999999", "1.5GB"} {
		if got, err := plan.ParseLimit(s); err == nil {
			t.Errorf("%q is read as %+v", s, got)
		}
	}
}

func TestVersion(t *testing.T) {
	for s, want := range map[string]int{"17.5": 170005, "9.6.24": 90624, "17": 170000, "18.0": 180000} {
		if got, err := plan.ParseVersion(s); err != nil || got != want {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "x", "17.", "17.5.1", "9.6", "9", "-17", "17.100", "1234", "17beta1"} {
		if got, err := plan.ParseVersion(s); err == nil {
			t.Errorf("%q is read as %d", s, got)
		}
	}
}
