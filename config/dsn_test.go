package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"
)

// However a password is spelt in a connection string, it does not pass on a command line.
func TestPasswordOnCommandLine(t *testing.T) {
	for _, dsn := range []string{
		"postgres://u:hunter2@h/d", "postgresql://u:hunter2@h", "postgres://:hunter2@h", "postgres://u:hunter2@",
		"postgres://u@h/d?password=hunter2", "postgres://u@h/d?pass%77ord=hunter2",
		"postgres://u@h/d?%70%61%73%73%77%6f%72%64=hunter2", "postgres://u@h/d?password =hunter2", "postgres://u@h/d? password=hunter2",
		"postgres://u@h?sslpassword=hunter2&x", "postgres://u@h/d?sslpassword=hunter2",
		"host=h password=hunter2", "host=h password = hunter2", "password='hunter2'", "host='h'password=hunter2",
		"user='u'password='hunter2'", "host=h\vpassword=hunter2", "host=h\fpassword\t=hunter2",
		"host=h\npassword=hunter2", "host=h sslpassword=hunter2", `host=h\ x password=hunter2`, `user='it\'s'password=hunter2`,
		"dbname='postgres://u:hunter2@h/d'", "dbname=postgres://u:hunter2@h", "password=a password=hunter2",
		// With a variable in it that is not known yet.
		"postgres://u:hunter2@${HOST}/d", "host=${HOST} password=hunter2", "host=h port=${PORT} user='u'password=hunter2",
		"postgres://u@h:${PORT}/d?pass%77ord=hunter2", "postgres://%${X}:hunter2@h/d",
	} {
		_, err := loadText(t, "", []Setting{{"postgres", dsn, "--postgres"}}, "HOST=h", "PORT=1", "X=41")
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", dsn, err)
		}
	}
	for _, dsn := range []string{
		"postgres://u@h/d", "postgres://u@h:5432/d?sslmode=disable&application_name=password", "host=h user=password dbname=password",
		"host=h passfile=/x", "postgres://u@h/password", "host=h user='pass word'",
		"postgres://u@${HOST}:${PORT}/d",
	} {
		if _, err := loadText(t, "", []Setting{{"postgres", dsn, "--postgres"}}, "HOST=h", "PORT=1"); err != nil {
			t.Errorf("%q: %v", dsn, err)
		}
	}
}

// What pgconn reads as a password, holdsPassword finds, whatever is around it.
func TestHoldsPassword(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dsn := rapid.OneOf(
			rapid.StringMatching(
				`postgres://[a-zA-Z%0-9:@ ]{0,8}@?h[:/?]{0,2}[a-z%0-9 =&]{0,6}(\?|&)?(pass|%70ass)?(word|w%6frd| )?=?[a-z&=% ]{0,6}`,
			),
			rapid.StringMatching(`([a-z]{0,4}'?[ \v\t\n]?=?[ '\\a-z]{0,5}){0,3}(ssl)?password[ \v\t]?=[ '\\a-z]{0,6}`),
		).Draw(t, "dsn")
		c, err := pgconn.ParseConfig(dsn)
		if err == nil && c.Password != "" && !holdsPassword(dsn) {
			t.Errorf("%q", dsn)
		}
	})
}

// pgconn knows the keys that we let through for itself: none of them goes to the server, but for those that are the server's.
func TestConnectionKeys(t *testing.T) {
	servers := map[string]bool{"application_name": true, "client_encoding": true, "options": true}
	for _, key := range connectionKeys() {
		v := map[string]string{"host": "h", "connect_timeout": "3", "sslmode": "disable", "port": "1", "sslcertmode": "allow",
			"target_session_attrs": "any", "min_protocol_version": "3.0",
			"max_protocol_version": "3.2", "channel_binding": "disable", "require_auth": "none", "service": "",
			"sslnegotiation": "postgres", "sslsni": "1"}[key]
		if key == "service" {
			continue // of a file
		}
		c, err := pgconn.ParseConfig("host=h sslmode=disable " + key + "='" + v + "'")
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		if _, sent := c.RuntimeParams[key]; sent != servers[key] {
			t.Errorf("%s is sent to the server: %v", key, sent)
		}
	}
	for _, dsn := range []string{"host=h pasword=hunter2", "host=h hostaddr=127.0.0.1", "host=h keepalives=1",
		"postgres://h/d?search_path=x", "host=h Password=hunter2", "host=h statement_timeout=5s"} {
		if problem, hint, _ := checkDSN(
			dsn,
		); !strings.HasSuffix(problem, "it has an unknown key") ||
			strings.Contains(problem+hint, "hunter2") {
			t.Errorf("%s: %q %q", dsn, problem, hint)
		}
	}
}

