package maintenance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/plan"
)

// lookEvery is between two looks while a step waits: Patroni reads the DCS for each.
const lookEvery = time.Second

// work does steps until there is none left, and ends the run.
func (x *run) work(ctx context.Context) api.ClusterReport {
	x.event(plan.EventLock)
	return x.goOn(ctx)
}

// goOn is work from wherever the run stands.
func (x *run) goOn(ctx context.Context) api.ClusterReport {
	keeping, stop := context.WithCancel(ctx)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		x.lock.keep(keeping, renewEvery)
	}()
	for x.record.State == plan.StateChoosing {
		x.next(ctx)
	}
	stop()
	<-kept
	return x.finish(ctx)
}

// next does the next step, or finds that there is none.
func (x *run) next(ctx context.Context) {
	deadline := time.Now().Add(x.record.Request.StepTimeout)
	why := ""
	for {
		switch {
		case ctx.Err() != nil:
			x.abort = true
			x.event(plan.EventAbort)
			return
		case x.stopped():
			x.event(plan.EventStop)
			return
		case time.Now().After(deadline):
			x.spent = true
			x.fail(fmt.Errorf("after %s it still waits: %s", x.record.Request.StepTimeout, why))
			return
		}
		d, wait, err := x.decide(ctx)
		var refusal *plan.Refusal
		switch {
		case errors.As(err, &refusal):
			x.refuse = refusal
			x.wrong = err
			x.event(plan.EventRefuse)
			return
		case err != nil:
			x.fail(err)
			return
		case wait == "" && d.Step == nil:
			x.event(plan.EventComplete)
			return
		case wait == "":
			x.take(ctx, *d.Step)
			return
		}
		if wait != why {
			x.note("waiting: " + wait)
		}
		why = wait
		x.live("", wait, nil)
		x.sleep(ctx, lookEvery)
	}
}

// decide looks at the cluster anew. wait is what has to be waited for, before another look.
func (x *run) decide(ctx context.Context) (d plan.Decision, wait string, err error) {
	s, err := lookToChoose(ctx, x.m, x.record.Request)
	if err != nil {
		return d, err.Error(), nil // the DCS, or our Patroni, is away: it may come back
	}
	x.now = s
	d, err = plan.Next(s.View, x.record.Done, x.record.Request.options())
	var refusal *plan.Refusal
	switch {
	case errors.As(err, &refusal) && refusal.ID == plan.NoLeader:
		return d, err.Error(), nil // a failover may be under way
	case errors.As(err, &refusal) && s.silent() && x.missed < looksBefore:
		x.missed++
		return d, err.Error(), nil
	case err != nil:
		return d, "", err
	}
	x.missed = 0
	switch {
	case d.Wait != nil:
		return d, d.Wait.For, nil
	case d.Step == nil:
		return d, "", nil
	}
	if d.Choice.Candidate != "" {
		x.choice = &d.Choice
	}
	if wait := x.transactions(ctx, d.Step.Member); wait != "" {
		return d, wait, nil
	}
	if d.Step.Kind != plan.KindRestart {
		// The lock is looked at again before what cannot be undone.
		err := x.lock.renew(ctx)
		if errors.Is(err, errLockLost) {
			return d, "", err
		}
		if err != nil {
			return d, err.Error(), nil
		}
	}
	return d, "", nil
}

// take does one step.
func (x *run) take(ctx context.Context, s plan.Step) {
	at := &attempt{Step: s, Number: len(x.record.Steps) + 1}
	before := x.now.View
	if leader, ok := before.Leader(); ok {
		at.Leader, at.Timeline = leader.Name, leader.Timeline
	}
	if p, ok := before.Member(s.Member); ok {
		at.Started = p.Started
	}
	x.event(plan.EventStep)
	x.record.At = at
	x.record.Steps = append(x.record.Steps, api.StepReport{Number: at.Number, Kind: s.Kind, Member: s.Member, Candidate: s.Candidate,
		Why: s.Why, State: api.StepRunning, Began: time.Now()})
	if err := x.save(); err != nil {
		x.drop()
		x.fail(err) // nothing was done that a crash would leave unknown
		return
	}
	x.changed(fmt.Sprintf("step %d: %s", at.Number, describe(s)))
	ctx, cancel := context.WithTimeout(ctx, x.stepTime())
	defer cancel()
	meter := startMeter(ctx, x.m)
	outcome, text, err := x.perform(ctx, at, before, meter)
	x.ended(ctx, outcome, text, err, meter.end())
}

// stepTime is for one step with its waits.
func (x *run) stepTime() time.Duration {
	limit := x.record.Request.StepTimeout
	if at := x.record.Request.At; !at.IsZero() {
		limit += max(0, time.Until(at))
	}
	return limit
}

// drop takes back a step that was not begun.
func (x *run) drop() {
	x.record.At = nil
	x.record.Steps = x.record.Steps[:len(x.record.Steps)-1]
}

// ended writes down what became of the present step. err is why the run goes no further, whatever the outcome.
func (x *run) ended(ctx context.Context, outcome plan.Outcome, text string, err error, cost *api.Cost) {
	at := x.record.At
	step := &x.record.Steps[len(x.record.Steps)-1]
	step.TookSeconds, step.Cost, step.Text = time.Since(step.Began).Seconds(), cost, text
	if err != nil {
		step.Text = err.Error()
	}
	aborted := errors.Is(context.Cause(ctx), context.Canceled)
	if aborted && outcome != plan.OutcomeDone {
		outcome = plan.OutcomeUnknown
	}
	switch outcome {
	case plan.OutcomeDone:
		step.State = api.StepDone
	case plan.OutcomeFailed:
		step.State = api.StepFailed
	default:
		step.State = api.StepUnknown
	}
	if outcome != plan.OutcomeUnknown {
		// What is not known stays the attempt that a resumed run asks about first.
		x.record.At = nil
		x.record.Done = append(x.record.Done, plan.Done{Step: at.Step, Outcome: outcome, Started: at.Started, Timeline: at.Timeline})
	}
	state := step.State
	switch {
	case errors.Is(err, errTakenBack):
		x.drop()
		x.record.Done = x.record.Done[:len(x.record.Done)-1]
		x.event(plan.EventStop)
		x.event(plan.EventDone)
	case aborted:
		x.abort = true
		x.event(plan.EventAbort)
	case err != nil:
		x.fail(err)
	case outcome == plan.OutcomeDone && x.stopped():
		x.event(plan.EventStop)
		x.event(plan.EventDone)
	case outcome == plan.OutcomeDone:
		x.event(plan.EventDone)
	default:
		x.fail(errors.New(step.Text))
	}
	if err := x.save(); err != nil {
		x.log.Error("what was done could not be written down", "error", err)
	}
	x.changed(fmt.Sprintf("step %d: %s: %s", at.Number, describe(at.Step), state))
}

// fail ends the run after something went wrong.
func (x *run) fail(err error) {
	x.wrong = err
	x.event(plan.EventFail)
}

// sleep waits, less when it is asked to stop.
func (x *run) sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-x.stop:
	case <-timer.C:
	}
}

func describe(s plan.Step) string {
	switch s.Kind {
	case plan.KindSwitchover:
		return fmt.Sprintf("switchover from %s to %s", s.Member, s.Candidate)
	case plan.KindInPlace:
		return fmt.Sprintf("restart of the primary %s in place", s.Member)
	}
	return "restart of " + s.Member
}
