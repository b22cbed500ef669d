package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/health"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// guardThat finds the last guard that Patroni ran on a member whose decision says something: all of the decision, and how long it took
// by its own clock.
func (c *cluster) guardThat(m *lab.Member, says string) (decision string, took time.Duration) {
	c.t.Helper()
	output, err := os.ReadFile(m.OutputFile())
	c.must(err)
	ends := regexp.MustCompile(`msg="before_stop ends".* decision="([^"]*)" took=(\S+)`).FindAllStringSubmatch(string(output), -1)
	ends = slices.DeleteFunc(ends, func(end []string) bool { return !strings.Contains(end[1], says) })
	if len(ends) == 0 {
		c.t.Errorf("no guard on %s has said %q:\n%s", m.Name, says, regexp.MustCompile(`(?m)^.*hook=before_stop.*$`).FindAll(output, -1))
		return "", 0
	}
	last := ends[len(ends)-1]
	took, err = time.ParseDuration(last[2])
	c.must(err)
	return last[1], took
}

// run runs pgbaton in a member as a person would.
func (c *cluster) run(m *lab.Member, args ...string) lab.ExecResult {
	c.t.Helper()
	r, err := c.exec(m, append([]string{"/callbacks/pgbaton"}, args...)...)
	c.must(err)
	return r
}

func (c *cluster) exec(m *lab.Member, argv ...string) (lab.ExecResult, error) {
	return m.Exec(c.ctx, nil, argv...)
}

// TestGuardReturnsInTime: where there is nothing to hold the guard does not cost a stop anything, and elsewhere it has an end.
func TestGuardReturnsInTime(t *testing.T) {
	oneSuite(t, "sid", func(t *testing.T, suite string) {
		c := start(t, lab.Options{Suite: suite}.Quick())
		quickest := func(what string, limit time.Duration, run func() time.Duration) {
			t.Helper()
			var took []time.Duration
			for range 21 {
				took = append(took, run())
			}
			slices.Sort(took)
			t.Logf("%s: %v", what, took)
			if median(took) > limit {
				t.Errorf("%s: the median of %v is over %s", what, took, limit)
			}
		}
		replicas, err := c.Replicas(c.ctx)
		c.must(err)
		// What entering the namespaces costs is not the guard's, nor is a start of the program: on some machines that alone takes 40 ms.
		nothing := func(m *lab.Member) time.Duration {
			r, err := c.exec(m, "/callbacks/pgbaton", "version")
			c.must(err)
			return r.Took
		}
		quickest("on a replica", 50*time.Millisecond, func() time.Duration {
			entering := nothing(replicas[0])
			r, err := c.exec(replicas[0], "/callbacks/before_stop")
			c.must(err)
			if r.ExitCode != 0 {
				t.Errorf("exit code %d: %s", r.ExitCode, r.Stderr)
			}
			return max(0, r.Took-entering)
		})

		// By hand, on a primary that nobody stops: refused, nothing touched.
		leader := c.leader()
		r, err := c.exec(leader, "/callbacks/before_stop")
		c.must(err)
		if r.ExitCode != 4 || !strings.Contains(r.Stderr, "Patroni is not stopping the server") {
			t.Errorf("by hand: exit code %d: %s", r.ExitCode, r.Stderr)
		}
		c.asBefore()

		// Patroni frozen, and something to wait for.
		end := c.holdTransaction(12 * time.Second)
		c.must(leader.Freeze())
		r, err = c.exec(leader, "/callbacks/before_stop")
		c.must(leader.Thaw())
		c.must(err)
		t.Logf("Patroni frozen, a transaction open: %s, exit code %d", r.Took, r.ExitCode)
		if limit := 1500*time.Millisecond + 5*time.Second; r.Took > limit || r.ExitCode != 3 {
			t.Errorf("took %s, at most %s is claimed; exit code %d: %s", r.Took, limit, r.ExitCode, r.Stderr)
		}
		if r := c.run(leader, "resume"); r.ExitCode != 0 {
			t.Errorf("resume: %s", r.Stderr)
		}
		if err := end(); err != nil {
			t.Errorf("a guard by hand has stopped the server or cut its clients: %v", err)
		}
		c.healthy()
		c.asBefore()

		// No pooler to be reached.
		c.Pooler().Kill()
		leader = c.leader()
		c.switchover()
		decision, took := c.guardThat(leader, "no pooler can be reached")
		t.Logf("PgBouncer unreachable: %s, %s", took, decision)
		if took > 2500*time.Millisecond {
			t.Errorf("took %s, 2 s are claimed", took)
		}
		c.must(c.Pooler().Start())
		c.healthy()
	})
}

