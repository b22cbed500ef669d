package hooks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/process"
	"github.com/pgbaton/pgbaton/state"
)

// Event is what Patroni appends to a callback: the action, the role and the scope. All are empty when a person calls.
type Event struct {
	Action string // on_start, on_stop, on_restart, on_role_change
	Role   string // primary or master, replica, demoted, standby_leader, …
	Scope  string

	// Stopped is when the server was started that the guard is stopping, as the server tells it: the worker waits for another one. Zero:
	// whichever runs.
	Stopped time.Time
}

// restartAction is the action of a worker that the guard starts when Patroni restarts the server in place: Patroni looks once a second
// whether the server is up, and calls on_restart only then (4.0.7, 4.1.5).
const restartAction = "restart"

// OnRoleChange is the callback, for all four actions: a restart of the primary fires on_restart and never on_role_change, a cluster
// that starts fires on_start (Patroni 3.0.3 to 4.1). For a primary it starts the worker and returns at once; for any other
// role it stops one that is still at it. Without a role the local server is asked.
func OnRoleChange(ctx context.Context, rt *member.Member, ev Event) member.Result {
	defer pause.TakeUp(rt)
	log := rt.Log.With("hook", "on_role_change", "member", member.Name(), "action", ev.Action, "role", ev.Role)
	primary := patroni.IsPrimaryRole(ev.Role)
	if ev.Role == "" {
		var err error
		if primary, err = member.IsPrimary(ctx, rt); err != nil {
			return member.Result{Code: member.Failed, Decision: "no role given and the local server does not answer: " + err.Error()}
		}
	}
	// on_stop of a primary: the server is down, nobody can be let through to it.
	if !primary || ev.Action == "on_stop" {
		stopWorker(rt)
		if ev.Role == standbyLeader && ev.Action != "on_stop" {
			return endForStandbyLeader(ctx, rt, log)
		}
		if ev.Role == "replica" && ev.Action != "on_stop" && !rt.DryRun {
			makeOwnSlot(ctx, rt, log)
		}
		return member.Result{Decision: "not a running primary: nothing to resume here"}
	}
	if len(rt.Config.Poolers) == 0 {
		return member.Result{Code: member.Invalid, Decision: "no poolers are configured (set poolers in pgbaton.yaml): nothing to resume"}
	}
	if ev.Action == "on_restart" || ev.Action == "on_start" {
		if pid, ok := workerOf(rt, restartAction); ok {
			return member.Result{Decision: fmt.Sprintf("the worker that the guard has started (process %d) is resuming", pid)}
		}
	}
	if rt.DryRun {
		return member.Result{Decision: "would start the worker that resumes when the server is writable and the route leads here"}
	}
	stopWorker(rt)
	// Patroni kills this hook only to run the next callback (3.0.3 to 4.1), which stops or replaces a worker in any case.
	worker, err := rt.StartOwn(member.WorkCommand, ev.Action, ev.Role, ev.Scope)
	if err != nil {
		// Better late and in danger of being killed than not at all.
		log.Error("cannot start the worker, doing its work here", "error", err)
		return Work(ctx, rt, ev, nil)
	}
	log.Info("worker started", "pid", worker.PID)
	return member.Result{Decision: "the worker is started"}
}

// standbyLeader is the role of a leader that follows another cluster. It takes no writes.
const standbyLeader = "standby_leader"

// endForStandbyLeader ends the pause of a primary that has become a standby leader: nobody of this cluster will take writes, so nobody else
// would resume, and waiting helps no client.
func endForStandbyLeader(ctx context.Context, rt *member.Member, log *slog.Logger) member.Result {
	if rt.DryRun {
		return member.Result{Decision: "would end the pause of a guard of this member: a standby leader takes no writes"}
	}
	ended, err := pause.EndOwn(ctx, rt, log, pgb.Guard)
	switch {
	case err != nil:
		log.Error("cannot resume: the lease ends the pause", "error", err)
		return member.Result{
			Code:     member.Failed,
			Decision: "this cluster follows another one now, and a pause of the guard could not be ended: " + err.Error(),
		}
	case ended == 0:
		return member.Result{Decision: "a standby leader takes no writes: nothing to resume here"}
	}
	log.Warn("this cluster follows another one now and takes no writes: the pause has no reason any more, resumed", "poolers", ended)
	return member.Result{Decision: fmt.Sprintf("this cluster follows another one now: %d pooler(s) resumed", ended)}
}

const (
	writableInterval = 5 * time.Millisecond
	verifyFor        = time.Second // how long the poolers' new server connections are looked at
	verifyInterval   = 100 * time.Millisecond
)

