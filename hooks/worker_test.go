package hooks

import (
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
)

// They are resumed by the worker, and not when the lease is over.
func TestWorkerResumesSingleDatabases(t *testing.T) {
	t.Parallel()
	for _, suite := range membertest.Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			b, rt := membertest.Singly(t, suite)
			rt.Config.Resume.Timeout = time.Minute
			if r := Work(t.Context(), rt, Event{Action: "on_role_change", Role: "primary"}, nil); r.Code != member.Done {
				t.Errorf("%d %s", r.Code, r.Decision)
			}
			if !membertest.Usable(t, b, 5*time.Second) {
				t.Error("still paused")
			}
			membertest.PutBack(t, b)
		})
	}
}

// A primary that becomes a standby leader: nobody of its cluster takes writes any more, and the pause ends.
func TestStandbyLeaderEndsThePause(t *testing.T) {
	t.Parallel()
	_, b, m, _ := guarded(t, "stopping")
	run(t, m, member.Done, "1 pooler(s) paused and drained")
	paused(t, b)
	if r := OnRoleChange(t.Context(), m, Event{Action: "on_role_change", Role: "replica", Scope: "demo"}); r.Code != member.Done {
		t.Errorf("%+v", r)
	}
	paused(t, b) // a replica waits for its primary
	r := OnRoleChange(t.Context(), m, Event{Action: "on_role_change", Role: "standby_leader", Scope: "demo"})
	if r.Code != member.Done || !strings.Contains(r.Decision, "this cluster follows another one now: 1 pooler(s) resumed") {
		t.Errorf("%+v", r)
	}
	if !membertest.Usable(t, b, 5*time.Second) {
		t.Error("still paused")
	}
	membertest.PutBack(t, b)
	// Without a pause of its own it touches nobody's.
	membertest.Abandoned(t, m, pgb.Guard)
	if r := OnRoleChange(t.Context(), m, Event{Action: "on_start", Role: "standby_leader", Scope: "demo"}); r.Code != member.Done {
		t.Errorf("%+v", r)
	}
	if !membertest.StateOf(t, b).Paused {
		t.Error("another's pause was ended")
	}
	membertest.Admin(t, b, "RESUME")
}

// A pooler that has never answered is not said to be paused, and not waited for until the end of the time.
func TestWorkerLeavesWhoTakesNoConnections(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	up, down := membertest.StartPooler(t, single.SuiteTrixie, pg), membertest.StartPooler(t, single.SuiteTrixie, pg)
	down.Kill()
	m := membertest.New(t, pg, up, down)
	m.Config.Resume.Timeout = 2 * time.Minute
	began := time.Now()
	r := Work(t.Context(), m, Event{Action: "on_role_change", Role: "primary"}, nil)
	if r.Code != member.Done || !strings.Contains(r.Decision, "1 were not paused, 1 take no connections") {
		t.Errorf("%d %s", r.Code, r.Decision)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("took %s", took)
	}
}
