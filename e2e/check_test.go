package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/e2e/lab"
)

// TestCheck: nothing is found in the README's own set-up, on any member; each mistake that is made then is found, and nothing else.
func TestCheck(t *testing.T) {
	togetherOn(t, "sid", func(t *testing.T, suite string) {
		c := startQuiet(t, lab.Options{Suite: suite}.Quick())
		c.used()
		leader := c.leader()
		replicas, err := c.Replicas(c.ctx)
		c.must(err)
		on := func(what string, m *lab.Member, want string, flags ...string) {
			t.Helper()
			var got string
			c.eventually(time.Minute, what, func() error {
				if got = c.check(m, flags...); got != want {
					return fmt.Errorf("found %q, want %q", got, want)
				}
				return nil
			})
		}
		dynamic := func(changes map[string]any) {
			t.Helper()
			if status, answer, err := leader.REST(c.ctx, http.MethodPatch, "/config", changes); err != nil || status != http.StatusOK {
				t.Fatalf("PATCH /config %v: %d %s %v", changes, status, answer, err)
			}
		}
		maxConnections := func(n int) {
			t.Helper()
			dynamic(map[string]any{"postgresql": map[string]any{"parameters": map[string]any{"max_connections": n}}})
		}

		for _, m := range c.Members() {
			on("nothing in the README's own set-up", m, "")
		}
		c.use(noHooks)
		on("no hooks", leader, "hooks-missing hooks-incomplete")
		c.use(runbookWay)
		on("the runbook's scripts", replicas[0], "hooks-other-program hooks-other-program")
		c.use(way{"gone", "/callbacks/gone", pgbatonWay.callback})
		on("a program that is not there", replicas[0], "hooks-program")
		c.use(pgbatonWay)
		c.must(leader.WriteConfig(func(config map[string]any) {
			postgresql := config["postgresql"].(map[string]any)
			postgresql["callbacks"].(map[string]any)["before_stop"] = postgresql["before_stop"]
			delete(postgresql, "before_stop")
		}, ""))
		c.must(leader.Reload(c.ctx))
		on("before_stop under callbacks", leader, "hooks-misplaced")
		c.use(pgbatonWay)

		dynamic(map[string]any{"retry_timeout": 12})
		on("times that Patroni does not keep", leader, "patroni-times")
		dynamic(map[string]any{"retry_timeout": 3})

		dynamic(map[string]any{"pause": true})
		on("maintenance mode", leader, "maintenance-mode")
		// Out of it Patroni resumes replay in its next loop (handle_parameter_change in ha.py, with PostgreSQL 14 and later).
		c.sql(replicas[0], "select pg_wal_replay_pause()")
		on("paused replay, seen from the leader", leader, "maintenance-mode replay-paused")
		dynamic(map[string]any{"pause": nil})
		on("no longer", leader, "")

		c.must(c.Pooler().Reload(c.ctx, "* = host="+leader.Address+" port=5432", nil))
		c.used()
		on("a pooler that leads to the leader's address", leader, "one-member")
		c.must(c.Pooler().Reload(c.ctx, "* = host="+replicas[0].Address+" port=5432", nil))
		c.used()
		on("a pooler that leads to a replica", replicas[1], "one-member route-elsewhere")
		c.must(c.Pooler().Reload(c.ctx, c.Options().PgBouncerDatabases, map[string]string{"pool_mode": "session",
			"query_wait_timeout": "20"}))
		c.used()
		on("settings of the pooler", leader, "pool-mode query-wait-timeout")
		c.must(c.Pooler().Reload(c.ctx, c.Options().PgBouncerDatabases, nil))
		c.used()
		on("put back", leader, "")

		maxConnections(310)
		on("all members wait for a restart", leader, "pending-restart pending-restart pending-restart")
		maxConnections(300)
		on("taken back", leader, "")

		// A loopback address, so that the token goes over http.
		c.must(c.write("tokens-in-place-of-passwords", tokenFile))
		c.must(c.write("token-in-place-of-a-password", viewerToken+"\n"))
		c.must(c.configure(`serve: {listen: "${HOSTNAME}:8009", tokens_file: tokens-in-place-of-passwords}`,
			`members: {url: "http://{host}:8009", token_file: token-in-place-of-a-password}`))
		c.serve(replicas[0])
		c.must(replicas[0].WriteConfig(func(config map[string]any) {
			postgresql := config["postgresql"].(map[string]any)
			delete(postgresql["callbacks"].(map[string]any), "on_start")
		}, ""))
		on("all members: one has a mistake, and one does not serve", leader, "hooks-incomplete from "+replicas[0].Name+
			" member-not-checked from "+leader.Name, "--all")
	})
}

