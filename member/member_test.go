package member_test

import (
	"testing"

	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/state"
)

func TestJournalOfADryRun(t *testing.T) {
	rt := membertest.New(t, nil)
	rt.DryRun = true
	rt.Journal("pause", "a").Add(state.Entry{Event: state.EventStarted})
	if entries, err := state.ReadJournal(rt.Config.StateDir, 10); err != nil || entries != nil {
		t.Errorf("a dry run wrote: %v, %v", entries, err)
	}
}
