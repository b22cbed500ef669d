package pause

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"
)

// Options are what a person may choose. Zero values are the configuration's.
type Options struct {
	Lease   time.Duration // the pause ends by itself after this
	Timeout time.Duration // longest to wait until drained; then everybody is resumed
	ID      string        // of the pause in the journal; "" makes one
}

// Report is the outcome of a pause or resume by hand.
type Report struct {
	member.Result `json:"-"`
	Poolers       []api.PoolerReport `json:"poolers"`
	Until         time.Time          `json:"until,omitzero"` // end of the lease
}

// Pause pauses the fleet by hand and blocks until it is drained. What cannot be drained in time is resumed again, all of it: code
// BudgetSpent. The pause ends with Resume or with its lease, whichever is first.
func Pause(ctx context.Context, m *member.Member, o Options) Report {
	if o.Lease <= 0 {
		o.Lease = m.Config.Pause.Lease
	}
	if o.Timeout <= 0 {
		o.Timeout = m.Config.Pause.Budget
	}
	refused := func(code int, format string, args ...any) Report {
		return Report{Result: member.Result{Code: code, Decision: fmt.Sprintf(format, args...)}}
	}
	if o.ID == "" {
		o.ID = state.NewID()
	}
	if len(m.Config.Poolers) == 0 {
		return refused(member.Invalid, "no poolers are configured (set poolers in pgbaton.yaml)")
	}
	poolers, book, errs := m.Poolers(ctx, nil)
	defer member.CloseAll(poolers)
	if len(errs) > 0 {
		return refused(member.Failed, "nothing is paused: %v", errors.Join(errs...))
	}
	log := m.Log.With("hook", "pause", "member", member.Name())
	ours := m.SelectDatabases(ctx, log, poolers)
	if len(ours) == 0 {
		return refused(member.Refused, "nothing is paused: no database of any pooler leads to this cluster")
	}
	f := NewFleet(m, log, m.Journal("pause", o.ID), pgb.Hand, o.Lease, nil)
	if err := m.CheckBudget(ctx); err != nil {
		return refused(member.Invalid, "%v", err)
	}
	trying, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	looking, stop := context.WithTimeout(trying, member.ConsoleTimeout)
	f.Attach(looking, ours)
	stop()
	for _, x := range f.Poolers {
		if x.absent != nil {
			return refused(member.Failed, "nothing is paused: %v", x.absent)
		}
	}
	if m.DryRun {
		return refused(member.Done, "would pause %d pooler(s) for %s at most", len(ours), o.Lease)
	}
	if err := f.Arm(true, book, poolers); err != nil {
		return refused(member.Failed, "nothing is paused: %v", err)
	}
	defer f.Leave()
	// Nobody waits yet: the lease may be on the disk before anything is paused.
	if err := f.extendLease(time.Now().Add(o.Lease)); err != nil {
		return refused(member.Failed, "nothing is paused: %v", err)
	}
	f.keeper.kept(trying, m)
	if err := f.Pause(trying); err != nil {
		undone := f.Undo(ctx, true)
		if undone != nil {
			return refused(member.Failed, "%v; and it could not be taken back everywhere, the lease will: %v", err, undone)
		}
		if OnlyNotDrained(err) {
			return refused(member.BudgetSpent, "not drained within %s, everybody is resumed: %v", o.Timeout, err)
		}
		return refused(member.Failed, "everybody is resumed: %v", err)
	}
	report := Report{Until: f.until(), Result: member.Result{Decision: fmt.Sprintf("%d pooler(s) paused and drained", len(ours))}}
	for _, x := range f.Poolers {
		done := "paused"
		if x.absent != nil {
			report.Poolers = append(report.Poolers, api.PoolerReport{Pooler: x.Name, Done: "failed", Error: x.absent.Error()})
			report.Result = member.Result{Code: member.Failed, Decision: "not every pooler is paused: " + x.absent.Error()}
			continue
		}
		if x.foreign || x.before.Paused {
			done = "already paused"
		}
		report.Poolers = append(report.Poolers, api.PoolerReport{Pooler: x.Name, Done: done})
	}
	if report.Code == member.Done {
		f.journal.Add(state.Entry{Event: state.EventAllDrained})
	}
	return report
}

// Resume resumes the fleet, whoever paused it, and puts the settings back. It blocks until every pooler has answered, consoleTimeout
// at most for each.
func Resume(ctx context.Context, m *member.Member) Report {
	if len(m.Config.Poolers) == 0 {
		return Report{Result: member.Result{Code: member.Invalid, Decision: "no poolers are configured (set poolers in pgbaton.yaml)"}}
	}
	poolers, _, errs := m.Poolers(ctx, nil)
	defer member.CloseAll(poolers)
	if m.DryRun && len(errs) == 0 {
		return Report{Result: member.Result{Decision: fmt.Sprintf("would resume %d pooler(s)", len(poolers))}}
	}
	if m.DryRun {
		return Report{Result: member.Result{Code: member.Failed, Decision: errors.Join(errs...).Error()}}
	}
	journal := m.Journal("resume", state.NewID())
	var mu sync.Mutex
	done := map[*pgb.Pooler]string{}
	failures := pgb.Each(poolers, func(p *pgb.Pooler) error {
		ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
		defer cancel()
		was, err := resumeByHand(ctx, p)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
			done[p] = "failed"
		case was:
			done[p] = "resumed"
			journal.Add(state.Entry{Event: state.EventResumed, Pooler: p.Name})
		default:
			done[p] = "was not paused"
		}
		return err
	})
	var report Report
	for i, p := range poolers {
		r := api.PoolerReport{Pooler: p.Name, Done: done[p]}
		if failures[i] != nil {
			r.Error = failures[i].Error()
			errs = append(errs, failures[i])
		}
		report.Poolers = append(report.Poolers, r)
	}
	if len(errs) > 0 {
		report.Result = member.Result{Code: member.Failed, Decision: errors.Join(errs...).Error() +
			"; it may still be paused: run resume again, or RESUME in its admin console"}
		return report
	}
	for _, owner := range pgb.Owners() {
		EndLease(m, owner)
	}
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
	if err != nil && p.Pidfile != "" && !member.IsPermanent(err) {
		return true, p.Signal((*pgb.Process).Resume)
	}
	return was, err
}
