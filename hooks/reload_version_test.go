package hooks

import (
	"testing"

	"github.com/pgbaton/pgbaton/configversion"
)

func TestLastApplied(t *testing.T) {
	entry := func(run, target, pooler, event, version string) Entry {
		return Entry{Hook: "reload", Handover: run, Target: target, Pooler: pooler, Event: event, Version: version}
	}
	first := []Entry{entry("1", "pgbouncer", "a", EventReloaded, "41"), entry("1", "pgbouncer", "gone", EventReloaded, "41"), entry("1", "pgbouncer", "", EventAllReloaded, "41")}
	second := append(first, entry("2", "pgbouncer", "a", EventReloaded, "42"), entry("2", "pgbouncer", "", EventAllReloaded, "42"), entry("2", "postgres", "", EventReloaded, "50"))
	for _, c := range []struct {
		name    string
		entries []Entry
		want    configversion.Version // 0: none
	}{
		{"never", nil, 0},
		{"both", first, 41},
		{"the last run counts, and a pooler that is no more does not", second, 42},
		{"one failed", append(second, entry("3", "pgbouncer", "a", EventReloaded, "43"), entry("3", "pgbouncer", "b", EventNotReloaded, "43")), 0},
		{"the version of a later run never came", append(second, entry("3", "pgbouncer", "", EventNotBegun, "")), 42},
		{"killed after the first of two, or still at it", append(second, entry("3", "pgbouncer", "a", EventReloaded, "43")), 0},
		{"without a version", append(second, entry("3", "pgbouncer", "a", EventReloaded, ""), entry("3", "pgbouncer", "", EventAllReloaded, "")), 0},
	} {
		got := lastApplied(c.entries, ReloadPgBouncer)
		if c.want == 0 && got != nil || c.want != 0 && (got == nil || *got != c.want) {
			t.Errorf("%s: %v, want %d", c.name, got, c.want)
		}
	}
}
