package health

import (
	"context"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
	"github.com/pgbaton/pgbaton/postgres"
)

const appPooler = "10.0.0.9:6432"

// goodView is the set-up of the README: three members, a pooler that leads to a Service. It is made anew for each case.
func goodView() view {
	const hook = "/callbacks/on_role_change"
	started := time.Unix(1_700_000_000, 0)
	primary := postgres.Identity{PostmasterStart: started, SystemID: "7", ServerVersion: 170005, Timeline: 3}
	parameters := func() map[string]int {
		return map[string]int{"max_connections": 100, "max_prepared_transactions": 0, "max_locks_per_transaction": 64,
			"max_worker_processes": 8, "max_wal_senders": 10}
	}
	standby := func() serverView {
		return serverView{ready: postgres.Readiness{Identity: postgres.Identity{InRecovery: true, ReadOnly: true,
			PostmasterStart: started.Add(time.Hour), SystemID: "7"},
			Parameters: parameters(), ArchiveReady: -1}}
	}
	settings := []pgbini.Setting{
		pgbini.NewSetting("pool_mode", "transaction", "session", true), pgbini.NewSetting("query_wait_timeout", "120", "120", true),
		pgbini.NewSetting("client_login_timeout", "60", "60", true), pgbini.NewSetting("dns_max_ttl", "15", "15", true),
	}
	return view{
		config: &config.Config{File: "/callbacks/pgbaton.yaml", Poolers: []config.Pooler{{DSN: "postgres://pooler:6432/pgbouncer"}},
			Pause: config.Pause{Budget: 15 * time.Second, Lease: 30 * time.Second, ShutdownBudget: 5 * time.Second, StopServer: true}},
		health: patroni.Health{HasLock: true, State: "running", Role: "primary", Name: "m1", Scope: "demo", Version: "4.0.7",
			SystemID: "7"},
		dynamic: patroni.Dynamic{TTL: 30 * time.Second, LoopWait: 10 * time.Second,
			Raw: map[string]any{"maximum_lag_on_failover": 1048576.0, "postgresql": map[string]any{"use_slots": true}}},
		identity: primary,
		poolers: []poolerView{{status: api.PoolerStatus{Pooler: appPooler, Paused: "no"}, state: &pgb.State{Settings: settings,
			LoginRetry: 15 * time.Second,
			Databases:  []pgbini.Database{{Name: "app", Target: "app", Host: "cluster", Port: 5432}}}}},
		further: &further{
			hooks: hooksView{local: config.PatroniHooks{BeforeStop: "/callbacks/before_stop",
				Callbacks: map[string]string{"on_role_change": hook, "on_start": hook, "on_restart": hook, "on_stop": hook}},
				programs: map[string]programView{"/callbacks/before_stop": {}, hook: {}}},
			init: initView{above: 1, name: "tini", adopts: 1},
			own:  &serverView{ready: postgres.Readiness{Identity: primary, Parameters: parameters(), ReplayLag: -1}},
			cluster: &patroni.Cluster{Scope: "demo", Members: []patroni.Member{
				{Name: "m1", Role: "leader", State: "running", Host: "10.0.0.1", Port: 5432, Timeline: 3},
				{Name: "m2", Role: "replica", State: "streaming", Host: "10.0.0.2", Port: 5432, Timeline: 3, Lag: patroni.Lag{Known: true}},
				{Name: "m3", Role: "replica", State: "running", Host: "10.0.0.3", Port: 5432, Timeline: 3, Lag: patroni.Lag{Known: true}},
			}},
			apis:     map[string]apiView{"m2": {version: "4.0.7"}, "m3": {version: "4.0.7"}},
			members:  map[string]serverView{"m2": standby(), "m3": standby()},
			poolers:  map[string]poolerFurther{appPooler: {routes: []routeView{{address: "cluster:5432", identity: primary}}}},
			resolved: map[string][]string{"cluster": {"10.9.9.9"}},
		},
	}
}

// asReplica makes this member m2.
func asReplica(v *view) {
	v.health.Name, v.health.HasLock, v.health.Role = "m2", false, "replica"
	own := v.further.members["m2"]
	v.identity = own.ready.Identity
	v.further.members["m1"], v.further.own = *v.further.own, &own
	delete(v.further.members, "m2")
}

