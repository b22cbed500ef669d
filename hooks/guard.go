package hooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/follow"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/state"
)

// guard is one run of before_stop. Its parts: decide.go says what it may do and until when, watch.go keeps what that goes by up to date,
// prepare.go finds the poolers, drain.go pauses them, policy.go does what is left when the budget is spent, stop.go stops the server.
type guard struct {
	m       *member.Member
	log     *slog.Logger
	journal *state.Journal
	fleet   *pause.Fleet   // nil until the handover begins
	exit    func(code int) // ends the process at once
	outcome member.Result  // of the pause: what was decided before the server is stopped

	recorded  clusterRecord // what an earlier hook has left; with Patroni's answers it is up to date
	standby   standby       // who is to take over, as last seen
	awaited   bool          // the short budget was too short for one: the drained server waits on
	slotsMade []string      // or tried to
	readAt    follow.Leader // a replica that the readers of this one are to go to

	localMu sync.Mutex
	local   *postgres.Conn // nil when it does not answer
	blind   bool           // it answered, and does not any more
	// postmaster is when the local server was started; zero: not known, or no matter. Written before the pause.
	postmaster time.Time
	hidden     sync.Once

	mu   sync.Mutex
	view view
	said string // last reason that was logged
	news chan struct{}
}

// BeforeStop is the guard. It blocks for as long as the decision allows, at most the budget and one attempt; it returns in
// milliseconds where there is nothing to pause. A context that ends takes back what was done. exit ends the process at once with a code: it
// is called where something hangs that has a limit.
func BeforeStop(ctx context.Context, m *member.Member, exit func(code int)) member.Result {
	return newGuard(m, exit).beforeStop(ctx)
}

func (g *guard) beforeStop(ctx context.Context) member.Result {
	if g.view.calledByPatroni {
		// Patroni ends its guard when it is told to shut down, and stops the server all the same: a pause that was taken back
		// now would cut every client.
		told := ctx
		ctx = context.WithoutCancel(ctx)
		defer context.AfterFunc(told, func() { g.update(func(v *view) { v.told = time.Now() }) })()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer g.lastResort(ctx)()
	var watcher sync.WaitGroup
	defer watcher.Wait()
	defer cancel()
	client, broken := g.m.Patroni()
	if broken != nil {
		g.log.Error("Patroni cannot be asked; change the configuration", "error", broken)
		g.view.silentSince, g.view.silentCause = g.view.started, "cannot be asked"
	} else {
		watcher.Go(func() { g.watchPatroni(ctx, client) })
	}

	result := g.run(ctx)
	if err := g.budgetTooLong(); err != nil {
		g.log.Error("the budget was cut to what the lock allows; change the configuration", "error", err)
		broken = err
	}
	if broken != nil && result.Code == member.Done {
		result.Code = member.Invalid
	}
	took := time.Since(g.view.started)
	g.log.Log(context.WithoutCancel(ctx), levelFor(result.Code), "before_stop ends",
		"decision", result.Decision, "took", took, "code", result.Code)
	if g.fleet != nil {
		g.journal.Add(state.Entry{Event: state.EventReleased, Took: took, Code: result.Code, Text: result.Decision})
	}
	return result
}

func newGuard(m *member.Member, exit func(code int)) *guard {
	p := m.Config.Pause
	return &guard{
		m:       m,
		log:     m.Log.With("hook", "before_stop", "member", member.Name()),
		journal: m.Journal("before_stop", state.NewID()),
		exit:    exit,
		news:    make(chan struct{}, 1),

		recorded: readClusterRecord(m),
		view: view{started: time.Now(), budget: p.Budget, shutdownBudget: p.ShutdownBudget,
			unlimited: p.OnTimeout == config.OnTimeoutWait, calledByPatroni: patroni.IsAncestor()},
	}
}

// budgetTooLong is known only when Patroni has told its ttl.
func (g *guard) budgetTooLong() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.view.ttl <= 0 {
		return nil
	}
	return member.CheckTTL(g.view.budget, g.view.ttl)
}

