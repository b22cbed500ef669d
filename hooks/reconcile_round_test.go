package hooks

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/pgb"
)

// age makes what was seen be seen for longer than a lease.
func (c *Reconciler) age() {
	for name, s := range c.seen {
		s.since = s.since.Add(-c.rt.Config.Pause.Lease - reconcileGrace)
		c.seen[name] = s
	}
}

func TestReconcile(t *testing.T) {
	t.Parallel()
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			pg := ownPostgres(t)
			b := startPooler(t, suite, pg)
			rt := newRuntime(t, pg, b)
			newFakePatroni(t, rt, "running")
			c := NewReconciler(rt, false)
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
			abandoned(t, rt, pgb.Guard)
			round("")
			if usable(t, b, 200*time.Millisecond) {
				t.Error("resumed before the lease was over")
			}
			later()
			round("resumed")
			if !usable(t, b, 5*time.Second) {
				t.Error("still paused")
			}
			putBack(t, b)
			round("")
			// A RELOAD takes the mark away: it is still ours.
			abandoned(t, rt, pgb.Guard)
			round("")
			admin(t, b, "RELOAD")
			if suite != "host" {
				round("")
			}
			later()
			if suite != "host" { // 1.18 shows a pause by its mark only, or by clients that wait
				round("resumed")
			}
			if suite == "host" {
				admin(t, b, "RESUME")
			}
			putBack(t, b)
			// Made on another member, which alone knows its lease.
			abandoned(t, rt, pgb.Hand)
			round("")
			later()
			round("reported")
			if usable(t, b, 200*time.Millisecond) {
				t.Error("a pause by hand was ended")
			}
			letGo(rt, b)
			// Made here, and its keeper ended with the container: seen first when its lease was over.
			left := leaseOrder{ID: newID(), Owner: pgb.Hand, Nonce: 4, Since: time.Now().Add(-time.Minute), Until: time.Now().Add(-30 * time.Second)}
			file := filepath.Join(rt.Config.StateDir, leaseFile(pgb.Hand))
			if err := WriteState(file, left); err != nil {
				t.Fatal(err)
			}
			abandoned(t, rt, pgb.Hand)
			c.seen = map[string]sighting{}
			round("")
			if _, err := os.Stat(file); err != nil {
				t.Errorf("the lease of a pause that stands: %v", err)
			}
			later()
			round("resumed")
			if !usable(t, b, 5*time.Second) {
				t.Error("a pause by hand outlived its lease for ever")
			}
			putBack(t, b)
			round("")
			if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the lease of a pause that is over is left: %v", err)
			}
			if suite == "host" {
				return
			}
			round("")
			// psql's.
			admin(t, b, "PAUSE")
			round("reported")
			c.resumeForeign = true
			round("")
			later()
			round("resumed")
			putBack(t, b)
		})
	}
}

// TestReconcileNotEntitled: what is not the writable primary with the lock touches nothing.
func TestReconcileNotEntitled(t *testing.T) {
	t.Parallel()
	pg := ownPostgres(t)
	b := startPooler(t, suites[1], pg)
	rt := newRuntime(t, pg, b)
	f := newFakePatroni(t, rt, "running")
	t.Cleanup(func() { letGo(rt, b) })
	c := NewReconciler(rt, true)
	abandoned(t, rt, pgb.Guard)
	if _, err := c.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, s := range c.seen {
		s.since = time.Time{}
		c.seen[name] = s
	}
	f.set(func(f *fakePatroni) { f.lost = true })
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
	if s := stateOf(t, b); !s.Paused || s.Mark == nil {
		t.Errorf("touched: %+v", s)
	}
}

// Where nobody else does, the reconciler resumes them, and takes the mark away after that and not before.
func TestReconcileSingleDatabases(t *testing.T) {
	t.Parallel()
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			b, rt := singly(t, suite)
			newFakePatroni(t, rt, "running")
			c := NewReconciler(rt, false)
			if done, err := c.Round(t.Context()); len(done) > 0 || err != nil {
				t.Fatalf("%+v, %v", done, err)
			}
			c.age()
			if done, err := c.Round(t.Context()); len(done) != 1 || done[0].Done != "resumed" || err != nil {
				t.Errorf("%+v, %v", done, err)
			}
			if !usable(t, b, 5*time.Second) {
				t.Error("still paused")
			}
			putBack(t, b)
		})
	}
}
