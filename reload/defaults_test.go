package reload

import (
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
)

// A certificate for servers that is not there, with server_tls_sslmode as it is by default: PgBouncer answers RELOAD as to a good file,
// and then every new server connection with TLS fails (1.24, 1.26). In 1.18 the default is another one.
func TestDefaultsCountAsWritten(t *testing.T) {
	t.Parallel()
	for _, suite := range membertest.Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			b, m, change := reloadable(t, suite)
			m.Config.Poolers[0].Pidfile = b.Pidfile
			for _, key := range []string{"server_tls_cert_file", "server_tls_key_file", "server_tls_ca_file"} {
				line := key + " = " + b.Dir + "/none.pem\n"
				change("", line)
				if suite == single.SuiteHost { // 1.18: disable is the default
					if p := reloadEnds(t, m, Options{}, member.Done, "")[0]; !p.Verified {
						t.Errorf("%+v", p)
					}
					change(line, "")
					continue
				}
				p := reloadEnds(t, m, Options{}, member.Failed, api.ProblemInvalidFile, key, "none.pem", "no such file", "not reloaded")[0]
				if p.Done != api.ReloadNot {
					t.Errorf("%+v", p)
				}
				// Where TLS is switched off, the file does not count.
				change(line, line+"server_tls_sslmode = disable\n")
				if p := reloadEnds(t, m, Options{}, member.Done, "")[0]; !p.Verified {
					t.Errorf("%+v", p)
				}
				change(line+"server_tls_sslmode = disable\n", "")
				reloadEnds(t, m, Options{}, member.Done, "")
			}
			// That of clients is off by default.
			change("", "client_tls_cert_file = "+b.Dir+"/none.pem\n")
			if p := reloadEnds(t, m, Options{}, member.Done, "")[0]; !p.Verified {
				t.Errorf("%+v", p)
			}
		})
	}
}

// so_reuseport in the file, as some installers write it always, and one process: what it says is what is in force. Two processes on one
// port cannot be told apart.
func TestReusePortCountsProcesses(t *testing.T) {
	t.Parallel()
	for _, suite := range membertest.Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			b, m, change := reloadable(t, suite)
			change("pool_mode", "so_reuseport = 1\npool_mode")
			b.Stop()
			if err := b.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			change("default_pool_size = 20\n", "default_pool_size = 21\n")
			if p := reloadEnds(t, m, Options{}, member.Done, "")[0]; !p.Verified || p.NotVerified != "" {
				t.Errorf("one process: %+v", p)
			}
			second := membertest.SecondProcess(t, b)
			// The console is the one's or the other's, whose file is not the one that we see.
			told := false
			for range 20 {
				r := Run(t.Context(), m, Options{Target: api.TargetPgBouncer, Timeout: 5 * time.Second})
				if r.Code != member.Failed || r.Poolers[0].Verified {
					t.Fatalf("two processes: code %d, %s", r.Code, r.Decision)
				}
				told = told || r.Problem == api.ProblemNotVerified && strings.Contains(r.Decision, "other processes share this port")
			}
			if !told {
				t.Error("not told that there are two processes")
			}
			second.Close()
			if p := reloadEnds(t, m, Options{}, member.Done, "")[0]; !p.Verified {
				t.Errorf("one process again: %+v", p)
			}
		})
	}
}
