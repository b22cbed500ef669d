package member_test

import (
	"testing"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
)

// A pooler beside another member that leads here, on every version: it is ours to resume while it has a guard's pause, also after a RELOAD
// has taken the mark off, for who has seen it with the mark.
func TestLeadsHere(t *testing.T) {
	for _, suite := range membertest.Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			pg := membertest.SharedPostgres(t)
			b := membertest.StartPooler(t, suite, pg)
			m := membertest.New(t, pg, b)
			m.Config.Postgres = pg.DSN("postgres", "postgres")
			m.Config.Poolers[0].Follow = &config.Follow{Elsewhere: true}
			client := membertest.Connect(t, b.DSN("postgres", "postgres"))
			client.Must("select 1")
			poolers, _, errs := m.Poolers(t.Context(), nil)
			defer member.CloseAll(poolers)
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			is := func(what string, held, want bool) {
				t.Helper()
				leads, paused, err := m.LeadsHere(t.Context(), poolers[0], pgb.Guard, held)
				if err != nil || leads != want || paused != want {
					t.Errorf("%s: leads here %v, paused %v, %v; want %v", what, leads, paused, err, want)
				}
			}
			is("not paused", true, false)
			membertest.Abandoned(t, m, pgb.Guard)
			is("paused", false, true)
			membertest.Reload(t, b)
			is("paused without a mark, by nobody knows whom", false, false)
			waiting := make(chan error, 1)
			go func() { waiting <- client.Exec("select 1") }() // 1.18 does not tell that it is paused
			membertest.Eventually(t, "seen to be held before", func() bool {
				leads, paused, err := m.LeadsHere(t.Context(), poolers[0], pgb.Guard, true)
				return err == nil && leads && paused
			})
			if _, err := poolers[0].Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := <-waiting; err != nil {
				t.Error(err)
			}
			is("resumed", true, false)
		})
	}
}
