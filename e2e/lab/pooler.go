package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Pooler is one PgBouncer, as a container.
type Pooler struct {
	Name    string
	Address string

	lab  *Lab
	spec containerSpec
	etc  string // host directory, /etc/pgbouncer inside

	mu sync.Mutex
	c  *container
}

func (p *Pooler) String() string { return p.Name }

func (p *Pooler) container() *container {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.c
}

// DSN is a connection string for clients: the database postgres, as postgres, through this pooler; or through the HAProxy in front of the
// poolers that stand on the members.
func (p *Pooler) DSN() string { return p.dsn(p.clientAddress()) }

// OwnDSN is DSN past any HAProxy.
func (p *Pooler) OwnDSN() string { return p.dsn(p.Address) }

func (p *Pooler) dsn(address string) string {
	return fmt.Sprintf("postgres://postgres:%s@%s:6432/postgres?sslmode=disable", p.lab.SuperuserPassword, address)
}

// clientAddress is where clients connect to.
func (p *Pooler) clientAddress() string {
	if p.lab.opts.Beside {
		return p.lab.Front()
	}
	return p.Address
}

// AdminDSN is a connection string for the admin console.
func (p *Pooler) AdminDSN() string {
	return fmt.Sprintf("postgres://pgbouncer_admin:%s@%s:6432/pgbouncer?sslmode=disable", p.lab.AdminPassword, p.Address)
}

// PIDFile is the pid file's host path. The number in it counts in the pooler's own PID namespace.
func (p *Pooler) PIDFile() string {
	return fmt.Sprintf("/proc/%d/root/run/pgbouncer/pgbouncer.pid", p.PID())
}

// LogFile is the host path of PgBouncer's log.
func (p *Pooler) LogFile() string { return filepath.Join(p.lab.logDir, p.Name, "pgbouncer.log") }

// ConfigFile is the host path of pgbouncer.ini (/etc/pgbouncer/pgbouncer.ini inside), see [Pooler.WriteConfig].
func (p *Pooler) ConfigFile() string { return filepath.Join(p.etc, "pgbouncer.ini") }

// PID is the process id on this machine, 0 if it does not run.
func (p *Pooler) PID() int {
	if c := p.container(); c.running() {
		return c.pid
	}
	return 0
}

func (p *Pooler) create() error {
	l := p.lab
	var err error
	if p.spec, err = l.container(p.Name); err != nil {
		return err
	}
	p.etc = filepath.Join(l.dir, "etc-"+p.Name)
	if err := os.MkdirAll(p.etc, 0o755); err != nil {
		return err
	}
	if l.opts.Beside {
		p.spec.binds = append(p.spec.binds, l.besideBinds(slices.Index(l.poolers, p))...)
	} else {
		p.spec.binds = append(p.spec.binds, bind{p.etc, "/etc/pgbouncer", false})
	}
	if l.opts.Apart {
		p.spec.binds = append(p.spec.binds, bind{l.opts.Callbacks, "/callbacks", true})
		if err := errors.Join(os.Chown(p.etc, l.uid, l.gid), p.WriteDatabases(apartEntries)); err != nil {
			return err
		}
	}
	users := fmt.Sprintf("%q %q\n%q %q\n%q %q\n", "postgres", l.SuperuserPassword,
		"pgbouncer_admin", l.AdminPassword, "pgbouncer_stats", l.AdminPassword)
	userlist := filepath.Join(p.etc, "userlist.txt")
	if err := errors.Join(os.WriteFile(userlist, []byte(users), 0o600), os.Chown(userlist, l.uid, l.gid),
		p.WriteConfig(l.opts.PgBouncerDatabases, l.opts.PgBouncer)); err != nil {
		return err
	}
	p.spec.argv = asPostgres("pgbouncer", "-q", "/etc/pgbouncer/pgbouncer.ini")
	return p.Start()
}

// WriteConfig writes pgbouncer.ini: the [databases] section, and settings over the lab's own (an empty
// value leaves a setting out). PgBouncer reads it at RELOAD.
func (p *Pooler) WriteConfig(databases string, settings map[string]string) error {
	err := os.WriteFile(p.ConfigFile(), []byte(p.ConfigText(databases, settings)), 0o644)
	if p.lab.opts.Beside { // it may be the file of the entries
		err = errors.Join(err, os.Chown(p.ConfigFile(), p.lab.uid, p.lab.gid))
	}
	return err
}

// apartEntries lead to the route.
const apartEntries = "postgres = host=cluster port=5432\n"

// WriteDatabases writes [DatabasesFile]. PgBouncer reads it at RELOAD.
func (p *Pooler) WriteDatabases(entries string) error {
	return errors.Join(os.WriteFile(p.DatabasesPath(), []byte(entries), 0o640), os.Chown(p.DatabasesPath(), p.lab.uid, p.lab.gid))
}

