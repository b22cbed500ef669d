package membertest

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/process"
)

// Command is what a child does in place of cmd/pgbaton: BINARY childMark CONFIG-AS-JSON _keep.
type Command func(ctx context.Context, m *member.Member, in io.Reader, out io.Writer) int

// Main is for TestMain. It runs the tests, and as a child one of the commands, by their names; it checks that no goroutine is left over.
func Main(m *testing.M, commands map[string]Command) {
	if code, ok := process.Detach(os.Args); ok {
		os.Exit(code)
	}
	if i := slices.Index(os.Args, childMark); i > 0 && len(os.Args) > i+2 {
		os.Exit(child(commands, os.Args[i+1], os.Args[i+2]))
	}
	// Children of a binary with the race detector would each sleep a second at their end.
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0")
	flag.Parse()
	// The tests wait for servers more than they work, so more of them than there are processors.
	if p := flag.Lookup("test.parallel"); p.Value.String() == p.DefValue {
		_ = p.Value.Set("4")
	}
	code := m.Run()
	shared.close()
	endChildren()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// child is cmd/pgbaton in small.
func child(commands map[string]Command, file, name string) int {
	var told childConfig
	content, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(content, &told)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return member.Invalid
	}
	c := &config.Config{StateDir: told.StateDir, Postgres: told.Postgres, Pause: told.Pause,
		Resume: config.Resume{Timeout: time.Minute}}
	c.Patroni.URL = told.PatroniURL
	for _, p := range told.Poolers {
		c.Poolers = append(c.Poolers, config.Pooler{DSN: p.DSN, Follow: p.Follow})
	}
	m := &member.Member{Config: c, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	do := commands[name]
	if do == nil {
		return member.Invalid
	}
	return do(context.Background(), m, os.Stdin, os.Stdout)
}

// childMark makes the test's binary do a subcommand's work: BINARY childMark CONFIG-AS-JSON _keep.
const childMark = "hooks-test-child"

// endChildren ends the keepers that are still at it: a keeper insists on a pooler that its test has ended, and go test waits for whoever
// holds its standard error. They are known by this binary's path, which no other process has.
func endChildren() {
	self, err := os.Executable()
	if err != nil {
		return
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range processes {
		cmdline, _ := os.ReadFile(path)
		args := strings.Split(string(cmdline), "\x00")
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && pid != os.Getpid() && args[0] == self && slices.Contains(args, childMark) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// childConfig is what a keeper needs to know. (A [config.Config] shows no passwords, so it cannot be written out.)
type childConfig struct {
	StateDir   string
	Postgres   string
	PatroniURL string
	Poolers    []childPooler // a config.Pooler keeps its password to itself
	Pause      config.Pause
}

type childPooler struct {
	DSN    string
	Follow *config.Follow
}

// shared is a server for the tests that do not look at its sessions, and idle are those that no test has at the moment:
// initdb takes longer than most tests.
var shared sharedServers

type sharedServers struct {
	once sync.Once
	pg   *single.Postgres
	err  error

	mu   sync.Mutex
	idle []*single.Postgres
}

func (s *sharedServers) close() {
	if s.pg != nil {
		s.idle = append(s.idle, s.pg)
	}
	for _, pg := range s.idle {
		pg.Close()
	}
}

// OwnPostgres is a server for one test alone.
func OwnPostgres(t *testing.T) *single.Postgres {
	t.Helper()
	single.Need(t)
	var pg *single.Postgres
	shared.mu.Lock()
	if n := len(shared.idle); n > 0 {
		pg, shared.idle = shared.idle[n-1], shared.idle[:n-1]
	}
	shared.mu.Unlock()
	if pg == nil {
		var err error
		if pg, err = single.StartPostgres(t.Context(), single.SuiteTrixie, single.PostgresOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if Stopped(pg) || t.Failed() {
			pg.Close()
			return
		}
		shared.mu.Lock()
		shared.idle = append(shared.idle, pg)
		shared.mu.Unlock()
	})
	return pg
}

func SharedPostgres(t *testing.T) *single.Postgres {
	t.Helper()
	single.Need(t)
	shared.once.Do(func() {
		shared.pg, shared.err = single.StartPostgres(context.Background(), single.SuiteTrixie, single.PostgresOptions{})
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.pg
}

func StartPooler(t *testing.T, suite string, pg *single.Postgres) *single.PgBouncer {
	t.Helper()
	b, err := single.StartPgBouncer(t.Context(), suite, single.PgBouncerOptions{Backend: pg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// SecondProcess starts another process on the same address and port, for a pooler with so_reuseport.
func SecondProcess(t *testing.T, b *single.PgBouncer) *single.PgBouncer {
	t.Helper()
	config, err := b.Config()
	if err != nil {
		t.Fatal(err)
	}
	other, err := single.StartPgBouncer(t.Context(), b.Suite, single.PgBouncerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	other.Stop()
	config = strings.ReplaceAll(config, b.Dir, other.Dir) // each sees its own folder only
	if err := other.RewriteConfig(config); err != nil {
		t.Fatal(err)
	}
	other.Addr = b.Addr
	if err := other.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return other
}

var Suites = []string{single.SuiteHost, single.SuiteTrixie, single.SuiteSid}

// Log goes to the test's output.
func Log(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// New is a runtime for these poolers, with the configuration's defaults. Self is the test's binary.
func New(t *testing.T, pg *single.Postgres, poolers ...*single.PgBouncer) *member.Member {
	t.Helper()
	c := &config.Config{StateDir: t.TempDir(), Pause: config.Pause{Budget: 15 * time.Second, Attempt: 2 * time.Second,
		OnTimeout: config.OnTimeoutHold, Lease: 30 * time.Second, ShutdownBudget: 5 * time.Second, StopServer: true}}
	if pg != nil {
		c.Postgres = pg.SocketDSN("postgres", "postgres")
	}
	for _, b := range poolers {
		c.Poolers = append(c.Poolers, config.Pooler{DSN: b.AdminDSN()})
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m := &member.Member{Config: c, Log: Log(t), Self: []string{self, childMark, filepath.Join(t.TempDir(), "config.json")}}
	Tell(t, m)
	return m
}

// Tell has the children work with the configuration as it is now, as far as they need it.
func Tell(t *testing.T, m *member.Member) {
	t.Helper()
	c := m.Config
	told := childConfig{StateDir: c.StateDir, Postgres: c.Postgres, PatroniURL: c.Patroni.URL, Pause: c.Pause}
	for _, p := range c.Poolers {
		told.Poolers = append(told.Poolers, childPooler{p.DSN, p.Follow})
	}
	content, err := json.Marshal(told)
	if err == nil {
		err = os.WriteFile(m.Self[len(m.Self)-1], content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Eventually waits for a condition, for as long as a test may reasonably wait.
func Eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	Within(t, 10*time.Second, what, is)
}

func Within(t *testing.T, limit time.Duration, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for !is() {
		member.Sleep(ctx, 5*time.Millisecond)
		if ctx.Err() != nil {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// Admin runs statements on a pooler's console, as a person with psql.
func Admin(t *testing.T, b *single.PgBouncer, statements ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	cfg, err := pgconn.ParseConfig(b.AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	c, err := pgb.Connect(ctx, "admin", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, s := range statements {
		if _, err := c.Exec(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
}

// StateOf asks a pooler.
func StateOf(t *testing.T, b *single.PgBouncer) pgb.State {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	poolers, errs := pgb.Resolve(ctx, []pgb.Spec{{DSN: b.AdminDSN()}}, nil)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	defer member.CloseAll(poolers)
	s, err := poolers[0].State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Usable reports whether a new client's query goes through; that proves in every version that nothing is paused.
func Usable(t *testing.T, b *single.PgBouncer, limit time.Duration) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c, err := pgconn.Connect(ctx, b.DSN("postgres", "postgres"))
	if err != nil {
		return false
	}
	defer func() { _ = c.Conn().Close() }()
	_, err = c.Exec(ctx, "select 1").ReadAll()
	return err == nil
}

const DefaultRetry = 15 * time.Second // server_login_retry

// PutBack checks that the pooler carries no mark and is as it was configured.
func PutBack(t *testing.T, b *single.PgBouncer) {
	t.Helper()
	if s := StateOf(t, b); s.Mark != nil || s.LoginRetry != DefaultRetry {
		t.Errorf("server_login_retry is %s, mark %+v", s.LoginRetry, s.Mark)
	}
}

// client is a session through a pooler, or straight to a server.
type client struct {
	t    *testing.T
	conn *pgconn.PgConn
}

func Connect(t *testing.T, dsn string) *client {
	t.Helper()
	c, err := pgconn.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Conn().Close() })
	return &client{t, c}
}

func (c *client) Exec(sql string) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	_, err := c.conn.Exec(ctx, sql).ReadAll()
	return err
}

// Value is the only value of an answer.
func (c *client) Value(sql string) (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	results, err := c.conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	return string(results[0].Rows[0][0]), nil
}

// Close ends the session.
func (c *client) Close() { _ = c.conn.Close(c.t.Context()) }

func (c *client) Must(sql string) {
	c.t.Helper()
	if err := c.Exec(sql); err != nil {
		c.t.Fatalf("%s: %v", sql, err)
	}
}

// LetGo ends the pause that a test leaves and waits until the processes that its hooks have started have ended: they write into the state
// directory, which is about to go. It is for cleanups, where a test's own context has ended.
func LetGo(m *member.Member, b *single.PgBouncer) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	defer func() {
		for ctx.Err() == nil {
			if !childrenOf(m) {
				return
			}
			member.Sleep(ctx, 10*time.Millisecond)
		}
	}()
	poolers, _ := pgb.Resolve(ctx, []pgb.Spec{{DSN: b.AdminDSN()}}, nil)
	defer member.CloseAll(poolers)
	for _, p := range poolers {
		_, _ = p.ResumeEverything(ctx)
		_ = p.Unmark(ctx)
	}
}

// childrenOf reports whether a process runs that was started with this member's configuration.
func childrenOf(m *member.Member) bool {
	pids, _ := process.All()
	for _, pid := range pids {
		p, err := process.Open(pid)
		if err != nil {
			continue
		}
		args, err := p.Args()
		p.Close()
		if err == nil && slices.Contains(args, m.Self[2]) {
			return true
		}
	}
	return false
}

func Stopped(pg *single.Postgres) bool {
	select {
	case <-pg.Exited():
		return true
	default:
		return false
	}
}

// Automatic has databases: auto, and logs in over the network as the poolers do.
func Automatic(m *member.Member, pg *single.Postgres) {
	m.Config.Postgres = pg.DSN("postgres", "postgres")
	for i := range m.Config.Poolers {
		m.Config.Poolers[i].Databases.Auto = true
	}
}

// Singly has the database postgres paused for itself under the guard's mark, as by a guard that could find out that it is ours, on a pooler
// of which that cannot be found out now. The database has a line of its own: an idle entry of a "*" line is not listed, paused or not.
func Singly(t *testing.T, suite string) (*single.PgBouncer, *member.Member) {
	t.Helper()
	pg := SharedPostgres(t)
	b, err := single.StartPgBouncer(
		t.Context(),
		suite,
		single.PgBouncerOptions{Backend: pg, Databases: fmt.Sprintf("postgres = host=%s port=%d", pg.Addr, pg.Port)},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	m := New(t, pg, b)
	Abandoned(t, m, pgb.Guard, "postgres")
	if s := StateOf(t, b); s.Paused || !slices.Equal(s.PausedDBs, []string{"postgres"}) {
		t.Fatalf("%+v", s)
	}
	return b, m
}

// Abandoned leaves a pause, of everything or of single databases, on the pooler that no keeper will end.
func Abandoned(t *testing.T, m *member.Member, owner pgb.Owner, databases ...string) {
	t.Helper()
	poolers, _, errs := m.Poolers(t.Context(), nil)
	defer member.CloseAll(poolers)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for _, p := range poolers {
		p.Databases = databases
		if _, _, err := p.Mark(t.Context(), owner, 4); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// OpenTransaction is a client of the pooler that is in the middle of one.
func OpenTransaction(t *testing.T, b *single.PgBouncer) *client {
	t.Helper()
	c := Connect(t, b.DSN("postgres", "postgres"))
	c.Must("begin")
	c.Must("select txid_current()")
	return c
}

// Databases writes the section [databases] of a pooler's file anew, and has the pooler read it.
func Databases(t *testing.T, b *single.PgBouncer, entries string) {
	t.Helper()
	text, err := b.Config()
	if err != nil {
		t.Fatal(err)
	}
	_, settings, _ := strings.Cut(text, "[pgbouncer]")
	if err := b.RewriteConfig("[databases]\n" + entries + "\n[pgbouncer]" + settings); err != nil {
		t.Fatal(err)
	}
	Reload(t, b)
}

// Reload has a pooler read its files.
func Reload(t *testing.T, b *single.PgBouncer) {
	t.Helper()
	c, err := pgconn.Connect(t.Context(), b.AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	if _, err := c.Exec(t.Context(), "RELOAD").ReadAll(); err != nil {
		t.Fatal(err)
	}
}

// Owner of a file.
func Owner(info os.FileInfo) (uid, gid int) {
	s := info.Sys().(*syscall.Stat_t)
	return int(s.Uid), int(s.Gid)
}
