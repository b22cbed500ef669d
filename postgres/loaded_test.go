package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/postgres"
)

// files are a server's configuration files, as they were at its start.
type files struct {
	pg        *single.Postgres
	conf, hba string
	conf0     string
	hba0      string
	lines     int // of conf0
	superuser string
}

func configured(t *testing.T, pg *single.Postgres) *files {
	t.Helper()
	f := &files{
		pg:        pg,
		conf:      filepath.Join(pg.DataDir, "postgresql.conf"),
		hba:       filepath.Join(pg.DataDir, "pg_hba.conf"),
		superuser: pg.SocketDSN("postgres", "postgres"),
	}
	for path, to := range map[string]*string{f.conf: &f.conf0, f.hba: &f.hba0} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		*to = string(b)
	}
	f.lines = strings.Count(f.conf0, "\n")
	return f
}

// write puts the files as they were at the start, and more.
func (f *files) write(t *testing.T, conf, hba string) {
	t.Helper()
	for path, text := range map[string]string{f.conf: f.conf0 + conf, f.hba: f.hba0 + hba} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// reload signals the server and blocks until it has read the files, which its log says.
func (f *files) reload(t *testing.T) (took time.Duration, moved bool) {
	t.Helper()
	before := f.log(t)
	loaded := f.loadTime(t)
	start := time.Now()
	if err := syscall.Kill(f.pg.PID, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the SIGHUP is in the log", func() bool {
		return strings.Contains(strings.TrimPrefix(f.log(t), before), "received SIGHUP")
	})
	// Where it moves, it does so within milliseconds; that it never will cannot be waited for.
	for deadline := start.Add(time.Second); time.Now().Before(deadline); {
		if f.loadTime(t).After(loaded) {
			return time.Since(start), true
		}
	}
	return 0, false
}

