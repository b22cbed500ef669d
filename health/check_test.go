package health

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
)

// TestCheckOfRealServers: a primary, a standby and two poolers with as many mistakes as there is room for. (What a cluster without a
// mistake looks like, and mistakes of Patroni's, are in package e2e.) It is not parallel: for a while the test inherits every orphan.
func TestCheckOfRealServers(t *testing.T) {
	single.Need(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pg, err := single.StartPostgres(ctx, single.SuiteTrixie, single.PostgresOptions{Settings: map[string]string{
		"archive_mode": "on", "archive_command": "false", "max_prepared_transactions": "2"}})
	must(err)
	t.Cleanup(pg.Close)
	standby, err := single.StartStandby(ctx, pg)
	must(err)
	t.Cleanup(standby.Close)
	must(standby.Exec(ctx, "select pg_wal_replay_pause()"))
	must(pg.Exec(ctx, "alter system set max_connections = 80")) // more than the standby has
	pg.Stop()
	must(pg.Start(ctx))
	must(pg.Exec(ctx, "create table t (i int)"))
	must(pg.Exec(ctx, "begin; insert into t values (1); prepare transaction 'forgotten'"))
	must(pg.Exec(ctx, "select pg_switch_wal()"))

	bad, err := single.StartPgBouncer(ctx, single.SuiteTrixie, single.PgBouncerOptions{
		Databases: fmt.Sprintf("app = host=%s port=%d dbname=postgres\nro = host=%s port=%d dbname=postgres", pg.Addr, pg.Port,
			standby.Addr, standby.Port),
		Settings: map[string]string{"pool_mode": "session", "query_wait_timeout": "2", "client_login_timeout": "1",
			"server_login_retry": "0.25"}})
	must(err)
	t.Cleanup(bad.Close)
	watched, err := single.StartPgBouncer(ctx, single.SuiteSid, single.PgBouncerOptions{
		Databases: fmt.Sprintf("ro = host=%s port=%d dbname=postgres", standby.Addr, standby.Port), Port: 6440,
		Settings: map[string]string{"stats_users": "watcher", "server_login_retry": "0", "pool_mode": "transaction"},
		Users:    map[string]string{"watcher": single.Password}})
	must(err)
	t.Cleanup(watched.Close)

	m := membertest.New(t, pg, bad)
	m.Config.Postgres += " password=" + single.Password
	m.Config.Pause.Budget, m.Config.Pause.Lease = time.Second, 2*time.Second
	m.Config.Poolers = append(m.Config.Poolers, config.Pooler{
		DSN: fmt.Sprintf("postgres://watcher:%s@%s:%d/pgbouncer?sslmode=disable", single.Password, watched.Addr, watched.Port)})
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		must(os.WriteFile(path, []byte(text), 0o600))
		must(os.Chmod(path, mode))
		return path
	}
	m.Config.Patroni.Config = file("patroni.yml", fmt.Sprintf(
		"postgresql: {before_stop: %s, callbacks: {on_role_change: %s x, on_start: %s}}\n",
		file("before_stop", "#!/bin/sh\n", 0o644), file("script", "#!/bin/sh\n", 0o755), filepath.Join(dir, "none")), 0o600)
	m.Config.Patroni.PasswordFile = file("password", "x", 0o604)
	m.Config.Poolers[0].PasswordFile = file("pooler-password", "x", 0o620)
	m.Config.Poolers[1].PasswordFile = m.Config.Poolers[0].PasswordFile
	p := membertest.NewPatroni(t, m, "running")
	p.Version = "3.0.2"
	p.Cluster = fmt.Sprintf(`{"scope": "demo", "members": [
 {"name": "node1", "role": "leader", "state": "running", "host": %q, "port": %d, "timeline": 1},
 {"name": "node2", "role": "replica", "state": "running", "host": %q, "port": %d, "timeline": 1, "lag": 0, "api_url": %q,
	"tags": {"nofailover": true}},
 {"name": "node3", "role": "replica", "state": "stopped", "host": "127.0.0.1", "port": 1, "lag": "unknown", "pending_restart": true}]}`,
		pg.Addr, pg.Port, standby.Addr, standby.Port, p.URL+"/patroni")

	old := membertest.Connect(t, pg.SocketDSN("postgres", "postgres"))
	old.Must("begin; select 1")
	membertest.Eventually(t, "the archiver has failed, and the transaction is old", func() bool {
		return pg.Exec(ctx, `do $$ begin assert (select failed_count > 0 from pg_stat_archiver)
 and exists (select from pg_stat_activity where xact_start < clock_timestamp() - interval '1.1 s')
 and exists (select from pg_prepared_xacts where prepared < clock_timestamp() - interval '1.1 s'); end $$`) == nil
	})
	// The test inherits orphans, as whoever started the server, and does not reap.
	must(unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	defer func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }()

	began := time.Now()
	report := Check(ctx, m)
	if took := time.Since(began); took > checkTimeout+3*time.Second {
		t.Errorf("it took %s", took)
	}
	got := map[string]string{} // id and pooler
	for _, f := range report.Findings {
		if f.ID == "long-transaction" {
			f.Subject = "its process"
		}
		got[f.ID] += f.Subject + " "
		if strings.Contains(f.Found+f.Change, single.Password) {
			t.Errorf("a password: %+v", f)
		}
	}
	name := func(b *single.PgBouncer) string { return fmt.Sprintf("%s:%d ", b.Addr, b.Port) }
	want := map[string]string{
		"patroni-version": "patroni node2 ", "member-api-unreachable": "node3 ",
		"file-permissions":    m.Config.Poolers[0].PasswordFile + " " + m.Config.Patroni.PasswordFile + " ",
		"hooks-program":       filepath.Join(dir, "before_stop") + " " + filepath.Join(dir, "none") + " ",
		"hooks-other-program": filepath.Join(dir, "script") + " ",
		"hooks-incomplete":    "postgresql.callbacks ", "init-does-not-reap": filepath.Base(os.Args[0]) + " ",
		"pool-mode": name(bad), "query-wait-timeout": name(bad), "client-login-timeout": name(bad), "server-login-retry": name(bad),
		"server-login-retry-zero": name(watched),
		"console-user":            name(watched), "one-member": name(bad) + name(watched),
		"route-elsewhere": fmt.Sprintf("%s:%d ", standby.Addr, standby.Port),
		"no-candidate":    " ", "replay-paused": "node2 ", "parameter-differs": "node2 ", "member-not-visible": "node3 ",
		"pending-restart": "node3 ", "lease-short": "pause.lease ",
		"long-transaction": "its process ", "prepared-transaction": "forgotten ", "archive-failing": "node1 ",
	}
	if len(filepath.Base(os.Args[0])) > 15 { // what the kernel keeps of a name
		want["init-does-not-reap"] = filepath.Base(os.Args[0])[:15] + " "
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if report.OK || report.Member != "node1" || report.Scope != "demo" {
		t.Errorf("%+v", report)
	}
	firstWarning := slices.IndexFunc(report.Findings, func(f api.Finding) bool { return f.Severity == api.SeverityWarning })
	if firstWarning < 0 || slices.ContainsFunc(report.Findings[firstWarning:],
		func(f api.Finding) bool { return f.Severity == api.SeverityError }) {
		t.Error("the errors are not first")
	}

	// The status shows what it knows without a further question.
	problems := strings.Join(Of(ctx, m).Problems, "\n")
	for _, id := range []string{"patroni-version", "pool-mode", "query-wait-timeout", "client-login-timeout", "server-login-retry",
		"server-login-retry-zero"} {
		if !strings.Contains(problems, "["+id+"]") {
			t.Errorf("the status does not show %s:\n%s", id, problems)
		}
	}
}

// onRoutes are the findings on the way from the poolers, in order.
func onRoutes(t *testing.T, m *member.Member) []string {
	t.Helper()
	var found []string
	for _, f := range Check(t.Context(), m).Findings {
		if strings.HasPrefix(f.ID, "route-") || strings.HasPrefix(f.ID, "agent-") {
			found = append(found, f.ID+" "+f.Subject)
		}
	}
	slices.Sort(found)
	return found
}

// TestCheckOfRoutes: what of the route cannot be seen from here is told, and what can be is not.
func TestCheckOfRoutes(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	b, err := single.StartPgBouncer(t.Context(), single.SuiteTrixie, single.PgBouncerOptions{Backend: pg, Databases: fmt.Sprintf(
		"app = host=%[1]s port=%[2]d dbname=postgres\ngone = host=%[1]s port=%[2]d dbname=gone_2019\nfar = host=pgbaton-far.invalid\n"+
			"down = host=%[1]s port=1\n", pg.Addr, pg.Port)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	m := membertest.New(t, pg, b)
	membertest.NewPatroni(t, m, "running")
	routes := func(what string, want ...string) {
		t.Helper()
		got := onRoutes(t, m)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	here := fmt.Sprintf("%s:%d", pg.Addr, pg.Port)
	password := m.Config.Postgres + " password=" + single.Password
	routes("no password", "route-elsewhere "+pg.Addr+":1", "route-login "+here, "route-unreachable pgbaton-far.invalid:5432")
	m.Config.Postgres = password
	routes("a password", "route-unreachable "+pg.Addr+":1", "route-unreachable pgbaton-far.invalid:5432")
	m.Config.Resume.Route = pg.DSN("postgres", "postgres")
	routes("resume.route")
	m.Config.Resume.Route = "postgres://postgres@" + here + "/postgres?sslmode=disable"
	routes("resume.route without a password", "route-login resume.route")
}

// TestCheckOfAnAgent: what counts is what the agent of a pooler sees, and one that sees nothing is told.
func TestCheckOfAnAgent(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	b, err := single.StartPgBouncer(t.Context(), single.SuiteTrixie, single.PgBouncerOptions{Backend: pg,
		Databases: "app = host=127.99.99.99\n"}) // nothing, seen from here
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	m := membertest.New(t, pg, b)
	membertest.NewPatroni(t, m, "running")
	server, err := m.Server()
	if err != nil {
		t.Fatal(err)
	}
	here, err := member.Identify(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	var looks atomic.Pointer[[]api.RouteLook]
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if looks.Load() == nil {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(api.RouteReport{Addresses: []api.RouteAddress{{Address: "127.99.99.99:5432", Looks: *looks.Load()}}})
	}))
	t.Cleanup(agent.Close)
	m.Config.Poolers[0].Agent = agent.URL
	for _, c := range []struct {
		what, want string
		look       []api.RouteLook
	}{
		{"it does not answer", fmt.Sprintf("agent-unreachable %s:%d", b.Addr, b.Port), nil},
		{"it leads here", "", []api.RouteLook{{SystemID: here.SystemID, PostmasterStart: here.PostmasterStart}}},
		{"it leads to a replica", "route-elsewhere 127.99.99.99:5432", []api.RouteLook{{SystemID: here.SystemID, InRecovery: true}}},
		{"nobody is there", "route-elsewhere 127.99.99.99:5432", []api.RouteLook{{Failed: api.RouteRefused, Error: "refused"}}},
		{"it may not log in", "route-login 127.99.99.99:5432", []api.RouteLook{{Failed: api.RouteLogin, Error: "no entry"}}},
	} {
		looks.Store(&c.look)
		if c.look == nil {
			looks.Store(nil)
		}
		got := onRoutes(t, m)
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

// TestOfAMachineWithoutAMember: serve beside a pooler on a machine of its own misses no server and no hooks, and asks whoever of patroni.urls
// answers.
func TestOfAMachineWithoutAMember(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	b := membertest.StartPooler(t, single.SuiteTrixie, pg)
	m := membertest.New(t, pg, b)
	membertest.NewPatroni(t, m, "running")
	m.Config.Patroni.URLs = []string{"http://127.99.99.99:8008", m.Config.Patroni.URL}
	m.Config.Postgres = "host=/nowhere user=postgres dbname=postgres password=" + single.Password
	m.Config.Patroni.URL = m.Config.Patroni.URLs[0]
	s := Of(t.Context(), m)
	if s.Server.Role != "none" || s.Server.Error != "" || s.Patroni.Error != "" || s.Member != member.Name() || len(s.Problems) > 0 {
		t.Errorf("member %q, server %+v, Patroni %+v, problems %q", s.Member, s.Server, s.Patroni, s.Problems)
	}
	if ready := s.Conditions[0]; ready.Type != api.ConditionReady || ready.Status != "True" {
		t.Errorf("%+v", ready)
	}
	report := Check(t.Context(), m)
	for _, f := range report.Findings {
		if f.ID == "server-unreachable" || f.ID == "patroni-unreachable" || strings.HasPrefix(f.ID, "hooks-") || strings.HasPrefix(f.ID, "route-") {
			t.Errorf("%+v", f)
		}
	}
	m.Config.Patroni.URLs = m.Config.Patroni.URLs[:1]
	if s := Of(t.Context(), m); s.Patroni.Error == "" {
		t.Error("nobody of patroni.urls answers, and nothing is said")
	}
}

// TestCheckEnds: nobody answers, and everybody has taken the connection.
func TestCheckEnds(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open []net.Conn
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for {
			c, err := silent.Accept()
			if err != nil {
				return
			}
			open = append(open, c)
		}
	}()
	defer func() {
		_ = silent.Close()
		<-accepted
		for _, c := range open {
			_ = c.Close()
		}
	}()
	m := membertest.New(t, nil)
	dsn := "postgres://postgres@" + silent.Addr().String() + "/pgbouncer?sslmode=disable"
	m.Config.Postgres, m.Config.Resume.Route, m.Config.Patroni.URL = dsn, dsn, "http://"+silent.Addr().String()
	for range 20 {
		m.Config.Poolers = append(m.Config.Poolers, config.Pooler{DSN: dsn, Databases: config.Databases{Auto: true}})
	}
	began := time.Now()
	report := Check(t.Context(), m)
	if took := time.Since(began); took > checkTimeout+5*time.Second {
		t.Errorf("it took %s", took)
	}
	for _, id := range []string{"patroni-unreachable", "server-unreachable", "pooler-unreachable", "route-elsewhere"} {
		if !slices.ContainsFunc(report.Findings, func(f api.Finding) bool { return f.ID == id }) {
			t.Errorf("no %s in %+v", id, report.Findings)
		}
	}
}

// TestCheckOfAPoolerThatShutsDown: it takes no new connections, so nobody can pause it, and it still has clients.
func TestCheckOfAPoolerThatShutsDown(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	b := membertest.StartPooler(t, single.SuiteTrixie, pg)
	m := membertest.New(t, pg, b)
	membertest.NewPatroni(t, m, "running")
	unreachable := func() bool {
		report := Check(t.Context(), m)
		return slices.ContainsFunc(report.Findings, func(f api.Finding) bool { return f.ID == "pooler-unreachable" }) && !report.OK
	}
	client := membertest.Connect(t, b.DSN("postgres", "postgres"))
	client.Must("select 1")
	if unreachable() {
		t.Error("before it shuts down")
	}
	membertest.Admin(t, b, "SHUTDOWN WAIT_FOR_CLIENTS")
	client.Must("select 1")
	if !unreachable() {
		t.Error("not found")
	}
}

// TestCheckOfMoreRealServers: what cannot go together with the mistakes of TestCheckOfRealServers.
func TestCheckOfMoreRealServers(t *testing.T) {
	t.Parallel()
	single.Need(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	pg, err := single.StartPostgres(ctx, single.SuiteSid, single.PostgresOptions{Settings: map[string]string{
		"archive_mode": "on", "archive_command": "sleep 60", "wal_keep_size": "512MB"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pg.Close)
	standby, err := single.StartStandby(ctx, pg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	start := func(databases string) *single.PgBouncer {
		t.Helper()
		b, err := single.StartPgBouncer(ctx, single.SuiteSid, single.PgBouncerOptions{Settings: map[string]string{"so_reuseport": "1"},
			Databases: fmt.Sprintf(databases, pg.Addr, standby.Addr, pg.Port)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		return b
	}
	const either = "app = host=%[1]s,%[2]s port=%[3]d dbname=postgres\n"
	b, other := start(either+"ro = host=%[2]s port=%[3]d dbname=postgres\n"), start(either)
	membertest.SecondProcess(t, b)
	membertest.Admin(t, other, "DISABLE app")
	m := membertest.New(t, pg)
	m.Config.Poolers = []config.Pooler{{DSN: b.AdminDSN()}, {DSN: other.AdminDSN()}}
	m.Config.Pause.ShutdownBudget = 20 * time.Second
	if err := pg.Exec(ctx, "create role weak login"); err != nil {
		t.Fatal(err)
	}
	m.Config.Postgres = pg.SocketDSN("weak", "postgres")
	membertest.Connect(t, pg.SocketDSN("postgres", "postgres")).Must("select 1") // whose transaction the other user would not see
	p := membertest.NewPatroni(t, m, "running")
	p.Cluster = fmt.Sprintf(`{"scope": "demo", "members": [
 {"name": "node1", "role": "leader", "state": "running", "host": %q, "port": %d, "timeline": 1},
 {"name": "node2", "role": "replica", "state": "streaming", "host": %q, "port": %[2]d, "timeline": 1, "lag": 0, "api_url": %[4]q}]}`,
		pg.Addr, pg.Port, standby.Addr, p.URL+"/patroni")
	check := func() map[string]string {
		got := map[string]string{}
		for _, f := range Check(ctx, m).Findings {
			if !strings.HasPrefix(f.ID, "hooks-") {
				got[f.ID] += f.Subject + " "
			}
		}
		return got
	}
	pooler, disabled := fmt.Sprintf("%s:%d ", b.Addr, b.Port), fmt.Sprintf("%s:%d ", other.Addr, other.Port)
	here, there := fmt.Sprintf("%s:%d ", pg.Addr, pg.Port), fmt.Sprintf("%s:%d ", standby.Addr, standby.Port)
	want := map[string]string{"shutdown-budget": "pause.shutdown_budget ", "several-processes": pooler, "database-disabled": disabled,
		"host-list":           pooler + disabled,
		"one-member-database": pooler, "transactions-not-visible": "node1 ", "route-login": here + there, "member-not-visible": "node2 "}
	found := func() {
		t.Helper()
		diff := ""
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("(-want +got):\n%s", diff)
			}
		})
		membertest.Eventually(t, "the findings are as expected", func() bool {
			diff = cmp.Diff(want, check())
			return diff == ""
		})
	}
	found()

	// A superuser sees more. (Archiving hangs, so every segment waits for it.)
	m.Config.Postgres = pg.SocketDSN("postgres", "postgres") + " password=" + single.Password
	for range archiveLimit + 1 {
		if err := pg.Exec(ctx, "select pg_switch_wal() from (select pg_logical_emit_message(false, 'test', 'x')) x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := standby.Exec(ctx, "select pg_wal_replay_pause()"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := pg.Exec(ctx, "select pg_switch_wal() from (select pg_logical_emit_message(false, 'test', 'x')) x"); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"transactions-not-visible", "route-login", "member-not-visible"} {
		delete(want, id)
	}
	want["archive-backlog"], want["replica-lag"], want["replay-paused"] = "node1 ", "node2 ", "node2 "
	found()
}
