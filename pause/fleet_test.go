package pause

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"
)

// attached is a holder with a real keeper, attached to the runtime's poolers, which all answer.
func attached(t *testing.T, m *member.Member) *Fleet {
	t.Helper()
	return attachedWithin(t, m, 20*time.Second)
}

// attachedWithin is attached where a pooler is down: it is tried until the limit is over.
func attachedWithin(t *testing.T, m *member.Member, limit time.Duration) *Fleet {
	t.Helper()
	poolers, book, errs := m.Poolers(t.Context(), nil)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	h := NewFleet(m, m.Log, m.Journal("before_stop", state.NewID()), pgb.Guard, m.Config.Pause.Lease, nil)
	h.nonce = 4
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	h.Attach(ctx, poolers)
	if err := h.Arm(false, book, poolers); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = h.lease.Clear()
		h.Leave()
		member.CloseAll(poolers)
	})
	return h
}

func (h *Fleet) tryFor(t *testing.T, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return h.Pause(ctx)
}

func TestHolderPausesAndTakesBack(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		h := attached(t, membertest.New(t, nil, b))
		for range 2 {
			if err := h.tryFor(t, 2*time.Second); err != nil {
				t.Fatal(err)
			}
			if membertest.Usable(t, b, 200*time.Millisecond) {
				t.Error("not paused")
			}
			if s := membertest.StateOf(t, b); s.Mark == nil || *s.Mark != (pgb.Mark{Original: membertest.DefaultRetry, Nonce: 4, Owner: pgb.Guard}) || s.Servers > 0 {
				t.Errorf("mark %+v, %d servers", s.Mark, s.Servers)
			}
			if err := h.Undo(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if !membertest.Usable(t, b, 2*time.Second) {
				t.Error("not taken back")
			}
		}
		if err := h.Undo(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		membertest.PutBack(t, b)
	})
}

func TestHolderOnePoolerIsDown(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	up, down := membertest.StartPooler(t, single.SuiteTrixie, pg), membertest.StartPooler(t, single.SuiteTrixie, pg)
	down.Kill()
	m := membertest.New(t, nil, up, down)
	h := attachedWithin(t, m, 3*time.Second)
	if len(h.Poolers) != 2 || h.Reachable() != 1 || h.Poolers[1].absent == nil || h.Poolers[0].absent != nil {
		t.Fatalf("%d reachable", h.Reachable())
	}
	if err := h.tryFor(t, 2*time.Second); err != nil {
		t.Fatal(err)
	}
	if s := membertest.StateOf(t, up); !s.Paused || s.Mark == nil {
		t.Errorf("%+v", s)
	}
	if err := h.Undo(t.Context(), true); err != nil {
		t.Error(err)
	}
	membertest.PutBack(t, up)
}

// A pause that stood before we came is not ours to end: neither after one attempt nor after several.
func TestHolderLeavesAForeignPause(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		membertest.Admin(t, b, "PAUSE")
		h := attached(t, membertest.New(t, nil, b))
		for attempt := 1; attempt <= 2; attempt++ {
			if err := h.tryFor(t, 2*time.Second); err != nil {
				t.Fatal(err)
			}
			if s := membertest.StateOf(t, b); !h.Poolers[0].foreign || s.Mark == nil || s.Mark.Owner != pgb.Foreign {
				t.Errorf("attempt %d: foreign %v, mark %+v: the worker and the keeper would resume it", attempt, h.Poolers[0].foreign, s.Mark)
			}
			if err := h.Undo(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if membertest.Usable(t, b, 200*time.Millisecond) {
				t.Fatalf("attempt %d: resumed", attempt)
			}
		}
		if err := h.Undo(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if membertest.Usable(t, b, 200*time.Millisecond) {
			t.Error("resumed in the end")
		}
		membertest.PutBack(t, b)
	})
}

