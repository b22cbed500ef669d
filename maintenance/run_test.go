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
	"github.com/pgbaton/pgbaton/plan"
)

// TestTrueEnd: whatever Patroni answers, the outcome is what the cluster shows, and the order is given once.
func TestTrueEnd(t *testing.T) {
	later := func(f *fakeCluster) {
		time.AfterFunc(1500*time.Millisecond, func() { f.change(func() { f.leader, f.line = "m2", f.line+1 }) })
	}
	for _, c := range []struct {
		name     string
		order    func(f *fakeCluster, w http.ResponseWriter)
		code     int
		decision string
	}{
		{"status unknown, and it goes on", func(f *fakeCluster, w http.ResponseWriter) {
			later(f)
			say(w, http.StatusServiceUnavailable, "Switchover status unknown")
		}, member.Done, "m2 is primary on timeline 4"},
		{"the connection is cut, and it goes on", func(f *fakeCluster, w http.ResponseWriter) {
			later(f)
			cut(w)
		}, member.Done, "m2 is primary on timeline 4"},
		{"done, it says, and nothing has happened", func(_ *fakeCluster, w http.ResponseWriter) {
			say(w, http.StatusOK, "Successfully switched over to \"m2\"")
		}, member.Failed, "the cluster is as before"},
		{"failed, it says", func(_ *fakeCluster, w http.ResponseWriter) {
			say(w, http.StatusServiceUnavailable, "Switchover failed")
		}, member.Failed, "the cluster is as before"},
		{"refused", func(_ *fakeCluster, w http.ResponseWriter) {
			say(w, http.StatusPreconditionFailed, "switchover is not possible: no good candidates have been found")
		}, member.Failed, "no good candidates"},
		{"failed, it says, and the old primary was promoted again", func(f *fakeCluster, w http.ResponseWriter) {
			f.change(func() { f.line++ })
			say(w, http.StatusServiceUnavailable, "Switchover failed")
		}, member.Failed, "m1 is primary again"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFakeCluster(t)
			f.order = func(w http.ResponseWriter, _, _ string) { c.order(f, w) }
			report := Run(t.Context(), f.on("m1"), Request{Kind: api.KindSwitchover}, nil)
			if report.Code != c.code || !strings.Contains(report.Decision, c.decision) {
				t.Errorf("%d %s", report.Code, report.Decision)
			}
			if !slices.Equal(f.ordered(), []string{"m1/switchover"}) {
				t.Errorf("orders: %v", f.ordered())
			}
			if runs, err := runsOf(f.config); err != nil || len(runs) > 0 {
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
		order    func(f *fakeCluster, w http.ResponseWriter)
		code     int
		decision string
	}{
		{"still starting, and then it is up", func(f *fakeCluster, w http.ResponseWriter) {
			f.change(func() { f.started["m2"] = time.Now() })
			say(w, http.StatusServiceUnavailable, "postgres is still starting")
		}, member.Done, "m1 is primary on timeline 3"},
		{"cut, and it was restarted", func(f *fakeCluster, w http.ResponseWriter) {
			f.change(func() { f.started["m2"] = time.Now() })
			cut(w)
		}, member.Done, "m1 is primary on timeline 3"},
		{"restarted, it says, and it was not", func(_ *fakeCluster, w http.ResponseWriter) {
			say(w, http.StatusOK, "restarted successfully")
		}, member.Failed, "the cluster is as before"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFakeCluster(t)
			f.order = func(w http.ResponseWriter, _, _ string) { c.order(f, w) }
			report := Run(t.Context(), f.on("m1"), Request{Kind: api.KindRestart, Restart: restart}, nil)
			if report.Code != c.code || !strings.Contains(report.Decision, c.decision) {
				t.Errorf("%d %s", report.Code, report.Decision)
			}
			if !slices.Equal(f.ordered(), []string{"m2/restart"}) {
				t.Errorf("orders: %v", f.ordered())
			}
		})
	}
}

// TestStepTimeout: a member that does not come back ends the run, with the time spent.
func TestStepTimeout(t *testing.T) {
	t.Parallel()
	f := newFakeCluster(t)
	f.order = func(w http.ResponseWriter, _, _ string) {
		f.change(func() { f.started["m2"] = time.Time{}.Add(time.Hour) })
		f.servers["m2"].CloseClientConnections()
		f.servers["m2"].Listener.Close()
		cut(w)
	}
	report := Run(t.Context(), f.on("m1"), Request{Kind: api.KindRestart, StepTimeout: 2 * time.Second,
		Restart: plan.RestartOptions{Members: []string{"m2"}}}, nil)
	if report.Code != member.BudgetSpent || !strings.Contains(report.Decision, "m2") || report.After.OK {
		t.Errorf("%d %s", report.Code, report.Decision)
	}
}

// TestResumeSettles: what became of a step that was at work is found out before anything is ordered again.
func TestResumeSettles(t *testing.T) {
	for name, c := range map[string]struct {
		happened bool
		orders   int
	}{"it had happened": {true, 0}, "it had not begun": {false, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeCluster(t)
			m := f.on("m1")
			r := newRun(m, Request{Kind: api.KindSwitchover, ID: "0123456789ab"}, nil)
			r.record.State = plan.StateStepping
			step := plan.Step{Kind: plan.KindSwitchover, Member: "m1", Candidate: "m2"}
			r.record.Before = before{Timeline: 3, Members: []string{"m1", "m2"}}
			r.record.At = &attempt{Step: step, Number: 1, Leader: "m1", Timeline: 3}
			r.record.Steps = []api.StepReport{{Number: 1, Kind: step.Kind, Member: "m1", Candidate: "m2", State: api.StepRunning,
				Began: time.Now()}}
			if err := r.save(); err != nil {
				t.Fatal(err)
			}
			if Resumable(m) != "" {
				t.Error("a run that lives can be resumed")
			}
			r.held.Release() // as the kernel does of a process that is killed
			if Resumable(m) != "0123456789ab" {
				t.Error("it cannot be resumed")
			}
			f.order = func(w http.ResponseWriter, _, _ string) {
				f.change(func() { f.leader, f.line = "m2", 4 })
				say(w, http.StatusOK, "Successfully switched over to \"m2\"")
			}
			if c.happened {
				f.leader, f.line = "m2", 4
			}
			report := Resume(t.Context(), m, nil, nil)
			if report.Code != member.Done || len(report.Steps) != 1 || report.Steps[0].State != api.StepDone ||
				report.After.Primary != "m2" {
				t.Errorf("%+v", report)
			}
			if len(f.ordered()) != c.orders {
				t.Errorf("orders: %v", f.ordered())
			}
			if again := Resume(t.Context(), m, nil, nil); again.Code != member.Refused || again.Refusal != RefusedNoRun {
				t.Errorf("%+v", again)
			}
		})
	}
}

