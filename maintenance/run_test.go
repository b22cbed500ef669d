package maintenance

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/plan"
)

// TestTrueEnd: whatever Patroni answers, the outcome is what the cluster shows, and the order is given once.
func TestTrueEnd(t *testing.T) {
	later := func(f *membertest.Cluster) {
		time.AfterFunc(1500*time.Millisecond, func() { f.Change(func() { f.Leader, f.Timeline = "m2", f.Timeline+1 }) })
	}
	for _, c := range []struct {
		name     string
		order    func(f *membertest.Cluster, w http.ResponseWriter)
		code     int
		decision string
	}{
		{"status unknown, and it goes on", func(f *membertest.Cluster, w http.ResponseWriter) {
			later(f)
			membertest.Say(w, http.StatusServiceUnavailable, "Switchover status unknown")
		}, member.Done, "m2 is primary on timeline 4"},
		{"the connection is cut, and it goes on", func(f *membertest.Cluster, w http.ResponseWriter) {
			later(f)
			membertest.Cut(w)
		}, member.Done, "m2 is primary on timeline 4"},
		{"done, it says, and nothing has happened", func(_ *membertest.Cluster, w http.ResponseWriter) {
			membertest.Say(w, http.StatusOK, "Successfully switched over to \"m2\"")
		}, member.Failed, "the cluster is as before"},
		{"failed, it says", func(_ *membertest.Cluster, w http.ResponseWriter) {
			membertest.Say(w, http.StatusServiceUnavailable, "Switchover failed")
		}, member.Failed, "the cluster is as before"},
		{"refused", func(_ *membertest.Cluster, w http.ResponseWriter) {
			membertest.Say(w, http.StatusPreconditionFailed, "switchover is not possible: no good candidates have been found")
		}, member.Failed, "no good candidates"},
		{"failed, it says, and the old primary was promoted again", func(f *membertest.Cluster, w http.ResponseWriter) {
			f.Change(func() { f.Timeline++ })
			membertest.Say(w, http.StatusServiceUnavailable, "Switchover failed")
		}, member.Failed, "m1 is primary again"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := membertest.NewCluster(t)
			f.Order = func(w http.ResponseWriter, _, _ string) { c.order(f, w) }
			report := Run(t.Context(), on(t, f, "m1"), Request{Kind: api.KindSwitchover}, nil)
			if report.Code != c.code || !strings.Contains(report.Decision, c.decision) {
				t.Errorf("%d %s", report.Code, report.Decision)
			}
			if !slices.Equal(f.Orders(), []string{"m1/switchover"}) {
				t.Errorf("orders: %v", f.Orders())
			}
			if runs, err := runsOf(f.Config); err != nil || len(runs) > 0 {
				t.Errorf("%v %v", runs, err)
			}
		})
	}
}

// TestRestartAnswers: POST /restart is synchronous, and 503 says nothing about the server.
func TestRestartAnswers(t *testing.T) {
	restart := plan.RestartOptions{Members: []string{"m2"}}
	for _, c := range []struct {
		name     string
		order    func(f *membertest.Cluster, w http.ResponseWriter)
		code     int
		decision string
	}{
		{"still starting, and then it is up", func(f *membertest.Cluster, w http.ResponseWriter) {
			f.Change(func() { f.Started["m2"] = time.Now() })
			membertest.Say(w, http.StatusServiceUnavailable, "postgres is still starting")
		}, member.Done, "m1 is primary on timeline 3"},
		{"cut, and it was restarted", func(f *membertest.Cluster, w http.ResponseWriter) {
			f.Change(func() { f.Started["m2"] = time.Now() })
			membertest.Cut(w)
		}, member.Done, "m1 is primary on timeline 3"},
		{"restarted, it says, and it was not", func(_ *membertest.Cluster, w http.ResponseWriter) {
			membertest.Say(w, http.StatusOK, "restarted successfully")
		}, member.Failed, "the cluster is as before"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := membertest.NewCluster(t)
			f.Order = func(w http.ResponseWriter, _, _ string) { c.order(f, w) }
			report := Run(t.Context(), on(t, f, "m1"), Request{Kind: api.KindRestart, Restart: restart}, nil)
			if report.Code != c.code || !strings.Contains(report.Decision, c.decision) {
				t.Errorf("%d %s", report.Code, report.Decision)
			}
			if !slices.Equal(f.Orders(), []string{"m2/restart"}) {
				t.Errorf("orders: %v", f.Orders())
			}
		})
	}
}

// TestStepTimeout: a member that does not come back ends the run, with the time spent.
func TestStepTimeout(t *testing.T) {
	t.Parallel()
	f := membertest.NewCluster(t)
	f.Order = func(w http.ResponseWriter, _, _ string) {
		f.Change(func() { f.Started["m2"] = time.Time{}.Add(time.Hour) })
		f.Servers["m2"].CloseClientConnections()
		f.Servers["m2"].Listener.Close()
		membertest.Cut(w)
	}
	report := Run(t.Context(), on(t, f, "m1"), Request{Kind: api.KindRestart, StepTimeout: 2 * time.Second,
		Restart: plan.RestartOptions{Members: []string{"m2"}}}, nil)
	if report.Code != member.BudgetSpent || !strings.Contains(report.Decision, "m2") || report.After.OK {
		t.Errorf("%d %s", report.Code, report.Decision)
	}
}

// TestWarmUp: the warm-up runs after the restart, for the member, and one that fails ends the run.
func TestWarmUp(t *testing.T) {
	t.Parallel()
	f := membertest.NewCluster(t)
	f.Order = func(w http.ResponseWriter, _, _ string) {
		f.Change(func() { f.Started["m2"] = time.Now() })
		membertest.Say(w, http.StatusOK, "restarted successfully")
	}
	dir := t.TempDir()
	program, trace := filepath.Join(dir, "warm"), filepath.Join(dir, "trace")
	script := "#!/bin/sh\necho \"$PGBATON_MEMBER $PGBATON_HOST $PGBATON_PORT $2\" > \"$1\"\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	request := Request{Kind: api.KindRestart, Restart: plan.RestartOptions{Members: []string{"m2"}}, WarmUp: program + " " + trace + " all"}
	if r := Run(t.Context(), on(t, f, "m1"), request, nil); r.Code != member.Done {
		t.Errorf("%+v", r)
	}
	if text, err := os.ReadFile(trace); err != nil || string(text) != "m2 127.0.0.1 1 all\n" {
		t.Errorf("%q %v", text, err)
	}
	request.WarmUp = filepath.Join(dir, "none")
	if r := Run(t.Context(), on(t, f, "m1"), request, nil); r.Code != member.Failed || !strings.Contains(r.Decision, "the warm-up of m2") ||
		r.Steps[0].State != api.StepDone {
		t.Errorf("%+v", r)
	}
}