func (f *files) log(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(f.pg.Log)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (f *files) loadTime(t *testing.T) time.Time {
	t.Helper()
	s, err := postgres.Open(f.superuser)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Connect(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	loaded, err := c.LoadTime(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

func TestLoaded(t *testing.T) {
	suites(t, func(t *testing.T, suite string) {
		pg := start(t, suite, single.PostgresOptions{})
		f := configured(t, pg)
		session(t, f.superuser, "create role weak login")
		t.Run("a session takes the files over by itself", func(t *testing.T) { ownTime(t, f) })
		t.Run("errors", func(t *testing.T) { fileErrors(t, f) })
		t.Run("settings", func(t *testing.T) { settings(t, f) })
		t.Run("pending restart", func(t *testing.T) { pendingRestart(t, f) })
		t.Run("rights", func(t *testing.T) { rights(t, f) })
		t.Run("files that cannot be read", func(t *testing.T) { unreadable(t, f) })
	})
}

func ownTime(t *testing.T, f *files) {
	ctx := testContext(t)
	idle := connect(t, f.superuser)
	busy := connect(t, f.superuser)
	first, err := idle.LoadTime(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if time.Since(first).Abs() > 5*time.Minute {
		t.Errorf("loaded at %s", first)
	}
	session := session(t, f.superuser, "begin; select 1")
	took, moved := f.reload(t)
	if !moved {
		t.Fatal("the load time of a new session did not move")
	}
	t.Logf("a new session shows the new time after %s", took)
	eventually(t, "an idle session takes it over at its next statement", func() bool {
		now, err := idle.LoadTime(ctx)
		return err == nil && now.After(first)
	})
	if _, err := session.Exec(ctx, "commit").ReadAll(); err != nil {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := busy.LoadTime(ended); err == nil {
		t.Error("an answer without a context")
	}
}

func fileErrors(t *testing.T, f *files) {
	ctx := testContext(t)
	at := func(n int) int { return f.lines + n }
	hbaAt := strings.Count(f.hba0, "\n")
	for _, c := range []struct {
		name      string
		conf, hba string
		moves     bool
		want      []file.Problem
	}{
		{"none", "work_mem = '5MB'\n", "", true, nil},
		{"syntax error", "work_mem = '5MB'\nthis is = = bad\n", "", false, []file.Problem{{File: f.conf, Line: at(2),
			Problem: "syntax error"}}},
		{"quote left open", "cluster_name = 'a\n", "", false, []file.Problem{{File: f.conf, Line: at(1), Problem: "syntax error"}}},
		{"unknown", "nosuch = 1\n", "", false, []file.Problem{{File: f.conf, Line: at(1), Name: "nosuch",
			Problem: "unrecognized configuration parameter"}}},
		{"unknown with a prefix", "nosuch.thing = 1\n", "", true, nil},
		{"value", "work_mem = '6MB'\nmaintenance_work_mem = 'lots'\n", "", true, []file.Problem{{File: f.conf, Line: at(2),
			Name:    "maintenance_work_mem",
			Problem: "setting could not be applied; it is a number from 64 to 2147483647 in units of kB, or one with a unit"}}},
		{"word", "log_statement = 'some'\n", "", true, []file.Problem{{File: f.conf, Line: at(1), Name: "log_statement",
			Problem: "setting could not be applied; it is one of none, ddl, mod, all"}}},
		{"include", "include '/nonexistent/x.conf'\n", "", false, []file.Problem{{File: f.conf, Line: at(1),
			Problem: `could not open file "/nonexistent/x.conf"`}}},
		{"needs a restart", "max_connections = 61\n", "", true, nil},
		{"would not start again", "max_connections = 6l\n", "", true, []file.Problem{{File: f.conf, Line: at(1), Name: "max_connections",
			Problem: "setting could not be applied; it is a number from 1 to 262143"}}},
		{"out of range", "max_connections = -4\n", "", true, []file.Problem{{File: f.conf, Line: at(1), Name: "max_connections",
			Problem: "setting could not be applied; it is a number from 1 to 262143"}}},
		{"pg_hba.conf", "",
			"host all all 127.0.0.0/8 scramm\nhost all all 127.0.0.1/32 ldap ldapserver=x hunter2\nhosts all all all trust\n", true,
			[]file.Problem{
				{File: f.hba, Line: hbaAt + 1, Problem: `invalid authentication method "scramm"`},
				{File: f.hba, Line: hbaAt + 2, Problem: "authentication option not in name=value format"},
				{File: f.hba, Line: hbaAt + 3, Problem: `invalid connection type "hosts"`}}},
		// ssl is off: the first is loaded with a warning. The last has no words for its error in 17 and 18.
		{"hostssl without ssl", "",
			"hostssl all all 10.0.0.0/8 scram-sha-256\nhostgssenc all all all gss\ninclude_if_exists nosuch.conf\n", true, nil},
		{"beside hostssl without ssl", "",
			"hostssl all all all trust\nhostssl all all 10.0.0.0/33 trust\nhostssl all all all trust clientcert=hunter2\n", true,
			[]file.Problem{
				{File: f.hba, Line: hbaAt + 2, Problem: "invalid CIDR mask in address ***"},
				{File: f.hba, Line: hbaAt + 3, Problem: "not taken; the server's log says why"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.write(t, c.conf, c.hba)
			defer f.write(t, "", "")
			// What is on disk counts, before the reload as after it.
			for _, when := range []string{"before", "after"} {
				got, err := connect(t, f.superuser).FileErrors(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(c.want, got); d != "" {
					t.Errorf("%s the reload: %s", when, d)
				}
				if strings.Contains(fmt.Sprint(got), "hunter2") {
					t.Errorf("a secret: %v", got)
				}
				if when == "before" {
					log := f.log(t)
					if took, moved := f.reload(t); moved != c.moves {
						t.Errorf("the load time moved: %v (%s)", moved, took)
					}
					// What the server itself says of the file as a whole.
					refused := strings.Contains(strings.TrimPrefix(f.log(t), log), f.hba+" was not reloaded")
					if bad := slices.ContainsFunc(c.want, func(e file.Problem) bool { return e.File == f.hba }); bad != refused {
						t.Errorf("pg_hba.conf is refused: %v", refused)
					}
				}
			}
		})
	}
	f.write(t, "", "")
	f.reload(t)
	ident := filepath.Join(f.pg.DataDir, "pg_ident.conf")
	old, err := os.ReadFile(ident)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ident, append(old, "a b\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := connect(t, f.superuser).FileErrors(ctx)
	if err != nil || len(got) != 1 || got[0].File != ident || got[0].Line == 0 ||
		got[0].Error() != fmt.Sprintf("%s:%d: missing entry at end of line", ident, got[0].Line) {
		t.Errorf("pg_ident.conf: %v, %v", got, err)
	}
	if err := os.WriteFile(ident, old, 0o600); err != nil {
		t.Fatal(err)
	}
}

func settings(t *testing.T, f *files) {
	ctx := testContext(t)
	f.write(t, "pgbaton.config_version = '41'\nPgBaton.Config_Version = '42'\n", "")
	c := connect(t, f.superuser)
	if v, ok, err := c.Setting(ctx, "pgbaton.config_version"); v != "" || ok || err != nil {
		t.Errorf("before the reload: %q, %v, %v", v, ok, err)
	}
	if v, ok, err := c.FileSetting(ctx, "pgbaton.config_version"); v != "42" || !ok || err != nil {
		t.Errorf("on disk: %q, %v, %v", v, ok, err)
	}
	if _, moved := f.reload(t); !moved {
		t.Fatal("not reloaded")
	}
	c = connect(t, f.superuser)
	for name, want := range map[string]string{"pgbaton.config_version": "42", "shared_buffers": "16MB", "Max_Connections": "60"} {
		if v, ok, err := c.Setting(ctx, name); v != want || !ok || err != nil {
			t.Errorf("%s: %q, %v, %v", name, v, ok, err)
		}
	}
	if names, err := c.FileSettingNames(
		ctx,
	); err != nil || !names["pgbaton.config_version"] || !names["shared_buffers"] || names["PgBaton.Config_Version"] ||
		names["autovacuum"] {
		t.Errorf("names: %v, %v", names, err)
	}
	// A syntax error behind it: it is on disk, and not loaded.
	f.write(t, "pgbaton.config_version = '43'\n= =\n", "")
	if _, moved := f.reload(t); moved {
		t.Error("reloaded")
	}
	c = connect(t, f.superuser)
	onDisk, _, err := c.FileSetting(ctx, "pgbaton.config_version")
	running, _, err2 := c.Setting(ctx, "pgbaton.config_version")
	if onDisk != "43" || running != "42" || err != nil || err2 != nil {
		t.Errorf("on disk %q, running %q, %v %v", onDisk, running, err, err2)
	}
	f.write(t, "", "")
	f.reload(t)
	if v, ok, err := connect(t, f.superuser).FileSetting(ctx, "pgbaton.config_version"); v != "" || ok || err != nil {
		t.Errorf("gone: %q, %v, %v", v, ok, err)
	}
	for _, name := range []string{"", "a'b", "a b", "1a", "a..b", "a;select 1", strings.Repeat("a", 64), `a"b`, "a.b.", "ä"} {
		if _, _, err := c.Setting(ctx, name); err == nil || !strings.Contains(err.Error(), "is not the name of a setting") {
			t.Errorf("%q: %v", name, err)
		}
		if _, _, err := c.FileSetting(ctx, name); err == nil || !strings.Contains(err.Error(), "is not the name of a setting") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func pendingRestart(t *testing.T, f *files) {
	ctx := testContext(t)
	f.write(t, "max_connections = 61\nmax_connections = 62\nshared_buffers = '17MB'\n", "")
	f.reload(t)
	both := []postgres.PendingRestart{
		{Name: "max_connections", Running: "60", File: "62"},
		{Name: "shared_buffers", Running: "16MB", File: "17MB"},
	}
	got, err := connect(t, f.superuser).PendingRestart(ctx)
	if d := cmp.Diff(both, got); d != "" || err != nil {
		t.Error(err, d)
	}
	for i := range both {
		both[i].File = ""
	}
	got, err = connect(t, f.pg.SocketDSN("weak", "postgres")).PendingRestart(ctx)
	if d := cmp.Diff(both, got); d != "" || err != nil {
		t.Error("without rights: ", err, d)
	}
	// One that stands in no file any more goes back to its default, by a restart.
	without := strings.ReplaceAll(f.conf0, "shared_buffers =", "# ")
	if err := os.WriteFile(f.conf, []byte(without), 0o600); err != nil {
		t.Fatal(err)
	}
	f.reload(t)
	got, err = connect(t, f.superuser).PendingRestart(ctx)
	if d := cmp.Diff([]postgres.PendingRestart{{Name: "shared_buffers", Running: "16MB"}}, got); d != "" || err != nil {
		t.Error(err, d)
	}
	if wrong, err := connect(t, f.superuser).FileErrors(ctx); len(wrong) != 0 || err != nil {
		t.Error(wrong, err)
	}
	// Pending, and then misspelt: the server would not start again.
	f.write(t, "max_connections = 61\n", "")
	f.reload(t)
	f.write(t, "max_connections = 6l\n", "")
	f.reload(t)
	if wrong, err := connect(t, f.superuser).FileErrors(ctx); len(wrong) != 1 || err != nil {
		t.Error(wrong, err)
	}
	f.write(t, "", "")
	f.reload(t)
	if got, err = connect(t, f.superuser).PendingRestart(ctx); len(got) != 0 || err != nil {
		t.Error(got, err)
	}
}

func rights(t *testing.T, f *files) {
	ctx := testContext(t)
	f.write(t, "nosuch = 1\n", "local all all nothing\n")
	defer f.write(t, "", "")
	weak := f.pg.SocketDSN("weak", "postgres")
	if loaded, err := connect(t, weak).LoadTime(ctx); err != nil || loaded.IsZero() {
		t.Errorf("%s, %v", loaded, err)
	}
	got, err := connect(t, weak).FileErrors(ctx)
	var grant *postgres.GrantError
	if len(got) != 0 || !errors.As(err, &grant) || !postgres.Denied(err) || grant.User != "weak" || len(grant.Views) != 3 ||
		len(grant.Missing) != 6 {
		t.Fatalf("%v, %v", got, err)
	}
	t.Log(err)
	if _, _, err := connect(t, weak).FileSetting(ctx, "work_mem"); !errors.As(err, &grant) || len(grant.Missing) != 2 {
		t.Errorf("%v", err)
	}
	if _, err := connect(t, weak).FileSettingNames(ctx); !errors.As(err, &grant) || len(grant.Missing) != 2 {
		t.Errorf("%v", err)
	}
	// The advice is enough, and half of it is not.
	session(t, f.superuser, grant.Missing[0])
	if _, _, err := connect(
		t,
		weak,
	).FileSetting(ctx, "work_mem"); !errors.As(err, &grant) || len(grant.Missing) != 1 ||
		!strings.HasPrefix(grant.Missing[0], "GRANT EXECUTE ON FUNCTION ") {
		t.Errorf("%v", err)
	}
	session(t, f.superuser, grant.Missing[0])
	got, err = connect(t, weak).FileErrors(ctx)
	if len(got) != 1 || got[0].Name != "nosuch" || !errors.As(err, &grant) || len(grant.Views) != 2 {
		t.Errorf("what may be seen: %v, %v", got, err)
	}
	session(t, f.superuser, strings.Join(grant.Missing, ";"))
	if got, err = connect(t, weak).FileErrors(ctx); len(got) != 2 || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	if _, _, err := connect(t, weak).Setting(ctx, "data_directory"); !postgres.Denied(err) {
		t.Errorf("%v", err)
	}
}

func unreadable(t *testing.T, f *files) {
	ctx := testContext(t)
	if err := os.Chmod(f.hba, 0); err != nil {
		t.Fatal(err)
	}
	got, err := connect(t, f.superuser).FileErrors(ctx)
	if len(got) != 1 || err != nil || got[0].File != f.hba || !strings.Contains(got[0].Problem, "Permission denied") {
		t.Errorf("%v, %v", got, err)
	}
	if err := os.Rename(f.hba, f.hba+".away"); err != nil {
		t.Fatal(err)
	}
	got, err = connect(t, f.superuser).FileErrors(ctx)
	if len(got) != 1 || err != nil || !strings.Contains(got[0].Problem, "No such file") {
		t.Errorf("%v, %v", got, err)
	}
	if err := os.Rename(f.hba+".away", f.hba); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(f.hba, 0o600); err != nil {
		t.Fatal(err)
	}
}