// worker is one run of Work.
type worker struct {
	rt      *member.Member
	log     *slog.Logger
	journal *state.Journal
	local   *postgres.Server
	stopped time.Time // start of the server that does not count as the one that is waited for
	action  string    // of the event

	mu   sync.Mutex
	here postgres.Identity
}

// Work resumes the fleet when the local server is writable and the route leads to it, and sees that it stays so. It blocks until that
// is done, resume.timeout at most. It writes a line to ready when it has begun; ready may be nil.
func Work(ctx context.Context, rt *member.Member, ev Event, ready io.Writer) member.Result {
	lock, err := rt.StateDir().TryLock(member.WorkerLock)
	if ready != nil {
		_ = process.SayReady(ready)
	}
	if err != nil {
		return member.Result{Decision: "another worker is running"}
	}
	defer lock.Release()
	w := &worker{rt: rt, stopped: ev.Stopped, action: ev.Action, journal: rt.Journal("on_role_change", state.NewID()),
		log: rt.Log.With("hook", "worker", "member", member.Name(), "action", ev.Action)}
	// Early, as nobody knows how long a server lives that has just become the primary, and once more when it has settled.
	record := func() {
		if err := recordCluster(ctx, rt); err != nil {
			w.log.Debug("cannot record who is in the cluster", "error", err)
		}
	}
	var recording sync.WaitGroup
	recording.Go(record)
	defer recording.Wait()
	began := time.Now()
	result := w.run(ctx)
	w.log.Log(ctx, levelFor(result.Code), "worker ends", "decision", result.Decision, "took", time.Since(began))
	w.journal.Add(state.Entry{Event: state.EventEnded, Took: time.Since(began), Code: result.Code, Text: result.Decision})
	w.journal.Sync()
	recording.Wait()
	record()
	return result
}

func (w *worker) run(whole context.Context) member.Result {
	w.journal.Add(state.Entry{Event: state.EventStarted})
	ctx, cancel := context.WithTimeout(whole, w.rt.Config.Resume.Timeout)
	defer cancel()
	local, err := w.rt.Server()
	if err != nil {
		return member.Result{Code: member.Invalid, Decision: err.Error()}
	}
	w.local = local
	poolers, _, errs := w.rt.Poolers(ctx, nil)
	for _, err := range errs {
		w.log.Error("pooler left out: it stays paused until its lease is over", "error", err)
	}
	defer member.CloseAll(poolers)
	used := w.rt.SelectDatabases(ctx, w.log, poolers)

	// Three things at the same time, as clients wait for the last of them.
	var all sync.WaitGroup
	var writable, onRoute error
	var byRoute string
	var way *route
	defer func() {
		if way != nil {
			way.finish()
		}
	}()
	all.Go(func() { writable = w.waitWritable(ctx) })
	all.Go(func() {
		pgb.Each(used, func(p *pgb.Pooler) error { return openQuietly(ctx, p) })
		r, err := routeOf(w.rt, w.log, local, w.routed(used), w.identity, w.action)
		if err != nil {
			onRoute = err
			return
		}
		defer func() { way = r }()
		byRoute, onRoute = r.wait(ctx)
		w.journal.Add(state.Entry{Event: state.EventRoute, Text: byRoute})
	})
	all.Wait()
	if whole.Err() != nil {
		return member.Result{Code: member.Failed, Decision: "stopped by a later event before anything was resumed"}
	}
	if writable != nil {
		return member.Result{
			Code:     member.Failed,
			Decision: "the server did not become writable: nothing is resumed, the lease ends the pause: " + writable.Error(),
		}
	}
	if onRoute != nil {
		// Clients have waited for as long as they are to wait. What they meet now is what they would have met without us.
		if primary, err := member.IsPrimary(whole, w.rt); err != nil || !primary {
			return member.Result{Code: member.Failed, Decision: "this server is not the primary any more: nothing is resumed here"}
		}
		w.log.Error("resuming anyway", "error", onRoute)
	} else {
		w.log.Info(byRoute)
	}
	return w.resume(whole, used)
}

// openQuietly connects a console ahead of time. A pooler that does not answer is dealt with when it is to be resumed.
func openQuietly(ctx context.Context, p *pgb.Pooler) error {
	if !p.HasConsole() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	return p.Open(ctx)
}

func (w *worker) identity() postgres.Identity {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.here
}

