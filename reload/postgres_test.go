package reload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/configversion"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/state"
)

// reloadOf is a reload of this runtime's server.
func reloadOf(t *testing.T, m *member.Member, o Options) *reload {
	t.Helper()
	r := &reload{
		m:        m,
		o:        o,
		log:      m.Log,
		journal:  m.Journal("reload", state.NewID()),
		versions: map[string]*api.VersionReport{},
		deadline: time.Now().Add(time.Minute),
	}
	var err error
	if r.patroni, err = m.Patroni(); err != nil {
		t.Fatal(err)
	}
	return r
}

func problemOf(err error) string {
	var f *fault
	if errors.As(err, &f) {
		return f.problem
	}
	return ""
}

// reloadingPatroni answers GET /config with dynamic, and takes POST /reload, which do does. A real one does not forget what it was asked
// for.
type reloadingPatroni struct {
	dynamic string // JSON
	do      func() // nil: nothing
	asked   atomic.Int32
}

func (p *reloadingPatroni) start(t *testing.T, m *member.Member) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.Method == http.MethodPost:
			p.asked.Add(1)
			if p.do != nil {
				p.do()
			}
			w.WriteHeader(http.StatusAccepted)
		case req.URL.Path == "/config":
			_, _ = io.WriteString(w, p.dynamic)
		default:
			fmt.Fprintf(
				w,
				`{"state": "running", "role": "primary", "dcs_last_seen": %d, "patroni": {"version": "4.0.7", "scope": "demo", "name": "node1"}}`,
				time.Now().Unix(),
			)
		}
	}))
	t.Cleanup(s.Close)
	m.Config.Patroni.URL = s.URL
}

