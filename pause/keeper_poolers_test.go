package pause

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
)

const (
	movingName = "pooler.pgbaton.test"
	nobody     = "127.255.255.9" // an address at which nobody listens
)

// withHosts has the keeper of a member see a hosts file of its own. The name in it can be led elsewhere while the keeper runs.
func withHosts(t *testing.T, m *member.Member, address string) (lead func(address string)) {
	t.Helper()
	hosts := filepath.Join(t.TempDir(), "hosts")
	lead = func(address string) {
		t.Helper()
		if err := os.WriteFile(hosts, []byte(address+" "+movingName+"\n"), 0o644); err != nil { // in place: it is mounted
			t.Fatal(err)
		}
	}
	lead(address)
	m.Self = append([]string{"unshare", "--mount", "--propagation", "private", "--",
		"sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, hosts}, m.Self...)
	return lead
}

// A pooler that has moved since the pause was made is resumed at its new address, and the process that is gone from the old one is not
// waited for.
func TestKeeperFindsAPoolerThatHasMoved(t *testing.T) {
	t.Parallel()
	for _, pauser := range []string{"dead", "alive"} {
		t.Run("the pauser is "+pauser, func(t *testing.T) {
			t.Parallel()
			b := membertest.StartPooler(t, single.SuiteTrixie, membertest.SharedPostgres(t))
			if !membertest.Usable(t, b, 5*time.Second) {
				t.Fatal("does not work to begin with")
			}
			m := membertest.New(t, nil)
			m.Config.Poolers = []config.Pooler{{DSN: strings.Replace(b.AdminDSN(), b.Addr, movingName, 1)}}
			membertest.Tell(t, m)
			lead := withHosts(t, m, nobody)
			k := runKeeperOf(t, m, lease{Owner: pgb.Guard, Nonce: 4, Book: member.AddressBook{movingName: {nobody}}})
			k.send(time.Now().Add(time.Minute))
			markAndPause(t, b, pgb.Guard, 4)
			lead(b.Addr)
			until := time.Now().Add(7 * time.Second) // package net may keep a hosts file for 5 s
			k.send(until)
			if pauser == "dead" {
				k.orphan()
			}
			if !membertest.Usable(t, b, 12*time.Second) {
				t.Fatal("still paused")
			}
			if early := time.Until(until); early > 50*time.Millisecond {
				t.Errorf("resumed %s before the lease was over", early)
			}
			membertest.PutBack(t, b)
			k.endsWithin(5 * time.Second)
		})
	}
}

// A pooler that came after the pause, paused by somebody else and without a mark, is not of the lease.
func TestKeeperLeavesAPoolerThatCameLater(t *testing.T) {
	t.Parallel()
	b := membertest.StartPooler(t, single.SuiteTrixie, membertest.SharedPostgres(t))
	m := membertest.New(t, nil)
	m.Config.Poolers = []config.Pooler{{DSN: strings.Replace(b.AdminDSN(), b.Addr, movingName, 1)}}
	membertest.Tell(t, m)
	withHosts(t, m, b.Addr)
	membertest.Admin(t, b, "PAUSE")
	k := runKeeperOf(t, m, lease{Owner: pgb.Guard, Nonce: 4, Book: member.AddressBook{movingName: {nobody}}})
	k.send(time.Now().Add(2 * time.Second))
	k.orphan()
	k.endsWithin(5 * time.Second)
	if membertest.Usable(t, b, 200*time.Millisecond) {
		t.Error("somebody's pause was ended")
	}
}

// newcomer is a handover's member with two poolers, of which the pauser knows the first, and the second by a name that led to nobody then.
func newcomer(t *testing.T, suite string) (first, second *single.PgBouncer, m *member.Member) {
	t.Helper()
	pg := membertest.SharedPostgres(t)
	first, second = membertest.StartPooler(t, single.SuiteTrixie, pg), membertest.StartPooler(t, suite, pg)
	m = membertest.New(t, nil)
	m.Config.Poolers = []config.Pooler{{DSN: first.AdminDSN()}, {DSN: strings.Replace(second.AdminDSN(), second.Addr, movingName, 1)}}
	membertest.Tell(t, m)
	withHosts(t, m, second.Addr)
	return first, second, m
}

// orphaned is the keeper of its pause, whose pauser has ended.
func orphaned(t *testing.T, m *member.Member) *keeperProcess {
	t.Helper()
	k := runKeeperOf(t, m, lease{Owner: pgb.Guard, Nonce: 4, Book: member.AddressBook{movingName: {nobody}}})
	k.send(time.Now().Add(time.Minute))
	k.orphan()
	return k
}

// A pooler that starts while the others are paused is paused with them, and let go with them.
func TestKeeperHoldsANewcomer(t *testing.T) {
	t.Parallel()
	first, second, m := newcomer(t, single.SuiteSid)
	markAndPause(t, first, pgb.Guard, 4)
	k := orphaned(t, m)
	membertest.Within(t, 15*time.Second, "it is paused", func() bool { return membertest.StateOf(t, second).Paused })
	if s := membertest.StateOf(t, second); s.Mark == nil || s.Mark.Nonce != 4 || s.Mark.Owner != pgb.Guard {
		t.Errorf("its mark is %+v", s.Mark)
	}
	if !membertest.StateOf(t, first).Paused {
		t.Fatal("the other one was resumed")
	}
	membertest.Admin(t, first, "RESUME", "SET server_login_retry = 15")
	membertest.Within(t, 15*time.Second, "it is resumed", func() bool { return !membertest.StateOf(t, second).Paused })
	k.endsWithin(10 * time.Second)
	membertest.PutBack(t, second)
}

// Where nobody is paused any more, one that comes is left alone.
func TestKeeperLeavesANewcomerAfterTheHandover(t *testing.T) {
	t.Parallel()
	_, second, m := newcomer(t, single.SuiteTrixie)
	orphaned(t, m).endsWithin(10 * time.Second)
	if s := membertest.StateOf(t, second); s.PauseStands() || s.Mark != nil {
		t.Errorf("it was touched: %+v", s)
	}
}