// Our own earlier attempt is not a foreign pause.
func TestHolderKnowsItsOwnPause(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		h := attached(t, membertest.New(t, nil, b))
		open := membertest.OpenTransaction(t, b)
		for attempt := 1; attempt <= 3; attempt++ {
			var not *pgb.NotDrainedError
			if err := h.tryFor(t, 500*time.Millisecond); !errors.As(err, &not) || not.Active != 1 {
				t.Fatalf("attempt %d: %v", attempt, err)
			}
			if h.Poolers[0].foreign {
				t.Fatalf("attempt %d: taken for somebody else's", attempt)
			}
			if attempt == 2 { // the pause stands, another waits on
				continue
			}
			if err := h.Undo(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			open.Must("select 1")
		}
		open.Must("commit")
		if err := h.Undo(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if !membertest.Usable(t, b, 2*time.Second) {
			t.Error("still paused")
		}
		membertest.PutBack(t, b)
	})
}

// A person's pause stays theirs: with its mark, so that the next primary leaves it alone.
func TestHolderLeavesAPausedByHand(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		markAndPause(t, b, pgb.Hand, 7)
		h := attached(t, membertest.New(t, nil, b))
		if err := h.tryFor(t, 2*time.Second); err != nil {
			t.Fatal(err)
		}
		theirs := func(when string) {
			t.Helper()
			if s := membertest.StateOf(t, b); s.Mark == nil || s.Mark.Owner != pgb.Hand || s.Mark.Nonce != 7 {
				t.Errorf("%s: mark %+v", when, s.Mark)
			}
		}
		theirs("paused")
		if err := h.Undo(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		theirs("taken back")
		if membertest.Usable(t, b, 200*time.Millisecond) {
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
				h := attached(t, membertest.New(t, nil, b))
				open := membertest.OpenTransaction(t, b)
				if after != "at first" {
					if err := h.tryFor(t, 100*time.Millisecond); err == nil {
						t.Fatal("drained with a transaction open")
					}
					if err := h.Undo(t.Context(), false); err != nil {
						t.Fatal(err)
					}
				}
				// It comes back while the transaction is open, so it has not waited for it.
				h.SendPause(t.Context())
				open.Must("commit")
				if s := membertest.StateOf(t, b); s.Mark == nil || s.Mark.Owner != pgb.Guard {
					t.Errorf("mark %+v", s.Mark)
				}
				if membertest.Usable(t, b, 200*time.Millisecond) {
					t.Error("not paused")
				}
			})
		})
	}
}

// A pooler that dies while it is held is in nobody's way: it is not paused any more, and its clients have their error.
func TestHolderPoolerDies(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	lives, dies := membertest.StartPooler(t, single.SuiteTrixie, pg), membertest.StartPooler(t, single.SuiteTrixie, pg)
	h := attached(t, membertest.New(t, nil, lives, dies))
	dies.Kill()
	err := h.tryFor(t, 2*time.Second)
	if err != nil || h.Reachable() != 1 {
		t.Errorf("%d reachable, %v", h.Reachable(), err)
	}
	if s := membertest.StateOf(t, lives); !s.Paused {
		t.Error("the other one is not paused")
	}
	_ = h.Undo(t.Context(), true)
	membertest.PutBack(t, lives)
}

// A keeper that was killed before the pause is replaced: nothing is paused without one.
func TestHolderKeeperIsKilled(t *testing.T) {
	t.Parallel()
	b := membertest.StartPooler(t, single.SuiteTrixie, membertest.SharedPostgres(t))
	h := attached(t, membertest.New(t, nil, b))
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
	if err := h.Undo(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	membertest.PutBack(t, b)
}

// Signals only: drained is when the server says so.
func TestHolderBySignal(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	b := membertest.StartPooler(t, single.SuiteTrixie, pg)
	m := membertest.New(t, nil)
	m.Config.Poolers = []config.Pooler{{Pidfile: b.Pidfile}}
	h := attached(t, m)
	busy := 1
	h.busy = func(context.Context) (int, error) { return busy, nil }
	var not *pgb.NotDrainedError
	if err := h.tryFor(t, 100*time.Millisecond); !errors.As(err, &not) {
		t.Errorf("%v", err)
	}
	if membertest.Usable(t, b, 200*time.Millisecond) {
		t.Error("not paused")
	}
	if err := h.Undo(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if !membertest.Usable(t, b, 2*time.Second) {
		t.Error("not resumed")
	}
	busy = 0
	if err := h.tryFor(t, time.Second); err != nil {
		t.Error(err)
	}
	if err := h.Undo(t.Context(), true); err != nil {
		t.Fatal(err)
	}
}