// Exec runs a program on the pooler's machine as the user postgres, and waits for its end. An exit code other than 0 is no error.
func (p *Pooler) Exec(ctx context.Context, argv ...string) (ExecResult, error) {
	return p.container().exec(ctx, "postgres", environ(p.spec.env), argv...)
}

// ConfigText is what WriteConfig writes.
func (p *Pooler) ConfigText(databases string, settings map[string]string) string {
	all := map[string]string{
		"listen_addr": p.Address, "listen_port": "6432", "unix_socket_dir": "/run/pgbouncer",
		"pidfile": "/run/pgbouncer/pgbouncer.pid", "logfile": "/var/log/lab/pgbouncer.log",
		"pool_mode": "transaction", "max_client_conn": "1000", "default_pool_size": "100",
		"auth_type": "scram-sha-256", "auth_file": "/etc/pgbouncer/userlist.txt",
		"admin_users": "pgbouncer_admin", "stats_users": "pgbouncer_stats",
		"application_name_add_host": "1", "ignore_startup_parameters": "extra_float_digits", "server_check_query": ";",
	}
	maps.Copy(all, settings)
	var b strings.Builder
	fmt.Fprintf(&b, "[databases]\n%s\n\n[pgbouncer]\n", databases)
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if all[k] != "" {
			fmt.Fprintf(&b, "%s = %s\n", k, all[k])
		}
	}
	return b.String()
}

// Reload writes the configuration and has PgBouncer read it.
func (p *Pooler) Reload(ctx context.Context, databases string, settings map[string]string) error {
	if err := p.WriteConfig(databases, settings); err != nil {
		return err
	}
	_, _, err := p.Admin(ctx, "RELOAD")
	return err
}

// Start starts the pooler's process.
func (p *Pooler) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.c.running() {
		return fmt.Errorf("%s runs already", p.Name)
	}
	c, err := p.spec.start()
	if err == nil {
		p.c = c
	}
	return err
}

// Running tells whether the pooler's process exists.
func (p *Pooler) Running() bool { return p.container().running() }

// Signal sends a signal to PgBouncer: TERM, INT, HUP, USR1, USR2.
func (p *Pooler) Signal(sig syscall.Signal) error {
	if pid := p.PID(); pid != 0 {
		return syscall.Kill(pid, sig)
	}
	return fmt.Errorf("%s does not run", p.Name)
}

// Kill ends PgBouncer at once.
func (p *Pooler) Kill() { p.container().kill() }

// Freeze stops PgBouncer (SIGSTOP) until [Pooler.Thaw]: the kernel still takes connections for it.
func (p *Pooler) Freeze() error { return p.Signal(syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (p *Pooler) Thaw() error { return p.Signal(syscall.SIGCONT) }

// Admin runs one statement on the admin console and returns its rows by column name, and its tag. It
// never sends a cancel request; when ctx ends it just hangs up.
func (p *Pooler) Admin(ctx context.Context, statement string) ([]map[string]string, string, error) {
	rows, tag, err := simpleQuery(ctx, p.AdminDSN(), statement)
	if err != nil {
		return nil, tag, fmt.Errorf("%s: %s: %w", p.Name, statement, err)
	}
	return rows, tag, nil
}

// Config is SHOW CONFIG: each setting's value.
func (p *Pooler) Config(ctx context.Context) (map[string]string, error) {
	rows, _, err := p.Admin(ctx, "SHOW CONFIG")
	if err != nil {
		return nil, err
	}
	config := map[string]string{}
	for _, r := range rows {
		config[r["key"]] = r["value"]
	}
	return config, nil
}

// Paused tells whether there is a global PAUSE, or one of a single database.
func (p *Pooler) Paused(ctx context.Context) (bool, error) {
	rows, _, err := p.Admin(ctx, "SHOW STATE")
	if err != nil {
		return false, err
	}
	for _, r := range rows {
		if r["key"] == "paused" && r["value"] != "no" {
			return true, nil
		}
	}
	rows, _, err = p.Admin(ctx, "SHOW DATABASES")
	if err != nil {
		return false, err
	}
	for _, r := range rows {
		if r["paused"] == "1" {
			return true, nil
		}
	}
	return false, nil
}

// PoolerConfigs is the SHOW CONFIG of every running pooler by name, to compare before and after.
func (l *Lab) PoolerConfigs(ctx context.Context) (map[string]map[string]string, error) {
	all := map[string]map[string]string{}
	for _, p := range l.poolers {
		if !p.Running() {
			continue
		}
		config, err := p.Config(ctx)
		if err != nil {
			return nil, err
		}
		all[p.Name] = config
	}
	return all, nil
}

// Paused names the running poolers that are paused.
func (l *Lab) Paused(ctx context.Context) ([]string, error) {
	var names []string
	for _, p := range l.poolers {
		if !p.Running() {
			continue
		}
		paused, err := p.Paused(ctx)
		if err != nil {
			return names, err
		}
		if paused {
			names = append(names, p.Name)
		}
	}
	return names, nil
}
