package hooks

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/pgb"
)

// attached is a holder with a real keeper, attached to the runtime's poolers, which all answer.
func attached(t *testing.T, rt *Runtime) *holder {
	t.Helper()
	return attachedWithin(t, rt, 20*time.Second)
}

// attachedWithin is attached where a pooler is down: it is tried until the limit is over.
func attachedWithin(t *testing.T, rt *Runtime, limit time.Duration) *holder {
	t.Helper()
	poolers, book, errs := rt.fleet(t.Context(), nil)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	h := newHolder(rt, rt.Log, rt.openJournal("before_stop", newID()), pgb.Guard, rt.Config.Pause.Lease, nil)
	h.nonce = 4
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	h.attach(ctx, poolers)
	if err := h.arm(false, book, poolers); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = h.lease.nothing()
		h.leave()
		closeAll(poolers)
	})
	return h
}

func (h *holder) tryFor(t *testing.T, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return h.pause(ctx)
}

func TestHolderPausesAndTakesBack(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		h := attached(t, newRuntime(t, nil, b))
		for range 2 {
			if err := h.tryFor(t, 2*time.Second); err != nil {
				t.Fatal(err)
			}
			if usable(t, b, 200*time.Millisecond) {
				t.Error("not paused")
			}
			if s := stateOf(t, b); s.Mark == nil || *s.Mark != (pgb.Mark{Original: defaultRetry, Nonce: 4, Owner: pgb.Guard}) || s.Servers > 0 {
				t.Errorf("mark %+v, %d servers", s.Mark, s.Servers)
			}
			if err := h.undo(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if !usable(t, b, 2*time.Second) {
				t.Error("not taken back")
			}
		}
		if err := h.undo(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		putBack(t, b)
	})
}

func TestHolderOnePoolerIsDown(t *testing.T) {
	t.Parallel()
	pg := sharedPostgres(t)
	up, down := startPooler(t, single.SuiteTrixie, pg), startPooler(t, single.SuiteTrixie, pg)
	down.Kill()
	rt := newRuntime(t, nil, up, down)
	h := attachedWithin(t, rt, 3*time.Second)
	if len(h.held) != 2 || h.reachable() != 1 || h.held[1].absent == nil || h.held[0].absent != nil {
		t.Fatalf("%d reachable", h.reachable())
	}
	if err := h.tryFor(t, 2*time.Second); err != nil {
		t.Fatal(err)
	}
	if s := stateOf(t, up); !s.Paused || s.Mark == nil {
		t.Errorf("%+v", s)
	}
	if err := h.undo(t.Context(), true); err != nil {
		t.Error(err)
	}
	putBack(t, up)
}

// A pause that stood before we came is not ours to end: neither after one attempt nor after several.
func TestHolderLeavesAForeignPause(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		admin(t, b, "PAUSE")
		h := attached(t, newRuntime(t, nil, b))
		for attempt := 1; attempt <= 2; attempt++ {
			if err := h.tryFor(t, 2*time.Second); err != nil {
				t.Fatal(err)
			}
			if s := stateOf(t, b); !h.held[0].foreign || s.Mark == nil || s.Mark.Owner != pgb.Foreign {
				t.Errorf("attempt %d: foreign %v, mark %+v: the worker and the keeper would resume it", attempt, h.held[0].foreign, s.Mark)
			}
			if err := h.undo(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if usable(t, b, 200*time.Millisecond) {
				t.Fatalf("attempt %d: resumed", attempt)
			}
		}
		if err := h.undo(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if usable(t, b, 200*time.Millisecond) {
			t.Error("resumed in the end")
		}
		putBack(t, b)
	})
}

// Our own earlier attempt is not a foreign pause.
func TestHolderKnowsItsOwnPause(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		h := attached(t, newRuntime(t, nil, b))
		open := openTransaction(t, b)
		for attempt := 1; attempt <= 3; attempt++ {
			var not *pgb.NotDrainedError
			if err := h.tryFor(t, 500*time.Millisecond); !errors.As(err, &not) || not.Active != 1 {
				t.Fatalf("attempt %d: %v", attempt, err)
			}
			if h.held[0].foreign {
				t.Fatalf("attempt %d: taken for somebody else's", attempt)
			}
			if attempt == 2 { // the pause stands, another waits on
				continue
			}
			if err := h.undo(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			open.must("select 1")
		}
		open.must("commit")
		if err := h.undo(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if !usable(t, b, 2*time.Second) {
			t.Error("still paused")
		}
		putBack(t, b)
	})
}

