package pause

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"
)

func TestLeaseOver(t *testing.T) {
	mark := func(owner pgb.Owner, nonce int) *pgb.Mark {
		return &pgb.Mark{Original: membertest.DefaultRetry, Owner: owner, Nonce: nonce}
	}
	known := func(paused bool, m *pgb.Mark) pgb.State { return pgb.State{PausedKnown: true, Paused: paused, Mark: m} }
	for _, c := range []struct {
		name  string
		state pgb.State
		want  bool
	}{
		{"ours stands", known(true, mark(pgb.Guard, 4)), false},
		{"ours, resumed in psql, the setting is still to be put back", known(false, mark(pgb.Guard, 4)), false},
		{"another's inside which ours went", known(true, mark(pgb.Foreign, 4)), false},
		{"another's, of a later guard", known(true, mark(pgb.Foreign, 5)), true},
		{"a later one of the guard", known(true, mark(pgb.Guard, 5)), true},
		{"a person's, same nonce", known(true, mark(pgb.Hand, 4)), true},
		{"a person's", known(true, mark(pgb.Hand, 7)), true},
		{"resumed and put back", known(false, nil), true},
		{"ours, after a RELOAD", known(true, nil), false},
		{"1.18: ours stands", pgb.State{Mark: mark(pgb.Guard, 4)}, false},
		{"1.18: clients wait and nothing serves them", pgb.State{Waiting: 3, MaxWait: time.Second}, false},
		{"1.18: served", pgb.State{Waiting: 3, MaxWait: time.Millisecond, Servers: 1}, true},
	} {
		if got := leaseOver(c.state, pgb.Guard, 4); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// Pauses and resumes of several owners, one after the other: a pooler carries one mark at a time, and only the keeper of
// that pause may say that it stands.
func TestLeaseOfAnotherPause(t *testing.T) {
	type pause struct {
		owner pgb.Owner
		nonce int
	}
	rapid.Check(t, func(t *rapid.T) {
		var state pgb.State
		state.PausedKnown = rapid.Bool().Draw(t, "known")
		var made []pause
		var standing pause // zero: none
		t.Repeat(map[string]func(*rapid.T){
			"pause": func(t *rapid.T) {
				p := pause{rapid.SampledFrom([]pgb.Owner{pgb.Guard, pgb.Hand}).Draw(t, "owner"), rapid.IntRange(0, 9).Draw(t, "nonce")}
				state.Servers = 0
				state.Paused, state.Mark = true, &pgb.Mark{Original: membertest.DefaultRetry, Owner: p.owner, Nonce: p.nonce}
				made, standing = append(made, p), p
			},
			"resume":        func(*rapid.T) { state.Paused, state.Mark, state.Servers, standing = false, nil, 1, pause{} },
			"half a resume": func(*rapid.T) { state.Paused = false },
			"": func(t *rapid.T) {
				for _, p := range made {
					over := leaseOver(state, p.owner, p.nonce)
					if p == standing && over {
						t.Fatalf("%+v stands and its keeper leaves", p)
					}
					if p != standing && !over {
						t.Fatalf("%+v is over and its keeper would end %+v", p, standing)
					}
				}
			},
		})
	})
}

// keeperProcess is a keeper under test, as a process of its own: it ignores signals.
type keeperProcess struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lease lease
	ended chan struct{}
}

// runKeeper starts one and blocks until it is ready.
func runKeeper(t *testing.T, m *member.Member, owner pgb.Owner, nonce int) *keeperProcess {
	t.Helper()
	return runKeeperOf(t, m, lease{Owner: owner, Nonce: nonce, Book: member.AddressBook{}})
}

func runKeeperOf(t *testing.T, m *member.Member, l lease) *keeperProcess {
	t.Helper()
	l.ID, l.Since = state.NewID(), time.Now()
	k := &keeperProcess{t: t, lease: l, ended: make(chan struct{})}
	k.cmd = exec.Command(m.Self[0], append(append([]string{}, m.Self[1:]...), "_keep")...)
	k.cmd.Stderr = t.Output()
	var err error
	if k.stdin, err = k.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := k.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := k.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	k.send(time.Time{})
	var pid int
	if _, err := fmt.Fscanf(out, "ready %d\n", &pid); err != nil || pid != k.cmd.Process.Pid {
		t.Fatalf("ready as process %d, %v", pid, err)
	}
	go func() {
		_ = k.cmd.Wait()
		close(k.ended)
	}()
	t.Cleanup(func() {
		_ = k.cmd.Process.Kill()
		<-k.ended
	})
	return k
}

func (k *keeperProcess) send(until time.Time) {
	k.t.Helper()
	k.lease.Until, k.lease.For = until, time.Until(until)
	if err := json.NewEncoder(k.stdin).Encode(k.lease); err != nil {
		k.t.Fatal(err)
	}
}

// orphan is the pauser's end: the keeper is on its own.
func (k *keeperProcess) orphan() { _ = k.stdin.Close() }

func (k *keeperProcess) endsWithin(limit time.Duration) {
	k.t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-k.ended:
	case <-timer.C:
		k.t.Fatalf("the keeper is still there after %s", limit)
	}
}

