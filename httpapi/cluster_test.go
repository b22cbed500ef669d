package httpapi

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/maintenance"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/plan"
)

// fullCluster is a run that tells of everything that one can tell of, and whose report has every member that one can have.
func fullCluster(_ context.Context, q maintenance.Request, tell func(api.ClusterEvent)) api.ClusterReport {
	now := time.Now()
	steps := []api.StepReport{
		{Number: 1, Kind: "switchover", Member: "m1", Candidate: "m2", Why: "fit best", State: api.StepDone, Began: now,
			TookSeconds: 2, Text: "m2 is the primary", Cost: &api.Cost{StallSeconds: .6, Waiting: 3, PausedSeconds: .5, Errors: -1, Gaps: 1}},
	}
	tell(api.ClusterEvent{Time: now, Run: q.ID, Event: api.EventPlan, Plan: steps})
	tell(api.ClusterEvent{Time: now, Run: q.ID, Event: api.EventStep, Step: 1, Plan: steps})
	tell(api.ClusterEvent{Time: now, Run: q.ID, Event: api.EventLive, Step: 1, Live: &api.LiveReport{Member: "m2"}})
	tell(api.ClusterEvent{Time: now, Run: q.ID, Event: api.EventEnd, Text: "done"})
	return api.ClusterReport{
		Run:         q.ID,
		Kind:        q.Kind,
		Member:      "m1",
		Scope:       "demo",
		State:       api.StepDone,
		Decision:    "m2 is the primary",
		Steps:       steps,
		Began:       now,
		TookSeconds: 3,
		Choice:      &api.ChoiceMade{Candidate: "m2", Why: "fit best", PassedOver: map[string]string{"m3": "nofailover"}},
		After: &api.Aftermath{OK: true, Primary: "m2", Timeline: 2, Writable: "yes", Problems: []string{"none"}, LockTaken: true,
			Members: []api.MemberReport{{Name: "m2", Role: "leader", State: "running", Timeline: 2, LagBytes: 1, Pending: true}},
			Poolers: fullStatus().Poolers},
	}
}

// TestClusterRequests: what is asked for reaches the same function that the command line calls, and is kept as it was asked for.
func TestClusterRequests(t *testing.T) {
	asked := make(chan maintenance.Request, 1)
	a := start(t, &fake{cluster: func(ctx context.Context, q maintenance.Request, tell func(api.ClusterEvent)) api.ClusterReport {
		asked <- q
		return fullCluster(ctx, q, tell)
	}}, nil)
	o := a.do("POST", "/v1/cluster/restart", `{"members":["m1","m3"],"pending":true,"stepTimeout":"2m","ifLagging":"in-place"}`).
		operation(t)
	q := <-asked
	if q.Kind != api.KindRestart || len(q.Restart.Members) != 2 || !q.Restart.Pending || q.StepTimeout != 2*time.Minute ||
		q.Restart.IfLagging != plan.PolicyInPlace || q.Stop == nil {
		t.Errorf("%+v", q)
	}
	o = a.until(o.ID, api.Succeeded)
	if o.Run != q.ID || o.Run == "" || o.Request.Restart == nil || o.Request.Restart.StepTimeout != "2m" ||
		o.Result.Cluster.After.Primary != "m2" {
		t.Errorf("%+v", o)
	}
	var said []string
	for _, s := range o.Steps {
		said = append(said, s.Text)
	}
	if got := strings.Join(said, "; "); !strings.Contains(
		got,
		"1 step(s) planned; step 1 of 1, switchover: done: m2 is the primary; done",
	) {
		t.Errorf("steps: %s", got)
	}
	o = a.until(a.do("POST", "/v1/cluster/switchover", `{"candidate":"m2","fromHere":true}`).operation(t).ID, api.Succeeded)
	if q := <-asked; q.Kind != api.KindSwitchover || q.Switchover.Candidate != "m2" || !q.FromHere || o.Kind != api.KindSwitchover {
		t.Errorf("%+v", q)
	}
	for _, test := range []struct{ path, body, location string }{
		{"restart", `{}`, "body.members"},
		{"restart", `{"rolling":true,"olderThan":"new"}`, "body.olderThan"},
		{"restart", `{"rolling":true,"warmUp":"/bin/sh"}`, "body.warmUp"}, // a token is no shell
		{"switchover", `{"at":"tomorrow"}`, "body.at"},
		{"switchover", `{"resume":true,"candidate":"m2"}`, "body.resume"},
		{"switchover", `{"ifLagging":"in-place"}`, "body.ifLagging"},
	} {
		got := a.expect(a.do("POST", "/v1/cluster/"+test.path, test.body), 422, "invalid-request").problem(t)
		if len(got.Errors) != 1 || got.Errors[0].Location != test.location {
			t.Errorf("%s %s: %+v", test.path, test.body, got.Errors)
		}
	}
}

