package pgbini_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

const secret = "s3cret-of-the-file"

func iniFile(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pgbouncer.ini")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// readAll is ReadFile, which must come back soon.
func readIn(t testing.TB, path, root string) (*pgbini.File, error) {
	t.Helper()
	type answer struct {
		file *pgbini.File
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		f, err := pgbini.ReadFile(path, root)
		done <- answer{f, err}
	}()
	select {
	case a := <-done:
		return a.file, a.err
	case <-time.After(20 * time.Second):
		t.Fatal("ReadFile does not come back")
		return nil, nil
	}
}

func TestReadFileIsBounded(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	const good = "[pgbouncer]\n"
	huge := write("huge", good+strings.Repeat("# comment\n", 1<<20))
	self := filepath.Join(dir, "self")
	write("self", good+strings.Repeat("%include "+self+"\n", 100))
	bomb := write("bomb", good+strings.Repeat("%include "+write("x", "; x\n")+"\n", 3000))
	for name, path := range map[string]string{
		"pipe": pipe, "pipe included": write("p", good+"%include "+pipe+"\n"), "endless device": "/dev/zero", "terminal": "/dev/tty",
		"huge": huge, "huge included": write("h", good+"%include "+huge+"\n"), "itself": self, "thousands": bomb, "folder": dir,
		"none": filepath.Join(dir, "none"), "no name": "",
	} {
		t.Run(name, func(t *testing.T) {
			var e *file.Problem
			if _, err := readIn(t, path, ""); !errors.As(err, &e) || e.Problem == "" || len(err.Error()) > 1000 {
				t.Errorf("%v", err)
			}
		})
	}
	if _, err := readIn(t, "x", filepath.Join(dir, "no such root")); err == nil {
		t.Error("a root that is not there")
	}
}

func TestReadFileStaysInTheRoot(t *testing.T) {
	outside := iniFile(t, "[pgbouncer]\npool_mode = statement\n")
	root := t.TempDir()
	write := func(name, content string) {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	link := func(name, to string) {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.Symlink(to, path)); err != nil {
			t.Fatal(err)
		}
	}
	// As Kubernetes mounts a ConfigMap, and as Debian's /var/run.
	write(
		"etc/pgb/..2026_11_23/pgbouncer.ini",
		"[pgbouncer]\npool_mode = session\n%include /var/run/more.ini\n%include pgb/rel.ini\n%include beside.ini\n",
	)
	link("etc/pgb/..data", "..2026_11_23")
	link("etc/pgb/pgbouncer.ini", "..data/pgbouncer.ini")
	link("var/run", "/run")
	write("run/more.ini", "query_timeout = 5\n")
	write("pgb/rel.ini", "default_pool_size = 5\n")
	write("etc/pgb/beside.ini", "min_pool_size = 5\n")
	f, err := pgbini.ReadFile("/etc/pgb/pgbouncer.ini", root)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/etc/pgb/pgbouncer.ini", "/var/run/more.ini", "pgb/rel.ini", "beside.ini"}
	if d := cmp.Diff(want, f.Paths()); d != "" {
		t.Error(d)
	}
	link("escape.ini", outside)
	link("up.ini", strings.Repeat("../", 20)+outside)
	for _, name := range []string{"/escape.ini", "/up.ini", strings.Repeat("/..", 20) + outside} {
		if f, err := pgbini.ReadFile(name, root); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v %v", name, f, err)
		}
	}
}

func TestSecretsAreNotKept(t *testing.T) {
	path := iniFile(t, `[databases]
app = host=h password='`+secret+`' auth_user=`+secret+` connect_query='set x to `+secret+`' `+secret+`=1
[pgbouncer]
auth_ldap_options = ldapbindpasswd=`+secret+`
some_password = `+secret+`
`)
	f, err := pgbini.ReadFile(path, "")
	if err != nil {
		t.Fatal(err)
	}
	settings := []pgbini.Setting{
		{Key: "auth_ldap_options", Changeable: true},
		{Key: "pool_mode", Value: "session", Default: "session", Changeable: true},
	}
	found := f.Diff(settings, []pgbini.Database{{Name: "app", Host: "x"}})
	all := fmt.Sprintf("%+v %+v %v", f, found, f.Check(settings))
	if strings.Contains(all, secret) || !strings.Contains(all, "auth_ldap_options") {
		t.Error(strings.ReplaceAll(all, secret, "<SECRET>"))
	}
	for _, bad := range []string{
		"[databases]\napp = password='" + secret, "[databases]\napp = password=a " + secret, "[databases]\n" + secret + " password\n",
		"[pgbouncer]\n" + secret + "\n", "[databases]\napp = port=" + secret,
	} {
		if _, err := pgbini.ReadFile(iniFile(t, bad), ""); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%v", err != nil)
		}
	}
}

