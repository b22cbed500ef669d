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
		in   time.Duration // and within what it is gone
	}{
		{"SIGTERM", func(c *cluster, old *lab.Member) {
			c.must(old.Term(c.ctx))
		}, func(c *cluster, old *lab.Member) { c.must(old.Start()) }, "", 0},
		{"primary loses the DCS", func(c *cluster, old *lab.Member) {
			old.CutDCS()
		}, func(c *cluster, old *lab.Member) { old.HealDCS() },
			// Where the renewal of the lock fails, and not a look, Patroni may demote before its last sight is older than
			// loop_wait + 2 s; until then it looks like a switchover.
			"PAUSE is sent and not waited for", 2*time.Second + 50*time.Millisecond},
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
		}, func(c *cluster, old *lab.Member) {}, "the leader lock is lost", 50 * time.Millisecond},
	} {
		t.Run(trouble.name, func(t *testing.T) {
			together(t, func(t *testing.T, suite string) {
				options := lab.Options{Suite: suite}
				if !*full {
					options = options.Quick()
				}
				c := startQuiet(t, options, "pause: {lease: 15s}")
				once := func(w way) (result struct {
					both, late, longest, machine time.Duration
					old                          *lab.Member
				}) {
					c.use(w)
					old := c.leader()
					replicas, err := c.Replicas(c.ctx)
					c.must(err)
					watch := c.WatchWritable(20 * time.Millisecond)
					paused := c.watchPaused()
					l := c.load()
					end := c.holdTransaction(20 * time.Second)
					trouble.do(c, old)
					done := time.Now()
					machine := c.idleGuards(replicas[0])
					_, err = c.WaitLeader(c.ctx, old)
					c.must(err)
					c.eventually(time.Minute, "the old primary has stopped", func() error {
						if old.Writable(c.ctx) {
							return errNotYet
						}
						return nil
					})
					result.machine = machine()
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
						result.late = max(result.late, s.To.Sub(done))
					}
					result.both, result.longest, result.old = report.Overlap, paused(), old
					return result
				}
				without, with := once(noHooks), once(pgbatonWay)
				t.Logf("two writable primaries: %s with pgbaton, %s without hooks; "+
					"the old one took writes for %s after, without hooks %s; longest pause %s", with.both, without.both, with.late,
					without.late, with.longest)
				// When the other one is elected, and when the old one looks, depends on where in its loop each Patroni was. And any hook at all
				// takes as long as one with nothing to do.
				phase := c.Options().LoopWait + time.Second + with.machine
				if with.both > 0 && without.both > 0 && (with.both > without.both+phase || with.late > without.late+phase) {
					t.Errorf("two primaries were writable for %s, without hooks %s; "+
						"the old one went on for %s, without hooks %s: more than the %s of Patroni's loops and of an empty hook", with.both,
						without.both, with.late, without.late, phase)
				}
				if with.both > 0 && without.both == 0 {
					t.Errorf("two primaries were writable for %s, without hooks never", with.both)
				}
				// What of that is ours is what the guard has taken.
				if trouble.last != "" {
					decision, took := c.guardThat(with.old, trouble.last)
					limit := trouble.in + with.machine
					t.Logf("the guard took %s, at the same time one with nothing to do %s: %s", took, with.machine, decision)
					if took > limit {
						t.Errorf(
							"the guard took %s, at most %s is claimed, and one with nothing to do took %s",
							took,
							trouble.in,
							with.machine,
						)
					}
				}
				if with.longest > 15*time.Second+3*time.Second {
					t.Errorf("paused for %s", with.longest)
				}
				c.asBefore()
			})
		})
	}
}

// idleGuards runs a guard that does nothing on a replica, again and again until the returned function is called, which says how long the
// slowest took: what the machine costs a guard at that moment.
func (c *cluster) idleGuards(replica *lab.Member) (slowest func() time.Duration) {
	stop, most := make(chan struct{}), make(chan time.Duration)
	go func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for longest := time.Duration(0); ; {
			if r, err := replica.Exec(c.ctx, nil, "/callbacks/before_stop", "--dry-run"); err == nil {
				longest = max(longest, r.Took)
			}
			select {
			case <-tick.C:
			case <-stop:
				most <- longest
				return
			}
		}
	}()
	return func() time.Duration {
		close(stop)
		return <-most
	}
}

// wait lets a time pass that is part of the case, not of its checks.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
