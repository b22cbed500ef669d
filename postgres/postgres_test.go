package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/goleak"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/postgres"
)

// childDSN makes the test binary a client in another pid namespace; see TestPostmasterInAnotherNamespace.
const childDSN = "PGBATON_TEST_CHILD_DSN"

func TestMain(m *testing.M) {
	if asHostileClient() {
		os.Exit(0)
	}
	if dsn := os.Getenv(childDSN); dsn != "" {
		_, err := postmaster(dsn)
		fmt.Println(err)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func postmaster(dsn string) (*postgres.Postmaster, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := postgres.Open(dsn)
	if err != nil {
		return nil, err
	}
	c, err := s.Connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Postmaster(ctx)
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func start(t *testing.T, suite string, opts single.PostgresOptions) *single.Postgres {
	t.Helper()
	single.Need(t)
	pg, err := single.StartPostgres(testContext(t), suite, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pg.Close)
	return pg
}

func connect(t *testing.T, dsn string) *postgres.Conn {
	t.Helper()
	s, err := postgres.Open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Connect(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// session opens a client of its own and runs the statements.
func session(t *testing.T, dsn, sql string) *pgconn.PgConn {
	t.Helper()
	c, err := pgconn.Connect(testContext(t), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Close(ctx)
	})
	if sql != "" {
		if _, err := c.Exec(testContext(t), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("not within 10 s: " + what)
		}
		<-tick.C
	}
}

func suites(t *testing.T, f func(t *testing.T, suite string)) {
	for _, s := range []string{single.SuiteTrixie, single.SuiteSid} {
		t.Run(s, func(t *testing.T) { f(t, s) })
	}
}

func TestServer(t *testing.T) {
	suites(t, func(t *testing.T, suite string) {
		pg := start(t, suite, single.PostgresOptions{})
		session(t, pg.SocketDSN("postgres", "postgres"), "create role weak login; create role seer login; grant pg_read_all_stats to seer")
		t.Run("identity", func(t *testing.T) { identity(t, pg) })
		t.Run("transactions", func(t *testing.T) { transactions(t, pg) })
		t.Run("at", func(t *testing.T) { at(t, pg) })
		t.Run("through PgBouncer", func(t *testing.T) { throughPgBouncer(t, pg) })
		t.Run("stuck statement", func(t *testing.T) { stuck(t, pg) })
		t.Run("lags", func(t *testing.T) { lags(t, pg) })
		t.Run("frozen", func(t *testing.T) { frozen(t, pg) })
		t.Run("not running", func(t *testing.T) { notRunning(t, pg) })
		t.Run("standby and promotion", func(t *testing.T) { promotion(t, pg) })
	})
}

func identity(t *testing.T, pg *single.Postgres) {
	ctx := testContext(t)
	a, err := connect(t, pg.SocketDSN("postgres", "postgres")).Identity(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", a)
	if a.InRecovery || a.ReadOnly || !a.Writable() || a.Timeline != 1 || a.SystemID == "" || a.ServerVersion < 170000 ||
		time.Since(a.PostmasterStart).Abs() > time.Minute {
		t.Errorf("a fresh primary is %+v", a)
	}
	b, err := connect(t, pg.SocketDSN("weak", "postgres")).Identity(ctx)
	if err != nil {
		t.Fatalf("without privileges: %v", err)
	}
	if b.SystemID == "" || !a.SameServer(b) {
		t.Errorf("the same server without privileges is %+v", b)
	}

	session(t, pg.SocketDSN("postgres", "postgres"), "revoke execute on function pg_control_system() from public")
	if b, err = connect(t, pg.SocketDSN("weak", "postgres")).Identity(ctx); err != nil || b.SystemID != "" || !a.SameServer(b) {
		t.Errorf("where pg_control_system() is refused: %+v, %v", b, err)
	}

	session(t, pg.SocketDSN("postgres", "postgres"), "alter role weak set default_transaction_read_only = on")
	if b, err = connect(t, pg.SocketDSN("weak", "postgres")).Identity(ctx); err != nil || !b.ReadOnly || b.InRecovery || b.Writable() {
		t.Errorf("read-only by default: %+v, %v", b, err)
	}
	session(t, pg.SocketDSN("postgres", "postgres"), "alter role weak reset default_transaction_read_only")

	other := b
	other.PostmasterStart = other.PostmasterStart.Add(time.Microsecond)
	if a.SameServer(other) || (postgres.Identity{}).SameServer(postgres.Identity{}) {
		t.Error("different servers taken for the same")
	}
}

func transactions(t *testing.T, pg *single.Postgres) {
	ctx := testContext(t)
	dsn := pg.SocketDSN("postgres", "postgres")
	c := connect(t, dsn)
	old := session(t, dsn+" application_name=old", "begin; select 1")
	session(t, pg.DSN("postgres", "postgres")+"&application_name=young", "begin; select 1")
	idle := session(t, dsn+" application_name=idle", "select 1")

	var open []postgres.Transaction
	eventually(t, "both transactions seen", func() bool {
		var err error
		if open, err = c.OpenTransactions(ctx); err != nil {
			t.Fatal(err)
		}
		return len(open) == 2 && open[1].State == "idle in transaction"
	})
	o := open[0]
	if o.Application != "old" || open[1].Application != "young" || o.PID != int32(old.PID()) || o.User != "postgres" ||
		o.Database != "postgres" || o.State != "idle in transaction" || o.Client != "" || !strings.HasPrefix(open[1].Client, "127.") ||
		o.Age <= 0 || o.Age > time.Minute || o.Start.Before(o.BackendStart) {
		t.Errorf("%+v", open)
	}

	all, err := c.ClientBackends(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if b := all[int32(idle.PID())]; b.Application != "idle" || !b.XactStart.IsZero() {
		t.Errorf("idle session: %+v", b)
	}
	for _, b := range all {
		if b.Application == "pgbaton" && b.User == "postgres" {
			t.Errorf("our own session is among them: %+v", b)
		}
	}

	seer := connect(t, pg.SocketDSN("seer", "postgres"))
	if open, err := seer.OpenTransactions(ctx); err != nil || len(open) != 2 {
		t.Errorf("with pg_read_all_stats: %+v, %v", open, err)
	}
	weak := connect(t, pg.SocketDSN("weak", "postgres"))
	if open, err := weak.OpenTransactions(ctx); !errors.Is(err, postgres.ErrHidden) || len(open) != 0 {
		t.Errorf("without pg_read_all_stats: %+v, %v", open, err)
	}
	if done, err := seer.Terminate(ctx, o.PID, o.BackendStart); done || !postgres.Denied(err) {
		t.Errorf("terminate without the right to: %v, %v", done, err)
	}

	if done, err := c.Terminate(ctx, o.PID, o.BackendStart.Add(time.Microsecond)); done || err != nil {
		t.Errorf("a later session with the same pid: %v, %v", done, err)
	}
	if done, err := c.Terminate(ctx, o.PID, o.BackendStart); !done || err != nil {
		t.Errorf("terminate: %v, %v", done, err)
	}
	eventually(t, "the old session ended", func() bool {
		open, err := c.OpenTransactions(ctx)
		return err == nil && len(open) == 1
	})
}

func at(t *testing.T, pg *single.Postgres) {
	ctx := testContext(t)
	local, err := connect(t, pg.SocketDSN("postgres", "postgres")).Identity(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, dsn := range []string{
		pg.SocketDSN("postgres", "postgres") + " password=" + single.Password,
		"postgres://postgres:" + single.Password + "@127.0.0.1:1,127.0.0.2:2/nosuch?sslmode=disable&target_session_attrs=standby",
		"postgres:///nosuch?host=" + pg.SocketDir + "&port=1&user=postgres&password=" + single.Password,
	} {
		s, err := postgres.Open(dsn)
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.At(postgres.Address{Host: pg.Addr, Port: pg.Port, Database: "postgres"}).Connect(ctx)
		if err != nil {
			t.Errorf("at %s: %v", dsn, err)
			continue
		}
		id, err := c.Identity(ctx)
		c.Close()
		if err != nil || !local.SameServer(id) {
			t.Errorf("at %s: %+v, %v", dsn, id, err)
		}
	}
	s, err := postgres.Open(pg.SocketDSN("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"", pg.SocketDir, "a,b", "h/postgres?sslmode=disable&x=", "h sslmode=disable", "h'", "fe80::1%lo", "-h",
		"a..b", strings.Repeat("a.", 127) + "a"} {
		if _, err := s.At(postgres.Address{Host: host, Port: 5432}).Connect(ctx); err == nil {
			t.Errorf("at %q: no error", host)
		}
	}
	// sslmode=require must not be lost on the way from the socket: this server has no TLS.
	s, err = postgres.Open(strings.Replace(pg.SocketDSN("postgres", "postgres"), "disable", "require", 1) + " password=" + single.Password)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.At(postgres.Address{Host: pg.Addr, Port: pg.Port}).Connect(ctx); err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("sslmode=require without TLS: %v", err)
	}
}

func throughPgBouncer(t *testing.T, pg *single.Postgres) {
	ctx := testContext(t)
	b, err := single.StartPgBouncer(ctx, pg.Suite, single.PgBouncerOptions{Backend: pg})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	local, err := connect(t, pg.SocketDSN("postgres", "postgres")).Identity(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c := connect(t, b.DSN("postgres", "postgres"))
	if id, err := c.Identity(ctx); err != nil || !local.SameServer(id) {
		t.Errorf("%+v, %v", id, err)
	}
	socket := fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres password=%s", b.SocketDir, b.Port, single.Password)
	if p, err := postmaster(socket); err == nil {
		p.Close()
		t.Error("PgBouncer's process taken for a postmaster")
	} else if !strings.Contains(err.Error(), `"pgbouncer"`) {
		t.Errorf("%v", err)
	}
}

// stuck: a context that ends during a statement ends the connection at once and leaves nothing behind.
func stuck(t *testing.T, pg *single.Postgres) {
	holder := session(t, pg.SocketDSN("postgres", "postgres"), "begin; lock pg_proc in access exclusive mode")
	c := connect(t, pg.SocketDSN("postgres", "postgres"))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	var err error
	// A new session has to read pg_proc, or this one has; either way nobody answers.
	if _, err = c.Identity(ctx); err == nil {
		t.Fatal("the lock is in nobody's way")
	}
	c.Close()
	if took := time.Since(begun); !postgres.Timeout(err) || took > 5*time.Second {
		t.Errorf("after %v: %v", took, err)
	}
	if _, err := holder.Exec(testContext(t), "rollback").ReadAll(); err != nil {
		t.Fatal(err)
	}
}

func lags(t *testing.T, pg *single.Postgres) {
	ctx := testContext(t)
	c := connect(t, pg.SocketDSN("postgres", "postgres"))
	if all, err := c.Lags(ctx); err != nil || len(all) != 0 {
		t.Fatalf("no standby: %+v, %v", all, err)
	}
	// A receiver that says it has flushed nothing yet: it never answers.
	r := session(t, pg.SocketDSN("postgres", "postgres")+" replication=yes application_name=s1", "")
	r.Frontend().SendQuery(&pgproto3.Query{String: "START_REPLICATION 0/1000000"})
	if err := r.Frontend().Flush(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the receiver shows", func() bool {
		all, err := c.Lags(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return len(all) == 1 && all[0].Application == "s1" && all[0].State != "" && all[0].SyncState == "async" && all[0].Replay == -1 &&
			all[0].Flush == -1
	})
	if all, err := connect(t, pg.SocketDSN("weak", "postgres")).Lags(ctx); !errors.Is(err, postgres.ErrHidden) || len(all) != 1 {
		t.Errorf("without pg_read_all_stats: %+v, %v", all, err)
	}
}

func frozen(t *testing.T, pg *single.Postgres) {
	if err := pg.Freeze(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pg.Thaw() }()
	s, err := postgres.Open(pg.DSN("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begun := time.Now()
	_, err = s.Connect(ctx)
	if took := time.Since(begun); !postgres.Timeout(err) || postgres.NotRunning(err) || took > 5*time.Second {
		t.Errorf("after %v: %v", took, err)
	}
	if strings.Contains(fmt.Sprint(err), single.Password) {
		t.Error("the error shows the password")
	}
}

func notRunning(t *testing.T, pg *single.Postgres) {
	ctx := testContext(t)
	c := connect(t, pg.SocketDSN("postgres", "postgres"))
	pg.Stop()
	if _, err := c.InRecovery(ctx); !postgres.Lost(err) && !ending(err) {
		t.Errorf("on the session of a server that was stopped: %v", err)
	}
	if _, err := c.InRecovery(ctx); !postgres.Lost(err) {
		t.Errorf("once more: %v", err)
	}
	for _, dsn := range []string{pg.DSN("postgres", "postgres"), pg.SocketDSN("postgres", "postgres")} {
		s, err := postgres.Open(dsn)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Connect(ctx); !postgres.NotRunning(err) {
			t.Errorf("%v", err)
		}
	}
}

// promotion starts the stopped server again as a standby of nobody, and promotes it.
func promotion(t *testing.T, pg *single.Postgres) {
	ctx := testContext(t)
	if err := os.WriteFile(filepath.Join(pg.DataDir, "standby.signal"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := pg.Start(ctx); err != nil {
		t.Fatal(err)
	}
	c := connect(t, pg.SocketDSN("postgres", "postgres"))
	a, err := c.Identity(ctx)
	if err != nil || !a.InRecovery || !a.ReadOnly || a.Writable() || a.Timeline != 0 || a.SystemID == "" {
		t.Fatalf("a standby is %+v, %v", a, err)
	}
	if _, err := c.Lags(ctx); err != nil {
		t.Errorf("lags on a standby: %v", err)
	}
	if _, err := c.OpenTransactions(ctx); err != nil {
		t.Errorf("transactions on a standby: %v", err)
	}
	if in, err := c.InRecovery(ctx); !in || err != nil {
		t.Errorf("in recovery: %v, %v", in, err)
	}
	session(t, pg.SocketDSN("postgres", "postgres"), "select pg_promote()")
	b, err := c.Identity(ctx)
	if err != nil || b.InRecovery || !b.Writable() || b.Timeline != 2 || !a.SameServer(b) {
		t.Errorf("promoted: %+v, %v", b, err)
	}
}

func TestPostmaster(t *testing.T) {
	suites(t, func(t *testing.T, suite string) {
		pg := start(t, suite, single.PostgresOptions{})
		p, err := postmaster(pg.DSN("postgres", "postgres"))
		if err != nil {
			t.Fatalf("by TCP: %v", err)
		}
		p.Close()
		if p.PID() != pg.PID {
			t.Errorf("by TCP: process %d, not %d", p.PID(), pg.PID)
		}
		if p, err = postmaster(pg.SocketDSN("postgres", "postgres")); err != nil {
			t.Fatalf("by socket: %v", err)
		}
		defer p.Close()
		if p.PID() != pg.PID {
			t.Errorf("by socket: process %d, not %d", p.PID(), pg.PID)
		}
		short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		var zombie *postgres.ZombieError
		if err := p.Gone(short); !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &zombie) {
			t.Errorf("while it runs: %v", err)
		}
		begun := time.Now()
		if err := p.FastShutdown(); err != nil {
			t.Fatal(err)
		}
		if err := p.Gone(testContext(t)); err != nil {
			t.Fatal(err)
		}
		t.Logf("fast shutdown took %v", time.Since(begun))
		if err := p.FastShutdown(); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("once more: %v", err)
		}
		if err := p.Gone(short); err != nil {
			t.Errorf("gone, asked when the time is over: %v", err)
		}
		if _, err := os.Stat(filepath.Join(pg.DataDir, "postmaster.pid")); err == nil {
			t.Error("postmaster.pid is still there")
		}
	})
}

func TestPostmasterZombie(t *testing.T) {
	pg := start(t, single.SuiteTrixie, single.PostgresOptions{KeepZombie: true})
	p, err := postmaster(pg.SocketDSN("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.FastShutdown(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a zombie", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		var zombie *postgres.ZombieError
		return errors.As(p.Gone(ctx), &zombie) && zombie.PID == pg.PID
	})
	gone := make(chan error, 1)
	go func() { gone <- p.Gone(testContext(t)) }()
	pg.Reap()
	if err := <-gone; err != nil {
		t.Errorf("reaped: %v", err)
	}
}

// A client in a pid namespace of its own sees the server's socket, not its process.
func TestPostmasterInAnotherNamespace(t *testing.T) {
	pg := start(t, single.SuiteTrixie, single.PostgresOptions{})
	for dsn, want := range map[string]string{
		pg.SocketDSN("postgres", "postgres"): "pid namespace that we cannot see",
		pg.DSN("postgres", "postgres"):       "process",
	} {
		cmd := exec.CommandContext(testContext(t), "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--", os.Args[0])
		cmd.Env = append(os.Environ(), childDSN+"="+dsn)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%v: %s", err, out)
		} else {
			t.Logf("%s", out)
		}
	}
}

func TestOpenErrorsShowNoPassword(t *testing.T) {
	for _, dsn := range []string{
		"postgres://u:pa:s3cret@h:bad/db", "postgres://u:s3cret@[::1/db", "host=h password='s3cret", "host=h port=x password=s3cret",
		"host=h sslmode=s3cret", "postgres://u:s3cret@h:99999/db", "host=h s3cret",
		"host=h sslmode=verify-full sslrootcert=/nonexistent/ca password=s3cret",
		"host=h service=nosuch password=s3cret", "host=h connect_timeout=s3cret",
	} {
		_, err := postgres.Open(dsn)
		if err == nil {
			t.Errorf("%s: no error", dsn)
		} else if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v", err)
		} else {
			t.Log(err)
		}
	}
	s, err := postgres.Open("host=127.0.0.1 port=1 user=u password=s3cret dbname=db")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Connect(testContext(t))
	if !postgres.NotRunning(err) || strings.Contains(err.Error(), "s3cret") || strings.Contains(s.String(), "s3cret") {
		t.Errorf("%v, %s", err, s)
	}
}

// A lying or silent server, which a real one is not on demand.
func TestConnectToSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := postgres.Open("host=127.0.0.1 sslmode=prefer user=u dbname=d port=" + strings.Split(l.Addr().String(), ":")[1])
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := s.Connect(ctx); !postgres.Timeout(err) {
		t.Errorf("%v", err)
	}
	if _, err := s.Connect(ctx); err == nil || errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("with a context that is over: %v", err)
	}
}

// ending reports whether the server takes no sessions because it stops, or has just ended this one to stop.
func ending(err error) bool {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains([]string{"57P03", "57P01", "57P02"}, refused.Code)
}
