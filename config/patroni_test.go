package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pgbaton/pgbaton/e2e/single"
)

// loadedByPatroni reads cases as JSON and tells of each what Patroni's own loader makes of it: text, by path.
const loadedByPatroni = `
import json, logging, os, sys, tempfile
logging.disable(logging.CRITICAL)
from patroni.config import Config
job = json.load(sys.stdin)
out = []
for case in job['cases']:
    for name in [n for n in os.environ if n.startswith('PATRONI_')]:
        del os.environ[name]
    os.environ.update(case.get('Env') or {})
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (case.get('Files') or {}).items():
            with open(os.path.join(folder, name), 'w', newline='') as f:
                f.write(text)
        start = '' if case['Start'] == 'env' else os.path.join(folder, case['Start'])
        try:
            c = Config(start, None).local_configuration
        except Exception as e:
            out.append(None)
            continue
    told = {}
    for path in job['paths']:
        v = c
        for step in path:
            v = v.get(step) if isinstance(v, dict) else None
        if v is not None and not isinstance(v, (dict, list)):
            told['.'.join(path)] = str(v)
    told['use_unix_socket'] = str(bool((c.get('postgresql') or {}).get('use_unix_socket')))
    out.append(told)
print(json.dumps(out))
`

// patroniCase is a Patroni: its files, what it is started with, and its variables.
type patroniCase struct {
	Start string // a file's name, "." or PatroniEnvironment
	Files map[string]string
	Env   map[string]string

	name    string
	refused bool // Patroni does not start with it
}

