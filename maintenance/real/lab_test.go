package real_test

import (
	"context"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/e2e/lab"
	"github.com/pgbaton/pgbaton/maintenance"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/plan"
)

// cluster is a lab whose Patronis run no hooks: what the guard does is tested elsewhere.
type cluster struct {
	*lab.Lab
	t *testing.T
}

func startCluster(t *testing.T, o lab.Options) *cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mount namespaces and chroot")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	o.PgbenchScale = 1
	l, err := lab.Start(ctx, o.Quick())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return &cluster{l, t}
}

// on is pgbaton on a member, with a state directory of its own.
func (c *cluster) on(name string) *member.Member {
	c.t.Helper()
	m := membertest.New(c.t, nil)
	m.Config.Patroni.URL, m.Config.Patroni.Name, m.Config.Postgres = c.Member(name).URL(), name, c.Member(name).DSN()
	for _, p := range c.Poolers() {
		m.Config.Poolers = append(m.Config.Poolers, config.Pooler{DSN: p.AdminDSN()})
	}
	membertest.Tell(c.t, m)
	return m
}

// view is a cluster as its members say that it is.
type view struct {
	patroni.Cluster
	health map[string]patroni.Health
}

func (c *cluster) view() view {
	c.t.Helper()
	client, err := c.on(c.Members()[0].Name).Patroni()
	if err != nil {
		c.t.Fatal(err)
	}
	v := view{health: map[string]patroni.Health{}}
	if v.Cluster, err = client.Cluster(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	for _, m := range v.Members {
		there, err := client.At(m.APIURL)
		if err != nil {
			c.t.Fatal(err)
		}
		if v.health[m.Name], err = there.Leader(c.t.Context()); err != nil {
			c.t.Error(err)
		}
	}
	return v
}

// primary is who holds the lock; of nobody the name is empty.
func (v view) primary() patroni.Health {
	leader, _ := v.Leader()
	return v.health[leader.Name]
}

func (c *cluster) healthy() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Minute)
	defer cancel()
	if err := c.WaitHealthy(ctx); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) leader() string {
	c.t.Helper()
	leader := c.view().primary().Name
	if leader == "" {
		c.t.Fatal("no leader")
	}
	return leader
}

func (c *cluster) replica() string {
	c.t.Helper()
	leader := c.leader()
	i := slices.IndexFunc(c.Members(), func(m *lab.Member) bool { return m.Name != leader })
	return c.Members()[i].Name
}

// watched keeps what a run tells.
type watched struct {
	mu     sync.Mutex
	events []api.ClusterEvent
	on     func(api.ClusterEvent)
}

func (w *watched) tell(e api.ClusterEvent) {
	w.mu.Lock()
	w.events = append(w.events, e)
	w.mu.Unlock()
	if w.on != nil {
		w.on(e)
	}
}

func say(t *testing.T, report api.ClusterReport) {
	t.Helper()
	t.Logf("%s, code %d, %.1f s: %s", report.State, report.Code, report.TookSeconds, report.Decision)
	for _, s := range report.Steps {
		t.Logf("  %d %s %s %s: %s, %.1f s, cost %+v: %s", s.Number, s.Kind, s.Member, s.Candidate, s.State, s.TookSeconds, s.Cost, s.Text)
	}
}

func done(t *testing.T, report api.ClusterReport) {
	t.Helper()
	say(t, report)
	if report.Code != 0 || report.State != api.StepDone || report.After == nil || !report.After.OK {
		t.Errorf("%+v", report)
	}
}

func kinds(report api.ClusterReport) string {
	var all []string
	for _, s := range report.Steps {
		all = append(all, s.Kind)
	}
	return strings.Join(all, " ")
}

func TestRealCluster(t *testing.T) {
	for _, suite := range []string{"trixie", "sid"} {
		t.Run(suite, func(t *testing.T) {
			c := startCluster(t, lab.Options{Suite: suite, Patroni: func(_ *lab.Member, config map[string]any) {
				dcs := config["bootstrap"].(map[string]any)["dcs"].(map[string]any)
				dcs["postgresql"].(map[string]any)["parameters"].(map[string]any)["wal_level"] = "logical"
				dcs["ignore_slots"] = []any{map[string]any{"name": "failover_slot"}}
			}})
			sub := func(name string, run func(c *cluster)) {
				t.Run(name, func(t *testing.T) {
					here := &cluster{c.Lab, t}
					here.healthy()
					run(here)
					if left := here.runs(); len(left) > 0 {
						t.Errorf("entries are left: %+v", left)
					}
				})
			}
			sub("two at once", twoAtOnce)
			sub("rolling restart, and a second run meanwhile", rolling)
			sub("switchover to a member", toCandidate)
			sub("a logical slot that no standby has", logicalSlot)
			sub("stopped and resumed", stopAndResume)
			sub("aborted in a step and resumed", abortAndResume)
			sub("scheduled", scheduled)
			sub("maintenance mode", maintenanceMode)
			sub("an old transaction", oldTransaction)
			sub("what the lock costs", lockCost)
			sub("the DCS is away", withoutDCS)
		})
	}
}

