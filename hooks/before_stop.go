package hooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/state"
)

const (
	restInterval    = time.Second            // between questions to Patroni while we wait
	restHeadStart   = 100 * time.Millisecond // Patroni answers in 5 ms; no pooler is touched before, if it does
	localTimeout    = 500 * time.Millisecond // the local server answers in milliseconds
	attachShort     = 300 * time.Millisecond // for a pooler that is down, while it is not known how much time there is
	attachLong      = time.Second            // and while there is enough
	lookInterval    = 100 * time.Millisecond // between looks at open transactions, clients work meanwhile
	planInterval    = 10 * time.Millisecond  // how late a change of plan may be noticed
	lastResortAfter = 6 * time.Second        // policy, stop and undo have 2 s each
	policyTimeout   = 2 * time.Second        // the last PAUSE may take, beyond the budget
	policyShort     = 500 * time.Millisecond
	stopTimeout     = 2 * time.Second        // for a server that was told to stop; then it is left to Patroni
	passOverTimeout = 250 * time.Millisecond // to get PAUSE on its way when there is no time: 10 ms, on a busy machine 60
)

// guard is one run of before_stop.
type guard struct {
	rt      *member.Member
	log     *slog.Logger
	journal *state.Journal
	holder  *pause.Fleet

	localMu sync.Mutex
	local   *postgres.Conn // nil when it does not answer
	blind   bool           // it did, and does not any more
	hidden  sync.Once

	mu   sync.Mutex
	view view
	said string // last reason that was logged
	news chan struct{}
}

