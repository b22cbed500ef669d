package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// behind waits until a replica has so many bytes to replay.
func (c *cluster) behind(m *lab.Member, bytes int) {
	c.t.Helper()
	c.eventually(30*time.Second, fmt.Sprintf("%s is %d bytes behind", m, bytes), func() error {
		rows, err := m.SQL(
			c.ctx,
			fmt.Sprintf("select pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) > %d as b", bytes),
		)
		if err == nil && rows[0]["b"] != "t" {
			err = errNotYet
		}
		return err
	})
}

// TestReplayLag: no replica that has much to replay becomes primary. Where there is no other, the command waits for it, restarts the primary
// where it is, or refuses: as it is told. Two of the members replay each commit 4 s later, and so have some hundred kB to replay under load.
func TestReplayLag(t *testing.T) {
	inFull(t, func(t *testing.T, suite string) {
		c := startQuiet(t, lab.Options{Suite: suite, Patroni: func(m *lab.Member, config map[string]any) {
			if m.Name != "m1" {
				config["postgresql"].(map[string]any)["parameters"].(map[string]any)["recovery_min_apply_delay"] = "4s"
			}
		}}.Quick())
		m1 := c.Member("m1")
		if leader := c.leader(); leader != m1 {
			t.Fatalf("%s is the leader of a new cluster, not m1", leader)
		}
		l := c.load()
		limit := "--max-replay-lag=32kB"
		for _, m := range c.others(m1) {
			c.behind(m, 64<<10)
		}
		c.maintainNow(m1, "switchover", limit, "--if-lagging=refuse").refused(c, "replica-lagging")
		c.maintainNow(c.Member("m2"), "restart", "m1", limit, "--if-lagging=refuse").refused(c, "replica-lagging")

		inPlace := c.maintainNow(c.Member("m3"), "restart", "m1", limit, "--if-lagging=in-place")
		inPlace.ok(c)
		if got := c.course(inPlace).Order(); got != "m1" {
			t.Errorf("in-place: order %q, want m1 alone", got)
		}
		c.healthy()
		for _, m := range c.others(m1) {
			c.behind(m, 64<<10)
		}

		// As soon as nobody writes any more they catch up.
		waits := c.maintain(m1, "restart", "m1", limit, "--if-lagging=wait")
		waits.waiting("to replay")
		c.noErrors(l.stop())
		stopped := time.Now()
		waited := waits.end()
		waited.ok(c)
		leader := c.leader()
		course := c.course(waited)
		if got, want := course.Order(), "m1 >"+leader.Name; got != want {
			t.Errorf("wait: order %q, want %q", got, want)
		}
		for _, r := range course.Restarts {
			if r.Down.Before(stopped.Add(-time.Second)) {
				t.Errorf("the switchover was begun at %s, while the candidate was behind", r.Down)
			}
		}

		// One is late and one is not: that is the candidate.
		c.healthy()
		l = c.load()
		late := slices.DeleteFunc(c.others(leader), func(m *lab.Member) bool { return m == m1 })[0]
		c.behind(late, 64<<10)
		planned := c.maintainNow(late, "switchover", limit, "--dry-run")
		if choice := planned.report.Choice; planned.ExitCode != 0 || choice == nil || choice.Candidate != "m1" ||
			!strings.Contains(choice.PassedOver[late.Name], "to replay") {
			t.Errorf("exit code %d, candidate %+v: %s", planned.ExitCode, choice, planned.report.Decision)
		}
		// The old primary replays late from now on, and never as far as the limit: it is back when it streams.
		moved := c.maintainNow(late, "switchover", limit, "--step-timeout=90s")
		moved.ok(c)
		if got, want := c.course(moved).Order(), leader.Name+" >m1"; got != want {
			t.Errorf("order %q, want %q", got, want)
		}
		c.noErrors(l.stop())
	})
}

// keepPaused pauses a replica's replay again and again until the returned function is called: Patroni resumes it at its next loop (4.0 and
// 4.1, PostgreSQL 14 and later).
func (c *cluster) keepPaused(m *lab.Member) (resume func()) {
	c.t.Helper()
	conn, err := pgconn.Connect(c.ctx, m.DSN())
	c.must(err)
	ctx, stop := context.WithCancel(c.ctx)
	ended := make(chan struct{})
	pause := func() error {
		_, err := conn.Exec(c.ctx, "select pg_wal_replay_pause()").ReadAll()
		return err
	}
	c.must(pause())
	go func() {
		defer close(ended)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for pause() == nil { // an error: it is no standby any more
			select {
			case <-ctx.Done():
				_, _ = conn.Exec(c.ctx, "select pg_wal_replay_resume()").ReadAll()
				return
			case <-tick.C:
			}
		}
	}()
	return func() {
		stop()
		<-ended
		_ = conn.Close(c.ctx)
	}
}

// pausedReplay: that a replica has nothing to replay, as it says, does not make it a candidate while its replay is paused.
func (c *cluster) pausedReplay() {
	c.t.Helper()
	leader := c.leader()
	replicas, err := c.Replicas(c.ctx)
	c.must(err)
	resume := map[*lab.Member]func(){}
	for _, m := range replicas {
		resume[m] = c.keepPaused(m)
	}
	c.maintainNow(leader, "switchover", "--if-lagging=refuse").refused(c, "replica-lagging")
	waits := c.maintain(leader, "switchover", "--if-lagging=wait")
	waits.waiting("replay paused")
	resume[replicas[1]]()
	waited := waits.end()
	waited.ok(c)
	if got, want := c.course(waited).Order(), fmt.Sprintf("%s >%s", leader, replicas[1]); got != want {
		c.t.Errorf("replay paused, wait: order %q, want %q", got, want)
	}
	resume[replicas[0]]()
	c.healthy()
}