// asPatroni loads a server's files as Patroni does it: postgresql.conf is written anew first.
func asPatroni(t *testing.T, pg *single.Postgres) func() {
	path := filepath.Join(pg.DataDir, "postgresql.conf")
	return func() {
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, text, 0o600)
		}
		if err == nil {
			err = pg.Exec(t.Context(), "select pg_reload_conf()")
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// TestReloadNeverDone: what Patroni has taken and not done is no reload.
func TestReloadNeverDone(t *testing.T) {
	t.Parallel()
	pg := membertest.OwnPostgres(t)
	m := membertest.New(t, pg)
	patroni := &reloadingPatroni{dynamic: `{"loop_wait": 1}`}
	patroni.start(t, m)
	r := Run(t.Context(), m, Options{Target: api.TargetPostgres})
	if r.Code != member.Failed || r.Problem != api.ProblemNotApplied ||
		!strings.Contains(r.Decision, "POST /reload was sent, and it has had no effect within 6s") ||
		strings.Contains(r.Decision, "not known") {
		t.Errorf("%d %s %s", r.Code, r.Problem, r.Decision)
	}
	if p := r.Postgres; p.Done != api.ReloadFailed || p.Verified || !p.Loaded.IsZero() || patroni.asked.Load() != 1 {
		t.Errorf("%+v, asked %d times", p, patroni.asked.Load())
	}
}

// TestReloadBadPatroniFile: Patroni would say nothing of it, and reload what it had.
func TestReloadBadPatroniFile(t *testing.T) {
	t.Parallel()
	pg := membertest.OwnPostgres(t)
	const bad = "scope: demo\npostgresql:\n  parameters:\n\t  work_mem: hunter2\n# config-version: 50\n"
	good := strings.Replace(bad, "\t  ", "    ", 1)
	path := filepath.Join(t.TempDir(), "patroni.yml")
	for name, configure := range map[string]func(*config.Config){
		"line": func(c *config.Config) { c.Versions.Postgres.Line = path },
		"both": func(c *config.Config) { c.Versions.Postgres.Line, c.Patroni.Config = path, path },
		"own":  func(c *config.Config) { c.Versions.Postgres.File, c.Patroni.Config = path+".version", path },
	} {
		m := membertest.New(t, pg)
		configure(m.Config)
		patroni := &reloadingPatroni{dynamic: `{"loop_wait": 1}`, do: asPatroni(t, pg)}
		patroni.start(t, m)
		write := func(text string) {
			t.Helper()
			for path, text := range map[string]string{path: text, path + ".version": "50\n"} {
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		want := configversion.Version(50)
		for _, dry := range []bool{true, false} {
			m.DryRun = dry
			write(bad)
			r := Run(t.Context(), m, Options{Target: api.TargetPostgres, Version: &want, Timeout: 5 * time.Second})
			if r.Code != member.Failed || r.Problem != api.ProblemInvalidFile || r.Postgres.Done != api.ReloadNot ||
				patroni.asked.Load() != 0 ||
				r.Versions[0].Applied != nil {
				t.Errorf("%s: %d %s %s: %+v", name, r.Code, r.Problem, r.Decision, r.Postgres)
			}
			if e := r.Postgres.FileErrors; len(e) != 1 || e[0].File != path || e[0].Line != 4 ||
				!strings.Contains(r.Decision, path+":4:1: ") ||
				strings.Contains(r.Decision, "hunter2") {
				t.Errorf("%s: %s: %+v", name, r.Decision, e)
			}
		}
		write(good)
		r := Run(t.Context(), m, Options{Target: api.TargetPostgres, Version: &want, Timeout: 5 * time.Second})
		if r.Code != member.Done || !r.Postgres.Verified || patroni.asked.Load() != 1 || *r.Versions[0].Applied != 50 {
			t.Errorf("%s: %d %s: %+v", name, r.Code, r.Decision, r.Postgres)
		}
	}
}

// TestReloadLeftOut: each setting of the DCS that stands in none of the files is told, and what cannot be asked is not taken for none.
func TestReloadLeftOut(t *testing.T) {
	t.Parallel()
	pg := membertest.OwnPostgres(t)
	m := membertest.New(t, pg)
	(&reloadingPatroni{dynamic: `{"loop_wait": 1, "postgresql": {"parameters": {"an odd name": "1", "Shared_Buffers": "16MB", "recovery_target": "x",
 "gone": null, "zz.last": 1}}}`}).start(
		t,
		m,
	)
	ctx := t.Context()
	report := &api.PostgresReload{How: byREST}
	err := reloadOf(t, m, Options{}).judgeParameters(ctx, report, 0)
	if problemOf(err) != api.ProblemInvalidFile || len(report.FileErrors) != 2 || report.FileErrors[0].Name != "an odd name" ||
		report.FileErrors[1].Name != "zz.last" {
		t.Errorf("%v: %+v", err, report.FileErrors)
	}
	// It may come a loop later.
	conf := filepath.Join(pg.DataDir, "postgresql.conf")
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(conf, text, 0o600); err != nil {
			t.Error(err)
		}
	}()
	(&reloadingPatroni{dynamic: `{"loop_wait": 1, "postgresql": {"parameters": {"zz.last": 1}}}`}).start(t, m)
	judged := make(chan error)
	go func() {
		judged <- reloadOf(t, m, Options{}).judgeParameters(ctx, &api.PostgresReload{How: byREST}, time.Minute)
	}()
	if err := os.WriteFile(conf, append(text[:len(text):len(text)], "ZZ.last = 1\n"...), 0o600); err != nil {
		t.Error(err)
	}
	if err := <-judged; err != nil {
		t.Error(err)
	}

	if err := pg.Exec(ctx, "drop role if exists weak; create role weak login"); err != nil {
		t.Fatal(err)
	}
	m.Config.Postgres = pg.SocketDSN("weak", "postgres")
	report = &api.PostgresReload{How: byREST}
	r := reloadOf(t, m, Options{})
	err = r.judgeParameters(ctx, report, 0)
	if problemOf(err) != api.ProblemNotVerified || !strings.Contains(err.Error(), "GRANT") || r.notSeen != "" {
		t.Errorf("without rights: %v, %q", err, r.notSeen)
	}
	// The REST API took the request, and is gone.
	m.Config.Patroni.URL = "http://127.0.0.1:1"
	r = reloadOf(t, m, Options{})
	if err := r.judgeParameters(ctx, report, 0); problemOf(err) != api.ProblemNotVerified || r.notSeen != "" {
		t.Errorf("without the REST API: %v, %q", err, r.notSeen)
	}
}

// TestReloadWithoutREST: what nobody can be asked is said. It sets PATH, so it is not parallel.
func TestReloadWithoutREST(t *testing.T) {
	pg := membertest.OwnPostgres(t)
	m := membertest.New(t, pg)
	dir := t.TempDir()
	m.Config.Patroni = config.Patroni{URL: "http://127.0.0.1:1", Config: filepath.Join(dir, "patroni.yml"), Scope: "demo", Name: "node1"}
	// The real one finds Patroni by the DCS, and both are needed for that.
	ctl := fmt.Sprintf(
		"#!/bin/sh\nset -e\ncd %s\ncp postgresql.conf copy\ncat copy >postgresql.conf\nrm copy\nkill -HUP %d\necho Reload request "+
			"received for member node1\n",
		pg.DataDir,
		pg.PID,
	)
	for path, text := range map[string]string{m.Config.Patroni.Config: "scope: demo\n", filepath.Join(dir, "patronictl"): ctl} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	var log bytes.Buffer
	m.Log = slog.New(slog.NewTextHandler(&log, nil))
	var steps []string
	r := Run(t.Context(), m, Options{Target: api.TargetPostgres, Progress: func(s Progress) { steps = append(steps, s.Text) }})
	const notSeen = "whether Patroni has left out a setting of the DCS was not seen: its REST API does not answer"
	if r.Code != member.Done || !r.Postgres.Verified || r.Postgres.How != "patronictl reload" ||
		r.Decision != "postgres reloaded and verified; "+notSeen {
		t.Errorf("%d %s: %+v", r.Code, r.Decision, r.Postgres)
	}
	if !slices.Contains(steps, notSeen) || !strings.Contains(log.String(), "level=WARN msg=\""+notSeen) {
		t.Errorf("%q\n%s", steps, &log)
	}
	// Not 10 s and the grace: loop_wait may be longer than its default.
	if said := "patronictl reload is sent; Patroni does it within its loop_wait, which is not known: waiting 35s at most"; !slices.Contains(
		steps,
		said,
	) {
		t.Errorf("%q", steps)
	}
}

// TestReloadByAnother: a load that Patroni has not done is not taken for what was asked of it.
func TestReloadByAnother(t *testing.T) {
	t.Parallel()
	pg := membertest.OwnPostgres(t)
	m := membertest.New(t, pg)
	patroni := membertest.NewPatroni(t, m, "running")
	r := reloadOf(t, m, Options{})
	ctx := t.Context()
	before, err := r.lookAtPostgres(ctx)
	if err != nil || before.path != filepath.Join(pg.DataDir, "postgresql.conf") || before.modified.IsZero() {
		t.Fatalf("%+v, %v", before, err)
	}
	unseen := serverFiles{loaded: before.loaded}
	patroni.Set(func(f *membertest.Patroni) { f.SeenAt = time.Now().Add(-time.Minute) })
	if err := pg.Exec(ctx, "select pg_reload_conf()"); err != nil {
		t.Fatal(err)
	}
	for name, before := range map[string]serverFiles{"by the file": before, "by the DCS": unseen} {
		report := &api.PostgresReload{How: "POST /reload"}
		err := r.awaitLoaded(ctx, report, before, time.Second)
		if problemOf(err) != api.ProblemNotVerified || !strings.Contains(err.Error(), "Patroni was not seen to do it") ||
			!report.Loaded.After(before.loaded) {
			t.Errorf("%s: %v; %+v", name, err, report)
		}
	}
	// As Patroni does it: the file first.
	text, err := os.ReadFile(before.path)
	if err == nil {
		err = os.WriteFile(before.path, text, 0o600)
	}
	if err == nil {
		err = r.awaitLoaded(ctx, &api.PostgresReload{}, before, 5*time.Second)
	}
	if err != nil {
		t.Error(err)
	}
	patroni.Set(func(f *membertest.Patroni) { f.SeenAt = time.Now().Add(2 * time.Second) })
	if err := r.awaitLoaded(ctx, &api.PostgresReload{}, unseen, 5*time.Second); err != nil {
		t.Error(err)
	}
}

// TestReloadInterrupted: who interrupts is told how far it came, and nothing more is sent.
func TestReloadInterrupted(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	t.Run("while Patroni is asked", func(t *testing.T) {
		m := membertest.New(t, pg)
		ctx, cancel := context.WithCancel(t.Context())
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPost {
				cancel()
				<-req.Context().Done()
			}
		}))
		defer s.Close()
		m.Config.Patroni.URL = s.URL
		var steps []string
		r := reloadOf(t, m, Options{Progress: func(s Progress) { steps = append(steps, s.Text) }})
		report := &api.PostgresReload{Done: api.ReloadNot}
		err := r.reloadPostgres(ctx, report)
		if problemOf(err) != api.ProblemNotVerified || err.Error() != "interrupted: POST /reload was begun, and Patroni may still do it" ||
			report.Done != api.ReloadFailed {
			t.Errorf("%v; %+v", err, report)
		}
		if len(steps) > 0 {
			t.Errorf("it went on: %q", steps)
		}
	})
	t.Run("while it is waited for", func(t *testing.T) {
		m := membertest.New(t, pg)
		ctx, cancel := context.WithCancel(t.Context())
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPost {
				w.WriteHeader(http.StatusAccepted)
			}
		}))
		defer s.Close()
		m.Config.Patroni.URL = s.URL
		r := reloadOf(t, m, Options{Progress: func(s Progress) {
			if strings.Contains(s.Text, "is sent") {
				cancel()
			}
		}})
		report := &api.PostgresReload{Done: api.ReloadNot}
		err := r.reloadPostgres(ctx, report)
		if problemOf(err) != api.ProblemNotVerified || !strings.HasPrefix(err.Error(), "interrupted: POST /reload was sent") ||
			report.Done != api.ReloadFailed {
			t.Errorf("%v; %+v", err, report)
		}
	})
	t.Run("before anything", func(t *testing.T) {
		m := membertest.New(t, pg)
		membertest.NewPatroni(t, m, "running")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		report := &api.PostgresReload{Done: api.ReloadNot}
		if err := reloadOf(
			t,
			m,
			Options{},
		).reloadPostgres(ctx, report); err == nil || err.Error() != "interrupted: nothing was reloaded" ||
			report.Done != api.ReloadNot {
			t.Errorf("%v; %+v", err, report)
		}
	})
	t.Run("while the versions are waited for", func(t *testing.T) {
		m := membertest.New(t, pg)
		membertest.NewPatroni(t, m, "running")
		m.Config.Versions.Postgres.File = filepath.Join(t.TempDir(), "none")
		m.Config.Versions.PgBouncer.File = m.Config.Versions.Postgres.File
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		want := configversion.Version(7)
		r := reloadOf(t, m, Options{Version: &want, Progress: func(Progress) { cancel() }})
		err := r.awaitVersions(ctx, map[string]bool{api.TargetPostgres: true, api.TargetPgBouncer: true})
		if problemOf(err) != api.ProblemVersionTimeout {
			t.Fatal(err)
		}
		if text := err.Error(); strings.Count(text, "interrupted: nothing was reloaded") != 2 || strings.Contains(text, "\n") ||
			strings.Contains(text, "in time") {
			t.Errorf("%q", text)
		}
	})
}