// BeforeStop is the guard. It blocks for as long as the decision allows, at most the budget and one attempt; it returns in
// milliseconds where there is nothing to hold. A context that ends takes back what was done.
func BeforeStop(ctx context.Context, rt *member.Member) member.Result {
	g := &guard{
		rt:      rt,
		log:     rt.Log.With("hook", "before_stop", "member", member.Name()),
		journal: rt.Journal("before_stop", state.NewID()),
		news:    make(chan struct{}, 1),
	}
	p := rt.Config.Pause
	g.view = view{started: time.Now(), budget: p.Budget, shutdownBudget: p.ShutdownBudget,
		unlimited: p.OnTimeout == config.OnTimeoutWait, calledByPatroni: patroni.IsAncestor()}

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
	client, broken := rt.Patroni()
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
	g.log.Log(context.WithoutCancel(ctx), levelFor(result.Code), "before_stop ends", "decision", result.Decision, "took", time.Since(g.view.started), "code", result.Code)
	if g.holder != nil {
		g.journal.Add(state.Entry{Event: state.EventReleased, Took: time.Since(g.view.started), Code: result.Code, Text: result.Decision})
	}
	return result
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

func (g *guard) run(ctx context.Context) member.Result {
	g.askLocal(ctx)
	if g.local != nil {
		defer g.local.Close()
	}
	if g.view.local == roleReplica {
		return member.Result{Decision: g.plan().reason}
	}
	if len(g.rt.Config.Poolers) == 0 {
		return member.Result{Code: member.Invalid, Decision: "no poolers are configured (set poolers in pgbaton.yaml): nothing to hold"}
	}
	prepared := g.prepare(ctx)
	defer prepared.close()
	// Patroni answers in some milliseconds. The pause does not wait for it longer than that, but where it answers at once that
	// the lock is lost, no pooler is touched for nothing.
	g.await(ctx, restHeadStart, func(v view) bool {
		v.now = time.Now()
		return !v.silentSince.IsZero() || v.answered && (v.ttl > 0 || decide(v).kind != hold)
	})
	plan := g.plan()
	if plan.kind == leave {
		return member.Result{Code: plan.code, Decision: plan.reason}
	}
	if g.rt.DryRun {
		return member.Result{Decision: fmt.Sprintf("would pause until %s (%s)", plan.until.Format(time.TimeOnly), plan.reason)}
	}
	lock, err := g.rt.StateDir().TryLock(guardLock)
	if errors.Is(err, state.ErrBusy) {
		return g.join(ctx, prepared)
	}
	defer lock.Release()
	stopWorker(g.rt)
	return g.handover(ctx, prepared)
}

// join waits beside a guard that is at it already, within what this one is allowed.
func (g *guard) join(ctx context.Context, prepared *preparation) member.Result {
	pid, _ := g.rt.StateDir().LockOwner(guardLock)
	for {
		plan := g.plan()
		if plan.kind != hold || ctx.Err() != nil || !time.Now().Before(plan.until) {
			return member.Result{Code: plan.code, Decision: fmt.Sprintf("another guard (process %d) is at it, and this one may not wait: %s", pid, plan.reason)}
		}
		if lock, err := g.rt.StateDir().TryLock(guardLock); err == nil {
			defer lock.Release()
			// It may have been killed, or have given up. Where it has not, this finds everything paused and drained.
			g.log.Info("the guard that was at it has ended, taking over", "pid", pid)
			return g.handover(ctx, prepared)
		}
		member.Sleep(ctx, planInterval)
	}
}

func (g *guard) askLocal(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	found := roleUnknown
	server, err := g.rt.Server()
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

// watchPatroni asks Patroni at once and then every second until the context ends.
func (g *guard) watchPatroni(ctx context.Context, client *patroni.Client) {
	var asking sync.WaitGroup
	defer asking.Wait()
	tick := time.NewTicker(restInterval)
	defer tick.Stop()
	for {
		asking.Go(func() { g.askPatroni(ctx, client) })
		// Not in one with it: Patroni answers GET /config from the DCS when its last look there failed, so just then it hangs.
		asking.Go(func() { g.askSettings(ctx, client) })
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (g *guard) askPatroni(ctx context.Context, client *patroni.Client) {
	asked := time.Now()
	ctx, cancel := context.WithTimeout(ctx, member.RestTimeout)
	defer cancel()
	health, err := client.Leader(ctx)
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	g.update(func(v *view) {
		if asked.Before(v.asked) {
			return // a later question has been answered already
		}
		v.asked = asked
		switch {
		case err == nil:
			v.answered, v.health, v.silentSince = true, health, time.Time{}
		case v.silentSince.IsZero():
			v.silentSince, v.silentCause = asked, "does not answer"
			if !patroni.Unanswered(err) {
				v.silentCause = "cannot be asked (" + err.Error() + ")"
			}
		}
	})
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
	g.update(func(v *view) { v.ttl, v.loopWait = dynamic.TTL, dynamic.LoopWait })
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
		if p.kind == hold {
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
			case p.kind == hold && v.now.Before(p.until):
				overdue = time.Time{}
			case overdue.IsZero():
				overdue = v.now
			case v.now.Sub(overdue) > lastResortAfter, !p.lockEnd.IsZero() && v.now.After(p.lockEnd.Add(member.LockMargin-time.Second)):
				os.Exit(member.BudgetSpent)
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

// whilePlanned is a context that ends when the plan says stop waiting: at its end, when it is no longer to hold, or after the
// limit where there is time for another attempt (limit 0: none).
func (g *guard) whilePlanned(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	started := time.Now()
	go func() {
		tick := time.NewTicker(planInterval)
		defer tick.Stop()
		for {
			plan := g.plan()
			now := time.Now()
			if plan.kind != hold || !now.Before(plan.until) || plan.patient && limit > 0 && now.Sub(started) >= limit {
				cancel()
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return ctx, cancel
}

// preparation is all that can be done before it is known whether there is something to hold: find the poolers, look at them, and
// have the keeper at its post. It touches no pooler.
type preparation struct {
	started time.Time
	done    chan struct{} // closed when the rest may be read
	cancel  context.CancelFunc

	holder  *pause.Fleet
	poolers []*pgb.Pooler
	err     error // no keeper
}

func (g *guard) prepare(ctx context.Context) *preparation {
	ctx, cancel := context.WithCancel(ctx)
	h := pause.NewFleet(g.rt, g.log, g.journal, pgb.Guard, g.rt.Config.Pause.Lease, func(ctx context.Context) (int, error) {
		open, err := g.look(ctx)
		return len(open), err
	})
	p := &preparation{started: time.Now(), done: make(chan struct{}), cancel: cancel, holder: h}
	go func() {
		defer close(p.done)
		poolers, book, errs := g.rt.Poolers(ctx, nil)
		for _, err := range errs {
			g.log.Error("pooler left out: its clients are not held", "error", err)
		}
		p.poolers = poolers
		g.rt.SelectDatabases(ctx, g.log, poolers)
		var both sync.WaitGroup
		if !g.rt.DryRun {
			both.Go(func() { p.err = h.Arm(false, book, poolers) })
		}
		both.Go(func() { h.Attach(ctx, poolers) })
		both.Wait()
	}()
	return p
}

// close lets go of what was prepared; what was paused stands.
func (p *preparation) close() {
	p.cancel()
	letGo := func() {
		p.holder.Leave()
		member.CloseAll(p.poolers)
	}
	select {
	case <-p.done:
		letGo()
	default: // nobody waits for it; mostly the process ends with it
		go func() {
			<-p.done
			letGo()
		}()
	}
}

// wait blocks until the preparation is complete, or the plan leaves no time for poolers that do not answer.
func (g *guard) wait(p *preparation) {
	tick := time.NewTicker(planInterval)
	defer tick.Stop()
	var hurry time.Time
	for {
		select {
		case <-p.done:
			return
		case <-tick.C:
		}
		plan, now := g.plan(), time.Now()
		if plan.kind == passOver && hurry.IsZero() {
			hurry = now.Add(passOverTimeout)
		}
		took := now.Sub(p.started)
		if plan.kind == leave || plan.kind == hold && !now.Before(plan.until) || !hurry.IsZero() && now.After(hurry) ||
			!plan.patient && took > attachShort || took > max(g.rt.Config.Pause.Attempt, attachLong) {
			p.cancel()
		}
	}
}

// handover is the guard's work, one step after the other. Every step's undo is armed before it.
func (g *guard) handover(ctx context.Context, p *preparation) member.Result {
	g.wait(p)
	h := p.holder
	if p.err != nil {
		return member.Result{Code: member.Failed, Decision: "nothing is paused: " + p.err.Error()}
	}
	g.holder = h
	g.journal.Add(state.Entry{Event: state.EventStarted, Text: g.plan().reason})
	if plan := g.plan(); plan.kind == leave {
		return member.Result{Code: plan.code, Decision: plan.reason}
	}
	h.ReportAbsent()
	if h.Reachable() == 0 {
		return member.Result{Code: member.Failed, Decision: "no pooler can be reached: nothing is paused, the stop goes on as it would without pgbaton"}
	}

	outcome := g.hold(ctx)
	switch plan := g.plan(); {
	case ctx.Err() != nil:
		_ = h.Undo(ctx, true)
		return member.Result{Code: member.Failed, Decision: "interrupted: the pause was taken back"}
	case plan.kind == leave:
		_ = h.Undo(ctx, true)
		return member.Result{Code: plan.code, Decision: plan.reason}
	case plan.kind == passOver:
		short, cancel := context.WithTimeout(ctx, passOverTimeout)
		defer cancel()
		h.SendPause(short)
		return member.Result{Code: member.BudgetSpent, Decision: plan.reason}
	}
	if outcome.stop {
		outcome.Decision += g.stopServer(ctx)
	}
	return outcome.Result
}

// outcome is how the patient pause ended.
type outcome struct {
	member.Result
	stop bool // the server may be stopped now
}

// hold is the patient pause. It returns when all is drained, when the policy has been applied, or when the plan is no longer
// to hold.
func (g *guard) hold(ctx context.Context) outcome {
	attempt := g.rt.Config.Pause.Attempt
	delay := 100 * time.Millisecond
	for round := 1; ; round++ {
		plan := g.plan()
		if plan.kind != hold || ctx.Err() != nil {
			return outcome{}
		}
		if !time.Now().Before(plan.until) {
			return g.policy(ctx)
		}
		if plan.patient && g.waitForLong(ctx, attempt) {
			continue // the plan may have changed meanwhile
		}
		trying, cancel := g.whilePlanned(ctx, attempt)
		err := g.holder.Pause(trying)
		cancel()
		if err == nil {
			return outcome{Result: member.Result{Decision: fmt.Sprintf("%d pooler(s) paused and drained", g.holder.Reachable())}, stop: true}
		}
		if plan = g.plan(); plan.kind != hold || ctx.Err() != nil {
			return outcome{}
		}
		if !plan.patient && time.Now().Before(plan.until) && pause.OnlyNotDrained(err) {
			continue // the plan changed while we paused: the pause stands, wait on
		}
		if !time.Now().Before(plan.until) {
			return g.policy(ctx)
		}
		g.log.Info("not drained in time: everybody is resumed, the next attempt follows", "attempt", round, "error", err)
		if err := g.holder.Undo(ctx, false); err != nil {
			// The poolers that were resumed must not go without, because of one that hangs.
			g.log.Error("a pause could not be taken back: no further attempt", "error", err)
			return g.policy(ctx)
		}
		member.Sleep(ctx, delay-delay/10+rand.N(delay/5))
		delay = min(2*delay, member.LastDelay)
	}
}

// waitForLong waits, while clients work on, as long as a transaction is open that has run longer than one attempt may take: a
// pause would only make everybody wait for it. It reports whether it waited.
func (g *guard) waitForLong(ctx context.Context, limit time.Duration) (waited bool) {
	for {
		long := g.longTransactions(ctx, limit)
		if len(long) == 0 {
			return waited
		}
		if !waited {
			g.log.Info("waiting for a long transaction before pausing, clients work on", "transactions", describe(long))
		}
		waited = true
		member.Sleep(ctx, lookInterval)
		plan := g.plan()
		if plan.kind != hold || !plan.patient || !time.Now().Before(plan.until) || ctx.Err() != nil {
			return true
		}
	}
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

// notThrough tells transactions that did not come through a pooler, as far as the poolers can say.
func (g *guard) notThrough(ctx context.Context) func(postgres.Transaction) bool {
	pids, known := g.holder.Backends(ctx)
	return func(t postgres.Transaction) bool { return known && !pids[t.PID] }
}

// openTransactions is empty when the server does not say: then PAUSE itself finds out.
func (g *guard) openTransactions(ctx context.Context) []postgres.Transaction {
	open, err := g.look(ctx)
	if err != nil && ctx.Err() == nil {
		g.log.Debug("cannot see open transactions", "error", err)
	}
	return open
}

var errNoLocal = errors.New("the local server does not answer")

// look asks the local server. A connection that broke is not tried again: the server is about to stop.
func (g *guard) look(ctx context.Context) ([]postgres.Transaction, error) {
	g.localMu.Lock()
	defer g.localMu.Unlock()
	if g.local == nil || g.blind {
		return nil, errNoLocal
	}
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	open, err := g.local.OpenTransactions(ctx)
	if errors.Is(err, postgres.ErrHidden) {
		g.hidden.Do(func() {
			g.log.Warn("cannot see other users' transactions: long ones are not waited for; grant pg_read_all_stats", "error", err)
		})
		err = nil
	}
	g.blind = err != nil
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

// policy is applied when the budget is spent and something still runs.
func (g *guard) policy(ctx context.Context) outcome {
	spent := func(format string, args ...any) outcome {
		return outcome{stop: true, Result: member.Result{Code: member.BudgetSpent, Decision: "budget spent: " + fmt.Sprintf(format, args...)}}
	}
	switch policy := g.rt.Config.Pause.OnTimeout; policy {
	case config.OnTimeoutSkip:
		if err := g.holder.Undo(ctx, true); err != nil {
			g.log.Error("cannot take back a pause", "error", err)
		}
		return outcome{Result: member.Result{Code: member.BudgetSpent, Decision: "budget spent: policy skip, nothing is paused"}}
	case config.OnTimeoutTerminate:
		if err := g.holdAllBut(ctx, nil, true); err != nil {
			return spent("policy terminate, still not drained (%v)", err)
		}
		return spent("policy terminate, drained")
	default: // hold, and wait when the lock is about to end
		looking, cancel := context.WithTimeout(ctx, policyShort)
		long := g.longTransactions(looking, g.rt.Config.Pause.Attempt)
		cancel()
		if err := g.holdAllBut(ctx, long, false); err != nil {
			return spent("policy %s, the stop goes on; what still runs will be cut: %s", policy, describe(g.openTransactions(ctx)))
		}
		return spent("policy %s, drained at last", policy)
	}
}

// holdAllBut pauses for the last time. It waits until all is drained, or nothing but the long transactions is left: for those
// nobody else is made to wait. With terminate, what is in the way is ended.
func (g *guard) holdAllBut(ctx context.Context, long []postgres.Transaction, terminate bool) error {
	limit := min(g.rt.Config.Pause.Attempt, policyTimeout)
	plan := g.plan()
	if !plan.patient {
		limit = min(limit, policyShort) // the pause has stood for the whole of a short budget
	}
	if !plan.lockEnd.IsZero() {
		limit = min(limit, time.Until(plan.lockEnd))
	}
	if limit <= passOverTimeout {
		short, cancel := context.WithTimeout(ctx, passOverTimeout)
		defer cancel()
		g.holder.SendPause(short)
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
			if g.plan().kind != hold {
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
	err := g.holder.Pause(ctx)
	// The wait may have ended before a slow pooler had taken the PAUSE.
	if err != nil && g.holder.AnyUnsure() && g.plan().kind == hold {
		end := time.Now().Add(passOverTimeout)
		if lockEnd := g.plan().lockEnd; !lockEnd.IsZero() && lockEnd.Before(end) {
			end = lockEnd
		}
		short, cancel := context.WithDeadline(whole, end)
		defer cancel()
		g.holder.SendPause(short)
	}
	return err
}

func (g *guard) terminate(ctx context.Context, open []postgres.Transaction, done map[int32]bool) {
	for _, t := range open {
		if done[t.PID] {
			continue
		}
		done[t.PID] = true
		g.localMu.Lock()
		ended, err := g.local.Terminate(ctx, t.PID, t.BackendStart)
		g.localMu.Unlock()
		g.log.Warn("terminated a transaction that was in the way", "transaction", describe([]postgres.Transaction{t}), "ended", ended, "error", err)
	}
}

// stopServer stops the drained server, as Patroni is about to: it finds it gone and does not poll for it, which is most of a
// stall (Patroni 4.0.7, 4.1.5: 0.6 s against 1.4 s). It returns a clause for the decision.
func (g *guard) stopServer(ctx context.Context) string {
	plan := g.plan()
	if !g.rt.Config.Pause.StopServer || !plan.stop || plan.kind != hold || g.local == nil {
		return "; stopping the server is left to Patroni"
	}
	if g.view.calledByPatroni && !patroni.IsAncestor() {
		return "; Patroni has gone meanwhile, its server is left running and the lease ends the pause"
	}
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	postmaster, err := g.local.Postmaster(ctx)
	if err != nil {
		g.log.Warn("the server is left to Patroni", "error", err)
		return "; stopping the server is left to Patroni"
	}
	defer postmaster.Close()
	if err := postmaster.FastShutdown(); err != nil {
		g.log.Warn("the server is left to Patroni", "error", err)
		return "; stopping the server is left to Patroni"
	}
	if err := postmaster.Gone(ctx); err != nil {
		g.log.Warn("the server does not stop quickly: the rest is left to Patroni", "error", err, "took", time.Since(started))
		return "; told the server to stop, the rest is left to Patroni"
	}
	g.log.Info("server stopped", "took", time.Since(started))
	g.journal.Add(state.Entry{Event: state.EventServerDown, Took: time.Since(started)})
	return "; the server is stopped"
}
