package health

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/configversion"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/state"
)

func TestConditions(t *testing.T) {
	v := func(n configversion.Version) *configversion.Version { return &n }
	want := func(ready, progressing, degraded, valid, applied string) map[string]string {
		return map[string]string{api.ConditionReady: ready, api.ConditionProgressing: progressing, api.ConditionDegraded: degraded,
			api.ConditionValid: valid, api.ConditionApplied: applied}
	}
	ok := api.PoolerStatus{Pooler: "a:6432", Paused: "no"}
	for _, c := range []struct {
		name   string
		status Status
		want   map[string]string // type to status and reason
	}{
		{"all is well", Status{Status: api.Status{Poolers: []api.PoolerStatus{ok},
			Versions: []api.VersionReport{{Target: "postgres", Seen: v(42), Applied: v(42)}}}},
			want("True AllAnswer", "False Idle", "False AsExpected", "True Loaded", "True UpToDate")},
		{"a handover", Status{Status: api.Status{Poolers: []api.PoolerStatus{{Pooler: "a:6432", Paused: "yes", PausedBy: "guard"}}}},
			want("False PoolersPaused", "True PoolersPaused", "False AsExpected", "True Loaded", "Unknown NoVersionSource")},
		{"a lease of ours", Status{Status: api.Status{Poolers: []api.PoolerStatus{ok},
			Leases: []api.LeaseStatus{{Until: time.Now().Add(time.Minute)}}}},
			want("False LeaseRunning", "True LeaseRunning", "False AsExpected", "True Loaded", "Unknown NoVersionSource")},
		{"psql", Status{Status: api.Status{Poolers: []api.PoolerStatus{{Pooler: "a:6432", Paused: "yes"}}}},
			want("False PausedByOthers", "False Idle", "True PausedByOthers", "True Loaded", "Unknown NoVersionSource")},
		{"one is down", Status{Status: api.Status{Poolers: []api.PoolerStatus{ok, {Pooler: "b:6432", Error: "refused"}}}},
			want("False PoolerUnreachable", "False Idle", "True PoolerUnreachable", "True Loaded", "Unknown NoVersionSource")},
		{"one cannot be found", Status{Status: api.Status{Poolers: []api.PoolerStatus{ok}}, Unresolved: []string{"pooler b: no such host"}},
			want("False PoolerUnreachable", "False Idle", "True PoolerUnreachable", "True Loaded", "Unknown NoVersionSource")},
		{"none can be found", Status{Unresolved: []string{"pooler b: no such host"}},
			want("False PoolerUnreachable", "False Idle", "True PoolerUnreachable", "True Loaded", "Unknown NoVersionSource")},
		{"two writers first", Status{Status: api.Status{Poolers: []api.PoolerStatus{{Pooler: "b:6432", Error: "refused"}}},
			WritableWithoutLock: true},
			want("False WritableWithoutLock", "False Idle", "True WritableWithoutLock", "True Loaded", "Unknown NoVersionSource")},
		{"behind, and invalid", Status{Status: api.Status{Problems: []string{"budget"}, Poolers: []api.PoolerStatus{ok},
			Versions: []api.VersionReport{{Target: "postgres", Seen: v(43), Applied: v(42)}, {Target: "pgbouncer"}}}, Invalid: true},
			want("False ConfigurationInvalid", "False Idle", "False AsExpected", "False Invalid", "False ReloadNeeded")},
		{"a version that nobody can see", Status{Status: api.Status{Versions: []api.VersionReport{{Target: "pgbouncer",
			Error: "no such file"}}}},
			want("False NoPoolers", "False Idle", "False AsExpected", "True Loaded", "Unknown VersionUnknown")},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := map[string]string{}
			for _, x := range judgeConditions(c.status) {
				got[x.Type] = x.Status + " " + x.Reason
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestConditionTexts: a person reads the message, and a program which version it is about.
func TestConditionTexts(t *testing.T) {
	v := func(n configversion.Version) *configversion.Version { return &n }
	conditions := judgeConditions(Status{Status: api.Status{
		Poolers:  []api.PoolerStatus{{Pooler: "a:6432", Paused: "yes", PausedBy: "guard"}, {Pooler: "b:6432", Error: "refused"}},
		Versions: []api.VersionReport{{Target: "postgres", Seen: v(43), Applied: v(42)}, {Target: "pgbouncer", Seen: v(7), Applied: v(7)}},
	}, Unresolved: []string{"pooler c: no such host"}})
	down := "pooler c: no such host; b:6432: refused"
	want := []api.Condition{
		{Type: api.ConditionReady, Status: "False", Reason: "PoolerUnreachable", Message: down},
		{Type: api.ConditionProgressing, Status: "True", Reason: "PoolersPaused", Message: "paused: a:6432 by guard"},
		{Type: api.ConditionDegraded, Status: "True", Reason: "PoolerUnreachable", Message: down},
		{Type: api.ConditionValid, Status: "True", Reason: "Loaded"},
		{Type: api.ConditionApplied, Status: "False", Reason: "ReloadNeeded", Message: "postgres runs 42, 43 is wanted",
			ObservedVersion: "postgres=42,pgbouncer=7"},
	}
	if diff := cmp.Diff(want, conditions); diff != "" {
		t.Error(diff)
	}
}

// TestConditionsOfACutStatus: what was cut short says nothing about a change.
func TestConditionsOfACutStatus(t *testing.T) {
	m := membertest.New(t, nil)
	path := filepath.Join(m.Config.StateDir, conditionsName)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s := Of(ctx, m); len(s.Conditions) != 5 {
		t.Errorf("%+v", s.Conditions)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a status that nobody waited for was kept: %v", err)
	}
	Of(t.Context(), m)
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// TestConditionSince: the time is that of the last change of Status, not of Reason.
func TestConditionSince(t *testing.T) {
	began, now := time.Now().Add(-time.Hour), time.Now()
	before := []api.Condition{{Type: "Ready", Status: "True", LastTransitionTime: began},
		{Type: "Degraded", Status: "False", LastTransitionTime: began}}
	conditions := []api.Condition{{Type: "Ready", Status: "True", Reason: "Other"},
		{Type: "Degraded", Status: "True"}, {Type: "New", Status: "True"}}
	if !since(conditions, before, now) {
		t.Error("a change was not seen")
	}
	if !conditions[0].LastTransitionTime.Equal(began) {
		t.Errorf("Ready is the same and has a new time: %v", conditions[0].LastTransitionTime)
	}
	for _, c := range conditions[1:] {
		if now.Sub(c.LastTransitionTime) > time.Second {
			t.Errorf("%s has changed and has the time %v", c.Type, c.LastTransitionTime)
		}
	}
	if again := append([]api.Condition(nil), conditions...); since(again, conditions, now.Add(time.Minute)) {
		t.Error("nothing has changed, and a change was seen")
	}
}

// TestConditionSinceWithHugeErrors: what is kept is read back, whatever a pooler says.
func TestConditionSinceWithHugeErrors(t *testing.T) {
	m := membertest.New(t, nil)
	s := Status{Unresolved: []string{strings.Repeat("x", 1<<20)}}
	s.conditions(m, true)
	var kept []api.Condition
	if err := state.Read(filepath.Join(m.Config.StateDir, conditionsName), &kept); err != nil || len(kept) != 5 {
		t.Fatalf("%v %+v", err, kept)
	}
	for i := range kept {
		if kept[i].Type != s.Conditions[i].Type || kept[i].Status != s.Conditions[i].Status || kept[i].Message != "" {
			t.Errorf("%+v", kept[i])
		}
	}
	if !strings.Contains(s.Conditions[2].Message, "xxx") {
		t.Errorf("the message is not shown: %.100s", s.Conditions[2].Message)
	}
}
