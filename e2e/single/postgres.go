package single

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// PostgresOptions change what is started. The zero value is good.
type PostgresOptions struct {
	Settings   map[string]string // added to postgresql.conf, as `name = 'value'`
	KeepZombie bool              // nobody reaps the postmaster before Close or Reap
	SocketOnly bool              // no TCP
}

// Postgres is a running server. Superuser postgres: without a password on the socket, with [Password]
// (SCRAM) by TCP. Replication is allowed in the same way.
type Postgres struct {
	Suite     string
	Addr      string // 127.x.y.z
	Port      uint16
	Dir       string // everything is below
	SocketDir string
	DataDir   string // the same path for the server and for us
	Log       string
	PID       int // of the postmaster, in our pid namespace

	root string
	opts PostgresOptions
	proc *process
}

// StartPostgres makes a new cluster and returns when the server answers queries.
func StartPostgres(ctx context.Context, suite string, opts PostgresOptions) (_ *Postgres, err error) {
	root, err := rootOf(ctx, suite)
	if err != nil {
		return nil, err
	}
	p := &Postgres{Suite: suite, Port: 5439, root: root, opts: opts}
	if p.Addr, err = address(p.Port); err != nil {
		return nil, err
	}
	if p.Dir, err = folder(root); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	p.SocketDir, p.DataDir, p.Log = p.Dir, filepath.Join(p.Dir, "data"), filepath.Join(p.Dir, "log")

	if err := p.newCluster(ctx); err != nil {
		return nil, err
	}
	settings := map[string]string{
		"listen_addresses": p.Addr, "port": fmt.Sprint(p.Port), "unix_socket_directories": p.SocketDir,
		"fsync": "off", "shared_buffers": "16MB", "max_connections": "60", "log_line_prefix": "%m [%p] ",
		"max_wal_senders": "5", "timezone": "UTC",
	}
	if opts.SocketOnly {
		settings["listen_addresses"] = ""
	}
	for k, v := range opts.Settings {
		settings[k] = v
	}
	var conf strings.Builder
	for k, v := range settings {
		fmt.Fprintf(&conf, "%s = '%s'\n", k, strings.ReplaceAll(v, "'", "''"))
	}
	f, err := os.OpenFile(filepath.Join(p.DataDir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(conf.String())
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	hba := "local all all trust\nlocal replication all trust\n" +
		"host all all 127.0.0.0/8 scram-sha-256\nhost replication all 127.0.0.0/8 scram-sha-256\n"
	if err := write(root, filepath.Join(p.DataDir, "pg_hba.conf"), hba, 0o600); err != nil {
		return nil, err
	}
	if err := p.Start(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// StartStandby makes a streaming standby of a running server, from a base backup, and returns when it answers queries. It has an address of
// its own; [Postgres.Exec] of "select pg_promote()" makes it a primary.
func StartStandby(ctx context.Context, of *Postgres) (_ *Postgres, err error) {
	p := &Postgres{Suite: of.Suite, Port: of.Port, root: of.root}
	if p.Addr, err = address(p.Port); err != nil {
		return nil, err
	}
	if p.Dir, err = folder(p.root); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	p.SocketDir, p.DataDir, p.Log = p.Dir, filepath.Join(p.Dir, "data"), filepath.Join(p.Dir, "log")
	backup, err := spawn(p.root, p.Dir, "postgres", p.Log, false, "/usr/local/pgbin/pg_basebackup", "--pgdata="+p.DataDir,
		"--dbname="+of.DSN("postgres", "postgres"), "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
	if err != nil {
		return nil, err
	}
	select {
	case <-backup.exited:
	case <-ctx.Done():
		backup.end(syscall.SIGKILL, time.Second)
		return nil, ctx.Err()
	}
	f, err := os.OpenFile(filepath.Join(p.DataDir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("pg_basebackup made nothing: %w\n%s", err, tail(p.Log))
	}
	_, err = fmt.Fprintf(f, "listen_addresses = '%s'\nunix_socket_directories = '%s'\n", p.Addr, p.SocketDir)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := p.Start(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// Start starts the server again after Stop or Kill, on the same address and data.
func (p *Postgres) Start(ctx context.Context) error {
	proc, err := spawn(p.root, p.Dir, "postgres", p.Log, p.opts.KeepZombie, "/usr/local/pgbin/postgres", "-D", p.DataDir)
	if err != nil {
		return err
	}
	p.proc, p.PID = proc, proc.pid
	return proc.await(ctx, p.Log, func(ctx context.Context) error {
		return p.Exec(ctx, "select 1")
	})
}

// Exec runs SQL as the superuser, on a connection of its own over the socket.
func (p *Postgres) Exec(ctx context.Context, sql string) error {
	c, err := pgconn.Connect(ctx, p.SocketDSN("postgres", "postgres"))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, sql).ReadAll()
	return err
}

// DSN is a connection string over TCP with [Password].
func (p *Postgres) DSN(user, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, Password), Host: fmt.Sprintf("%s:%d", p.Addr, p.Port),
		Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// SocketDSN is a connection string over the Unix socket.
func (p *Postgres) SocketDSN(user, database string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable", p.SocketDir, p.Port, user, database)
}

// Stop is a fast shutdown; it returns when the process is gone and reaped.
func (p *Postgres) Stop() { p.proc.end(syscall.SIGINT, 10*time.Second) }

// Kill is kill -9 of the postmaster; its children end by themselves a moment later.
func (p *Postgres) Kill() { p.proc.end(syscall.SIGKILL, 10*time.Second) }

// Reap lets the postmaster be reaped from now on, where KeepZombie has kept it.
func (p *Postgres) Reap() { p.proc.once.Do(func() { close(p.proc.reap) }) }

// Exited is closed when the postmaster has ended and was reaped.
func (p *Postgres) Exited() <-chan struct{} { return p.proc.exited }

// Freeze stops the postmaster (SIGSTOP): TCP connects, nobody answers. Sessions go on.
func (p *Postgres) Freeze() error { return p.proc.signal(syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (p *Postgres) Thaw() error { return p.proc.signal(syscall.SIGCONT) }

// Close ends the server and removes its folder. It may be called twice.
func (p *Postgres) Close() {
	if p.proc != nil {
		p.proc.end(syscall.SIGQUIT, 5*time.Second)
	}
	if p.Dir != "" {
		_ = os.RemoveAll(p.Dir)
	}
}

func sorted(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
