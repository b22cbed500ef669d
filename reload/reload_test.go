package reload

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/configversion"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"
)

// reloadable is a runtime for one pooler whose file can be seen.
func reloadable(t *testing.T, suite string) (*single.PgBouncer, *member.Member, func(old, new string)) {
	t.Helper()
	b := membertest.StartPooler(t, suite, membertest.SharedPostgres(t))
	m := membertest.New(t, nil, b)
	m.Config.Poolers[0].Config = b.ConfigPath
	membertest.NewPatroni(t, m, "running")
	return b, m, func(old, new string) {
		t.Helper()
		text, err := b.Config()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text, old) {
			t.Fatalf("no %q in %s", old, text)
		}
		if old == "" {
			text += new
		} else {
			text = strings.Replace(text, old, new, 1)
		}
		if err := b.RewriteConfig(text); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReloadOnePooler(t *testing.T) {
	t.Parallel()
	for _, suite := range membertest.Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			b, m, change := reloadable(t, suite)
			reload := func(code int, problem string) api.PoolerReload {
				t.Helper()
				r := Run(t.Context(), m, Options{Target: api.TargetPgBouncer, Timeout: 5 * time.Second})
				if r.Code != code || r.Problem != problem {
					t.Fatalf("code %d, problem %q, want %d and %q: %s", r.Code, r.Problem, code, problem, r.Decision)
				}
				return r.Poolers[0]
			}
			if p := reload(member.Done, ""); !p.Verified || p.How != "RELOAD" || len(p.Changed) > 0 {
				t.Errorf("nothing was to be done: %+v", p)
			}

			change("", "query_wait_timeout = 77\nlisten_backlog = 99\n")
			m.DryRun = true
			if p := reload(
				member.Done,
				"",
			); p.Done != api.ReloadWould || len(p.Changed) != 1 || p.Changed[0].Key != "query_wait_timeout" ||
				len(p.NeedsRestart) != 1 {
				t.Errorf("would: %+v", p)
			}
			m.DryRun = false
			p := reload(member.Done, "")
			if !p.Verified || len(p.Changed) != 1 || p.Changed[0].Key != "query_wait_timeout" || p.Changed[0].Want != "77" {
				t.Errorf("changed: %+v", p)
			}
			if len(p.NeedsRestart) != 1 || p.NeedsRestart[0].Key != "listen_backlog" || p.NeedsRestart[0].Line == 0 {
				t.Errorf("needs a restart: %+v", p.NeedsRestart)
			}

			// A bad file is not sent: half of it would come into force.
			change("query_wait_timeout = 77\n", "query_wait_timeout = 78\nquery_wait_timeuot = 1\n")
			p = reload(member.Failed, api.ProblemInvalidFile)
			if p.Done != api.ReloadNot || !strings.Contains(p.Error, "query_wait_timeuot") || !strings.Contains(p.Error, "pgbouncer.ini:") {
				t.Errorf("%+v", p)
			}
			change("query_wait_timeuot = 1\n", "")
			if p = reload(member.Done, ""); len(p.Changed) != 1 || p.Changed[0].Running != "77" {
				t.Errorf("the bad file had an effect, or the good one has none: %+v", p)
			}

			// A logfile that cannot be opened would end the process; here its folder can be looked at.
			if suite == single.SuiteHost {
				change("", "logfile = /nonexistent/pgbouncer.log\n")
				m.Config.Poolers[0].Pidfile, m.Config.Poolers[0].Config = b.Pidfile, ""
				if p = reload(member.Failed, api.ProblemInvalidFile); !strings.Contains(p.Error, "PgBouncer would end") {
					t.Errorf("%+v", p)
				}
				if membertest.StateOf(t, b).Version == "" {
					t.Error("gone")
				}
			}
		})
	}
}

// Without its file a pooler is reloaded, and only a version that answers for the file is believed.
func TestReloadUnseenFile(t *testing.T) {
	t.Parallel()
	b, m, change := reloadable(t, single.SuiteTrixie)
	other := membertest.StartPooler(t, single.SuiteSid, membertest.SharedPostgres(t))
	m.Config.Poolers = append(m.Config.Poolers, config.Pooler{DSN: other.AdminDSN()})
	m.Config.Poolers[0].Config = "" // two on this host: which process is whose cannot be told
	change("", "query_wait_timeout = 77\n")
	r := Run(t.Context(), m, Options{Target: api.TargetPgBouncer})
	if r.Code != member.Failed || r.Problem != api.ProblemNotVerified {
		t.Fatalf("%d %s %s", r.Code, r.Problem, r.Decision)
	}
	if p := r.Poolers[0]; p.Done != api.ReloadDone || p.Verified || !strings.Contains(p.NotVerified, "poolers[].config") ||
		len(p.Changed) != 1 {
		t.Errorf("1.24: %+v", p)
	}
	if p := r.Poolers[1]; p.Done != api.ReloadDone || !p.Verified || p.NotVerified != "" {
		t.Errorf("1.26: %+v", p)
	}
	// One is down: the other is reloaded all the same.
	b.Kill()
	r = Run(t.Context(), m, Options{Target: api.TargetPgBouncer})
	if r.Code != member.Failed || r.Problem != api.ProblemUnreachable || r.Poolers[0].Done != api.ReloadNot || !r.Poolers[1].Verified {
		t.Errorf("%d %s: %+v", r.Code, r.Problem, r.Poolers)
	}
}

