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
	stalls, result := c.timed(n, what)
	slices.Sort(stalls)
	return stalls, result
}

// beyondFloor is by how much each of the stalls, in the order of the switchovers, is longer than what PostgreSQL and Patroni alone took.
func (c *cluster) beyondFloor(stalls []time.Duration, switchovers []lab.Handover) []time.Duration {
	c.t.Helper()
	var beyond []time.Duration
	for i, h := range switchovers {
		until := time.Now()
		if i+1 < len(switchovers) {
			until = switchovers[i+1].Began
		}
		events, err := c.TimeLine(h.Began, until)
		c.must(err)
		floor, err := lab.SwitchoverFloor(events, h.From.Name, h.To.Name)
		c.must(err)
		beyond = append(beyond, stalls[i]-floor.Total())
	}
	slices.Sort(beyond)
	return beyond
}

// timed is handovers, in the order in which they were done. Where the hooks are pgbaton's, everything is as before after each.
func (c *cluster) timed(n int, what func()) ([]time.Duration, seen) {
	c.t.Helper()
	l := c.load()
	type span struct{ from, to time.Time }
	var spans []span
	for range n {
		from := time.Now()
		what()
		l.flowing(20)
		spans = append(spans, span{from, time.Now()})
		c.logIn()
		c.healthy()
		if c.way == pgbatonWay {
			c.asBefore()
		}
	}
	result := l.stop()
	var stalls []time.Duration
	for _, s := range spans {
		stalls = append(stalls, result.StallBetween(s.from, s.to).Length())
	}
	return stalls, result
}

func median(sorted []time.Duration) time.Duration { return sorted[len(sorted)/2] }

// atMost checks the median and the longest of some stalls, both in medians of others of the same run.
func (c *cluster) atMost(medianLimit, longestLimit float64, what string, stalls []time.Duration, than string, others []time.Duration) {
	c.t.Helper()
	slices.Sort(stalls)
	slices.Sort(others)
	yardstick := float64(median(others))
	middle, longest := float64(median(stalls))/yardstick, float64(stalls[len(stalls)-1])/yardstick
	c.t.Logf("%s: stalls %v, %s %v; median and longest are %.2f (at most %.2f) and %.2f (at most %.2f) of the other median",
		what, stalls, than, others, middle, medianLimit, longest, longestLimit)
	if middle > medianLimit {
		c.t.Errorf("%s: the median stall is %.2f × the median of %s, at most %.2f is claimed", what, middle, than, medianLimit)
	}
	if longest > longestLimit {
		c.t.Errorf("%s: the longest stall is %.2f × the median of %s, at most %.2f is claimed", what, longest, than, longestLimit)
	}
}

// beyondAtMost checks what clients have waited longer than PostgreSQL and Patroni alone took.
func (c *cluster) beyondAtMost(beyond []time.Duration, medianLimit, longestLimit time.Duration) {
	c.t.Helper()
	middle, longest := median(beyond), beyond[len(beyond)-1]
	c.t.Logf("beyond the switchover's own floor: median %s (at most %s), longest %s (at most %s) of %v; a log-in by psql takes %s",
		middle, medianLimit, longest, longestLimit, beyond, c.login())
	if middle > medianLimit || longest > longestLimit {
		c.t.Errorf("beyond the floor: median %s, at most %s is claimed; longest %s, at most %s is claimed", middle, medianLimit, longest,
			longestLimit)
	}
}

