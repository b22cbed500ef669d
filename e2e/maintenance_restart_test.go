package e2e_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// A round of a rolling restart: what is changed before it, and the order in which the servers then go down, as letters: r is a replica, p is
// the primary at its beginning, ">" a promotion.
type restartRound struct {
	name   string
	change map[string]any
	order  string
}

// restartRounds end with the values that they began with.
var restartRounds = []restartRound{
	{"shared_buffers", map[string]any{"shared_buffers": "72MB"}, "r r p >"},
	{"max_connections is raised", map[string]any{"max_connections": 320}, "r r p >"},
	// A standby keeps what its primary has until the primary has got smaller: the replicas go first and again.
	{
		"one is raised, one lowered",
		map[string]any{"max_connections": 300, "max_worker_processes": 10, "shared_buffers": "64MB"},
		"r r p r r",
	},
	{"lowered", map[string]any{"max_worker_processes": 8}, "p r r"},
}

// shape writes a course as the order of a round.
func shape(course lab.Course, primary string) string {
	words := strings.Fields(course.Order())
	for i, w := range words {
		switch {
		case w == primary:
			words[i] = "p"
		case w[0] == '>':
			words[i] = ">"
		default:
			words[i] = "r"
		}
	}
	return strings.Join(words, " ")
}

// restartRound does one round under the load that runs: it changes the configuration, restarts, and checks everything that can be seen.
func (c *cluster) restartRound(l *load, round restartRound, from *lab.Member, args ...string) (maintained, time.Duration) {
	c.t.Helper()
	c.set(round.change)
	primary := c.leader()
	m := c.maintainNow(from, append([]string{"restart", "--pending"}, args...)...)
	m.ok(c)
	if after := m.report.After; after == nil || after.Writable != "yes" {
		c.t.Errorf("%s: under load the last look does not find the way through the poolers writable: %+v", round.name, after)
	}
	l.flowing(20)
	course := c.courseSince(m.began, time.Now())
	if got := shape(course, primary.Name); got != round.order {
		c.t.Errorf("%s: order %q, want %q: %s", round.name, got, round.order, course.Order())
	}
	times := map[string]int{}
	for _, other := range c.Members() {
		times[other.Name] = strings.Count(round.order, "r") / max(1, len(c.Members())-1)
	}
	times[primary.Name] = 1
	c.oneAtATime(course, times)
	c.runWith(round.change)
	c.healthy()
	c.asBefore()
	return m, time.Since(m.began)
}

// TestRollingRestart restarts all members after each kind of change, under load.
func TestRollingRestart(t *testing.T) {
	oneSuite(t, "trixie", func(t *testing.T, suite string) {
		c := start(t, lab.Options{Suite: suite}.Quick())
		l := c.load()
		began := time.Now()
		for i := range rounds(1, 3) * len(restartRounds) {
			round := restartRounds[i%len(restartRounds)]
			m, took := c.restartRound(l, round, c.Members()[i%3])
			t.Logf("%s: %s from the command to a healthy cluster", round.name, took.Round(100*time.Millisecond))
			c.costsTruly(m)
		}
		result := l.stop()
		c.noErrors(result)
		t.Logf("longest stall of all: %v", result.StallBetween(began, time.Now()))
		// As it was for the next case; the value is Patroni's default.
		c.patch(map[string]any{"postgresql": map[string]any{"parameters": map[string]any{"max_worker_processes": nil}}})
	})
}

// costsTruly compares what a run says that it has cost with what it can have: the steps of replicas nothing, the primary's something.
func (c *cluster) costsTruly(m maintained) {
	c.t.Helper()
	for _, s := range m.report.Steps {
		switch {
		case s.Cost == nil:
			c.t.Errorf("step %d, %s %s: nothing says what it cost", s.Number, s.Kind, s.Member)
		case s.Cost.Errors > 0:
			c.t.Errorf("step %d, %s %s: %d errors are said, and clients saw none", s.Number, s.Kind, s.Member, s.Cost.Errors)
		case s.Kind != "restart" && s.Cost.StallSeconds == 0 && s.Cost.PausedSeconds == 0:
			c.t.Errorf("step %d, %s %s: clients were held, and it is said that it cost nothing", s.Number, s.Kind, s.Member)
		}
	}
}