func patroniCases() []patroniCase {
	one := func(name, text string) patroniCase {
		return patroniCase{name: name, Start: "patroni.yml", Files: map[string]string{"patroni.yml": text}}
	}
	const spilo = `bootstrap:
  initdb:
  - auth-host: md5
  - auth-local: trust
scope: &scope demo
restapi:
  listen: ':8008'
  connect_address: 10.2.0.7:8008
postgresql:
  name: demo-0
  listen: '*:5432'
  connect_address: 10.2.0.7:5432
  use_unix_socket: true
  authentication:
    superuser: {username: postgres, password: zalando}
  parameters:
    unix_socket_directories: '/var/run/postgresql, /tmp'
    log_line_prefix: '%t [%p]: [%l-1] %c %x %d %u %a %h '
    archive_command: envdir "/run/etc/wal-e.d/env" wal-g wal-push "%p"
`
	const pigsty = `#!/usr/bin/env patroni
scope: pg-test
namespace: /pg/
name: pg-test-1
log: {level: INFO}
restapi:
  listen: 0.0.0.0:8008
  connect_address: 10.10.10.11:8008
  authentication:
    verify_client: none                 # none | optional | required
    username: 'postgres'
    password: 'Patroni.API'
#  certfile: /pg/cert/server.crt
etcd3:
  hosts: 10.10.10.10:2379
  username: 'pg-test'
postgresql:
  listen: 0.0.0.0:5432
  use_unix_socket: true
  parameters:
    unix_socket_directories: /run/postgresql
  authentication:
    superuser: { username: 'postgres' }
`
	const autobase = `---
scope: postgres-cluster
name: pgnode01
restapi:
  listen: 10.0.0.1:8008
  connect_address: 10.0.0.1:8008
  certfile: /etc/tls/server.crt
  keyfile: /etc/tls/server.key
  cafile: /etc/tls/ca.crt
  authentication: {username: patroni, password: 0123}
bootstrap:
  initdb:  # Note: It needs to be a list (some options need values, others are switches)
    - encoding: UTF8
    - data-checksums
postgresql:
  listen: 10.0.0.1,127.0.0.1:5432
  authentication:
    superuser:
      username: postgres
      password: pa$$word
      sslmode: require
#    rewind:  # Has no effect on postgres 10 and lower
  parameters:
    unix_socket_directories: /var/run/postgresql
`
	return []patroniCase{
		one("Spilo's", spilo),
		one("Pigsty's", pigsty),
		one("autobase's", autobase),
		one("a key twice", "scope: a\nrestapi: {listen: 'a:1', listen: 'b:2'}\nscope: b\nname: x\nname: 'y'\n"),
		one("a section twice", "restapi: {listen: 'a:1', certfile: /x}\nname: x\nrestapi: {listen: 'b:2'}\n"),
		one(
			"merge",
			"x: &x {username: u, password: p}\npostgresql:\n  authentication:\n    superuser: {<<: *x, password: q}\n    replication: "+
				"*x\nctl: {authentication: *x}\n",
		),
		one(
			"types",
			"name: 010\nscope: yes\nrestapi: {authentication: {username: 12:30, password: 1.50}}\nctl: {authentication: {username: "+
				"0x10, password: 1_000}}\n",
		),
		one("nulls", "name: ~\nscope:\nrestapi:\nctl: {cacert: null, certfile: ''}\n"),
		one("use_unix_socket, quoted", "postgresql: {use_unix_socket: 'false'}\n"),
		one("use_unix_socket, off", "postgresql: {use_unix_socket: off}\n"),
		one("use_unix_socket, 0", "postgresql: {use_unix_socket: 0}\n"),
		one("a list in the way", "name: x\nctl: {cacert: [a, b]}\nscope: {a: b}\n"),
		one("a text in the way", "restapi: x\nname: x\n"),
		one("JSON", "{\"scope\": \"a\", \"name\": \"b\", \"restapi\": {\"listen\": \"0.0.0.0:8008\"}}"),
		one("Windows", "\ufeffscope: a\r\nname: b\r\n"),
		one("numbers as keys", "1: x\nname: 1\n"),
		{name: "a folder", Start: ".", Files: map[string]string{
			"10-base.yml": "scope: a\nname: x\nrestapi: {listen: '0.0.0.0:8008', certfile: /c}\npostgresql: {authentication: " +
				"{superuser: {username: u, password: p}}}\n",
			"20-more.yml": "name: y\nrestapi: {certfile: ~}\npostgresql: {authentication: {superuser: {password: q}}, use_unix_socket: " +
				"yes}\n",
			"9-first.yml": "scope: c\nctl: {cacert: /late}\n", // 9 comes after 20
			"B.yaml":      "postgresql: {listen: 'b:1'}\n",
			"a.yaml":      "postgresql: {listen: 'a:1'}\n", // lower case comes after upper case
			"c.conf":      "scope: no\n",
			"d.yml.bak":   "scope: no\n",
		}},
		{
			name:  "a folder that replaces",
			Start: ".",
			Files: map[string]string{"1.yml": "restapi: x\nctl: {cacert: /a}\n", "2.yml": "restapi: {listen: 'a:1'}\nctl: y\n"},
		},
		{name: "an empty folder", Start: "."},
		{name: "variables over a file", Start: "p.yml", Files: map[string]string{"p.yml": pigsty}, Env: map[string]string{
			"PATRONI_NAME":                    "env-name",
			"PATRONI_RESTAPI_PASSWORD":        "env-pass",
			"PATRONI_RESTAPI_CONNECT_ADDRESS": "1.2.3.4:8008",
			"PATRONI_SUPERUSER_PASSWORD":      "0123",
			"PATRONI_CTL_CACERT":              "/ca",
			"PATRONI_POSTGRESQL_LISTEN":       "127.0.0.1:5433",
			"PATRONI_SUPERUSER_SSLMODE":       "disable",
			"PATRONI_SCOPE":                   "",
		}},
		{name: "variables alone", Start: PatroniEnvironment, Env: map[string]string{
			"PATRONI_SCOPE":              "demo",
			"PATRONI_NAME":               "m1",
			"PATRONI_RESTAPI_LISTEN":     "0.0.0.0:8008",
			"PATRONI_RESTAPI_USERNAME":   "u",
			"PATRONI_RESTAPI_PASSWORD":   "p",
			"PATRONI_SUPERUSER_USERNAME": "boss",
			"PATRONI_SUPERUSER_PASSWORD": "yes",
			"PATRONI_ETCD3_HOSTS":        "a:1,b:2",
			"PATRONI_CTL_AUTHENTICATION": "no",
		}},
		{name: "variables and no such file", Start: "none.yml", Env: map[string]string{"PATRONI_SCOPE": "demo", "PATRONI_NAME": "m1"}},
		{
			name:  "all in one variable",
			Start: PatroniEnvironment,
			Env:   map[string]string{"PATRONI_CONFIGURATION": "scope: inner\nrestapi: {listen: 'a:1'}\n", "PATRONI_NAME": "not counted"},
		},
		{name: "no YAML", Start: "p.yml", Files: map[string]string{"p.yml": "scope: a\nname: @x\n"}, refused: true},
		{name: "a list", Start: "p.yml", Files: map[string]string{"p.yml": "- a\n"}, refused: true},
		{
			name:    "one bad file of a folder",
			Start:   ".",
			Files:   map[string]string{"1.yml": "scope: a\n", "2.yml": "name: {{ x }}\nx: [\n", "3.yml": "name: y\n"},
			refused: true,
		},
	}
}

