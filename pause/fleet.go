package pause

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"
)

// Fleet is the poolers that one pause is for. It pauses and resumes them together, and has a keeper that resumes them when the pauser does
// not. It is made by [NewFleet], armed by [Fleet.Arm] and looked at by [Fleet.Attach] before it is paused. It is for one goroutine.
type Fleet struct {
	m       *member.Member
	log     *slog.Logger
	journal *state.Journal
	owner   pgb.Owner
	nonce   int
	length  time.Duration // of the lease
	keeper  *keeperLink   // nil until Arm
	Poolers []*Pooler

	startKeeper func() (*keeperLink, error) // also in place of one that was killed

	replica  Replica
	restarts func() bool // nil: it is no replica

	// busy counts open transactions of the local server; for poolers that take signals only and so cannot tell when they
	// are drained. nil: not known.
	busy func(context.Context) (int, error)
}

// Pooler is one pooler of a fleet.
type Pooler struct {
	*pgb.Pooler
	before  pgb.State // when we came
	signals bool      // the console does not answer, the pidfile is used
	absent  error     // neither console nor signals: it cannot be paused
	foreign bool      // somebody else's pause stands: it is not ours to end
	theirs  bool      // and their mark stays on
	touched bool      // marked, or PAUSE may be on its way
	sent    bool      // a PAUSE of ours was sent and not taken back
	unsure  bool      // whether the last PAUSE of ours has reached it is not known
	drained bool
}

// NewFleet makes one for a pause by this owner that lasts length at most. busy counts open transactions of the local server; nil: not
// known.
func NewFleet(m *member.Member, log *slog.Logger, j *state.Journal, owner pgb.Owner, length time.Duration,
	busy func(context.Context) (int, error)) *Fleet {
	return &Fleet{m: m, log: log, journal: j, owner: owner, nonce: rand.IntN(10), length: length, busy: busy}
}

// Arm starts the keeper, which must run before anything is paused, and blocks until it is ready, 2 s at most. Its log goes where ours goes
// unless it is quiet.
func (f *Fleet) Arm(quiet bool, book member.AddressBook, poolers []*pgb.Pooler) (err error) {
	f.startKeeper = func() (*keeperLink, error) { return startKeeper(f.m, quiet, f.newLease(book, poolers)) }
	f.keeper, err = f.startKeeper()
	return err
}

// Leave leaves the keeper, if there is one, to itself. What is paused stays paused until somebody resumes it or the lease ends.
func (f *Fleet) Leave() {
	if f.keeper != nil {
		f.keeper.leave()
	}
}

// until is the end of the lease.
func (f *Fleet) until() time.Time { return f.keeper.lease.Until }

// AnyUnsure reports whether a PAUSE may be on its way that was not seen to arrive.
func (f *Fleet) AnyUnsure() bool {
	return slices.ContainsFunc(f.Poolers, func(x *Pooler) bool { return x.unsure })
}

// Attach looks at every pooler, all at once, before any is touched: a pooler that is down must not cost the others a
// stall. It blocks until all have answered or the context ends; who has not by then is absent.
func (f *Fleet) Attach(ctx context.Context, poolers []*pgb.Pooler) {
	f.Poolers = f.attach(ctx, poolers)
}

func (f *Fleet) attach(ctx context.Context, poolers []*pgb.Pooler) []*Pooler {
	attached := make([]*Pooler, len(poolers))
	var all sync.WaitGroup
	for i, p := range poolers {
		attached[i] = &Pooler{Pooler: p}
		all.Go(func() { f.attachOne(ctx, attached[i]) })
	}
	all.Wait()
	return attached
}

func (f *Fleet) attachOne(ctx context.Context, x *Pooler) {
	started, err := time.Now(), pgb.ErrNoConsole
	if x.HasConsole() {
		err = member.Retry(ctx, func() (err error) {
			if err = x.Prepare(ctx); err == nil {
				x.before, err = x.State(ctx)
			}
			return err
		}, member.IsPermanent)
	}
	if err == nil {
		return
	}
	if ctx.Err() != nil {
		waited := time.Since(started).Round(10 * time.Millisecond)
		err = fmt.Errorf("no answer within %s, and there is no time to wait longer: %w", waited, err)
	}
	if x.Pidfile == "" {
		x.absent = err
		return
	}
	x.signals = true
	if x.HasConsole() {
		f.log.Warn("the console does not answer, using signals", "pooler", x.Name, "pidfile", x.Pidfile, "error", err)
	}
	// Whether the pidfile is any good is found out before it counts.
	x.absent = x.Signal(func(*pgb.Process) error { return nil })
}

