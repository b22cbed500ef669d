package plan_test

import (
	"errors"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/plan"
)

func tag(n int, name string, value any) func(*plan.View) {
	return at(n, func(m *plan.Member) { m.Tags = map[string]any{name: value} })
}

func state(n int, s string) func(*plan.View) { return at(n, func(m *plan.Member) { m.State = s }) }

// id is that of a refusal.
func id(err error) string {
	var refusal *plan.Refusal
	if errors.As(err, &refusal) {
		return refusal.ID
	}
	return ""
}

// TestAgainst: one thing that stands against m3, and what is said of it. m2 would do everywhere, and is tagged out of the way.
func TestAgainst(t *testing.T) {
	limit := plan.Limit{Bytes: 64 << 20}
	synchronous := func(v *plan.View) { v.Sync, v.Members[1].Role = plan.SyncOn, "sync_standby" }
	for _, c := range []struct {
		name  string
		do    func(*plan.View)
		limit plan.Limit
		says  string
		waits bool // it may get better by itself
	}{
		{"not reachable", at(3, func(m *plan.Member) { m.Reachable = false }), limit, "does not answer: its REST API is not reachable", false},
		{"nofailover", tag(3, "nofailover", true), limit, "has the tag nofailover", false},
		{"nofailover as text", tag(3, "nofailover", "yes"), limit, "has the tag nofailover", false},
		{"failover_priority 0", tag(3, "failover_priority", 0.0), limit, "has the tag nofailover", false},
		{"failover_priority as text", tag(3, "failover_priority", "-1"), limit, "has the tag nofailover", false},
		{"nofailover false counts over the priority", func(v *plan.View) {
			v.Members[2].Tags = map[string]any{"nofailover": false, "failover_priority": 0.0}
		}, limit, "", false},
		{"nostream", tag(3, "nostream", true), limit, "has the tag nostream, so it would not have the end of the WAL", false},
		{"watchdog", at(3, func(m *plan.Member) { m.WatchdogFailed = true }), limit,
			"has no watchdog that works, and may not be primary without", false},
		{"asynchronous", synchronous, limit, "is no synchronous standby", false},
		{"nobody is synchronous yet", func(v *plan.View) { v.Sync = plan.SyncOn }, limit, "is not a synchronous standby yet", true},
		{"never synchronous", func(v *plan.View) { v.Sync = plan.SyncQuorum; tag(3, "nosync", true)(v) }, limit,
			"is no synchronous standby", false},
		{"stopped", state(3, "stopped"), limit, "is stopped", false},
		{"start failed", state(3, "start failed"), limit, "is start failed", false},
		{"restarting", state(3, "restarting"), limit, "is restarting", true},
		{"from the archive", state(3, "in archive recovery"), limit, "is in archive recovery", true},
		{"runs and does not stream", at(3, func(m *plan.Member) { m.State, m.PatroniVersion = "running", "4.0.7" }), limit,
			"does not stream", true},
		{"an old Patroni does not say streaming", at(3, func(m *plan.Member) { m.State, m.PatroniVersion = "running", "3.0.3" }), limit,
			"", false},
		{"timeline", at(3, func(m *plan.Member) { m.Timeline = 2 }), limit, "is on timeline 2, and the primary on 3", true},
		{"no timeline, not looked at", at(3, func(m *plan.Member) { m.Timeline = 0 }), limit, "", false},
		{"no timeline, looked at", func(v *plan.View) { v.CheckTimeline, v.Members[2].Timeline = true, 0 }, limit,
			"is on timeline 0, and the primary on 3", true},
		{"lag not known", at(3, func(m *plan.Member) { m.Receive = plan.Lag{} }), limit, "has an unknown lag", true},
		{"maximum lag", at(3, func(m *plan.Member) { m.Receive.Bytes = 1 << 20 }), limit, "", false},
		{"more than the maximum lag", at(3, func(m *plan.Member) { m.Receive.Bytes = 1<<20 + 1 }), limit,
			"has 1MB to receive (maximum_lag_on_failover is 1MB)", true},
		{"paused", at(3, func(m *plan.Member) { m.ReplayPaused = true }), limit,
			"has its replay paused (SELECT pg_wal_replay_resume() on it)", true},
		{"slots", at(3, func(m *plan.Member) { m.CatchUp = []string{"cdc", "x"} }), limit,
			"waits for logical slots to catch up: cdc, x", true},
		{"at the limit", replaying(3, 64<<20), limit, "", false},
		{"beyond the limit", replaying(3, 3<<29), limit, "has 1.5GB to replay (at most 64MB)", true},
		{"no limit", replaying(3, 1<<40), plan.Limit{}, "", false},
		{"beyond the limit of age", at(3, func(m *plan.Member) { m.ReplayAge = 90 * time.Second }), plan.Limit{Age: 30 * time.Second},
			"is 1m30s behind with its replay (at most 30s)", true},
		{"replay not known", at(3, func(m *plan.Member) { m.Replay = plan.Lag{} }), limit, "has an unknown replay lag", true},
		{"not restarted since a parameter got smaller", at(3, func(m *plan.Member) {
			m.PendingRestart, m.Pending = true, map[string]patroni.Change{"max_connections": {Old: "200", New: "100"}}
		}), limit, "has a larger max_connections than the primary: restart it first", false},
		{"restarted with a larger parameter, and m2 not", at(2, func(m *plan.Member) {
			m.PendingRestart, m.Pending = true, map[string]patroni.Change{"max_connections": {Old: "100", New: "200"}}
		}), limit, "has a larger max_connections than m2: restart that one first", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := three(tag(2, "nofailover", true), c.do)
			choice, err := plan.Choose(v, "", c.limit)
			switch {
			case c.says == "":
				if choice.Candidate != "m3" || err != nil {
					t.Errorf("%+v, %v; m3 would do", choice, err)
				}
				return
			case choice.Candidate != "" || choice.PassedOver["m3"] != c.says:
				t.Errorf("%q of m3: %+v\nwanted %q", choice.PassedOver["m3"], choice, c.says)
			case c.waits && (err != nil || choice.Wait == nil || choice.Wait.Member != "m3" || choice.Wait.For != "m3 "+c.says):
				t.Errorf("%+v, %v; it can be waited for", choice.Wait, err)
			case !c.waits && (id(err) != plan.NoCandidate || choice.Wait != nil):
				t.Errorf("%v, %+v; waiting is in vain", err, choice.Wait)
			}
			if _, err := plan.Choose(v, "m3", c.limit); c.waits == (id(err) == plan.CandidateUnfit) {
				t.Errorf("asked for m3: %v", err)
			}
		})
	}
}

