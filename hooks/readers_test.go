package hooks

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/pgb"
)

func TestDecideReaders(t *testing.T) {
	replica := func(state string, change ...func(*view)) view {
		v := fresh(func(v *view) {
			v.local, v.readers, v.elsewhere = roleReplica, true, true
			v.health = patroni.Health{State: state, Role: "replica", StatusCode: 503}
		})
		for _, c := range change {
			c(&v)
		}
		return v
	}
	nowhere := func(v *view) { v.elsewhere = false }
	unanswered := func(v *view) { v.answered, v.health = false, patroni.Health{} }
	for _, c := range []struct {
		name   string
		view   view
		kind   kind
		until  time.Duration // from the guard's start
		reason string
	}{
		{"no pooler beside it", replica("restarting", func(v *view) { v.readers = false }), proceed, 0, "nothing to hold"},
		{"restart", replica("restarting"), pauseAndWait, 15 * time.Second, "its readers wait for it"},
		{"restart, nowhere else to go", replica("restarting", nowhere), pauseAndWait, 15 * time.Second, "its readers wait for it"},
		{"reinit", replica("stopping"), pauseAndWait, 5 * time.Second, "taken to another replica"},
		{"reinit, nowhere else to go", replica("stopping", nowhere), proceed, 0, "nothing is held"},
		{"shutdown", replica("", unanswered, silentSince(0, "does not answer")), pauseAndWait, 5 * time.Second, "taken to another replica"},
		{"shutdown, nowhere else to go", replica("", unanswered, silentSince(0, "does not answer"), nowhere), proceed, 0, "nothing is held"},
		{"restart, told to end meanwhile", replica("restarting", func(v *view) { v.told = t0 }, nowhere), proceed, 0, "nothing is held"},
		{"by hand", replica("running", func(v *view) { v.calledByPatroni = false }), proceed, 0, "not stopping"},
	} {
		got := decide(c.view)
		if got.kind != c.kind || !strings.Contains(got.reason, c.reason) ||
			c.kind == pauseAndWait && !got.until.Equal(t0.Add(c.until)) {
			t.Errorf("%s: %+v", c.name, got)
		}
		if !got.lockEnd.IsZero() {
			t.Errorf("%s: a replica has no lock that ends", c.name)
		}
	}
}

// replica is a member that is a standby, with a pooler beside it whose databases all lead to it, and other standbys of the same primary.
func replica(
	t *testing.T,
	state string,
	readers []string,
	others int,
) (*member.Member, *single.PgBouncer, *single.Postgres, []*single.Postgres) {
	t.Helper()
	primary := membertest.OwnPostgres(t)
	var standbys []*single.Postgres
	for range 1 + others {
		standby, err := single.StartStandby(t.Context(), primary)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(standby.Close)
		standbys = append(standbys, standby)
	}
	own := standbys[0]
	b := membertest.StartPooler(t, single.SuiteTrixie, own)
	membertest.Databases(t, b, fmt.Sprintf("postgres = host=%[1]s port=%[2]d\nreaders = host=%[1]s port=%[2]d dbname=postgres\n",
		own.Addr, own.Port))
	m := membertest.New(t, own, b)
	m.Config.Postgres = own.SocketDSN("postgres", "postgres") + " password=" + single.Password // for the others
	m.Config.Pause.Lease = 9 * time.Second
	m.Config.Poolers[0].Follow = &config.Follow{File: b.ConfigPath, Databases: []string{"postgres"}, Readers: readers,
		LocalHost: own.Addr, LocalPort: own.Port, Back: config.BackIdle}
	f := membertest.NewPatroni(t, m, state)
	f.Set(func(f *membertest.Patroni) {
		f.Lost = true // it has no lock
		members := []string{fmt.Sprintf(`{"name": "a", "role": "leader", "state": "running", "host": %q, "port": %d}`,
			primary.Addr, primary.Port)}
		for i, s := range standbys {
			members = append(members, fmt.Sprintf(`{"name": "r%d", "role": "replica", "state": "streaming", "host": %q, "port": %d}`,
				i, s.Addr, s.Port))
		}
		f.Cluster = `{"members": [` + strings.Join(members, ", ") + `]}`
	})
	t.Cleanup(func() { membertest.LetGo(m, b) })
	return m, b, own, standbys[1:]
}

// reads has a client read again and again; it returns the address that answered last, and what went wrong.
func reads(t *testing.T, b *single.PgBouncer) (at func() string) {
	t.Helper()
	c := membertest.Connect(t, b.DSN("postgres", "readers"))
	return func() string {
		t.Helper()
		address, err := c.Value("select host(inet_server_addr())")
		if err != nil {
			t.Errorf("a reader saw an error: %v", err)
		}
		return address
	}
}

// A replica is restarted: who reads there waits, and goes on when another run of the server answers. The session is not cut.
func TestReadersOfAReplicaWait(t *testing.T) {
	t.Parallel()
	m, b, own, _ := replica(t, "restarting", nil, 0)
	at := reads(t, b)
	before := at()
	run(t, m, member.Done, "paused and drained; the server is stopped")
	if s := membertest.StateOf(t, b); !s.Paused || s.Mark == nil || s.Mark.Owner != pgb.Readers {
		t.Fatalf("not held: paused %t, mark %v", s.Paused, s.Mark)
	}
	went := make(chan string, 1)
	go func() { went <- at() }()
	membertest.Eventually(t, "a reader waits", func() bool { return membertest.StateOf(t, b).Waiting > 0 })
	if err := own.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := <-went; after != before {
		t.Errorf("reads at %s, was at %s", after, before)
	}
	membertest.Eventually(t, "nothing is left of the pause", func() bool {
		s := membertest.StateOf(t, b)
		return !s.Paused && s.Mark == nil
	})
}

// A replica that does not come back in time, or is stopped for good: its readers are taken to another one.
func TestReadersOfAReplicaGoElsewhere(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"restarting", "stopping"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			m, b, _, others := replica(t, state, []string{"readers"}, 1)
			at := reads(t, b)
			at()
			run(t, m, member.Done, "the server is stopped")
			if after := at(); after != others[0].Addr {
				t.Errorf("reads at %s, the other replica is %s", after, others[0].Addr)
			}
			membertest.Eventually(t, "nothing is left of the pause", func() bool {
				s := membertest.StateOf(t, b)
				return !s.Paused && s.Mark == nil
			})
			text, err := b.Config()
			if err != nil || !strings.Contains(text, "postgres = host="+m.Config.Poolers[0].Follow.LocalHost) {
				t.Errorf("the entry for writing was touched: %v\n%s", err, text)
			}
		})
	}
}

// Who has nowhere to go is not held when the replica is stopped for good, and one whose pooler has those who write is not paused: they would
// wait for nothing.
func TestReadersAreNotHeldForNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, state string
		forwards    bool
		decision    string
	}{
		{"stopped for good", "stopping", false, "nothing is held"},
		{"the pooler forwards", "restarting", true, "no database of any pooler leads to this server"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m, b, own, others := replica(t, c.state, nil, 1)
			if c.forwards {
				text, err := b.Config()
				if err != nil {
					t.Fatal(err)
				}
				if err := b.RewriteConfig(strings.Replace(text, "postgres = host="+own.Addr, "postgres = host="+others[0].Addr, 1)); err != nil {
					t.Fatal(err)
				}
				membertest.Reload(t, b)
			}
			run(t, m, member.Done, c.decision)
			if s := membertest.StateOf(t, b); s.Paused || s.Mark != nil {
				t.Errorf("touched: paused %t, mark %v", s.Paused, s.Mark)
			}
		})
	}
}
