package lab_test

import (
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

func TestCourse(t *testing.T) {
	asked := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	event := func(ms int, source, text string) lab.Event {
		return lab.Event{At: asked.Add(time.Duration(ms) * time.Millisecond), Source: source, Text: text}
	}
	// A replica is restarted, then the primary passes on, then another replica is killed while the old primary is down.
	events := []lab.Event{
		event(0, "m2 postgresql", "[41] LOG:  received fast shutdown request"),
		event(20, "m2 postgresql", "[41] LOG:  database system is shut down"),
		event(40, "m2 postgresql", "[51] LOG:  starting PostgreSQL 17.6 (Debian)"),
		event(90, "m2 postgresql", "[51] LOG:  database system is ready to accept read-only connections"),
		event(200, "m1 postgresql", "[53] LOG:  received fast shutdown request"),
		event(240, "m1 postgresql", "[53] LOG:  database system is shut down"),
		event(310, "m2 postgresql", "[54] LOG:  selected new timeline ID: 2"),
		event(316, "m2 postgresql", "[51] LOG:  database system is ready to accept connections"),
		event(330, "m3 postgresql", "[61] LOG:  starting PostgreSQL 17.6 (Debian)"),
		event(380, "m3 postgresql", "[61] LOG:  database system is ready to accept read-only connections"),
		event(390, "m1 postgresql", "[70] LOG:  starting PostgreSQL 17.6 (Debian)"),
	}
	c := lab.CourseOf(events)
	if got, want := c.Order(), "m2 m1 >m2 m3"; got != want {
		t.Errorf("order %q, want %q", got, want)
	}
	if len(c.Restarts) != 3 || c.Restarts[0].Up.Sub(c.Restarts[0].Down) != 90*time.Millisecond || !c.Restarts[1].Up.IsZero() ||
		c.Restarts[2].Requested || !c.Restarts[0].Requested {
		t.Errorf("%v", c.Restarts)
	}
	if got := c.Together(); len(got) != 2 || got[0].Member != "m1" || got[1].Member != "m3" {
		t.Errorf("down together: %v", got)
	}
	if got := lab.CourseOf(events[:8]).Together(); len(got) != 0 {
		t.Errorf("m2 was back before m1 went down: %v", got)
	}
	// Back as primary, in place.
	c = lab.CourseOf([]lab.Event{
		event(0, "m1 postgresql", "[53] LOG:  received fast shutdown request"),
		event(90, "m1 postgresql", "[54] LOG:  database system is ready to accept connections"),
	})
	if len(c.Restarts) != 1 || !c.Restarts[0].Primary || len(c.Promotions) != 0 {
		t.Errorf("%+v", c)
	}
}
