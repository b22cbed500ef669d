package hooks

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
)

const (
	restInterval    = time.Second            // between questions to Patroni while we wait
	patience        = 5 * time.Second        // for an answer; after [member.RestTimeout] without one Patroni counts as silent
	restHeadStart   = 100 * time.Millisecond // Patroni answers in 5 ms; no pooler is touched before, if it does
	localTimeout    = 500 * time.Millisecond // the local server answers in milliseconds
	planInterval    = 10 * time.Millisecond  // how late a change of plan may be noticed
	lastResortAfter = 6 * time.Second        // policy, stop and undo have 2 s each
)

func (g *guard) askLocal(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	found := roleUnknown
	server, err := g.m.Server()
	if err == nil {
		g.local, err = server.Connect(ctx)
	}
	if err == nil {
		var inRecovery bool
		if inRecovery, err = g.local.InRecovery(ctx); err == nil {
			found = rolePrimary
			if inRecovery {
				found = roleReplica
			}
		}
	}
	if err != nil {
		g.log.Warn("the local server does not answer", "error", err)
	}
	g.update(func(v *view) { v.local = found })
}

// watchPatroni asks Patroni at once and then every second until the context ends. A Patroni that shuts down takes no connection any more
// and has room for six that wait (4.0.7 and 4.1.5: request_queue_size of Python's socketserver is 5). What comes then is dropped by the
// kernel, and a candidate that asks it in the leader race waits a second until TCP tries again. So nothing is asked anew while a
// question is open, and nothing else until Patroni has answered.
func (g *guard) watchPatroni(ctx context.Context, client *patroni.Client) {
	var asking sync.WaitGroup
	defer asking.Wait()
	tick := time.NewTicker(restInterval)
	defer tick.Stop()
	// Not in one with each other: Patroni answers GET /config from the DCS when its last look there failed, so just then it hangs.
	settings, cluster := question{ask: g.askSettings}, question{ask: g.askCluster}
	leader := question{ask: func(ctx context.Context, client *patroni.Client) {
		if g.askPatroni(ctx, client) {
			settings.put(ctx, client, &asking)
			cluster.put(ctx, client, &asking)
		}
	}}
	for {
		leader.put(ctx, client, &asking)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// question is one that is not put again as long as it is open.
type question struct {
	open atomic.Bool
	ask  func(context.Context, *patroni.Client)
}

func (q *question) put(ctx context.Context, client *patroni.Client, asking *sync.WaitGroup) {
	if q.open.Swap(true) {
		return
	}
	asking.Go(func() {
		defer q.open.Store(false)
		q.ask(ctx, client)
	})
}

// askPatroni reports whether Patroni has answered.
func (g *guard) askPatroni(ctx context.Context, client *patroni.Client) bool {
	asked := time.Now()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	silent := func(v *view, cause string) {
		if v.silentSince.IsZero() {
			v.silentSince, v.silentCause = asked, cause
		}
	}
	late := time.AfterFunc(member.RestTimeout, func() {
		g.update(func(v *view) {
			if !v.asked.Equal(asked) { // it has not been answered just now
				silent(v, "does not answer")
			}
		})
	})
	defer late.Stop()
	health, err := client.Leader(ctx)
	if errors.Is(ctx.Err(), context.Canceled) {
		return false
	}
	g.update(func(v *view) {
		v.asked = asked
		switch {
		case err == nil:
			v.answered, v.health, v.silentSince = true, health, time.Time{}
		case patroni.Unanswered(err):
			silent(v, "does not answer")
		default:
			silent(v, "cannot be asked ("+err.Error()+")")
		}
	})
	return err == nil
}

// askSettings asks for what does not change while a guard runs, until it is known.
func (g *guard) askSettings(ctx context.Context, client *patroni.Client) {
	g.mu.Lock()
	known := g.view.ttl > 0
	g.mu.Unlock()
	if known {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, member.RestTimeout)
	defer cancel()
	dynamic, err := client.Dynamic(ctx)
	if err != nil {
		g.log.Debug("GET /config", "error", err)
		return
	}
	g.update(func(v *view) {
		v.ttl, v.loopWait = dynamic.TTL, dynamic.LoopWait
		g.recorded.NoSlots = recordOf(patroni.Cluster{}, "", dynamic).NoSlots
	})
}

// askCluster asks who else is in the cluster. Patroni reads the DCS for that.
func (g *guard) askCluster(ctx context.Context, client *patroni.Client) {
	ctx, cancel := context.WithTimeout(ctx, member.RestTimeout)
	defer cancel()
	cluster, err := client.Cluster(ctx)
	if err != nil {
		g.log.Debug("GET /cluster", "error", err)
		return
	}
	g.update(func(v *view) { v.cluster = &cluster })
}

func (g *guard) update(change func(*view)) {
	g.mu.Lock()
	change(&g.view)
	g.mu.Unlock()
	select {
	case g.news <- struct{}{}:
	default:
	}
}

// plan is the decision as of now. A new reason is logged once.
func (g *guard) plan() plan {
	g.mu.Lock()
	g.view.now = time.Now()
	p := decide(g.view)
	news := p.reason != g.said
	g.said = p.reason
	g.mu.Unlock()
	if news {
		if p.kind == pauseAndWait {
			g.log.Info(p.reason, "until", p.until.Format("15:04:05.000"))
		} else {
			g.log.Info(p.reason)
		}
	}
	return p
}

// lastResort ends the process when something hangs that has a limit and should not: a guard that is still there when the lock is gone is
// the worst that can be. The keeper has the pause.
func (g *guard) lastResort(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		var overdue time.Time // since when the plan is over
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			g.mu.Lock()
			v := g.view
			g.mu.Unlock()
			v.now = time.Now()
			p := decide(v)
			switch {
			case p.kind == pauseAndWait && v.now.Before(p.until):
				overdue = time.Time{}
			case overdue.IsZero():
				overdue = v.now
			case v.now.Sub(overdue) > lastResortAfter, !p.lockEnd.IsZero() && v.now.After(p.lockEnd.Add(member.LockMargin-time.Second)):
				g.log.Error("the guard hangs and is ended, so that it does not outlive the leader lock; the lease ends its pause",
					"plan", p.reason, "overdue", v.now.Sub(overdue), "code", member.BudgetSpent)
				g.exit(member.BudgetSpent)
				return
			}
		}
	}()
	return cancel
}

