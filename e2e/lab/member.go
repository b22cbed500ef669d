package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Member is one Patroni with its PostgreSQL, as a container.
type Member struct {
	Name    string
	Address string

	lab   *Lab
	index int
	proxy *dcsProxy
	spec  containerSpec
	etc   string // host directory, that of configFile inside

	mu sync.Mutex
	c  *container
}

func (m *Member) String() string { return m.Name }

func (m *Member) container() *container {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.c
}

// DSN is a connection string for the member's PostgreSQL, past pooler and route, as superuser.
func (m *Member) DSN() string {
	return fmt.Sprintf("postgres://postgres:%s@%s:5432/postgres?sslmode=disable", m.lab.SuperuserPassword, m.Address)
}

// URL is the address of the member's Patroni.
func (m *Member) URL() string { return "http://" + m.Address + ":8008" }

// LogFile is the host path of one of the member's logs: "patroni.log", "postgresql.log".
func (m *Member) LogFile(name string) string { return filepath.Join(m.lab.logDir, m.Name, name) }

// OutputFile is the host path of what the member's processes write to their terminal; what hooks print to
// stderr is there.
func (m *Member) OutputFile() string { return m.spec.output }

// DataDir is the host path of the member's PGDATA.
func (m *Member) DataDir() string { return filepath.Join(m.lab.dir, "data-"+m.Name, "data") }

func (m *Member) create() error {
	l := m.lab
	var err error
	if m.proxy, err = newDCSProxy(l.address(111+m.index)+":2379", l.address(1)+":2379"); err != nil {
		return err
	}
	if m.spec, err = l.container(m.Name); err != nil {
		return err
	}
	data := filepath.Dir(m.DataDir())
	m.etc = filepath.Join(l.dir, "etc-"+m.Name)
	for _, d := range []string{data, m.etc} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Chown(data, l.uid, l.gid), os.Chmod(data, 0o700)); err != nil {
		return err
	}
	m.spec.binds = append(m.spec.binds, bind{data, "/data", false}, bind{m.etc, filepath.Dir(m.configFile()), true})
	if l.opts.Beside {
		m.spec.binds = append(m.spec.binds, l.besideBinds(m.index)...)
	}
	if l.opts.Callbacks != "" {
		m.spec.binds = append(m.spec.binds, bind{l.opts.Callbacks, "/callbacks", true})
	}
	maps.Copy(m.spec.env, map[string]string{
		"PATRONICTL_CONFIG_FILE": m.configFile(),
		"RUNBOOK_POOLER":         fmt.Sprintf("postgres://pgbouncer_admin:%s@pgbouncer:6432/pgbouncer", l.AdminPassword),
	})
	maps.Copy(m.spec.env, l.opts.Env)
	m.spec.argv = append([]string{"tini", "--"}, asPostgres("patroni", m.configFile())...)
	if l.opts.Systemd {
		if err := m.underSystemd(); err != nil {
			return err
		}
	}
	if l.opts.Beside {
		m.spec.argv = slices.Insert(m.spec.argv, 2, asService...)
	}
	if err := m.writeConfig(); err != nil {
		return err
	}
	return m.Start()
}

// configFile is Patroni's own, as the member sees it.
func (m *Member) configFile() string {
	if m.lab.opts.Systemd {
		return "/etc/patroni/config.yml"
	}
	return "/etc/lab/patroni.yml"
}

// WriteConfig writes Patroni's file of the member anew (/etc/lab/patroni.yml inside, or what Debian's unit names): as the lab made it, changed by change if that is not nil,
// with lines behind it. Patroni reads it at its next reload.
func (m *Member) WriteConfig(change func(config map[string]any), lines string) error {
	config := m.config()
	if change != nil {
		change(config)
	}
	// JSON is YAML.
	content, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return err
	}
	content = append(content, "\n"+lines...)
	path := filepath.Join(m.etc, filepath.Base(m.configFile()))
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return err
	}
	return os.Chown(path, m.lab.uid, m.lab.gid)
}

func (m *Member) writeConfig() error { return m.WriteConfig(nil, "") }

