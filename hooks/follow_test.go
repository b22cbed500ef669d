package hooks

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
)

// The pooler beside a member led to another one that died, and nobody had paused it: its pool could not connect. When this member is
// promoted, the worker moves it, and its clients do not wait for the rest of server_login_retry.
func TestWorkerMovesAPoolerThatFailed(t *testing.T) {
	t.Parallel()
	for _, suite := range membertest.Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			pg := membertest.SharedPostgres(t)
			b := membertest.StartPooler(t, suite, pg)
			membertest.Databases(t, b, fmt.Sprintf("postgres = host=%s port=1\n", pg.Addr))
			m := membertest.New(t, pg, b)
			m.Config.Resume.Timeout = time.Minute
			m.Config.Poolers[0].Follow = &config.Follow{File: b.ConfigPath, Databases: []string{"postgres"}, LocalHost: pg.Addr,
				LocalPort: pg.Port, Back: config.BackIdle}
			through := func() bool {
				// The pool's first try fails at once, and its client is kept waiting for the next one.
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				c, err := pgconn.Connect(ctx, b.DSN("postgres", "postgres"))
				if err != nil {
					return false
				}
				defer c.Close(ctx)
				_, err = c.Exec(ctx, "select 1").ReadAll()
				return err == nil
			}
			if through() {
				t.Fatal("it is let through to a server that is not there")
			}
			began := time.Now()
			done := make(chan member.Result, 1)
			go func() { done <- Work(t.Context(), m, Event{Action: "on_role_change", Role: "primary"}, nil) }()
			membertest.Within(t, time.Minute, "a client is let through", through)
			if took := time.Since(began); took > membertest.DefaultRetry/2 {
				t.Errorf("a client had to wait for %s", took)
			}
			if r := <-done; r.Code != member.Done || !strings.Contains(r.Decision, "0 pooler(s) resumed, 1 were not paused") {
				t.Errorf("%+v", r)
			}
			if s := membertest.StateOf(t, b); s.Mark != nil || s.LoginRetry != membertest.DefaultRetry {
				t.Errorf("left behind: mark %v, server_login_retry %s", s.Mark, s.LoginRetry)
			}
		})
	}
}
