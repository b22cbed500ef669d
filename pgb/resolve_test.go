package pgb_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/pgbaton/pgbaton/pgb"
)

var errNoSuchHost = errors.New("no such host")

func book(entries map[string][]string) pgb.Resolver {
	return func(_ context.Context, host string) ([]string, error) {
		if a, ok := entries[host]; ok {
			return a, nil
		}
		return nil, errNoSuchHost
	}
}

func TestResolve(t *testing.T) {
	lookup := book(map[string][]string{
		"pool":  {"10.0.0.1", "10.0.0.2", "fd00::1"},
		"other": {"10.0.0.2", "10.0.0.9"},
	})
	for name, test := range map[string]struct {
		specs []pgb.Spec
		want  string
		errs  int
	}{
		"every address is a pooler": {[]pgb.Spec{{DSN: "host=pool port=6432 sslmode=disable"}},
			"10.0.0.1:6432 10.0.0.2:6432 [fd00::1]:6432", 0},
		"first":              {[]pgb.Spec{{DSN: "host=pool port=6432", First: true}}, "10.0.0.1:6432", 0},
		"first of each host": {[]pgb.Spec{{DSN: "host=pool,other port=6432", First: true}}, "10.0.0.1:6432 10.0.0.2:6432", 0},
		"several hosts": {[]pgb.Spec{{DSN: "postgres://u@10.1.1.1:1,10.1.1.2:2/pgbouncer?sslmode=disable"}},
			"10.1.1.1:1 10.1.1.2:2", 0},
		"prefer is no second pooler": {[]pgb.Spec{{DSN: "host=pool port=6432 sslmode=prefer"}},
			"10.0.0.1:6432 10.0.0.2:6432 [fd00::1]:6432", 0},
		"same host, two ports": {[]pgb.Spec{{DSN: "host=10.1.1.1,10.1.1.1 port=1,2"}}, "10.1.1.1:1 10.1.1.1:2", 0},
		"same host twice":      {[]pgb.Spec{{DSN: "host=10.1.1.1,10.1.1.1 port=1"}}, "10.1.1.1:1", 0},
		"duplicates collapse": {[]pgb.Spec{{DSN: "host=pool port=6432"}, {DSN: "host=other port=6432"},
			{DSN: "host=10.0.0.1 port=6432"}}, "10.0.0.1:6432 10.0.0.2:6432 [fd00::1]:6432 10.0.0.9:6432", 0},
		"another port is another": {[]pgb.Spec{{DSN: "host=10.0.0.1 port=1"}, {DSN: "host=10.0.0.1 port=2"}},
			"10.0.0.1:1 10.0.0.1:2", 0},
		"sockets": {[]pgb.Spec{{DSN: "host=/run/pgbouncer port=6432"}, {DSN: "host=@abstract port=6432"}},
			"/run/pgbouncer/.s.PGSQL.6432 @abstract/.s.PGSQL.6432", 0},
		"addresses stand for themselves": {[]pgb.Spec{{DSN: "postgres://[::1]:6432/pgbouncer"}}, "[::1]:6432", 0},
		"one host is not known": {[]pgb.Spec{{DSN: "host=gone,other port=1"}, {DSN: "host=pool port=1", First: true}},
			"10.0.0.2:1 10.0.0.9:1 10.0.0.1:1", 1},
		"not a connection string": {[]pgb.Spec{{DSN: "host=pool password=hush%zz sslmode=nonsense"},
			{DSN: "host=10.0.0.1 port=1"}}, "10.0.0.1:1", 1},
		"pidfile only": {[]pgb.Spec{{Pidfile: "/run/p.pid"}}, "/run/p.pid", 0},
		"nothing":      {nil, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			poolers, errs := pgb.Resolve(t.Context(), test.specs, lookup)
			var names []string
			for _, p := range poolers {
				names = append(names, p.Name)
			}
			if got := strings.Join(names, " "); got != test.want {
				t.Errorf("poolers %s, want %s", got, test.want)
			}
			if len(errs) != test.errs {
				t.Errorf("errors %v, want %d", errs, test.errs)
			}
			for _, err := range errs {
				if strings.Contains(err.Error(), "hush") {
					t.Errorf("a secret in %v", err)
				}
			}
		})
	}
}

