package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// besidePoolers is the configuration of poolers on the database nodes, the same on all members.
func (c *cluster) besidePoolers(back string) string {
	var hosts []string
	for _, p := range c.Poolers() {
		hosts = append(hosts, p.Address)
	}
	return strings.Join([]string{
		"poolers:",
		"  - dsn: host=/run/pgbouncer port=6432 user=pgbouncer_admin dbname=pgbouncer",
		"    password_file: pgbouncer-admin-password",
		"    follow:",
		"      file: " + lab.DatabasesFile,
		"      databases: [postgres]",
		"      local: host=/run/postgresql",
		"      back: " + back,
		"  - dsn: host=" + strings.Join(hosts, ",") + " port=6432 user=pgbouncer_admin dbname=pgbouncer",
		"    password_file: pgbouncer-admin-password",
		"    follow: {elsewhere: true}",
	}, "\n")
}

// documentedFront is the HAProxy of docs/follow.md at the lab's addresses. There serve has no TLS.
func documentedFront(l *lab.Lab) string {
	page, err := os.ReadFile(filepath.Join("..", "docs", "follow.md"))
	if err != nil {
		panic(err)
	}
	return frontOf(l, string(page), 6432)
}

// frontOf is the HAProxy of a page: its block of configuration with the lab's addresses in the place of the page's. The port is that of the
// leader's clients; readers have the next one.
func frontOf(l *lab.Lab, page string, port int) string {
	block := regexp.MustCompile("(?ms)^```\n(listen .*?)^```$").FindStringSubmatch(page)
	if block == nil {
		panic("the page has no HAProxy")
	}
	text := strings.ReplaceAll(block[1], " check-ssl verify none", "") // serve has no TLS in a lab
	for _, bind := range regexp.MustCompile(`(?m)^ +bind .*$`).FindAllString(text, -1) {
		text = strings.Replace(text, bind, fmt.Sprintf("  bind  %s:%d", l.Front(), port), 1)
		port++
	}
	for i, p := range l.Poolers() {
		text = strings.ReplaceAll(text, fmt.Sprintf("10.0.0.1%d:6432 check port", i+1),
			fmt.Sprintf("%s:6432 check addr %s port", p.Address, l.Members()[i].Address))
	}
	return text
}

// beside gives a case a cluster whose poolers stand on the members, with serve on each and HAProxy in front.
func beside(t *testing.T, suite, back string) (*cluster, map[string]*server) {
	t.Helper()
	c := newCluster(t)
	made := c.makeWith(lab.Options{Suite: suite, Beside: true, Front: documentedFront}.Quick(), func() []string {
		return []string{c.besidePoolers(back), serveSection}
	})
	t.Cleanup(func() { c.end(made) })
	c.must(c.write("tokens", tokenFile))
	servers := c.serveEverywhere()
	c.ready()
	return c, servers
}

// ready waits until clients that come through HAProxy reach the leader.
func (c *cluster) ready() {
	c.t.Helper()
	c.eventually(20*time.Second, "the leader's pooler is open to clients", func() error { return c.routeIs(c.leader(), http.StatusOK) })
	c.eventually(20*time.Second, "HAProxy leads to the leader's pooler", func() error {
		conn, err := pgconn.Connect(c.ctx, c.Pooler().DSN())
		if err != nil {
			return err
		}
		return conn.Close(c.ctx)
	})
}

// routeIs asks a member's serve what a load balancer is told.
func (c *cluster) routeIs(m *lab.Member, want int) error {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + m.Address + ":8009/route/primary")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != want {
		return fmt.Errorf("%s: /route/primary is %s", m.Name, answer.Status)
	}
	return nil
}

// TestFollow: a pooler on each database node that leads to the local socket, HAProxy in front. Clients of the old node's pooler go on
// through it to the new leader, and new ones come to the new leader's; at the second switchover a pooler that forwards is held, too. All on
// one cluster, one after the other, and in medians of the stall with one pooler that stands apart.
func TestFollow(t *testing.T) {
	oneSuite(t, "sid", func(t *testing.T, suite string) {
		var apart, stopped, restarted []time.Duration
		t.Run("one pooler apart", func(t *testing.T) {
			c := start(t, lab.Options{Suite: suite}.Quick())
			var result seen
			apart, result = c.handovers(rounds(3, 5), func() { c.switchover() })
			c.noErrors(result)
			if *full {
				stopped, result = c.handovers(3, func() {
					old := c.leader()
					c.must(old.Term(c.ctx))
					_, err := c.WaitLeader(c.ctx, old)
					c.must(err)
					c.must(old.Start())
				})
				c.noErrors(result)
				restarted, result = c.handovers(3, func() { c.must(c.leader().RestartPostgres(c.ctx)) })
				c.noErrors(result)
			}
		})
		if t.Failed() {
			return
		}
		c, servers := beside(t, suite, "idle")
		planned := func(n int, do func()) []time.Duration {
			t.Helper()
			stalls, result := c.timed(n, do)
			c.noErrors(result)
			return stalls
		}
		stalls := planned(rounds(3, 10), func() { c.switchover() })
		// Three serves and as many poolers look after themselves on the two cores that the handover has: each of its log-ins takes longer.
		most := max(1.6, 1+3*c.login().Seconds()/median(apart).Seconds())
		c.atMost(most, 1.5*most, "switchover", stalls, "one pooler apart", apart)

		watch := c.WatchWritable(50 * time.Millisecond)
		if *full {
			// Compared with the same, as a start of PostgreSQL may take longer than a handover, whatever the poolers do.
			leader, began := c.leader(), time.Now()
			stalls = planned(3, func() { c.must(leader.RestartPostgres(c.ctx)) })
			t.Logf("restart of the primary: of its stalls %v PostgreSQL alone took %v", stalls, c.restarts(leader, began))
			c.atMost(most, 1.5*most, "restart of the primary", stalls, "the same with one pooler apart", restarted)
			c.atMost(most, 1.5*most, "rolling restart", planned(3, func() {
				c.maintainNow(c.leader(), "restart", "--rolling").ok(c)
			}), "one pooler apart", apart)

			// Patroni's own way takes longer there than in a switchover, with one pooler apart, too.
			c.atMost(most, 1.5*most, "SIGTERM to Patroni", planned(3, func() {
				old := c.leader()
				c.must(old.StopPatroni(c.ctx))
				_, err := c.WaitLeader(c.ctx, old)
				c.must(err)
				c.must(old.StartPatroni())
			}), "the same with one pooler apart", stopped)
		}
		for range rounds(1, 3) {
			c.killedServer()
		}
		c.goesBack(servers)
		if report := watch.Stop(); report.Overlap > 0 {
			t.Errorf("two writable primaries: %s", report)
		}
	})
}

