package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

var errNotYet = errors.New("not yet")

// holdTransaction opens a transaction through the pooler, writes in it and keeps it open for so long. The function that it returns waits
// for its end and reports its error, if it was cut.
func (c *cluster) holdTransaction(length time.Duration) (end func() error) {
	c.t.Helper()
	conn, err := pgconn.Connect(c.ctx, c.Pooler().DSN())
	c.must(err)
	exec := func(ctx context.Context, sql string) error {
		_, err := conn.Exec(ctx, sql).ReadAll()
		return err
	}
	c.must(exec(c.ctx, "create table if not exists held (at timestamptz)"))
	c.must(exec(c.ctx, "begin"))
	c.must(exec(c.ctx, "insert into held values (now())"))
	done := make(chan error, 1)
	go func() {
		defer conn.Close(c.ctx)
		err := exec(c.ctx, fmt.Sprintf("select pg_sleep(%f)", length.Seconds()))
		if err == nil {
			err = exec(c.ctx, "commit")
		}
		done <- err
	}()
	return func() error { return <-done }
}

// TestLongTransaction: one client's 20 s are not everybody's.
func TestLongTransaction(t *testing.T) {
	oneSuite(t, "sid", func(t *testing.T, suite string) {
		c := start(t, patroniTimes(lab.Options{Suite: suite}))
		stalls, result := c.handovers(rounds(1, 3), func() {
			end := c.holdTransaction(20 * time.Second)
			c.switchover()
			t.Logf("the long transaction: %v", end())
		})
		c.noErrors(result)
		t.Logf("a 20 s transaction is open: stalls of the others %v", stalls)
		if worst, limit := stalls[len(stalls)-1], c.limit(3*time.Second); worst > limit {
			t.Errorf("stall of %s, under %s is claimed", worst, limit)
		}
	})
}

// TestContainerStopped: SIGTERM to the container of the primary. Patroni's REST API falls silent and nobody renews the lock.
func TestContainerStopped(t *testing.T) {
	for _, route := range []struct {
		name string
		kind lab.RouteKind
	}{{"service", lab.RouteService}, {"haproxy", lab.RouteHAProxy}} {
		t.Run(route.name, func(t *testing.T) {
			oneSuite(t, "trixie", func(t *testing.T, suite string) {
				c := start(t, lab.Options{Suite: suite, Route: route.kind}.Quick())
				watch := c.WatchWritable(20 * time.Millisecond)
				stalls, result := c.handovers(rounds(2, 5), func() {
					old := c.leader()
					c.must(old.Term(c.ctx))
					_, err := c.WaitLeader(c.ctx, old)
					c.must(err)
					c.must(old.Start())
				})
				report := watch.Stop()
				c.noErrors(result)
				t.Logf("container stopped: stalls %v; %s", stalls, report)
				if report.Overlap > 0 {
					t.Errorf("two writable primaries: %s", report)
				}
				limit := c.limit(1500 * time.Millisecond)
				if route.kind == lab.RouteHAProxy {
					limit += 3 * time.Second
				}
				if worst := stalls[len(stalls)-1]; worst > limit {
					t.Errorf("stall of %s, at most %s is claimed", worst, limit)
				}
			})
		})
	}
}

// TestSlowStop: the server takes long to stop, because of a standby that is far behind or WAL that cannot be archived. Then it takes what
// it takes Patroni alone, and a little.
func TestSlowStop(t *testing.T) {
	togetherOn(t, "sid", func(t *testing.T, suite string) {
		c := startQuiet(t, lab.Options{Suite: suite, Parameters: map[string]string{
			"archive_mode":    "on",
			"archive_command": "test ! -e /tmp/archive-is-stuck",
		}}.Quick())
		// slow makes the leader's stop slow and returns who should follow and how to make it quick again.
		standby := func() (string, func()) {
			replicas, err := c.Replicas(c.ctx)
			c.must(err)
			far := replicas[1]
			receiver, ok := far.FindProcess("walreceiver")
			if !ok {
				t.Fatalf("%s has no walreceiver", far.Name)
			}
			c.must(receiver.Kill(stopSignal))
			return replicas[0].Name, func() { _ = receiver.Kill(continueSignal) }
		}
		archive := func() (string, func()) {
			leader := c.leader()
			replicas, err := c.Replicas(c.ctx)
			c.must(err)
			_, err = leader.Exec(c.ctx, nil, "touch", "/tmp/archive-is-stuck")
			c.must(err)
			return replicas[0].Name, func() { _, _ = leader.Exec(c.ctx, nil, "rm", "-f", "/tmp/archive-is-stuck") }
		}
		for _, why := range []struct {
			name string
			slow func() (string, func())
		}{{"standby far behind", standby}, {"archiving stuck", archive}} {
			name, slow := why.name, why.slow
			c.use(noHooks)
			candidate, quick := slow()
			h, err := c.Switchover(c.ctx, candidate)
			quick()
			c.must(err)
			alone := h.Writable.Sub(h.Began)
			c.healthy()
			c.use(pgbatonWay)
			stalls, result := c.handovers(1, func() {
				candidate, quick := slow()
				_, err := c.Switchover(c.ctx, candidate)
				quick()
				c.must(err)
			})
			c.noErrors(result)
			t.Logf("%s: stall %v, Patroni alone is done after %s", name, stalls, alone)
			if stalls[0] > alone+c.limit(2500*time.Millisecond) {
				t.Errorf("%s: stall of %s, Patroni alone takes %s", name, stalls[0], alone)
			}
		}
	})
}
