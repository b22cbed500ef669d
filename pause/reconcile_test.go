package pause

import (
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/pgb"
)

// TestOverdue is the table of what is done about a pause that still stands.
func TestOverdue(t *testing.T) {
	const lease = 30 * time.Second
	now := time.Now()
	mark := func(o pgb.Owner) *pgb.Mark { return &pgb.Mark{Original: 15 * time.Second, Nonce: 4, Owner: o} }
	known := func(paused bool, m *pgb.Mark) pgb.State { return pgb.State{PausedKnown: true, Paused: paused, Mark: m} }
	for _, c := range []struct {
		name    string
		state   pgb.State
		seen    time.Duration
		own     ownLease
		foreign bool
		want    verdict
	}{
		{"nothing", known(false, nil), time.Hour, ownLease{}, true, leaveAlone},
		{"guard's, young", known(true, mark(pgb.Guard)), lease, ownLease{}, false, leaveAlone},
		{"guard's, past its lease", known(true, mark(pgb.Guard)), lease + reconcileGrace, ownLease{}, false, resumeIt},
		{"guard's, old, and this member's lease goes on",
			known(true, mark(pgb.Guard)), time.Hour, ownLease{true, now.Add(time.Second)}, false, leaveAlone},
		{"guard's, just seen, and this member's lease is long over",
			known(true, mark(pgb.Guard)), 0, ownLease{true, now.Add(-reconcileGrace)}, false, resumeIt},
		{"guard's, the keeper may still end it",
			known(true, mark(pgb.Guard)), time.Hour, ownLease{true, now.Add(-reconcileGrace + time.Second)}, false, leaveAlone},
		{"by hand here, lease goes on", known(true, mark(pgb.Hand)), time.Hour, ownLease{true, now.Add(time.Minute)}, true, leaveAlone},
		{"by hand here, lease over", known(true, mark(pgb.Hand)), 0, ownLease{true, now.Add(-time.Minute)}, false, resumeIt},
		{"by hand here, first seen when its lease was over, young",
			known(true, mark(pgb.Hand)), time.Second, ownLease{made: true}, false, leaveAlone},
		{"by hand here, first seen when its lease was over",
			known(true, mark(pgb.Hand)), lease + reconcileGrace, ownLease{made: true}, false, resumeIt},
		{"by hand elsewhere, nobody here knows its lease", known(true, mark(pgb.Hand)), time.Hour, ownLease{}, true, reportIt},
		{"by hand elsewhere, young", known(true, mark(pgb.Hand)), time.Second, ownLease{}, true, leaveAlone},
		{"psql's", known(true, nil), time.Hour, ownLease{}, false, reportIt},
		{"psql's, may be ended, young", known(true, nil), time.Second, ownLease{}, true, leaveAlone},
		{"psql's, may be ended", known(true, nil), time.Hour, ownLease{}, true, resumeIt},
		{"psql's with our setting on", known(true, mark(pgb.Foreign)), time.Hour, ownLease{}, false, reportIt},
		{"single databases, seen by who knows not which",
			pgb.State{PausedKnown: true, PausedDBs: []string{"app"}, Mark: mark(pgb.Guard)}, time.Hour, ownLease{}, false, resumeIt},
		{"resumed, the setting left", known(false, mark(pgb.Guard)), time.Hour, ownLease{}, false, putSettings},
		{"psql's is over, the setting left", known(false, mark(pgb.Foreign)), time.Hour, ownLease{}, false, putSettings},
		{"resumed just now, somebody is about to put it back", known(false, mark(pgb.Guard)), time.Second, ownLease{}, false, leaveAlone},
		{"1.18 with our mark: it cannot say, RESUME does no harm",
			pgb.State{Mark: mark(pgb.Guard)}, time.Hour, ownLease{}, false, resumeIt},
		{"1.18 without a mark, clients wait for no server",
			pgb.State{Waiting: 3, MaxWait: time.Minute}, time.Hour, ownLease{}, false, reportIt},
		{"1.18 without a mark, busy", pgb.State{Waiting: 3, MaxWait: time.Minute, Servers: 5}, time.Hour, ownLease{}, true, leaveAlone},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, why := overdue(c.state, c.seen, lease, c.own, now, c.foreign)
			if got != c.want {
				t.Errorf("verdict %d (%q), want %d", got, why, c.want)
			}
			if (got == leaveAlone) != (why == "") {
				t.Errorf("verdict %d and reason %q", got, why)
			}
		})
	}
}
