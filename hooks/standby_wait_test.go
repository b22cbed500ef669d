package hooks

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
)

// twoMembers is GET /cluster of a cluster whose other member runs.
const twoMembers = `{"scope": "demo", "members": [{"name": "node1", "role": "leader", "state": "running"},
 {"name": "node2", "role": "replica", "state": "running", "lag": 0}]}`

// receiver is the receiving end of streaming replication: it takes WAL from a real server and says how far it has it.
type receiver struct {
	lazy atomic.Bool // says nothing more of what it has
}

// startStandby streams as node2 until the test's end. With a slot it tries again and again until that exists, as a standby does.
func startStandby(t *testing.T, pg *single.Postgres, slot string) *receiver {
	t.Helper()
	s := &receiver{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			err := s.stream(ctx, pg, slot)
			if ctx.Err() == nil {
				t.Logf("standby: %v", err)
			}
			member.Sleep(ctx, 100*time.Millisecond)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

func (s *receiver) stream(ctx context.Context, pg *single.Postgres, slot string) error {
	cfg, err := pgconn.ParseConfig(pg.SocketDSN("postgres", "postgres"))
	if err != nil {
		return err
	}
	cfg.RuntimeParams["replication"], cfg.RuntimeParams["application_name"] = "true", "node2"
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Conn().Close() }()
	results, err := conn.Exec(ctx, "IDENTIFY_SYSTEM").ReadAll()
	if err != nil {
		return err
	}
	if slot != "" {
		slot = "SLOT " + slot + " "
	}
	conn.Frontend().
		Send(&pgproto3.Query{String: fmt.Sprintf("START_REPLICATION %sPHYSICAL %s TIMELINE %s", slot, results[0].Rows[0][2],
			results[0].Rows[0][1])})
	if err := conn.Frontend().Flush(); err != nil {
		return err
	}
	has := uint64(0)
	tell := func() error {
		status := make([]byte, 34)
		status[0] = 'r'
		for i := range 3 { // written, flushed, applied
			binary.BigEndian.PutUint64(status[1+8*i:], has)
		}
		conn.Frontend().Send(&pgproto3.CopyData{Data: status})
		return conn.Frontend().Flush()
	}
	for {
		message, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return err
		}
		switch m := message.(type) {
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(m)
		case *pgproto3.CopyBothResponse:
			var high, low uint64
			if _, err := fmt.Sscanf(string(results[0].Rows[0][2]), "%X/%X", &high, &low); err != nil {
				return err
			}
			has = high<<32 | low
			if err := tell(); err != nil {
				return err
			}
		case *pgproto3.CopyDone:
			return nil
		case *pgproto3.CopyData:
			switch m.Data[0] {
			case 'w': // XLogData: start, end, time
				has = binary.BigEndian.Uint64(m.Data[1:]) + uint64(len(m.Data)-25)
			case 'k': // keepalive: end
				has = max(has, binary.BigEndian.Uint64(m.Data[1:]))
			}
			if s.lazy.Load() {
				continue
			}
			if err := tell(); err != nil {
				return err
			}
		}
	}
}

func withCluster(t *testing.T, body string) (*single.Postgres, *single.PgBouncer, *member.Member, *membertest.Patroni) {
	pg, b, m, f := guarded(t, "stopping", func(p *config.Pause) { p.StopServer, p.Budget, p.Attempt = true, 4*time.Second, time.Second })
	f.Set(func(f *membertest.Patroni) { f.Cluster = body })
	t.Cleanup(func() { // another test gets the server
		_ = pg.Exec(context.Background(), "select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active")
	})
	return pg, b, m, f
}

func TestStandbyStreams(t *testing.T) {
	t.Parallel()
	pg, b, m, _ := withCluster(t, twoMembers)
	startStandby(t, pg, "")
	membertest.Eventually(t, "it streams", func() bool {
		return pg.Exec(t.Context(), "select 1 / count(*) from pg_stat_replication where state = 'streaming'") == nil
	})
	if took := run(t, m, member.Done, "paused and drained; the server is stopped"); took > 5*time.Second {
		t.Errorf("took %s: it waits where there is nothing to wait for", took)
	}
	paused(t, b)
}

// Nobody streams while the guard begins: clients work on until somebody does, and the slot that he needs is there.
func TestStandbyIsWaitedFor(t *testing.T) {
	t.Parallel()
	for _, slot := range []string{"", "node2"} {
		t.Run("slot "+slot, func(t *testing.T) {
			t.Parallel()
			pg, b, m, _ := withCluster(t, twoMembers)
			done := make(chan member.Result)
			go func() { done <- BeforeStop(t.Context(), m, noExit(t)) }()
			for began := time.Now(); time.Since(began) < time.Second; {
				if !membertest.Usable(t, b, 2*time.Second) {
					t.Error("paused while no standby streams")
				}
			}
			startStandby(t, pg, slot)
			if r := <-done; r.Code != member.Done || !strings.Contains(r.Decision, "paused and drained; the server is stopped") {
				t.Errorf("%+v", r)
			}
			paused(t, b)
		})
	}
}

