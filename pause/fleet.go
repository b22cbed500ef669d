package pause

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"
)

// Fleet pauses a fleet and takes it back.
type Fleet struct {
	m       *member.Member
	log     *slog.Logger
	journal *state.Journal
	owner   pgb.Owner
	nonce   int
	lease   *lease
	rearm   func() (*lease, error) // a new keeper in place of one that was killed
	length  time.Duration          // of the lease
	Poolers []*Pooler

	// busy counts open transactions of the local server; for poolers that take signals only and so cannot tell when they
	// are drained. nil: not known.
	busy func(context.Context) (int, error)
}

// Pooler is one pooler of a fleet.
type Pooler struct {
	*pgb.Pooler
	before  pgb.State // when we came
	signals bool      // the console does not answer, the pidfile is used
	absent  error     // neither console nor signals: it cannot be held
	foreign bool      // somebody else's pause stands: it is not ours to end
	theirs  bool      // and their mark stays on
	touched bool      // marked, or PAUSE may be on its way
	sent    bool      // a PAUSE of ours was sent and not taken back
	unsure  bool      // whether the last PAUSE of ours has reached it is not known
	drained bool
}

// NewFleet makes one for a pause by this owner that lasts length at most. busy counts open transactions of the local server; nil: not
// known.
func NewFleet(m *member.Member, log *slog.Logger, j *state.Journal, owner pgb.Owner, length time.Duration, busy func(context.Context) (int, error)) *Fleet {
	return &Fleet{m: m, log: log, journal: j, owner: owner, nonce: rand.IntN(10), length: length, busy: busy}
}

// Arm starts the keeper, which must be there before anything is paused, and blocks until it is ready; another takes its place when it is
// killed. Its log goes where ours goes unless it is quiet.
func (h *Fleet) Arm(quiet bool, book member.AddressBook, poolers []*pgb.Pooler) (err error) {
	h.rearm = func() (*lease, error) { return arm(h.m, quiet, h.order(book, poolers)) }
	h.lease, err = h.rearm()
	return err
}

// Leave lets the keeper watch on its own, if there is one. What is paused stands.
func (h *Fleet) Leave() {
	if h.lease != nil {
		h.lease.leave()
	}
}

// until is the end of the lease.
func (h *Fleet) until() time.Time { return h.lease.order.Until }

// AnyUnsure reports whether a PAUSE may be on its way that was not seen to arrive.
func (h *Fleet) AnyUnsure() bool {
	return slices.ContainsFunc(h.Poolers, func(x *Pooler) bool { return x.unsure })
}

// Attach looks at every pooler, all at once, before any is touched: a pooler that is down must not cost the others a
// stall. It blocks until all have answered or the context ends; who has not by then is absent.
func (h *Fleet) Attach(ctx context.Context, poolers []*pgb.Pooler) {
	h.Poolers = make([]*Pooler, len(poolers))
	byPooler := make(map[*pgb.Pooler]*Pooler, len(poolers))
	for i, p := range poolers {
		h.Poolers[i] = &Pooler{Pooler: p}
		byPooler[p] = h.Poolers[i]
	}
	pgb.Each(poolers, func(p *pgb.Pooler) error {
		h.attachOne(ctx, byPooler[p])
		return nil
	})
}

func (h *Fleet) attachOne(ctx context.Context, x *Pooler) {
	err := pgb.ErrNoConsole
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
	if x.Pidfile == "" {
		x.absent = err
		return
	}
	x.signals = true
	if x.HasConsole() {
		h.log.Warn("the console does not answer, using signals", "pooler", x.Name, "pidfile", x.Pidfile, "error", err)
	}
	// Whether the pidfile is any good is found out before it counts.
	x.absent = x.Signal(func(*pgb.Process) error { return nil })
}

// ReportAbsent logs whose clients will not be held.
func (h *Fleet) ReportAbsent() {
	for _, x := range h.Poolers {
		if x.absent != nil {
			h.log.Error("pooler cannot be reached: its clients are not held; see to it after the handover", "pooler", x.Name, "error", x.absent)
		}
	}
}

// promise has the lease in force until then, with another keeper where the first was killed.
func (h *Fleet) promise(until time.Time) error {
	err := h.lease.Extend(until)
	if err == nil || h.rearm == nil {
		return err
	}
	h.log.Warn("the lease keeper has gone, starting another", "error", err)
	again, err := h.rearm()
	if err != nil {
		return err
	}
	h.lease.leave()
	h.lease = again
	return h.lease.Extend(until)
}

