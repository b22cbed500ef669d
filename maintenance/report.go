package maintenance

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/plan"
)

// refused is the report of a run that has not begun.
func (x *run) refused() api.ClusterReport {
	x.event(plan.EventRefuse)
	return x.report(nil)
}

// report says how the run ended, to the caller, to whoever watches, and to the journal.
func (x *run) report(after *api.Aftermath) api.ClusterReport {
	r := x.record
	report := api.ClusterReport{Run: r.ID, Kind: r.Request.Kind, Member: r.Member, Scope: r.Scope, Began: r.Began, Steps: x.steps(x.left),
		After: after, TookSeconds: time.Since(r.Began).Seconds(), State: x.outcome()}
	if c := x.choice; c != nil {
		report.Choice = &api.ChoiceMade{Candidate: c.Candidate, Why: c.Why, PassedOver: c.PassedOver}
	}
	var refusal *plan.Refusal
	var locked *lockedError
	switch {
	case errors.As(x.wrong, &refusal):
		report.Refusal = refusal.ID
	case errors.As(x.wrong, &locked):
		report.Refusal = RefusedLocked
	}
	report.Code = x.code()
	report.Decision = x.decision(after)
	x.record.Over, x.record.Ended, x.record.Report = true, time.Now(), &report
	if r.State == plan.StateRefused {
		x.forget() // it would stand before a run that can be resumed
	} else if err := x.save(); err != nil {
		x.log.Error("how the run ended could not be written down", "error", err)
	}
	x.held.Release()
	x.log.Info(report.Decision, "state", report.State, "code", report.Code)
	x.send(api.ClusterEvent{Event: api.EventEnd, Text: report.Decision, Plan: report.Steps})
	return report
}

// RefusedLocked is the id of a refusal because of another run.
const RefusedLocked = "cluster-locked"

// outcome is the state for callers.
func (x *run) outcome() string {
	switch x.record.State {
	case plan.StateDone:
		return api.StepDone
	case plan.StateStopped:
		return api.StepStopped
	case plan.StateAborted:
		return api.StepUnknown
	}
	return api.StepFailed
}

func (x *run) code() int {
	switch {
	case x.record.State == plan.StateDone:
		return member.Done
	case x.spent:
		return member.BudgetSpent
	case x.record.State == plan.StateRefused || x.refuse != nil && len(x.record.Steps) == 0:
		return Code(x.wrong)
	}
	return member.Failed
}

// decision is the last line.
func (x *run) decision(after *api.Aftermath) string {
	if after == nil {
		return "nothing was done: " + x.wrong.Error()
	}
	stands := x.stands(after)
	begun := 0
	for _, s := range x.record.Steps {
		if s.State == api.StepDone {
			begun++
		}
	}
	switch x.record.State {
	case plan.StateDone:
		if len(x.record.Steps) == 0 {
			return "nothing to do; " + stands
		}
		return stands
	case plan.StateStopped:
		if len(x.left) == 0 {
			return fmt.Sprintf("stopped as asked, after %d step(s), left: nothing; %s", begun, stands)
		}
		return fmt.Sprintf("stopped as asked, after %d step(s), left: %s; `pgbaton %s --resume` goes on; %s", begun, x.leftText(),
			command(x.record.Request.Kind), stands)
	case plan.StateAborted:
		return fmt.Sprintf("stopped in the middle of a step, Patroni goes on with it; `pgbaton %s --resume` looks what became of it; %s",
			command(x.record.Request.Kind), stands)
	}
	why := "the cluster is not as it should be"
	if x.wrong != nil {
		why = x.wrong.Error()
	}
	if begun == 0 && after.OK {
		return why + "; nothing has changed: " + stands
	}
	return why + "; " + stands
}

func (x *run) leftText() string {
	var left []string
	for _, s := range x.left {
		left = append(left, describe(s))
	}
	return strings.Join(left, ", ")
}

// stands says how the cluster is, by the last look.
func (x *run) stands(after *api.Aftermath) string {
	if !after.OK {
		if after.Primary == "" {
			return strings.Join(after.Problems, "; ")
		}
		return fmt.Sprintf("%s is primary on timeline %d, but %s", after.Primary, after.Timeline, strings.Join(after.Problems, "; "))
	}
	text := fmt.Sprintf("%s is primary on timeline %d", after.Primary, after.Timeline)
	if n := len(after.Members) - 1; n > 0 {
		text += fmt.Sprintf(", %d standby(s) follow it", n)
	}
	if n := len(after.Poolers); n > 0 {
		text += fmt.Sprintf(", %d pooler(s) are not paused", n)
	}
	if after.Writable == string(yes) {
		text += " and lead to a server that takes writes"
	}
	if after.LockTaken {
		text += "; the run's entry still stands in Patroni's configuration (" + runPrefix + x.record.ID + ")"
	}
	return text
}