func TestNoStandby(t *testing.T) {
	t.Parallel()
	pg, b, m, _ := withCluster(t, twoMembers)
	took := run(t, m, member.Done, "paused and drained; no standby has all writes, stopping the server is left to Patroni")
	if took < 2*time.Second || took > 8*time.Second {
		t.Errorf("took %s", took)
	}
	paused(t, b)
	if membertest.Stopped(pg) {
		t.Error("the server is stopped although somebody who has nothing of it may be promoted")
	}
}

// It streams, and stops saying that it has anything: what was written last may be nowhere else.
func TestStandbyFallsBehind(t *testing.T) {
	t.Parallel()
	pg, b, m, _ := withCluster(t, twoMembers)
	s := startStandby(t, pg, "")
	membertest.Eventually(t, "it streams", func() bool {
		return pg.Exec(
			t.Context(),
			"select 1 / count(*) from pg_stat_replication where state = 'streaming' and flush_lsn is not null",
		) == nil
	})
	s.lazy.Store(true)
	if err := pg.Exec(t.Context(), "create table written_last ()"); err != nil {
		t.Fatal(err)
	}
	run(t, m, member.Done, "paused and drained; no standby has all writes, stopping the server is left to Patroni")
	paused(t, b)
	if membertest.Stopped(pg) {
		t.Error("the server is stopped")
	}
}

func TestStandbyIsNobodysBusiness(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		state, cluster string
	}{
		"one member": {"stopping", `{"scope": "demo", "members": [{"name": "node1", "role": "leader", "state": "running"}]}`},
		"restart":    {"restarting", twoMembers},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, b, m, f := guarded(t, c.state, func(p *config.Pause) { p.StopServer = true })
			f.Set(func(f *membertest.Patroni) { f.Cluster = c.cluster })
			if took := run(t, m, member.Done, "paused and drained; the server is stopped"); took > 5*time.Second {
				t.Errorf("took %s", took)
			}
			paused(t, b)
		})
	}
}

// Patroni does not answer when it shuts down: who is there is known from the worker of an earlier event.
func TestStandbySilentPatroni(t *testing.T) {
	t.Parallel()
	pg, b, m, f := withCluster(t, twoMembers)
	m.Config.Pause.ShutdownBudget = 4 * time.Second
	if err := recordCluster(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if r := readClusterRecord(m); len(r.Others) != 1 || r.Others[0] != "node2" {
		t.Errorf("%+v", r)
	}
	silent := make(chan struct{})
	defer close(silent)
	f.Set(func(f *membertest.Patroni) { f.Silent = silent })
	done := make(chan member.Result)
	g := newGuard(m, noExit(t))
	g.view.calledByPatroni = true
	go func() { done <- g.beforeStop(t.Context()) }()
	member.Sleep(t.Context(), 500*time.Millisecond)
	if !membertest.Usable(t, b, 5*time.Second) {
		t.Error("paused while no standby streams")
	}
	startStandby(t, pg, "node2")
	// It is not stopped: Patroni is no ancestor of this process, so it could have gone meanwhile.
	if r := <-done; r.Code != member.Done || !strings.Contains(r.Decision, "paused and drained; Patroni has gone meanwhile") {
		t.Errorf("%+v", r)
	}
	paused(t, b)
}

// Nothing is recorded and Patroni is silent, but the standby has made its slot: it is waited for, and also when it comes only after the
// short budget is over.
func TestStandbyComesLate(t *testing.T) {
	t.Parallel()
	for _, after := range []time.Duration{500 * time.Millisecond, 2200 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			t.Parallel()
			pg, b, m, f := withCluster(t, twoMembers)
			m.Config.Pause.ShutdownBudget = 2 * time.Second
			silent := make(chan struct{})
			defer close(silent)
			f.Set(func(f *membertest.Patroni) { f.Silent = silent })
			if err := pg.Exec(t.Context(), "select pg_create_physical_replication_slot('node2')"); err != nil {
				t.Fatal(err)
			}
			done := make(chan member.Result)
			g := newGuard(m, noExit(t))
			g.view.calledByPatroni = true
			go func() { done <- g.beforeStop(t.Context()) }()
			member.Sleep(t.Context(), after)
			startStandby(t, pg, "node2")
			if r := <-done; r.Code != member.Done || !strings.Contains(r.Decision, "paused and drained; Patroni has gone meanwhile") {
				t.Errorf("%+v", r)
			}
			paused(t, b)
		})
	}
}
