package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// TestYoungCluster: a cluster is seconds old and all is well by its REST API, but no standby streams, because Patroni makes their
// replication slots in its next loop. Whatever is acknowledged then is lost with the stop, unless the stop waits.
func TestYoungCluster(t *testing.T) {
	for _, stop := range []struct {
		name string
		do   func(c *cluster, old *lab.Member)
	}{
		{"SIGTERM", func(c *cluster, old *lab.Member) {
			c.must(old.Term(c.ctx))
			c.otherLeads(old)
			c.must(old.Start())
		}},
		{"switchover", func(c *cluster, _ *lab.Member) { c.switchover() }},
	} {
		t.Run(stop.name, func(t *testing.T) {
			if stop.name == "SIGTERM" && !*full {
				t.Skip("makes clusters until one is young enough: run with -full")
			}
			togetherOn(t, "sid", func(t *testing.T, suite string) {
				c, old, probe := young(t, suite)
				stop.do(c, old)
				c.otherLeads(old)
				c.must(probe.WaitFlowing(c.ctx, 20))
				result := probe.Stop()
				c.must(result.VerifyWrites(c.ctx, c.Lab))
				decision, took := c.guardThat(old, "paused and drained")
				t.Logf("%d acknowledged writes, none is lost; longest gap %s, %d errors; the guard took %s: %s",
					result.Acked, result.LongestStall.Length(), len(result.Errors), took, decision)
			})
		})
	}
}

// otherLeads waits until another member is the leader: what is left of the lock, and an election.
func (c *cluster) otherLeads(old *lab.Member) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
	defer cancel()
	_, err := c.WaitLeader(ctx, old)
	c.must(err)
}

// young starts a cluster that takes writes while no standby streams. Whether it does depends on when the leader's loops are: it is tried
// some times.
func young(t *testing.T, suite string) (*cluster, *lab.Member, *lab.Probe) {
	t.Helper()
	for range 5 {
		c := newCluster(t)
		made := c.make(lab.Options{Suite: suite, Members: 2, Young: true, PgbenchScale: 1,
			Parameters: map[string]string{"wal_retrieve_retry_interval": "5s"}}, nil) // PostgreSQL's default; the lab's is short
		leader := c.leader()
		probe, err := c.StartProbe(c.ctx, 8, 10*time.Millisecond)
		c.must(err)
		c.must(probe.WaitFlowing(c.ctx, 5))
		rows, err := leader.SQL(c.ctx, "select count(*) as n from pg_stat_replication where state = 'streaming'")
		c.must(err)
		if rows[0]["n"] == "0" {
			t.Cleanup(func() { c.end(made) })
			return c, leader, probe
		}
		probe.Stop()
		c.must(made.close())
	}
	t.Fatal("the standbys stream as soon as they run: nothing is to be seen here")
	return nil, nil, nil
}
