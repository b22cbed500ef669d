package e2e_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// TestRestartInPlace: Patroni calls on_restart when it next looks, up to a second after the server is back. The worker that the guard has
// started does not wait for that. With Patroni's default times.
func TestRestartInPlace(t *testing.T) {
	oneSuite(t, "trixie", func(t *testing.T, suite string) {
		c := start(t, lab.Options{Suite: suite})
		leader, began := c.leader(), time.Now()
		stalls, result := c.timed(10, func() { c.must(leader.RestartPostgres(c.ctx)) })
		c.noErrors(result)
		restarts := c.restarts(leader, began)
		t.Logf("restart in place: stalls %v, PostgreSQL alone %v", stalls, restarts)
		if len(restarts) != len(stalls) {
			t.Fatalf("PostgreSQL's log has %d restarts", len(restarts))
		}
		// PostgreSQL alone takes half of it or a little more. Where it took longer, the machine was busy.
		for i, stall := range stalls {
			if limit := max(c.limit(500*time.Millisecond), 2*restarts[i]); stall > limit {
				t.Errorf("a stall of %s, at most %s is claimed: PostgreSQL's own restart took %s", stall, limit, restarts[i])
			}
		}
	})
}

// restarts reads from a member's log how long PostgreSQL has taken for each restart since a moment: from the request for its shutdown
// until it takes connections, on a replica read-only ones.
func (c *cluster) restarts(m *lab.Member, since time.Time) (took []time.Duration) {
	c.t.Helper()
	events, err := c.TimeLine(since, time.Now())
	c.must(err)
	var down time.Time
	for _, e := range events {
		switch {
		case e.Source != m.Name+" postgresql":
		case strings.Contains(e.Text, "received fast shutdown request"):
			down = e.At
		case strings.Contains(e.Text, "ready to accept ") && !down.IsZero():
			took = append(took, e.At.Sub(down))
			down = time.Time{}
		}
	}
	return took
}
