package maintenance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/plan"
)

const (
	// followEvery is between two looks while a server is on its way: a switchover takes a second or two.
	followEvery = 300 * time.Millisecond
	// quietExtra is added to two loops of Patroni: for as long the cluster must look untouched before an order counts as not taken.
	quietExtra = 2 * time.Second
)

// perform does one step and blocks until it is done, or is known not to be, or ctx is over. outcome is whether the step has done what it is
// for, text how; err is why the run must not go on, with any outcome.
func (x *run) perform(ctx context.Context, at *attempt, before plan.View, meter *meter) (outcome plan.Outcome, text string, err error) {
	resume := func() {}
	if at.Kind != plan.KindRestart {
		if resume, err = x.pauseWhereNoGuard(ctx, at); err != nil {
			return plan.OutcomeFailed, "", err
		}
	}
	answered := make(chan error, 1)
	if err = x.order(ctx, at, answered); err == nil {
		outcome, text, err = x.follow(ctx, at, answered, meter)
	} else {
		outcome = plan.OutcomeFailed
	}
	resume() // before the old primary is waited for: clients wait
	if err != nil || outcome != plan.OutcomeDone {
		return outcome, text, err
	}
	return outcome, text, x.afterStep(ctx, at, before, meter)
}

// afterStep waits for what a step that is done has to leave behind, before the next one.
func (x *run) afterStep(ctx context.Context, at *attempt, before plan.View, meter *meter) error {
	if err := x.settle(ctx, at, before, meter); err != nil {
		return err
	}
	return x.warmUp(ctx, at)
}

// errTakenBack ends a step that was stopped before its time.
var errTakenBack = errors.New("the scheduled switchover was taken back")

// order has Patroni do it, once. answered gets its answer, which may come long after, or never.
func (x *run) order(ctx context.Context, at *attempt, answered chan<- error) error {
	client, err := x.m.Patroni()
	if err != nil {
		return err
	}
	if due := x.record.Request.At; !due.IsZero() && time.Until(due) <= 0 {
		return fmt.Errorf("%s is over: ask for the switchover anew", due.Format(time.RFC3339))
	}
	target, ok := x.now.members[at.Member]
	if !ok {
		return fmt.Errorf("member %s has gone", at.Member)
	}
	there, err := client.At(target.APIURL)
	if err != nil {
		return fmt.Errorf("member %s: %w", at.Member, err)
	}
	go func() {
		var answer string
		var err error
		if at.Kind == plan.KindSwitchover {
			order := patroni.SwitchoverOrder{Leader: at.Member, Candidate: at.Candidate, At: x.record.Request.At}
			answer, err = there.Switchover(ctx, order)
		} else {
			answer, err = there.Restart(ctx, false)
		}
		x.log.Info("Patroni's answer", "step", at.Number, "answer", answer, "error", err)
		answered <- err
	}()
	return nil
}

// evidence is what one look says about a step.
type evidence int

const (
	untouched evidence = iota // as before
	underWay
	happened
)

// seenIn says what a look tells about a step.
func (at *attempt) seenIn(s *scene) evidence {
	if at.Kind == plan.KindSwitchover {
		leader, ok := s.Leader()
		switch {
		case !ok || !leader.Reachable:
			return underWay
		case leader.Name == at.Leader && leader.Timeline <= at.Timeline:
			if leader.State == "running" && s.members[leader.Name].health.Primary() {
				return untouched
			}
			return underWay
		case leader.State == "running" && s.members[leader.Name].health.Primary() && leader.Timeline > at.Timeline:
			return happened
		}
		return underWay
	}
	p, ok := s.Member(at.Member)
	switch {
	case !ok || !p.Reachable || p.Busy() || p.Started.IsZero():
		return underWay
	case p.Started.Equal(at.Started):
		return untouched
	}
	return happened
}

// follow looks until it is known what became of a step. An answer only says when to look: a refusal ends it where the cluster is untouched,
// everything else is followed until the cluster has been untouched for two loops of Patroni, or the step has happened.
func (x *run) follow(ctx context.Context, at *attempt, answered <-chan error, meter *meter) (plan.Outcome, string, error) {
	var answer error
	answerKnown := answered == nil // of a run that is resumed there is none any more
	quietSince := time.Time{}
	cancelled := false
	lost := ""
	for {
		select {
		case answer = <-answered:
			answerKnown = true
			quietSince = time.Time{}
		default:
		}
		s, err := look(ctx, x.m)
		if err != nil {
			lost = err.Error()
			quietSince = time.Time{}
		} else {
			x.now, lost = s, ""
			switch seen := at.seenIn(s); {
			case seen == happened:
				if leader, _ := s.Leader(); at.Kind == plan.KindSwitchover && leader.Name == at.Leader {
					return plan.OutcomeFailed, "", &cameBackError{leader.Name, leader.Timeline}
				}
				return plan.OutcomeDone, x.outcomeText(at, s), nil
			case seen == underWay, !answerKnown:
				quietSince = time.Time{}
			case patroni.Refused(answer), patroni.Unreachable(answer):
				return plan.OutcomeFailed, "", fmt.Errorf("the order was not taken: %w", answer)
			case x.waitsForItsTime(ctx, at, s, &cancelled):
				quietSince = time.Time{}
			case cancelled:
				return plan.OutcomeFailed, "", errTakenBack
			case quietSince.IsZero():
				quietSince = time.Now()
			case time.Since(quietSince) > 2*s.LoopWait+quietExtra:
				return plan.OutcomeFailed, "", notTaken(answer)
			}
		}
		x.live(at.Member, x.following(at, lost), meter)
		member.Sleep(ctx, followEvery)
		if ctx.Err() != nil {
			return plan.OutcomeUnknown, "", x.outOfTime(ctx, at, lost)
		}
	}
}