// killedServer: PostgreSQL and Patroni of the primary are killed, its pooler lives. Its clients, too, reach the new leader.
func (c *cluster) killedServer() {
	c.t.Helper()
	l := c.load()
	old := c.leader()
	began := time.Now()
	c.must(old.KillServer(c.ctx))
	_, err := c.WaitLeader(c.ctx, old)
	c.must(err)
	promoted := time.Now()
	l.flowing(20)
	direct, err := pgconn.Connect(c.ctx, c.poolerOf(old).OwnDSN())
	c.must(err)
	defer func() { _ = direct.Close(c.ctx) }()
	if _, err := direct.Exec(c.ctx, "create temp table t (i int)").ReadAll(); err != nil {
		c.t.Errorf("a client of the old leader's pooler: %v", err)
	}
	result := l.end()
	slack := 2*time.Second + 3*c.login() // two seconds on a machine where a log-in takes nothing
	late := 0
	for _, e := range append(result.Errors, result.comers.Errors...) {
		if e.At.After(promoted.Add(slack)) {
			late++
		}
	}
	stall := result.StallBetween(began, time.Now())
	c.t.Logf("kill -9 of the primary's servers: a new leader after %s, stall %v; %d errors %v; of those that came anew %d %v",
		promoted.Sub(began).Round(time.Millisecond), stall, len(result.Errors), result.ErrorTexts(), len(result.comers.Errors),
		result.comers.ErrorTexts())
	if late > 0 {
		c.t.Errorf("%d errors later than %s after there was a new leader", late, slack)
	}
	if limit := promoted.Sub(began) + slack; stall.Length() > limit {
		c.t.Errorf("stall %v: the failover took %s, and %s are for the pooler", stall, promoted.Sub(began), slack)
	}
	c.must(old.StartPatroni())
	c.healthy()
	c.asBefore()
}

// goesBack: a pooler that forwards is local again when those that were there have left, and one that is never to is not.
func (c *cluster) goesBack(servers map[string]*server) {
	c.t.Helper()
	never, idle := c.leader(), c.others(c.leader())[0]
	config, err := os.ReadFile(filepath.Join(c.dir, "pgbaton.yaml"))
	c.must(err)
	c.must(c.write("never.yaml", strings.Replace(string(config), "back: idle", "back: never", 1)))
	l := c.load()
	// serve may be started anew at any time.
	servers[never.Name].kill()
	servers[never.Name] = c.serve(never, "--config", "/callbacks/never.yaml")
	c.eventually(10*time.Second, "the leader's pooler is open to clients", func() error { return c.routeIs(never, http.StatusOK) })
	for _, to := range []*lab.Member{idle, c.others(never)[1]} {
		_, err := c.Switchover(c.ctx, to.Name)
		c.must(err)
		l.flowing(20)
		c.healthy()
	}
	c.noErrors(l.stop())
	local := func(m *lab.Member) bool {
		text, err := os.ReadFile(c.poolerOf(m).DatabasesPath())
		c.must(err)
		return strings.Contains(string(text), "\npostgres = host=/run/postgresql dbname=postgres\n")
	}
	for _, m := range []*lab.Member{never, idle} {
		if local(m) {
			c.t.Errorf("%s: the pooler led back to its own server before its clients left", m)
		}
	}
	left := time.Now()
	c.eventually(time.Minute, "the entries are local again", func() error {
		if !local(idle) {
			return errNotYet
		}
		return c.routeIs(idle, http.StatusServiceUnavailable)
	})
	c.t.Logf("local again %s after the last client had left", time.Since(left).Round(100*time.Millisecond))
	if local(never) {
		c.t.Errorf("%s: the pooler leads back to its own server, and was never to", never)
	}
	c.must(c.routeIs(never, http.StatusNotFound))
}

// poolerOf is the pooler that stands on a member.
func (c *cluster) poolerOf(m *lab.Member) *lab.Pooler {
	return c.Poolers()[slices.Index(c.Members(), m)]
}
