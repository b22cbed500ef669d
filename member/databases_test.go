package member_test

import (
	"fmt"
	"slices"
	"strings"
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

// What cannot be checked from this member is told before a handover, and what can be is not.
func TestRouteProblems(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	b, err := single.StartPgBouncer(t.Context(), single.SuiteTrixie, single.PgBouncerOptions{Backend: pg, Databases: fmt.Sprintf(
		"app = host=%[1]s port=%[2]d dbname=postgres\ngone = host=%[1]s port=%[2]d dbname=gone_2019\nfar = host=pgbaton-far.invalid\ndown = host=%[1]s port=1\n"+
			"near = host=127.0.0.1\nsocket = host=/run/postgresql\n", pg.Addr, pg.Port)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	m := membertest.New(t, pg, b)
	m.Config.Postgres = pg.SocketDSN("postgres", "postgres") + " password=" + single.Password
	poolers, _, errs := m.Poolers(t.Context(), nil)
	defer member.CloseAll(poolers)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	problems := func(want ...string) {
		t.Helper()
		found := m.RouteProblems(t.Context(), poolers)
		if len(found) != len(want) {
			t.Errorf("%d problems, %d expected: %q", len(found), len(want), found)
			return
		}
		for i := range want {
			if !strings.Contains(found[i], want[i]) {
				t.Errorf("%q, want %q", found[i], want[i])
			}
		}
	}
	problems("pgbaton-far.invalid:5432 cannot be reached from here")
	poolers[0].Name = "192.0.2.7:6432" // as if it were on another machine
	problems("database near of pooler 192.0.2.7:6432 leads to its own machine", "database socket of pooler", "pgbaton-far.invalid:5432 cannot be reached")
	m.Config.Postgres = pg.SocketDSN("postgres", "postgres") // no password
	poolers[0].Databases = []string{"app"}
	problems("cannot log in at " + pg.Addr)
	m.Config.Resume.Route = pg.DSN("postgres", "postgres")
	problems()
}
