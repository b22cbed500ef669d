package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// loadPoolersOf loads a file with these lines as its poolers.
func loadPoolersOf(t *testing.T, poolers string) (*Config, error) {
	t.Helper()
	return loadLines(t, "poolers:\n"+poolers)
}

func loadLines(t *testing.T, text string) (*Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pgbaton.yaml")
	if err := os.WriteFile(path, []byte("state_dir: "+t.TempDir()+"\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(Options{File: path, LookupEnv: func(string) (string, bool) { return "", false }})
}

func TestFollow(t *testing.T) {
	c, err := loadPoolersOf(t, `
  - dsn: host=/run/pgbouncer user=u dbname=pgbouncer
    follow: {file: /etc/pgbouncer/databases.ini, databases: [app, "*"], local: host=/run/postgresql}
  - dsn: host=/run/pgbouncer port=6433 user=u dbname=pgbouncer
    follow: {file: /etc/pgbouncer/other.ini, databases: [app], local: port=6000 host=localhost, back: 90m, readers: [ro, rw2]}
  - dsn: host=10.0.0.1,10.0.0.2 user=u dbname=pgbouncer
    follow: {elsewhere: true}
  - dsn: host=apart user=u dbname=pgbouncer
`)
	if err != nil {
		t.Fatal(err)
	}
	var got []*Follow
	for _, p := range c.Poolers {
		got = append(got, p.Follow)
	}
	want := []*Follow{
		{
			File:      "/etc/pgbouncer/databases.ini",
			Databases: []string{"app", "*"},
			LocalHost: "/run/postgresql",
			LocalPort: 5432,
			Back:      BackIdle,
		},
		{File: "/etc/pgbouncer/other.ini", Databases: []string{"app"}, LocalHost: "localhost", LocalPort: 6000, Back: BackDuration,
			BackAfter: 90 * time.Minute, Readers: []string{"ro", "rw2"}},
		{Elsewhere: true, Back: BackIdle}, nil,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestFollowRefuses(t *testing.T) {
	const own = "  - dsn: host=/run/pgbouncer user=u dbname=pgbouncer\n"
	const fine = `file: /f.ini, databases: [app], local: host=/run/postgresql`
	for poolers, want := range map[string]string{
		own + "    follow: yes\n":                                                                "must have keys",
		own + "    follow: {databases: [app], local: host=/run}\n":                               "has no file",
		own + "    follow: {file: /f.ini, local: host=/run}\n":                                   "has no databases",
		own + "    follow: {file: /f.ini, databases: [app]}\n":                                   "has no local",
		own + "    follow: {file: /f.ini, databases: app, local: host=/run}\n":                   "must be a list of names",
		own + "    follow: {file: /f.ini, databases: [], local: host=/run}\n":                    "is an empty list",
		own + "    follow: {file: /f.ini, databases: [app], local: /run}\n":                      "says more than host and port",
		own + "    follow: {file: /f.ini, databases: [app], local: host=/run port=0}\n":          "has no possible port",
		own + "    follow: {file: /f.ini, databases: [app], local: \"host='a b'\"}\n":            "says more than host and port",
		own + "    follow: {file: /f.ini, databases: [app], local: port=1}\n":                    "has no host",
		own + "    follow: {" + fine + ", back: soon}\n":                                         "none of idle, never, and no duration",
		own + "    follow: {" + fine + ", backs: idle}\n":                                        `did you mean "poolers[].follow.back"`,
		own + "    follow: {" + fine + ", readers: app}\n":                                       "must be a list of names",
		own + "    follow: {" + fine + ", readers: [ro, app]}\n":                                 "in databases and in readers",
		own + "    follow: {" + fine + ", elsewhere: true}\n":                                    "has both elsewhere and file",
		own + "    follow: {" + fine + "}\n    databases: auto\n":                                "PgBouncer issue 498",
		own + "    follow: {" + fine + "}\n    databases: [app]\n":                               "PgBouncer issue 498",
		own + "    databases: [app]\n    follow: {elsewhere: true}\n":                            "PgBouncer issue 498",
		"  - pidfile: /run/p.pid\n    follow: {" + fine + "}\n":                                  "needs a dsn",
		"  - dsn: host=a,b user=u dbname=pgbouncer\n    follow: {" + fine + "}\n":                "has several hosts",
		own + "    follow: {" + fine + "}\n" + own + "    follow: {" + fine + "}\n":              "is another pooler's file already",
		own + "    follow: {file: \"postgres://a:b@c/d\", databases: [app], local: host=/run}\n": "is a URL",
		"  - dsn: host=/a user=u dbname=pgbouncer\n    follow: {elsewhere: maybe}\n":             "is none of true, false",
		own + "    follow: {file: /f.ini, databases: [[app]], local: host=/run}\n":               "must be a single value",
		own + "    follow: {file: /f.ini, databases: [\"\"], local: host=/run}\n":                "has an empty name",
	} {
		c, err := loadPoolersOf(t, poolers)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", poolers, err, want)
		}
		for _, p := range c.Poolers[min(1, len(c.Poolers)):] {
			t.Errorf("%s: a second pooler is taken: %v", poolers, p)
		}
	}
}

// A machine that has poolers and no member: the REST APIs of all members, and entries without what is a member's.
func TestApart(t *testing.T) {
	const head = "patroni: {urls: [http://a:8008, \"https://b:8008/\"]}\npoolers:\n  - dsn: host=/run/pgbouncer user=u dbname=pgbouncer\n    follow: "
	c, err := loadLines(t, head+"{file: /f.ini, databases: [app]}\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"http://a:8008", "https://b:8008"}; !c.Apart() || !cmp.Equal(want, c.Patroni.URLs) || c.Patroni.URL != want[0] {
		t.Errorf("%t, %v, %q", c.Apart(), c.Patroni.URLs, c.Patroni.URL)
	}
	if want := (&Follow{File: "/f.ini", Databases: []string{"app"}, Back: BackNever}); !cmp.Equal(want, c.Poolers[0].Follow) {
		t.Error(cmp.Diff(want, c.Poolers[0].Follow))
	}
	for text, want := range map[string]string{
		head + "{file: /f.ini, databases: [app], local: host=/run}\n":         "has local, and there is no member on this machine",
		head + "{file: /f.ini, databases: [app], back: idle}\n":               "has back, and there is no member on this machine",
		head + "{file: /f.ini, databases: [app], readers: [ro]}\n":            "has readers, and there is no member on this machine",
		"patroni: {urls: [http://a:8008], url: http://a:8008}\n":              "does not go together with patroni.url",
		"patroni: {urls: [http://a:8008, \"ftp://b\"]}\n":                     "is not a URL of Patroni's REST API",
		"patroni: {urls: [\"http://a:8008/patroni\"]}\n":                      "has something behind the port",
		"patroni: {urls: [[http://a:8008]]}\n":                                "must be a single value",
		"patroni: {urls: []}\n":                                               "is an empty list",
		"patroni: {urls: [" + strings.Repeat("http://a:8008, ", 101) + "]}\n": "lists more than 100",
	} {
		if _, err := loadLines(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestAgent(t *testing.T) {
	c, err := loadPoolersOf(t, "  - {dsn: host=a user=u dbname=pgbouncer, agent: \"https://a:8009/\"}\n")
	if err != nil || c.Poolers[0].Agent != "https://a:8009" {
		t.Errorf("%v, %v", c.Poolers, err)
	}
	for agent, want := range map[string]string{
		"a:8009": "is not a URL of pgbaton serve", "ftp://a": "is not a URL of pgbaton serve", "https://": "is not a URL of pgbaton serve",
		"https://u:secret@a:8009": "has a user in it", "https://a/v1": "has something behind the port", "https://a?x=y": "has something behind the port",
	} {
		_, err := loadPoolersOf(t, "  - {dsn: host=a user=u dbname=pgbouncer, agent: \""+agent+"\"}\n")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %s", agent, err, want)
		}
	}
}