// TestClusterFailures: each way in which a run ends has its problem.
func TestClusterFailures(t *testing.T) {
	f := &fake{}
	a := start(t, f, nil)
	for _, test := range []struct {
		code           int
		state          string
		problem, class string
	}{
		{member.Failed, api.StepFailed, "maintenance-failed", api.Transient}, // nothing was begun
		{member.Failed, api.StepStopped, "stopped", api.Transient},
		{member.Invalid, api.StepFailed, "invalid-configuration", api.Validation},
		{member.BudgetSpent, api.StepFailed, "maintenance-timeout", api.Transient},
		{member.Refused, api.StepFailed, "refused", api.Permanent},
	} {
		f.cluster = func(_ context.Context, q maintenance.Request, _ func(api.ClusterEvent)) api.ClusterReport {
			return api.ClusterReport{
				Run:      q.ID,
				Kind:     q.Kind,
				State:    test.state,
				Code:     test.code,
				Decision: "why",
				Steps:    []api.StepReport{},
			}
		}
		o := a.until(a.do("POST", "/v1/cluster/switchover", "").operation(t).ID, api.Failed)
		if o.Problem.Name() != test.problem || o.Problem.Class != test.class || o.Problem.Detail != "why" || o.Result.Code != test.code {
			t.Errorf("%d %s: %+v", test.code, test.state, o.Problem)
		}
	}
	f.spoiled = &api.ClusterReport{
		State:    api.StepFailed,
		Code:     member.Refused,
		Refusal:  "no-poolers",
		Decision: "spoiled",
		Steps:    []api.StepReport{},
	}
	f.cluster = nil
	o := a.until(a.do("POST", "/v1/cluster/switchover", "").operation(t).ID, api.Failed)
	if o.Problem.Name() != "refused" || o.Result.Cluster.Refusal != "no-poolers" {
		t.Errorf("%+v", o.Problem)
	}
	a.until(a.do("POST", "/v1/cluster/switchover", `{"skipChecks":true}`).operation(t).ID, api.Succeeded)
}

// TestCheckOperation: the check has succeeded, whatever it has found; the code is that of the command.
func TestCheckOperation(t *testing.T) {
	a := start(t, &fake{}, nil)
	o := a.until(a.do("POST", "/v1/cluster/check", "").operation(t).ID, api.Succeeded)
	if o.Result.Code != member.Refused || o.Result.Check == nil || o.Result.Check.Findings[0].ID != "no-poolers" || o.Run != "" {
		t.Errorf("%+v", o.Result)
	}
}

// TestClusterStops: when the server ends, a run is asked to end after the step that is under way, and is given its time.
func TestClusterStops(t *testing.T) {
	begun := make(chan struct{})
	a := start(t, &fake{cluster: func(ctx context.Context, q maintenance.Request, _ func(api.ClusterEvent)) api.ClusterReport {
		close(begun)
		report := api.ClusterReport{Run: q.ID, Kind: q.Kind, State: api.StepStopped, Code: member.Failed, Decision: "1 step is left"}
		select {
		case <-q.Stop:
		case <-ctx.Done():
			report.Decision = "cut off"
		}
		return report
	}}, nil)
	id := a.do("POST", "/v1/cluster/switchover", "").operation(t).ID
	<-begun
	if err := a.end(); err != nil {
		t.Fatal(err)
	}
	for _, o := range a.server.operations.List() {
		if o.ID == id && (o.State != api.Failed || o.Failure.Name != "stopped" || o.Failure.Detail != "1 step is left") {
			t.Errorf("%+v %+v", o, o.Failure)
		}
	}
}
