package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// TestNoSplitBrain: a 20 s transaction is open, so the guard has a reason to wait, and nobody renews the lock. Two primaries may be
// writable for no longer than in the same case without any hook.
func TestNoSplitBrain(t *testing.T) {
	for _, trouble := range []struct {
		name string
		do   func(c *cluster, old *lab.Member)
		mend func(c *cluster, old *lab.Member)
		last string        // what the guard says
		in   time.Duration // and within what it is gone: 50 ms are claimed, the rest is for a busy machine
	}{
		{"SIGTERM", func(c *cluster, old *lab.Member) {
			c.must(old.Term(c.ctx))
		}, func(c *cluster, old *lab.Member) { c.must(old.Start()) }, "", 0},
		{"primary loses the DCS", func(c *cluster, old *lab.Member) {
			old.CutDCS()
		}, func(c *cluster, old *lab.Member) { old.HealDCS() },
			// Where the renewal of the lock fails, and not a look, Patroni may demote before its last sight is older than
			// loop_wait + 2 s; until then it looks like a switchover.
			"PAUSE is sent and not waited for", 2*time.Second + 100*time.Millisecond},
		{"DCS lost 5 s into a switchover", func(c *cluster, old *lab.Member) {
			go func() { _, _ = c.Switchover(c.ctx, "") }()
			wait(c.ctx, 5*time.Second)
			old.CutDCS()
		}, func(c *cluster, old *lab.Member) { old.HealDCS() }, "", 0},
		{"Patroni frozen longer than ttl", func(c *cluster, old *lab.Member) {
			c.must(old.Freeze())
			_, err := c.WaitLeader(c.ctx, old)
			wait(c.ctx, time.Second)
			c.must(old.Thaw())
			c.must(err)
		}, func(c *cluster, old *lab.Member) {}, "the leader lock is lost", 100 * time.Millisecond},
	} {
		t.Run(trouble.name, func(t *testing.T) {
			eachSuite(t, func(t *testing.T, suite string) {
				options := lab.Options{Suite: suite}
				if !*full {
					options = options.Quick()
				}
				c := start(t, options, "pause: {lease: 15s}")
				once := func(w way) (both, late, longest time.Duration) {
					c.use(w)
					old := c.leader()
					watch := c.WatchWritable(20 * time.Millisecond)
					paused := c.watchPaused()
					l := c.load()
					end := c.holdTransaction(20 * time.Second)
					trouble.do(c, old)
					done := time.Now()
					_, err := c.WaitLeader(c.ctx, old)
					c.must(err)
					c.eventually(time.Minute, "the old primary has stopped", func() error {
						if old.Writable(c.ctx) {
							return errNotYet
						}
						return nil
					})
					_ = end()
					trouble.mend(c, old)
					// Without hooks the pool may have caught the old primary as a replica, and keeps it.
					if w == pgbatonWay {
						l.flowing(5)
					}
					l.end()
					report := watch.Stop()
					t.Logf("%s: %s", w.name, report)
					c.healthy()
					for _, p := range c.Poolers() {
						_, _, err := p.Admin(c.ctx, "RECONNECT")
						c.must(err)
					}
					for _, s := range report.Spans[old.Name] {
						late = max(late, s.To.Sub(done))
					}
					return report.Overlap, late, paused()
				}
				without, lateWithout, _ := once(noHooks)
				before := c.leader()
				with, late, longest := once(pgbatonWay)
				// When the other one is elected depends on when the lock was last renewed, by up to loop_wait and a second. Where both
				// were writable for a while in either case, what is ours is how long the old one went on. A busy machine only adds to
				// that: with us the least of three counts, without us the most.
				worse := func() bool {
					return with > 0 && without > 0 && late > lateWithout+200*time.Millisecond && with > without+200*time.Millisecond
				}
				for more := 0; more < 2 && worse(); more++ {
					both, old, _ := once(noHooks)
					without, lateWithout = max(without, both), max(lateWithout, old)
					before = c.leader()
					both, old, pause := once(pgbatonWay)
					with, late, longest = min(with, both), min(late, old), max(longest, pause)
				}
				t.Logf("two writable primaries: %s with pgbaton, %s without hooks; the old one took writes for %s after, without hooks %s; longest pause %s",
					with, without, late, lateWithout, longest)
				if worse() {
					t.Errorf("two primaries were writable for %s, without hooks %s; the old one went on for %s, without hooks %s", with, without, late, lateWithout)
				}
				if with > 0 && without == 0 {
					t.Errorf("two primaries were writable for %s, without hooks never", with)
				}
				if trouble.last != "" {
					decision, took := c.guardThat(before, trouble.last)
					// A busy machine, and a Patroni that was just thawed, only add to it: the least of three counts.
					for more := 0; more < 2 && took > trouble.in; more++ {
						before = c.leader()
						once(pgbatonWay)
						_, again := c.guardThat(before, trouble.last)
						took = min(took, again)
					}
					t.Logf("the guard took %s: %s", took, decision)
					if took > trouble.in {
						t.Errorf("the guard took %s, at most %s is claimed", took, trouble.in)
					}
				}
				if longest > 15*time.Second+3*time.Second {
					t.Errorf("paused for %s", longest)
				}
				c.asBefore()
			})
		})
	}
}

// wait lets a time pass that is part of the case, not of its checks.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