// preferred is for three: member n is.
func preferred(n int) func(*plan.View) {
	return at(n, func(m *plan.Member) { m.Preferred = true })
}

func TestChoose(t *testing.T) {
	quorum := func(v *plan.View) {
		v.Sync = plan.SyncQuorum
		v.Members[1].Role, v.Members[2].Role = "quorum_standby", "quorum_standby"
	}
	for _, c := range []struct {
		name   string
		view   plan.View
		wanted string
		want   string // the candidate, or the id of the refusal
	}{
		{"equal", three(), "", "m2"},
		{"least replay lag", three(replaying(2, 30<<20), replaying(3, 2<<20)), "", "m3"},
		{"a lag that does not matter", three(replaying(2, 1<<20), replaying(3, 100)), "", "m3"},
		{"priority", three(tag(3, "failover_priority", 2.0)), "", "m3"},
		{"priority, and a lag that does not matter", three(tag(3, "failover_priority", 2.0), replaying(3, 1<<20)), "", "m3"},
		{"priority, and a lag that does", three(tag(3, "failover_priority", 2.0), replaying(3, 2<<20)), "", "m2"},
		{"synchronous", three(func(v *plan.View) { v.Sync, v.Members[2].Role = plan.SyncOn, "sync_standby" }, replaying(3, 5<<20)), "", "m3"},
		{"quorum", three(quorum, replaying(2, 5<<20)), "", "m3"},
		{"preferred", three(preferred(3), replaying(3, 5<<20)), "", "m3"},
		{"preferred, and beyond the limit", three(preferred(3), replaying(3, 50<<20)), "", "m2"},
		{"preferred, and not synchronous", three(preferred(3), func(v *plan.View) {
			v.Sync, v.Members[1].Role = plan.SyncOn, "sync_standby"
		}), "", "m2"},
		{"asked for", three(replaying(3, 5<<20)), "m3", "m3"},
		{"asked for the primary", three(), "m1", plan.CandidateUnfit},
		{"asked for nobody that there is", three(), "m9", plan.UnknownMember},
		{"alone", three(func(v *plan.View) { v.Members = v.Members[:1] }), "", plan.NoCandidate},
		{"nobody is primary", three(at(1, func(m *plan.Member) { m.Role = "replica" })), "", plan.NoLeader},
		{"a standby cluster", three(at(1, func(m *plan.Member) { m.Role = "standby_leader" })), "", plan.StandbyCluster},
		{"maintenance mode", three(func(v *plan.View) { v.Maintenance = true }), "", plan.MaintenanceMode},
		{"another switchover", three(func(v *plan.View) { v.Scheduled = &patroni.Switchover{} }), "", plan.SwitchoverScheduled},
	} {
		t.Run(c.name, func(t *testing.T) {
			choice, err := plan.Choose(c.view, c.wanted, plan.DefaultLimit())
			if got := choice.Candidate + id(err); got != c.want || err != nil && choice.Candidate != "" {
				t.Errorf("%q, %v; wanted %q", choice.Candidate, err, c.want)
			}
			if err == nil && (choice.Why == "" || len(choice.PassedOver) != 1) {
				t.Errorf("not said why: %+v", choice)
			}
		})
	}
}
