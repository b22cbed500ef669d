package reload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/configversion"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
)

// reloadEnds is a reload of this runtime's poolers that went so.
func reloadEnds(t *testing.T, m *member.Member, o Options, code int, problem string, says ...string) []api.PoolerReload {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	o.Target = api.TargetPgBouncer
	r := Run(ctx, m, o)
	if ctx.Err() != nil {
		t.Fatalf("it would not have ended: %s", r.Decision)
	}
	saying(t, r.Result, r.Problem, code, problem, says)
	return r.Poolers
}

// saying checks how a reload ended, and what its decision has in it.
func saying(t *testing.T, r member.Result, gotProblem string, code int, problem string, says []string) {
	t.Helper()
	if r.Code != code || gotProblem != problem {
		t.Fatalf("code %d, problem %q, want %d and %q: %s", r.Code, gotProblem, code, problem, r.Decision)
	}
	for _, s := range says {
		if !strings.Contains(r.Decision, s) {
			t.Errorf("nothing of %q in %s", s, r.Decision)
		}
	}
}

// lineOf is the number of the file's first line that begins so.
func lineOf(t *testing.T, path, begin string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if n++; strings.HasPrefix(line, begin) {
			return n
		}
	}
	t.Fatalf("no line %q in %s", begin, path)
	return 0
}

// A pooler that connects and never answers, as one that is stopped: it is signalled, and not waited for.
func TestReloadFrozenPooler(t *testing.T) {
	t.Parallel()
	b, m, _ := reloadable(t, single.SuiteTrixie)
	m.Config.Poolers[0].Pidfile = b.Pidfile
	if err := b.Freeze(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Thaw() }()
	if p := reloadEnds(t, m, Options{}, member.Failed, api.ProblemNotVerified, "no console answers")[0]; p.Done != api.ReloadSignaled ||
		p.Verified {
		t.Errorf("%+v", p)
	}
}

// The file that we see is not the pooler's: what it says and what runs differ, and PgBouncer has answered RELOAD.
func TestReloadNotApplied(t *testing.T) {
	t.Parallel()
	for _, suite := range membertest.Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			b, m, change := reloadable(t, suite)
			change("default_pool_size = 20\n", "default_pool_size = 94\n")
			text, err := b.Config()
			if err != nil {
				t.Fatal(err)
			}
			copied := filepath.Join(t.TempDir(), "pgbouncer.ini")
			if err := os.WriteFile(
				copied,
				[]byte(strings.Replace(text, "default_pool_size = 94\n", "default_pool_size = 95\n", 1)),
				0o600,
			); err != nil {
				t.Fatal(err)
			}
			m.Config.Poolers[0].Config = copied
			p := reloadEnds(t, m, Options{}, member.Failed, api.ProblemNotApplied, "default_pool_size", `"95"`, `"94"`)[0]
			want := api.SettingDifference{
				File:    copied,
				Line:    lineOf(t, copied, "default_pool_size"),
				Key:     "default_pool_size",
				Want:    "95",
				Running: "94",
			}
			if len(p.NotApplied) != 1 || p.NotApplied[0] != want || p.Verified || p.Done != api.ReloadFailed {
				t.Errorf("%+v, want %+v", p, want)
			}
			if !strings.Contains(p.Error, fmt.Sprintf("%s:%d: ", copied, want.Line)) {
				t.Errorf("where? %s", p.Error)
			}
		})
	}
}

