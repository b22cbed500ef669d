package hooks

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/postgres"
)

const (
	lookInterval   = 100 * time.Millisecond // between looks at open transactions, clients work meanwhile
	refreshAfter   = time.Second            // that names are known, they are resolved again before an attempt
	refreshTimeout = 300 * time.Millisecond // for that, clients work meanwhile
)

// drain is the patient pause. It blocks until all is drained, the policy has been applied, or the plan is not to pause and wait any more,
// which is for the caller to see.
func (g *guard) drain(ctx context.Context) *ending {
	length := g.m.Config.Pause.Attempt
	delay := 100 * time.Millisecond
	waiting, cancel := g.whilePlanned(ctx)
	defer cancel()
	refreshed := g.view.started
	for round := 1; waiting.Err() == nil; round++ {
		if g.plan().patient && g.waitForLong(waiting, length) {
			continue // the plan may have changed meanwhile
		}
		// Nothing is paused while the plan is patient.
		if g.plan().patient && time.Since(refreshed) > refreshAfter {
			refreshing, cancel := context.WithTimeout(waiting, refreshTimeout)
			g.fleet.Refresh(refreshing)
			cancel()
			refreshed = time.Now()
		}
		trying, cancel := g.attempt(waiting, length)
		held := g.watchHeld(trying, cancel)
		err := g.fleet.Pause(trying)
		cancel()
		sessions := held()
		if err == nil {
			g.outcome = member.Result{Decision: fmt.Sprintf("%d pooler(s) paused and drained", g.fleet.Reachable())}
			return nil
		}
		if waiting.Err() != nil {
			break
		}
		if sessions != nil && pause.OnlyNotDrained(err) {
			end, again := g.heldOnly(ctx, waiting, sessions)
			if again {
				continue
			}
			return end
		}
		if !g.plan().patient && pause.OnlyNotDrained(err) {
			continue // the plan changed while we paused: the pause stands, wait on
		}
		g.log.Info("not drained in time: everybody is resumed, the next attempt follows", "attempt", round, "error", err)
		if err := g.fleet.Undo(ctx, false); err != nil {
			// The poolers that were resumed must not go without, because of one that hangs.
			g.log.Error("a pause could not be taken back: no further attempt", "error", err)
			return g.policy(ctx)
		}
		member.Sleep(waiting, delay-delay/10+rand.N(delay/5))
		delay = min(2*delay, member.LastDelay)
	}
	if errors.Is(context.Cause(waiting), errBudgetSpent) {
		return g.policy(ctx)
	}
	return nil
}

// waitForLong waits, while clients work on, as long as a transaction is open that has run longer than one attempt may take: a
// pause would only make everybody wait for it. It reports whether it waited.
func (g *guard) waitForLong(ctx context.Context, limit time.Duration) (waited bool) {
	for ctx.Err() == nil {
		long := g.longTransactions(ctx, limit)
		if len(long) == 0 {
			return waited
		}
		if !waited {
			g.log.Info("waiting for a long transaction before pausing, clients work on", "transactions", describe(long))
		}
		waited = true
		member.Sleep(ctx, lookInterval)
		if !g.plan().patient {
			return true
		}
	}
	return true
}

// longTransactions are those of the poolers that have been open for longer than the limit. A session that does not come through a
// pooler, pg_dump say, is in nobody's way.
func (g *guard) longTransactions(ctx context.Context, limit time.Duration) []postgres.Transaction {
	open := g.openTransactions(ctx)
	var long []postgres.Transaction
	for _, t := range open {
		if t.Age > limit {
			long = append(long, t)
		}
	}
	if len(long) == 0 {
		return nil
	}
	return slices.DeleteFunc(long, g.notThrough(ctx))
}

// notThrough tells transactions that did not come through a pooler, as far as the poolers can say. Where they cannot, all count.
func (g *guard) notThrough(ctx context.Context) func(postgres.Transaction) bool {
	sessions := g.sessions(ctx)
	pids, known := g.fleet.Backends(ctx, func(pid int32) bool {
		_, is := sessions[pid]
		return is || sessions == nil
	})
	return func(t postgres.Transaction) bool { return known && !pids[t.PID] }
}

// sessions are those of clients, by process id; nil when the server does not say.
func (g *guard) sessions(ctx context.Context) (sessions map[int32]postgres.Backend) {
	_ = g.askServer(ctx, func(ctx context.Context) error {
		found, err := g.local.ClientBackends(ctx)
		if err != nil && !errors.Is(err, postgres.ErrHidden) {
			g.blind = true // as in look
			return err
		}
		sessions = found
		return nil
	})
	return sessions
}

// openTransactions is empty when the server does not say: then PAUSE itself finds out.
func (g *guard) openTransactions(ctx context.Context) []postgres.Transaction {
	open, err := g.look(ctx)
	if err != nil && ctx.Err() == nil {
		g.log.Debug("cannot see open transactions", "error", err)
	}
	return open
}

// look asks the local server what is open. It takes localTimeout at most.
func (g *guard) look(ctx context.Context) (open []postgres.Transaction, err error) {
	err = g.askServer(ctx, func(ctx context.Context) error {
		var err error
		open, err = g.local.OpenTransactions(ctx)
		if errors.Is(err, postgres.ErrHidden) {
			g.hidden.Do(func() {
				g.log.Warn("cannot see other users' transactions: long ones are not waited for; grant pg_read_all_stats", "error", err)
			})
			err = nil
		}
		g.blind = err != nil
		return err
	})
	return open, err
}

// describe names transactions for a log: who, since when, never what.
func describe(open []postgres.Transaction) string {
	var b strings.Builder
	for i, t := range open {
		if i == 5 {
			fmt.Fprintf(&b, " and %d more", len(open)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "pid %d user %s database %s application %q client %s open for %s (%s)",
			t.PID, t.User, t.Database, t.Application, t.Client, t.Age.Round(10*time.Millisecond), t.State)
	}
	return b.String()
}
