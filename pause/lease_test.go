package pause

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
)

// stateless is a member without a state directory, where /run and /tmp are not for us.
func stateless(t *testing.T, b *single.PgBouncer) *member.Member {
	t.Helper()
	m := membertest.New(t, nil, b)
	m.Config.StateDir = ""
	membertest.Tell(t, m)
	return m
}

// A pause by hand ends with its lease, and with resume, also without a state directory.
func TestByHandWithoutAStateDirectory(t *testing.T) {
	t.Parallel()
	onEverySuite(t, func(t *testing.T, b *single.PgBouncer) {
		m := stateless(t, b)
		membertest.NewPatroni(t, m, "running")
		const length = 2 * time.Second
		began := time.Now()
		if r := Pause(t.Context(), m, Options{Lease: length}); r.Code != member.Done {
			t.Fatalf("%+v", r)
		}
		if membertest.Usable(t, b, 200*time.Millisecond) {
			t.Error("not paused")
		}
		if !membertest.Usable(t, b, length+3*time.Second) {
			t.Fatal("its lease does not end it")
		}
		if took := time.Since(began); took < length {
			t.Errorf("ended after %s", took)
		}
		membertest.PutBack(t, b)
		if r := Pause(t.Context(), m, Options{Lease: time.Minute}); r.Code != member.Done {
			t.Fatalf("%+v", r)
		}
		if r := Resume(t.Context(), m); r.Code != member.Done {
			t.Errorf("%+v", r)
		}
		if !membertest.Usable(t, b, 5*time.Second) {
			t.Error("resume does not end it")
		}
		membertest.PutBack(t, b)
		for _, r := range []Report{Pause(t.Context(), m, Options{Lease: length}), Resume(t.Context(), m)} {
			if r.Code != member.Done {
				t.Errorf("%+v", r)
			}
		}
		// Its keeper has seen it, and a later pause stands.
		markAndPause(t, b, pgb.Guard, 0)
		if membertest.Usable(t, b, length+time.Second) {
			t.Error("the keeper of an earlier pause has ended a later one")
		}
		resumeAndUnmark(t, b)
	})
}

// The pauser is killed, or its keeper: the lease ends the pause also without a state directory.
func TestFleetWithoutAStateDirectory(t *testing.T) {
	t.Parallel()
	b := membertest.StartPooler(t, single.SuiteTrixie, membertest.SharedPostgres(t))
	if !membertest.Usable(t, b, 5*time.Second) {
		t.Fatal("does not work to begin with")
	}
	m := stateless(t, b)
	m.Config.Pause.Lease = 2 * time.Second
	f := attached(t, m)
	killed := f.keeper.process.PID
	if err := unix.Kill(killed, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	membertest.Eventually(t, "the keeper has gone", func() bool { return unix.Kill(killed, 0) != nil })
	if err := f.tryFor(t, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if f.keeper.process.PID == killed {
		t.Error("no other keeper")
	}
	f.Leave() // as a guard that is killed
	if membertest.Usable(t, b, 200*time.Millisecond) {
		t.Error("not paused")
	}
	if !membertest.Usable(t, b, 5*time.Second) {
		t.Error("its lease does not end it")
	}
	// The keeper does that right after RESUME.
	membertest.Eventually(t, "the settings are put back", func() bool { return membertest.StateOf(t, b).Mark == nil })
	membertest.PutBack(t, b)
	if found := Leases(m); found != nil {
		t.Errorf("%+v", found)
	}
}

// The lease of a pause by hand is on the disk when it is paused: whoever kills the keeper then does not make the pause last for ever.
func TestLeaseIsKeptBeforeThePause(t *testing.T) {
	t.Parallel()
	b := membertest.StartPooler(t, single.SuiteTrixie, membertest.SharedPostgres(t))
	if !membertest.Usable(t, b, 5*time.Second) {
		t.Fatal("does not work to begin with")
	}
	m := membertest.New(t, nil, b)
	membertest.NewPatroni(t, m, "running")
	for range 5 {
		if r := Pause(t.Context(), m, Options{Lease: time.Minute}); r.Code != member.Done {
			t.Fatalf("%+v", r)
		}
		if found := Leases(m); len(found) != 1 {
			t.Errorf("%+v, want one", found)
		}
		if r := Resume(t.Context(), m); r.Code != member.Done {
			t.Fatalf("%+v", r)
		}
	}
}