// A pause has set what a RELOAD would undo.
func TestReloadWaitsForThePause(t *testing.T) {
	t.Parallel()
	b, m, change := reloadable(t, single.SuiteTrixie)
	membertest.Abandoned(t, m, pgb.Guard)
	change("", "query_wait_timeout = 77\n")
	r := Run(t.Context(), m, Options{Target: api.TargetPgBouncer, Timeout: 300 * time.Millisecond})
	if r.Code != member.Failed || r.Problem != api.ProblemHandover || r.Poolers[0].Done != api.ReloadNot {
		t.Errorf("%d %s: %+v", r.Code, r.Problem, r.Poolers)
	}
	if s := membertest.StateOf(t, b); s.Mark == nil || !s.Paused {
		t.Errorf("touched: %+v", s)
	}
	waits := make(chan struct{}, 100)
	done := make(chan Report)
	go func() {
		done <- Run(t.Context(), m, Options{Target: api.TargetPgBouncer, Timeout: 20 * time.Second, Progress: func(s Progress) {
			if strings.Contains(s.Text, "waiting for the end of a handover") {
				waits <- struct{}{}
			}
		}})
	}()
	<-waits
	membertest.LetGo(m, b)
	if r = <-done; r.Code != member.Done || len(r.Poolers[0].Changed) != 1 {
		t.Errorf("%d %s: %+v", r.Code, r.Decision, r.Poolers)
	}
	membertest.PutBack(t, b)
}

// With all, nothing is reloaded before both versions are there.
func TestReloadWaitsForBoth(t *testing.T) {
	t.Parallel()
	_, m, change := reloadable(t, single.SuiteTrixie)
	m.Config.Postgres = membertest.SharedPostgres(t).SocketDSN("postgres", "postgres")
	dir := t.TempDir()
	there, late := filepath.Join(dir, "there"), filepath.Join(dir, "late")
	if err := os.WriteFile(there, []byte("42\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.Config.Versions.PgBouncer.File, m.Config.Versions.Postgres.File = there, late
	change("", "query_wait_timeout = 77\n")
	want := configversion.Version(42)
	r := Run(t.Context(), m, Options{Version: &want, Timeout: 3 * time.Second})
	if r.Code != member.Failed || r.Problem != api.ProblemVersionTimeout || r.Poolers != nil || r.Postgres != nil {
		t.Errorf("%d %s: %+v", r.Code, r.Problem, r)
	}
	if len(r.Versions) != 2 || r.Versions[0].Seen != nil || r.Versions[1].Seen == nil || *r.Versions[1].Seen != 42 {
		t.Errorf("%+v", r.Versions)
	}
	if s := Run(
		t.Context(),
		m,
		Options{Target: api.TargetPgBouncer, Version: &want},
	); s.Code != member.Done ||
		len(s.Poolers[0].Changed) != 1 {
		t.Errorf("reloaded before: %+v", s)
	}
	// The journal tells status which version the poolers run.
	entries, err := state.ReadJournal(m.Config.StateDir, 100)
	if v := lastApplied(entries, api.TargetPgBouncer); err != nil || v == nil || *v != 42 {
		t.Errorf("applied: %v, %v", v, err)
	}
}

// Where one version will not come, nobody waits for the other.
func TestReloadGivesUp(t *testing.T) {
	t.Parallel()
	for _, wrong := range []string{api.TargetPostgres, api.TargetPgBouncer} {
		m := membertest.New(t, nil)
		membertest.NewPatroni(t, m, "running")
		m.Config.Poolers = []config.Pooler{{DSN: "postgres://nobody@127.0.0.1:1/pgbouncer"}}
		dir := t.TempDir()
		old, bad := filepath.Join(dir, "old"), filepath.Join(dir, "bad")
		for path, text := range map[string]string{old: "41\n", bad: "v42\n"} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		m.Config.Versions.Postgres.File, m.Config.Versions.PgBouncer.File = old, bad
		late := 0
		if wrong == api.TargetPostgres {
			m.Config.Versions.Postgres.File, m.Config.Versions.PgBouncer.File = bad, old
			late = 1
		}
		want := configversion.Version(42)
		start := time.Now()
		r := Run(t.Context(), m, Options{Version: &want, Timeout: 30 * time.Second})
		if took := time.Since(
			start,
		); r.Code != member.Failed || r.Problem != api.ProblemVersionInvalid || r.Poolers != nil || r.Postgres != nil ||
			took > 15*time.Second {
			t.Errorf("%s, after %s: %d %s: %+v", wrong, took, r.Code, r.Problem, r)
		}
		if !strings.Contains(r.Decision, "3 bytes that are not a number") ||
			!strings.Contains(r.Decision, "given up because of "+wrong+": nothing was reloaded; waited for configuration version 42") {
			t.Errorf("%s: %s", wrong, r.Decision)
		}
		if v := r.Versions[late]; v.Target == wrong || v.Seen != nil && *v.Seen != 41 || !strings.Contains(v.Error, "given up") {
			t.Errorf("%s: %+v", wrong, v)
		}
		// An entry for each that was asked for: metrics and status know no target "all".
		entries, err := state.ReadJournal(m.Config.StateDir, 100)
		if err != nil || len(entries) != 2 || entries[0].Target != api.TargetPostgres || entries[1].Target != api.TargetPgBouncer ||
			entries[0].Event != state.EventNotBegun || entries[1].Event != state.EventNotBegun {
			t.Errorf("%s: %v, %+v", wrong, err, entries)
		}
	}
}
