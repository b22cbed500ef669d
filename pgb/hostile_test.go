package pgb_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/hostile"
	"github.com/pgbaton/pgbaton/pgb"
)

// What a console that means harm can do: see package hostile.
func TestHostileConsole(t *testing.T) { hostile.Try(t) }

// asHostileClient is what this test binary does as a client of a hostile console: all that a pooler is asked. What is returned is what
// people see of it.
func asHostileClient() bool {
	do := func(what func(ctx context.Context, p *pgb.Pooler) (string, error)) func(string, int, time.Duration) string {
		return func(host string, port int, limit time.Duration) string {
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			dsn := fmt.Sprintf("host=%s port=%d user=u dbname=pgbouncer sslmode=disable", host, port)
			poolers, errs := pgb.Resolve(ctx, []pgb.Spec{{DSN: dsn, Password: hostile.Password}}, nil)
			if err := errors.Join(errs...); err != nil || len(poolers) != 1 {
				return fmt.Sprint(poolers, err)
			}
			defer poolers[0].Close()
			text, err := what(ctx, poolers[0])
			if err != nil {
				text += "\n" + err.Error()
			}
			return text
		}
	}
	return hostile.Client(
		do(func(ctx context.Context, p *pgb.Pooler) (string, error) {
			s, err := p.State(ctx)
			return s.Version, err
		}),
		do(func(ctx context.Context, p *pgb.Pooler) (string, error) {
			databases, err := p.ShowDatabases(ctx)
			return fmt.Sprint(len(databases)), err
		}),
		do(func(ctx context.Context, p *pgb.Pooler) (string, error) {
			settings, err := p.Settings(ctx)
			return fmt.Sprint(len(settings)), err
		}),
		do(func(ctx context.Context, p *pgb.Pooler) (string, error) {
			outcome, err := p.Pause(ctx)
			_, after := p.Servers(ctx)
			return fmt.Sprint(outcome), errors.Join(err, after)
		}),
		do(func(ctx context.Context, p *pgb.Pooler) (string, error) {
			before, put, err := p.Mark(ctx, pgb.Guard, 3)
			return strings.ReplaceAll(fmt.Sprint(before, put), "\n", " "), errors.Join(err, p.Reload(ctx))
		}),
		do(func(ctx context.Context, p *pgb.Pooler) (string, error) {
			p.Databases = []string{"a\x1b[31m", strings.Repeat("b", 5000)}
			_, err := p.Resume(ctx)
			_, every := p.ResumeEverything(ctx)
			return "", errors.Join(err, every)
		}),
	)
}
