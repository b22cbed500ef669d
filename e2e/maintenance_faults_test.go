package e2e_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/e2e/lab"
)

// TestMaintenanceRefused: what is refused touches nothing.
func TestMaintenanceRefused(t *testing.T) {
	oneSuite(t, "trixie", func(t *testing.T, suite string) {
		c := startQuiet(t, lab.Options{Suite: suite}.Quick())
		leader := c.leader()
		replicas, err := c.Replicas(c.ctx)
		c.must(err)

		c.patch(map[string]any{"pause": true})
		c.maintainNow(leader, "restart", "--rolling").refused(c, "maintenance-mode")
		c.maintainNow(replicas[0], "switchover").refused(c, "maintenance-mode")
		c.patch(map[string]any{"pause": nil})

		c.maintainNow(leader, "switchover", "--candidate", "m9").refused(c, "unknown-member")
		is := c.maintainNow(leader, "switchover", "--candidate", leader.Name)
		is.ok(c)
		c.oneAtATime(c.course(is), nil)

		// The candidate dies before the switchover.
		replicas[0].Kill()
		c.maintainNow(leader, "switchover", "--candidate", replicas[0].Name).refused(c, "candidate-unfit")
		c.must(replicas[0].Start())
		c.healthy()

		// Two at once, from two members: one of them works.
		c.bothAtOnce(replicas[0], replicas[1])
	})
}

// bothAtOnce starts a rolling restart on two members at the same time: exactly one goes to work.
func (c *cluster) bothAtOnce(members ...*lab.Member) {
	c.t.Helper()
	began := time.Now()
	runs := make([]*maintenance, len(members))
	var starting sync.WaitGroup
	for i, m := range members {
		starting.Add(1)
		go func() {
			defer starting.Done()
			running, err := m.StartExec(c.ctx, nil, "/callbacks/pgbaton", "restart", "--rolling", "--yes", "--output", "json")
			if err == nil {
				runs[i] = &maintenance{Running: running, c: c, member: m, began: began}
			}
		}()
	}
	starting.Wait()
	var worked int
	for i, r := range runs {
		if r == nil {
			c.t.Fatalf("on %s it could not be started", members[i])
		}
		switch m := r.end(); m.ExitCode {
		case 0:
			worked++
			m.ok(c)
		case 4:
			other := members[1-i].Name
			if !strings.Contains(m.report.Decision, other) {
				c.t.Errorf("%s was refused, and nothing says that %s is at work: %s", members[i], other, m.report.Decision)
			}
		default:
			c.t.Errorf("%s: exit code %d, want 0 or 4: %s", members[i], m.ExitCode, m.report.Decision)
		}
	}
	if worked != 1 {
		c.t.Errorf("%d of two runs at once have worked", worked)
	}
	c.oneAtATime(c.courseSince(began, time.Now()), c.once())
	c.healthy()
	c.asBefore()
}

// TestMaintenanceKilled kills the command with SIGKILL at each step, and resumes the run: nothing is done twice, nothing is left out, and
// nobody else may begin in between.
func TestMaintenanceKilled(t *testing.T) {
	inFull(t, func(t *testing.T, suite string) {
		c := startQuiet(t, lab.Options{Suite: suite}.Quick(), "pause: {lease: 12s}")
		l := c.load()
		paused := c.watchPaused()
		for _, at := range []struct {
			name string
			kill func(r *maintenance)
		}{
			{"as the first replica's restart begins", func(r *maintenance) { r.step("restart", 1, api.StepRunning) }},
			{"when the first replica's restart is done", func(r *maintenance) { r.step("restart", 1, api.StepDone) }},
			{"as the switchover begins", func(r *maintenance) { r.step("switchover", 1, api.StepRunning) }},
			{"while the poolers are paused", func(r *maintenance) {
				r.step("switchover", 1, api.StepRunning)
				c.eventually(time.Minute, "paused", func() error {
					if names, err := c.Paused(c.ctx); err != nil || len(names) == 0 {
						return errNotYet
					}
					return nil
				})
			}},
		} {
			from := c.Members()[0]
			old := c.leader()
			r := c.maintain(from, "restart", "--rolling")
			at.kill(r)
			killed := r.kill()
			if killed.ExitCode == 0 {
				t.Errorf("killed %s, it ended before: %s", at.name, killed.Stdout)
				continue
			}
			if at.name == "when the first replica's restart is done" {
				second := c.maintainNow(c.others(from)[0], "restart", "--rolling")
				if second.ExitCode != 4 || !strings.Contains(second.report.Decision, from.Name) {
					t.Errorf("a second run while the first is neither ended nor resumed: exit code %d: %s", second.ExitCode,
						second.report.Decision)
				}
			}
			resumed := c.maintainNow(from, "restart", "--resume")
			resumed.began = killed.began
			resumed.ok(c)
			c.healthy()
			course := c.courseSince(killed.began, time.Now())
			c.oneAtATime(course, c.once())
			if got := shape(course, old.Name); got != "r r p >" {
				t.Errorf("killed %s: order %q", at.name, course.Order())
			}
			c.asBefore()
			t.Logf("killed %s: %s", at.name, course.Order())
		}
		c.noErrors(l.stop())
		if longest := paused(); longest > 15*time.Second {
			t.Errorf("a pooler was paused for %s", longest)
		}
		// There is nothing left to go on with.
		left := c.maintainNow(c.Members()[0], "restart", "--resume")
		if course := c.course(left); left.ExitCode == 1 || len(course.Restarts) > 0 {
			t.Errorf("resumed once more: exit code %d: %s: %s", left.ExitCode, left.report.Decision, course.Order())
		}
	})
}