func (k *keeperProcess) runs() bool {
	select {
	case <-k.ended:
		return false
	default:
		return true
	}
}

// markAndPause does what a pauser does.
func markAndPause(t *testing.T, b *single.PgBouncer, owner pgb.Owner, nonce int) {
	t.Helper()
	poolers, errs := pgb.Resolve(t.Context(), []pgb.Spec{{DSN: b.AdminDSN()}}, nil)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	defer member.CloseAll(poolers)
	if _, put, err := poolers[0].Mark(t.Context(), owner, nonce); err != nil || !put {
		t.Fatal(put, err)
	}
	if _, err := poolers[0].Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func resumeAndUnmark(t *testing.T, b *single.PgBouncer) {
	t.Helper()
	poolers, errs := pgb.Resolve(t.Context(), []pgb.Spec{{DSN: b.AdminDSN()}}, nil)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	defer member.CloseAll(poolers)
	if _, err := poolers[0].ResumeEverything(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := poolers[0].Unmark(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// onEverySuite runs a test with a pooler of each version in front of the shared server.
func onEverySuite(t *testing.T, test func(*testing.T, *single.PgBouncer)) {
	pg := membertest.SharedPostgres(t)
	for _, suite := range membertest.Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel() // they wait more than they work
			b := membertest.StartPooler(t, suite, pg)
			if !membertest.Usable(t, b, 5*time.Second) {
				t.Fatal("does not work to begin with")
			}
			test(t, b)
		})
	}
}

func TestKeeperEndsAPause(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		m := membertest.New(t, nil, b)
		k := runKeeper(t, m, pgb.Guard, 4)
		k.send(time.Now().Add(time.Minute))
		markAndPause(t, b, pgb.Guard, 4)
		file := filepath.Join(m.Config.StateDir, leaseFile(pgb.Guard))
		membertest.Eventually(t, "the lease's file", func() bool { _, err := os.Stat(file); return err == nil })
		for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
			if err := k.cmd.Process.Signal(s); err != nil {
				t.Error(err)
			}
		}
		began := time.Now()
		k.send(began.Add(time.Second))
		k.orphan()
		if !membertest.Usable(t, b, 5*time.Second) {
			t.Error("still paused")
		}
		if took := time.Since(began); took < 950*time.Millisecond {
			t.Errorf("resumed after %s: before the lease was over", took)
		}
		k.endsWithin(5 * time.Second)
		membertest.PutBack(t, b)
		if _, err := os.Stat(file); err == nil {
			t.Error("the lease's file is left")
		}
		entries, err := state.ReadJournal(m.Config.StateDir, 10)
		if err != nil || len(entries) != 1 || entries[0].Event != state.EventLeaseExpired {
			t.Errorf("journal: %+v, %v", entries, err)
		}
	})
}

func TestKeeperOfNothing(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		m := membertest.New(t, nil, b)
		membertest.Admin(t, b, "PAUSE") // somebody's
		k := runKeeper(t, m, pgb.Guard, 4)
		k.send(time.Now().Add(time.Minute))
		k.send(time.Time{}) // taken back
		k.orphan()
		k.endsWithin(5 * time.Second)
		if membertest.Usable(t, b, 200*time.Millisecond) {
			t.Error("resumed somebody's pause")
		}
	})
}

