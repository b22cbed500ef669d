package hooks

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
)

func TestHeldSessions(t *testing.T) {
	const (
		idle, busy = false, true
		slow       = int32(5) // of a transaction pool: its client has not read what the server has long sent
	)
	type look struct {
		servers  []int32
		sessions map[int32]bool
		only     bool
	}
	for name, looks := range map[string][]look{
		"nobody": {{nil, nil, false}, {nil, nil, false}, {nil, nil, false}, {nil, nil, false}},
		"one that idles": {{[]int32{1}, map[int32]bool{1: idle}, false}, {[]int32{1}, map[int32]bool{1: idle}, false},
			{[]int32{1}, map[int32]bool{1: idle, 9: busy}, true}},
		"one that works now and then: a transaction pool would have let it go": {{[]int32{1}, map[int32]bool{1: busy}, false},
			{[]int32{1}, map[int32]bool{1: idle}, false},
			{[]int32{1}, map[int32]bool{1: busy}, false}, {[]int32{1}, map[int32]bool{1: busy}, true}},
		"a transaction": {{[]int32{1}, map[int32]bool{1: busy}, false}, {[]int32{1}, map[int32]bool{1: busy}, false},
			{[]int32{1}, map[int32]bool{1: busy}, false}, {[]int32{1}, map[int32]bool{1: busy}, false}},
		"both": {{[]int32{1, 2}, map[int32]bool{1: idle, 2: busy}, false}, {[]int32{1, 2}, map[int32]bool{1: idle, 2: busy}, false},
			{[]int32{1, 2}, map[int32]bool{1: idle, 2: busy}, false}, {[]int32{1}, map[int32]bool{1: idle}, true}},
		"about to be let go": {{[]int32{1}, map[int32]bool{1: idle}, false}, {nil, map[int32]bool{1: idle}, false}, {nil, nil, false}},
		"a slow reader of a transaction pool": {{[]int32{slow}, map[int32]bool{slow: idle}, false}, {[]int32{slow},
			map[int32]bool{slow: idle}, false},
			{[]int32{slow}, map[int32]bool{slow: idle}, false}, {[]int32{slow}, map[int32]bool{slow: idle}, false}},
		"through another pooler": {{[]int32{7}, map[int32]bool{1: idle}, false}, {[]int32{7}, map[int32]bool{1: idle}, false},
			{[]int32{7}, map[int32]bool{1: idle}, false}, {[]int32{7}, map[int32]bool{1: idle}, false}},
	} {
		t.Run(name, func(t *testing.T) {
			h := &heldSessions{}
			for i, l := range looks {
				var servers []pgb.ServerConn
				for _, pid := range l.servers {
					servers = append(servers, pgb.ServerConn{RemotePID: pid, Kept: pid != slow})
				}
				if got := h.only(servers, l.sessions); got != l.only {
					t.Errorf("look %d: %v", i+1, got)
				}
			}
		})
	}
}

// mixed is a guard in front of a pooler with a transaction pool, postgres, and a session pool, sess.
func mixed(t *testing.T, suite string, change ...func(*config.Pause)) (*single.Postgres, *single.PgBouncer, *member.Member) {
	t.Helper()
	pg := membertest.OwnPostgres(t)
	address := fmt.Sprintf("host=%s port=%d", pg.Addr, pg.Port)
	b, err := single.StartPgBouncer(t.Context(), suite, single.PgBouncerOptions{
		Databases: "postgres = " + address + "\nsess = " + address + " dbname=postgres pool_mode=session"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	m := membertest.New(t, pg, b)
	m.Config.Pause.StopServer = false
	for _, c := range change {
		c(&m.Config.Pause)
	}
	t.Cleanup(func() { membertest.LetGo(m, b) })
	membertest.NewPatroni(t, m, "stopping")
	return pg, b, m
}

// One idle client of a session pool costs the others one short wait, and not seven of 2 s.
func TestBeforeStopSessionPool(t *testing.T) {
	t.Parallel()
	for _, suite := range membertest.Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			_, b, m := mixed(t, suite)
			session := membertest.Connect(t, b.DSN("postgres", "sess"))
			session.Must("select 1")
			if !membertest.Usable(t, b, 5*time.Second) {
				t.Fatal("no use")
			}
			took := run(
				t,
				m,
				member.BudgetSpent,
				"1 pooler(s) paused; only sessions without a transaction keep their server connections: policy hold",
			)
			if took > 5*time.Second {
				t.Errorf("took %s: the others wait for a client that will not go", took)
			}
			if s := membertest.StateOf(
				t,
				b,
			); s.PausedKnown && !s.Paused || s.Mark == nil ||
				s.Mark.Owner != pgb.Guard { // 1.18 does not know
				t.Errorf("not held: paused %v, mark %+v", s.Paused, s.Mark)
			}
		})
	}
}

// The same for replication through the pooler, whatever the pool's mode (PgBouncer 1.23 and later).
func TestBeforeStopReplicationThroughThePooler(t *testing.T) {
	t.Parallel()
	for _, suite := range []string{single.SuiteTrixie, single.SuiteSid} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			_, b, m := mixed(t, suite)
			cfg, err := pgconn.ParseConfig(b.DSN("postgres", "postgres"))
			if err != nil {
				t.Fatal(err)
			}
			cfg.RuntimeParams["replication"] = "database"
			c, err := pgconn.ConnectConfig(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Conn().Close() }()
			if _, err := c.Exec(t.Context(), "IDENTIFY_SYSTEM").ReadAll(); err != nil {
				t.Fatal(err)
			}
			took := run(t, m, member.BudgetSpent, "only sessions without a transaction keep their server connections")
			if took > 5*time.Second {
				t.Errorf("took %s", took)
			}
			paused(t, b)
		})
	}
}

// A transaction in the session pool is waited for; then the session is in nobody's way.
func TestBeforeStopTransactionInSessionPool(t *testing.T) {
	t.Parallel()
	_, b, m := mixed(t, single.SuiteTrixie)
	session := membertest.Connect(t, b.DSN("postgres", "sess"))
	session.Must("begin")
	session.Must("select txid_current()")
	ended := make(chan error, 1)
	go func() {
		member.Sleep(t.Context(), time.Second)
		ended <- session.Exec("commit")
	}()
	took := run(t, m, member.BudgetSpent, "only sessions without a transaction keep their server connections")
	if err := <-ended; err != nil {
		t.Errorf("the transaction: %v", err)
	}
	if took < 900*time.Millisecond || took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	paused(t, b)
}

// Policy skip cuts nobody: the session is waited for while clients work.
func TestBeforeStopSessionPoolSkip(t *testing.T) {
	t.Parallel()
	_, b, m := mixed(t, single.SuiteTrixie, func(p *config.Pause) { p.OnTimeout = config.OnTimeoutSkip })
	session := membertest.Connect(t, b.DSN("postgres", "sess"))
	session.Must("select 1")
	done := make(chan member.Result)
	go func() { done <- BeforeStop(t.Context(), m, noExit(t)) }()
	member.Sleep(t.Context(), 1500*time.Millisecond)
	for range 20 {
		if !membertest.Usable(t, b, time.Second) {
			t.Error("paused again for a session that does not go")
		}
		member.Sleep(t.Context(), 50*time.Millisecond)
	}
	session.Close()
	if r := <-done; r.Code != member.Done || !strings.Contains(r.Decision, "paused and drained") {
		t.Errorf("%+v", r)
	}
	paused(t, b)
}
