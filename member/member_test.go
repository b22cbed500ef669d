package member_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/state"
)

// A DSN with localhost, where the pooler listens on IPv4 only: one pooler, and none that is down.
func TestLocalhostIsOnePooler(t *testing.T) {
	for _, suite := range []string{single.SuiteTrixie, single.SuiteSid} {
		pg := membertest.SharedPostgres(t)
		b := membertest.StartPooler(t, suite, pg)
		m := membertest.New(t, pg, b)
		m.Config.Poolers[0].DSN = strings.Replace(b.AdminDSN(), b.Addr, "localhost", 1)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		poolers, _, errs := m.Poolers(ctx, member.AddressBook{"localhost": {"::1", b.Addr}})
		defer member.CloseAll(poolers)
		if len(poolers) != 1 || len(errs) > 0 {
			t.Fatalf("%v, %v", poolers, errs)
		}
		if s, err := poolers[0].State(ctx); err != nil || s.Paused {
			t.Errorf("%s: %+v, %v", poolers[0].Name, s, err)
		}
	}
}

func TestJournalOfADryRun(t *testing.T) {
	m := membertest.New(t, nil)
	m.DryRun = true
	m.Journal("pause", "a").Add(state.Entry{Event: state.EventStarted})
	if entries, err := state.ReadJournal(m.Config.StateDir, 10); err != nil || entries != nil {
		t.Errorf("a dry run wrote: %v, %v", entries, err)
	}
}