// waitWritable blocks until the local server accepts writes. Only the server knows: Patroni fires on_role_change when the promotion was
// sent, and its /primary is 200 before that (4.0.7, 4.1.5).
func (w *worker) waitWritable(ctx context.Context) error {
	began := time.Now()
	var conn *postgres.Conn
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	last := error(nil)
	for {
		if conn == nil {
			conn, last = w.local.Connect(ctx)
		}
		if conn != nil {
			identity, err := conn.Identity(ctx)
			if err != nil {
				conn.Close()
				conn, last = nil, err
			} else if identity.PostmasterStart.Equal(w.stopped) {
				last = errors.New("it has not been stopped yet")
			} else {
				w.mu.Lock()
				w.here = identity
				w.mu.Unlock()
				// default_transaction_read_only is the operator's will, not a standby's state.
				if !identity.InRecovery {
					w.log.Info("writable", "took", time.Since(began))
					w.journal.Add(state.Entry{Event: state.EventWritable, Took: time.Since(began)})
					return nil
				}
				last = fmt.Errorf("it is in recovery")
			}
		}
		if ctx.Err() != nil {
			return last
		}
		member.Sleep(ctx, writableInterval)
	}
}

// resume resumes every pooler, each for itself: one that does not answer holds nobody else up.
func (w *worker) resume(whole context.Context, poolers []*pgb.Pooler) member.Result {
	// The whole time-out may have gone into waiting; a resume gets some of its own. A later event ends it: what comes then may be a
	// pause, and this must not take it back.
	ctx, cancel := context.WithTimeout(whole, max(w.rt.Config.Resume.Timeout/2, member.ConsoleTimeout))
	defer cancel()
	var mu sync.Mutex
	resumed := 0
	errs := pgb.Each(poolers, func(p *pgb.Pooler) error {
		ours, err := w.leadHere(ctx, p)
		if err != nil || !ours {
			return err
		}
		was, err := w.resumeOne(ctx, p)
		if was {
			mu.Lock()
			resumed++
			mu.Unlock()
		}
		return err
	})
	if whole.Err() != nil {
		return member.Result{
			Code:     member.Failed,
			Decision: fmt.Sprintf("stopped by a later event: %d pooler(s) resumed, the rest is for that", resumed),
		}
	}
	failed := 0
	for i, err := range errs {
		if err != nil {
			failed++
			w.log.Error(
				"cannot resume: do it by hand (RESUME in its admin console); its lease ends the pause otherwise",
				"pooler",
				poolers[i].Name,
				"error",
				err,
			)
		}
	}
	if failed > 0 {
		return member.Result{Code: member.Failed, Decision: fmt.Sprintf("%d pooler(s) resumed, %d could not be", resumed, failed)}
	}
	pause.EndLease(w.rt, pgb.Guard)
	return member.Result{Decision: fmt.Sprintf("%d pooler(s) resumed, %d were not paused", resumed, len(poolers)-resumed)}
}

func (w *worker) resumeOne(ctx context.Context, p *pgb.Pooler) (was bool, err error) {
	if !p.HasConsole() {
		return true, p.Signal((*pgb.Process).Resume)
	}
	var found pgb.State
	err = member.Retry(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
		defer cancel()
		var err error
		if found, err = member.StateOfPause(ctx, p); err != nil {
			return err
		}
		if found.Mark != nil && found.Mark.Owner != pgb.Guard {
			w.log.Warn("left paused: it is not the guard's pause", "pooler", p.Name, "owner", found.Mark.Owner)
			return nil
		}
		resumed, err := p.Resume(ctx)
		was = was || resumed
		return err
	}, member.IsPermanent)
	if err != nil {
		if p.Pidfile != "" {
			w.log.Warn("the console does not answer, resuming with a signal", "pooler", p.Name, "error", err)
			return true, p.Signal((*pgb.Process).Resume)
		}
		return was, err
	}
	if was {
		w.log.Info("resumed", "pooler", p.Name)
		w.journal.Add(state.Entry{Event: state.EventResumed, Pooler: p.Name})
	}
	// Also where nothing was paused: after a failover that nobody planned, a pool may have caught the old primary as a replica and
	// would keep it for server_lifetime.
	w.verify(ctx, p)
	if found.Mark == nil || found.Mark.Owner == pgb.Hand || found.Mark.Owner == pgb.Readers {
		return was, nil
	}
	err = member.Retry(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
		defer cancel()
		return p.Unmark(ctx)
	}, member.IsPermanent)
	if err == nil {
		w.journal.Add(state.Entry{Event: state.EventPutBack, Pooler: p.Name})
	}
	return was, err
}