func levelFor(code int) slog.Level {
	if code == member.Done {
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

// run finds out whether there is something to pause, and hands over where there is.
func (g *guard) run(ctx context.Context) member.Result {
	g.askLocal(ctx)
	if g.local != nil {
		defer g.local.Close()
	}
	if g.ofReplica() {
		if g.holdsReaders(); !g.view.readers {
			return member.Result{Decision: g.plan().reason}
		}
		g.journal = g.m.Journal("readers", g.journal.Handover) // it is no handover
	}
	if len(g.m.Config.Poolers) == 0 {
		return member.Result{Code: member.Invalid, Decision: "no poolers are configured (set poolers in pgbaton.yaml): nothing to hold"}
	}
	prepared := g.prepare(ctx)
	defer prepared.close()
	// Patroni answers in some milliseconds. The pause does not wait for it longer than that, but where it answers at once that
	// the lock is lost, no pooler is touched for nothing.
	headStart := restHeadStart
	if g.ofReplica() {
		headStart = member.RestTimeout // what it says decides where readers go on, and they work meanwhile
	}
	g.await(ctx, headStart, func(v view) bool {
		v.now = time.Now()
		return !v.silentSince.IsZero() || v.answered && (v.ttl > 0 || v.local == roleReplica || decide(v).kind != pauseAndWait)
	})
	plan := g.plan()
	if plan.kind == proceed {
		return member.Result{Code: plan.code, Decision: plan.reason}
	}
	if g.m.DryRun {
		return member.Result{Decision: fmt.Sprintf("would pause until %s (%s)", plan.until.Format(time.TimeOnly), plan.reason)}
	}
	lock, err := g.m.StateDir().TryLock(guardLock)
	if errors.Is(err, state.ErrBusy) {
		return g.join(ctx, prepared)
	}
	defer lock.Release()
	stopWorker(g.m)
	return g.handover(ctx, prepared)
}

// join waits for another guard of this member that runs already, within what this one is allowed.
func (g *guard) join(ctx context.Context, prepared *preparation) member.Result {
	pid, _ := g.m.StateDir().LockOwner(guardLock)
	waiting, cancel := g.whilePlanned(ctx)
	defer cancel()
	for {
		if waiting.Err() != nil {
			plan := g.plan()
			return member.Result{Code: plan.code,
				Decision: fmt.Sprintf("another guard (process %d) is running, and this one may not wait: %s", pid, plan.reason)}
		}
		if lock, err := g.m.StateDir().TryLock(guardLock); err == nil {
			defer lock.Release()
			// It may have been killed, or have given up. Where it has not, this finds everything paused and drained.
			g.log.Info("the other guard has ended, taking over", "pid", pid)
			return g.handover(ctx, prepared)
		}
		member.Sleep(waiting, planInterval)
	}
}

// step is one step of a handover.
type step struct {
	do   func(context.Context) *ending // nil: on to the next step
	undo func(context.Context) error   // armed before do is called; nil: there is nothing to take back
}

// ending is how a handover ends.
type ending struct {
	member.Result
	takeBack bool // what was begun is undone
}

// handover is the guard's work. The steps follow one another as in the runbook; what the poolers are is known when the first begins.
func (g *guard) handover(ctx context.Context, p *preparation) member.Result {
	if end := g.takePoolers(p); end != nil {
		return end.Result
	}
	return g.follow(ctx, g.steps())
}

// follow takes the steps in their order until one of them ends the handover, or the plan does not allow the next. The undo of a step is
// armed before the step. Undos run in the reverse order, under a context that does not end with the caller's.
func (g *guard) follow(ctx context.Context, steps []step) member.Result {
	var armed []func(context.Context) error
	var end *ending
	for _, s := range steps {
		if s.undo != nil {
			armed = append(armed, s.undo)
		}
		if end = g.endByPlan(ctx); end != nil {
			break
		}
		if end = s.do(ctx); end != nil {
			break
		}
	}
	if end.takeBack {
		for _, undo := range slices.Backward(armed) {
			if err := undo(context.WithoutCancel(ctx)); err != nil {
				g.log.Error("cannot take back a pause", "error", err)
			}
		}
	}
	return end.Result
}

// endByPlan ends the handover where the plan is not to pause and wait any more, or the guard was interrupted. It is nil while the plan
// stands.
func (g *guard) endByPlan(ctx context.Context) *ending {
	switch plan := g.plan(); {
	case ctx.Err() != nil:
		return &ending{member.Result{Code: member.Failed, Decision: "interrupted: the pause was taken back"}, true}
	case plan.kind == proceed:
		return &ending{member.Result{Code: plan.code, Decision: plan.reason}, true}
	case plan.kind == sendPause:
		short, cancel := context.WithTimeout(ctx, sendPauseTimeout)
		defer cancel()
		g.fleet.SendPause(short)
		return &ending{member.Result{Code: member.BudgetSpent, Decision: plan.reason}, false}
	}
	return nil
}
