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
	f := NewFleet(m, m.Log, m.Journal("before_stop", state.NewID()), pgb.Guard, m.Config.Pause.Lease, nil)
	f.nonce = 4
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	f.Attach(ctx, poolers)
	if err := f.Arm(false, book, poolers); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = f.keeper.clear()
		f.Leave()
		member.CloseAll(poolers)
	})
	return f
}

func (f *Fleet) tryFor(t *testing.T, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return f.Pause(ctx)
}

func TestFleetPausesAndTakesBack(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		f := attached(t, membertest.New(t, nil, b))
		for range 2 {
			if err := f.tryFor(t, 10*time.Second); err != nil {
				t.Fatal(err)
			}
			if membertest.Usable(t, b, 200*time.Millisecond) {
				t.Error("not paused")
			}
			ours := pgb.Mark{Original: membertest.DefaultRetry, Nonce: 4, Owner: pgb.Guard}
			if s := membertest.StateOf(t, b); s.Mark == nil || *s.Mark != ours || s.Servers > 0 {
				t.Errorf("mark %+v, %d servers", s.Mark, s.Servers)
			}
			if err := f.Undo(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if !membertest.Usable(t, b, 5*time.Second) {
				t.Error("not taken back")
			}
		}
		if err := f.Undo(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		membertest.PutBack(t, b)
	})
}

