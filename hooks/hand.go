package hooks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/pgb"
)

// PauseOptions are what a person may choose. Zero values are the configuration's.
type PauseOptions struct {
	Lease   time.Duration // the pause ends by itself after this
	Timeout time.Duration // longest to wait until drained; then everybody is resumed
	ID      string        // of the pause in the journal; "" makes one
}

// Report is the outcome of a pause or resume by hand.
type Report struct {
	Result  `json:"-"`
	Poolers []PoolerReport `json:"poolers"`
	Until   time.Time      `json:"until,omitzero"` // end of the lease
}

// Pause pauses the fleet by hand and blocks until it is drained. What cannot be drained in time is resumed again, all of it: code
// BudgetSpent. The pause ends with Resume or with its lease, whichever is first.
func Pause(ctx context.Context, rt *Runtime, o PauseOptions) Report {
	if o.Lease <= 0 {
		o.Lease = rt.Config.Pause.Lease
	}
	if o.Timeout <= 0 {
		o.Timeout = rt.Config.Pause.Budget
	}
	refused := func(code int, format string, args ...any) Report {
		return Report{Result: Result{Code: code, Decision: fmt.Sprintf(format, args...)}}
	}
	if o.ID == "" {
		o.ID = newID()
	}
	if len(rt.Config.Poolers) == 0 {
		return refused(Invalid, "no poolers are configured (set poolers in pgbaton.yaml)")
	}
	poolers, book, errs := rt.fleet(ctx, nil)
	defer closeAll(poolers)
	if len(errs) > 0 {
		return refused(Failed, "nothing is paused: %v", errors.Join(errs...))
	}
	log := rt.Log.With("hook", "pause", "member", member())
	rt.selectDatabases(ctx, log, poolers)
	h := newHolder(rt, log, rt.openJournal("pause", o.ID), pgb.Hand, o.Lease, nil)
	if err := rt.checkBudget(ctx); err != nil {
		return refused(Invalid, "%v", err)
	}
	trying, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	looking, stop := context.WithTimeout(trying, consoleTimeout)
	h.attach(looking, poolers)
	stop()
	for _, x := range h.held {
		if x.absent != nil {
			return refused(Failed, "nothing is paused: %v", x.absent)
		}
	}
	if rt.DryRun {
		return refused(Done, "would pause %d pooler(s) for %s at most", len(poolers), o.Lease)
	}
	if err := h.arm(true, book, poolers); err != nil {
		return refused(Failed, "nothing is paused: %v", err)
	}
	defer h.leave()
	if err := h.pause(trying); err != nil {
		undone := h.undo(ctx, true)
		if undone != nil {
			return refused(Failed, "%v; and it could not be taken back everywhere, the lease will: %v", err, undone)
		}
		if onlyNotDrained(err) {
			return refused(BudgetSpent, "not drained within %s, everybody is resumed: %v", o.Timeout, err)
		}
		return refused(Failed, "everybody is resumed: %v", err)
	}
	report := Report{Until: h.until(), Result: Result{Decision: fmt.Sprintf("%d pooler(s) paused and drained", len(poolers))}}
	for _, x := range h.held {
		done := "paused"
		if x.absent != nil {
			report.Poolers = append(report.Poolers, PoolerReport{Pooler: x.Name, Done: "failed", Error: x.absent.Error()})
			report.Result = Result{Code: Failed, Decision: "not every pooler is paused: " + x.absent.Error()}
			continue
		}
		if x.foreign || x.before.PausedKnown && x.before.Paused {
			done = "already paused"
		}
		report.Poolers = append(report.Poolers, PoolerReport{Pooler: x.Name, Done: done})
	}
	if report.Code == Done {
		h.journal.add(Entry{Event: EventAllDrained})
	}
	return report
}

// Resume resumes the fleet, whoever paused it, and puts the settings back. It blocks until every pooler has answered, consoleTimeout
// at most for each.
func Resume(ctx context.Context, rt *Runtime) Report {
	if len(rt.Config.Poolers) == 0 {
		return Report{Result: Result{Code: Invalid, Decision: "no poolers are configured (set poolers in pgbaton.yaml)"}}
	}
	poolers, _, errs := rt.fleet(ctx, nil)
	defer closeAll(poolers)
	if rt.DryRun && len(errs) == 0 {
		return Report{Result: Result{Decision: fmt.Sprintf("would resume %d pooler(s)", len(poolers))}}
	}
	if rt.DryRun {
		return Report{Result: Result{Code: Failed, Decision: errors.Join(errs...).Error()}}
	}
	journal := rt.openJournal("resume", newID())
	var mu sync.Mutex
	done := map[*pgb.Pooler]string{}
	failures := pgb.Each(poolers, func(p *pgb.Pooler) error {
		ctx, cancel := context.WithTimeout(ctx, consoleTimeout)
		defer cancel()
		was, err := resumeByHand(ctx, p)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
			done[p] = "failed"
		case was:
			done[p] = "resumed"
			journal.add(Entry{Event: EventResumed, Pooler: p.Name})
		default:
			done[p] = "was not paused"
		}
		return err
	})
	var report Report
	for i, p := range poolers {
		r := PoolerReport{Pooler: p.Name, Done: done[p]}
		if failures[i] != nil {
			r.Error = failures[i].Error()
			errs = append(errs, failures[i])
		}
		report.Poolers = append(report.Poolers, r)
	}
	if len(errs) > 0 {
		report.Result = Result{Code: Failed, Decision: errors.Join(errs...).Error() + "; it may still be paused: run resume again, or RESUME in its admin console"}
		return report
	}
	endLease(rt, pgb.Guard)
	endLease(rt, pgb.Hand)
	report.Decision = fmt.Sprintf("%d pooler(s) are not paused", len(poolers))
	return report
}

func resumeByHand(ctx context.Context, p *pgb.Pooler) (was bool, err error) {
	if !p.HasConsole() {
		return true, p.Signal((*pgb.Process).Resume)
	}
	if was, err = p.ResumeEverything(ctx); err == nil {
		err = p.Unmark(ctx)
	}
	if err != nil && p.Pidfile != "" && !refusedForGood(err) {
		return true, p.Signal((*pgb.Process).Resume)
	}
	return was, err
}