// TestAsPatroniReads compares what is read of Patroni's configuration with what Patroni's own loader reads, value by value.
func TestAsPatroniReads(t *testing.T) {
	single.Need(t)
	cases := patroniCases()
	paths := [][]string{{"postgresql", "parameters", "unix_socket_directories"}}
	for _, path := range patroniVariables() {
		paths = append(paths, path)
	}
	for _, suite := range []string{single.SuiteTrixie, single.SuiteSid} {
		var theirs []map[string]string
		single.Python(t, suite, loadedByPatroni, map[string]any{"cases": cases, "paths": paths}, &theirs)
		if len(theirs) != len(cases) {
			t.Fatal(len(theirs))
		}
		for i, c := range cases {
			if c.refused != (theirs[i] == nil) {
				t.Errorf("%s, %s: Patroni reads %v", suite, c.name, theirs[i])
			}
			section, warnings, err := readCase(t, c)
			if err != nil || c.refused != (len(warnings) > 0) && c.name != "variables and no such file" {
				t.Errorf("%s, %s: %v, warnings %v", suite, c.name, err, warnings)
			}
			if c.refused {
				continue
			}
			ours := map[string]string{"use_unix_socket": "False"}
			if section.isTrue("postgresql", "use_unix_socket") {
				ours["use_unix_socket"] = "True"
			}
			for _, path := range paths {
				if v := section.at(path...); v != nil && v.section == nil && !v.list {
					ours[strings.Join(path, ".")] = v.text
				}
			}
			if d := cmp.Diff(theirs[i], ours); d != "" {
				t.Errorf("%s, %s:\n%s", suite, c.name, d)
			}
		}
	}
}

func readCase(t *testing.T, c patroniCase) (patroniSection, []*Error, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range c.Files {
		write(t, filepath.Join(dir, name), text)
	}
	l := &loader{}
	l.options.LookupEnv = func(name string) (string, bool) { v, ok := c.Env[name]; return v, ok }
	l.config.Patroni.Config = PatroniEnvironment
	if c.Start != PatroniEnvironment {
		l.config.Patroni.Config = filepath.Join(dir, c.Start)
	}
	section, err := l.readPatroni()
	return section, l.config.Warnings, err
}