// TestCheckOfAnotherSetUp: nothing is found either behind HAProxy, with synchronous replication and three poolers behind one name, of
// which one has been used.
func TestCheckOfAnotherSetUp(t *testing.T) {
	togetherOn(t, "trixie", func(t *testing.T, suite string) {
		c := startQuiet(t, lab.Options{Suite: suite, Route: lab.RouteHAProxy, SynchronousMode: true, Poolers: 3}.Quick())
		c.used()
		for _, m := range c.Members() {
			c.eventually(20*time.Second, "nothing is found on "+m.Name, func() error {
				if got := c.check(m); got != "" {
					return fmt.Errorf("found %s", got)
				}
				return nil
			})
		}
		c.initialises(c.leader())
	})
}

// initialises has pgbaton init write a configuration on a member from what is there: Patroni's own file and a name of the poolers. With
// that nothing is found either.
func (c *cluster) initialises(m *lab.Member) {
	c.t.Helper()
	const path = "/tmp/pgbaton-of-init.yaml"
	again := func() lab.ExecResult {
		r, err := m.Exec(c.ctx, []string{"PGBATON_POOLER_PASSWORD=" + c.AdminPassword}, "/callbacks/pgbaton", "init", "--config", path,
			"--pooler", "postgres://pgbouncer_admin@pgbouncers:6432/pgbouncer", "--check")
		c.must(err)
		if strings.Contains(r.Stdout+r.Stderr, c.AdminPassword) || strings.Contains(r.Stdout+r.Stderr, c.SuperuserPassword) {
			c.t.Error("a password is in what init says")
		}
		return r
	}
	r := again()
	for _, want := range []string{"member " + m.Name, "Written: " + path, "Patroni's configuration has the hooks.",
		"nothing that would spoil a handover was found"} {
		if !strings.Contains(r.Stdout, want) {
			c.t.Errorf("init does not say %q", want)
		}
	}
	if n := strings.Count(r.Stdout, "PgBouncer 1."); r.ExitCode != 0 || n != 3 {
		c.t.Errorf("exit code %d, %d poolers have answered:\n%s%s", r.ExitCode, n, r.Stdout, r.Stderr)
	}
	if r := again(); r.ExitCode != 4 || !strings.Contains(r.Stderr, "was left as it is") {
		c.t.Errorf("exit code %d where there is a file: %s", r.ExitCode, r.Stderr)
	}
	text, err := m.Exec(c.ctx, nil, "cat", path)
	c.must(err)
	if strings.Contains(text.Stdout, c.AdminPassword) || strings.Contains(text.Stdout, c.SuperuserPassword) {
		c.t.Error("a password is in the file")
	}
	c.t.Log(text.Stdout)
}

// check runs pgbaton check and returns the ids of what it has found.
func (c *cluster) check(m *lab.Member, flags ...string) string {
	c.t.Helper()
	r := c.run(m, append([]string{"check", "--output", "json"}, flags...)...)
	var report api.CheckReport
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil {
		c.t.Fatalf("%s: exit code %d: %s%s", m, r.ExitCode, r.Stdout, r.Stderr)
	}
	want := map[bool]int{true: 0, false: 4}[report.OK]
	if r.ExitCode != want || report.Member != m.Name {
		c.t.Errorf("exit code %d, want %d: %+v", r.ExitCode, want, report)
	}
	var ids []string
	for _, f := range report.Findings {
		if ids = append(ids, f.ID); len(f.SeenFrom) > 0 {
			ids = append(ids, "from", strings.Join(f.SeenFrom, ","))
		}
		c.t.Logf("%s: %s: %s", m, f.ID, f.Found)
		if strings.Contains(f.Found+f.Change, c.SuperuserPassword) || strings.Contains(f.Found+f.Change, c.AdminPassword) {
			c.t.Errorf("a password: %+v", f)
		}
	}
	return strings.Join(ids, " ")
}

// used has a client use the pooler, which then lists its databases.
func (c *cluster) used() {
	c.t.Helper()
	conn, err := pgconn.Connect(c.ctx, c.Pooler().DSN())
	c.must(err)
	_, err = conn.Exec(c.ctx, "select 1").ReadAll()
	c.must(err)
	c.must(conn.Close(c.ctx))
}

func (c *cluster) sql(m *lab.Member, sql string) {
	c.t.Helper()
	conn, err := pgconn.Connect(c.ctx, m.DSN())
	c.must(err)
	_, err = conn.Exec(c.ctx, sql).ReadAll()
	c.must(err)
	c.must(conn.Close(c.ctx))
}
