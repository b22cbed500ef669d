package operation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/health"
	"github.com/pgbaton/pgbaton/maintenance"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/state"
)

// cluster fills in what the command line calls.
func (c *Calls) cluster() {
	if c.Check == nil {
		c.Check = health.CheckAll
	}
	if c.Spoiled == nil {
		c.Spoiled = maintenance.Spoiled
	}
	if c.Maintain == nil {
		c.Maintain = maintenance.Run
	}
	if c.ResumeRun == nil {
		c.ResumeRun = maintenance.Resume
	}
	if c.Recorded == nil {
		c.Recorded = maintenance.Recorded
	}
	if c.Resumable == nil {
		c.Resumable = maintenance.Resumable
	}
}

// Check looks for what would spoil a handover, on every member. It blocks until that is written down, not until it is done. The errors are
// those of [Runner.Pause].
func (r *Runner) Check(d Demand) (Operation, error) {
	return r.launch(api.KindCheck, false, d, func(ctx context.Context, _ *kept) ending {
		found := r.calls.Check(ctx, r.member)
		outcome := &api.Outcome{Check: &found, Decision: "nothing that would spoil a handover was found"}
		if !found.OK {
			outcome.Code, outcome.Decision = member.Refused, "a handover now would be spoiled"
		}
		// What it was asked for is done, whatever it has found.
		return ending{state: api.Succeeded, final: true, outcome: outcome, text: outcome.Decision}
	})
}

// Maintain does a switchover or restart, which q.Kind says, or goes on with the run that was cut off. It blocks until that is written down,
// not until it is done. When the Runner is stopped the run ends after the step that is under way. The errors are those of [Runner.Pause].
func (r *Runner) Maintain(d Demand, q maintenance.Request, skipChecks, resume bool) (Operation, error) {
	return r.launch(q.Kind, false, d, func(ctx context.Context, k *kept) ending {
		tell := func(e api.ClusterEvent) { r.tellEvent(k, e) }
		q.ID, q.Stop = state.NewID(), r.stopped
		if resume {
			q.ID = r.calls.Resumable(r.member)
		}
		// Before anything is done: it is how the outcome is found out if this process is killed.
		if err := r.store.ofRun(k, q.ID); err != nil {
			return ending{
				state:   api.Failed,
				final:   true,
				failure: &Failure{Name: NotKept, Class: api.Transient, Detail: "it was not begun"},
				text:    "not begun: the state directory cannot be written",
			}
		}
		if resume {
			return r.concludeRun(ctx, r.calls.ResumeRun(ctx, r.member, q.Stop, tell))
		}
		if !skipChecks {
			if refused := r.calls.Spoiled(ctx, r.member, q); refused != nil {
				return r.concludeRun(ctx, *refused)
			}
		}
		return r.concludeRun(ctx, r.calls.Maintain(ctx, r.member, q, tell))
	})
}

// tellEvent writes down what happens. How a step stands is not: there would be one each second.
func (r *Runner) tellEvent(k *kept, e api.ClusterEvent) {
	step := api.Step{Time: e.Time, Text: e.Text}
	switch e.Event {
	case api.EventLive:
		return
	case api.EventStep:
		if i := slices.IndexFunc(e.Plan, func(s api.StepReport) bool { return s.Number == e.Step }); i >= 0 {
			s := e.Plan[i]
			step.Target = s.Member
			if step.Text == "" {
				step.Text = fmt.Sprintf("step %d of %d, %s: %s", s.Number, len(e.Plan), s.Kind, joinText(s.State, s.Text))
			}
		}
	case api.EventPlan:
		if step.Text == "" {
			step.Text = fmt.Sprintf("%d step(s) planned", len(e.Plan))
		}
	}
	r.store.progress(k, step)
}

// concludeRun is what a run has come to.
func (r *Runner) concludeRun(ctx context.Context, report api.ClusterReport) ending {
	r.changed()
	e := endingOf(report)
	if cause := context.Cause(ctx); cause != nil && e.state != api.Succeeded {
		// Patroni goes on with what it was asked to do, so this is not known to have failed: the run's file tells.
		e.state, e.final = api.Unknown, false
		e.failure = &Failure{Name: UnknownOutcome, Class: api.Transient, Detail: cause.Error() + "; " + report.Decision}
	}
	return e
}

// endingOf is what the report of a run that is over makes of its operation.
func endingOf(report api.ClusterReport) ending {
	outcome := &api.Outcome{Code: report.Code, Decision: report.Decision, Cluster: &report}
	if report.Code == member.Done {
		return ending{state: api.Succeeded, final: true, outcome: outcome, text: report.Decision}
	}
	f := &Failure{Name: MaintenanceFailed, Class: api.Permanent, Detail: report.Decision}
	switch {
	case report.Code == member.Invalid:
		f.Name, f.Class = InvalidConfiguration, api.Validation
	case report.Code == member.Refused:
		f.Name = Refused
	case report.Code == member.BudgetSpent:
		f.Name, f.Class = MaintenanceTimeout, api.Transient
	case report.State == api.StepStopped:
		f.Name, f.Class = Stopped, api.Transient
	case len(report.Steps) == 0 && report.After == nil: // nothing was begun, so it may be asked for again
		f.Class = api.Transient
	}
	return ending{state: api.Failed, final: true, outcome: outcome, failure: f, text: report.Decision}
}

// judgeCheck: nothing was changed, and what was found is gone.
func judgeCheck(Operation, view) ending {
	return ending{state: api.Failed, final: true, text: "serve was killed before the check was over: ask for it again"}
}

// runView is what is known of a run.
type runView struct {
	report  api.ClusterReport
	over    bool
	running bool  // a process is at it
	newest  bool  // it is the one that can be gone on with
	err     error // it cannot be read
}

func (r *Runner) runView(id string) runView {
	if id == "" {
		return runView{err: os.ErrNotExist}
	}
	var v runView
	v.report, v.over, v.running, v.err = r.calls.Recorded(r.member, id)
	v.newest = r.calls.Resumable(r.member) == id
	return v
}

// judgeRun: the run's own file is the truth. It is there before anything is done, it is written before each step, and it says how the run
// ended, also where a person has gone on with it meanwhile. Nothing is gone on with here: a server that was killed in the middle of
// maintenance may be killed again.
func judgeRun(o Operation, v view) ending {
	r := v.run
	switch {
	case errors.Is(r.err, os.ErrNotExist):
		return ending{state: api.Failed, final: true, text: "serve was killed before anything was done"}
	case r.err != nil:
		return ending{state: api.Unknown, text: "the file of run " + o.Run + " cannot be read: look at the log and at patronictl list"}
	case r.over:
		return endingOf(r.report)
	case r.running:
		return ending{state: api.Unknown, text: "run " + o.Run + " is being gone on with"}
	case !r.newest:
		return ending{
			state: api.Unknown,
			final: true,
			text:  "run " + o.Run + " was cut off and cannot be gone on with any more" + lastStep(r.report),
		}
	}
	return ending{
		state: api.Unknown,
		text: "run " + o.Run + " was cut off" + lastStep(r.report) + ": POST {\"resume\": true}, or pgbaton " +
			"restart --resume on this member, goes on with it",
	}
}

// lastStep says where a run was.
func lastStep(r api.ClusterReport) string {
	if len(r.Steps) == 0 {
		return " before its first step"
	}
	s := r.Steps[len(r.Steps)-1]
	return fmt.Sprintf(" in step %d (%s %s, %s)", s.Number, s.Kind, s.Member, s.State)
}
