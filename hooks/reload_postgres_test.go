package hooks

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/configversion"
)

// reloadOf is a reload of this runtime's server.
func reloadOf(t *testing.T, rt *Runtime, o ReloadOptions) *reload {
	t.Helper()
	r := &reload{rt: rt, o: o, log: rt.Log, journal: rt.openJournal("reload", newID()), versions: map[string]*VersionReport{}, deadline: time.Now().Add(time.Minute)}
	var err error
	if r.patroni, err = rt.patroniClient(); err != nil {
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

// TestReloadByAnother: a load that Patroni has not done is not taken for what was asked of it.
func TestReloadByAnother(t *testing.T) {
	t.Parallel()
	pg := ownPostgres(t)
	rt := newRuntime(t, pg)
	patroni := newFakePatroni(t, rt, "running")
	r := reloadOf(t, rt, ReloadOptions{})
	ctx := t.Context()
	before, err := r.lookAtPostgres(ctx)
	if err != nil || before.path != filepath.Join(pg.DataDir, "postgresql.conf") || before.modified.IsZero() {
		t.Fatalf("%+v, %v", before, err)
	}
	unseen := serverFiles{loaded: before.loaded}
	patroni.set(func(f *fakePatroni) { f.seenAt = time.Now().Add(-time.Minute) })
	if err := pg.Exec(ctx, "select pg_reload_conf()"); err != nil {
		t.Fatal(err)
	}
	for name, before := range map[string]serverFiles{"by the file": before, "by the DCS": unseen} {
		report := &PostgresReload{How: "POST /reload"}
		err := r.awaitLoaded(ctx, report, before, time.Second)
		if problemOf(err) != ProblemNotVerified || !strings.Contains(err.Error(), "Patroni was not seen to do it") || !report.Loaded.After(before.loaded) {
			t.Errorf("%s: %v; %+v", name, err, report)
		}
	}
	// As Patroni does it: the file first.
	text, err := os.ReadFile(before.path)
	if err == nil {
		err = os.WriteFile(before.path, text, 0o600)
	}
	if err == nil {
		err = r.awaitLoaded(ctx, &PostgresReload{}, before, 5*time.Second)
	}
	if err != nil {
		t.Error(err)
	}
	patroni.set(func(f *fakePatroni) { f.seenAt = time.Now().Add(2 * time.Second) })
	if err := r.awaitLoaded(ctx, &PostgresReload{}, unseen, 5*time.Second); err != nil {
		t.Error(err)
	}
}

// TestReloadInterrupted: who interrupts is told how far it came, and nothing more is sent.
func TestReloadInterrupted(t *testing.T) {
	t.Parallel()
	pg := sharedPostgres(t)
	t.Run("while Patroni is asked", func(t *testing.T) {
		rt := newRuntime(t, pg)
		ctx, cancel := context.WithCancel(t.Context())
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPost {
				cancel()
				<-req.Context().Done()
			}
		}))
		defer s.Close()
		rt.Config.Patroni.URL = s.URL
		var steps []string
		r := reloadOf(t, rt, ReloadOptions{Progress: func(s Step) { steps = append(steps, s.Text) }})
		report := &PostgresReload{Done: ReloadNot}
		err := r.reloadPostgres(ctx, report)
		if problemOf(err) != ProblemNotVerified || err.Error() != "interrupted: POST /reload was begun, and Patroni may still do it" || report.Done != ReloadFailed {
			t.Errorf("%v; %+v", err, report)
		}
		if len(steps) > 0 {
			t.Errorf("it went on: %q", steps)
		}
	})
	t.Run("while it is waited for", func(t *testing.T) {
		rt := newRuntime(t, pg)
		ctx, cancel := context.WithCancel(t.Context())
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPost {
				w.WriteHeader(http.StatusAccepted)
			}
		}))
		defer s.Close()
		rt.Config.Patroni.URL = s.URL
		r := reloadOf(t, rt, ReloadOptions{Progress: func(s Step) {
			if strings.Contains(s.Text, "is sent") {
				cancel()
			}
		}})
		report := &PostgresReload{Done: ReloadNot}
		err := r.reloadPostgres(ctx, report)
		if problemOf(err) != ProblemNotVerified || !strings.HasPrefix(err.Error(), "interrupted: POST /reload was sent") || report.Done != ReloadFailed {
			t.Errorf("%v; %+v", err, report)
		}
	})
	t.Run("before anything", func(t *testing.T) {
		rt := newRuntime(t, pg)
		newFakePatroni(t, rt, "running")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		report := &PostgresReload{Done: ReloadNot}
		if err := reloadOf(t, rt, ReloadOptions{}).reloadPostgres(ctx, report); err == nil || err.Error() != "interrupted: nothing was reloaded" || report.Done != ReloadNot {
			t.Errorf("%v; %+v", err, report)
		}
	})
	t.Run("while the versions are waited for", func(t *testing.T) {
		rt := newRuntime(t, pg)
		newFakePatroni(t, rt, "running")
		rt.Config.Versions.Postgres.File = filepath.Join(t.TempDir(), "none")
		rt.Config.Versions.PgBouncer.File = rt.Config.Versions.Postgres.File
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		want := configversion.Version(7)
		r := reloadOf(t, rt, ReloadOptions{Version: &want, Progress: func(Step) { cancel() }})
		err := r.awaitVersions(ctx, map[string]bool{ReloadPostgres: true, ReloadPgBouncer: true})
		if problemOf(err) != ProblemVersionTimeout {
			t.Fatal(err)
		}
		if text := err.Error(); strings.Count(text, "interrupted: nothing was reloaded") != 2 || strings.Contains(text, "\n") || strings.Contains(text, "in time") {
			t.Errorf("%q", text)
		}
	})
}
