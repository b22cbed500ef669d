package hooks

import "testing"

func TestJournalOfADryRun(t *testing.T) {
	rt := newRuntime(t, nil)
	rt.DryRun = true
	rt.openJournal("pause", "a").add(Entry{Event: EventStarted})
	if entries, err := ReadJournal(rt.Config.StateDir, 10); err != nil || entries != nil {
		t.Errorf("a dry run wrote: %v, %v", entries, err)
	}
}
