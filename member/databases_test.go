package member_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
)

// Of a pooler of two clusters, those databases are ours that lead to this one; also where the pooler before it does not answer.
func TestSelectDatabases(t *testing.T) {
	t.Parallel()
	pg, other := membertest.SharedPostgres(t), membertest.OwnPostgres(t)
	silent := membertest.StartPooler(t, single.SuiteTrixie, pg)
	b, err := single.StartPgBouncer(t.Context(), single.SuiteTrixie, single.PgBouncerOptions{Backend: pg, Databases: fmt.Sprintf(
		"ours = host=%s port=%d dbname=postgres\ntheirs = host=%s port=%d dbname=postgres\n", pg.Addr, pg.Port, other.Addr, other.Port)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	m := membertest.New(t, pg, silent, b)
	membertest.Automatic(m, pg)
	if err := silent.Freeze(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Thaw() }()
	poolers, _, errs := m.Poolers(t.Context(), nil)
	defer member.CloseAll(poolers)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	m.SelectDatabases(t.Context(), m.Log, poolers)
	if poolers[0].Databases != nil {
		t.Errorf("of one that does not answer all are paused: %v", poolers[0].Databases)
	}
	if !slices.Equal(poolers[1].Databases, []string{"ours"}) {
		t.Errorf("%v, want ours alone", poolers[1].Databases)
	}
}

// A pooler none of whose databases leads here is left alone, and the others are not.
func TestSelectDatabasesNone(t *testing.T) {
	t.Parallel()
	pg, other := membertest.SharedPostgres(t), membertest.OwnPostgres(t)
	start := func(pg *single.Postgres) *single.PgBouncer {
		b, err := single.StartPgBouncer(t.Context(), single.SuiteTrixie, single.PgBouncerOptions{Backend: pg,
			Databases: fmt.Sprintf("app = host=%s port=%d dbname=postgres\n", pg.Addr, pg.Port)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		return b
	}
	ours, theirs := start(pg), start(other)
	m := membertest.New(t, pg, theirs, ours)
	membertest.Automatic(m, pg)
	poolers, _, errs := m.Poolers(t.Context(), nil)
	defer member.CloseAll(poolers)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	used := m.SelectDatabases(t.Context(), m.Log, poolers)
	if len(used) != 1 || used[0] != poolers[1] || used[0].Databases != nil {
		t.Errorf("%v: only the second pooler has a database of ours, and no other", used)
	}
	if poolers[0].Databases == nil {
		t.Error("nil is all databases")
	}
}