func TestKeeperLeavesWhenOthersResume(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		m := membertest.New(t, nil, b)
		k := runKeeper(t, m, pgb.Guard, 4)
		k.send(time.Now().Add(20 * time.Second))
		markAndPause(t, b, pgb.Guard, 4)
		k.orphan()
		resumeAndUnmark(t, b)
		if !membertest.Usable(t, b, 5*time.Second) {
			t.Fatal("not resumed")
		}
		k.endsWithin(5 * time.Second)
		membertest.PutBack(t, b)
		// Who resumed may have a journal on another machine.
		entries, err := state.ReadJournal(m.Config.StateDir, 10)
		if err != nil || len(entries) != 1 {
			t.Fatalf("journal: %+v, %v", entries, err)
		}
		if e := entries[0]; e.Event != state.EventPauseOver || e.Handover != k.lease.ID || e.Took <= 0 {
			t.Errorf("journal: %+v", e)
		}
	})
}

func TestKeeperLeavesALaterPause(t *testing.T) {
	t.Parallel()
	for _, later := range []pgb.Mark{{Owner: pgb.Guard, Nonce: 5}, {Owner: pgb.Hand, Nonce: 4}} {
		t.Run(later.Owner.String(), func(t *testing.T) {
			t.Parallel()
			onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
				k := runKeeper(t, membertest.New(t, nil, b), pgb.Guard, 4)
				markAndPause(t, b, pgb.Guard, 4)
				resumeAndUnmark(t, b)
				markAndPause(t, b, later.Owner, later.Nonce)
				k.send(time.Now().Add(time.Second))
				k.orphan()
				k.endsWithin(5 * time.Second)
				if membertest.Usable(t, b, 200*time.Millisecond) {
					t.Error("a later pause was ended")
				}
				if s := membertest.StateOf(t, b); s.Mark == nil || s.Mark.Owner != later.Owner || s.Mark.Nonce != later.Nonce {
					t.Errorf("mark %+v", s.Mark)
				}
			})
		})
	}
}

// RELOAD puts the file's settings back, and the mark is gone. The pause is ours all the same, whether clients wait for it or not.
func TestKeeperAfterReload(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		k := runKeeper(t, membertest.New(t, nil, b), pgb.Guard, 4)
		markAndPause(t, b, pgb.Guard, 4)
		membertest.Admin(t, b, "RELOAD")
		membertest.Eventually(t, "the mark is gone", func() bool { return membertest.StateOf(t, b).Mark == nil })
		k.send(time.Now().Add(1500 * time.Millisecond))
		k.orphan()
		k.endsWithin(5 * time.Second)
		if !membertest.Usable(t, b, 5*time.Second) {
			t.Error("paused for ever")
		}
	})
}

func TestKeeperAfterFreeze(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		k := runKeeper(t, membertest.New(t, nil, b), pgb.Guard, 4)
		markAndPause(t, b, pgb.Guard, 4)
		if err := b.Freeze(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = b.Thaw() }()
		k.send(time.Now().Add(100 * time.Millisecond))
		k.orphan()
		// One question that is not answered; then thaw.
		member.Sleep(t.Context(), 300*time.Millisecond)
		if !k.runs() {
			t.Fatal("the keeper has given up")
		}
		if err := b.Thaw(); err != nil {
			t.Fatal(err)
		}
		if !membertest.Usable(t, b, 5*time.Second) {
			t.Error("still paused")
		}
		k.endsWithin(5 * time.Second)
		membertest.PutBack(t, b)
	})
}

// The pooler was paused by somebody else before we came: at the end of the lease the setting is put back and nothing else.
func TestKeeperOfAForeignPause(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		k := runKeeper(t, membertest.New(t, nil, b), pgb.Guard, 4)
		markAndPause(t, b, pgb.Foreign, 4)
		k.send(time.Now().Add(time.Second))
		k.orphan()
		k.endsWithin(5 * time.Second)
		membertest.PutBack(t, b)
		if membertest.Usable(t, b, 200*time.Millisecond) {
			t.Error("a foreign pause was ended")
		}
	})
}

// A pauser that is at it pushes the end of the lease on.
func TestKeeperFollowsThePauser(t *testing.T) {
	t.Parallel()
	b := membertest.StartPooler(t, single.SuiteTrixie, membertest.SharedPostgres(t))
	k := runKeeper(t, membertest.New(t, nil, b), pgb.Hand, 1)
	markAndPause(t, b, pgb.Hand, 1)
	began := time.Now()
	k.send(began.Add(500 * time.Millisecond))
	k.send(began.Add(1500 * time.Millisecond))
	if !membertest.Usable(t, b, 10*time.Second) {
		t.Error("still paused")
	}
	if took := time.Since(began); took < 1450*time.Millisecond {
		t.Errorf("resumed after %s", took)
	}
	k.endsWithin(5 * time.Second)
}
