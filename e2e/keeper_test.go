package e2e_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// TestWorkerKilled: the worker of the new primary is killed while it waits for the route. The keeper of the old member resumes once the
// route has led to the new primary for some seconds.
func TestWorkerKilled(t *testing.T) {
	oneSuite(t, "trixie", func(t *testing.T, suite string) {
		c := start(t, lab.Options{Suite: suite}.Quick())
		for range rounds(2, 5) {
			const late = 2 * time.Second
			c.Route().SetDelay(late)
			l := c.load()
			old := c.leader()
			began := time.Now()
			go func() { _, _ = c.Switchover(c.ctx, "") }()
			if !c.killPaused(c.others(old), "_work") {
				t.Fatal("there was no worker")
			}
			_, err := c.WaitLeader(c.ctx, old)
			c.must(err)
			result := l.stop()
			stall := result.StallBetween(began, time.Now())
			t.Logf("%d errors, longest stall %v; the route is %s late", len(result.Errors), stall, late)
			c.noErrors(result)
			if stall.Length() > late+5*time.Second {
				t.Errorf("stall of %s: the route was %s late, and 5 s are for the keeper", stall.Length(), late)
			}
			c.Route().SetDelay(0)
			c.healthy()
			c.asBefore()
		}
	})
}

// TestLeaseTakenUp: the keeper of a pause by hand is killed with its container. A callback of that member, or serve, takes the lease up.
func TestLeaseTakenUp(t *testing.T) {
	togetherOn(t, "trixie", func(t *testing.T, suite string) {
		c := startQuiet(t, lab.Options{Suite: suite, Members: 1}.Quick(), serveSection)
		c.must(c.write("tokens", tokenFile))
		m := c.leader()
		run := func(args ...string) lab.ExecResult {
			t.Helper()
			r, err := m.Exec(c.ctx, nil, args...)
			c.must(err)
			return r
		}
		l := c.load()
		for _, taker := range []struct {
			name  string
			lease time.Duration
			late  time.Duration // when the taker comes, after the pause
			start func()
		}{
			{"serve, in time", 6 * time.Second, time.Second, func() { c.serve(m) }},
			{"serve runs on", 5 * time.Second, 0, func() {}},
			{"a callback, overdue", 2 * time.Second, 4 * time.Second, func() {
				run("/callbacks/on_role_change", "on_role_change", "replica", "demo")
			}},
		} {
			if strings.HasPrefix(taker.name, "a callback") {
				s, found := ours(m, "serve")
				if !found {
					t.Fatal("serve does not run")
				}
				c.must(s.Kill(syscall.SIGKILL))
			}
			began := time.Now()
			if r := run("/callbacks/pgbaton", "pause", "--lease", taker.lease.String()); r.ExitCode != 0 {
				t.Fatalf("pause: %s%s", r.Stdout, r.Stderr)
			}
			keeper, found := ours(m, "_keep")
			if !found {
				t.Fatal("there is no keeper")
			}
			c.must(keeper.Kill(syscall.SIGKILL))
			if taker.late > 0 {
				if r := run("/callbacks/pgbaton", "status"); !strings.Contains(r.Stdout, "the pause by hand has lost its keeper") {
					t.Errorf("status does not tell it:\n%s", r.Stdout)
				}
			}
			time.Sleep(time.Until(began.Add(taker.late)))
			if paused, err := c.Paused(c.ctx); err != nil || len(paused) == 0 {
				t.Errorf("%s: not paused any more (%v)", taker.name, err)
			}
			taker.start()
			due := began.Add(max(taker.lease, taker.late))
			c.eventually(time.Until(due)+3*time.Second, taker.name+": resumed", func() error {
				if paused, err := c.Paused(c.ctx); err != nil || len(paused) > 0 {
					return errNotYet
				}
				return nil
			})
			took := time.Since(began)
			t.Logf("%s: lease %s, resumed after %s", taker.name, taker.lease, took.Round(time.Millisecond))
			if took < taker.lease {
				t.Errorf("%s: ended before its time", taker.name)
			}
			c.eventually(5*time.Second, "no keeper is left", func() error {
				if p, found := ours(m, "_keep"); found {
					return fmt.Errorf("%s", p.Cmdline())
				}
				return nil
			})
			l.flowing(20)
		}
		c.noErrors(l.stop())
		c.asBefore()
	})
}