// TestWarmUp: the warm-up runs after the restart, for the member, and one that fails ends the run.
func TestWarmUp(t *testing.T) {
	t.Parallel()
	f := newFakeCluster(t)
	f.order = func(w http.ResponseWriter, _, _ string) {
		f.change(func() { f.started["m2"] = time.Now() })
		say(w, http.StatusOK, "restarted successfully")
	}
	dir := t.TempDir()
	program, trace := filepath.Join(dir, "warm"), filepath.Join(dir, "trace")
	script := "#!/bin/sh\necho \"$PGBATON_MEMBER $PGBATON_HOST $PGBATON_PORT $2\" > \"$1\"\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	request := Request{Kind: api.KindRestart, Restart: plan.RestartOptions{Members: []string{"m2"}}, WarmUp: program + " " + trace + " all"}
	if r := Run(t.Context(), f.on("m1"), request, nil); r.Code != member.Done {
		t.Errorf("%+v", r)
	}
	if text, err := os.ReadFile(trace); err != nil || string(text) != "m2 127.0.0.1 1 all\n" {
		t.Errorf("%q %v", text, err)
	}
	request.WarmUp = filepath.Join(dir, "none")
	if r := Run(t.Context(), f.on("m1"), request, nil); r.Code != member.Failed || !strings.Contains(r.Decision, "the warm-up of m2") ||
		r.Steps[0].State != api.StepDone {
		t.Errorf("%+v", r)
	}
}