// A sidecar's pgbouncer.ini that is mounted with subPath never changes: version 42 is in our copy, and what the pooler has read is still
// 41.
func TestReloadOwnFileIsBehind(t *testing.T) {
	t.Parallel()
	for _, suite := range membertest.Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			b, m, change := reloadable(t, suite)
			m.Config.Poolers[0].Config, m.Config.Poolers[0].Pidfile = "", b.Pidfile
			ours := filepath.Join(t.TempDir(), "pgbouncer.ini")
			write := func(text string) {
				t.Helper()
				if err := os.WriteFile(ours, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("; config-version: 42\n")
			want := configversion.Version(42)
			asked := Options{Version: &want, Timeout: 1500 * time.Millisecond}

			// Where the version stands in a file of its own, nothing is required of pgbouncer.ini.
			number := filepath.Join(t.TempDir(), "version")
			if err := os.WriteFile(number, []byte("42"), 0o600); err != nil {
				t.Fatal(err)
			}
			m.Config.Versions.PgBouncer = config.VersionSource{File: number}
			reloadEnds(t, m, asked, member.Done, "")

			m.Config.Versions.PgBouncer = config.VersionSource{Line: ours}
			p := reloadEnds(t, m, asked, member.Failed, api.ProblemNotApplied,
				"its own file "+b.ConfigPath+" has no config-version line")[0]
			if p.Verified || p.Done != api.ReloadFailed {
				t.Errorf("%+v", p)
			}
			change("", "; config-version: 41\n")
			reloadEnds(t, m, asked, member.Failed, api.ProblemNotApplied, "its own file "+b.ConfigPath+" has config-version 41, not 42")
			reloadEnds(t, m, Options{}, member.Done, "") // nobody has asked for one

			// It comes late.
			waits := make(chan struct{}, 100)
			asked.Timeout = 20 * time.Second
			asked.Progress = func(s Progress) {
				if strings.Contains(s.Text, "may not have arrived yet") {
					waits <- struct{}{}
				}
			}
			done := make(chan Report)
			go func() {
				asked.Target = api.TargetPgBouncer
				done <- Run(t.Context(), m, asked)
			}()
			<-waits
			change("config-version: 41\n", "config-version: 43\nquery_wait_timeout = 77\n")
			if r := <-done; r.Code != member.Done || !r.Poolers[0].Verified || len(r.Poolers[0].Changed) != 1 ||
				*r.Versions[0].Applied != 42 {
				t.Errorf("%d %s: %+v", r.Code, r.Decision, r.Poolers)
			}

			// The same where its file is told.
			m.Config.Poolers[0].Config = b.ConfigPath
			want = 44
			write("; config-version: 44\n")
			asked.Timeout, asked.Progress = 1500*time.Millisecond, nil
			reloadEnds(t, m, asked, member.Failed, api.ProblemNotApplied, "has config-version 43, not 44")
			included := filepath.Join(b.Dir, "version.ini")
			if err := os.WriteFile(included, []byte("; config-version: 44\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			change("; config-version: 43\n", "%include "+included+"\n")
			reloadEnds(t, m, asked, member.Done, "") // in what it includes
		})
	}
}

// A logfile that is what the process writes to anyway: PgBouncer takes it in every version. (Whether it is judged wrongly,
// TestReloadAsTheSameUser shows: as root we judge little.)
func TestReloadLogToStdout(t *testing.T) {
	t.Parallel()
	for _, suite := range membertest.Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			b, m, change := reloadable(t, suite)
			m.Config.Poolers[0].Config, m.Config.Poolers[0].Pidfile = "", b.Pidfile
			link, stdout := filepath.Join(b.Dir, "out"), filepath.Join(b.Dir, "stderr")
			// PgBouncer opens it again, as its own user.
			if err := errors.Join(os.Symlink("/dev/stdout", link), os.Chmod(stdout, 0o666)); err != nil {
				t.Fatal(err)
			}
			was := b.Log
			for _, logfile := range []string{"/dev/stdout", link, fmt.Sprintf("/proc/%d/fd/1", b.PID)} {
				change("logfile = "+was+"\n", "logfile = "+logfile+"\n")
				was = logfile
				if p := reloadEnds(t, m, Options{}, member.Done, "")[0]; !p.Verified || len(p.Changed) != 1 ||
					p.Changed[0].Want != logfile {
					t.Errorf("%s: %+v", logfile, p)
				}
				before, err := os.ReadFile(stdout)
				if err != nil {
					t.Fatal(err)
				}
				membertest.Admin(t, b, "RELOAD")
				if after, err := os.ReadFile(
					stdout,
				); err != nil ||
					strings.Count(string(after), "RELOAD command issued") <= strings.Count(string(before), "RELOAD command issued") {
					t.Errorf("%s: it does not log there: %v", logfile, err)
				}
			}
		})
	}
}

