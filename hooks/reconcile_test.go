package hooks

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
		until   time.Time
		foreign bool
		want    verdict
	}{
		{"nothing", known(false, nil), time.Hour, time.Time{}, true, leaveAlone},
		{"guard's, young", known(true, mark(pgb.Guard)), lease, time.Time{}, false, leaveAlone},
		{"guard's, past its lease", known(true, mark(pgb.Guard)), lease + reconcileGrace, time.Time{}, false, resumeIt},
		{"guard's, old, and this member's lease goes on", known(true, mark(pgb.Guard)), time.Hour, now.Add(time.Second), false, leaveAlone},
		{"guard's, just seen, and this member's lease is long over", known(true, mark(pgb.Guard)), 0, now.Add(-reconcileGrace), false, resumeIt},
		{"guard's, the keeper may still be at it", known(true, mark(pgb.Guard)), time.Hour, now.Add(-reconcileGrace + time.Second), false, leaveAlone},
		{"by hand here, lease goes on", known(true, mark(pgb.Hand)), time.Hour, now.Add(time.Minute), true, leaveAlone},
		{"by hand here, lease over", known(true, mark(pgb.Hand)), 0, now.Add(-time.Minute), false, resumeIt},
		{"by hand elsewhere, nobody here knows its lease", known(true, mark(pgb.Hand)), time.Hour, time.Time{}, true, reportIt},
		{"by hand elsewhere, young", known(true, mark(pgb.Hand)), time.Second, time.Time{}, true, leaveAlone},
		{"psql's", known(true, nil), time.Hour, time.Time{}, false, reportIt},
		{"psql's, may be ended, young", known(true, nil), time.Second, time.Time{}, true, leaveAlone},
		{"psql's, may be ended", known(true, nil), time.Hour, time.Time{}, true, resumeIt},
		{"psql's with our setting on", known(true, mark(pgb.Foreign)), time.Hour, time.Time{}, false, reportIt},
		{"resumed, the setting left", known(false, mark(pgb.Guard)), time.Hour, time.Time{}, false, putSettings},
		{"psql's is over, the setting left", known(false, mark(pgb.Foreign)), time.Hour, time.Time{}, false, putSettings},
		{"resumed just now, somebody is about to put it back", known(false, mark(pgb.Guard)), time.Second, time.Time{}, false, leaveAlone},
		{"1.18 with our mark: it cannot say, RESUME does no harm", pgb.State{Mark: mark(pgb.Guard)}, time.Hour, time.Time{}, false, resumeIt},
		{"1.18 without a mark, clients wait for no server", pgb.State{Waiting: 3, MaxWait: time.Minute}, time.Hour, time.Time{}, false, reportIt},
		{"1.18 without a mark, busy", pgb.State{Waiting: 3, MaxWait: time.Minute, Servers: 5}, time.Hour, time.Time{}, true, leaveAlone},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, why := overdue(c.state, c.seen, lease, c.until, now, c.foreign)
			if got != c.want {
				t.Errorf("verdict %d (%q), want %d", got, why, c.want)
			}
			if (got == leaveAlone) != (why == "") {
				t.Errorf("verdict %d and reason %q", got, why)
			}
		})
	}
}