func TestFleetOnePoolerIsDown(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	up, down := membertest.StartPooler(t, single.SuiteTrixie, pg), membertest.StartPooler(t, single.SuiteTrixie, pg)
	down.Kill()
	m := membertest.New(t, nil, up, down)
	f := attachedWithin(t, m, 3*time.Second)
	if len(f.Poolers) != 2 || f.Reachable() != 1 || f.Poolers[1].absent == nil || f.Poolers[0].absent != nil {
		t.Fatalf("%d reachable", f.Reachable())
	}
	if err := f.tryFor(t, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if s := membertest.StateOf(t, up); !s.Paused || s.Mark == nil {
		t.Errorf("%+v", s)
	}
	if err := f.Undo(t.Context(), true); err != nil {
		t.Error(err)
	}
	membertest.PutBack(t, up)
}

// A pause that stood before we came is not ours to end: neither after one attempt nor after several.
func TestFleetLeavesAForeignPause(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		membertest.Admin(t, b, "PAUSE")
		f := attached(t, membertest.New(t, nil, b))
		for attempt := 1; attempt <= 2; attempt++ {
			if err := f.tryFor(t, 10*time.Second); err != nil {
				t.Fatal(err)
			}
			if s := membertest.StateOf(t, b); !f.Poolers[0].foreign || s.Mark == nil || s.Mark.Owner != pgb.Foreign {
				t.Errorf(
					"attempt %d: foreign %v, mark %+v: the worker and the keeper would resume it",
					attempt,
					f.Poolers[0].foreign,
					s.Mark,
				)
			}
			if err := f.Undo(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if membertest.Usable(t, b, 200*time.Millisecond) {
				t.Fatalf("attempt %d: resumed", attempt)
			}
		}
		if err := f.Undo(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if membertest.Usable(t, b, 200*time.Millisecond) {
			t.Error("resumed in the end")
		}
		membertest.PutBack(t, b)
	})
}

// Our own earlier attempt is not a foreign pause.
func TestFleetKnowsItsOwnPause(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		f := attached(t, membertest.New(t, nil, b))
		open := membertest.OpenTransaction(t, b)
		for attempt := 1; attempt <= 3; attempt++ {
			var not *pgb.NotDrainedError
			if err := f.tryFor(t, 500*time.Millisecond); !errors.As(err, &not) || not.Active != 1 {
				t.Fatalf("attempt %d: %v", attempt, err)
			}
			if f.Poolers[0].foreign {
				t.Fatalf("attempt %d: taken for somebody else's", attempt)
			}
			if attempt == 2 { // the pause stands, another waits on
				continue
			}
			if err := f.Undo(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			open.Must("select 1")
		}
		open.Must("commit")
		if err := f.Undo(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if !membertest.Usable(t, b, 5*time.Second) {
			t.Error("still paused")
		}
		membertest.PutBack(t, b)
	})
}

// A person's pause stays theirs: with its mark, so that the next primary leaves it alone.
func TestFleetLeavesAPausedByHand(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		markAndPause(t, b, pgb.Hand, 7)
		f := attached(t, membertest.New(t, nil, b))
		if err := f.tryFor(t, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		theirs := func(when string) {
			t.Helper()
			if s := membertest.StateOf(t, b); s.Mark == nil || s.Mark.Owner != pgb.Hand || s.Mark.Nonce != 7 {
				t.Errorf("%s: mark %+v", when, s.Mark)
			}
		}
		theirs("paused")
		if err := f.Undo(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		theirs("taken back")
		if membertest.Usable(t, b, 200*time.Millisecond) {
			t.Error("resumed")
		}
	})
}

// No time: PAUSE is on its way at once, whatever still runs.
func TestFleetPassesOver(t *testing.T) {
	t.Parallel()
	for _, after := range []string{"at first", "after an attempt"} {
		t.Run(after, func(t *testing.T) {
			t.Parallel()
			onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
				f := attached(t, membertest.New(t, nil, b))
				open := membertest.OpenTransaction(t, b)
				if after != "at first" {
					if err := f.tryFor(t, 100*time.Millisecond); err == nil {
						t.Fatal("drained with a transaction open")
					}
					if err := f.Undo(t.Context(), false); err != nil {
						t.Fatal(err)
					}
				}
				// It comes back while the transaction is open, so it has not waited for it.
				f.SendPause(t.Context())
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
func TestFleetPoolerDies(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	lives, dies := membertest.StartPooler(t, single.SuiteTrixie, pg), membertest.StartPooler(t, single.SuiteTrixie, pg)
	f := attached(t, membertest.New(t, nil, lives, dies))
	dies.Kill()
	err := f.tryFor(t, 10*time.Second)
	if err != nil || f.Reachable() != 1 {
		t.Errorf("%d reachable, %v", f.Reachable(), err)
	}
	if s := membertest.StateOf(t, lives); !s.Paused {
		t.Error("the other one is not paused")
	}
	_ = f.Undo(t.Context(), true)
	membertest.PutBack(t, lives)
}

// A keeper that was killed before the pause is replaced: nothing is paused without one.
func TestFleetKeeperIsKilled(t *testing.T) {
	t.Parallel()
	b := membertest.StartPooler(t, single.SuiteTrixie, membertest.SharedPostgres(t))
	f := attached(t, membertest.New(t, nil, b))
	first := f.keeper.process.PID
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
	if err := f.tryFor(t, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if f.keeper.process.PID == first || unix.Kill(f.keeper.process.PID, 0) != nil {
		t.Errorf("the lease is kept by process %d, the one that was killed was %d", f.keeper.process.PID, first)
	}
	if err := f.Undo(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	membertest.PutBack(t, b)
}

// Signals only: drained is when the server says so.
func TestFleetBySignal(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	b := membertest.StartPooler(t, single.SuiteTrixie, pg)
	m := membertest.New(t, nil)
	m.Config.Poolers = []config.Pooler{{Pidfile: b.Pidfile}}
	f := attached(t, m)
	busy := 1
	f.busy = func(context.Context) (int, error) { return busy, nil }
	var not *pgb.NotDrainedError
	if err := f.tryFor(t, 100*time.Millisecond); !errors.As(err, &not) {
		t.Errorf("%v", err)
	}
	if membertest.Usable(t, b, 200*time.Millisecond) {
		t.Error("not paused")
	}
	if err := f.Undo(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if !membertest.Usable(t, b, 5*time.Second) {
		t.Error("not resumed")
	}
	busy = 0
	if err := f.tryFor(t, 10*time.Second); err != nil {
		t.Error(err)
	}
	if err := f.Undo(t.Context(), true); err != nil {
		t.Fatal(err)
	}
}