// lost lets go of a pooler that has ended while it was in our hands.
func (h *Fleet) lost(x *Pooler, err error) {
	x.absent = err
	h.log.Error("pooler has ended meanwhile: going on without it", "pooler", x.Name, "error", err)
}

// Reachable counts the poolers that can be held.
func (h *Fleet) Reachable() int {
	n := 0
	for _, x := range h.Poolers {
		if x.absent == nil {
			n++
		}
	}
	return n
}

// each calls do for the reachable poolers, all at once, and returns their errors joined.
func (h *Fleet) each(do func(*Pooler) error) error {
	var all sync.WaitGroup
	errs := make([]error, len(h.Poolers))
	for i, x := range h.Poolers {
		if x.absent == nil {
			all.Go(func() { errs[i] = do(x) })
		}
	}
	all.Wait()
	return errors.Join(errs...)
}

// Pause pauses all of them and blocks until all are drained or the context ends. The lease is in force before the first
// PAUSE is sent. With an error the pauses that were made stand: undo takes them back.
func (h *Fleet) Pause(ctx context.Context) error {
	if err := h.promise(time.Now().Add(h.length)); err != nil {
		return err
	}
	return h.each(func(x *Pooler) error {
		if x.drained {
			return nil
		}
		started := time.Now()
		err := h.pauseOne(ctx, x)
		x.unsure = false
		var not *pgb.NotDrainedError
		switch {
		case err == nil:
			x.drained = true
			h.log.Info("drained", "pooler", x.Name, "took", time.Since(started))
			h.journal.Add(state.Entry{Event: state.EventDrained, Pooler: x.Name, Took: time.Since(started)})
		case errors.As(err, &not):
			h.journal.Add(state.Entry{Event: state.EventNotDrained, Pooler: x.Name, Took: time.Since(started), Text: err.Error()})
		case member.NobodyListens(err):
			h.lost(x, err)
			return nil
		default:
			x.unsure = true
			h.log.Warn("pause failed", "pooler", x.Name, "error", err)
		}
		return err
	})
}

func (h *Fleet) pauseOne(ctx context.Context, x *Pooler) error {
	if x.signals {
		return h.pauseBySignal(ctx, x)
	}
	if err := h.mark(ctx, x); err != nil {
		return err
	}
	x.touched = true
	h.journal.Add(state.Entry{Event: state.EventPauseSent, Pooler: x.Name})
	first := !x.sent
	x.sent = true
	outcome, err := x.Pause(ctx)
	if outcome.Already && first && x.before.Mark == nil && !x.before.PausedKnown && !x.foreign {
		// 1.18 cannot be asked beforehand.
		x.foreign = true
		h.foreign(x)
		short, cancel := context.WithTimeout(context.WithoutCancel(ctx), member.ConsoleTimeout)
		defer cancel()
		_, _, markErr := x.Mark(short, pgb.Foreign, h.nonce)
		err = errors.Join(err, markErr)
	}
	return err
}

func (h *Fleet) foreign(x *Pooler) {
	h.log.Warn("pooler was paused before we came: whoever paused it must resume it", "pooler", x.Name)
}

// mark puts our mark on, unless the pooler is a person's: then it stays theirs.
func (h *Fleet) mark(ctx context.Context, x *Pooler) error {
	owner := h.owner
	switch mark := x.before.Mark; {
	case mark != nil && mark.Owner != pgb.Guard && (x.wholly() || !x.before.PausedKnown) && h.owner == pgb.Guard:
		x.theirs = true // 1.18 cannot say whether it is paused; the mark says that it was to be
		if !x.foreign {
			x.foreign = true
			h.foreign(x)
		}
		return nil
	case x.foreign || mark == nil && x.before.PausedKnown && x.wholly():
		if !x.foreign {
			x.foreign = true
			h.foreign(x)
		}
		owner = pgb.Foreign
	}
	x.touched = true
	_, put, err := x.Mark(ctx, owner, h.nonce)
	if err == nil && !put {
		h.log.Warn("server_login_retry has a value that cannot be carried through a pause (not a multiple of 0.1 s up to 99.9 s): it is left as it is",
			"pooler", x.Name, "value", x.before.LoginRetry)
	}
	return err
}

// wholly reports whether all that we would pause was paused when we came. A list of databases of which some were is ours: better to end one
// pause of somebody else's than to leave the others paused for ever.
func (x *Pooler) wholly() bool {
	for _, name := range x.Databases {
		if !slices.Contains(x.before.PausedDBs, name) {
			return false
		}
	}
	return x.before.Paused
}