// cameBackError ends a switchover that moved the leader away, after which the old one was promoted again. It has happened, unlike one whose
// order was not taken: there is no second one in the run.
type cameBackError struct {
	leader   string
	timeline int
}

func (e *cameBackError) Error() string {
	return fmt.Sprintf("%s is primary again, on timeline %d: no other member took over for long", e.leader, e.timeline)
}

// waitsForItsTime reports whether a scheduled switchover is still to come. Where the run was asked to stop it is taken back.
func (x *run) waitsForItsTime(ctx context.Context, at *attempt, s *scene, cancelled *bool) bool {
	due := x.record.Request.At
	if at.Kind != plan.KindSwitchover || due.IsZero() || s.Scheduled == nil {
		return false
	}
	if x.stopped() && !*cancelled {
		if client, err := x.m.Patroni(); err == nil {
			err = client.CancelSwitchover(ctx)
			*cancelled = err == nil
			x.note(fmt.Sprintf("the scheduled switchover is taken back (error: %v)", err))
		}
	}
	return true
}

func notTaken(answer error) error {
	if answer == nil {
		return errors.New("the cluster is as before although Patroni said that it was done: look at its log")
	}
	return fmt.Errorf("the cluster is as before: %w", answer)
}

func (x *run) following(at *attempt, lost string) string {
	switch {
	case lost != "":
		return lost
	case at.Kind == plan.KindSwitchover && !x.record.Request.At.IsZero() && time.Now().Before(x.record.Request.At):
		return "the switchover is due at " + x.record.Request.At.Format(time.RFC3339)
	case at.Kind == plan.KindSwitchover:
		return at.Candidate + " is primary"
	}
	return at.Member + " is restarted"
}

func (x *run) outcomeText(at *attempt, s *scene) string {
	leader, _ := s.Leader()
	switch {
	case at.Kind != plan.KindSwitchover:
		return at.Member + " is restarted"
	case at.Candidate != "" && leader.Name != at.Candidate:
		return fmt.Sprintf("%s is primary on timeline %d, instead of %s", leader.Name, leader.Timeline, at.Candidate)
	}
	return fmt.Sprintf("%s is primary on timeline %d", leader.Name, leader.Timeline)
}

// outOfTime says that what became of a step was not found out.
func (x *run) outOfTime(ctx context.Context, at *attempt, lost string) error {
	if !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return errors.New("stopped in the middle of the " + describe(at.Step) + "; Patroni goes on with it")
	}
	x.spent = true
	err := fmt.Errorf("what became of the %s is not known after %s", describe(at.Step), x.record.Request.StepTimeout)
	if lost != "" {
		err = fmt.Errorf("%w: %s", err, lost)
	}
	return err
}

// settle waits until the member of a step is as it was before: streams, has replayed, is a synchronous standby again where it was one. Of a
// switchover it is the old primary, that has to be back.
func (x *run) settle(ctx context.Context, at *attempt, before plan.View, meter *meter) error {
	waits := ""
	for {
		s, err := look(ctx, x.m)
		if err != nil {
			waits = err.Error()
		} else {
			x.now = s
			ok := false
			ok, waits = plan.Settled(before, s.View, at.Member, x.record.Request.limit())
			if !ok && s.delayed(ctx, x.m, at.Member) {
				ok, waits = plan.Settled(before, s.View, at.Member, x.record.Request.limit())
			}
			if ok {
				return nil
			}
			waits = "until " + waits
		}
		x.live(at.Member, waits, meter)
		member.Sleep(ctx, lookEvery)
		if ctx.Err() == nil {
			continue
		}
		if !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			return errors.New("stopped while it waited " + waits)
		}
		x.spent = true
		return fmt.Errorf("%s is not back after %s: it was waited %s; look at Patroni's and PostgreSQL's log on it", at.Member,
			x.record.Request.StepTimeout, waits)
	}
}
