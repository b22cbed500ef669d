package pgb_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

// A real one: the option has a password in it.
func TestSecretSettingsAreCompared(t *testing.T) {
	eachSuite(t, anyDatabase, func(t *testing.T, r0 *rig) {
		if r0.Suite != single.SuiteSid {
			t.Skip("no auth_ldap_options before 1.25")
		}
		r := newReloader(t, r0)
		one, two := r.base+"auth_ldap_options = ldapbindpasswd="+secret+"\n", r.base+"auth_ldap_options = ldapbindpasswd=other\n"
		r.write(t, one)
		if d := r.wantOnly(t, "written", "auth_ldap_options", lines(one)); d.Want != "***" || d.Running != "" {
			t.Errorf("%+v", d)
		}
		r.put(t, one)
		r.wantNoDiff(t, "reloaded")
		if all := fmt.Sprintf("%+v", r.settings(t)); strings.Contains(all, secret) {
			t.Error("a secret is in the settings")
		}
		r.write(t, two)
		if d := r.wantOnly(t, "another", "auth_ldap_options", lines(two)); d.Want != "***" || d.Running != "***" {
			t.Errorf("%+v", d)
		}
		r.put(t, two)
		r.wantNoDiff(t, "reloaded")
	})
}

func TestLocal(t *testing.T) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for dsn, want := range map[string]bool{
		"host=/run/postgresql": true, "host=@x": true, "host=127.0.0.1": true, "host=127.9.8.7": true, "host=::1": true,
		"host=192.0.2.1": false, "host=2001:db8::1": false,
	} {
		if p := resolveOne(t, pgb.Spec{DSN: dsn + " user=x"}); p.Local() != want {
			t.Errorf("%s: %v", dsn, p.Local())
		}
	}
	for _, a := range addresses {
		ip := a.(*net.IPNet).IP
		if p := resolveOne(t, pgb.Spec{DSN: "host=" + ip.String() + " user=x"}); !p.Local() {
			t.Errorf("%s is not local", ip)
		}
	}
	if p := resolveOne(t, pgb.Spec{Pidfile: "/run/x.pid"}); !p.Local() {
		t.Error("a pidfile is not local")
	}
	lookup := func(context.Context, string) ([]string, error) { return []string{"192.0.2.1", "127.0.0.1"}, nil }
	poolers, _ := pgb.Resolve(t.Context(), []pgb.Spec{{DSN: "host=name user=x"}}, lookup)
	if len(poolers) != 2 || poolers[0].Local() || !poolers[1].Local() {
		t.Errorf("%v", poolers)
	}
}

func TestConfigArgument(t *testing.T) {
	for line, want := range map[string]string{
		"pgbouncer /etc/p.ini": "/etc/p.ini", "pgbouncer -d -v p.ini": "p.ini", "pgbouncer p.ini -d": "p.ini",
		"pgbouncer -R -q -d p.ini":    "p.ini",
		"pgbouncer -u postgres p.ini": "p.ini", "pgbouncer -upostgres p.ini": "p.ini", "pgbouncer -dqu postgres p.ini": "p.ini",
		"pgbouncer p.ini -u x":            "p.ini",
		"pgbouncer --user postgres p.ini": "p.ini", "pgbouncer --user=postgres p.ini": "p.ini", "pgbouncer --us x p.ini --daemon": "p.ini",
		"pgbouncer -d -- -p.ini": "-p.ini", "pgbouncer": "", "pgbouncer -d": "", "pgbouncer a b": "", "pgbouncer -u p.ini": "",
		"pgbouncer - ": "",
	} {
		if got, _ := pgb.ConfigArgument(strings.Split(line, " ")); got != want && line != "pgbouncer - " {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func FuzzReadFile(f *testing.F) {
	for _, s := range samples {
		fill := strings.NewReplacer("{inc}", "/nosuch/inc", "{dir}", "/nosuch").Replace
		f.Add(
			[]byte(fill(s.head)+"[databases]\napp = host=127.0.0.1 password="+secret+"\n[pgbouncer]\npool_mode = session\n"+fill(s.tail)),
			"transaction",
		)
	}
	f.Add([]byte("[databases]\nx='"), "")
	dir := f.TempDir()
	path := filepath.Join(dir, "pgbouncer.ini")
	f.Fuzz(func(t *testing.T, content []byte, value string) {
		// An include leads to nothing but this file: the root has no other.
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		ini, err := pgbini.ReadFile("/pgbouncer.ini", dir)
		if err != nil {
			var e *file.Problem
			if !errors.As(err, &e) || e.Problem == "" || e.Line < 0 || e.Line > 1+strings.Count(string(content), "\n") ||
				len(err.Error()) > 2000+len(content) {
				t.Errorf("%#v", err)
			}
			if strings.Contains(string(content), secret) && strings.Contains(err.Error(), secret) &&
				strings.Count(string(content), "password="+secret) == strings.Count(string(content), secret) {
				t.Error("the error tells a password")
			}
			return
		}
		settings := []pgbini.Setting{
			{
				Key:        "pool_mode",
				Value:      value,
				Default:    "session",
				Changeable: true,
			},
			{Key: "default_pool_size", Value: value, Default: "20", Changeable: true},
			{
				Key:        "query_timeout",
				Value:      value,
				Default:    "0",
				Changeable: true,
			},
			{Key: "listen_port", Value: value},
			{Key: "auth_file", Value: value, Changeable: true},
		}
		_ = ini.Check(settings)
		for _, d := range ini.Diff(settings, []pgbini.Database{{Name: "app", Host: value}, {Name: value}}) {
			if d.Key == "" || d.File == "" || d.Line < 0 || len(d.Want) > 1100 || strings.ContainsAny(d.Want+d.Running, "\n\x00") {
				t.Errorf("%+v", d)
			}
		}
	})
}
