package lab_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

func TestSwitchoverFloor(t *testing.T) {
	asked := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	event := func(ms int, source, text string) lab.Event {
		return lab.Event{At: asked.Add(time.Duration(ms) * time.Millisecond), Source: source, Text: text}
	}
	// As a run on trixie left them: the leader before (m3) stops a replica's server, too.
	events := []lab.Event{
		event(-90, "m3 postgresql", "[41] LOG:  received fast shutdown request"),
		event(-60, "m3 postgresql", "[41] LOG:  database system is shut down"),
		event(15, "m1 postgresql", "[53] LOG:  received fast shutdown request"),
		event(46, "m1 postgresql", "[53] LOG:  database system is shut down"),
		event(306, "m2 patroni", "INFO: Cleaning up failover key after acquiring leader lock..."),
		event(402, "m2 patroni", "INFO: promoted self to leader by acquiring session lock"),
		event(410, "m2 postgresql", "[50] LOG:  archive recovery complete"),
		event(416, "m2 postgresql", "[46] LOG:  database system is ready to accept connections"),
	}
	got, err := lab.SwitchoverFloor(events, "m1", "m2")
	want := lab.Floor{Shutdown: 31 * time.Millisecond, Lock: 260 * time.Millisecond, Promotion: 110 * time.Millisecond}
	if err != nil || got != want || got.Total() != 401*time.Millisecond {
		t.Errorf("%+v, %v", got, err)
	}

	without := func(text string) []lab.Event {
		return slices.DeleteFunc(slices.Clone(events), func(e lab.Event) bool { return strings.Contains(e.Text, text) })
	}
	got, err = lab.SwitchoverFloor(without("Cleaning up"), "m1", "m2")
	if want := (lab.Floor{Shutdown: 31 * time.Millisecond, Lock: 356 * time.Millisecond, Promotion: 14 * time.Millisecond}); err != nil ||
		got != want {
		t.Errorf("the failover key was removed by somebody else: %+v, %v", got, err)
	}
	for text, source := range map[string]string{
		"fast shutdown": "m1 postgresql", "is shut down": "m1 postgresql", "lock": "m2 patroni", "ready to accept": "m2 postgresql",
	} {
		if got, err := lab.SwitchoverFloor(
			without(text),
			"m1",
			"m2",
		); err == nil || !strings.Contains(err.Error(), source) ||
			got != (lab.Floor{}) {
			t.Errorf("without %q: %+v, %v", text, got, err)
		}
	}
	if _, err := lab.SwitchoverFloor(events, "m2", "m1"); err == nil {
		t.Error("no error for a switchover the other way")
	}
}