// TestRollingRestartDefaultTimes is one round with Patroni's default times, and a switchover where the replay of every replica is paused.
func TestRollingRestartDefaultTimes(t *testing.T) {
	inFull(t, func(t *testing.T, suite string) {
		c := startQuiet(t, lab.Options{Suite: suite})
		l := c.load()
		m, took := c.restartRound(l, restartRounds[1], c.leader())
		t.Logf("%s from the command to a healthy cluster", took.Round(100*time.Millisecond))
		c.costsTruly(m)
		c.pausedReplay()
		c.noErrors(l.stop())
	})
}

// TestRollingRestartSynchronous: the synchronous standby is the candidate, and every replica is waited for until the primary counts it again.
func TestRollingRestartSynchronous(t *testing.T) {
	inFull(t, func(t *testing.T, suite string) {
		c := startQuiet(t, lab.Options{Suite: suite, SynchronousMode: true}.Quick())
		l := c.load()
		for _, round := range []restartRound{restartRounds[1], {"lowered", map[string]any{"max_connections": 300}, "p r r"}} {
			c.restartRound(l, round, c.leader())
		}
		c.noErrors(l.stop())
	})
}

// TestRollingRestartOfOne: a cluster of one is restarted where it is, behind the pause.
func TestRollingRestartOfOne(t *testing.T) {
	oneSuite(t, "sid", func(t *testing.T, suite string) {
		c := startQuiet(t, lab.Options{Suite: suite, Members: 1}.Quick())
		l := c.load()
		m, _ := c.restartRound(l, restartRound{"raised", map[string]any{"max_connections": 320}, "p"}, c.leader())
		c.costsTruly(m)
		result := l.stop()
		c.noErrors(result)
		t.Logf("longest stall %v", result.StallBetween(m.began, m.ended))
		// There is nobody to switch over to.
		c.maintainNow(c.leader(), "switchover").refused(c, "no-candidate")
	})
}

// TestSelection: which members a restart is about.
func TestSelection(t *testing.T) {
	oneSuite(t, "trixie", func(t *testing.T, suite string) {
		c := startQuiet(t, lab.Options{Suite: suite}.Quick())
		leader := c.leader()
		replicas, err := c.Replicas(c.ctx)
		c.must(err)
		l := c.load()

		nothing := c.maintainNow(leader, "restart", "--pending")
		nothing.ok(c)
		c.oneAtATime(c.course(nothing), nil)

		one := c.maintainNow(leader, "restart", replicas[0].Name)
		one.ok(c)
		c.oneAtATime(c.course(one), map[string]int{replicas[0].Name: 1})

		r := c.run(replicas[1], "restart", "--rolling", "--dry-run")
		if course := c.courseSince(one.ended, time.Now()); r.ExitCode != 0 || len(course.Restarts) > 0 {
			t.Errorf("--dry-run: exit code %d, %s\n%s", r.ExitCode, course.Order(), r.Stderr)
		}
		for _, m := range c.Members() {
			if !strings.Contains(r.Stdout, m.Name) {
				t.Errorf("--dry-run says nothing of %s:\n%s", m, r.Stdout)
			}
		}

		// Nobody is at the terminal to be asked.
		r = c.run(leader, "restart", "--rolling")
		if course := c.courseSince(one.ended, time.Now()); r.ExitCode != 4 && r.ExitCode != 2 || len(course.Restarts) > 0 ||
			!strings.Contains(r.Stderr, "--yes") {
			t.Errorf("without --yes: exit code %d, %s\n%s", r.ExitCode, course.Order(), r.Stderr)
		}

		kept := c.maintainNow(replicas[1], "restart", "--rolling", "--keep-leader")
		kept.ok(c)
		course := c.course(kept)
		c.oneAtATime(course, c.once())
		if got := shape(course, leader.Name); got != "r r p" {
			t.Errorf("--keep-leader: order %q, want %q", got, "r r p")
		}

		moved := c.maintainNow(leader, "switchover", "--candidate", replicas[1].Name)
		moved.ok(c)
		if now := c.leader(); now != replicas[1] {
			t.Errorf("%s is the leader, %s was asked for", now, replicas[1])
		}
		if got := shape(c.course(moved), leader.Name); got != "p >" {
			t.Errorf("switchover: order %q", got)
		}
		c.noErrors(l.stop())
		t.Logf("candidates passed over: %v", slices.Sorted(maps.Keys(moved.report.Choice.PassedOver)))
	})
}