func (m *Member) config() map[string]any {
	l := m.lab
	parameters := map[string]any{
		"max_connections": 300, "shared_buffers": "64MB", "wal_keep_size": "256MB", "max_wal_size": "512MB",
		"max_wal_senders": 10, "max_replication_slots": 10, "wal_log_hints": "on", "hot_standby": "on",
		// A replica that was quicker than Patroni's making of its slot asks again soon, not after 5 s.
		"wal_retrieve_retry_interval": "500ms",
	}
	for k, v := range l.opts.Parameters {
		parameters[k] = v
	}
	hooks := map[string]any{}
	if l.opts.Callback != "" {
		for _, event := range []string{"on_role_change", "on_start", "on_restart", "on_stop"} {
			hooks[event] = l.opts.Callback
		}
	}
	postgresql := map[string]any{
		"listen":          m.Address + ":5432",
		"connect_address": m.Address + ":5432",
		"use_unix_socket": true,
		"data_dir":        "/data/data",
		"bin_dir":         "/usr/local/pgbin",
		"pgpass":          "/tmp/patroni.pgpass",
		"authentication": map[string]any{
			"superuser":   map[string]any{"username": "postgres", "password": l.SuperuserPassword},
			"replication": map[string]any{"username": "replicator", "password": l.SuperuserPassword},
		},
		"parameters": map[string]any{
			"unix_socket_directories": "/var/run/postgresql", "logging_collector": "on", "log_directory": "/var/log/lab",
			"log_filename": "postgresql.log", "log_line_prefix": "%m [%p] ", "log_timezone": "UTC", "log_rotation_age": 0,
			"log_file_mode": "0644",
		},
		"pg_hba": []string{
			"local all all trust",
			"host replication all 127.0.0.0/8 scram-sha-256",
			"host all all 127.0.0.0/8 scram-sha-256",
		},
		// The first basebackup of a replica must not wait for a checkpoint that takes its time.
		"basebackup": []any{map[string]any{"checkpoint": "fast"}, "no-sync"},
		"remove_data_directory_on_rewind_failure": true,
		"callbacks": hooks,
	}
	if l.opts.Systemd { // which sets its own PATH
		postgresql["bin_dir"] = "/usr/local/pgbin"
	}
	if l.opts.BeforeStop != "" {
		postgresql["before_stop"] = l.opts.BeforeStop
	}
	// Members that wait for the bootstrap look once in a loop_wait: see [Lab.settle].
	loopWait, retryTimeout := time.Second, 3*time.Second
	if l.opts.Young {
		loopWait, retryTimeout = l.opts.LoopWait, l.opts.RetryTimeout
	}
	c := map[string]any{
		"scope": l.Scope, "name": m.Name,
		"log":     map[string]any{"level": "INFO", "dir": "/var/log/lab", "mode": 0o644},
		"restapi": map[string]any{"listen": m.Address + ":8008", "connect_address": m.Address + ":8008"},
		// As a proxy, so that Patroni does not find etcd's own address and goes there.
		"etcd3": map[string]any{"hosts": []string{l.address(111+m.index) + ":2379"}, "use_proxies": true},
		"bootstrap": map[string]any{
			"dcs": map[string]any{
				"ttl": int(l.opts.TTL.Seconds()), "loop_wait": int(loopWait.Seconds()), "retry_timeout": int(retryTimeout.Seconds()),
				"maximum_lag_on_failover": 1048576, "synchronous_mode": l.opts.SynchronousMode,
				"postgresql": map[string]any{"use_pg_rewind": true, "use_slots": true, "parameters": parameters},
			},
			"initdb": []any{map[string]any{"encoding": "UTF8"}, map[string]any{"locale": "C.UTF-8"}, "data-checksums", "no-sync"},
		},
		"postgresql": postgresql,
		"watchdog":   map[string]any{"mode": "off"},
	}
	if tags := l.opts.Tags[m.Name]; tags != nil {
		c["tags"] = tags
	}
	if l.opts.Patroni != nil {
		l.opts.Patroni(m, c)
	}
	return c
}

// wake makes every member begin a loop now: each watches the dynamic configuration.
func (l *Lab) wake(ctx context.Context) error {
	leader, err := l.Leader(ctx)
	if err != nil {
		return err
	}
	_, _, err = leader.REST(ctx, http.MethodPatch, "/config", map[string]any{wakeKey: time.Now().UnixNano()})
	return err
}

// DynamicConfig is Patroni's dynamic configuration as JSON, without what wake writes there.
func (l *Lab) DynamicConfig(ctx context.Context) (string, error) {
	leader, err := l.Leader(ctx)
	if err != nil {
		return "", err
	}
	status, body, err := leader.REST(ctx, http.MethodGet, "/config", nil)
	if err != nil || status != http.StatusOK {
		return "", fmt.Errorf("%s: GET /config: %d %s: %v", leader.Name, status, body, err)
	}
	var config map[string]any
	if err := json.Unmarshal([]byte(body), &config); err != nil {
		return "", fmt.Errorf("%s: GET /config: %w", leader.Name, err)
	}
	delete(config, wakeKey)
	content, err := json.MarshalIndent(config, "", "  ")
	return string(content), err
}

// wakeKey is a key of the dynamic configuration that nobody reads.
const wakeKey = "lab_wake"