// TestSwitchover is the comparison with the runbook; in a full run with Patroni's default times, in a short one with shorter ones: replicas
// come back sooner, a switchover itself does not wait for the loop.
func TestSwitchover(t *testing.T) {
	eachSuite(t, func(t *testing.T, suite string) {
		c := start(t, patroniTimes(lab.Options{Suite: suite}))
		var theirs, ours, off, beyond []time.Duration
		some := func(n int, w way, into *[]time.Duration, settings ...string) {
			c.must(c.configure(settings...))
			c.use(w)
			var switchovers []lab.Handover
			stalls, result := c.timed(n, func() { switchovers = append(switchovers, c.switchover()) })
			if w == pgbatonWay {
				c.noErrors(result)
			}
			if into == &ours {
				beyond = append(beyond, c.beyondFloor(stalls, switchovers)...)
			}
			*into = append(*into, stalls...)
		}
		// In turn, so that a machine that becomes busier meets all of them.
		for range rounds(2, 5) {
			some(3, runbookWay, &theirs)
			some(5, pgbatonWay, &ours)
			some(2, pgbatonWay, &off, "pause: {stop_server: off}")
		}
		c.must(c.configure())
		slices.Sort(beyond)
		slices.Sort(theirs)
		// What is ours is processes that start and log in, and so in proportion to what that takes here and now; the runbook's wait of a second
		// is not.
		runbooks := median(theirs)
		c.beyondAtMost(beyond, max(runbooks/10, 3*c.login()), max(runbooks/5, 6*c.login()))
		c.atMost(1, 1.5, "pgbaton", ours, "the runbook's", theirs)
		c.atMost(1.25, 1.75, "pgbaton with stop_server off", off, "the runbook's", theirs)
	})
}

// patroniTimes are Patroni's defaults in a full run, and in a short one the shortest.
func patroniTimes(o lab.Options) lab.Options {
	if *full {
		return o
	}
	return o.Quick()
}

func TestThreePoolersBehindOneName(t *testing.T) {
	oneSuite(t, "trixie", func(t *testing.T, suite string) {
		c := start(t, lab.Options{Suite: suite, Poolers: 3}.Quick())
		c.use(runbookWay)
		theirs, _ := c.handovers(1, func() { c.switchover() })
		for _, p := range c.Poolers() {
			_, _, _ = p.Admin(c.ctx, "RESUME")
		}
		c.asBefore()
		c.use(pgbatonWay)
		ours, result := c.handovers(rounds(3, 10), func() { c.switchover() })
		c.noErrors(result)
		t.Logf("three poolers: stalls %v; the runbook, which reaches one of them: %v", ours, theirs)
		if worst, limit := ours[len(ours)-1], c.limit(1500*time.Millisecond); worst > limit {
			t.Errorf("stall of %s, at most %s is claimed", worst, limit)
		}
	})
}

// TestRestartWithoutCallback: where Patroni has no on_restart callback (the Zalando operator cannot set it) the worker that the guard has
// started resumes when the server is back.
func TestRestartWithoutCallback(t *testing.T) {
	togetherOn(t, "sid", func(t *testing.T, suite string) {
		c := startQuiet(t, lab.Options{Suite: suite, Patroni: func(_ *lab.Member, config map[string]any) {
			postgresql := config["postgresql"].(map[string]any)
			callbacks := maps.Clone(postgresql["callbacks"].(map[string]any))
			delete(callbacks, "on_restart")
			delete(callbacks, "on_start")
			postgresql["callbacks"] = callbacks
		}}.Quick())
		stalls, result := c.handovers(1, func() { c.must(c.leader().RestartPostgres(c.ctx)) })
		c.noErrors(result)
		t.Logf("restart without a callback for it: stall %v", stalls)
		if limit := min(c.limit(6*time.Second), 25*time.Second); stalls[0] > limit {
			t.Errorf("stall of %s, at most %s is claimed: the lease of 30 s ended it, or nearly", stalls[0], limit)
		}
	})
}

// TestRounds is the order of a rolling restart. The runbook's way stays paused from the second round on.
func TestRounds(t *testing.T) {
	oneSuite(t, "sid", func(t *testing.T, suite string) {
		c := start(t, lab.Options{Suite: suite}.Quick())
		stalls, result := c.handovers(rounds(2, 5), func() {
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
		t.Logf("restart replica, switchover, restart old primary: stalls %v", stalls)
		if worst, limit := stalls[len(stalls)-1], c.limit(1500*time.Millisecond); worst > limit {
			t.Errorf("stall of %s, at most %s is claimed", worst, limit)
		}
	})
}

// TestReplicaEventsPauseNothing: Patroni runs the hooks for these too.
func TestReplicaEventsPauseNothing(t *testing.T) {
	oneSuite(t, "sid", func(t *testing.T, suite string) {
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
		if limit := max(c.limit(400*time.Millisecond), 3*without[0]/2); stalls[0] > limit {
			t.Errorf("stall of %s, at most %s is claimed: without hooks it was %s", stalls[0], limit, without[0])
		}
	})
}