// A file of Patroni that cannot be read as YAML costs what stands behind the mistake, and a warning.
func TestPatroniFileThatIsNoYAML(t *testing.T) {
	dir := t.TempDir()
	write(
		t,
		dir+"/patroni.yml",
		"scope: demo\nrestapi: {connect_address: '10.0.0.1:8009'}\npostgresql:\n  listen: 127.0.0.1:5433\n  parameters:\n    x: "+
			"@hunter2\n  authentication: {superuser: {username: late}}\n",
	)
	c, err := loadText(t, "patroni: {config: "+dir+"/patroni.yml}", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Patroni.Scope != "demo" || c.Patroni.URL != "http://10.0.0.1:8009" ||
		c.Postgres != "host='127.0.0.1' port='5433' user='postgres' dbname=postgres" {
		t.Errorf("%+v %s", c.Patroni, c.Postgres)
	}
	want := dir +
		"/patroni.yml:6:8: not valid YAML: found character that cannot start any token: Patroni does not take it, and runs with what " +
		"it had before"
	if len(c.Warnings) != 1 || c.Warnings[0].Error() != want {
		t.Errorf("%v\nwant %s", c.Warnings, want)
	}
	// Values that cannot be used are warnings, too.
	write(t, dir+"/patroni.yml", "restapi: {connect_address: 'a b', listen: '0.0.0.0:8010'}\npostgresql: {listen: 'x:y'}\n")
	c, err = loadText(t, "patroni: {config: "+dir+"/patroni.yml}", nil)
	if err != nil || c.Patroni.URL != "http://127.0.0.1:8010" || c.Postgres != "host=/var/run/postgresql user=postgres dbname=postgres" ||
		len(c.Warnings) != 2 {
		t.Error(c.Patroni, c.Postgres, c.Warnings, err)
	}
	// Our own key is ours.
	if _, err := loadText(t, "patroni: {config: /nonexistent/p.yml}", nil); err == nil {
		t.Error("no error")
	}
	if _, err := loadText(t, "patroni: {config: env}", nil); err == nil {
		t.Error("no error")
	}
}

// What is no regular file in a folder of Patroni's is passed over, as Patroni does.
func TestPatroniFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.yml", "a.yaml", "c.YML", ".yml", "x.yml~"} {
		write(t, filepath.Join(dir, name), "")
	}
	if err := errors.Join(
		os.Mkdir(filepath.Join(dir, "d.yml"), 0o700),
		os.Symlink("nowhere", filepath.Join(dir, "e.yml")),
		os.Symlink("b.yml", filepath.Join(dir, "f.yml")),
	); err != nil {
		t.Fatal(err)
	}
	got, err := PatroniFiles(dir)
	for i := range got {
		got[i] = filepath.Base(got[i])
	}
	if want := []string{".yml", "a.yaml", "b.yml", "f.yml"}; err != nil || !slices.Equal(got, want) {
		t.Error(got, err)
	}
}

// The variables of Patroni's process count where our own environment has none, and only for Patroni.
func TestVariablesOfPatroniProcess(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/patroni.yml", "scope: demo\n")
	theirs := environment(
		"PATRONI_NAME=m1",
		"PATRONI_RESTAPI_CONNECT_ADDRESS=10.0.0.1:8008",
		"PATRONI_RESTAPI_USERNAME=u",
		"PATRONI_SUPERUSER_PASSWORD=hunter2",
		"PGBATON_PAUSE_BUDGET=1s",
	)
	asked := ""
	load := func(text string, env ...string) *Config {
		write(t, dir+"/pgbaton.yaml", text)
		c, err := Load(
			Options{
				File:      dir + "/pgbaton.yaml",
				LookupEnv: environment(append(env, "TMPDIR="+dir)...),
				PatroniEnv: func(name, config string) (string, bool) {
					asked = config
					return theirs(name)
				},
			},
		)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := load("patroni: {config: patroni.yml}", "PATRONI_NAME=own")
	pg, err := pgconn.ParseConfig(c.Postgres)
	if err != nil || c.Patroni.Name != "own" || c.Patroni.Username != "u" || c.Patroni.URL != "http://10.0.0.1:8008" ||
		pg.Password != "hunter2" ||
		asked != dir+"/patroni.yml" ||
		c.Pause.Budget.Seconds() != 15 {
		t.Error(c, asked, err)
	}
	if c := load("patroni: {config: env}"); c.Patroni.Name != "m1" || asked != "" {
		t.Error(c, asked)
	}
	asked = "not asked"
	if c := load(""); c.Patroni.Name != "" || asked != "not asked" {
		t.Error(c, asked)
	}
}
