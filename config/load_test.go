package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"
)

// loadText loads a file with this text, under an environment of env's "NAME=value" and nothing else.
func loadText(t testing.TB, text string, set []Setting, env ...string) (*Config, error) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "pgbaton.yaml")
	write(t, file, text)
	c, err := Load(Options{File: file, Set: set, LookupEnv: environment(append(env, "TMPDIR="+dir)...)})
	if err != nil {
		if !IsInvalid(err) {
			t.Errorf("not an *Error: %T %v", err, err)
		}
		return c, errors.New(strings.ReplaceAll(err.Error(), dir+"/", ""))
	}
	return c, nil
}

func environment(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, p := range pairs {
			if v, ok := strings.CutPrefix(p, name+"="); ok {
				return v, true
			}
		}
		return "", false
	}
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDefaults(t *testing.T) {
	c, err := Load(
		Options{systemFile: "/nonexistent", Executable: t.TempDir() + "/x", Argv0: "x", LookupEnv: environment("TMPDIR=" + t.TempDir())},
	)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(c.StateDir); err != nil || info.Mode().Perm()&0o077 != 0 && c.StateDir != defaultStateDir {
		t.Errorf("state directory %s: %v %v", c.StateDir, info, err)
	}
	c.StateDir = ""
	want := &Config{
		Patroni:  Patroni{URL: "http://127.0.0.1:8008"},
		Postgres: "host=/var/run/postgresql user=postgres dbname=postgres",
		Pause: Pause{
			Budget:         15 * time.Second,
			Attempt:        2 * time.Second,
			OnTimeout:      OnTimeoutHold,
			Lease:          30 * time.Second,
			ShutdownBudget: 5 * time.Second,
			StopServer:     true,
		},
		Resume: Resume{Timeout: time.Minute},
		Serve:  Serve{Listen: "127.0.0.1:8009", ClientScope: ScopeOperate, Grace: 20 * time.Second, Reconcile: ReconcileOff},
	}
	if d := cmp.Diff(want, c); d != "" {
		t.Error(d)
	}
}

