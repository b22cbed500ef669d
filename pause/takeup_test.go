package pause

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"
)

// killed ends a keeper with kill -9, as with its container.
func (k *keeperProcess) killed() {
	k.t.Helper()
	if err := k.cmd.Process.Kill(); err != nil {
		k.t.Fatal(err)
	}
	<-k.ended
}

// abandonedLease is a pause, made here, whose keeper was killed: the lease's file is left.
func abandonedLease(t *testing.T, m *member.Member, b *single.PgBouncer, owner pgb.Owner, until time.Time) string {
	t.Helper()
	file := filepath.Join(m.Config.StateDir, leaseFile(owner))
	k := runKeeper(t, m, owner, 4)
	k.send(time.Now().Add(time.Minute))
	markAndPause(t, b, owner, 4)
	k.lease.Since = time.Now()
	k.send(until)
	membertest.Eventually(t, "the lease's file", func() bool {
		var l lease
		return state.Read(file, &l) == nil && l.Until.Equal(until)
	})
	if found := Leases(m); len(found) != 1 || found[0].KeeperGone {
		t.Fatalf("%+v, want one with a keeper", found)
	}
	k.killed()
	if found := Leases(m); len(found) != 1 || !found[0].KeeperGone {
		t.Fatalf("%+v, want one without a keeper", found)
	}
	return file
}

// The keeper of a pause by hand dies with its container: whoever comes next takes the lease up, and it ends when it was to.
func TestTakeUp(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		m := membertest.New(t, nil, b)
		until := time.Now().Add(3 * time.Second)
		file := abandonedLease(t, m, b, pgb.Hand, until)
		t.Cleanup(func() { membertest.LetGo(m, b) })
		TakeUp(m)
		if found := Leases(m); len(found) != 1 || found[0].KeeperGone || found[0].Until.Sub(until).Abs() > 50*time.Millisecond {
			t.Fatalf("%+v, want one with a keeper until %s", found, until)
		}
		TakeUp(m) // has a keeper
		if membertest.Usable(t, b, 200*time.Millisecond) {
			t.Error("ended before its time")
		}
		if !membertest.Usable(t, b, time.Until(until)+2*time.Second) {
			t.Error("still paused")
		}
		if early := time.Until(until); early > 50*time.Millisecond {
			t.Errorf("ended %s too early", early)
		}
		membertest.Eventually(t, "the lease's file is gone", func() bool { _, err := os.Stat(file); return err != nil })
		membertest.PutBack(t, b)
		events := map[string]int{}
		entries, err := state.ReadJournal(m.Config.StateDir, 10)
		for _, e := range entries {
			events[e.Event]++
		}
		if err != nil || events[state.EventTakenUp] != 1 || events[state.EventLeaseExpired] != 1 {
			t.Errorf("%+v, %v", entries, err)
		}
	})
}

func TestTakeUpOfOneThatIsOverdue(t *testing.T) {
	t.Parallel()
	b := membertest.StartPooler(t, single.SuiteTrixie, membertest.SharedPostgres(t))
	if !membertest.Usable(t, b, 5*time.Second) {
		t.Fatal("does not work to begin with")
	}
	m := membertest.New(t, nil, b)
	file := abandonedLease(t, m, b, pgb.Guard, time.Now().Add(300*time.Millisecond))
	membertest.Eventually(t, "overdue", func() bool { return time.Since(Leases(m)[0].Until) > 0 })
	if membertest.Usable(t, b, 200*time.Millisecond) {
		t.Error("nobody ended it, and it is over")
	}
	began := time.Now()
	TakeUp(m)
	if !membertest.Usable(t, b, 5*time.Second) {
		t.Error("still paused")
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("ended after %s", took)
	}
	membertest.Eventually(t, "the lease's file is gone", func() bool { _, err := os.Stat(file); return err != nil })
	membertest.PutBack(t, b)
}

// The lease of a pause that others have ended, and that a later pause has followed, ends nothing.
func TestTakeUpLeavesALaterPause(t *testing.T) {
	t.Parallel()
	b := membertest.StartPooler(t, single.SuiteTrixie, membertest.SharedPostgres(t))
	m := membertest.New(t, nil, b)
	file := abandonedLease(t, m, b, pgb.Guard, time.Now().Add(300*time.Millisecond))
	resumeAndUnmark(t, b)
	if !membertest.Usable(t, b, 5*time.Second) {
		t.Fatal("not resumed")
	}
	markAndPause(t, b, pgb.Guard, 5)
	TakeUp(m)
	membertest.Eventually(t, "the lease's file is gone", func() bool { _, err := os.Stat(file); return err != nil })
	if membertest.Usable(t, b, 200*time.Millisecond) {
		t.Error("a later pause was ended")
	}
	if s := membertest.StateOf(t, b); s.Mark == nil || s.Mark.Nonce != 5 {
		t.Errorf("mark %+v", s.Mark)
	}
}

