package maintenance

import (
	"net/http"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
)

func TestHasGuard(t *testing.T) {
	for version, want := range map[string]bool{"3.0.2": false, "3.0.3": true, "2.1.7": false, "3.1.0": true, "4.0.7": true, "10.0": true,
		"": true, "unknown": true, "3.0.2rc1": false, "3.0": true} {
		if got := hasGuard(version); got != want {
			t.Errorf("%q: %v", version, got)
		}
	}
}

// TestOwnPause: where Patroni runs no before_stop, the poolers are paused while it works and resumed when a new primary is there; and what
// that costs the clients is measured. The pooler and the server are real, the Patronis are not: none is as old.
func TestOwnPause(t *testing.T) {
	pg := membertest.SharedPostgres(t)
	for _, c := range []struct {
		version string
		paused  bool
	}{{"3.0.2", true}, {"4.0.7", false}} {
		t.Run(c.version, func(t *testing.T) {
			b := membertest.StartPooler(t, single.SuiteTrixie, pg)
			m := membertest.New(t, pg, b)
			f := membertest.NewCluster(t)
			f.Version = c.version
			m.Config.Patroni.URL, m.Config.Patroni.Name = f.Servers["m1"].URL, "m1"
			membertest.Tell(t, m)
			waited := make(chan error, 1)
			f.Order = func(w http.ResponseWriter, _, _ string) {
				if paused := membertest.StateOf(t, b).Paused; paused != c.paused {
					t.Errorf("paused: %v", paused)
				}
				go func() {
					var err error
					if !membertest.Usable(t, b, 20*time.Second) {
						err = errNotServed
					}
					waited <- err
				}()
				time.Sleep(time.Second) // what a switchover takes
				f.Change(func() { f.Leader, f.Timeline = "m2", 4 })
				membertest.Say(w, http.StatusOK, "Successfully switched over to \"m2\"")
			}
			report := Run(t.Context(), m, Request{Kind: api.KindSwitchover}, nil)
			if report.Code != member.Done {
				t.Errorf("%+v", report)
			}
			if err := <-waited; err != nil {
				t.Error(err)
			}
			membertest.PutBack(t, b)
			cost := report.Steps[0].Cost
			if cost == nil || c.paused != (cost.PausedSeconds > 0.5) || c.paused != (cost.StallSeconds > 0.5) || c.paused && cost.Waiting != 1 ||
				cost.Errors != 0 {
				t.Errorf("cost: %+v", cost)
			}
			t.Logf("%s: %+v", c.version, cost)
		})
	}
}