// What Diff makes of a version that is newer than what is known here.
func TestLaterVersions(t *testing.T) {
	path := iniFile(t, "[databases]\na = new_parameter=1\n[pgbouncer]\nnew_time = 5.0\nnew_word = Yes\n[new]\nx = 1\n[users]\nu = new=1\n")
	f, err := pgbini.ReadFile(path, "")
	if err != nil {
		t.Fatal(err)
	}
	settings := []pgbini.Setting{
		{Key: "new_time", Value: "5", Changeable: true},
		{Key: "new_word", Value: "yes", Changeable: true},
		{Key: "server_lifetime", Value: "3600", Default: "3600"},
	}
	if err := f.Check(settings); err != nil {
		t.Error(err)
	}
	a := pgbini.Database{Name: "a", Port: 5432, Target: "a", ServerLifetime: 3600}
	if d := f.Diff(settings, []pgbini.Database{a}); len(d) > 0 {
		t.Error(d)
	}
	if err := f.Check(settings[2:]); err == nil || !strings.Contains(err.Error(), `new_parameter`) {
		t.Errorf("a version that is known: %v", err)
	}
	if d := f.Diff(settings[2:], nil); len(d) != 5 {
		t.Errorf("%d: %v", len(d), d)
	}
}

// Which parameters a release takes, by what its SHOW CONFIG has: Debian has none from 1.19 to 1.23.
func TestParametersByRelease(t *testing.T) {
	releases := []string{"1.18", "1.19", "1.20", "1.21", "1.22", "1.23", "1.24", "1.25", "1.26"}
	came := map[string]string{ // settings that are new in each (PgBouncer's NEWS.md); none in 1.22
		"1.18": "pool_mode listen_port auth_query server_lifetime reserve_pool_size client_idle_timeout query_timeout " +
			"idle_transaction_timeout query_wait_timeout",
		"1.19": "auth_dbname peer_id",
		"1.20": "track_extra_parameters",
		"1.21": "max_prepared_statements",
		"1.23": "auth_ident_file",
		"1.24": "max_db_client_connections max_user_client_connections",
		"1.25": "auth_ldap_options client_tls13_ciphers query_wait_notify scram_iterations server_tls13_ciphers transaction_timeout",
		"1.26": "login_notify_message pool_idle_timeout",
	}
	for _, c := range []struct{ section, param, since string }{
		{"databases", "connect_query='x'", "1.18"},
		{"databases", "auth_dbname=x", "1.19"},
		{"databases", "auth_query='x'", "1.21"}, // 1.22: SHOW CONFIG does not tell it from 1.21
		{"databases", "server_lifetime=5", "1.23"},
		{"databases", "load_balance_hosts=disable", "1.24"},
		{"databases", "reserve_pool_size=5", "1.24"},
		{"databases", "max_db_client_connections=5", "1.24"},
		{"databases", "query_wait_timeout=5", "1.26"},
		{"users", "max_user_connections=5", "1.18"},
		{"users", "pool_size=5", "1.23"},
		{"users", "reserve_pool_size=5", "1.24"},
		{"users", "query_timeout=5", "1.24"},
		{"users", "idle_transaction_timeout=5", "1.24"},
		{"users", "client_idle_timeout=5", "1.24"},
		{"users", "max_user_client_connections=5", "1.24"},
		{"users", "transaction_timeout=5", "1.25"},
		{"users", "query_wait_timeout=5", "1.26"},
		{"peers", "host=h pool_size=5", "1.19"},
	} {
		path := iniFile(t, "["+c.section+"]\n1 = "+c.param+"\n[pgbouncer]\n")
		file, err := pgbini.ReadFile(path, "")
		if err != nil {
			t.Fatal(err)
		}
		var settings []pgbini.Setting
		for _, release := range releases {
			for _, key := range strings.Fields(came[release]) {
				settings = append(settings, pgbini.Setting{Key: key, Changeable: true})
			}
			err := file.Check(settings)
			if takes := slices.Index(releases, release) >= slices.Index(releases, c.since); takes != (err == nil) {
				t.Errorf("%s: [%s] %s: %v", release, c.section, c.param, err)
			}
		}
	}
}

func TestFileComments(t *testing.T) {
	dir := t.TempDir()
	inc, path := filepath.Join(dir, "inc"), filepath.Join(dir, "ini")
	if err := errors.Join(
		os.WriteFile(inc, []byte("# of inc"), 0o600),
		os.WriteFile(
			path,
			[]byte(
				"; one\n[databases]\na = password='secret' user='; no comment'\n \t## four\r\n\n%include "+inc+"\n[pgbouncer]\n;eight\n"+
					"\x00; nine\n",
			),
			0o600,
		),
	); err != nil {
		t.Fatal(err)
	}
	f, err := readIn(t, path, "")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{path: "; one\n\n\n \t## four\r\n\n\n\n;eight\n", inc: "# of inc", "other": ""},
		map[string]string{path: f.Comments(path), inc: f.Comments(inc), "other": f.Comments("other")}); d != "" {
		t.Error(d)
	}
}

func TestFilePort(t *testing.T) {
	for text, want := range map[string]string{
		"": "6432 true", "listen_port = 7": "7 true", "listen_port = 0x1920": "6432 true", "listen_port = 010": "8 true",
		"listen_port = x":  "0 false",
		"listen_port = -1": "65535 false", "listen_port = 65536": "0 false", "listen_port =": "0 false",
	} {
		f, err := readIn(t, iniFile(t, "[pgbouncer]\n"+text+"\n"), "")
		if err != nil {
			t.Fatal(err)
		}
		if port, ok := f.Port(); fmt.Sprint(port, ok) != want {
			t.Errorf("%q: %d %v, want %s", text, port, ok, want)
		}
	}
}