// pauseBySignal has no answer to wait for: drained is when the server has no open transaction any more.
func (h *Fleet) pauseBySignal(ctx context.Context, x *Pooler) error {
	x.touched = true
	h.journal.Add(state.Entry{Event: state.EventPauseSent, Pooler: x.Name, Text: "SIGUSR1"})
	if err := x.Signal((*pgb.Process).Pause); err != nil {
		return err
	}
	if h.busy == nil {
		return nil
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for quiet := 0; quiet < 2; { // twice in a row: the signal itself is not seen to arrive
		n, err := h.busy(ctx)
		switch {
		case ctx.Err() != nil:
			return &pgb.NotDrainedError{Pooler: x.Name, Active: -1}
		case err != nil:
			return err
		case n == 0:
			quiet++
		default:
			quiet = 0
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return nil
}

// Backends are the process ids of the server sessions that the poolers use. It is not known when a pooler takes signals only, or
// goes through another pooler.
func (h *Fleet) Backends(ctx context.Context) (pids map[int32]bool, known bool) {
	ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	pids = map[int32]bool{}
	var mu sync.Mutex
	err := h.each(func(x *Pooler) error {
		if x.signals {
			return pgb.ErrNoConsole
		}
		servers, err := x.Servers(ctx)
		mu.Lock()
		defer mu.Unlock()
		for _, s := range servers {
			pids[s.RemotePID] = true
		}
		return err
	})
	return pids, err == nil
}

// undoTimeout is for the undo of one attempt; it runs under a time of its own.
const undoTimeout = 2 * time.Second

// Undo takes our pauses back. With unmark it also puts back the settings and lets the lease go; without, another attempt
// follows. It does not depend on the context's end.
func (h *Fleet) Undo(ctx context.Context, unmark bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	var lost atomic.Bool
	err := h.each(func(x *Pooler) error {
		if !x.touched {
			return nil
		}
		err := member.Retry(ctx, func() error { return h.undoOne(ctx, x, unmark) }, member.NobodyListens)
		if member.NobodyListens(err) {
			h.lost(x, err)
			lost.Store(true)
			return nil
		}
		if err != nil {
			h.log.Error("cannot take back a pause: its lease will end it", "pooler", x.Name, "lease_end", h.lease.order.Until.Format(time.RFC3339), "error", err)
			return err
		}
		h.journal.Add(state.Entry{Event: state.EventUndone, Pooler: x.Name})
		return nil
	})
	// A pooler that refuses connections may be back, still paused (a proxy in front of it can refuse for it): that is the keeper's.
	if err == nil && !lost.Load() {
		_ = h.lease.Clear()
	}
	return err
}

func (h *Fleet) undoOne(ctx context.Context, x *Pooler, unmark bool) error {
	x.drained, x.sent = false, false
	if x.signals {
		return x.Signal((*pgb.Process).Resume)
	}
	if !x.foreign {
		if _, err := x.Resume(ctx); err != nil {
			return err
		}
	}
	if unmark && !x.theirs {
		return x.Unmark(ctx)
	}
	return nil
}

// SendPause marks and sends PAUSE everywhere and waits for nothing.
func (h *Fleet) SendPause(ctx context.Context) {
	if err := h.promise(time.Now().Add(h.length)); err != nil {
		h.log.Error("no lease, no pause", "error", err)
		return
	}
	if err := h.each(func(x *Pooler) error {
		if x.sent && !x.unsure {
			return nil // and not taken back: paused already
		}
		if x.signals {
			return x.Signal((*pgb.Process).Pause)
		}
		if err := h.mark(ctx, x); err != nil {
			return err
		}
		if err := x.SendPause(ctx); err != nil {
			return err
		}
		h.journal.Add(state.Entry{Event: state.EventPauseSent, Pooler: x.Name, Text: "not waited for"})
		return nil
	}); err != nil {
		h.log.Error("PAUSE could not be sent everywhere in the time that there was", "error", err)
	}
}

// order is what the keeper is told at first.
func (h *Fleet) order(book member.AddressBook, poolers []*pgb.Pooler) leaseOrder {
	order := leaseOrder{ID: h.journal.Handover, Owner: h.owner, Nonce: h.nonce, Book: book}
	for _, p := range poolers {
		if p.Databases != nil {
			if order.Databases == nil {
				order.Databases = map[string][]string{}
			}
			order.Databases[p.Name] = p.Databases
		}
	}
	return order
}

// OnlyNotDrained reports whether all that is wrong with a pause is that somebody still works.
func OnlyNotDrained(err error) bool {
	var not *pgb.NotDrainedError
	return errors.As(err, &not)
}