// A pidfile is one process's, of this host: a pooler of another host that shares it must not have this one's paused or resumed.
func TestResolvePidfile(t *testing.T) {
	lookup := book(
		map[string][]string{
			"pool": {"127.0.0.1", "203.0.113.1"},
			"far":  {"203.0.113.1"},
			"both": {"127.0.0.1", "::1"},
			"all":  {"203.0.113.1", "203.0.113.2"},
		},
	)
	const file = "/run/p.pid"
	for name, test := range map[string]struct {
		specs []pgb.Spec
		want  string // whose it is
	}{
		"one of this host, one not":     {[]pgb.Spec{{DSN: "host=pool port=1", Pidfile: file}}, "127.0.0.1:1"},
		"two ways to this host":         {[]pgb.Spec{{DSN: "host=both port=1", Pidfile: file}}, "127.0.0.1:1 [::1]:1"},
		"a Service in front of one":     {[]pgb.Spec{{DSN: "host=far port=1", Pidfile: file}}, "203.0.113.1:1"},
		"the first only":                {[]pgb.Spec{{DSN: "host=all port=1", Pidfile: file, First: true}}, "203.0.113.1:1"},
		"none is known to be this host": {[]pgb.Spec{{DSN: "host=all port=1", Pidfile: file}}, ""},
		"two entries": {[]pgb.Spec{{DSN: "host=127.0.0.1 port=1", Pidfile: file}, {DSN: "host=far port=1",
			Pidfile: file}}, "127.0.0.1:1"},
		"two entries, signals only": {[]pgb.Spec{{Pidfile: file}, {DSN: "host=far port=1", Pidfile: file}}, file},
		"two pidfiles": {[]pgb.Spec{{DSN: "host=127.0.0.1 port=1", Pidfile: file}, {DSN: "host=far port=1",
			Pidfile: file + "2"}}, "127.0.0.1:1 203.0.113.1:1"},
		"the same pooler twice": {[]pgb.Spec{{DSN: "host=far port=1", Pidfile: file}, {DSN: "host=203.0.113.1 port=1",
			Pidfile: file}}, "203.0.113.1:1"},
		"this host's cannot be resolved": {[]pgb.Spec{{DSN: "host=gone,far port=1", Pidfile: file}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			poolers, _ := pgb.Resolve(t.Context(), test.specs, lookup)
			var has []string
			for _, p := range poolers {
				if p.Pidfile != "" {
					has = append(has, p.Name)
				}
			}
			if got := strings.Join(has, " "); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

func TestResolveErrorNamesTheHostAndKeepsTheCause(t *testing.T) {
	_, errs := pgb.Resolve(t.Context(), []pgb.Spec{{DSN: "host=gone port=1"}}, book(nil))
	if len(errs) != 1 || !errors.Is(errs[0], errNoSuchHost) || !strings.Contains(errs[0].Error(), "gone") {
		t.Fatal(errs)
	}
}

// A fallback of sslmode=prefer dials the same address; TLS knows the host by its name, not by the address.
func TestResolveKeepsTLSOnTheHost(t *testing.T) {
	lookup := book(map[string][]string{"a.example": {"10.0.0.1"}, "b.example": {"10.0.0.2"}})
	poolers, errs := pgb.Resolve(t.Context(), []pgb.Spec{{DSN: "host=a.example,b.example port=1,2 sslmode=prefer"}}, lookup)
	if len(errs) > 0 || len(poolers) != 2 {
		t.Fatal(poolers, errs)
	}
	for i, p := range poolers {
		cfg := p.ConsoleConfig()
		want := []string{"10.0.0.1", "10.0.0.2"}[i]
		if cfg.Host != want || cfg.TLSConfig == nil {
			t.Errorf("%s: dials %s first, TLS %v", p.Name, cfg.Host, cfg.TLSConfig != nil)
		}
		if len(cfg.Fallbacks) != 1 || cfg.Fallbacks[0].Host != want || cfg.Fallbacks[0].Port != cfg.Port ||
			cfg.Fallbacks[0].TLSConfig != nil {
			t.Errorf("%s: falls back to %+v", p.Name, cfg.Fallbacks)
		}
	}
	poolers, errs = pgb.Resolve(t.Context(), []pgb.Spec{{DSN: "host=a.example,b.example port=1 sslmode=verify-full"}}, lookup)
	if len(errs) > 0 || len(poolers) != 2 {
		t.Fatal(poolers, errs)
	}
	for i, p := range poolers {
		if cfg, want := p.ConsoleConfig(), []string{"a.example", "b.example"}[i]; cfg.TLSConfig.ServerName != want ||
			net.ParseIP(cfg.Host) == nil ||
			len(cfg.Fallbacks) != 0 {
			t.Errorf("%s: dials %s, verifies %s, falls back to %v", p.Name, cfg.Host, cfg.TLSConfig.ServerName, cfg.Fallbacks)
		}
	}
}

func TestResolvePassword(t *testing.T) {
	poolers, _ := pgb.Resolve(t.Context(), []pgb.Spec{{DSN: "host=10.0.0.1,10.0.0.2 port=1 password=old", Password: "new"}}, nil)
	for _, p := range poolers {
		if p.ConsoleConfig().Password != "new" {
			t.Errorf("%s has another password", p.Name)
		}
	}
}

func TestEachRunsAllAtOnce(t *testing.T) {
	poolers := []*pgb.Pooler{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	met := make(chan struct{}, len(poolers))
	errs := pgb.Each(poolers, func(p *pgb.Pooler) error {
		met <- struct{}{}
		until(t, "all are called", func() bool { return len(met) == len(poolers) })
		if p.Name == "b" {
			return errNoSuchHost
		}
		return nil
	})
	if errs[0] != nil || !errors.Is(errs[1], errNoSuchHost) || errs[2] != nil {
		t.Fatal(errs)
	}
}

func TestPidfileOnlyPoolerHasNoConsole(t *testing.T) {
	p := resolveOne(t, pgb.Spec{Pidfile: "/nonexistent/pgbouncer.pid"})
	if p.HasConsole() {
		t.Error("it says that it has a console")
	}
	_, pauseErr := p.Pause(t.Context())
	_, resumeErr := p.Resume(t.Context())
	_, stateErr := p.State(t.Context())
	for _, err := range []error{p.Open(t.Context()), pauseErr, resumeErr, stateErr, p.Reconnect(t.Context())} {
		if !errors.Is(err, pgb.ErrNoConsole) {
			t.Errorf("%v, want ErrNoConsole", err)
		}
	}
}
