package e2e_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// TestHAProxyRoute: the route learns from health checks, so late, that the primary has moved. Clients wait for it, and no longer.
func TestHAProxyRoute(t *testing.T) {
	for _, checks := range []struct {
		name, check string
		rounds      int
	}{
		{"inter 1s", "inter 1s fall 1 rise 1 on-marked-down shutdown-sessions", rounds(3, 5)},
		{"inter 3s", "inter 3s fall 3 rise 2 on-marked-down shutdown-sessions", rounds(2, 10)},
	} {
		t.Run(checks.name, func(t *testing.T) {
			oneSuite(t, "sid", func(t *testing.T, suite string) {
				c := start(t, lab.Options{Suite: suite, Route: lab.RouteHAProxy, HAProxyCheck: checks.check}.Quick())
				l := c.load()
				type move struct{ from, arrived, to time.Time }
				var moves []move
				for range checks.rounds {
					route := c.Route().Watch(c.ctx)
					c.leads(route, 5*time.Second, 0)
					before := route.Leads()
					from := time.Now()
					c.switchover()
					l.flowing(20)
					c.logIn()
					leads, arrived := route.Stop()
					if leads == before || leads == "" {
						t.Fatalf("the route leads to %q, it did to %q", leads, before)
					}
					moves = append(moves, move{from, arrived, time.Now()})
					c.healthy()
				}
				result := l.stop()
				c.noErrors(result)
				c.asBefore()
				for _, m := range moves {
					stall := result.StallBetween(m.from, m.to)
					late := stall.To.Sub(m.arrived)
					t.Logf("stall %.2f s; the route led to the new primary only after %.2f s, clients went on %.2f s later",
						stall.Length().Seconds(), m.arrived.Sub(stall.From).Seconds(), late.Seconds())
					// A route that knows two primaries for a while is looked at twelve times, and that is as many log-ins.
					if limit := max(time.Second, 12*c.login()); late > limit {
						t.Errorf("clients waited %s longer than the route took, at most %s is claimed", late, limit)
					}
				}
			})
		})
	}
}

// TestAddressForReading: a database that leads to a replica, before and after, costs a handover nothing.
func TestAddressForReading(t *testing.T) {
	oneSuite(t, "sid", func(t *testing.T, suite string) {
		c := start(t, lab.Options{Suite: suite,
			PgBouncerDatabases: "aaa_ro = host=m3 port=5432 dbname=postgres\n* = host=cluster port=5432"}.Quick())
		stalls, result := c.handovers(rounds(3, 10), func() {
			leader, err := c.Leader(c.ctx)
			c.must(err)
			to := "m1"
			if leader.Name == to {
				to = "m2"
			}
			_, err = c.Switchover(c.ctx, to)
			c.must(err)
		})
		c.noErrors(result)
		c.asBefore()
		t.Logf("stalls %v", stalls)
		if most := stalls[len(stalls)-1]; most > c.limit(1500*time.Millisecond) {
			t.Errorf("a database that leads to m3 makes everybody wait: %s", most)
		}
	})
}

// TestStandbyLeader: a primary that is told to follow another cluster stops, and nobody will take writes: its pause does not last as long
// as the lease.
func TestStandbyLeader(t *testing.T) {
	oneSuite(t, "sid", func(t *testing.T, suite string) {
		c := start(t, lab.Options{Suite: suite}.Quick())
		leader, err := c.Leader(c.ctx)
		c.must(err)
		isPaused := func() bool {
			paused, err := c.Pooler().Paused(c.ctx)
			c.must(err)
			return paused
		}
		// Nobody listens there: what it follows is not what this is about.
		follow := func(cluster any) {
			status, body, err := leader.REST(c.ctx, http.MethodPatch, "/config", map[string]any{"standby_cluster": cluster})
			c.must(err)
			if status != http.StatusOK {
				t.Fatalf("PATCH /config: %d %s", status, body)
			}
		}
		follow(map[string]any{"host": "127.99.99.99", "port": 5432})
		c.eventually(20*time.Second, "the guard has paused", func() error {
			if !isPaused() {
				return errNotYet
			}
			return nil
		})
		from := time.Now()
		c.eventually(20*time.Second, "the pause is over", func() error {
			if isPaused() {
				return errNotYet
			}
			return nil
		})
		t.Logf("paused for %s", time.Since(from))
		if took := time.Since(from); took > 15*time.Second {
			t.Errorf("paused for %s; the lease is 30 s", took)
		}
		follow(nil) // and it is a primary again
		c.healthy()
	})
}

// leads waits until a route leads to a primary, and has for so long.
func (c *cluster) leads(route *lab.RouteWatch, limit, long time.Duration) {
	c.t.Helper()
	c.eventually(limit, "the route leads to the primary", func() error {
		if address, since := route.LeadsFor(); address == "" || since < long {
			return errNotYet
		}
		return nil
	})
}