// Paths in a connection string are beside the file, from whatever directory it is loaded.
func TestPathsInDSN(t *testing.T) {
	for dsn, want := range map[string]string{
		"host=h sslmode=verify-full sslrootcert=ca.pem":      "/etc/pgbaton/ca.pem",
		"host=h sslrootcert = 'it''s'":                       "", // it and s
		`host=h sslrootcert='it\'s a/ca.pem'`:                "/etc/pgbaton/it's a/ca.pem",
		"postgres://u@h/d?sslrootcert=tls%2Fca+1.pem":        "/etc/pgbaton/tls/ca+1.pem",
		"postgres://h?sslmode=verify-ca&sslrootcert=../x&a=": "/etc/x",
		"host=h sslrootcert=system":                          "system",
		"host=h sslrootcert=/abs":                            "/abs",
		"host=h sslrootcert=a sslrootcert=b":                 "/etc/pgbaton/b",
	} {
		got, relative := absoluteDSN(dsn, "/etc/pgbaton/pgbaton.yaml")
		if want == "" {
			continue
		}
		if relative != "" || settingsOf(got)["sslrootcert"] != want {
			t.Errorf("%s: %s, want %s", dsn, got, want)
		}
	}
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir+"/ca.pem", testCA)
	write(t, dir+"/pass", "*:*:*:u:from-file\n")
	t.Chdir("/") // as a hook
	write(
		t,
		dir+"/pgbaton.yaml",
		"state_dir: "+dir+"\npoolers:\n- dsn: host=h user=u sslmode=verify-full sslrootcert=ca.pem passfile=pass\n- dsn: "+
			"postgres://u@h/d?sslmode=verify-ca&sslrootcert=ca.pem\nresume: {route: 'host=h user=u passfile=pass'}\n",
	)
	c, err := Load(Options{File: dir + "/pgbaton.yaml", LookupEnv: environment()})
	must(err)
	for _, dsn := range []string{c.Poolers[0].DSN, c.Resume.Route} {
		pg, err := pgconn.ParseConfig(dsn)
		must(err)
		if pg.Password != "from-file" {
			t.Error(dsn)
		}
	}
	if pg, err := pgconn.ParseConfig(c.Poolers[1].DSN); err != nil || pg.TLSConfig == nil {
		t.Error(err)
	}
	if strings.Contains(c.String(), "from-file") {
		t.Error(c)
	}
	// As it is used once more, by another command line.
	if again, err := Load(
		Options{Set: []Setting{{"postgres", c.Poolers[0].DSN, "--postgres"}}, LookupEnv: environment("TMPDIR=" + dir), systemFile: "/none"},
	); err != nil ||
		again.Postgres != c.Poolers[0].DSN {
		t.Error(err)
	}
	_, err = loadText(t, "", []Setting{{"postgres", "host=h sslrootcert=ca.pem", "--postgres"}})
	if want := "--postgres: sslrootcert must be an absolute path: Patroni's working directory is not yours"; err == nil ||
		err.Error() != want {
		t.Error(err)
	}
}

