package e2e_test

import (
	"slices"
	"time"
)

// reference is how long psql takes at most, from its start to the answer to one question and under the load of these tests, on a machine on
// which their limits in seconds hold. They were set where Patroni alone took 0.4 s for a switchover. Where a hypervisor makes each page
// fault cost 15 µs, that takes 1.0 s and psql 0.4 s or more.
const reference = 100 * time.Millisecond

// limit is a limit in seconds, in proportion where this machine is slower than the one for which it was set.
func (c *cluster) limit(d time.Duration) time.Duration {
	c.t.Helper()
	return time.Duration(float64(d) * max(1, c.login().Seconds()/reference.Seconds()))
}

// login is how long a program takes here and now that starts, logs in to the leader and asks one question: what a handover consists of.
// It is the median of what was measured beside the case's events, and if nothing was, of three measured now.
func (c *cluster) login() time.Duration {
	c.t.Helper()
	for len(c.logins) < 3 {
		c.logIn()
	}
	return median(slices.Sorted(slices.Values(c.logins)))
}

func (c *cluster) logIn() {
	c.t.Helper()
	leader := c.leader()
	r, err := leader.Exec(c.ctx, nil, "psql", "-X", "-c", "select 1", leader.DSN())
	c.must(err)
	if r.ExitCode != 0 {
		c.t.Fatalf("psql: %s", r.Stderr)
	}
	c.logins = append(c.logins, r.Took)
}
