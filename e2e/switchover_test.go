package e2e_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// handovers does something several times under load and returns the stall of each time, shortest first.
func (c *cluster) handovers(n int, what func()) ([]time.Duration, seen) {
	c.t.Helper()
	l := c.load()
	type span struct{ from, to time.Time }
	var spans []span
	for range n {
		from := time.Now()
		what()
		l.flowing(20)
		spans = append(spans, span{from, time.Now()})
		c.healthy()
	}
	result := l.stop()
	var stalls []time.Duration
	for _, s := range spans {
		stalls = append(stalls, result.StallBetween(s.from, s.to).Length())
	}
	slices.Sort(stalls)
	return stalls, result
}

func sorted(a, b []time.Duration) []time.Duration {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return all
}

func median(sorted []time.Duration) time.Duration { return sorted[len(sorted)/2] }

// atMost checks a ratio of two medians of the same run.
func (c *cluster) atMost(limit float64, what string, ours, theirs []time.Duration) {
	c.t.Helper()
	ratio := float64(median(ours)) / float64(median(theirs))
	c.t.Logf("%s: stalls %v, the runbook's %v; ratio of the medians %.2f (at most %.2f)", what, ours, theirs, ratio, limit)
	if ratio > limit {
		c.t.Errorf("%s: the median stall is %.2f of the runbook's, at most %.2f is claimed", what, ratio, limit)
	}
}

// TestSwitchover is the comparison with the runbook, with Patroni's default times.
func TestSwitchover(t *testing.T) {
	eachSuite(t, func(t *testing.T, suite string) {
		c := start(t, lab.Options{Suite: suite, LoopWait: patroniLoopWait()})
		c.use(runbookWay)
		theirs, _ := c.handovers(5, func() { c.switchover() })

		c.use(pgbatonWay)
		ours, result := c.handovers(10, func() { c.switchover() })
		c.noErrors(result)
		c.asBefore()
		// Some hundredths are within the noise of five: as many again of both, while it is that close.
		again := func(close float64) {
			for more := 0; more < 3 && float64(median(ours)) > close*float64(median(theirs)); more++ {
				c.use(runbookWay)
				theirsToo, _ := c.handovers(5, func() { c.switchover() })
				c.use(pgbatonWay)
				oursToo, result := c.handovers(5, func() { c.switchover() })
				c.noErrors(result)
				ours, theirs = sorted(ours, oursToo), sorted(theirs, theirsToo)
			}
		}
		again(0.42)
		c.atMost(0.45, "pgbaton", ours, theirs)

		c.must(c.configure("pause: {stop_server: off}"))
		ours, result = c.handovers(5, func() { c.switchover() })
		c.noErrors(result)
		c.asBefore()
		again(1.03)
		c.atMost(1.05, "pgbaton with stop_server off", ours, theirs)
	})
}

// patroniLoopWait is Patroni's default in a full run. In a short one replicas come back sooner; a switchover itself does not
// wait for the loop.
func patroniLoopWait() time.Duration {
	if *full {
		return 10 * time.Second
	}
	return 2 * time.Second
}

func TestThreePoolersBehindOneName(t *testing.T) {
	eachSuite(t, func(t *testing.T, suite string) {
		c := start(t, lab.Options{Suite: suite, Poolers: 3}.Quick())
		c.use(runbookWay)
		theirs, _ := c.handovers(1, func() { c.switchover() })
		for _, p := range c.Poolers() {
			_, _, _ = p.Admin(c.ctx, "RESUME")
		}
		c.use(pgbatonWay)
		ours, result := c.handovers(rounds(3, 10), func() { c.switchover() })
		c.noErrors(result)
		c.asBefore()
		t.Logf("three poolers: stalls %v; the runbook, which reaches one of them: %v", ours, theirs)
		if worst := ours[len(ours)-1]; worst > 1500*time.Millisecond {
			t.Errorf("stall of %s", worst)
		}
	})
}

