package single

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// AdminUser may use the admin console, with [Password].
const AdminUser = "pgbouncer_admin"

// PgBouncerOptions change what is started.
type PgBouncerOptions struct {
	Backend   *Postgres         // where "* =" leads
	Databases string            // lines for [databases], instead of "* = …"
	Settings  map[string]string // for [pgbouncer], over the defaults; an empty value leaves a default out
	Users     map[string]string // user to password, besides AdminUser and postgres
	AuthFile  string            // the whole auth_file, instead of Users and the defaults
	Port      uint16            // 6439 where it is 0
	Config    string            // the whole configuration, instead of all of the above; {dir} {addr} {port} {admin} are filled in
}

// PgBouncer is a running pooler. Paths are those of the host and of PgBouncer alike.
type PgBouncer struct {
	Suite      string
	Addr       string // 127.x.y.z
	Port       uint16
	Dir        string
	SocketDir  string
	Pidfile    string
	Log        string
	ConfigPath string
	AuthPath   string
	PID        int

	root string
	proc *process
}

// StartPgBouncer returns when the admin console answers.
func StartPgBouncer(ctx context.Context, suite string, opts PgBouncerOptions) (_ *PgBouncer, err error) {
	if suite == SuiteHost {
		if err := installHostPgBouncer(ctx); err != nil {
			return nil, err
		}
	}
	root, err := rootOf(ctx, suite)
	if err != nil {
		return nil, err
	}
	b := &PgBouncer{Suite: suite, Port: cmp.Or(opts.Port, 6439), root: root}
	if b.Addr, err = address(b.Port); err != nil {
		return nil, err
	}
	if b.Dir, err = folder(root); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	b.SocketDir, b.Pidfile, b.Log = b.Dir, filepath.Join(b.Dir, "pgbouncer.pid"), filepath.Join(b.Dir, "log")
	b.ConfigPath, b.AuthPath = filepath.Join(b.Dir, "pgbouncer.ini"), filepath.Join(b.Dir, "users")

	if err := write(root, b.AuthPath, authFile(opts), 0o600); err != nil {
		return nil, err
	}
	if err := b.RewriteConfig(b.config(opts)); err != nil {
		return nil, err
	}
	if err := b.Start(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

func authFile(opts PgBouncerOptions) string {
	if opts.AuthFile != "" {
		return opts.AuthFile
	}
	users := map[string]string{AdminUser: Password, "postgres": Password}
	for u, p := range opts.Users {
		users[u] = p
	}
	var s strings.Builder
	for _, u := range sorted(users) {
		fmt.Fprintf(&s, "%q %q\n", u, users[u])
	}
	return s.String()
}

func (b *PgBouncer) config(opts PgBouncerOptions) string {
	if opts.Config != "" {
		return strings.NewReplacer("{dir}", b.Dir, "{addr}", b.Addr, "{port}", fmt.Sprint(b.Port), "{admin}", AdminUser).
			Replace(opts.Config)
	}
	databases := opts.Databases
	if databases == "" && opts.Backend != nil {
		databases = fmt.Sprintf("* = host=%s port=%d", opts.Backend.Addr, opts.Backend.Port)
	}
	settings := map[string]string{
		"listen_addr": b.Addr, "listen_port": fmt.Sprint(b.Port), "unix_socket_dir": b.SocketDir,
		"pidfile": b.Pidfile, "logfile": b.Log, "auth_type": "scram-sha-256", "auth_file": b.AuthPath,
		"admin_users": AdminUser, "pool_mode": "transaction", "max_client_conn": "200", "default_pool_size": "20",
	}
	for k, v := range opts.Settings {
		settings[k] = v
	}
	var s strings.Builder
	fmt.Fprintf(&s, "[databases]\n%s\n\n[pgbouncer]\n", databases)
	for _, k := range sorted(settings) {
		if settings[k] != "" {
			fmt.Fprintf(&s, "%s = %s\n", k, settings[k])
		}
	}
	return s.String()
}

// RewriteConfig replaces the configuration file; PgBouncer reads it at RELOAD or SIGHUP.
func (b *PgBouncer) RewriteConfig(config string) error {
	return write(b.root, b.ConfigPath, config, 0o644)
}

// Config returns the configuration file's text.
func (b *PgBouncer) Config() (string, error) {
	t, err := os.ReadFile(b.ConfigPath)
	return string(t), err
}

// Start starts it again after Stop or Kill.
func (b *PgBouncer) Start(ctx context.Context) error {
	// A pidfile of a killed process is in nobody's way except ours, who wait for the new one.
	_ = os.Remove(b.Pidfile)
	proc, err := spawn(b.root, b.Dir, "postgres", filepath.Join(b.Dir, "stderr"), false, "/usr/sbin/pgbouncer", b.ConfigPath)
	if err != nil {
		return err
	}
	b.proc, b.PID = proc, proc.pid
	return proc.await(ctx, filepath.Join(b.Dir, "stderr"), func(ctx context.Context) error {
		if _, err := os.Stat(b.Pidfile); err != nil {
			return err
		}
		c, err := pgconn.Connect(ctx, b.AdminDSN())
		if err != nil {
			return err
		}
		return c.Close(ctx)
	})
}

// AdminDSN leads to the admin console over TCP.
func (b *PgBouncer) AdminDSN() string { return b.DSN(AdminUser, "pgbouncer") }

// DSN leads to a database through the pooler, over TCP with [Password].
func (b *PgBouncer) DSN(user, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, Password), Host: fmt.Sprintf("%s:%d", b.Addr, b.Port),
		Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Stop ends it as fast as it can without a mess (SIGTERM, for 2 s; then KILL: 1.23 and later wait for
// their clients).
func (b *PgBouncer) Stop() { b.proc.end(syscall.SIGTERM, 2*time.Second) }

// Kill is kill -9.
func (b *PgBouncer) Kill() { b.proc.end(syscall.SIGKILL, 10*time.Second) }

// Freeze is SIGSTOP: TCP connects, nobody answers.
func (b *PgBouncer) Freeze() error { return b.proc.signal(syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (b *PgBouncer) Thaw() error { return b.proc.signal(syscall.SIGCONT) }

// Exited is closed when the process has ended.
func (b *PgBouncer) Exited() <-chan struct{} { return b.proc.exited }

// Close ends it and removes its folder. It may be called twice.
func (b *PgBouncer) Close() {
	if b.proc != nil {
		b.proc.end(syscall.SIGKILL, 5*time.Second)
	}
	if b.Dir != "" {
		_ = os.RemoveAll(b.Dir)
	}
}

// installHostPgBouncer installs Debian's package where it is missing, without starting its service.
func installHostPgBouncer(ctx context.Context) error {
	if _, err := os.Stat("/usr/sbin/pgbouncer"); err == nil {
		return nil
	}
	const script = `set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap 'rm -f $policy' EXIT
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
fi
apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends pgbouncer
`
	if out, err := exec.CommandContext(ctx, "sh", "-c", script).CombinedOutput(); err != nil {
		return fmt.Errorf("installing pgbouncer: %w\n%s", err, out)
	}
	return nil
}
