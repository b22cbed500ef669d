package pgbini_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

// readText is the file at path and its text.
func readText(t testing.TB, path string) (*pgbini.File, string) {
	t.Helper()
	f, err := readIn(t, path, "")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return f, string(text)
}

func TestRepoint(t *testing.T) {
	remote := pgbini.Address{Host: "10.0.0.2", Port: 5433}
	for _, c := range []struct{ before, after string }{
		{"app = host=/run/postgresql", "app = port=5433 host=10.0.0.2"},
		{"app = host=/run/postgresql port=6000 dbname=x", "app = host=10.0.0.2 port=5433 dbname=x"},
		{"app=port=1 host=a  ", "app=port=5433 host=10.0.0.2  "},
		{"\t app\t=\t host = '/run/post''gres' port= '6' password='a host=b'", "\t app\t=\t host = 10.0.0.2 port= 5433 password='a host=b'"},
		{"app = dbname=x", "app = host=10.0.0.2 port=5433 dbname=x"},
		{"app =", "app =host=10.0.0.2 port=5433"},
		{"app = host=a host=b port=1 port=2", "app = host=10.0.0.2 host=10.0.0.2 port=5433 port=5433"},
	} {
		text := "; a comment of app = host=no\n[databases]\nother = host=/run/postgresql\n" + c.before + "\r\n\n[pgbouncer]\nlisten_port = 1\n"
		path := iniFile(t, text)
		f, _ := readText(t, path)
		got, err := pgbini.Repoint([]byte(text), f.DatabaseEntries("app"), remote)
		if err != nil {
			t.Errorf("%q: %v", c.before, err)
			continue
		}
		if d := cmp.Diff(strings.Replace(text, "\n"+c.before+"\r", "\n"+c.after+"\r", 1), string(got)); d != "" {
			t.Errorf("%q: %s", c.before, d)
		}
	}
}

func TestRepointRefuses(t *testing.T) {
	text := "[databases]\napp = host=a\n* = host=\n[pgbouncer]\n"
	f, _ := readText(t, iniFile(t, text))
	fine := pgbini.Address{Host: "b", Port: 5432}
	app := f.DatabaseEntries("app")
	for name, c := range map[string]struct {
		text string
		of   []pgbini.DatabaseEntry
		to   pgbini.Address
	}{
		"a host with a blank":     {text, app, pgbini.Address{Host: "b port=1", Port: 5432}},
		"a host with a quote":     {text, app, pgbini.Address{Host: "b'", Port: 5432}},
		"no host":                 {text, app, pgbini.Address{Port: 5432}},
		"no port":                 {text, app, pgbini.Address{Host: "b"}},
		"the line is another one": {strings.Replace(text, "app =", "\napp =", 1), app, fine},
		"the line is gone":        {"[databases]\n", app, fine},
		"a line with an error":    {text, f.DatabaseEntries("*"), fine},
	} {
		if got, err := pgbini.Repoint([]byte(c.text), c.of, c.to); err == nil {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// Whatever an entry says: the address alone is another one, and there and back again is what it was.
func TestRepointKeepsTheRest(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pgbouncer.ini")
	rapid.Check(t, func(t *rapid.T) {
		var conn strings.Builder
		for _, key := range rapid.Permutation([]string{"host", "port", "dbname", "password", "connect_query", "pool_size"}).Draw(t, "keys") {
			value := map[string]string{"host": "/run/postgresql", "port": "5432", "pool_size": "7"}[key]
			if value == "" {
				value = "'" + rapid.StringMatching(`[a-z ='host]{1,20}`).Draw(t, key) + "'"
				value = "'" + strings.ReplaceAll(value[1:len(value)-1], "'", "''") + "'"
			}
			conn.WriteString(
				key + rapid.SampledFrom([]string{"=", " = "}).Draw(t, "equals") + value + rapid.StringMatching(` {1,3}`).Draw(t, "blanks"),
			)
		}
		text := "[databases]\nx = host=keep\napp = " + conn.String() + "\n[pgbouncer]\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := pgbini.ReadFile(path, "")
		if err != nil {
			t.Fatal(err)
		}
		app := f.DatabaseEntries("app")
		there, err := pgbini.Repoint([]byte(text), app, pgbini.Address{Host: "pg-2.example.org", Port: 65535})
		if err != nil {
			t.Fatal(err)
		}
		back, err := pgbini.Repoint(there, app, pgbini.Address{Host: "/run/postgresql", Port: 5432})
		if err != nil || string(back) != text {
			t.Fatalf("%v\n%q\n%q\n%q", err, text, there, back)
		}
	})
}

// An %include is found by the path that it has in the process's own root, and by symbolic links.
func TestReads(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"databases.ini": "app = host=a port=7\n",
		"other.ini":     "app = host=b\n",
		"pgbouncer.ini": "[databases]\n%include " + dir + "/link.ini\n[pgbouncer]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("databases.ini", filepath.Join(dir, "link.ini")); err != nil {
		t.Fatal(err)
	}
	f, _ := readText(t, filepath.Join(dir, "pgbouncer.ini"))
	if got := f.Reads(filepath.Join(dir, "databases.ini"), ""); got != filepath.Join(dir, "link.ini") {
		t.Errorf("%q", got)
	}
	if got := f.Reads(filepath.Join(dir, "pgbouncer.ini"), ""); got == "" {
		t.Error("the file itself")
	}
	if got := f.Reads(filepath.Join(dir, "other.ini"), ""); got != "" {
		t.Errorf("%q: no %%include reaches it", got)
	}
	want := []pgbini.DatabaseEntry{
		{Name: "app", Address: pgbini.Address{Host: "a", Port: 7}, File: filepath.Join(dir, "link.ini"), Line: 1},
	}
	if d := cmp.Diff(want, f.DatabaseEntries("app")); d != "" {
		t.Error(d)
	}
}