func rollingRestart() maintenance.Request {
	return maintenance.Request{Kind: api.KindRestart, Restart: plan.RestartOptions{Rolling: true}}
}

func rolling(c *cluster) {
	before := c.view()
	leader := c.leader()
	var second api.ClusterReport
	var once sync.Once
	var all sync.WaitGroup
	other := c.on(c.replica())
	w := &watched{on: func(e api.ClusterEvent) {
		if e.Event == api.EventStep {
			once.Do(func() {
				all.Go(func() {
					second = maintenance.Run(context.Background(), other, maintenance.Request{Kind: api.KindSwitchover}, nil)
				})
			})
		}
	}}
	report := maintenance.Run(c.t.Context(), c.on(leader), rollingRestart(), w.tell)
	all.Wait()
	done(c.t, report)
	say(c.t, second)
	if second.Code != member.Refused || second.Refusal != maintenance.RefusedLocked || !strings.Contains(second.Decision, leader) {
		c.t.Errorf("the second run: %+v", second)
	}
	if kinds(report) != "restart restart switchover" || report.Steps[2].Member != leader {
		c.t.Errorf("order: %s", kinds(report))
	}
	for name, is := range c.view().health {
		if !is.PostmasterStart.After(before.health[name].PostmasterStart) {
			c.t.Errorf("%s was not restarted", name)
		}
	}
	for _, s := range report.Steps {
		if s.Cost == nil || s.State != api.StepDone || s.TookSeconds <= 0 {
			c.t.Errorf("%+v", s)
		}
	}
}

func toCandidate(c *cluster) {
	old := c.view().primary()
	to := c.replica()
	report := maintenance.Run(c.t.Context(), c.on(old.Name), maintenance.Request{Kind: api.KindSwitchover, FromHere: true,
		Switchover: plan.SwitchoverOptions{Candidate: to}}, nil)
	done(c.t, report)
	if report.After.Primary != to || report.After.Timeline <= old.Timeline {
		c.t.Errorf("%+v", report.After)
	}
	// It is not the primary any more.
	report = maintenance.Run(c.t.Context(), c.on(old.Name), maintenance.Request{Kind: api.KindSwitchover, FromHere: true}, nil)
	done(c.t, report)
	if len(report.Steps) != 0 || c.leader() != to {
		c.t.Errorf("%+v", report)
	}
}

func stopAndResume(c *cluster) {
	leader := c.leader()
	m := c.on(leader)
	stop := make(chan struct{})
	var once sync.Once
	w := &watched{on: func(e api.ClusterEvent) {
		if e.Event == api.EventStep {
			once.Do(func() { close(stop) })
		}
	}}
	request := rollingRestart()
	request.Stop = stop
	report := maintenance.Run(c.t.Context(), m, request, w.tell)
	say(c.t, report)
	if report.State != api.StepStopped || report.Code == 0 || len(report.Steps) < 3 || report.Steps[0].State != api.StepDone ||
		report.Steps[1].State != api.StepPlanned || c.leader() != leader {
		c.t.Errorf("%+v", report)
	}
	first := report.Steps[0].Member
	report = maintenance.Resume(c.t.Context(), m, nil, nil)
	done(c.t, report)
	if kinds(report) != "restart restart switchover" || report.Steps[0].Member != first || report.Steps[1].Member == first {
		c.t.Errorf("%+v", report.Steps)
	}
	again := maintenance.Resume(c.t.Context(), m, nil, nil)
	if again.Code != member.Refused || again.Refusal != maintenance.RefusedNoRun {
		c.t.Errorf("%+v", again)
	}
}

