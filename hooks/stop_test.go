package hooks

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
)

// A restart in place: Patroni calls on_restart up to a second after the server is back. Clients do not wait for that.
func TestBeforeStopRestart(t *testing.T) {
	t.Parallel()
	pg, b, m, _ := guarded(t, "restarting", func(p *config.Pause) { p.StopServer = true })
	if !membertest.Usable(t, b, 5*time.Second) {
		t.Fatal("no use")
	}
	run(t, m, member.Done, "paused and drained; the server is stopped")
	if pid, ok := workerOf(m, restartAction); !ok {
		t.Fatalf("no worker of the guard runs (process %d)", pid)
	}
	client, err := pgconn.ParseConfig(b.DSN("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	back := make(chan time.Time, 1)
	go func() { // a client that waits
		if c, err := pgconn.ConnectConfig(t.Context(), client); err == nil {
			defer func() { _ = c.Conn().Close() }()
			if _, err = c.Exec(t.Context(), "select 1").ReadAll(); err == nil {
				back <- time.Now()
				return
			}
		}
		close(back)
	}()
	if err := pg.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	up := time.Now()
	select {
	case at, ok := <-back:
		if took := at.Sub(up); !ok || took > 3*time.Second {
			t.Errorf("the client has waited for %s after the server was back (answered: %v)", took, ok)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the client still waits: nobody resumes without the callback")
	}
	// The callback comes while the worker looks where the pooler leads. It is left in peace.
	r := OnRoleChange(t.Context(), m, Event{Action: "on_restart", Role: "primary"})
	if r.Code != member.Done || !strings.Contains(r.Decision, "the worker that the guard has started") {
		t.Errorf("%d %s", r.Code, r.Decision)
	}
	membertest.Within(t, 5*time.Second, "the worker has put the settings back and ended", func() bool {
		_, ok := workerOf(m, restartAction)
		return !ok && membertest.StateOf(t, b).Mark == nil
	})
	membertest.PutBack(t, b)
}

// While the old server runs the worker that the guard has started resumes nothing; a guard that gives up ends it.
func TestWorkerOfTheGuardWaitsForTheRestart(t *testing.T) {
	t.Parallel()
	pg, b, m, _ := guarded(t, "restarting")
	run(t, m, member.Done, "paused and drained; stopping the server is left to Patroni")
	for range 20 {
		paused(t, b)
		member.Sleep(t.Context(), 10*time.Millisecond)
	}
	pg.Stop()
	if err := pg.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !membertest.Usable(t, b, 5*time.Second) {
		t.Error("still paused")
	}
}
