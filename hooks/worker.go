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
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/process"
	"github.com/pgbaton/pgbaton/state"
)

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

	mu       sync.Mutex
	here     postgres.Identity
	answered map[*pgb.Pooler]bool // its console has
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
		answered: map[*pgb.Pooler]bool{},
		log:      rt.Log.With("hook", "worker", "member", member.Name(), "action", ev.Action)}
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
		pgb.Each(used, func(p *pgb.Pooler) error { return w.openQuietly(ctx, p) })
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
func (w *worker) openQuietly(ctx context.Context, p *pgb.Pooler) error {
	if !p.HasConsole() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	err := p.Open(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answered[p] = err == nil
	return err
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
