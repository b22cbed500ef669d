package pause

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
)

func (f *Fleet) refresh(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	f.Refresh(ctx)
}

// A pooler that has come since the fleet was attached is paused; one that is gone and does not answer holds nobody up.
func TestFleetRefresh(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	stays, goes, comes := membertest.StartPooler(
		t,
		single.SuiteTrixie,
		pg,
	), membertest.StartPooler(
		t,
		single.SuiteTrixie,
		pg,
	), membertest.StartPooler(
		t,
		single.SuiteTrixie,
		pg,
	)
	m := membertest.New(t, nil, stays, goes)
	f := attached(t, m)
	if err := goes.Freeze(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = goes.Thaw() })
	m.Config.Poolers = []config.Pooler{{DSN: stays.AdminDSN()}, {DSN: comes.AdminDSN()}}
	f.refresh(t)
	names := func() (names []string) {
		for _, x := range f.Poolers {
			names = append(names, x.Name)
		}
		slices.Sort(names)
		return names
	}
	poolers, _, _ := m.Poolers(t.Context(), nil)
	member.CloseAll(poolers)
	want := []string{poolers[0].Name, poolers[1].Name}
	slices.Sort(want)
	if got := names(); !slices.Equal(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
	began := time.Now()
	if err := f.tryFor(t, 10*time.Second); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	if f.refresh(t); !slices.Equal(names(), want) {
		t.Errorf("%v, want %v", names(), want)
	}
	for _, b := range []*single.PgBouncer{stays, comes} {
		if !membertest.StateOf(t, b).Paused {
			t.Error("not paused")
		}
	}
	if err := f.Undo(t.Context(), true); err != nil {
		t.Error(err)
	}
	for _, b := range []*single.PgBouncer{stays, comes} {
		if !membertest.Usable(t, b, 5*time.Second) {
			t.Error("not resumed")
		}
	}
}

// One that was down when the guard began and is up now is paused with the rest.
func TestFleetRefreshFindsOneThatIsBack(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	up, down := membertest.StartPooler(t, single.SuiteTrixie, pg), membertest.StartPooler(t, single.SuiteTrixie, pg)
	down.Kill()
	f := attachedWithin(t, membertest.New(t, nil, up, down), 200*time.Millisecond)
	if f.Reachable() != 1 {
		t.Fatalf("%d poolers are reachable", f.Reachable())
	}
	if err := down.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.refresh(t)
	if f.Reachable() != 2 || len(f.Poolers) != 2 {
		t.Errorf("%d of %d poolers are reachable", f.Reachable(), len(f.Poolers))
	}
	if err := f.tryFor(t, 10*time.Second); err != nil || !membertest.StateOf(t, down).Paused {
		t.Errorf("not paused: %v", err)
	}
	if err := f.Undo(t.Context(), true); err != nil {
		t.Error(err)
	}
}
