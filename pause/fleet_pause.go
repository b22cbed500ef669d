package pause

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"
)

// Pause pauses all of them and blocks until all are drained or the context ends. The lease is in force before the first
// PAUSE is sent. With an error the pauses that were made stand: [Fleet.Undo] takes them back.
func (f *Fleet) Pause(ctx context.Context) error {
	if err := f.extendLease(time.Now().Add(f.length)); err != nil {
		return err
	}
	return f.each(func(x *Pooler) error {
		if x.drained {
			return nil
		}
		started := time.Now()
		err := f.pauseOne(ctx, x)
		x.unsure = false
		var not *pgb.NotDrainedError
		switch {
		case err == nil:
			x.drained = true
			f.log.Info("drained", "pooler", x.Name, "took", time.Since(started))
			f.journal.Add(state.Entry{Event: state.EventDrained, Pooler: x.Name, Took: time.Since(started)})
		case errors.As(err, &not):
			f.journal.Add(state.Entry{Event: state.EventNotDrained, Pooler: x.Name, Took: time.Since(started), Text: err.Error()})
		case member.NobodyListens(err):
			f.lost(x, err)
			return nil
		default:
			x.unsure = true
			f.log.Warn("pause failed", "pooler", x.Name, "error", err)
		}
		return err
	})
}

func (f *Fleet) pauseOne(ctx context.Context, x *Pooler) error {
	if x.signals {
		return f.pauseBySignal(ctx, x)
	}
	if err := f.mark(ctx, x); err != nil {
		return err
	}
	x.touched = true
	f.journal.Add(state.Entry{Event: state.EventPauseSent, Pooler: x.Name})
	first := !x.sent
	x.sent = true
	outcome, err := x.Pause(ctx)
	if outcome.Already && first && x.before.Mark == nil && !x.before.PausedKnown && !x.foreign {
		// 1.18 cannot be asked beforehand.
		x.foreign = true
		f.foreign(x)
		short, cancel := context.WithTimeout(context.WithoutCancel(ctx), member.ConsoleTimeout)
		defer cancel()
		_, _, markErr := x.Mark(short, pgb.Foreign, f.nonce)
		err = errors.Join(err, markErr)
	}
	return err
}

func (f *Fleet) foreign(x *Pooler) {
	f.log.Warn("the pooler was already paused: whoever paused it must resume it", "pooler", x.Name)
}

// mark puts our mark on, unless the pooler is a person's: then it stays theirs.
func (f *Fleet) mark(ctx context.Context, x *Pooler) error {
	owner := f.owner
	switch mark := x.before.Mark; {
	case mark != nil && mark.Owner != f.owner && (x.wholly() || !x.before.PausedKnown) && f.owner != pgb.Hand:
		x.theirs = true // 1.18 cannot say whether it is paused; the mark says that it was to be
		if !x.foreign {
			x.foreign = true
			f.foreign(x)
		}
		return nil
	case x.foreign || mark == nil && x.before.PausedKnown && x.wholly():
		if !x.foreign {
			x.foreign = true
			f.foreign(x)
		}
		owner = pgb.Foreign
	}
	x.touched = true
	_, put, err := x.Mark(ctx, owner, f.nonce)
	if err == nil && !put {
		f.log.Warn("server_login_retry has a value that cannot be carried through a pause (not a multiple of 0.1 s up to 99.9 s): "+
			"it is left as it is", "pooler", x.Name, "value", x.before.LoginRetry)
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
func (f *Fleet) pauseBySignal(ctx context.Context, x *Pooler) error {
	x.touched = true
	f.journal.Add(state.Entry{Event: state.EventPauseSent, Pooler: x.Name, Text: "SIGUSR1"})
	if err := x.Signal((*pgb.Process).Pause); err != nil {
		return err
	}
	if f.busy == nil {
		return nil
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for quiet := 0; quiet < 2; { // twice in a row: the signal itself is not seen to arrive
		n, err := f.busy(ctx)
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

// undoTimeout is for the undo of one attempt; it runs under a time of its own.
const undoTimeout = 2 * time.Second

// Undo takes our pauses back and tells the keeper so. With unmark it also puts back the settings; without, another attempt
// follows. It blocks for undoTimeout at most, also where the context is over.
func (f *Fleet) Undo(ctx context.Context, unmark bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	var lost atomic.Bool
	err := f.each(func(x *Pooler) error {
		if !x.touched {
			return nil
		}
		err := member.Retry(ctx, func() error { return f.undoOne(ctx, x, unmark) }, member.NobodyListens)
		if member.NobodyListens(err) {
			f.lost(x, err)
			lost.Store(true)
			return nil
		}
		if err != nil {
			f.log.Error("cannot take back a pause: its lease will end it",
				"pooler", x.Name, "lease_end", f.until().Format(time.RFC3339), "error", err)
			return err
		}
		f.journal.Add(state.Entry{Event: state.EventUndone, Pooler: x.Name})
		return nil
	})
	// A pooler that refuses connections may be back, still paused (a proxy in front of it can refuse for it): that is the keeper's.
	if err == nil && !lost.Load() {
		_ = f.keeper.clear()
	}
	return err
}

func (f *Fleet) undoOne(ctx context.Context, x *Pooler, unmark bool) error {
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
func (f *Fleet) SendPause(ctx context.Context) {
	if err := f.extendLease(time.Now().Add(f.length)); err != nil {
		f.log.Error("no lease, no pause", "error", err)
		return
	}
	if err := f.each(func(x *Pooler) error {
		if x.sent && !x.unsure {
			return nil // and not taken back: paused already
		}
		if x.signals {
			return x.Signal((*pgb.Process).Pause)
		}
		if err := f.mark(ctx, x); err != nil {
			return err
		}
		if err := x.SendPause(ctx); err != nil {
			return err
		}
		f.journal.Add(state.Entry{Event: state.EventPauseSent, Pooler: x.Name, Text: "not waited for"})
		return nil
	}); err != nil {
		f.log.Error("PAUSE could not be sent everywhere in the time that there was", "error", err)
	}
}

// OnlyNotDrained reports whether all that is wrong with a pause is that somebody still works.
func OnlyNotDrained(err error) bool {
	var not *pgb.NotDrainedError
	return errors.As(err, &not)
}