// A person's pause stays theirs: with its mark, so that the next primary leaves it alone.
func TestHolderLeavesAPausedByHand(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		markAndPause(t, b, pgb.Hand, 7)
		h := attached(t, newRuntime(t, nil, b))
		if err := h.tryFor(t, 2*time.Second); err != nil {
			t.Fatal(err)
		}
		theirs := func(when string) {
			t.Helper()
			if s := stateOf(t, b); s.Mark == nil || s.Mark.Owner != pgb.Hand || s.Mark.Nonce != 7 {
				t.Errorf("%s: mark %+v", when, s.Mark)
			}
		}
		theirs("paused")
		if err := h.undo(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		theirs("taken back")
		if usable(t, b, 200*time.Millisecond) {
			t.Error("resumed")
		}
	})
}

// No time: PAUSE is on its way at once, whatever still runs.
func TestHolderPassesOver(t *testing.T) {
	t.Parallel()
	for _, after := range []string{"at first", "after an attempt"} {
		t.Run(after, func(t *testing.T) {
			t.Parallel()
			onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
				h := attached(t, newRuntime(t, nil, b))
				open := openTransaction(t, b)
				if after != "at first" {
					if err := h.tryFor(t, 100*time.Millisecond); err == nil {
						t.Fatal("drained with a transaction open")
					}
					if err := h.undo(t.Context(), false); err != nil {
						t.Fatal(err)
					}
				}
				// It comes back while the transaction is open, so it has not waited for it.
				h.passOver(t.Context())
				open.must("commit")
				if s := stateOf(t, b); s.Mark == nil || s.Mark.Owner != pgb.Guard {
					t.Errorf("mark %+v", s.Mark)
				}
				if usable(t, b, 200*time.Millisecond) {
					t.Error("not paused")
				}
			})
		})
	}
}

// A pooler that dies while it is held is in nobody's way: it is not paused any more, and its clients have their error.
func TestHolderPoolerDies(t *testing.T) {
	t.Parallel()
	pg := sharedPostgres(t)
	lives, dies := startPooler(t, single.SuiteTrixie, pg), startPooler(t, single.SuiteTrixie, pg)
	h := attached(t, newRuntime(t, nil, lives, dies))
	dies.Kill()
	err := h.tryFor(t, 2*time.Second)
	if err != nil || h.reachable() != 1 {
		t.Errorf("%d reachable, %v", h.reachable(), err)
	}
	if s := stateOf(t, lives); !s.Paused {
		t.Error("the other one is not paused")
	}
	_ = h.undo(t.Context(), true)
	putBack(t, lives)
}

// A keeper that was killed before the pause is replaced: nothing is paused without one.
func TestHolderKeeperIsKilled(t *testing.T) {
	t.Parallel()
	b := startPooler(t, single.SuiteTrixie, sharedPostgres(t))
	h := attached(t, newRuntime(t, nil, b))
	first := h.lease.keeper.PID
	// Told when all of its threads have ended, and its end of the pipe with them.
	fd, err := unix.PidfdOpen(first, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10000); n != 1 {
		t.Fatalf("the keeper has not ended: %v", err)
	}
	if err := h.tryFor(t, 3*time.Second); err != nil {
		t.Fatal(err)
	}
	if h.lease.keeper.PID == first || unix.Kill(h.lease.keeper.PID, 0) != nil {
		t.Errorf("the lease is kept by process %d, the one that was killed was %d", h.lease.keeper.PID, first)
	}
	if err := h.undo(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	putBack(t, b)
}

// Signals only: drained is when the server says so.
func TestHolderBySignal(t *testing.T) {
	t.Parallel()
	pg := sharedPostgres(t)
	b := startPooler(t, single.SuiteTrixie, pg)
	rt := newRuntime(t, nil)
	rt.Config.Poolers = []config.Pooler{{Pidfile: b.Pidfile}}
	h := attached(t, rt)
	busy := 1
	h.busy = func(context.Context) (int, error) { return busy, nil }
	var not *pgb.NotDrainedError
	if err := h.tryFor(t, 100*time.Millisecond); !errors.As(err, &not) {
		t.Errorf("%v", err)
	}
	if usable(t, b, 200*time.Millisecond) {
		t.Error("not paused")
	}
	if err := h.undo(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if !usable(t, b, 2*time.Second) {
		t.Error("not resumed")
	}
	busy = 0
	if err := h.tryFor(t, time.Second); err != nil {
		t.Error(err)
	}
	if err := h.undo(t.Context(), true); err != nil {
		t.Fatal(err)
	}
}
