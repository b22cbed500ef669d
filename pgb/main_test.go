package pgb_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/pgb"
	"go.uber.org/goleak"
)

// One server stands behind all the poolers of this package.
var backend struct {
	sync.Once
	server *single.Postgres
	err    error
}

type main struct{ m *testing.M }

func (m main) Run() int {
	defer func() {
		if backend.server != nil {
			backend.server.Close()
		}
	}()
	return m.m.Run()
}

func TestMain(m *testing.M) {
	if asHostileClient() {
		os.Exit(0)
	}
	if os.Getenv(asUser) != "" {
		os.Exit(lookAround())
	}
	goleak.VerifyTestMain(main{m})
}

func theBackend(t *testing.T) *single.Postgres {
	t.Helper()
	single.Need(t)
	backend.Do(func() {
		// Not the test's own context: the server outlives it.
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		backend.server, backend.err = single.StartPostgres(ctx, single.SuiteTrixie, single.PostgresOptions{
			Settings: map[string]string{"max_connections": "200"},
		})
	})
	if backend.err != nil {
		t.Fatal(backend.err)
	}
	return backend.server
}

// rig is one real pooler.
type rig struct {
	*single.PgBouncer
	pg *single.Postgres
}

var suites = []string{single.SuiteHost, single.SuiteTrixie, single.SuiteSid}

// eachSuite runs a test on PgBouncer 1.18, 1.24 and 1.26, each with a pooler of its own.
func eachSuite(t *testing.T, opts single.PgBouncerOptions, test func(*testing.T, *rig)) {
	t.Helper()
	t.Parallel()
	pg := theBackend(t)
	if opts.Databases == "" {
		opts.Backend = pg
	} else {
		opts.Databases = strings.ReplaceAll(opts.Databases, "{backend}", fmt.Sprintf("host=%s port=%d dbname=postgres", pg.Addr, pg.Port))
	}
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			b, err := single.StartPgBouncer(within(t, 30*time.Second), suite, opts)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(b.Close)
			test(t, &rig{PgBouncer: b, pg: pg})
		})
	}
}

// within is a context that ends with the test, or after d.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func soon(t *testing.T) context.Context { return within(t, 20*time.Second) }

// until asks every few milliseconds, and fails the test when the answer stays no.
func until(t *testing.T, what string, yes func() bool) {
	t.Helper()
	ctx := soon(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !yes() {
		select {
		case <-ctx.Done():
			t.Fatalf("never happened: %s", what)
		case <-tick.C:
		}
	}
}

func (r *rig) pooler(t *testing.T, databases ...string) *pgb.Pooler {
	t.Helper()
	return resolveOne(t, pgb.Spec{DSN: r.AdminDSN(), Databases: databases, Pidfile: r.Pidfile})
}

func resolveOne(t *testing.T, spec pgb.Spec) *pgb.Pooler {
	t.Helper()
	poolers, errs := pgb.Resolve(soon(t), []pgb.Spec{spec}, nil)
	if len(errs) > 0 || len(poolers) != 1 {
		t.Fatalf("resolved to %d poolers, errors %v", len(poolers), errs)
	}
	t.Cleanup(poolers[0].Close)
	return poolers[0]
}

func (r *rig) console(t *testing.T) *pgb.Console {
	t.Helper()
	c, err := pgb.Connect(soon(t), r.Addr, parse(t, r.AdminDSN()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// psql runs one statement on an admin console of its own.
func (r *rig) psql(t *testing.T, statement string) (*pgb.Result, error) {
	t.Helper()
	c := r.console(t)
	defer c.Close()
	return c.Exec(soon(t), statement)
}

func (r *rig) mustPsql(t *testing.T, statement string) *pgb.Result {
	t.Helper()
	result, err := r.psql(t, statement)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// wantPaused proves a global pause in a way that 1.18 knows, too.
func (r *rig) wantPaused(t *testing.T) {
	t.Helper()
	if _, err := r.psql(t, "PAUSE"); !errors.Is(err, pgb.ErrAlreadyPaused) {
		t.Fatalf("not paused: PAUSE answered %v", err)
	}
}

func (r *rig) wantNotPaused(t *testing.T) {
	t.Helper()
	if _, err := r.psql(t, "RESUME"); !errors.Is(err, pgb.ErrNotPaused) {
		t.Fatalf("paused: RESUME answered %v", err)
	}
}

func (r *rig) log(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(r.Log)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// heard waits for a PAUSE: PgBouncer logs it when it has read it.
func (r *rig) heard(t *testing.T, what string, times int) {
	t.Helper()
	until(t, "the pooler logs "+what, func() bool { return strings.Count(r.log(t), what) >= times })
}

// client is a client of the pooler.
type client struct {
	t     *testing.T
	conn  *pgconn.PgConn
	asked sync.WaitGroup
}

func (r *rig) client(t *testing.T, database string) *client {
	t.Helper()
	cfg := parse(t, r.DSN("postgres", "x"))
	cfg.Database = database
	return connectClient(t, cfg)
}

func connectClient(t *testing.T, cfg *pgconn.Config) *client {
	t.Helper()
	conn, err := pgconn.ConnectConfig(soon(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, conn: conn}
	t.Cleanup(func() {
		c.asked.Wait() // ends with the test's context
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return c
}

func (c *client) query(sql string) (string, error) {
	results, err := c.conn.Exec(soon(c.t), sql).ReadAll()
	if err != nil {
		return "", err
	}
	last := results[len(results)-1]
	if len(last.Rows) == 0 {
		return "", nil
	}
	return string(last.Rows[0][0]), nil
}

func (c *client) must(sql string) string {
	c.t.Helper()
	v, err := c.query(sql)
	if err != nil {
		c.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// ask starts a query; the channel gets its error.
func (c *client) ask(sql string) <-chan error {
	done := make(chan error, 1)
	c.asked.Go(func() {
		_, err := c.query(sql)
		done <- err
	})
	return done
}

func wantDone(t *testing.T, what string, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-soon(t).Done():
		t.Fatalf("%s: does not end", what)
		return nil
	}
}

func parse(t testing.TB, dsn string) *pgconn.Config {
	t.Helper()
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func run(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}
