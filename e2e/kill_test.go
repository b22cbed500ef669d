package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

const (
	stopSignal     = syscall.SIGSTOP
	continueSignal = syscall.SIGCONT
)

// ours finds a pgbaton process of a member by its name or one of its arguments.
func ours(m *lab.Member, word string) (lab.Process, bool) {
	processes, _ := m.Processes()
	for _, p := range processes {
		if len(p.Args) > 0 && strings.HasPrefix(p.Args[0], "/callbacks/") &&
			slices.ContainsFunc(p.Args, func(arg string) bool { return filepath.Base(arg) == word }) {
			return p, true
		}
	}
	return lab.Process{}, false
}

// killPaused waits for a pgbaton process of a member to be there while the pooler is paused, and kills it with SIGKILL. Its name or one of
// its arguments is the word.
func (c *cluster) killPaused(members []*lab.Member, word string) bool {
	return c.killSoon(members, word, true, time.Nanosecond)
}

// killSoon waits for such a process (held: while a pooler is paused), and kills it at some moment from then on.
func (c *cluster) killSoon(members []*lab.Member, word string, held bool, within time.Duration) bool {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		for _, m := range members {
			p, ok := ours(m, word)
			if !ok {
				continue
			}
			if held {
				if paused, err := c.Paused(c.ctx); err != nil || len(paused) == 0 {
					continue
				}
			}
			after := rand.N(within)
			time.Sleep(after)
			if p.Kill(syscall.SIGKILL) == nil {
				c.t.Logf("killed %d on %s, %s after it was seen: %s", p.PID, m.Name, after, p.Cmdline())
				return true
			}
		}
	}
	return false
}

// others are all members but one.
func (c *cluster) others(not *lab.Member) []*lab.Member {
	return slices.DeleteFunc(slices.Clone(c.Members()), func(m *lab.Member) bool { return m == not })
}

// TestKill kills, with SIGKILL, whoever is at it. Whatever is killed, no pooler stays paused longer than the lease, and none for good.
func TestKill(t *testing.T) {
	togetherOn(t, "trixie", func(t *testing.T, suite string) {
		lease := 12 * time.Second
		if *full {
			lease = 30 * time.Second
		}
		c := startQuiet(t, lab.Options{Suite: suite}.Quick(), fmt.Sprintf("pause: {lease: %s}", lease))

		victims := []struct {
			name string
			do   func(old *lab.Member) bool
		}{
			{"guard mid-pause", func(old *lab.Member) bool {
				end := c.holdTransaction(6 * time.Second)
				defer func() { _ = end() }()
				go func() { _, _ = c.Switchover(c.ctx, "") }()
				return c.killPaused([]*lab.Member{old}, "before_stop")
			}},
			{"worker mid-wait", func(old *lab.Member) bool {
				c.Route().SetDelay(3 * time.Second)
				defer c.Route().SetDelay(0)
				go func() { _, _ = c.Switchover(c.ctx, "") }()
				return c.killPaused(c.others(old), "_work")
			}},
			{"keeper", func(old *lab.Member) bool {
				// Paused for as long as it takes to look at all processes.
				c.Route().SetDelay(3 * time.Second)
				defer c.Route().SetDelay(0)
				go func() { _, _ = c.Switchover(c.ctx, "") }()
				return c.killPaused([]*lab.Member{old}, "_keep")
			}},
			{"Patroni after PAUSE", func(old *lab.Member) bool {
				end := c.holdTransaction(6 * time.Second)
				defer func() { _ = end() }()
				go func() { _, _ = c.Switchover(c.ctx, "") }()
				c.eventually(20*time.Second, "paused", func() error {
					if paused, err := c.Paused(c.ctx); err != nil || len(paused) == 0 {
						return errNotYet
					}
					return nil
				})
				// The server dies with its container. What it has acknowledged and no standby has is lost without us as well.
				c.eventually(30*time.Second, "the standbys have all that was acknowledged", func() error {
					rows, err := old.SQL(
						c.ctx,
						`select count(*) from pg_stat_replication where flush_lsn >= pg_current_wal_insert_lsn()
							having count(*) = (select count(*) from pg_stat_replication)`,
					)
					if err == nil && len(rows) == 0 {
						err = errNotYet
					}
					return err
				})
				return old.KillPatroni() == nil
			}},
		}
		const election = 25 * time.Second // ttl 20 s and an election
		for round := range rounds(2*len(victims), 20) {
			victim := victims[round%len(victims)]
			paused := c.watchPaused()
			l := c.load()
			old := c.leader()
			began := time.Now()
			// It is there for a second or two; who looks beside other clusters may come too late, and then the handover is done.
			for try := 1; !victim.do(old); try++ {
				if try == 3 {
					t.Fatalf("round %d: %s was never there to be killed", round, victim.name)
				}
				c.healthy()
				old, began = c.leader(), time.Now()
			}
			if victim.name == "Patroni after PAUSE" {
				c.eventually(10*time.Second, "the container ends with its process 1", func() error {
					if old.Running() {
						return errNotYet
					}
					return nil
				})
				c.must(old.Start())
			}
			_, err := c.WaitLeader(c.ctx, nil)
			c.must(err)
			result := l.stop()
			stall := result.StallBetween(began, time.Now())
			t.Logf(
				"round %d, killed the %s: %d errors %v, longest stall %v",
				round,
				victim.name,
				len(result.Errors),
				result.ErrorTexts(),
				stall,
			)
			if stall.Length() > lease+election {
				t.Errorf("stall of %s: the lease is %s and a failover takes %s", stall.Length(), lease, election)
			}
			// The keeper has ended with the container: there is nobody but the next primary, and before that nobody to write to.
			limit := lease + 3*time.Second
			if victim.name == "Patroni after PAUSE" {
				limit = max(limit, election)
			}
			if longest := paused(); longest > limit {
				t.Errorf("a pooler was paused for %s, the lease is %s, at most %s is claimed", longest, lease, limit)
			} else {
				t.Logf("longest pause %s, lease %s", longest, lease)
			}
			c.healthy()
			c.asBefore()
		}
	})
}