// A pidfile is one process's. The dead pooler behind the same name is not reloaded because that one is.
func TestReloadSharedPidfile(t *testing.T) {
	t.Parallel()
	b, m, change := reloadable(t, single.SuiteTrixie)
	change("", "query_wait_timeout = 77\n")
	// An address of nobody (TEST-NET-3).
	dead := fmt.Sprintf("203.0.113.1:%d", b.Port)
	dsn := strings.Replace(b.AdminDSN(), fmt.Sprintf("%s:%d", b.Addr, b.Port), fmt.Sprintf("%s:%d,%s", b.Addr, b.Port, dead), 1)
	m.Config.Poolers = []config.Pooler{{DSN: dsn, Pidfile: b.Pidfile, Config: b.ConfigPath, Resolve: "all"}}
	p := reloadEnds(t, m, Options{}, member.Failed, api.ProblemUnreachable)
	if len(p) != 2 || !p[0].Verified || p[0].How != "RELOAD" || p[1].Pooler != dead || p[1].Done != api.ReloadNot || p[1].How != "" {
		t.Errorf("%+v", p)
	}
	log, err := os.ReadFile(b.Log)
	if err != nil || strings.Contains(string(log), "got SIGHUP") {
		t.Errorf("the other pooler was signalled (%v):\n%s", err, log)
	}
}

// A user of stats_users may look, and may not reload: that says nothing about the file.
func TestReloadByStatsUser(t *testing.T) {
	t.Parallel()
	for _, suite := range membertest.Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			b, err := single.StartPgBouncer(t.Context(), suite, single.PgBouncerOptions{Backend: membertest.SharedPostgres(t),
				Settings: map[string]string{"stats_users": "watcher"}, Users: map[string]string{"watcher": single.Password}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(b.Close)
			m := membertest.New(t, nil, b)
			m.Config.Poolers[0] = config.Pooler{DSN: b.DSN("watcher", "pgbouncer"), Config: b.ConfigPath}
			text, err := b.Config()
			if err == nil {
				err = b.RewriteConfig(text + "query_wait_timeout = 77\n")
			}
			if err != nil {
				t.Fatal(err)
			}
			if p := reloadEnds(t, m, Options{}, member.Failed, api.ProblemUnreachable, "admin access needed")[0]; p.Done != api.ReloadNot ||
				p.How != "" {
				t.Errorf("%+v", p)
			}
			m.Config.Poolers[0].Pidfile = b.Pidfile
			p := reloadEnds(t, m, Options{}, member.Done, "")[0]
			if p.How != fmt.Sprintf("SIGHUP to process %d", b.PID) || !p.Verified || len(p.Changed) != 1 ||
				p.Changed[0].Key != "query_wait_timeout" {
				t.Errorf("%+v", p)
			}
			// A bad file is one for him, too.
			if err := b.RewriteConfig(text + "query_wait_timeuot = 77\n"); err != nil {
				t.Fatal(err)
			}
			reloadEnds(t, m, Options{}, member.Failed, api.ProblemInvalidFile, "query_wait_timeuot")
		})
	}
}

