package reload

import (
	"testing"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/configversion"
	"github.com/pgbaton/pgbaton/state"
)

func TestLastApplied(t *testing.T) {
	entry := func(run, target, pooler, event, version string) state.Entry {
		return state.Entry{Hook: "reload", Handover: run, Target: target, Pooler: pooler, Event: event, Version: version}
	}
	first := []state.Entry{
		entry("1", "pgbouncer", "a", state.EventReloaded, "41"),
		entry("1", "pgbouncer", "gone", state.EventReloaded, "41"),
		entry("1", "pgbouncer", "", state.EventAllReloaded, "41"),
	}
	second := append(
		first,
		entry("2", "pgbouncer", "a", state.EventReloaded, "42"),
		entry("2", "pgbouncer", "", state.EventAllReloaded, "42"),
		entry("2", "postgres", "", state.EventReloaded, "50"),
	)
	for _, c := range []struct {
		name    string
		entries []state.Entry
		want    configversion.Version // 0: none
	}{
		{"never", nil, 0},
		{"both", first, 41},
		{"the last run counts, and a pooler that is no more does not", second, 42},
		{"one failed", append(second, entry("3", "pgbouncer", "a", state.EventReloaded, "43"), entry("3", "pgbouncer", "b",
			state.EventNotReloaded, "43")), 0},
		{"the version of a later run never came", append(second, entry("3", "pgbouncer", "", state.EventNotBegun, "")), 42},
		{"killed after the first of two, or still at it", append(second, entry("3", "pgbouncer", "a", state.EventReloaded, "43")), 0},
		{"without a version", append(second, entry("3", "pgbouncer", "a", state.EventReloaded, ""), entry("3", "pgbouncer", "",
			state.EventAllReloaded, "")), 0},
	} {
		got := lastApplied(c.entries, api.TargetPgBouncer)
		if c.want == 0 && got != nil || c.want != 0 && (got == nil || *got != c.want) {
			t.Errorf("%s: %v, want %d", c.name, got, c.want)
		}
	}
}