// SetHooks changes postgresql.before_stop and the callbacks of every running member, and waits until
// Patroni goes by them. Empty means none.
func (l *Lab) SetHooks(ctx context.Context, beforeStop, callback string) error {
	l.opts.BeforeStop, l.opts.Callback = beforeStop, callback
	var running []*Member
	for _, m := range l.members {
		if err := m.writeConfig(); err != nil {
			return err
		}
		if m.Running() {
			running = append(running, m)
		}
	}
	return l.reload(ctx, running)
}

// Reload makes Patroni read its file again and waits until it has.
func (m *Member) Reload(ctx context.Context) error { return m.lab.reload(ctx, []*Member{m}) }

// reload asks all members first and wakes them once: a loop that begins after the request reads the file
// before the dynamic configuration, so whatever line tells of a reload then, the file has been read.
func (l *Lab) reload(ctx context.Context, members []*Member) error {
	before := map[*Member]int{}
	for _, m := range members {
		before[m] = countReloads(m.LogFile("patroni.log"))
		status, body, err := m.REST(ctx, http.MethodPost, "/reload", nil)
		if err != nil || status != http.StatusAccepted {
			return fmt.Errorf("%s: POST /reload: %d %s: %v", m.Name, status, body, err)
		}
	}
	if err := l.wake(ctx); err != nil {
		return err
	}
	return Until(ctx, 50*time.Millisecond, "Patroni to reload", func(context.Context) error {
		for _, m := range members {
			if countReloads(m.LogFile("patroni.log")) <= before[m] {
				return fmt.Errorf("the log of %s says nothing of it", m.Name)
			}
		}
		return nil
	})
}

// countReloads counts what Patroni logs at the end of each reload.
func countReloads(log string) int {
	content, _ := os.ReadFile(log)
	return bytes.Count(content, []byte("nothing to reload")) + bytes.Count(content, []byte("Reloading PostgreSQL configuration"))
}

// Start starts the member's container; its files are as they were when it ended. It does not wait for
// PostgreSQL: see [Lab.WaitHealthy].
func (m *Member) Start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.c.running() {
		return fmt.Errorf("%s runs already", m.Name)
	}
	c, err := m.spec.start()
	if err == nil {
		m.c = c
	}
	return err
}

// Running tells whether the container runs.
func (m *Member) Running() bool { return m.container().running() }

// Term stops the container as an engine does, SIGTERM to process 1, and waits until it is gone.
func (m *Member) Term(ctx context.Context) error {
	c := m.container()
	if !c.running() {
		return fmt.Errorf("%s does not run", m.Name)
	}
	if err := syscall.Kill(c.pid, syscall.SIGTERM); err != nil {
		return err
	}
	return c.wait(ctx)
}

// Kill ends everything in the container at once, as a lost machine does.
func (m *Member) Kill() { m.container().kill() }

// Processes lists what runs in the member, oldest first.
func (m *Member) Processes() ([]Process, error) { return m.container().processes() }

// FindProcess returns the oldest process of the member whose command line contains text, other than
// process 1.
func (m *Member) FindProcess(text string) (Process, bool) {
	processes, _ := m.Processes()
	for _, p := range processes {
		if p.PID != m.container().pid && strings.Contains(p.Cmdline(), text) {
			return p, true
		}
	}
	return Process{}, false
}

// Patroni returns Patroni's own process: the child of the container's init, or of what runs it as a service.
func (m *Member) Patroni() (Process, error) {
	c := m.container()
	processes, err := c.processes()
	if err != nil {
		return Process{}, err
	}
	parent := c.pid
	for _, p := range processes {
		if p.PPID == c.pid && p.Comm == "sh" {
			parent = p.PID
		}
	}
	for _, p := range processes {
		if p.PPID == parent && strings.Contains(p.Cmdline(), "bin/patroni "+m.configFile()) {
			return p, nil
		}
	}
	return Process{}, fmt.Errorf("%s: Patroni does not run", m.Name)
}

// PatroniPID is Patroni's process id on this machine.
func (m *Member) PatroniPID() (int, error) {
	p, err := m.Patroni()
	return p.PID, err
}

func (m *Member) signalPatroni(sig syscall.Signal) error {
	p, err := m.Patroni()
	if err != nil {
		return err
	}
	return p.Kill(sig)
}

// Freeze stops Patroni, and only Patroni, until [Member.Thaw]; PostgreSQL goes on.
func (m *Member) Freeze() error {
	if err := m.signalPatroni(syscall.SIGSTOP); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return Until(ctx, time.Millisecond, m.Name+"'s Patroni to stand still", func(context.Context) error {
		p, err := m.Patroni()
		if err == nil && p.State != 'T' {
			err = fmt.Errorf("its state is %c", p.State)
		}
		return err
	})
}

