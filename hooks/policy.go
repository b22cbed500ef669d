package hooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/postgres"
)

const (
	policyTimeout    = 2 * time.Second // the last PAUSE may take, beyond the budget
	policyShort      = 500 * time.Millisecond
	sendPauseTimeout = 250 * time.Millisecond // to get PAUSE on its way when there is no time: 10 ms, on a busy machine 60
)

// policy is applied when the budget is spent and something still runs.
func (g *guard) policy(ctx context.Context) *ending {
	spent := func(format string, args ...any) *ending {
		g.outcome = member.Result{Code: member.BudgetSpent, Decision: "budget spent: " + fmt.Sprintf(format, args...)}
		return nil // the server may be stopped now
	}
	switch policy := g.m.Config.Pause.OnTimeout; policy {
	case config.OnTimeoutSkip:
		if err := g.fleet.Undo(ctx, true); err != nil {
			g.log.Error("cannot take back a pause", "error", err)
		}
		if end := g.endByPlan(ctx); end != nil {
			return end
		}
		return &ending{Result: member.Result{Code: member.BudgetSpent, Decision: "budget spent: policy skip, nothing is paused"}}
	case config.OnTimeoutTerminate:
		if err := g.pauseForGood(ctx, nil, true); err != nil {
			return spent("policy terminate, still not drained (%v)", err)
		}
		return spent("policy terminate, drained")
	default: // hold, and wait when the lock is about to end
		looking, cancel := context.WithTimeout(ctx, policyShort)
		long := g.longTransactions(looking, g.m.Config.Pause.Attempt)
		cancel()
		if err := g.pauseForGood(ctx, long, false); err != nil {
			return spent("policy %s, the stop goes on; what still runs will be cut: %s", policy, describe(g.openTransactions(ctx)))
		}
		return spent("policy %s, drained at last", policy)
	}
}

// pauseForGood pauses for the last time. It waits until all is drained, or nothing but the long transactions is left: for those
// nobody else is made to wait. With terminate, what is in the way is ended.
func (g *guard) pauseForGood(ctx context.Context, long []postgres.Transaction, terminate bool) error {
	limit := min(g.m.Config.Pause.Attempt, policyTimeout)
	plan := g.plan()
	if !plan.patient {
		limit = min(limit, policyShort) // the pause has stood for the whole of a short budget
	}
	if !plan.lockEnd.IsZero() {
		limit = min(limit, time.Until(plan.lockEnd))
	}
	if limit <= sendPauseTimeout {
		short, cancel := context.WithTimeout(ctx, sendPauseTimeout)
		defer cancel()
		g.fleet.SendPause(short)
		return errors.New("the lock is about to end: PAUSE is sent and not waited for")
	}
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// Found out before the PAUSE: sessions that exist now and are no pooler's stay out of it.
	spare := map[int32]bool{}
	notThrough := g.notThrough(ctx)
	for _, t := range g.openTransactions(ctx) {
		spare[t.PID] = notThrough(t)
	}
	if !terminate {
		for _, t := range long {
			spare[t.PID] = true
		}
	}
	var looking sync.WaitGroup
	defer looking.Wait()
	defer cancel()
	looking.Go(func() {
		tick := time.NewTicker(2 * planInterval)
		defer tick.Stop()
		done := map[int32]bool{}
		for quiet := 0; quiet < 3; { // in a row: what a pooler let through just before PAUSE has begun by then
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if g.plan().kind != pauseAndWait {
				cancel()
				return
			}
			open, err := g.look(ctx)
			if err != nil {
				return
			}
			open = slices.DeleteFunc(open, func(t postgres.Transaction) bool { return spare[t.PID] })
			switch {
			case terminate:
				// One that came meanwhile and is no pooler's, Patroni's own say, is not in the way.
				g.terminate(ctx, slices.DeleteFunc(open, notThrough), done)
			case len(open) > 0:
				quiet = 0
			case len(long) > 0:
				quiet++
			}
		}
		cancel()
	})
	err := g.fleet.Pause(ctx)
	// The wait may have ended before a slow pooler had taken the PAUSE.
	if err != nil && g.fleet.AnyUnsure() && g.plan().kind == pauseAndWait {
		end := time.Now().Add(sendPauseTimeout)
		if lockEnd := g.plan().lockEnd; !lockEnd.IsZero() && lockEnd.Before(end) {
			end = lockEnd
		}
		short, cancel := context.WithDeadline(whole, end)
		defer cancel()
		g.fleet.SendPause(short)
	}
	return err
}

func (g *guard) terminate(ctx context.Context, open []postgres.Transaction, done map[int32]bool) {
	for _, t := range open {
		if done[t.PID] {
			continue
		}
		done[t.PID] = true
		var ended bool
		err := g.withLocal(ctx, func(ctx context.Context) (err error) {
			ended, err = g.local.Terminate(ctx, t.PID, t.BackendStart)
			return err
		})
		g.log.Warn("terminated a transaction that was in the way",
			"transaction", describe([]postgres.Transaction{t}), "ended", ended, "error", err)
	}
}