// A pooler that is restarted while its reload waits has another process, and its file is that one's.
func TestReloadAfterRestart(t *testing.T) {
	t.Parallel()
	for _, signalled := range []bool{false, true} {
		t.Run(map[bool]string{false: "console", true: "signals"}[signalled], func(t *testing.T) {
			t.Parallel()
			b, m, change := reloadable(t, single.SuiteTrixie)
			m.Config.Poolers[0].Config, m.Config.Poolers[0].Pidfile = "", b.Pidfile
			if signalled {
				m.Config.Poolers[0].Password = "wrong"
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			poolers, _, errs := m.Poolers(ctx, nil)
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			defer member.CloseAll(poolers)
			x := &poolerReload{reload: reloadOf(t, m, Options{}), Pooler: poolers[0], alone: true, report: &api.PoolerReload{}}
			defer x.close()
			if err := x.connect(ctx); err != nil || x.process == nil || x.process.PID != b.PID {
				t.Fatalf("%v: %+v", err, x)
			}
			b.Kill()
			if err := b.Start(ctx); err != nil {
				t.Fatal(err)
			}
			change("", "query_wait_timeout = 77\n")
			err := x.once(ctx)
			if signalled { // nobody may look (as root we are not its user)
				if problemOf(err) != api.ProblemNotVerified || x.report.How != fmt.Sprintf("SIGHUP to process %d", b.PID) {
					t.Errorf("%v: %+v", err, x.report)
				}
				return
			}
			if err != nil || !x.report.Verified || x.report.How != "RELOAD" || len(x.report.Changed) != 1 || x.process == nil ||
				x.process.PID != b.PID {
				t.Errorf("%v: %+v", err, x.report)
			}
		})
	}
}

// sameUser is set in a copy of this program that runs as a pooler's user: as root we are nobody to PgBouncer.
const sameUser = "PGBATON_TEST_SAME_USER"

// sameUserReload is what the copy is to reload, and where it writes its report.
type sameUserReload struct {
	DSN, Dir string
}

type sameUserReport struct {
	Code              int
	Problem, Decision string
	Pooler            api.PoolerReload
}

func TestSameUserChild(t *testing.T) {
	text := os.Getenv(sameUser)
	if text == "" {
		t.Skip("only in a copy of this program")
	}
	var told sameUserReload
	if err := json.Unmarshal([]byte(text), &told); err != nil {
		t.Fatal(err)
	}
	m := &member.Member{Config: &config.Config{StateDir: t.TempDir(), Poolers: []config.Pooler{{DSN: told.DSN}}}, Log: membertest.Log(t)}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r := Run(ctx, m, Options{Target: api.TargetPgBouncer, Timeout: time.Second})
	out, err := json.Marshal(sameUserReport{r.Code, r.Problem, r.Decision, r.Poolers[0]})
	if err == nil {
		err = os.WriteFile(filepath.Join(told.Dir, "report"), out, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What only the pooler's own user may: ask its socket, and prove that it cannot open a file.
//
// A changed listen_port needs a restart; until then the process listens where it did, and is the pooler's all the same. And a logfile that
// leads to what the process has open already is no reason not to reload.
func TestReloadAsTheSameUser(t *testing.T) {
	t.Parallel()
	other, _, _ := reloadable(t, single.SuiteHost) // installs PgBouncer where it is missing; a pooler of another user
	const uid = 61235                              // a user that has no other process
	dir, err := os.MkdirTemp("/tmp", "pgb-own-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("tcp", "127.77.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	ini, logfile := filepath.Join(dir, "pgbouncer.ini"), filepath.Join(dir, "log")
	write := func(listen, more string) {
		t.Helper()
		text := fmt.Sprintf(
			"[databases]\napp = host=127.0.0.1 port=1\n[pgbouncer]\nlisten_addr = 127.77.0.1\nlisten_port = %s\nunix_socket_dir = %s\n"+
				"pidfile = %s\nlogfile = %s\nauth_type = scram-sha-256\nauth_file = %s\nadmin_users = boss\n%s",
			listen,
			dir,
			filepath.Join(dir, "pid"),
			logfile,
			filepath.Join(dir, "users"),
			more,
		)
		if err := errors.Join(os.WriteFile(ini+"+", []byte(text), 0o644), os.Rename(ini+"+", ini)); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "hooks.test")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, uid, uid), os.WriteFile(program, self, 0o755),
		os.WriteFile(filepath.Join(dir, "users"), []byte("\"boss\" \"secret\"\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	as := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, Pdeathsig: syscall.SIGKILL}
	same := fmt.Sprintf("0x%x", port)
	write(same, "")
	b := exec.Command("/usr/sbin/pgbouncer", "-q", ini)
	stdout, err := os.Create(filepath.Join(dir, "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	b.Dir, b.SysProcAttr, b.Stdout = "/", as, stdout
	if err := errors.Join(stdout.Chmod(0o666), b.Start()); err != nil { // PgBouncer opens it again
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = b.Process.Kill()
		_ = b.Wait()
	})
	dsn := func(password string) string {
		return fmt.Sprintf("postgres://boss:%s@127.77.0.1:%d/pgbouncer?sslmode=disable", password, port)
	}
	membertest.Eventually(t, "its console answers", func() bool {
		c, err := pgconn.Connect(t.Context(), dsn("secret"))
		if err == nil {
			_ = c.Close(t.Context())
		}
		return err == nil
	})
	reload := func(dsn string, code int, problem string, says ...string) api.PoolerReload {
		t.Helper()
		told, err := json.Marshal(sameUserReload{DSN: dsn, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		membertest.Eventually(
			t,
			"the copy runs",
			func() bool { // "text file busy" while another test's child, forked meanwhile, has it open
				cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestSameUserChild$", "-test.v")
				cmd.Env, cmd.Dir, cmd.SysProcAttr = []string{sameUser + "=" + string(told)}, "/", as
				out, err := cmd.CombinedOutput()
				if err != nil && !errors.Is(err, syscall.ETXTBSY) {
					t.Fatalf("%v\n%s", err, out)
				}
				return err == nil
			},
		)
		out, err := os.ReadFile(filepath.Join(dir, "report"))
		var r sameUserReport
		if err == nil {
			err = json.Unmarshal(out, &r)
		}
		if err != nil {
			t.Fatal(err)
		}
		saying(t, member.Result{Code: r.Code, Decision: r.Decision}, r.Problem, code, problem, says)
		return r.Pooler
	}
	size := func() string {
		t.Helper()
		poolers, errs := pgb.Resolve(t.Context(), []pgb.Spec{{DSN: dsn("secret")}}, nil)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		defer member.CloseAll(poolers)
		settings, err := poolers[0].Settings(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return setting(settings, "default_pool_size")
	}

	write(same, "default_pool_size = 31\n")
	if p := reload(
		dsn("secret"),
		member.Done,
		"",
	); p.How != "RELOAD" || p.File != ini || !p.Verified || len(p.NeedsRestart) > 0 ||
		size() != "31" {
		t.Errorf("the same port in other digits: %+v", p)
	}
	write("6499", "default_pool_size = 32\n")
	if p := reload(
		dsn("secret"),
		member.Done,
		"",
	); p.How != "RELOAD" || p.File != ini || !p.Verified || len(p.NeedsRestart) != 1 || p.NeedsRestart[0].Key != "listen_port" ||
		p.NeedsRestart[0].Want != "6499" ||
		size() != "32" {
		t.Errorf("another port: %+v", p)
	}
	write("6499", "default_pool_size = 33\ndefault_pool_sise = 33\n")
	if p := reload(
		dsn("secret"),
		member.Failed,
		api.ProblemInvalidFile,
		ini,
		"default_pool_sise",
	); p.Done != api.ReloadNot ||
		size() != "32" {
		t.Errorf("another port and a mistake: %s, %+v", size(), p)
	}
	write("6499", "default_pool_size = 34\n")
	if p := reload(
		dsn("wrong"),
		member.Done,
		"",
	); p.How != fmt.Sprintf("SIGHUP to process %d", b.Process.Pid) || !p.Verified || len(p.NeedsRestart) != 1 ||
		size() != "34" {
		t.Errorf("another port, and the console refuses us: %s, %+v", size(), p)
	}
	// Another pooler's password is wrong: ours, the only one of this user, is not that one.
	write("6499", "default_pool_size = 35\n")
	wrong := strings.Replace(other.AdminDSN(), single.Password, "wrong", 1)
	if p := reload(wrong, member.Failed, api.ProblemUnreachable, "it was not signalled"); p.Done != api.ReloadNot || size() != "34" {
		t.Errorf("another pooler's: %s, %+v", size(), p)
	}

	link := filepath.Join(dir, "out")
	if err := os.Symlink("/dev/stdout", link); err != nil {
		t.Fatal(err)
	}
	for _, logfile = range []string{"/dev/stdout", link, "/proc/self/fd/1", fmt.Sprintf("/proc/%d/fd/1", b.Process.Pid)} {
		write(same, "")
		if p := reload(dsn("secret"), member.Done, ""); !p.Verified || p.File != ini {
			t.Errorf("%s: %+v", logfile, p)
		}
	}
	logfile = "/nonexistent/log"
	write(same, "")
	reload(dsn("secret"), member.Failed, api.ProblemInvalidFile, "PgBouncer would end")
	if text, err := os.ReadFile(stdout.Name()); err != nil || !strings.Contains(string(text), "RELOAD command issued") {
		t.Errorf("it does not log there (%v):\n%s", err, text)
	}
}