// Thaw lets a frozen Patroni go on.
func (m *Member) Thaw() error { return m.signalPatroni(syscall.SIGCONT) }

// KillPatroni ends Patroni with SIGKILL. As in a container the init ends with it, and PostgreSQL too.
func (m *Member) KillPatroni() error { return m.signalPatroni(syscall.SIGKILL) }

// CutDCS cuts the member off from etcd: nothing is closed, nothing answers.
func (m *Member) CutDCS() { m.proxy.cut() }

// HealDCS undoes CutDCS; what was held back arrives.
func (m *Member) HealDCS() { m.proxy.heal() }

// Exec runs a program in the member as the user postgres, with the environment that Patroni has plus env,
// and waits for its end. An exit code other than 0 is no error.
func (m *Member) Exec(ctx context.Context, env []string, argv ...string) (ExecResult, error) {
	return m.ExecAs(ctx, "postgres", env, argv...)
}

// ExecAs is Exec as another user.
func (m *Member) ExecAs(ctx context.Context, user string, env []string, argv ...string) (ExecResult, error) {
	return m.container().exec(ctx, user, append(environ(m.spec.env), env...), argv...)
}

// StartExec is Exec without the wait. When ctx ends the program is killed.
func (m *Member) StartExec(ctx context.Context, env []string, argv ...string) (*Running, error) {
	return m.container().startExec(ctx, "postgres", append(environ(m.spec.env), env...), argv...)
}

func environ(env map[string]string) []string {
	var list []string
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	return list
}

// REST calls the member's Patroni. The body, if any, is sent as JSON.
func (m *Member) REST(ctx context.Context, method, path string, body any) (status int, answer string, err error) {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, "", err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, m.URL()+path, content)
	if err != nil {
		return 0, "", err
	}
	resp, err := m.lab.rest.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// Status is what GET /patroni says.
type Status struct {
	State            string `json:"state"`
	Role             string `json:"role"`
	Timeline         int    `json:"timeline"`
	ServerVersion    int    `json:"server_version"`
	ReplicationState string `json:"replication_state"`
	PendingRestart   bool   `json:"pending_restart"`
	DCSLastSeen      int64  `json:"dcs_last_seen"`
	Patroni          struct {
		Version string `json:"version"`
	} `json:"patroni"`
}

// Status asks the member's Patroni how it is.
func (m *Member) Status(ctx context.Context) (Status, error) {
	var s Status
	_, body, err := m.REST(ctx, http.MethodGet, "/patroni", nil)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		return s, fmt.Errorf("%s: GET /patroni: %w", m.Name, err)
	}
	return s, nil
}

// SQL runs statements on the member's server, past pooler and route, and returns the last one's rows by
// column name.
func (m *Member) SQL(ctx context.Context, query string) ([]map[string]string, error) {
	rows, _, err := simpleQuery(ctx, m.DSN(), query)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Name, err)
	}
	return rows, nil
}

// Writable tells whether the member's server is up and not in recovery.
func (m *Member) Writable(ctx context.Context) bool {
	rows, err := m.SQL(ctx, "SELECT pg_is_in_recovery() AS r")
	return err == nil && len(rows) == 1 && rows[0]["r"] == "f"
}

// RestartPostgres restarts the member's PostgreSQL through Patroni, in place, and returns when Patroni
// says it is done.
func (m *Member) RestartPostgres(ctx context.Context) error {
	status, body, err := m.REST(ctx, http.MethodPost, "/restart", map[string]any{})
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%s: POST /restart: %d %s", m.Name, status, body)
	}
	return nil
}

// Reinit makes a replica throw its data away and copy it anew, and returns when it streams again.
func (m *Member) Reinit(ctx context.Context) error {
	version := filepath.Join(m.DataDir(), "PG_VERSION")
	before, err := os.Stat(version)
	if err != nil {
		return err
	}
	status, body, err := m.REST(ctx, http.MethodPost, "/reinitialize", map[string]any{"force": true})
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%s: POST /reinitialize: %d %s", m.Name, status, body)
	}
	return Until(ctx, 100*time.Millisecond, m.Name+" to be copied anew", func(ctx context.Context) error {
		if now, err := os.Stat(version); err != nil || os.SameFile(before, now) {
			return errors.New("the data is not new")
		}
		s, err := m.Status(ctx)
		if err != nil {
			return err
		}
		if s.ReplicationState != "streaming" {
			return fmt.Errorf("state %s, replication %q", s.State, s.ReplicationState)
		}
		return nil
	})
}
