package single_test

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pgbaton/pgbaton/e2e/single"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPgBouncerInFrontOfPostgres(t *testing.T) {
	single.Need(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	pg, err := single.StartPostgres(ctx, single.SuiteTrixie, single.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Close()
	for _, suite := range []string{single.SuiteHost, single.SuiteTrixie, single.SuiteSid} {
		t.Run(suite, func(t *testing.T) {
			b, err := single.StartPgBouncer(ctx, suite, single.PgBouncerOptions{Backend: pg})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			c, err := pgconn.Connect(ctx, b.DSN("postgres", "postgres"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close(ctx)
			if _, err := c.Exec(ctx, "select 1").ReadAll(); err != nil {
				t.Fatal(err)
			}
			pid, err := os.ReadFile(b.Pidfile)
			if err != nil || strings.TrimSpace(string(pid)) != strconv.Itoa(b.PID) {
				t.Errorf("pidfile says %q (%v), the process is %d", pid, err, b.PID)
			}
			b.Kill()
			if err := b.Start(ctx); err != nil {
				t.Errorf("start again: %v", err)
			}
		})
	}
}