// set changes a setting of the pooler.
func set(v *view, key, value string) {
	s := v.poolers[0].state
	i := slices.IndexFunc(s.Settings, func(s pgbini.Setting) bool { return s.Key == key })
	s.Settings[i].Value = value
}

// host has the pooler's databases lead to these hosts; those that can be seen from here lead to the primary.
func host(v *view, hosts ...string) {
	s := v.poolers[0].state
	s.Databases = nil
	var routes []routeView
	for i, h := range hosts {
		s.Databases = append(s.Databases, pgbini.Database{Name: "app" + strings.Repeat("x", i), Host: h, Port: 5432})
		for one := range strings.SplitSeq(h, ",") {
			if !strings.HasPrefix(one, "/") && !member.IsLoopback(one) {
				routes = append(routes, routeView{address: one + ":5432", identity: v.identity})
			}
		}
	}
	route(v, routes...)
}

// unreachable is an address of which nobody answers.
func unreachable() error {
	server, err := postgres.Open("host=pgbaton.invalid user=postgres")
	if err != nil {
		return err
	}
	_, err = server.Connect(context.Background())
	return err
}

func route(v *view, routes ...routeView) {
	p := v.further.poolers[appPooler]
	p.routes = routes
	v.further.poolers[appPooler] = p
}

// agent gives the pooler one, and what that says.
func agent(v *view, err error, routes ...routeView) {
	route(v, routes...)
	p := v.further.poolers[appPooler]
	p.agent, p.agentErr = "https://10.0.0.9:8009", err
	v.further.poolers[appPooler] = p
}

// follows makes the pooler one that stands beside this member and is moved; what is in the way of that is told.
func follows(v *view, unmovable error) {
	host(v, "/run/postgresql")
	p := v.further.poolers[appPooler]
	p.follow, p.unmovable = &config.Follow{File: "/etc/pgbouncer/databases.ini"}, unmovable
	v.further.poolers[appPooler] = p
	v.config.Poolers[0].Follow = p.follow
}

func member2(v *view, change func(*patroni.Member)) { change(&v.further.cluster.Members[1]) }

func server2(v *view, change func(*serverView)) {
	s := v.further.members["m2"]
	change(&s)
	v.further.members["m2"] = s
}

func TestJudge(t *testing.T) {
	for _, c := range judgeCases() {
		t.Run(c.name, func(t *testing.T) {
			v := goodView()
			c.change(&v)
			found := judge(v)
			var ids []string
			text := ""
			for _, f := range found {
				ids = append(ids, f.ID)
				text += f.Found + " " + f.Change + "\n"
				if f.Found == "" || f.Why == "" || f.Severity != kinds()[f.ID].severity {
					t.Errorf("%+v", f)
				}
			}
			if got := strings.Join(ids, " "); got != c.want || !strings.Contains(text, c.says) {
				t.Errorf("%q, want %q with %q in it:\n%s", got, c.want, c.says, text)
			}
		})
	}
}

// TestEveryKindHasACase: nothing is documented that no case shows.
func TestEveryKindHasACase(t *testing.T) {
	shown := map[string]bool{"member-not-checked": true} // TestMerge
	for _, c := range judgeCases() {
		for _, id := range strings.Fields(c.want) {
			shown[id] = true
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(kinds())), slices.Sorted(maps.Keys(shown))); diff != "" {
		t.Errorf("kinds and cases differ (-kinds +cases):\n%s", diff)
	}
}

// TestEveryKindIsExplained: docs/checks.md has a section for each id, which says how bad it is, and no other.
func TestEveryKindIsExplained(t *testing.T) {
	page, err := os.ReadFile("../docs/checks.md")
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^### ([a-z-]+)\n(Error|Warning)\. `).FindAllStringSubmatch(string(page), -1) {
		explained[m[1]] = strings.ToLower(m[2])
	}
	want := map[string]string{}
	for id, k := range kinds() {
		want[id] = k.severity
	}
	if diff := cmp.Diff(want, explained); diff != "" {
		t.Errorf("docs/checks.md (-kinds +page):\n%s", diff)
	}
}