func TestRestartOfThePrimary(t *testing.T) {
	eachSuite(t, func(t *testing.T, suite string) {
		c := start(t, lab.Options{Suite: suite}.Quick())
		restarts := func() []time.Duration {
			stalls, result := c.handovers(5, func() { c.must(c.leader().RestartPostgres(c.ctx)) })
			c.noErrors(result)
			c.asBefore()
			return stalls
		}
		stalls := restarts()
		// Patroni looks once a second whether the server is up, so some have a second of its own; three of five may.
		for more := 0; more < 3 && median(stalls) > 550*time.Millisecond; more++ {
			stalls = sorted(stalls, restarts())
		}
		t.Logf("restart in place: stalls %v", stalls)
		if worst := stalls[len(stalls)-1]; worst > 1600*time.Millisecond {
			t.Errorf("stall of %s, under 1.6 s is claimed", worst)
		}
		if m := median(stalls); m > 600*time.Millisecond {
			t.Errorf("median stall of %s, under 0.6 s is claimed", m)
		}
	})
}

// TestRestartWithoutCallback: where Patroni has no on_restart callback (the Zalando operator cannot set it) the lease keeper sees the
// server come back and starts the worker in the callback's place.
func TestRestartWithoutCallback(t *testing.T) {
	eachSuite(t, func(t *testing.T, suite string) {
		c := start(t, lab.Options{Suite: suite, Patroni: func(_ *lab.Member, config map[string]any) {
			postgresql := config["postgresql"].(map[string]any)
			callbacks := maps.Clone(postgresql["callbacks"].(map[string]any))
			delete(callbacks, "on_restart")
			delete(callbacks, "on_start")
			postgresql["callbacks"] = callbacks
		}}.Quick())
		stalls, result := c.handovers(1, func() { c.must(c.leader().RestartPostgres(c.ctx)) })
		c.noErrors(result)
		c.asBefore()
		t.Logf("restart without a callback for it: stall %v", stalls)
		if stalls[0] > 6*time.Second {
			t.Errorf("stall of %s: the lease of 30 s ended it, or nearly", stalls[0])
		}
	})
}

// TestRounds is the order of a rolling restart. The runbook's way stays paused from the second round on.
func TestRounds(t *testing.T) {
	eachSuite(t, func(t *testing.T, suite string) {
		c := start(t, lab.Options{Suite: suite}.Quick())
		stalls, result := c.handovers(3, func() {
			replicas, err := c.Replicas(c.ctx)
			c.must(err)
			c.must(replicas[0].RestartPostgres(c.ctx))
			c.healthy()
			h, err := c.Switchover(c.ctx, replicas[0].Name)
			c.must(err)
			c.healthy()
			c.must(h.From.RestartPostgres(c.ctx))
		})
		c.noErrors(result)
		c.asBefore()
		t.Logf("restart replica, switchover, restart old primary: stalls %v", stalls)
		if worst := stalls[len(stalls)-1]; worst > 1500*time.Millisecond {
			t.Errorf("stall of %s", worst)
		}
	})
}

// TestReplicaEventsPauseNothing: Patroni runs the hooks for these too.
func TestReplicaEventsPauseNothing(t *testing.T) {
	eachSuite(t, func(t *testing.T, suite string) {
		c := start(t, lab.Options{Suite: suite}.Quick())
		events := func() {
			replicas, err := c.Replicas(c.ctx)
			c.must(err)
			c.must(replicas[0].RestartPostgres(c.ctx))
			c.healthy()
			c.must(replicas[1].Reinit(c.ctx))
			c.healthy()
			for _, m := range c.Members() {
				c.must(m.Reload(c.ctx))
			}
		}
		c.use(noHooks)
		without, _ := c.handovers(1, events)
		c.use(pgbatonWay)
		paused := c.watchPaused()
		stalls, result := c.handovers(1, events)
		c.noErrors(result)
		if longest := paused(); longest > 0 {
			t.Errorf("a pooler was paused for %s", longest)
		}
		c.asBefore()
		t.Logf("replica restart, reinit, reload: longest gap between commits %v, without hooks %v", stalls, without)
		// A base backup shares two cores with the clients.
		if limit := max(400*time.Millisecond, 3*without[0]/2); stalls[0] > limit {
			t.Errorf("stall of %s, at most %s is claimed: without hooks it was %s", stalls[0], limit, without[0])
		}
	})
}