// await blocks until the view fulfils a condition, the limit is over, or the context ends.
func (g *guard) await(ctx context.Context, limit time.Duration, enough func(view) bool) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		g.mu.Lock()
		done := enough(g.view)
		g.mu.Unlock()
		if done {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-g.news:
		}
	}
}

// Why a context of [guard.whilePlanned] has ended, as its cause. (It may also have been cancelled.)
var (
	errBudgetSpent = errors.New("the budget is spent")
	errPlanChanged = errors.New("the plan is not to pause and wait any more")
)

// whilePlanned is a context that ends with the plan: at its end, or when it is not to pause and wait any more. What the plan is may change
// at any time, so that is looked for every planInterval.
func (g *guard) whilePlanned(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	endWhen(ctx, cancel, func() error {
		switch plan := g.plan(); {
		case plan.kind != pauseAndWait:
			return errPlanChanged
		case !time.Now().Before(plan.until):
			return errBudgetSpent
		}
		return nil
	})
	return ctx, func() { cancel(context.Canceled) }
}

// attempt is a context for one attempt of that length; it has no end of its own while the plan has no time for another.
func (g *guard) attempt(ctx context.Context, length time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	started := time.Now()
	endWhen(ctx, cancel, func() error {
		if g.plan().patient && time.Since(started) >= length {
			return context.DeadlineExceeded
		}
		return nil
	})
	return ctx, func() { cancel(context.Canceled) }
}

// endWhen ends a context with the error of why, as soon as there is one. It asks once before it returns.
func endWhen(ctx context.Context, end context.CancelCauseFunc, why func() error) {
	if err := why(); err != nil {
		end(err)
		return
	}
	go func() {
		tick := time.NewTicker(planInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := why(); err != nil {
				end(err)
				return
			}
		}
	}()
}
