package follow_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/follow"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
)

// pair is a primary with a pooler beside it that is watched, and a standby elsewhere.
type pair struct {
	*node
	other   *single.Postgres
	patroni *membertest.Patroni
	watcher *follow.Watcher
}

func newPair(t *testing.T, back string, after time.Duration, change ...any) *pair {
	t.Helper()
	primary := membertest.OwnPostgres(t)
	standby, err := single.StartStandby(t.Context(), primary)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	p := &pair{node: newNode(t, single.SuiteTrixie, primary), other: standby}
	p.Config.Pause.Lease = 30 * time.Second
	p.Config.Poolers[0].Follow.Back, p.Config.Poolers[0].Follow.BackAfter = back, after
	// The servers are told apart by their addresses; they do not know one another's members.
	p.Config.Postgres = primary.DSN("postgres", "postgres")
	p.patroni = membertest.NewPatroni(t, p.Member, "running")
	p.leads(primary)
	for _, c := range change {
		switch c := c.(type) {
		case func(*config.Follow):
			c(p.Config.Poolers[0].Follow)
		case func(*config.Config):
			c(p.Config)
		}
	}
	p.watch(t)
	return p
}

// leads has Patroni say who holds the lock.
func (p *pair) leads(of *single.Postgres) {
	p.patroni.Set(func(f *membertest.Patroni) {
		f.Cluster = fmt.Sprintf(`{"members": [{"name": "node1", "role": "leader", "state": "running", "host": %q, "port": %d}]}`,
			of.Addr, of.Port)
	})
}