func abortAndResume(c *cluster) {
	leader := c.view().primary()
	m := c.on(leader.Name)
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	w := &watched{on: func(e api.ClusterEvent) {
		if e.Event == api.EventLive && e.Step > 0 {
			cancel()
		}
	}}
	report := maintenance.Run(ctx, m, maintenance.Request{Kind: api.KindSwitchover}, w.tell)
	say(c.t, report)
	if report.State != api.StepUnknown || report.Code == 0 || !strings.Contains(report.Decision, "--resume") {
		c.t.Errorf("%+v", report)
	}
	// Another member's run does not come in between.
	other := maintenance.Run(c.t.Context(), c.on(c.replica()), rollingRestart(), nil)
	say(c.t, other)
	if other.Code != member.Refused {
		c.t.Errorf("%+v", other)
	}
	report = maintenance.Resume(c.t.Context(), m, nil, nil)
	done(c.t, report)
	if after := c.view(); len(report.Steps) != 1 || report.After.Timeline != leader.Timeline+1 {
		c.t.Errorf("%+v %+v", report, after)
	}
}

func scheduled(c *cluster) {
	old := c.leader()
	stop := make(chan struct{})
	var once sync.Once
	w := &watched{on: func(e api.ClusterEvent) {
		if e.Event == api.EventLive && strings.Contains(e.Live.Waits, "due at") && c.view().ScheduledSwitchover != nil {
			once.Do(func() { close(stop) })
		}
	}}
	request := maintenance.Request{Kind: api.KindSwitchover, At: time.Now().Add(time.Hour), Stop: stop}
	report := maintenance.Run(c.t.Context(), c.on(old), request, w.tell)
	say(c.t, report)
	if report.State != api.StepStopped || c.view().ScheduledSwitchover != nil || c.leader() != old {
		c.t.Errorf("%+v", report)
	}
	at := time.Now().Add(6 * time.Second).Truncate(time.Second)
	report = maintenance.Run(c.t.Context(), c.on(old), maintenance.Request{Kind: api.KindSwitchover, At: at}, nil)
	done(c.t, report)
	if time.Now().Before(at) || c.leader() == old {
		c.t.Errorf("%+v", report)
	}
}

func maintenanceMode(c *cluster) {
	set := func(on any) {
		m := c.Members()[0]
		status, answer, err := m.REST(c.t.Context(), http.MethodPatch, "/config", map[string]any{"pause": on})
		if err != nil || status != http.StatusOK {
			c.t.Fatal(status, answer, err)
		}
		membertest.Eventually(c.t, "maintenance mode", func() bool { return c.view().Paused == (on == true) })
	}
	set(true)
	report := maintenance.Run(c.t.Context(), c.on(c.leader()), maintenance.Request{Kind: api.KindSwitchover}, nil)
	say(c.t, report)
	if report.Code != member.Refused || report.Refusal != plan.MaintenanceMode {
		c.t.Errorf("%+v", report)
	}
	set(nil)
}

// oldTransaction is waited for, and the run goes on when it has ended.
func oldTransaction(c *cluster) {
	old := c.leader()
	client := membertest.Connect(c.t, c.Member(old).DSN())
	defer client.Close()
	client.Must("begin; select 1")
	request := maintenance.Request{Kind: api.KindSwitchover, MaxTransaction: 500 * time.Millisecond, StepTimeout: 3 * time.Second}
	time.Sleep(time.Second) // it grows old
	report := maintenance.Run(c.t.Context(), c.on(old), request, nil)
	say(c.t, report)
	if report.Code != member.BudgetSpent || len(report.Steps) != 1 || report.Steps[0].State != api.StepPlanned || c.leader() != old {
		c.t.Errorf("%+v", report)
	}
	request.StepTimeout = time.Minute
	var once sync.Once
	w := &watched{on: func(e api.ClusterEvent) {
		if e.Event == api.EventNote && strings.Contains(e.Text, "a transaction on "+old) {
			once.Do(func() { client.Must("commit") })
		}
	}}
	report = maintenance.Run(c.t.Context(), c.on(old), request, w.tell)
	done(c.t, report)
	if c.leader() == old {
		c.t.Errorf("%+v", report)
	}
}

// withoutDCS cuts all members off for 20 s in the middle of a rolling restart.
func withoutDCS(c *cluster) {
	var once sync.Once
	var all sync.WaitGroup
	w := &watched{on: func(e api.ClusterEvent) {
		if e.Event == api.EventLive && e.Step == 1 {
			once.Do(func() {
				all.Go(func() {
					for _, m := range c.Members() {
						m.CutDCS()
					}
					time.Sleep(20 * time.Second) // the case
					for _, m := range c.Members() {
						m.HealDCS()
					}
				})
			})
		}
	}}
	report := maintenance.Run(c.t.Context(), c.on(c.leader()), rollingRestart(), w.tell)
	all.Wait()
	done(c.t, report)
}