// TestByHand: pause, resume and status in the container.
func TestByHand(t *testing.T) {
	togetherOn(t, "sid", func(t *testing.T, suite string) {
		c := startQuiet(t, lab.Options{Suite: suite, Poolers: 2}.Quick())
		leader := c.leader()
		code := func(want int, r lab.ExecResult, says ...string) {
			t.Helper()
			if r.ExitCode != want {
				t.Errorf("exit code %d, want %d\n%s%s", r.ExitCode, want, r.Stdout, r.Stderr)
			}
			for _, text := range says {
				if !strings.Contains(r.Stdout+r.Stderr, text) {
					t.Errorf("says nothing of %q:\n%s%s", text, r.Stdout, r.Stderr)
				}
			}
			if strings.Contains(r.Stdout+r.Stderr, c.AdminPassword) || strings.Contains(r.Stdout+r.Stderr, c.SuperuserPassword) {
				t.Error("a password is shown")
			}
		}
		paused := func(want int) {
			t.Helper()
			names, err := c.Paused(c.ctx)
			c.must(err)
			if len(names) != want {
				t.Errorf("%d poolers are paused (%v), want %d", len(names), names, want)
			}
		}
		l := c.load()
		status := func() (s health.Status) {
			t.Helper()
			r := c.run(leader, "status", "--output", "json")
			code(0, r)
			c.must(json.Unmarshal([]byte(r.Stdout), &s))
			return s
		}

		code(0, c.run(leader, "pause", "--lease", "20s"))
		paused(2)
		s := status()
		if len(s.Poolers) != 2 || s.Poolers[0].Paused != "yes" || s.Poolers[0].PausedBy != "hand" || s.Member != leader.Name ||
			!s.Patroni.HasLock || s.Server.Role != "primary" || len(s.Leases) != 1 {
			t.Errorf("status while paused: %+v", s)
		}
		code(0, c.run(leader, "status"), leader.Name, "hand")
		code(0, c.run(leader, "resume"))
		paused(0)

		// PgBouncer takes a log-in to a server that PAUSE interrupts for one that has failed, and turns away whoever asks first after
		// RESUME: between a RESUME and the next PAUSE they are waited for.
		l.flowing(10)
		// From another member: what was paused here can be resumed there.
		code(0, c.run(leader, "pause", "--lease", "20s"))
		replicas, err := c.Replicas(c.ctx)
		c.must(err)
		code(0, c.run(replicas[0], "resume"))
		paused(0)
		c.asBefore()

		l.flowing(10)
		// The lease ends it.
		code(0, c.run(leader, "pause", "--lease", "3s"))
		paused(2)
		c.eventually(6*time.Second, "the lease has ended the pause", func() error {
			if names, err := c.Paused(c.ctx); err != nil || len(names) > 0 {
				return fmt.Errorf("paused: %v %v", names, err)
			}
			return nil
		})
		c.asBefore()

		l.flowing(10)
		// Not drained in time: everybody is resumed.
		end := c.holdTransaction(8 * time.Second)
		code(3, c.run(leader, "pause", "--timeout", "4s"), "not drained")
		paused(0)
		c.must(end())
		code(0, c.run(leader, "pause", "--dry-run"), "would pause 2")
		paused(0)

		l.flowing(10)
		// A guard that comes while a person holds the poolers leaves them theirs.
		code(0, c.run(leader, "pause", "--lease", "1m"))
		c.switchover()
		c.healthy()
		paused(2)
		code(0, c.run(leader, "resume"))
		c.asBefore()

		leader = c.leader()
		c.must(c.configure("pause: {budget: 40s}"))
		code(2, c.run(leader, "pause"), "longer than", "ttl")
		code(2, c.run(leader, "status"), "longer than", "ttl")
		paused(0)
		c.noErrors(l.stop())
	})
}
