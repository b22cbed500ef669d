package member_test

import (
	"testing"

	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/state"
)

func TestJournalOfADryRun(t *testing.T) {
	m := membertest.New(t, nil)
	m.DryRun = true
	m.Journal("pause", "a").Add(state.Entry{Event: state.EventStarted})
	if entries, err := state.ReadJournal(m.Config.StateDir, 10); err != nil || entries != nil {
		t.Errorf("a dry run wrote: %v, %v", entries, err)
	}
}
