package httpapi

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/reload"
)

// TestClient: package api's client does with a server of ours what its texts say.
func TestClient(t *testing.T) {
	release := make(chan struct{})
	a := start(t, &fake{status: fullStatus, pause: held(release), reload: func(_ context.Context, o reload.Options) reload.Report {
		return reload.Report{ReloadReport: api.ReloadReport{Versions: []api.VersionReport{{Target: o.Target}}}}
	}}, nil)
	c := &api.Client{URL: a.url + "/", Token: operateToken, HTTP: a.client}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s, err := c.Status(ctx)
	if err != nil || s.Member != "m1" || s.ObservedAt.IsZero() {
		t.Errorf("%v %+v", err, s)
	}
	o, err := c.Pause(ctx, "once", api.PauseBody{Lease: "20s"})
	if err != nil || o.Kind != api.KindPause || o.Request.Lease != "20s" {
		t.Fatalf("%v %+v", err, o)
	}
	if again, err := c.Pause(ctx, "once", api.PauseBody{Lease: "20s"}); err != nil || again.ID != o.ID {
		t.Errorf("%v %+v", err, again)
	}
	var problem *api.Problem
	if _, err := c.Reload(ctx, api.KindReloadPostgres, "", api.ReloadBody{}); !errors.As(err, &problem) ||
		problem.Name() != "operation-running" ||
		problem.Class != api.Transient || problem.Operation != o.Path() {
		t.Errorf("%v", err)
	}
	var steps []api.Step
	ended, err := c.Watch(ctx, o.ID, func(step api.Step) {
		steps = append(steps, step)
		if step.State == api.Running {
			close(release)
		}
	})
	if err != nil || ended.State != api.Succeeded || len(steps) != 3 || steps[2].State != api.Succeeded {
		t.Errorf("%v %+v %+v", err, ended, steps)
	}
	o, err = c.Reload(ctx, api.KindReloadPgBouncer, "", api.ReloadBody{ConfigVersion: "42", Timeout: "1s"})
	if err != nil || o.Request.ConfigVersion != "42" {
		t.Fatalf("%v %+v", err, o)
	}
	if o, err = c.Watch(ctx, o.ID, nil); err != nil || o.Result.Reload.Versions[0].Target != "pgbouncer" {
		t.Errorf("%v %+v", err, o)
	}
	if o, err := c.Resume(ctx, ""); err != nil || !o.Over() {
		t.Errorf("%v %+v", err, o)
	}
	if list, err := c.Operations(ctx); err != nil || len(list) != 3 || list[2].Kind != api.KindPause {
		t.Errorf("%v %+v", err, list)
	}
	if _, err := c.Watch(ctx, "0000000000000000", nil); !errors.As(err, &problem) || problem.Class != api.NotFound {
		t.Errorf("%v", err)
	}
	c.Token = "of-bad-news-0123456789"
	if _, err := c.Resume(ctx, ""); !errors.As(err, &problem) || problem.Status != 401 {
		t.Errorf("%v", err)
	}
}

// TestClientGoesOn: a server that is restarted in the middle is asked again, and no step is told twice.
func TestClientGoesOn(t *testing.T) {
	a := start(t, &fake{pause: held(nil)}, func(c *config.Config, _ *Options) { c.Serve.Grace = time.Millisecond })
	o := a.do("POST", "/v1/pgbouncer/pause", "").operation(t)
	a.until(o.ID, api.Running)
	// The address stays, whichever server is behind it.
	current := make(chan string, 1)
	current <- a.url
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := <-current
		current <- to
		http.Redirect(w, r, to+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer front.Close()
	forwarded := &http.Client{CheckRedirect: func(r *http.Request, via []*http.Request) error {
		r.Header = via[0].Header.Clone()
		return nil
	}}
	defer forwarded.CloseIdleConnections()
	c := &api.Client{URL: front.URL, Token: operateToken, HTTP: forwarded}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	seen, twice := map[int]bool{}, false
	running := make(chan struct{})
	type result struct {
		o   api.Operation
		err error
	}
	watched := make(chan result, 1)
	go func() {
		o, err := c.Watch(ctx, o.ID, func(step api.Step) {
			twice = twice || seen[step.ID]
			seen[step.ID] = true
			if step.State == api.Running {
				close(running)
			}
		})
		watched <- result{o, err}
	}()
	<-running
	if err := a.end(); err != nil {
		t.Fatal(err)
	}
	b := startWith(t, a.config, &fake{pause: func(context.Context, pause.Options) pause.Report { return pause.Report{} }}, nil)
	<-current
	current <- b.url
	got := <-watched
	if got.err != nil || got.o.State != api.Failed || got.o.Problem.Name() != "interrupted" || twice || len(seen) != 3 {
		t.Errorf("%v %+v, twice: %v, %v", got.err, got.o, twice, seen)
	}
}

// TestClientElsewhere: what is not a server of ours is told so.
func TestClientElsewhere(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "<html>", http.StatusBadGateway)
	}))
	defer other.Close()
	c := &api.Client{URL: other.URL, HTTP: other.Client()}
	var problem *api.Problem
	if _, err := c.Status(t.Context()); err == nil || errors.As(err, &problem) || !strings.Contains(err.Error(),
		"502 Bad Gateway without a problem document: this is not pgbaton serve") {
		t.Errorf("%v", err)
	}
}