func TestEverything(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/pw", "s3cret\n")
	c, err := loadText(t, `
patroni: {url: "https://${HOSTNAME}:8008/", username: op, password_file: `+dir+`/pw, ca_file: ca.pem}
postgres: host=/tmp user=postgres
poolers:
  - dsn: postgres://admin@pgbouncer:5432/pgbouncer
    password_file: `+dir+`/pw
    databases: auto
  - dsn: host=b port=6432 user=admin dbname=pgbouncer
    resolve: one
    databases: [a, 'b']
  - pidfile: /run/pgbouncer/pgbouncer.pid
    config: /etc/pgbouncer/pgbouncer.ini
    databases: all
pause: {budget: 20s, attempt: 500ms, on_timeout: skip, lease: 1m, shutdown_budget: 3s, stop_server: off}
resume: {route: "postgres://postgres@${CLUSTER}:5432/postgres", timeout: 30s}
versions:
  postgres: {setting: pgbaton.config_version}
  pgbouncer: {line: /etc/pgbouncer/pgbouncer.ini}
serve:
  listen: "[::]:8009"
  tokens_file: tokens
  cert_file: tls.crt
  key_file: tls.key
  client_ca_file: ca.crt
  client_key_pins: "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=, LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="
  client_scope: read
  grace: 5s
  reconcile: all
state_dir: `+dir+`/state
`, nil, "HOSTNAME=db-0", "CLUSTER=cluster", "PGBATON_POOLER_PASSWORD=other")
	if err != nil {
		t.Fatal(err)
	}
	beside := filepath.Dir(c.File)
	want := &Config{
		Patroni: Patroni{
			URL:          "https://db-0:8008",
			Username:     "op",
			Password:     "s3cret",
			PasswordFile: dir + "/pw",
			CAFile:       beside + "/ca.pem",
		},
		Postgres: "host=/tmp user=postgres",
		Poolers: []Pooler{
			{DSN: "postgres://admin@pgbouncer:5432/pgbouncer", Password: "s3cret", PasswordFile: dir + "/pw", Resolve: "all",
				Databases: Databases{Auto: true}},
			{
				DSN:       "host=b port=6432 user=admin dbname=pgbouncer",
				Password:  "other",
				Resolve:   "one",
				Databases: Databases{Names: []string{"a", "b"}},
			},
			{Pidfile: "/run/pgbouncer/pgbouncer.pid", Config: "/etc/pgbouncer/pgbouncer.ini", Resolve: "all"},
		},
		Pause: Pause{
			Budget:         20 * time.Second,
			Attempt:        500 * time.Millisecond,
			OnTimeout:      OnTimeoutSkip,
			Lease:          time.Minute,
			ShutdownBudget: 3 * time.Second,
		},
		Resume: Resume{Route: "postgres://postgres@cluster:5432/postgres", Timeout: 30 * time.Second},
		Versions: Versions{
			Postgres:  VersionSource{Setting: "pgbaton.config_version"},
			PgBouncer: VersionSource{Line: "/etc/pgbouncer/pgbouncer.ini"},
		},
		Serve: Serve{Listen: "[::]:8009", TokensFile: beside + "/tokens", CertFile: beside + "/tls.crt", KeyFile: beside + "/tls.key",
			ClientCAFile: beside + "/ca.crt", ClientScope: ScopeRead, Grace: 5 * time.Second, Reconcile: ReconcileAll,
			ClientKeyPins: []string{"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="}},
		StateDir: dir + "/state",
		File:     c.File,
	}
	if d := cmp.Diff(want, c); d != "" {
		t.Error(d)
	}
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(dir, dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/open", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir+"/open", 0o777); err != nil { // Mkdir's mode has the umask taken off
		t.Fatal(err)
	}
	write(t, dir+"/empty", "\n")
	write(t, dir+"/words", "not at all\n")
	for _, test := range []struct{ yaml, want string }{
		{"pause:\n  bugdet: 15s\n", `pgbaton.yaml:2: unknown key "pause.bugdet" (did you mean "pause.budget"?)`},
		{"budget: 15s\n", `pgbaton.yaml:1: unknown key "budget" (did you mean "pause.budget"?)`},
		{"pooler: x\n", `pgbaton.yaml:1: unknown key "pooler" (did you mean "poolers"?)`},
		{"zzzzzzzzz: x\n",
			`pgbaton.yaml:1: unknown key "zzzzzzzzz": known here are patroni, postgres, pause, resume, versions, serve, members, state_dir, poolers`},
		{"Pause:\n  budget: 15s\n", `pgbaton.yaml:1: unknown key "Pause" (did you mean "pause"?)`},
		{"resum:\n  timeout: 15s\n", `pgbaton.yaml:1: unknown key "resum" (did you mean "resume"?)`},
		{"versions:\n  mysql:\n    line: x\n", `pgbaton.yaml:2: unknown key "versions.mysql": known here are postgres, pgbouncer`},
		{"poolers:\n- host: x\n",
			`pgbaton.yaml:2: unknown key "poolers[0].host": known here are dsn, password_file, resolve, pidfile, config, agent, follow, databases`},
		{"poolers:\n- dsn: postgres://a@b/c\n  resolv: one",
			`pgbaton.yaml:3: unknown key "poolers[0].resolv" (did you mean "poolers[].resolve"?)`},
		{"poolers:\n- password: hunter2",
			`pgbaton.yaml:2: unknown key "poolers[0].password": a password comes from password_file, the dsn, a pgpass file or PGBATON_POOLER_PASSWORD`},
		{"patroni: {password: hunter2}",
			`pgbaton.yaml:1: unknown key "patroni.password": a password comes from patroni.password_file or PGBATON_PATRONI_PASSWORD`},
		{"pause: {budget: 15}", `pgbaton.yaml:1: pause.budget: "15" has no unit: write 15s`},
		{"pause: {budget: '1.5'}", `pgbaton.yaml:1: pause.budget: "1.5" has no unit: write 1.5s`},
		{"pause: {budget: soon}", `pgbaton.yaml:1: pause.budget: "soon" is not a duration: write 500ms, 15s or 1m30s`},
		{"pause: {budget: -1s}", `pgbaton.yaml:1: pause.budget: "-1s" is not longer than nothing`},
		{"pause: {lease: 0s}", `pgbaton.yaml:1: pause.lease: "0s" is not longer than nothing`},
		{"pause: {on_timeout: kill}", `pgbaton.yaml:1: pause.on_timeout: "kill" is none of hold, terminate, skip, wait`},
		{"members: {url: 'https://m2:8009'}", `pgbaton.yaml:1: members.url: is the same for all members: write https://{host}:8009`},
		{"members: {url: 'https://u:hunter2@{host}:8009'}", `pgbaton.yaml:1: members.url: has a user in it: use members.token_file`},
		{"members: {url: '{host}:8009'}", `pgbaton.yaml:1: members.url: is not a URL of pgbaton serve: write https://{host}:8009`},
		{"members: {url: 'https://{hots}:8009'}", `pgbaton.yaml:1: members.url: is not a URL of pgbaton serve: write https://{host}:8009`},
		{"members: {url: 'https://{host}:8009/v1'}", `pgbaton.yaml:1: members.url: has something behind the port: write https://{host}:8009`},
		{"members: {key_file: /k}", `pgbaton.yaml:1: members.key_file: members.cert_file and members.key_file go together`},
		{"serve: {listen: 8009}", `pgbaton.yaml:1: serve.listen: is not HOST:PORT: write 127.0.0.1:8009`},
		{"serve: {cert_file: a.pem}", `pgbaton.yaml:1: serve.cert_file: needs serve.key_file`},
		{"serve: {client_ca_file: a.pem}", `pgbaton.yaml:1: serve.client_ca_file: needs serve.cert_file`},
		{"serve: {client_scope: all}", `pgbaton.yaml:1: serve.client_scope: "all" is none of read, operate`},
		{"pause: {stop_server: maybe}", `pgbaton.yaml:1: pause.stop_server: "maybe" is none of auto, off`},
		{"pause:\n  budget: 3s\n  attempt: 5s", `pgbaton.yaml:3: pause.attempt: 5s is longer than pause.budget 3s`},
		{"pause: {lease: 1s}", `pgbaton.yaml:1: pause.lease: 1s is not longer than pause.attempt 2s: a pause would end before it began`},
		{"pause: 15s", `pgbaton.yaml:1: pause: must be keys and values`},
		{"pause: {budget: [1s]}", `pgbaton.yaml:1: pause.budget: must be a single value`},
		{"poolers: x", `pgbaton.yaml:1: poolers: must be a list: write - dsn: ... below it`},
		{"poolers:\n- postgres://u:hunter2@h/d", `pgbaton.yaml:2: poolers[0]: must have keys: write - dsn: ...`},
		{"poolers:\n- resolve: all", `pgbaton.yaml:2: poolers[0]: has neither dsn nor pidfile`},
		{"poolers:\n- {dsn: postgres://a@b/c, databases: app}",
			`pgbaton.yaml:2: poolers[0].databases: "app" is none of all, auto: a single name is written as a list, [name]`},
		{"poolers:\n- {dsn: 'postgres://pgbouncer_admin:hunter2@h:5x/d'}",
			`pgbaton.yaml:2: poolers[0].dsn: cannot parse "postgres://pgbouncer_admin:***@...": the port is no number; or a : / ? # @ in the password that must be percent-encoded`},
		{"postgres: 'postgres://a@b:1/c?sslmode=maybe'",
			`pgbaton.yaml:1: postgres: cannot parse "postgres://a@...": sslmode is disable, allow, prefer, require, verify-ca or verify-full`},
		{"postgres: 'host=h pasword=hunter2'",
			`pgbaton.yaml:1: postgres: cannot parse "host=***": it has an unknown key (did you mean "password"?)`},
		{"postgres: 'postgres://u@h/d?passwd=hunter2'",
			`pgbaton.yaml:1: postgres: cannot parse "postgres://u@...": it has an unknown key (did you mean "password"?)`},
		{"poolers:\n- dsn: 'host=h user=u pwd=hunter2'",
			`pgbaton.yaml:2: poolers[0].dsn: cannot parse "host=*** user=***": it has an unknown key: known are ` +
				strings.Join(connectionKeys(), ", ") + `; a setting of the server is written as options='-c NAME=VALUE'`},
		{"resume: {route: 'host=h usr=u'}",
			`pgbaton.yaml:1: resume.route: cannot parse "host=***": it has an unknown key (did you mean "user"?)`},
		{"postgres: ''", `pgbaton.yaml:1: postgres: is empty: write postgres://USER@HOST:PORT/DATABASE`},
		{"patroni: {url: 'http://u:hunter2@h:8008'}",
			`pgbaton.yaml:1: patroni.url: has a user in it: use patroni.username and patroni.password_file`},
		{"patroni: {url: 'h:8008'}",
			`pgbaton.yaml:1: patroni.url: is not a URL of Patroni's REST API: write http://HOST:8008 or https://HOST:8008`},
		{"patroni: {password_file: /nonexistent/pw}",
			`pgbaton.yaml:1: patroni.password_file: cannot read /nonexistent/pw: no such file or directory`},
		{"patroni:\n  password_file: " + dir + "/empty", `pgbaton.yaml:2: patroni.password_file: ` + dir + `/empty is empty`},
		{"poolers:\n- dsn: postgres://a@b/c\n  password_file: /dev/zero",
			`pgbaton.yaml:3: poolers[0].password_file: cannot read /dev/zero: is a device, not a regular file`},
		{"patroni: {cert_file: /x}", `pgbaton.yaml:1: patroni.cert_file and patroni.key_file go together`},
		{"patroni:\n  key_file: /x", `pgbaton.yaml:2: patroni.key_file: patroni.cert_file and patroni.key_file go together`},
		{"patroni: {url: 'http://h:8008/patroni'}",
			`pgbaton.yaml:1: patroni.url: has something behind the port: write http://HOST:8008 or https://HOST:8008`},
		{"patroni: {url: 'http://h:99999'}",
			`pgbaton.yaml:1: patroni.url: has no possible port: write http://HOST:8008 or https://HOST:8008`},
		{"patroni: {password_file: '${SECRET}'}",
			`pgbaton.yaml:1: patroni.password_file: cannot read ${SECRET}: no such file or directory`},
		{"poolers:\n- dsn: postgres://a@b/c\n  password_file: ${SECRET}",
			`pgbaton.yaml:3: poolers[0].password_file: cannot read ${SECRET}: no such file or directory`},
		{"patroni: {password_file: 'postgres://u:hunter2@h/d'}", `pgbaton.yaml:1: patroni.password_file: is a URL, and must be a path`},
		{"patroni: {config: /nonexistent/p.yml}",
			`pgbaton.yaml:1: patroni.config: cannot read /nonexistent/p.yml: no such file or directory`},
		{"resume: {route: 'postgres://a@${NOWHERE}/d'}", `pgbaton.yaml:1: resume.route: the environment variable NOWHERE is not set`},
		{"resume: {route: 'postgres://a@${NOWHERE/d'}",
			`pgbaton.yaml:1: resume.route: has a ${ that is not ${NAME}; write $${ for the two characters themselves`},
		{"versions: {postgres: {setting: a.b, file: /f}}",
			`pgbaton.yaml:1: versions.postgres: has file and setting: one of them is enough`},
		{"versions: {pgbouncer: {setting: a.b}}",
			`pgbaton.yaml:1: unknown key "versions.pgbouncer.setting" (did you mean "versions.postgres.setting"?)`},
		{"state_dir: run", ``},
		{"state_dir: " + dir + "/link", `pgbaton.yaml:1: state_dir: ` + dir + `/link is a symbolic link: name the directory itself`},
		{"state_dir: " + dir + "/open", `pgbaton.yaml:1: state_dir: ` + dir + `/open others may write in it (mode 0777): chmod 700`},
		{"state_dir: " + dir + "/empty", `pgbaton.yaml:1: state_dir: ` + dir + `/empty is not a directory`},
		{"state_dir: /nonexistent/a", `pgbaton.yaml:1: state_dir: /nonexistent/a cannot be made: make the directory above it first`},
		{"a: [", `pgbaton.yaml:2:1: not valid YAML: did not find expected node content`},
		{"pause:\n\tbudget: 15s\n", `pgbaton.yaml:2:1: not valid YAML: a tab: indent with spaces`},
		{"pause: {budget: ${WAIT}}",
			`pgbaton.yaml:1:18: not valid YAML: did not find expected ',' or '}': a value with , : { } [ ] or # in it must be in quotes`},
		{"pause: *nobody", `pgbaton.yaml:1:8: not valid YAML: an alias (*) of what is no anchor (&)`},
		{"\ufeffpause: {budget: 15}", `pgbaton.yaml:1: pause.budget: "15" has no unit: write 15s`},
		{"%YAML 1.2\n---\npause: {budget: 15}\n", `pgbaton.yaml:3: pause.budget: "15" has no unit: write 15s`},
		{"pause: {}\npause: {}", `pgbaton.yaml:2:1: not valid YAML: a key is set twice`},
		{"- a\n", `pgbaton.yaml:1: must be keys and values, such as patroni:`},
		{"---\npause: {}\n---\npause: {}\n", `pgbaton.yaml:3:1: not valid YAML: more than one document`},
		{"\n" + strings.Repeat("[", 500000), `pgbaton.yaml:2:10001: not valid YAML: exceeded max depth of 10000`},
		{strings.Repeat("- ", 500000), `pgbaton.yaml:1:20001: not valid YAML: exceeded max depth of 10000`},
	} {
		name := test.yaml
		if len(name) > 40 {
			name = name[:40]
		}
		t.Run(name, func(t *testing.T) {
			_, err := loadText(t, test.yaml, nil, "SECRET=hunter2")
			if test.want == "" { // a relative path is one beside the file
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

func TestUnreadableFile(t *testing.T) {
	_, err := Load(Options{File: "/nonexistent/pgbaton.yaml"})
	if want := "--config: cannot read /nonexistent/pgbaton.yaml: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if !errors.Is(err, fs.ErrNotExist) || !IsInvalid(err) {
		t.Errorf("%#v", err)
	}
	big := t.TempDir() + "/big"
	write(t, big, strings.Repeat("#", maxFile+1))
	_, err = Load(Options{File: "", LookupEnv: environment("PGBATON_CONFIG=" + big)})
	if want := "PGBATON_CONFIG: cannot read " + big + ": is larger than 1024 KiB, the most that is read"; err == nil ||
		err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestSourcesByWeight(t *testing.T) {
	const text = "pause: {budget: 10s, attempt: 1s}\npoolers: [{dsn: 'postgres://a@file/d'}]"
	c, err := loadText(t, text, nil)
	if err != nil || c.Pause.Budget != 10*time.Second || c.Poolers[0].DSN != "postgres://a@file/d" {
		t.Error(c, err)
	}
	env := []string{"PGBATON_PAUSE_BUDGET=11s", "PGBATON_POOLER=postgres://a@env1/d\npostgres://a@env2/d\n"}
	c, err = loadText(t, text, nil, env...)
	if err != nil || c.Pause.Budget != 11*time.Second || len(c.Poolers) != 2 || c.Poolers[1].DSN != "postgres://a@env2/d" {
		t.Error(c, err)
	}
	set := []Setting{{"pause.budget", "12s", "--pause-budget"}, {"pooler", "postgres://a@flag/d", "--pooler"}}
	c, err = loadText(t, text, set, env...)
	if err != nil || c.Pause.Budget != 12*time.Second || len(c.Poolers) != 1 || c.Poolers[0].DSN != "postgres://a@flag/d" {
		t.Error(c, err)
	}
	for want, set := range map[string]Setting{
		`--pause-budget: "9" has no unit: write 9s`: {"pause.budget", "9", "--pause-budget"},
		`--pooler: a password on a command line is there for everyone to read: put it into a pgpass file, a password_file or the environment`:   {"pooler", "postgres://a:hunter2@b/c", "--pooler"},
		`--postgres: a password on a command line is there for everyone to read: put it into a pgpass file, a password_file or the environment`: {"postgres", "host=x password = hunter2", "--postgres"},
	} {
		if _, err := loadText(t, text, []Setting{set}); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := loadText(
		t,
		text,
		nil,
		"PGBATON_PAUSE_BUDGET=9",
	); err == nil ||
		err.Error() != `PGBATON_PAUSE_BUDGET: "9" has no unit: write 9s` {
		t.Error(err)
	}
}

// The file beside the binary counts, and that beside the link it was called by.
func TestFileBesideExecutable(t *testing.T) {
	dir := t.TempDir()
	real, links := dir+"/real", dir+"/links"
	for _, d := range []string{real, links} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, real+"/pgbaton", "")
	if err := os.Symlink("../real/pgbaton", links+"/before_stop"); err != nil {
		t.Fatal(err)
	}
	write(t, links+"/pgbaton.yaml", "")
	options := Options{
		Executable: links + "/before_stop",
		Argv0:      links + "/before_stop",
		systemFile: dir + "/none",
		LookupEnv:  environment("TMPDIR=" + dir),
	}
	c, err := Load(options)
	if err != nil || c.File != links+"/pgbaton.yaml" {
		t.Fatal(c, err)
	}
	write(t, real+"/pgbaton.yaml", "")
	if c, err = Load(options); err != nil || !strings.HasSuffix(c.File, "/real/pgbaton.yaml") {
		t.Fatal(c, err)
	}
}

func TestPatroniConfig(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/patroni.yml", `
scope: demo
name: m1
restapi: {listen: '0.0.0.0:8008', connect_address: '10.0.0.1:8008', certfile: /c.pem, authentication: {username: api, password: apisecret}}
ctl: {cacert: /ca.pem, certfile: /client.pem, keyfile: /client.key}
postgresql:
  listen: '*:5433'
  authentication: {superuser: &su {username: boss, password: "it's \\"}, replication: {<<: *su}}
`)
	c, err := loadText(t, "patroni: {config: "+dir+"/patroni.yml}", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Patroni{
		URL:      "https://10.0.0.1:8008",
		Username: "api",
		Password: "apisecret",
		CAFile:   "/ca.pem",
		CertFile: "/client.pem",
		KeyFile:  "/client.key",
		Config:   dir + "/patroni.yml",
		Scope:    "demo",
		Name:     "m1",
	}
	if d := cmp.Diff(want, c.Patroni); d != "" {
		t.Error(d)
	}
	pg, err := pgconn.ParseConfig(c.Postgres)
	if err != nil || pg.Host != "127.0.0.1" || pg.Port != 5433 || pg.User != "boss" || pg.Password != `it's \` {
		t.Error(c.Postgres, err)
	}
	if s := fmt.Sprint(c); strings.Contains(s, "secret") || strings.Contains(s, "it's") {
		t.Error(s)
	}
	// Ours wins, and so does Patroni's own environment.
	c, err = loadText(
		t,
		"patroni: {config: "+dir+"/patroni.yml, url: 'http://localhost:1'}\npostgres: host=/x",
		nil,
		"PATRONI_RESTAPI_USERNAME=envuser",
		"PATRONI_NAME=m9",
	)
	if err != nil || c.Patroni.Scope != "demo" || c.Patroni.Name != "m9" || c.Patroni.URL != "http://localhost:1" ||
		c.Postgres != "host=/x" ||
		c.Patroni.Username != "envuser" {
		t.Error(c, err)
	}
	write(
		t,
		dir+"/patroni.yml",
		"restapi: {listen: '0.0.0.0:8008'}\npostgresql: {use_unix_socket: true, listen: 'a,b:5434', parameters: "+
			"{unix_socket_directories: '/s1, /s2'}}",
	)
	c, err = loadText(t, "patroni: {config: "+dir+"/patroni.yml}", nil)
	if err != nil || c.Patroni.URL != "http://127.0.0.1:8008" || c.Postgres != "host='/s1' port='5434' user='postgres' dbname=postgres" {
		t.Error(c, c.Postgres, err)
	}
}

// noLeak is how a value looks through everything that prints values.
func noLeak(t interface{ Errorf(string, ...any) }, c *Config, secret string) {
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("", "c", c, "v", *c, "patroni", c.Patroni, "poolers", c.Poolers)
	slog.New(slog.NewTextHandler(&log, nil)).Info("", "c", c, "v", *c, "patroni", c.Patroni, "poolers", c.Poolers)
	j, _ := json.Marshal(c)
	s := fmt.Sprintf("%v %+v %#v %s %v %#v", c, *c, *c, *c, c.Poolers, c.Poolers) + log.String() + string(j)
	if strings.Contains(s, secret) {
		t.Errorf("%q in %s", secret, s)
	}
}

// Passwords in every odd place of every odd connection string: no error and no print of the
// configuration may have one.
func TestNoPasswordIsShown(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		const core = "Zq7Xw9"
		junk := rapid.StringMatching(`[a-z:/?#@%'" =\[\]\\{}$&;,.0-9]{0,6}`)
		password := junk.Draw(t, "before") + core + junk.Draw(t, "after")
		form := rapid.SampledFrom([]string{
			"postgres://u:%s@h:5432/d",
			"postgresql://u:%s@h/d",
			"postgres://u:%s@/d",
			"postgres://u:%s",
			"postgres://:%s@h",
			"postgres:u:%s@h",
			"postgres//u:%s@h/d",
			"postgre://u:%s@h/d",
			"http://u:%s@h/d",
			"u:%s@h",
			"%s",
			"postgres://u@h/d?password=%s",
			"postgres://u@h:x/d?pass%%77ord=%s",
			"postgres://h/d?user=u&sslpassword=%s",
			"host=h password=%s",
			"host=h port=x password='%s'",
			"password = %s host=h bogus",
			"host=h passwort=%s",
			"postgres://u:%s@h:5432,h2:x/d",
			"postgres://u:%s@h:5432/d?sslmode=bad",
			"postgres://u:1/%s@h/d",
			"postgres://u:1?%s@h/d",
			"host=h user=u:%s@h",
		}).Draw(t, "form")
		if form == "host=h passwort=%s" || form == "%s" || strings.HasPrefix(form, "host=h user=") {
			// As a value of another name it is, for all that anybody can tell, no password: only errors count.
			checkDSNOnly(t, fmt.Sprintf(form, password), core)
			return
		}
		dsn := fmt.Sprintf(form, password)
		quoted := "'" + strings.ReplaceAll(dsn, "'", "''") + "'"
		text := rapid.SampledFrom([]string{"poolers: [{dsn: %s}]", "poolers: [{dsn: %s", "postgres: %s", "resume: {route: %s}",
			"poolers: [%s]", "pause: {budget: 1, lease: %s}\n: %s"}).
			Draw(t, "text")
		raw := rapid.Bool().Draw(t, "unquoted")
		if raw {
			quoted = dsn
		}
		if strings.Contains(text, "lease") {
			text = strings.SplitN(text, ", lease", 2)[0] + "}\npostgres: %s"
		}
		text = fmt.Sprintf(text, quoted)
		file := filepath.Join(dir, "c.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(Options{File: file, LookupEnv: environment("TMPDIR=" + dir)})
		if err != nil {
			if !IsInvalid(err) {
				t.Errorf("not an *Error: %v", err)
			}
			if strings.Contains(err.Error(), core) {
				t.Errorf("%s\nleaks: %v", text, err)
			}
			return
		}
		// Without an @ of its own "u:..." is a host and a port, for all that anybody can tell.
		if !raw && form != "postgres://u:%s" {
			noLeak(t, c, core)
		}
		if _, err = Load(
			Options{File: file, LookupEnv: environment("TMPDIR="+dir, "PGBATON_POSTGRES="+dsn)},
		); err != nil &&
			strings.Contains(err.Error(), core) {
			t.Errorf("leaks: %v", err)
		}
	})
}

func checkDSNOnly(t *rapid.T, dsn, secret string) {
	problem, hint, _ := checkDSN(dsn)
	if strings.Contains(problem+hint, secret) {
		t.Errorf("%s: %s %s", dsn, problem, hint)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("pause: {budget: 15s}")
	f.Add("a: &a [*a]")
	f.Add("<<: &x {<<: *x}")
	f.Add("poolers: [{dsn: 'postgres://u:p@h'}, {databases: [a]}]")
	f.Add("pause: !!map {budget: !!str 5s}\n? [x]\n: y")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(t.TempDir(), "c.yaml")
		write(t, file, text+"\nstate_dir: "+dir)
		if c, err := Load(Options{File: file, LookupEnv: environment("TMPDIR=" + dir)}); err != nil && !IsInvalid(err) {
			t.Errorf("not an *Error: %v (%v)", err, c)
		}
	})
}

// TestReconcileFlag: the flag sets serve.reconcile to own, and takes nothing back that the file says.
func TestReconcileFlag(t *testing.T) {
	for in, want := range map[string]string{"": ReconcileOwn, "serve: {reconcile: off}": ReconcileOwn,
		"serve: {reconcile: own}": ReconcileOwn, "serve: {reconcile: all}": ReconcileAll} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "pgbaton.yaml"), in)
		c, err := Load(Options{File: filepath.Join(dir, "pgbaton.yaml"), Reconcile: true, LookupEnv: environment("TMPDIR=" + dir)})
		if err != nil || c.Serve.Reconcile != want {
			t.Errorf("%q: %v %+v", in, err, c)
		}
	}
}
