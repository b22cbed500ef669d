package pause

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"
)

// age makes what was seen be seen for longer than a lease.
func (c *Reconciler) age() {
	for name, s := range c.seen {
		s.since = s.since.Add(-c.m.Config.Pause.Lease - reconcileGrace)
		c.seen[name] = s
	}
}

func TestReconcile(t *testing.T) {
	t.Parallel()
	for _, suite := range membertest.Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			pg := membertest.OwnPostgres(t)
			b := membertest.StartPooler(t, suite, pg)
			m := membertest.New(t, pg, b)
			membertest.NewPatroni(t, m, "running")
			c := NewReconciler(m, false)
			round := func(want string) {
				t.Helper()
				done, err := c.Round(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				got := ""
				for _, d := range done {
					got += d.Done
				}
				if got != want {
					t.Errorf("%q was done, not %q: %+v", got, want, done)
				}
			}
			later := c.age
			round("")
			membertest.Abandoned(t, m, pgb.Guard)
			round("")
			if membertest.Usable(t, b, 200*time.Millisecond) {
				t.Error("resumed before the lease was over")
			}
			later()
			round("resumed")
			if !membertest.Usable(t, b, 5*time.Second) {
				t.Error("still paused")
			}
			membertest.PutBack(t, b)
			round("")
			// A RELOAD takes the mark away: it is still ours.
			membertest.Abandoned(t, m, pgb.Guard)
			round("")
			membertest.Admin(t, b, "RELOAD")
			if suite != "host" {
				round("")
			}
			later()
			if suite != "host" { // 1.18 shows a pause by its mark only, or by clients that wait
				round("resumed")
			}
			if suite == "host" {
				membertest.Admin(t, b, "RESUME")
			}
			membertest.PutBack(t, b)
			// Made on another member, which alone knows its lease.
			membertest.Abandoned(t, m, pgb.Hand)
			round("")
			later()
			round("reported")
			if membertest.Usable(t, b, 200*time.Millisecond) {
				t.Error("a pause by hand was ended")
			}
			membertest.LetGo(m, b)
			if !membertest.Usable(t, b, 5*time.Second) { // or the next PAUSE interrupts a server login
				t.Fatal("not resumed")
			}
			// Made here, and its keeper ended with the container: seen first when its lease was over.
			left := lease{ID: state.NewID(), Owner: pgb.Hand, Nonce: 4,
				Since: time.Now().Add(-time.Minute), Until: time.Now().Add(-30 * time.Second)}
			file := filepath.Join(m.Config.StateDir, leaseFile(pgb.Hand))
			if err := state.Write(file, left); err != nil {
				t.Fatal(err)
			}
			membertest.Abandoned(t, m, pgb.Hand)
			c.seen = map[string]sighting{}
			round("")
			if _, err := os.Stat(file); err != nil {
				t.Errorf("the lease of a pause that stands: %v", err)
			}
			later()
			round("resumed")
			if !membertest.Usable(t, b, 5*time.Second) {
				t.Error("a pause by hand outlived its lease for ever")
			}
			membertest.PutBack(t, b)
			round("")
			if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the lease of a pause that is over is left: %v", err)
			}
			if suite == "host" {
				return
			}
			round("")
			// psql's.
			membertest.Admin(t, b, "PAUSE")
			round("reported")
			c.resumeForeign = true
			round("")
			later()
			round("resumed")
			membertest.PutBack(t, b)
		})
	}
}

// TestReconcileNotEntitled: what is not the writable primary with the lock touches nothing.
func TestReconcileNotEntitled(t *testing.T) {
	t.Parallel()
	pg := membertest.OwnPostgres(t)
	b := membertest.StartPooler(t, membertest.Suites[1], pg)
	m := membertest.New(t, pg, b)
	f := membertest.NewPatroni(t, m, "running")
	t.Cleanup(func() { membertest.LetGo(m, b) })
	c := NewReconciler(m, true)
	membertest.Abandoned(t, m, pgb.Guard)
	if _, err := c.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, s := range c.seen {
		s.since = time.Time{}
		c.seen[name] = s
	}
	f.Set(func(f *membertest.Patroni) { f.Lost = true })
	if done, err := c.Round(t.Context()); err != nil || len(done) > 0 {
		t.Errorf("%+v, %v", done, err)
	}
	if len(c.seen) > 0 {
		t.Error("what was seen before is remembered")
	}
	f.Close()
	if _, err := c.Round(t.Context()); err == nil {
		t.Error("no error without Patroni")
	}
	if s := membertest.StateOf(t, b); !s.Paused || s.Mark == nil {
		t.Errorf("touched: paused %v, mark %+v", s.Paused, s.Mark)
	}
}

// Where nobody else does, the reconciler resumes them, and takes the mark away after that and not before.
func TestReconcileSingleDatabases(t *testing.T) {
	t.Parallel()
	for _, suite := range membertest.Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			b, m := membertest.Singly(t, suite)
			membertest.NewPatroni(t, m, "running")
			c := NewReconciler(m, false)
			if done, err := c.Round(t.Context()); len(done) > 0 || err != nil {
				t.Fatalf("%+v, %v", done, err)
			}
			c.age()
			if done, err := c.Round(t.Context()); len(done) != 1 || done[0].Done != "resumed" || err != nil {
				t.Errorf("%+v, %v", done, err)
			}
			if !membertest.Usable(t, b, 5*time.Second) {
				t.Error("still paused")
			}
			membertest.PutBack(t, b)
		})
	}
}