// A named pipe in a connection string is an error and nobody waits for its writer.
func TestPipesInDSN(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, key := range []string{"sslrootcert", "sslcert", "sslkey", "servicefile"} {
			_, err := loadText(t, "postgres: host=h sslmode=verify-full service=x "+key+"="+pipe, nil)
			if err == nil || !strings.Contains(err.Error(), key+" is a named pipe, not a regular file") {
				t.Errorf("%s: %v", key, err)
			}
		}
		c, err := loadText(t, "postgres: host=h passfile="+pipe, nil)
		if err != nil || len(c.Warnings) != 1 ||
			!strings.Contains(c.Warnings[0].Error(), "the password file is not used: it is no regular file") {
			t.Error(c.Warnings, err)
		}
		if _, err := pgconn.ParseConfig(c.Postgres); err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("waits for a writer")
	}
}

// unlessRoots is the warning about a password file that its group can read: none where the file is root's, as a Kubernetes secret is.
func unlessRoots(warning string) []string {
	if os.Geteuid() == 0 {
		return nil
	}
	return []string{warning}
}

// Files that others can read or write: told, and a pgpass file not used, as with libpq.
func TestPermissions(t *testing.T) {
	dir := t.TempDir()
	pass, pgpass, yaml := dir+"/pw", dir+"/pgpass", dir+"/pgbaton.yaml"
	write(t, pass, "secret\n")
	write(t, pgpass, "*:*:*:*:from-file\n")
	load := func(text string, modes map[string]os.FileMode, env ...string) *Config {
		t.Helper()
		write(t, yaml, text+"\nstate_dir: "+dir)
		for path, mode := range map[string]os.FileMode{pass: 0o600, pgpass: 0o600, yaml: 0o644} {
			if m, ok := modes[path]; ok {
				mode = m
			}
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
		c, err := Load(Options{File: yaml, LookupEnv: environment(env...)})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	const (
		plain = "postgres: host=h user=u passfile=pgpass\nresume: {route: 'postgres://u@h/d?passfile=pgpass'}\npoolers: [{dsn: " +
			"'host=p user=u', password_file: pw}]"
		secret = "postgres: host=h user=u password=hunter2"
		unused = "the password file is not used: others can read or write it"
	)
	for _, test := range []struct {
		text  string
		modes map[string]os.FileMode
		env   string
		want  []string
		used  bool
	}{
		{plain, nil, "", nil, true},
		{plain, map[string]os.FileMode{pgpass: 0o640}, "", unlessRoots(pgpass + ": " + unused +
			" (mode 0640), and libpq would not use it either: chmod 600"), os.Geteuid() == 0},
		{plain, map[string]os.FileMode{pgpass: 0o604}, "", []string{pgpass + ": " + unused +
			" (mode 0604), and libpq would not use it either: chmod 600"}, false},
		{plain, map[string]os.FileMode{pgpass: 0o620}, "", []string{pgpass + ": " + unused +
			" (mode 0620), and libpq would not use it either: chmod 600"}, false},
		{plain, map[string]os.FileMode{pgpass: 0o666}, "PGPASSWORD=x", nil, true},
		{plain, map[string]os.FileMode{pass: 0o644}, "", []string{yaml + ":3: poolers[0].password_file: " + pass +
			": everybody can read it (mode 0644): chmod o-r"}, true},
		{plain, map[string]os.FileMode{pass: 0o440}, "", nil, true},
		{plain, map[string]os.FileMode{yaml: 0o666}, "", []string{yaml + ": everybody can write it (mode 0666): chmod go-w"}, true},
		{plain, map[string]os.FileMode{yaml: 0o664}, "", []string{yaml + ": its group can write it (mode 0664): chmod g-w"}, true},
		{secret, nil, "", []string{yaml + ": everybody can read it (mode 0644): chmod o-r"}, true},
		{secret, map[string]os.FileMode{yaml: 0o640, pgpass: 0o666}, "PGPASSFILE=" + pgpass, nil, true},
		{"postgres: host=h user=u", map[string]os.FileMode{pgpass: 0o666}, "PGPASSFILE=" + pgpass, []string{pgpass + ": " + unused +
			" (mode 0666), and libpq would not use it either: chmod 600"}, false},
		{"poolers: [{dsn: 'postgres://u:hunter2@h/d'}]", nil, "", []string{yaml + ": everybody can read it (mode 0644): chmod o-r"}, true},
	} {
		env := []string{"X="}
		if test.env != "" {
			env = append(env, test.env)
			name, v, _ := strings.Cut(test.env, "=")
			t.Setenv(name, v) // pgconn's
		}
		c := load(test.text, test.modes, env...)
		var got []string
		for _, w := range c.Warnings {
			got = append(got, w.Error())
			if strings.Contains(w.Error(), "hunter2") {
				t.Error(w)
			}
		}
		if d := cmp.Diff(test.want, got); d != "" {
			t.Errorf("%s %v:\n%s", test.text, test.modes, d)
		}
		pg, err := pgconn.ParseConfig(c.Postgres)
		if err != nil || (pg.Password != "") != test.used && test.text != "poolers: [{dsn: 'postgres://u:hunter2@h/d'}]" {
			t.Errorf("%s %v: %v", test.text, test.modes, err)
		}
		if test.env != "" {
			name, _, _ := strings.Cut(test.env, "=")
			_ = os.Unsetenv(name)
		}
	}
}

// A configuration with mistakes has all of them in its error, and what could be used.
func TestWhatCanBeUsed(t *testing.T) {
	c, err := loadText(t, `
pause: {bugdet: 3s, attempt: 1s, on_timeout: kill}
postgres: host=h port=x
poolers:
- {dsn: 'postgres://a@good/d', resolv: one}
- {dsn: 'postgres://a@b:x/d'}
- {dsn: 'postgres://a@c/d', databases: app}
serve: {listen: 127.0.0.1:1}
`, nil)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`"pause.bugdet"`, `"kill" is none of`, "postgres: cannot parse", `"poolers[0].resolv"`,
		"poolers[1].dsn: cannot parse", "poolers[2].databases"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not in %v", want, err)
		}
	}
	if len(c.Poolers) != 1 || c.Poolers[0].DSN != "postgres://a@good/d" || c.Pause.Attempt != time.Second ||
		c.Pause.OnTimeout != OnTimeoutHold || c.Pause.Budget != 15*time.Second ||
		c.Postgres != "host=/var/run/postgresql user=postgres dbname=postgres" ||
		c.Serve.Listen != "127.0.0.1:1" ||
		c.StateDir == "" {
		t.Errorf("%+v", c)
	}
	_, err = loadText(t, "state_dir: /nonexistent/a", nil)
	dir := t.TempDir()
	write(t, dir+"/c.yaml", "state_dir: /nonexistent/a\npause: {attempt: 1s}\n")
	c, broken := Load(Options{File: dir + "/c.yaml", LookupEnv: environment()})
	if err == nil || !errors.Is(broken, ErrStateDir) || c.StateDir != "" || c.Pause.Attempt != time.Second {
		t.Error(err, broken, c)
	}
	// No YAML at all: flags and variables count.
	write(t, dir+"/c.yaml", "pause: [\n")
	c, err = Load(Options{File: dir + "/c.yaml", LookupEnv: environment("PGBATON_PAUSE_ATTEMPT=1s", "TMPDIR="+dir)})
	if !IsInvalid(err) || c.Pause.Attempt != time.Second {
		t.Error(err, c)
	}
}

// testCA is a certificate of nobody's.
const testCA = `-----BEGIN CERTIFICATE-----
MIIBdDCCARugAwIBAgIUK3uzDajKTs73rcZghmmigU1wPkcwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjUxMzIyMzdaGA8yMTI2MTEwMTEzMjIz
N1owDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABKEH
mbnZtdJ2c1pC7kc/PZEFXKEHQw6T4E+kPl8Ko4NhYekJfwv7m7HSRAlo1L9j9BcO
YKqMX7y84FUIgRK53qSjUzBRMB0GA1UdDgQWBBTDHGb25uumXFLoCuwSiiRhHCDc
EzAfBgNVHSMEGDAWgBTDHGb25uumXFLoCuwSiiRhHCDcEzAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0cAMEQCICDyFaQZpT2F2A3n0yKm45hbosNDe/oKIbGw
oLFbUB98AiBnrvo+ob7QnR1tyPXa0CYE8gYe+ukLfwPJXiaz8CgE4w==
-----END CERTIFICATE-----
`