// A guard whose keeper was killed starts another with the same lease. One that has taken the lease up meanwhile leaves it to that.
func TestTakeUpBesideTheGuard(t *testing.T) {
	t.Parallel()
	b := membertest.StartPooler(t, single.SuiteTrixie, membertest.SharedPostgres(t))
	if !membertest.Usable(t, b, 5*time.Second) {
		t.Fatal("does not work to begin with")
	}
	m := membertest.New(t, nil, b)
	file := abandonedLease(t, m, b, pgb.Guard, time.Now().Add(2*time.Second))
	t.Cleanup(func() { membertest.LetGo(m, b) })
	TakeUp(m)
	l, ok := readLease(m, pgb.Guard)
	if !ok {
		t.Fatal("no lease")
	}
	l.Until = time.Time{}
	guards, err := startKeeper(m, false, l)
	if err != nil {
		t.Fatal(err)
	}
	defer guards.leave()
	until := time.Now().Add(6 * time.Second)
	if err := guards.extend(until); err != nil {
		t.Fatal(err)
	}
	if membertest.Usable(t, b, 4*time.Second) {
		t.Error("the keeper that took the lease up has ended the guard's pause")
	}
	if found := Leases(m); len(found) != 1 || found[0].KeeperGone || !found[0].Until.Equal(until) {
		t.Errorf("%+v, want the guard's in %s", found, file)
	}
	if !membertest.Usable(t, b, time.Until(until)+2*time.Second) {
		t.Error("still paused")
	}
}

func TestRemaining(t *testing.T) {
	now := time.Now()
	const usual = 30 * time.Second
	for _, c := range []struct {
		name  string
		lease lease
		want  time.Duration
	}{
		{"half over", lease{Until: now.Add(15 * time.Second), For: 30 * time.Second}, 15 * time.Second},
		{"the clock was set back by an hour", lease{Until: now.Add(time.Hour + 15*time.Second), For: 30 * time.Second}, 30 * time.Second},
		{"over", lease{Until: now, For: 30 * time.Second}, 0},
		{"overdue", lease{Until: now.Add(-resumeInsists), For: 30 * time.Second}, 0},
		{"of long ago", lease{Until: now.Add(-resumeInsists - time.Second), For: 24 * time.Hour}, usual},
	} {
		if got := c.lease.remaining(now, usual); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// What is no lease is left, and nothing is started for it.
func TestTakeUpOfGarbage(t *testing.T) {
	m := membertest.New(t, nil)
	for _, content := range []string{"", "{", `"x"`, `{"owner": 3, "for": 1}`} {
		file := filepath.Join(m.Config.StateDir, leaseFile(pgb.Hand))
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		TakeUp(m)
		if now, err := os.ReadFile(file); err != nil || string(now) != content {
			t.Errorf("%q became %q, %v", content, now, err)
		}
	}
	m.Config.StateDir = ""
	TakeUp(m)
}

// A machine may be so busy that whoever takes a lease up does not wait for the new keeper: that keeps the lease all the same.
func TestTakeUpByASlowKeeper(t *testing.T) {
	t.Parallel()
	b := membertest.StartPooler(t, single.SuiteTrixie, membertest.SharedPostgres(t))
	if !membertest.Usable(t, b, 5*time.Second) {
		t.Fatal("does not work to begin with")
	}
	m := membertest.New(t, nil, b)
	file := abandonedLease(t, m, b, pgb.Hand, time.Now().Add(6*time.Second))
	slow := filepath.Join(t.TempDir(), "slow") // in place of the program in between (process.Detach)
	script := fmt.Sprintf("#!/bin/sh\nshift\nexec 3<&0\n(sleep 2.6; exec %s \"$@\") <&3 3<&- &\n", m.Self[0])
	if err := os.WriteFile(slow, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	m.Self[0] = slow
	TakeUp(m)
	if found := Leases(m); len(found) != 1 || !found[0].KeeperGone {
		t.Errorf("%+v, want one whose new keeper is not there yet", found)
	}
	if !membertest.Usable(t, b, 9*time.Second) {
		t.Error("still paused")
	}
	membertest.Eventually(t, "the lease's file is gone", func() bool { _, err := os.Stat(file); return err != nil })
}

// serve runs on: one lease after the other is taken up.
func TestTakeUpWhile(t *testing.T) {
	t.Parallel()
	b := membertest.StartPooler(t, single.SuiteTrixie, membertest.SharedPostgres(t))
	if !membertest.Usable(t, b, 5*time.Second) {
		t.Fatal("does not work to begin with")
	}
	m := membertest.New(t, nil, b)
	ctx, cancel := context.WithCancel(t.Context())
	var taking sync.WaitGroup
	defer taking.Wait()
	defer cancel()
	for i := range 3 {
		until := time.Now().Add(3 * time.Second)
		file := abandonedLease(t, m, b, pgb.Hand, until)
		if i == 0 {
			taking.Go(func() { TakeUpWhile(ctx, m) })
		}
		if !membertest.Usable(t, b, time.Until(until)+2*time.Second) {
			t.Fatalf("lease %d: still paused", i)
		}
		membertest.Eventually(t, "the lease's file is gone", func() bool { _, err := os.Stat(file); return err != nil })
	}
}
