package maintenance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/plan"
	"github.com/pgbaton/pgbaton/state"
)

var errNotResumable = errors.New("the last run of this member is over: there is nothing to resume")

// Resume goes on with the newest run of this member, where it was cut off, stopped or has failed: what became of the step that was at work
// is found out from the cluster first, and a step that has happened is not done again. stop is that of [Request]. It blocks, and reports,
// as [Run].
func Resume(ctx context.Context, m *member.Member, stop <-chan struct{}, tell func(api.ClusterEvent)) api.ClusterReport {
	id := Resumable(m)
	x := newRun(m, Request{ID: id, Stop: stop}, tell)
	if id == "" {
		x.wrong = &plan.Refusal{ID: RefusedNoRun, Found: errNotResumable.Error(),
			Change: "a run is resumed on the member that it was started on"}
		return x.refused()
	}
	var r record
	held, err := state.Claim(recordPath(m, id), &r)
	if err != nil {
		x.wrong = fmt.Errorf("run %s: %w", id, err)
		return x.refused()
	}
	x.record, x.held = r, held
	x.record.Over, x.record.Report = false, nil
	x.record.Request.Stop = stop
	s, err := look(ctx, m)
	if err != nil {
		return x.putBack(r, err)
	}
	x.now = s
	if err := x.begin(ctx); err != nil {
		return x.putBack(r, err)
	}
	x.note("resuming run " + id + " of " + r.Began.Format(time.RFC3339))
	x.event(plan.EventResume)
	if x.record.State == plan.StatePlanned {
		return x.work(ctx)
	}
	if x.record.State == plan.StateFollowing {
		x.recover(ctx)
	}
	return x.goOn(ctx)
}

// RefusedNoRun is the id of a refusal to resume.
const RefusedNoRun = "nothing-to-resume"

// putBack leaves a run that could not be resumed as it was.
func (x *run) putBack(r record, err error) api.ClusterReport {
	x.wrong = err
	if _, wrong := state.WriteLocked(recordPath(x.m, r.ID), r); wrong != nil {
		x.log.Error("the run's journal cannot be written", "error", wrong)
	}
	x.held.Release()
	report := api.ClusterReport{Run: r.ID, Kind: r.Request.Kind, Member: r.Member, Scope: r.Scope, Began: r.Began, Steps: r.Steps,
		State: api.StepFailed, Code: Code(err), Decision: "the run is not resumed: " + err.Error()}
	var locked *lockedError
	if errors.As(err, &locked) {
		report.Refusal = RefusedLocked
	}
	x.send(api.ClusterEvent{Event: api.EventEnd, Text: report.Decision, Plan: report.Steps})
	return report
}

// recover finds out what became of the step that was at work.
func (x *run) recover(ctx context.Context) {
	at := x.record.At
	if at == nil {
		x.event(plan.EventNothing)
		return
	}
	x.note(fmt.Sprintf("step %d: what became of the %s is found out", at.Number, describe(at.Step)))
	ctx, cancel := context.WithTimeout(ctx, x.record.Request.StepTimeout)
	defer cancel()
	before := x.now.View
	meter := startMeter(ctx, x.m)
	outcome, text, err := x.follow(ctx, at, nil, meter)
	if outcome == plan.OutcomeFailed && !errors.As(err, new(*cameBackError)) {
		// It has not happened and is not under way: the order had not arrived. It may be chosen again.
		meter.end()
		x.note(fmt.Sprintf("step %d was not begun: the cluster is as before", at.Number))
		x.drop()
		x.event(plan.EventNothing)
		return
	}
	if err == nil {
		err = x.afterStep(ctx, at, before, meter)
	}
	x.ended(ctx, outcome, text, err, meter.end())
}