// TestMaintenanceMemberDies: members die while a run is at them. The run ends and says what stands; what it did not begin it leaves alone.
func TestMaintenanceMemberDies(t *testing.T) {
	inFull(t, func(t *testing.T, suite string) {
		c := startQuiet(t, lab.Options{Suite: suite}.Quick(), "pause: {lease: 12s}")
		mended := func(m *lab.Member) {
			if !m.Running() {
				c.must(m.Start())
			}
			c.healthy()
			c.asBefore()
		}
		// A replica does not come back.
		leader := c.leader()
		r := c.maintain(leader, "restart", "--rolling", "--step-timeout=20s")
		victim := c.Member(r.step("restart", 1, api.StepRunning).Member)
		c.eventually(20*time.Second, "it goes down", func() error {
			for _, down := range c.courseSince(r.began, time.Now()).Restarts {
				if down.Member == victim.Name {
					return nil
				}
			}
			return errNotYet
		})
		victim.Kill()
		lost := r.end()
		c.truth(lost)
		if lost.ExitCode == 0 || !strings.Contains(lost.report.Decision, victim.Name) {
			t.Errorf("%s did not come back: exit code %d: %s", victim, lost.ExitCode, lost.report.Decision)
		}
		for _, down := range c.course(lost).Restarts {
			if down.Member != victim.Name {
				t.Errorf("%s did not come back, and then %s was restarted", victim, down.Member)
			}
		}
		mended(victim)

		// The candidate dies while the old primary waits for a transaction, with the switchover under way.
		leader = c.leader()
		end := c.holdTransaction(4 * time.Second)
		r = c.maintain(leader, "switchover", "--step-timeout=30s")
		victim = c.Member(r.step("switchover", 1, api.StepRunning).Candidate)
		c.eventually(20*time.Second, "the guard is at work", func() error {
			if _, ok := ours(leader, "before_stop"); !ok {
				return errNotYet
			}
			return nil
		})
		victim.Kill()
		_ = end()
		died := r.end()
		c.truth(died)
		if died.ExitCode == 0 || !strings.Contains(died.report.Decision, victim.Name) {
			t.Errorf("the candidate %s died: exit code %d: %s", victim, died.ExitCode, died.report.Decision)
		}
		mended(victim)

		// The new primary dies as soon as it is one.
		leader = c.leader()
		r = c.maintain(leader, "switchover", "--step-timeout=30s")
		victim = c.Member(r.step("switchover", 1, api.StepRunning).Candidate)
		c.eventually(20*time.Second, "it is promoted", func() error {
			if len(c.courseSince(r.began, time.Now()).Promotions) == 0 {
				return errNotYet
			}
			return nil
		})
		victim.Kill()
		died = r.end()
		now, err := c.WaitLeader(c.ctx, victim)
		c.must(err)
		t.Logf("the new primary %s died, %s is it now", victim, now)
		if died.ExitCode == 0 {
			t.Errorf("the new primary %s died: exit code 0: %s", victim, died.report.Decision)
		}
		if after := died.report.After; after != nil && after.OK {
			t.Errorf("the new primary %s died: %+v", victim, after)
		}
		// It may have died before anybody had its timeline's history. Then the next primary has given its own timeline the same number, and
		// Patroni sees no need for pg_rewind (4.0.7): the one that died is copied anew, as an operator would do it.
		c.must(victim.Start())
		c.eventually(time.Minute, "Patroni is there again", func() error { return victim.Reinit(c.ctx) })
		mended(victim)
	})
}

// TestMaintenanceWithoutDCS: the DCS is away for 20 s while a replica is restarted. With failsafe mode off Patroni then stops the primary
// when it cannot renew its lock; what it is about here is that no two are at work, that no pooler stays paused, and what is said.
func TestMaintenanceWithoutDCS(t *testing.T) {
	inFull(t, func(t *testing.T, suite string) {
		c := startQuiet(t, lab.Options{Suite: suite}.Quick(), "pause: {lease: 12s}")
		leader := c.leader()
		watch := c.WatchWritable(20 * time.Millisecond)
		r := c.maintain(leader, "restart", "--rolling")
		r.step("restart", 1, api.StepRunning)
		for _, m := range c.Members() {
			m.CutDCS()
		}
		wait(c.ctx, 20*time.Second)
		for _, m := range c.Members() {
			m.HealDCS()
		}
		m := r.end()
		c.healthy()
		c.truth(m)
		if report := watch.Stop(); report.Overlap > 0 {
			t.Errorf("%s", report)
		}
		c.asBefore()
		course := c.courseSince(m.began, time.Now())
		t.Logf("exit code %d, %s", m.ExitCode, course.Order())
		if m.ExitCode == 0 {
			for _, member := range c.Members() {
				if !slices.ContainsFunc(course.Restarts, func(r lab.Restart) bool { return r.Member == member.Name }) {
					t.Errorf("exit code 0, and %s was not restarted: %s", member, course.Order())
				}
			}
			return
		}
		// What is left can be done.
		again := c.maintainNow(leader, "restart", "--resume")
		again.ok(c)
		c.healthy()
	})
}
