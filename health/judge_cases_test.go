package health

import (
	"errors"
	"fmt"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
	"github.com/pgbaton/pgbaton/postgres"
)

type judgeCase struct {
	name   string
	change func(*view)
	want   string // ids
	says   string // in what was found or what to change
}

func judgeCases() []judgeCase {
	denied := &postgres.GrantError{}
	return []judgeCase{
		{"all is well", func(*view) {}, "", ""},
		{"all is well on a replica", asReplica, "", ""},
		{"a status of the same", func(v *view) { v.further = nil }, "", ""},

		{"no poolers", func(v *view) { v.config.Poolers, v.poolers = nil, nil }, "no-poolers", "set poolers"},
		{"a configuration that broke", func(v *view) { v.recheck = errors.New("line 3: unknown key") }, "configuration", "line 3"},
		{"an odd configuration", func(v *view) {
			v.config.Warnings = []*config.Error{{File: "/callbacks/pgpass", Problem: "the password file is not used: chmod 600"}}
		}, "configuration-odd", "/callbacks/pgpass"},
		{"no state directory", func(v *view) { v.recheck = fmt.Errorf("%w: it is a file", config.ErrStateDir) }, "state-directory",
			"it is a file"},
		{"a budget beyond the lock", func(v *view) { v.config.Pause.Budget, v.config.Pause.Lease = 26*time.Second, 15*time.Second },
			"pause-budget", "lower pause.budget to 25s"},
		{"a shutdown budget beyond the lock", func(v *view) { v.config.Pause.ShutdownBudget = 16 * time.Second }, "shutdown-budget",
			"lower pause.shutdown_budget to 15s"},
		{"a ttl that Patroni raises", func(v *view) {
			v.dynamic.TTL, v.dynamic.LoopWait = 20*time.Second, time.Second
			v.config.Pause.ShutdownBudget = 14 * time.Second
		}, "", ""},
		{"the password file is open", func(v *view) {
			v.further.files = []fileView{{"/callbacks/pw", "everybody can read it (mode 0644): chmod o-r"}}
		}, "file-permissions", "chmod o-r"},

		{"Patroni is down", func(v *view) {
			v.patroniErr, v.health, v.dynamic, v.further.cluster = errors.New("connection refused"), patroni.Health{}, patroni.Dynamic{},
				nil
		}, "patroni-unreachable", "connection refused"},
		{"the server is down", func(v *view) {
			v.serverErr, v.identity = errors.New("no such file"), postgres.Identity{}
			v.further.own, v.further.init = &serverView{err: v.serverErr}, initView{postmasterErr: v.serverErr}
		}, "server-unreachable", "no such file"},
		{"two primaries", func(v *view) { v.health.HasLock = false }, "writable-without-lock", "patronictl list"},
		{"Patroni of bookworm", func(v *view) { v.health.Version = "3.0.2" }, "patroni-version", "3.0.2"},
		{"Patroni of bookworm on another member", func(v *view) { v.further.apis["m3"] = apiView{version: "3.0.2"} }, "patroni-version",
			"m3 is 3.0.2"},
		{"another member's Patroni is down", func(v *view) { v.further.apis["m3"] = apiView{err: errors.New("refused")} },
			"member-api-unreachable", "m3"},
		{"the first with before_stop", func(v *view) { v.health.Version = "3.0.3" }, "", ""},
		{"a release candidate", func(v *view) { v.health.Version = "4.1.0rc1" }, "", ""},
		{"maintenance", func(v *view) { v.health.Maintenance = true }, "maintenance-mode", "patronictl resume"},
		{"a pending restart", func(v *view) {
			member2(v, func(m *patroni.Member) {
				m.PendingRestart, m.PendingRestartReason = true, map[string]patroni.Change{"max_connections": {Old: "100", New: "200"}}
			})
		}, "pending-restart", "m2 wait for a restart (max_connections 100 to 200)"},
		{"a pending restart in a status", func(v *view) { v.health.PendingRestart, v.further = true, nil }, "pending-restart", "m1"},

		{"no hooks", func(v *view) { v.further.hooks = hooksView{} }, "hooks-missing hooks-incomplete", "postgresql.before_stop"},
		{"no hooks to be seen", func(v *view) { v.further.hooks = hooksView{err: errors.New("no Patroni process")} }, "hooks-not-visible",
			"no Patroni process"},
		{"hooks of the cluster", func(v *view) {
			local := v.further.hooks.local
			all := map[string]any{}
			for event, program := range local.Callbacks {
				all[event] = program
			}
			v.dynamic.Raw["postgresql"] = map[string]any{"before_stop": local.BeforeStop, "callbacks": all}
			v.further.hooks = hooksView{err: errors.New("no Patroni process")}
		}, "", ""},
		{"local callbacks replace the cluster's", func(v *view) {
			v.dynamic.Raw["postgresql"] = map[string]any{"callbacks": map[string]any{"on_stop": "/callbacks/on_role_change"}}
			delete(v.further.hooks.local.Callbacks, "on_stop")
		}, "hooks-incomplete", "postgresql.callbacks.on_stop"},
		{"no on_role_change", func(v *view) { delete(v.further.hooks.local.Callbacks, "on_role_change") }, "hooks-missing",
			"on_role_change"},
		{"before_stop in the wrong place", func(v *view) {
			v.further.hooks.local.BeforeStop = ""
			v.further.hooks.local.Callbacks["before_stop"] = "/callbacks/before_stop"
		}, "hooks-misplaced", "one level up"},
		{"the same for all members, in a status", func(v *view) {
			v.dynamic.Raw["postgresql"] = map[string]any{"callbacks": map[string]any{"before_stop": "/callbacks/before_stop"}}
			v.further = nil
		}, "hooks-misplaced", "one level up"},
		{"not installed", func(v *view) {
			v.further.hooks.programs["/callbacks/before_stop"] = programView{problem: "there is no such file"}
		}, "hooks-program", "pgbaton install /callbacks"},
		{"the runbook's script", func(v *view) { v.further.hooks.programs["/callbacks/before_stop"] = programView{other: true} },
			"hooks-other-program", "/callbacks/before_stop"},
		{"no init", func(v *view) { v.further.init = initView{above: 1, name: "sleep", adopts: 1, zombie: true} }, "init-does-not-reap",
			"sleep"},
		{"another process inherits ours", func(v *view) { v.further.init = initView{above: 1, name: "tini", adopts: 40, zombie: true} }, "",
			""},
		{"the server in another container", func(v *view) { v.further.init = initView{postmasterErr: errors.New("is not the parent")} },
			"postmaster-not-visible", "is not the parent"},
		{"and Patroni stops it anyway", func(v *view) {
			v.config.Pause.StopServer, v.further.init = false, initView{postmasterErr: errors.New("is not the parent")}
		}, "", ""},

		{"a pooler is down", func(v *view) {
			v.poolers[0].status.Error, v.poolers[0].state = "connection refused", nil
			delete(v.further.poolers, appPooler)
		}, "pooler-unreachable", appPooler},
		{"signals only", func(v *view) { v.poolers[0].state = nil; delete(v.further.poolers, appPooler) }, "no-console", "beside pidfile"},
		{"a name is gone", func(v *view) { v.unresolved = []string{"pooler p: no such host"} }, "pooler-unreachable", "no such host"},
		{"psql has paused", func(v *view) { v.poolers[0].status.Paused = "yes" }, "pooler-paused", "RESUME"},
		{"the guard has paused", func(v *view) { v.poolers[0].status.Paused, v.poolers[0].status.PausedBy = "yes", "guard" }, "", ""},
		{"a pause without its keeper", func(v *view) {
			v.poolers[0].status.Paused, v.poolers[0].status.PausedBy = "yes", "guard"
			v.leases = []api.LeaseStatus{{Owner: "guard", KeeperGone: true}}
		}, "keeper-gone", "pgbaton resume"},
		{"what is left of one that is over", func(v *view) { v.leases = []api.LeaseStatus{{Owner: "guard", KeeperGone: true}} }, "", ""},
		{"stats_users", func(v *view) {
			p := v.further.poolers[appPooler]
			p.mayPause = &pgb.ServerError{Message: "admin access needed"}
			v.further.poolers[appPooler] = p
		}, "console-user", "admin access needed"},
		{"so_reuseport", func(v *view) {
			p := v.further.poolers[appPooler]
			p.several = true
			v.further.poolers[appPooler] = p
		}, "several-processes", appPooler},
		{"session pooling", func(v *view) { set(v, "pool_mode", "session") }, "pool-mode", "app"},
		{"session pooling of one database", func(v *view) { v.poolers[0].state.Databases[0].PoolMode = "session" }, "pool-mode", "app"},
		{"session pooling of another's database", func(v *view) {
			v.poolers[0].ours = []string{"app"}
			v.poolers[0].state.Databases = append(v.poolers[0].state.Databases, pgbini.Database{Name: "other", PoolMode: "session",
				Host: "elsewhere", Port: 5432})
		}, "", ""},
		{"session pooling of one user", func(v *view) {
			p := v.further.poolers[appPooler]
			p.modes = map[string]string{"report": "session", "app": "transaction"}
			v.further.poolers[appPooler] = p
		}, "pool-mode", "user report"},
		{"session pooling that nobody uses yet", func(v *view) { set(v, "pool_mode", "session"); v.poolers[0].state.Databases = nil },
			"pool-mode", "session"},
		{"a short query_wait_timeout", func(v *view) { set(v, "query_wait_timeout", "44.9") }, "query-wait-timeout",
			"44.9s, and a pause may last for 45s"},
		{"none", func(v *view) { set(v, "query_wait_timeout", "0") }, "", ""},
		{"a short client_login_timeout", func(v *view) { set(v, "client_login_timeout", "30") }, "client-login-timeout",
			"set client_login_timeout to 46"},
		{"a retry that no mark can carry", func(v *view) { v.poolers[0].state.LoginRetry = 100 * time.Second }, "server-login-retry",
			"1m40s"},
		{"a retry of nothing", func(v *view) { v.poolers[0].state.LoginRetry = 0 }, "server-login-retry-zero", "RELOAD"},
		{"a retry under a mark", func(v *view) {
			v.poolers[0].state.LoginRetry, v.poolers[0].state.Mark = 15043*time.Microsecond, &pgb.Mark{Original: 15 * time.Second}
		}, "", ""},
		{"a disabled database", func(v *view) { v.poolers[0].state.Databases[0].Disabled = true }, "database-disabled", "app"},

		{"a Unix socket", func(v *view) { host(v, "/run/postgresql"); route(v) }, "one-member", "Unix socket"},
		{"a Unix socket in a cluster of one", func(v *view) {
			host(v, "/run/postgresql")
			route(v)
			v.further.cluster.Members, v.further.members, v.further.apis = v.further.cluster.Members[:1], nil, nil
		}, "single-member", ""},
		{"one member's address", func(v *view) { host(v, "10.0.0.1") }, "one-member", "member m1"},
		{"one member's name", func(v *view) { host(v, "m1.db"); v.further.resolved["m1.db"] = []string{"10.0.0.1"} }, "one-member",
			"m1.db"},
		{"one database of two", func(v *view) { host(v, "cluster", "10.0.0.2") }, "one-member-database", "appx"},
		{"HAProxy on a member's machine", func(v *view) {
			host(v, "10.0.0.1")
			v.poolers[0].state.Databases[0].Port = 5000
			route(v, routeView{address: "10.0.0.1:5000", identity: v.identity})
		}, "", ""},
		{"the local server by loopback", func(v *view) {
			host(v, "127.0.0.1")
			v.poolers[0].local = true
			route(v, routeView{address: "127.0.0.1:5432", identity: v.identity, direct: true})
		}, "one-member", "127.0.0.1:5432"},
		{"HAProxy by loopback", func(v *view) {
			host(v, "127.0.0.1")
			v.poolers[0].local = true
			route(v, routeView{address: "127.0.0.1:5432", identity: v.identity})
		}, "", ""},
		{"loopback of an application's machine", func(v *view) { host(v, "127.0.0.1"); route(v) }, "route-not-visible", "set resume.route"},
		{"the same with resume.route", func(v *view) {
			host(v, "127.0.0.1")
			route(v)
			v.further.route = &routeView{address: "resume.route", identity: v.identity}
		}, "", ""},
		{"all members in a list", func(v *view) { host(v, "10.0.0.1,10.0.0.2,10.0.0.3") }, "host-list", "several members"},
		{"all members behind a name", func(v *view) { v.further.resolved["cluster"] = []string{"10.0.0.1", "10.0.0.2"} }, "host-list",
			"cluster"},
		{"a name that moves", func(v *view) { v.further.resolved["cluster"] = []string{"10.0.0.1"} }, "route-cached", "dns_max_ttl = 1"},
		{"and is not kept", func(v *view) { v.further.resolved["cluster"] = []string{"10.0.0.1"}; set(v, "dns_max_ttl", "1") }, "", ""},
		{"a name of a replica", func(v *view) { host(v, "cluster", "ro"); v.further.resolved["ro"] = []string{"10.0.0.2"} }, "", ""},
		{"a route to a replica", func(v *view) {
			route(v, routeView{address: "cluster:5432", identity: v.further.members["m2"].ready.Identity})
		}, "route-elsewhere", "a replica"},
		{"a replica that sees a route to itself", func(v *view) {
			asReplica(v)
			route(v, routeView{address: "cluster:5432", identity: v.identity})
		}, "route-elsewhere", "a replica"},
		{"a route to another primary", func(v *view) {
			other := v.identity
			other.PostmasterStart = other.PostmasterStart.Add(time.Hour)
			route(v, routeView{address: "cluster:5432", identity: other})
		}, "route-elsewhere", "another server"},
		{"a pooler beside the server that is moved, and those of the other members", func(v *view) {
			follows(v, nil)
			v.config.Poolers = append(v.config.Poolers, config.Pooler{Follow: &config.Follow{Elsewhere: true}})
		}, "", ""},
		{"the same without those of the other members", func(v *view) { follows(v, nil) }, "follow-alone", "elsewhere: true"},
		{"the same of a member that is alone", func(v *view) {
			follows(v, nil)
			v.further.cluster.Members = v.further.cluster.Members[:1]
		}, "single-member", ""},
		{"its file is read-only", func(v *view) {
			follows(v, errors.New("/etc/pgbouncer/databases.ini is read-only"))
			v.config.Poolers = append(v.config.Poolers, config.Pooler{Follow: &config.Follow{Elsewhere: true}})
		}, "follow-file", "databases.ini is read-only"},
		{"another address for reading", func(v *view) {
			route(v, routeView{address: "cluster:5432", identity: v.identity}, routeView{address: "ro:5432",
				identity: v.further.members["m2"].ready.Identity})
		}, "", ""},
		{"another cluster", func(v *view) {
			host(v, "elsewhere")
			route(v, routeView{address: "elsewhere:5432", identity: postgres.Identity{SystemID: "8", PostmasterStart: time.Now()}})
		}, "other-cluster", "app: elsewhere"},
		{"another cluster's databases, which are not paused", func(v *view) {
			host(v, "cluster", "elsewhere")
			route(v, routeView{address: "cluster:5432", identity: v.identity},
				routeView{address: "elsewhere:5432", identity: postgres.Identity{SystemID: "8", PostmasterStart: time.Now()}})
			p := v.further.poolers[appPooler]
			p.ours = []string{"app"}
			v.further.poolers[appPooler], v.poolers[0].ours = p, p.ours
		}, "", ""},
		{"two clusters", func(v *view) {
			host(v, "cluster", "elsewhere")
			route(v, routeView{address: "cluster:5432", identity: v.identity},
				routeView{address: "elsewhere:5432", identity: postgres.Identity{SystemID: "8", PostmasterStart: time.Now()}})
		}, "other-cluster", "appx: elsewhere is another cluster's"},
		{"a pooler that ends", func(v *view) {
			v.poolers[0].ending, v.poolers[0].state, v.poolers[0].status.Error = true, nil, "connection refused"
		}, "pooler-shutting-down", "takes no connections any more: connection refused"},
		{"peers", func(v *view) {
			p := v.further.poolers[appPooler]
			p.peers = 1
			v.further.poolers[appPooler] = p
		}, "peers-not-listed", "1 peers"},
		{"times of Patroni", func(v *view) { v.dynamic.RetryTimeout = 11 * time.Second }, "patroni-times", "raise ttl to 32s"},
		{"as Patroni has them", func(v *view) { v.dynamic.RetryTimeout = 10 * time.Second }, "", ""},
		{"a short lease", func(v *view) { v.config.Pause.Lease = 9 * time.Second }, "lease-short", "set pause.lease to 10s"},
		{"strict, and one replica may be synchronous", func(v *view) {
			v.dynamic.Raw["synchronous_mode"], v.dynamic.Raw["synchronous_mode_strict"] = true, true
			v.further.cluster.Members[1].Role = "sync_standby"
			v.further.cluster.Members[2].Tags = map[string]any{"nosync": true}
		}, "synchronous-strict", "one replica only"},
		{"strict, and two may", func(v *view) {
			v.dynamic.Raw["synchronous_mode"], v.dynamic.Raw["synchronous_mode_strict"] = true, true
			v.further.cluster.Members[1].Role = "sync_standby"
		}, "", ""},
		{"a logical slot that is kept, and not on a standby", func(v *view) {
			v.dynamic.Raw["slots"] = map[string]any{"sub": map[string]any{"type": "logical"}}
			v.further.own.slots.Logical = []postgres.LogicalSlot{{Name: "sub"}, {Name: "mine"}}
			v.further.cluster.Members[2].Tags = map[string]any{"nofailover": true}
		}, "logical-slot", "member m2 has no copy of the logical slots sub"},
		{"a failover slot that is behind", func(v *view) {
			v.further.own.slots.Logical = []postgres.LogicalSlot{{Name: "sub", Failover: true, Flushed: 40 << 20}}
			v.further.cluster.Members[2].Tags = map[string]any{"nofailover": true}
			server2(v, func(s *serverView) { s.slots.Logical = []postgres.LogicalSlot{{Name: "sub", Flushed: 20 << 20}} })
		}, "logical-slot", "16 MiB behind"},
		{"a copy that keeps up", func(v *view) {
			v.further.own.slots.Logical = []postgres.LogicalSlot{{Name: "sub", Failover: true, Flushed: 40 << 20}}
			v.further.cluster.Members[2].Tags = map[string]any{"nofailover": true}
			server2(v, func(s *serverView) { s.slots.Logical = []postgres.LogicalSlot{{Name: "sub", Flushed: 39 << 20}} })
		}, "", ""},
		{"fewer slots", func(v *view) {
			v.further.own.slots.Max = 20
			for _, name := range []string{"m2", "m3"} {
				s := v.further.members[name]
				s.slots.Max = 20
				v.further.members[name] = s
			}
			server2(v, func(s *serverView) { s.slots.Max = 10 })
		}, "slots-differ", "max_replication_slots is 10, and 20"},
		{"no login over the route", func(v *view) { route(v, routeView{address: "cluster:5432", err: denied}) }, "route-login",
			"pg_hba.conf"},
		{"a route that cannot be reached", func(v *view) {
			route(v, routeView{address: "cluster:5432",
				err: unreachable()})
		}, "route-unreachable", "pgbaton.invalid"},
		{"a route without a server", func(v *view) {
			route(v, routeView{address: "cluster:5432", err: errors.New("connection refused")})
		}, "route-elsewhere", "connection refused"},
		{"one database of two behind loopback", func(v *view) {
			host(v, "cluster", "localhost")
		}, "route-not-visible", "appx"},
		{"an agent that does not answer", func(v *view) {
			host(v, "127.0.0.1")
			agent(v, errors.New("401 Unauthorized"))
		}, "agent-unreachable", "401 Unauthorized"},
		{"an agent of a loopback address", func(v *view) {
			host(v, "127.0.0.1")
			agent(v, nil, routeView{address: "127.0.0.1:5432", identity: v.identity})
		}, "", ""},
		{"an agent that sees a replica beside", func(v *view) {
			host(v, "127.0.0.1", "127.0.0.2")
			agent(v, nil, routeView{address: "127.0.0.1:5432", identity: v.identity}, routeView{address: "127.0.0.2:5432",
				identity: postgres.Identity{SystemID: v.identity.SystemID, InRecovery: true}})
		}, "", ""},
		{"an agent that sees nothing else than a replica", func(v *view) {
			host(v, "127.0.0.1")
			agent(v, nil, routeView{address: "127.0.0.1:5432", identity: postgres.Identity{SystemID: v.identity.SystemID, InRecovery: true}})
		}, "route-elsewhere", "127.0.0.1:5432 leads to a replica"},
		{"a resume.route that fails", func(v *view) {
			v.further.route = &routeView{address: "resume.route",
				err: unreachable()}
		}, "route-unreachable", "resume.route"},

		{"the DCS is away", func(v *view) {
			v.further.cluster, v.further.members, v.further.apis, v.further.unseen = nil, nil, nil, errors.New("500")
		}, "cluster-not-visible", "500"},
		{"one member", func(v *view) {
			v.further.cluster.Members, v.further.members, v.further.apis = v.further.cluster.Members[:1], nil,
				nil
		}, "single-member",
			"one member"},
		{"no candidate", func(v *view) {
			v.further.cluster.Members[1].State = "start failed"
			v.further.cluster.Members[2].Tags = map[string]any{"nofailover": true}
		}, "no-candidate", "m2 is start failed, m3 has the tag nofailover"},
		{"one candidate is enough", func(v *view) { v.further.cluster.Members[1].State = "start failed" }, "", ""},
		{"no synchronous standby", func(v *view) { v.dynamic.Raw["synchronous_mode"] = true }, "no-candidate", "no synchronous standby"},
		{"a synchronous standby", func(v *view) {
			v.dynamic.Raw["synchronous_mode"] = "quorum"
			v.further.cluster.Members[2].Role = "quorum_standby"
		}, "", ""},
		{"far behind", func(v *view) {
			for i := range v.further.cluster.Members[1:] {
				v.further.cluster.Members[1+i].Lag.Bytes = 64 << 20
			}
		}, "replica-lag replica-lag no-candidate", "64 MiB"},
		{"replay is behind", func(v *view) { server2(v, func(s *serverView) { s.ready.ReplayLag = 32 << 20 }) }, "replica-lag", "32 MiB"},
		{"replay is paused", func(v *view) { server2(v, func(s *serverView) { s.ready.ReplayPaused = true }) }, "replay-paused",
			"pg_wal_replay_resume"},
		{"a smaller max_connections", func(v *view) { server2(v, func(s *serverView) { s.ready.Parameters["max_connections"] = 50 }) },
			"parameter-differs", "max_connections is 50, and 100"},
		{"a larger one", func(v *view) { server2(v, func(s *serverView) { s.ready.Parameters["max_connections"] = 500 }) }, "", ""},
		{"a member that cannot be looked at", func(v *view) { server2(v, func(s *serverView) { s.err = denied }) }, "member-not-visible",
			"m2"},
		{"an old transaction", func(v *view) {
			v.further.own.transactions = []postgres.Transaction{{PID: 42, User: "batch", Age: 20 * time.Second, State: "active"}, {PID: 43,
				Age: time.Second}}
		}, "long-transaction", "pg_terminate_backend(42)"},
		{"an old transaction on the primary, seen from a replica", func(v *view) {
			v.further.own.transactions = []postgres.Transaction{{PID: 42, Age: 20 * time.Second}}
			asReplica(v)
		}, "long-transaction", "member m1"},
		{"hidden transactions", func(v *view) { v.further.own.hidden = true }, "transactions-not-visible", "pg_read_all_stats"},
		{"a forgotten prepared transaction", func(v *view) {
			v.further.own.ready.Prepared = []postgres.Prepared{{GID: "x1", Age: time.Hour}, {GID: "x2", Age: time.Second}}
		}, "prepared-transaction", "x1"},
		{"archiving fails", func(v *view) {
			v.further.own.ready.ArchiveFailed, v.further.own.ready.NotArchived = "0000000100000000000000A1", time.Hour
		}, "archive-failing", "0000000100000000000000A1"},
		{"archiving is behind", func(v *view) { v.further.own.ready.ArchiveReady = 17 }, "archive-backlog", "17 WAL files"},
	}
}