// ReportAbsent logs whose clients the pause does not protect.
func (f *Fleet) ReportAbsent() {
	for _, x := range f.Poolers {
		if x.absent != nil {
			f.log.Error("pooler cannot be reached: its clients are not held; see to it after the handover",
				"pooler", x.Name, "error", x.absent)
		}
	}
}

// extendLease has the keeper end the pause at until. Where the keeper was killed it starts another.
func (f *Fleet) extendLease(until time.Time) error {
	if f.restarts != nil {
		f.replica.Restarts = f.restarts()
		f.keeper.lease.Replica = f.replica
	}
	err := f.keeper.extend(until)
	if err == nil || f.startKeeper == nil {
		return err
	}
	f.log.Warn("the lease keeper has gone, starting another", "error", err)
	again, err := f.startKeeper()
	if err != nil {
		return err
	}
	f.keeper.leave()
	again.lease.Replica = f.keeper.lease.Replica
	f.keeper = again
	return f.keeper.extend(until)
}

// lost leaves out a pooler whose process has ended since it was looked at.
func (f *Fleet) lost(x *Pooler, err error) {
	x.absent = err
	f.log.Error("pooler has ended meanwhile: going on without it", "pooler", x.Name, "error", err)
}

// Reachable counts the poolers that can be paused.
func (f *Fleet) Reachable() int {
	n := 0
	for _, x := range f.Poolers {
		if x.absent == nil {
			n++
		}
	}
	return n
}

// each calls do for the reachable poolers, all at once, and returns their errors joined.
func (f *Fleet) each(do func(*Pooler) error) error {
	var all sync.WaitGroup
	errs := make([]error, len(f.Poolers))
	for i, x := range f.Poolers {
		if x.absent == nil {
			all.Go(func() { errs[i] = do(x) })
		}
	}
	all.Wait()
	return errors.Join(errs...)
}

// Backends are the process ids of the server sessions that the poolers use; here are those that the server has. It is not known when a
// pooler takes signals only, or has sessions and none of them is the server's: then it goes through another pooler, and has that one's
// process ids.
func (f *Fleet) Backends(ctx context.Context, here func(pid int32) bool) (pids map[int32]bool, known bool) {
	ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	pids = map[int32]bool{}
	var mu sync.Mutex
	err := f.each(func(x *Pooler) error {
		if x.signals {
			return pgb.ErrNoConsole
		}
		servers, err := x.Servers(ctx)
		mu.Lock()
		defer mu.Unlock()
		sessions, straight := false, false
		for _, s := range servers {
			pids[s.RemotePID] = true
			sessions = sessions || s.RemotePID != 0
			straight = straight || here(s.RemotePID)
		}
		if err == nil && sessions && !straight {
			return errThroughAnother
		}
		return err
	})
	return pids, err == nil
}

// Watcher looks at the poolers of a fleet on connections of its own, while a pause is under way.
type Watcher struct{ poolers []*pgb.Pooler }

// Watcher is nil where not every pooler can be looked at. The caller closes it.
func (f *Fleet) Watcher() *Watcher {
	w := &Watcher{}
	for _, x := range f.Poolers {
		if x.absent == nil && x.signals {
			return nil
		}
		if x.absent == nil {
			w.poolers = append(w.poolers, x.Another())
		}
	}
	return w
}

// Close ends its connections.
func (w *Watcher) Close() { member.CloseAll(w.poolers) }

// Servers are the server connections of all the poolers, of the databases that a pause stops. It blocks for ConsoleTimeout at most. What
// stays there during a pause is what clients hold.
func (w *Watcher) Servers(ctx context.Context) ([]pgb.ServerConn, error) {
	ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	var mu sync.Mutex
	var all []pgb.ServerConn
	errs := pgb.Each(w.poolers, func(p *pgb.Pooler) error {
		servers, err := p.HeldServers(ctx)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, servers...)
		return err
	})
	return all, errors.Join(errs...)
}

var errThroughAnother = errors.New("the pooler goes through another pooler")

// newLease is what the keeper is told at first: whose pause it is and where its poolers are, but not yet until when.
func (f *Fleet) newLease(book member.AddressBook, poolers []*pgb.Pooler) lease {
	l := lease{ID: f.journal.Handover, Owner: f.owner, Nonce: f.nonce, Book: book}
	for _, p := range poolers {
		if p.Databases != nil {
			if l.Databases == nil {
				l.Databases = map[string][]string{}
			}
			l.Databases[p.Name] = p.Databases
		}
	}
	return l
}