// watch starts a watcher, as serve does.
func (p *pair) watch(t *testing.T) (stop func()) {
	t.Helper()
	p.watcher = follow.NewWatcher(p.Member)
	p.watcher.SettleIn(0, 200*time.Millisecond)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.watcher.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

// promote makes the standby the leader.
func (p *pair) promote(t *testing.T) {
	t.Helper()
	if err := p.other.Exec(t.Context(), "select pg_promote()"); err != nil {
		t.Fatal(err)
	}
	p.leads(p.other)
}

func (p *pair) routeBecomes(t *testing.T, want follow.Route) {
	t.Helper()
	membertest.Within(t, time.Minute, "a load balancer is told: "+want.String(), func() bool { return p.watcher.Route() == want })
}

// looked waits for some more looks, however slow the machine is; is is looked at meanwhile.
func (p *pair) looked(t *testing.T, looks int, is func()) {
	t.Helper()
	from := p.watcher.Looked()
	membertest.Within(t, 2*time.Minute, "the watcher looks", func() bool {
		is()
		return p.watcher.Looked() >= from+looks
	})
}

// The primary and its Patroni die, nobody has planned it: clients of its pooler reach the new leader, also while the pool could not connect
// for a moment. The setting that was lowered for that is put back. Then the clients that were there leave, and the entries are local again.
func TestWatchUnplannedAndBack(t *testing.T) {
	t.Parallel()
	p := newPair(t, config.BackIdle, 0)
	p.routeBecomes(t, follow.RouteOpen)
	before := p.text(t)
	old := connect(t, p.pooler.DSN("postgres", "postgres"))
	if at := server(t, old); at != p.pg.Addr+"/32" && at != p.pg.Addr {
		t.Fatalf("it leads to %s", at)
	}
	p.pg.Kill()
	// A query while nobody answers there: the pool has to wait for server_login_retry after that.
	_, _ = old.Exec(t.Context(), "select 1").ReadAll()
	p.promote(t)
	p.routeBecomes(t, follow.RouteForwarded)
	moved := time.Now()
	// A pool whose last log-in failed refuses clients until one has succeeded, and tries it when it refuses (check_fast_fail of PgBouncer,
	// 1.18 to 1.26).
	membertest.Within(t, time.Minute, "a client is let through", func() bool {
		var err error
		if old, err = pgconn.Connect(t.Context(), p.pooler.DSN("postgres", "postgres")); err != nil {
			return false
		}
		if _, err = old.Exec(t.Context(), "select 1").ReadAll(); err != nil {
			_ = old.Close(t.Context())
		}
		return err == nil
	})
	if took := time.Since(moved); took > membertest.DefaultRetry/2 {
		t.Errorf("a client had to wait for %s", took)
	}
	v := p.mover(t)
	membertest.Within(t, time.Minute, "the setting is put back", func() bool {
		mark, err := v.Holder(t.Context())
		return err == nil && mark == nil
	})
	if p.text(t) == before {
		t.Error("the file says what it said")
	}
	// Who was there has to be seen there before he counts as gone.
	p.looked(t, 3, func() {})
	if p.watcher.Route() != follow.RouteForwarded {
		t.Error("it does not forward any more, and a client is there")
	}
	_ = old.Close(t.Context())
	membertest.Within(t, time.Minute, "the entries are local again", func() bool { return p.text(t) == before })
	p.routeBecomes(t, follow.RouteDown)
}

// guardPauses does what a guard does to the pooler.
func (p *pair) guardPauses(t *testing.T) *follow.Mover {
	t.Helper()
	v := p.mover(t)
	if _, _, err := v.Mark(t.Context(), pgb.Guard, 3); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	return v
}

// waits has a client ask where it is, while the pause stands, and looks so many times that nobody lets it go; its answer comes later.
func (p *pair) waits(t *testing.T, client *pgconn.PgConn, looks int) <-chan string {
	t.Helper()
	waiting := make(chan string, 1)
	go func() { waiting <- server(t, client) }()
	p.looked(t, looks, func() {
		select {
		case at := <-waiting:
			t.Fatalf("resumed before the old primary was stopped: %s", at)
		default:
		}
	})
	return waiting
}

// A guard has paused the pooler: what waits goes on at the new leader, and serve resumes; as long as the old primary has not been stopped,
// nothing is resumed. A serve that is started again knows that it forwards.
func TestWatchPlanned(t *testing.T) {
	t.Parallel()
	p := newPair(t, config.BackNever, 0)
	p.routeBecomes(t, follow.RouteOpen)
	client := connect(t, p.pooler.DSN("postgres", "postgres"))
	local := server(t, client)
	v := p.guardPauses(t)
	waiting := p.waits(t, client, 20)
	p.pg.Stop()
	p.promote(t)
	select {
	case at := <-waiting:
		if at == local {
			t.Error("the client was let through to the old server")
		}
	case <-time.After(15 * time.Second):
		t.Fatal("nobody has resumed")
	}
	p.routeBecomes(t, follow.RouteForwarded)
	if mark, err := v.Holder(t.Context()); err != nil || mark != nil && mark.Owner != pgb.Guard {
		t.Errorf("%+v %v", mark, err)
	}
	p.watch(t)
	p.routeBecomes(t, follow.RouteForwarded)
	_ = client.Close(t.Context())
	p.looked(t, 10, func() {
		if p.watcher.Route() != follow.RouteForwarded {
			t.Fatal("it has gone back, and was never to")
		}
	})
}

// A server that says that it leads, and whom Patroni calls the leader, is not the leader of this cluster when it is of another one, or on
// recovery: nothing is moved.
func TestWatchProves(t *testing.T) {
	t.Parallel()
	p := newPair(t, config.BackNever, 0)
	p.routeBecomes(t, follow.RouteOpen)
	before := p.text(t)
	for _, liar := range []*single.Postgres{membertest.SharedPostgres(t), p.other} {
		p.leads(liar)
		p.looked(t, 10, func() {}) // longer than a second
		if got := p.text(t); got != before {
			t.Errorf("moved to a server that does not lead:\n%s", got)
		}
	}
}

// A file that cannot be written cuts nobody off who is at the right place; when another member leads, the clients are sent away to connect
// anew. One whose file has been mended is moved.
func TestWatchUnmovable(t *testing.T) {
	t.Parallel()
	p := newPair(t, config.BackNever, 0)
	p.routeBecomes(t, follow.RouteOpen)
	before := p.text(t)
	mode := func(mode os.FileMode) {
		if err := os.Chmod(p.file, mode); err != nil {
			t.Fatal(err)
		}
	}
	mode(0o440)
	p.looked(t, 20, func() { // for longer than a pooler that does not answer counts as being there
		if got := p.watcher.Route(); got != follow.RouteOpen {
			t.Fatalf("a load balancer is told: %s", got)
		}
	})
	p.promote(t)
	p.routeBecomes(t, follow.RouteDown)
	if got := p.text(t); got != before {
		t.Errorf("a read-only file was written:\n%s", got)
	}
	mode(0o640)
	p.routeBecomes(t, follow.RouteForwarded)
	p.pooler.Kill()
	p.routeBecomes(t, follow.RouteDown)
}

// A pause whose pooler could not be moved at first, also after the new leader was seen, is ended when it can be.
func TestWatchPlannedAgain(t *testing.T) {
	t.Parallel()
	p := newPair(t, config.BackNever, 0)
	p.routeBecomes(t, follow.RouteOpen)
	client := connect(t, p.pooler.DSN("postgres", "postgres"))
	local := server(t, client)
	p.guardPauses(t)
	p.looked(t, 2, func() {})
	if err := os.Chmod(p.file, 0o440); err != nil {
		t.Fatal(err)
	}
	p.pg.Stop()
	p.promote(t)
	waiting := make(chan string, 1)
	go func() { waiting <- server(t, client) }()
	p.looked(t, 20, func() {
		select {
		case at := <-waiting:
			t.Fatalf("resumed and not moved: %s", at)
		default:
		}
	})
	if err := os.Chmod(p.file, 0o640); err != nil {
		t.Fatal(err)
	}
	if at := <-waiting; at == local {
		t.Error("the client was let through to the old server")
	}
}

// Who moves the pooler is killed when he has had it read its file, which takes the mark of the pause off: serve knows of the pause, and ends
// it at the new leader.
func TestWatchLostMark(t *testing.T) {
	t.Parallel()
	p := newPair(t, config.BackNever, 0)
	p.routeBecomes(t, follow.RouteOpen)
	client := connect(t, p.pooler.DSN("postgres", "postgres"))
	local := server(t, client)
	v := p.guardPauses(t)
	p.looked(t, 3, func() {})
	membertest.Reload(t, p.pooler)
	if mark, err := v.Holder(t.Context()); err != nil || mark != nil {
		t.Fatalf("the mark is there: %+v %v", mark, err)
	}
	waiting := p.waits(t, client, 10)
	p.pg.Stop()
	p.promote(t)
	if at := <-waiting; at == local {
		t.Error("the client was let through to the old server")
	}
	if s, err := v.State(t.Context()); err != nil || s.PauseStands() {
		t.Errorf("%+v %v", s, err)
	}
}

// Whoever has lowered a setting for a moment was killed: it is put back when no pause can need it any more.
func TestWatchPutsBack(t *testing.T) {
	t.Parallel()
	p := newPair(t, config.BackNever, 0)
	p.Config.Pause.Lease = 2 * time.Second
	p.routeBecomes(t, follow.RouteOpen)
	v := p.mover(t)
	if _, _, err := v.Mark(t.Context(), pgb.Guard, 7); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	membertest.Within(t, time.Minute, "the setting is put back", func() bool {
		mark, err := v.Holder(t.Context())
		return err == nil && mark == nil
	})
	if took := time.Since(began); took < p.Config.Pause.Lease {
		t.Errorf("put back after %s, and a guard may have needed it", took)
	}
}
