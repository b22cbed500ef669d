package hooks

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/pgb"
)

// automatic has databases: auto, and logs in over the network as the poolers do.
func automatic(rt *Runtime, pg *single.Postgres) {
	rt.Config.Postgres = pg.DSN("postgres", "postgres")
	for i := range rt.Config.Poolers {
		rt.Config.Poolers[i].Databases.Auto = true
	}
}

// Of a pooler of two clusters, those databases are ours that lead to this one; also where the pooler before it does not answer.
func TestSelectDatabases(t *testing.T) {
	t.Parallel()
	pg, other := sharedPostgres(t), ownPostgres(t)
	silent := startPooler(t, single.SuiteTrixie, pg)
	b, err := single.StartPgBouncer(t.Context(), single.SuiteTrixie, single.PgBouncerOptions{Backend: pg, Databases: fmt.Sprintf(
		"ours = host=%s port=%d dbname=postgres\ntheirs = host=%s port=%d dbname=postgres\n", pg.Addr, pg.Port, other.Addr, other.Port)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	rt := newRuntime(t, pg, silent, b)
	automatic(rt, pg)
	if err := silent.Freeze(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Thaw() }()
	poolers, _, errs := rt.fleet(t.Context(), nil)
	defer closeAll(poolers)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	rt.selectDatabases(t.Context(), rt.Log, poolers)
	if poolers[0].Databases != nil {
		t.Errorf("of one that does not answer all are paused: %v", poolers[0].Databases)
	}
	if !slices.Equal(poolers[1].Databases, []string{"ours"}) {
		t.Errorf("%v, want ours alone", poolers[1].Databases)
	}
}

// singly has the database postgres paused for itself under the guard's mark, as by a guard that could find out that it is ours, on a pooler of
// which that cannot be found out now. The database has a line of its own: an idle entry of a "*" line is not listed, paused or not.
func singly(t *testing.T, suite string) (*single.PgBouncer, *Runtime) {
	t.Helper()
	pg := sharedPostgres(t)
	b, err := single.StartPgBouncer(t.Context(), suite, single.PgBouncerOptions{Backend: pg, Databases: fmt.Sprintf("postgres = host=%s port=%d", pg.Addr, pg.Port)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	rt := newRuntime(t, pg, b)
	abandoned(t, rt, pgb.Guard, "postgres")
	if s := stateOf(t, b); s.Paused || !slices.Equal(s.PausedDBs, []string{"postgres"}) {
		t.Fatalf("%+v", s)
	}
	return b, rt
}

// They are resumed by the worker, and not when the lease is over.
func TestWorkerResumesSingleDatabases(t *testing.T) {
	t.Parallel()
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			b, rt := singly(t, suite)
			rt.Config.Resume.Timeout = time.Minute
			if r := Work(t.Context(), rt, Event{Action: "on_role_change", Role: "primary"}, nil); r.Code != Done {
				t.Errorf("%d %s", r.Code, r.Decision)
			}
			if !usable(t, b, 5*time.Second) {
				t.Error("still paused")
			}
			putBack(t, b)
		})
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
