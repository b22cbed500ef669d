package maintenance

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/plan"
)

// cutOff is a member whose run was killed while a switchover from m1 to m2 was at work, on timeline 3.
func cutOff(t *testing.T, f *membertest.Cluster) *member.Member {
	t.Helper()
	m := on(t, f, "m1")
	r := newRun(m, Request{Kind: api.KindSwitchover, ID: "0123456789ab"}, nil)
	r.record.State = plan.StateStepping
	step := plan.Step{Kind: plan.KindSwitchover, Member: "m1", Candidate: "m2"}
	r.record.Before = before{Timeline: 3, Members: []string{"m1", "m2"}}
	r.record.At = &attempt{Step: step, Number: 1, Leader: "m1", Timeline: 3}
	r.record.Steps = []api.StepReport{{Number: 1, Kind: step.Kind, Member: "m1", Candidate: "m2", State: api.StepRunning,
		Began: time.Now()}}
	if err := r.save(); err != nil {
		t.Fatal(err)
	}
	if Resumable(m) != "" {
		t.Error("a run that lives can be resumed")
	}
	r.held.Release() // as the kernel does of a process that is killed
	if Resumable(m) != "0123456789ab" {
		t.Error("it cannot be resumed")
	}
	f.Order = func(w http.ResponseWriter, _, _ string) {
		f.Change(func() { f.Leader, f.Timeline = "m2", f.Timeline+1 })
		membertest.Say(w, http.StatusOK, "Successfully switched over to \"m2\"")
	}
	return m
}

// TestResumeSettles: what became of a step that was at work is found out before anything is ordered again.
func TestResumeSettles(t *testing.T) {
	for name, c := range map[string]struct {
		happened bool
		orders   int
	}{"it had happened": {true, 0}, "it had not begun": {false, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := membertest.NewCluster(t)
			m := cutOff(t, f)
			if c.happened {
				f.Leader, f.Timeline = "m2", 4
			}
			report := Resume(t.Context(), m, nil, nil)
			if report.Code != member.Done || len(report.Steps) != 1 || report.Steps[0].State != api.StepDone ||
				report.After.Primary != "m2" {
				t.Errorf("%+v", report)
			}
			if len(f.Orders()) != c.orders {
				t.Errorf("orders: %v", f.Orders())
			}
			if again := Resume(t.Context(), m, nil, nil); again.Code != member.Refused || again.Refusal != RefusedNoRun {
				t.Errorf("%+v", again)
			}
		})
	}
}

// TestResumeAfterTheWayBack: a switchover that had moved the leader, which then came back, is the run's one: there is no second one,
// however often the run is resumed.
func TestResumeAfterTheWayBack(t *testing.T) {
	t.Parallel()
	f := membertest.NewCluster(t)
	m := cutOff(t, f)
	f.Timeline = 5 // m2 was primary on 4
	report := Resume(t.Context(), m, nil, nil)
	if report.Code != member.Failed || len(report.Steps) != 1 || report.Steps[0].State != api.StepFailed ||
		!strings.Contains(report.Decision, "m1 is primary again, on timeline 5") {
		t.Errorf("%+v", report)
	}
	report = Resume(t.Context(), m, nil, nil)
	if report.Code != member.Failed || report.Refusal != plan.SwitchedBack || !strings.Contains(report.Decision, "start a new switchover") {
		t.Errorf("%+v", report)
	}
	if orders := f.Orders(); len(orders) > 0 {
		t.Errorf("orders: %v", orders)
	}
}
