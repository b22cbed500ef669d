package setup

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

// TestPoolerOf: how a PgBouncer on this machine is asked, by its file and by whose its socket is.
func TestPoolerOf(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "p") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.6432"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	own, other := os.Getuid(), os.Getuid()+1
	for _, test := range []struct {
		ini       string
		uid       int
		dsn, fail string
	}{
		{"unix_socket_dir = " + dir, own, "host=" + dir + " port=6432 user=pgbouncer dbname=pgbouncer", ""},
		{"unix_socket_dir = " + dir + "\nadmin_users = adm", other, "host=" + dir + " port=6432 user=adm dbname=pgbouncer", ""},
		{"unix_socket_dir = " + dir, other, "", "admin_users"},
		// No socket on this port, so over TCP.
		{"unix_socket_dir = " + dir + "\nlisten_port = 6433\nlisten_addr = 0.0.0.0\nadmin_users = x y, adm", own,
			"postgres://adm@127.0.0.1:6433/pgbouncer", ""},
		{"unix_socket_dir = /nowhere\nlisten_addr = ::, 10.0.0.1\nadmin_users = adm", own, "postgres://adm@[::1]:6432/pgbouncer", ""},
		{"unix_socket_dir = /nowhere\nlisten_addr = 10.0.0.1\nadmin_users = adm", own, "postgres://adm@10.0.0.1:6432/pgbouncer", ""},
		{"unix_socket_dir = /nowhere\nadmin_users = adm", own, "", "neither listen_addr nor"},
		{"unix_socket_dir = /nowhere\nlisten_addr = a b\nadmin_users = adm", own, "", "neither listen_addr nor"},
		{"listen_port = 99999\nadmin_users = adm", own, "", "listen_port"},
		{"unix_socket_dir = /nowhere\nlisten_addr = h\nadmin_users = a'b, ${X}", own, "", "admin_users"},
	} {
		file := filepath.Join(dir, "pgbouncer.ini")
		if err := os.WriteFile(file, []byte("[databases]\n[pgbouncer]\n"+test.ini+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		p, todo, err := poolerOf(file, test.uid)
		if test.fail != "" {
			if err == nil || !strings.Contains(err.Error(), test.fail) {
				t.Errorf("%q: %+v %v", test.ini, p, err)
			}
			continue
		}
		if err != nil || p.dsn != test.dsn || p.config != file {
			t.Errorf("%q: %+v %v", test.ini, p, err)
		}
		if withoutPassword := strings.Contains(p.dsn, "user=pgbouncer "); (len(todo) == 0) != withoutPassword || (p.password == "") != withoutPassword {
			t.Errorf("%q: %+v %q", test.ini, p, todo)
		}
	}
}

// TestNamedPooler: what is left to do for a console that a person has named.
func TestNamedPooler(t *testing.T) {
	passwords := filepath.Join(t.TempDir(), "pgpass")
	if err := os.WriteFile(passwords, []byte("*:*:*:known:hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for dsn, user := range map[string]string{
		"postgres://adm@pgbouncers:6432/pgbouncer":                         "adm",
		"host=10.0.0.1,10.0.0.2 port=6432 user=adm dbname=pgbouncer":       "adm",
		"host=/run/pgbouncer port=6432 user=pgbouncer dbname=pgbouncer":    "",
		"postgres://known@pgbouncers:6432/pgbouncer?passfile=" + passwords: "",
		"postgres://adm@pgbouncers:6432/pgbouncer?passfile=" + passwords:   "adm",
		"host=pgbouncers port=no user=adm":                                 "", // a mistake, which load tells
	} {
		p, todo := namedPooler(dsn)
		if p.dsn != dsn || p.password != user || (len(todo) == 0) != (user == "") {
			t.Errorf("%s: %+v %q, want the user %q", dsn, p, todo, user)
		}
	}
}

// TestDraftIsYAML: whatever stands in the values, they are read back as they were.
func TestDraftIsYAML(t *testing.T) {
	for _, odd := range []string{"/etc/patroni.yml", "/a b/ü'\"#: x", "/x: y", "/x #y", "${HOME}/x", "- x", "/\u2028\x01", "/x:", "true", "5"} {
		d := draft{patroni: odd, stateDir: odd, budget: 10 * time.Second, generated: time.Now(),
			poolers: []pooler{{dsn: odd, pidfile: odd, config: odd, password: "a", comment: "c"}}, answered: []string{"x"}}
		var back struct {
			Patroni  struct{ Config string }
			Poolers  []struct{ DSN, Pidfile, Config string }
			Pause    struct{ Budget string }
			StateDir string `yaml:"state_dir"`
		}
		want := strings.ReplaceAll(odd, "${", "$${")
		if err := yaml.Unmarshal([]byte(d.text()), &back); err != nil || len(back.Poolers) != 1 || back.Patroni.Config != want ||
			back.Poolers[0].DSN != want || back.Poolers[0].Pidfile != want || back.Poolers[0].Config != want || back.StateDir != want ||
			back.Pause.Budget != "10s" {
			t.Errorf("%q: %v %+v\n%s", odd, err, back, d.text())
		}
	}
}

// TestCreate: of many at once one writes the file, whole, and the others say that it is there.
func TestCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pgbaton.yaml")
	const many = 20
	errs := make(chan error, many)
	for i := range many {
		go func() { errs <- create(path, strings.Repeat(fmt.Sprintln(i), 1000)) }()
	}
	written := 0
	for range many {
		switch err := <-errs; {
		case err == nil:
			written++
		case !errors.Is(err, os.ErrExist):
			t.Error(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil || written != 1 {
		t.Fatalf("%d have written: %v", written, err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	if string(text) != strings.Repeat(first+"\n", 1000) {
		t.Error("not whole")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
