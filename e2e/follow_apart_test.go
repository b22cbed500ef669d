package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// serveAt runs serve on a pooler's own machine, where there is no member, and returns when it answers.
func (c *cluster) serveAt(p *lab.Pooler, config string) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = p.Exec(ctx, "sh", "-c", `exec "$@" >>/var/log/lab/serve.log 2>&1`, "sh", "/callbacks/pgbaton", "serve",
			"--config", config, "--listen", p.Address+":8009", "--log-level", "debug")
	}()
	c.t.Cleanup(func() {
		cancel()
		<-ended
	})
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	c.eventually(30*time.Second, p.Name+": serve beside the pooler answers", func() error {
		answer, err := client.Get("http://" + p.Address + ":8009/readyz")
		select {
		case <-ended:
			log, _ := os.ReadFile(filepath.Join(filepath.Dir(p.LogFile()), "serve.log"))
			c.t.Fatalf("serve has ended:\n%s", log)
		default:
		}
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz: %s", answer.Status)
		}
		return nil
	})
}

// membersURLs are the REST APIs of all members.
func (c *cluster) membersURLs() string {
	var urls []string
	for _, m := range c.Members() {
		urls = append(urls, m.URL())
	}
	return "[" + strings.Join(urls, ", ") + "]"
}

// apartYAML is the configuration of a machine that has a pooler and no member.
func (c *cluster) apartYAML(more string) string {
	return "patroni: {urls: " + c.membersURLs() + "}\n" +
		"postgres: user=postgres dbname=postgres passfile=pgpass sslmode=disable\n" +
		"poolers:\n" +
		"  - dsn: host=/run/pgbouncer port=6432 user=pgbouncer_admin dbname=pgbouncer\n" +
		"    password_file: pgbouncer-admin-password\n" + more
}

// elsewhere is the section of poolers that stand on machines of their own, for the members.
func (c *cluster) elsewhere(more ...string) string {
	var hosts []string
	for _, p := range c.Poolers() {
		hosts = append(hosts, p.Address)
	}
	entry := append([]string{"dsn: host=" + strings.Join(hosts, ",") + " port=6432 user=pgbouncer_admin dbname=pgbouncer",
		"password_file: pgbouncer-admin-password"}, more...)
	return "poolers:\n  - " + strings.Join(entry, "\n    ")
}

// TestFollowApart: poolers on machines of their own, whose entries name the leader: no route moves them, serve beside each does. First the
// same cluster with a Service as the route, for comparison.
func TestFollowApart(t *testing.T) {
	oneSuite(t, "sid", func(t *testing.T, suite string) {
		c := newCluster(t)
		made := c.makeWith(lab.Options{Suite: suite, Apart: true, Poolers: 2}.Quick(), func() []string { return []string{c.elsewhere()} })
		t.Cleanup(func() { c.end(made) })
		routed, result := c.handovers(rounds(3, 10), func() { c.switchover() })
		c.noErrors(result)

		c.must(c.configure(c.elsewhere("follow: {elsewhere: true}")))
		c.must(c.write("apart.yaml", c.apartYAML("    follow: {file: "+lab.DatabasesFile+", databases: [postgres]}\n")))
		for _, p := range c.Poolers() {
			c.must(p.WriteDatabases("; by hand\npostgres = host=" + c.leader().Address + " port=5432 pool_size=50\n; and this stays\n"))
			_, _, err := p.Admin(c.ctx, "RELOAD")
			c.must(err)
			c.serveAt(p, "/callbacks/apart.yaml")
		}
		// There is no member on that machine, and nothing is wrong with that.
		for _, command := range []string{"status", "check"} {
			r, err := c.Pooler().Exec(c.ctx, "/callbacks/pgbaton", command, "--config", "/callbacks/apart.yaml")
			c.must(err)
			if r.ExitCode != 0 || strings.Contains(r.Stdout, "server-unreachable") || strings.Contains(r.Stdout, "hooks-") {
				c.t.Errorf("%s on the pooler's machine: exit code %d\n%s%s", command, r.ExitCode, r.Stdout, r.Stderr)
			}
		}
		followed, result := c.handovers(rounds(3, 10), func() {
			h := c.switchover()
			for _, p := range c.Poolers() {
				c.eventually(10*time.Second, "the pooler's file names the new leader", func() error {
					text, err := os.ReadFile(p.DatabasesPath())
					if want := "; by hand\npostgres = host=" + h.To.Address + " port=5432 pool_size=50\n; and this stays\n"; err == nil &&
						string(text) != want {
						return fmt.Errorf("it says %q", text)
					}
					return err
				})
			}
		})
		c.noErrors(result)
		c.atMost(1.6, 3, "poolers apart that follow by file", followed, "a Service as the route", routed)
		if !*full {
			return
		}
		// Nobody has planned it: the leader's machine is lost.
		l, lost := c.load(), c.leader()
		lost.Kill()
		_, err := c.WaitLeader(c.ctx, lost)
		c.must(err)
		l.flowing(20)
		l.end()
		c.must(lost.Start())
	})
}

// localProxy is an HAProxy on a pooler's own machine, which the pooler calls 127.0.0.1, and which learns from its checks who leads. It
// returns its port, and a connection string for who is on that machine.
func (c *cluster) localProxy(p *lab.Pooler, check string) (port, dsn string) {
	c.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	c.must(err)
	_, port, err = net.SplitHostPort(l.Addr().String())
	c.must(errors.Join(err, l.Close()))
	config := []string{
		"defaults",
		"  mode tcp",
		"  timeout connect 4s",
		"  timeout client 30m",
		"  timeout server 30m",
		"  timeout check 5s",
		"listen primary",
		"  bind 127.0.0.1:" + port,
		"  option httpchk GET /primary",
		"  http-check expect status 200",
		"  default-server " + check,
	}
	for _, m := range c.Members() {
		config = append(config, fmt.Sprintf("  server %s %s:5432 check port 8008", m.Name, m.Address))
	}
	c.must(c.write("haproxy.cfg", strings.Join(config, "\n")+"\n"))
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = p.Exec(ctx, "haproxy", "-db", "-f", "/callbacks/haproxy.cfg")
	}()
	c.t.Cleanup(func() {
		cancel()
		<-ended
	})
	return port, fmt.Sprintf("postgres://postgres:%s@127.0.0.1:%s/postgres?sslmode=disable", c.SuperuserPassword, port)
}

// TestAgent: the pooler leads to 127.0.0.1, an HAProxy on its own machine. The worker of the new primary asks the serve beside it when that
// leads here, and clients wait as long as that takes.
func TestAgent(t *testing.T) {
	oneSuite(t, "sid", func(t *testing.T, suite string) {
		c := newCluster(t)
		made := c.makeWith(lab.Options{Suite: suite, Apart: true}.Quick(), func() []string {
			return []string{poolersYAML(c.Pooler().Address, 6432, "pgbouncer-admin-password", "agent: http://"+c.Pooler().Address+":8009"),
				"members: {token_file: agent-token}"}
		})
		t.Cleanup(func() { c.end(made) })
		const token = "only-for-the-worker"
		c.must(errors.Join(c.WriteSecret(filepath.Join(c.dir, "agent-token"), token+"\n"),
			c.WriteSecret(filepath.Join(c.dir, "agent-tokens"), "worker read "+token+"\n"),
			c.write("agent.yaml", c.apartYAML("")+"serve: {tokens_file: agent-tokens}\n")))
		port, dsn := c.localProxy(c.Pooler(), "inter 3s fall 3 rise 2 on-marked-down shutdown-sessions")
		c.must(c.Pooler().WriteDatabases("postgres = host=127.0.0.1 port=" + port + "\n"))
		_, _, err := c.Pooler().Admin(c.ctx, "RELOAD")
		c.must(err)
		c.serveAt(c.Pooler(), "/callbacks/agent.yaml")
		fresh := lab.WatchRoute(c.ctx, dsn)
		c.leads(fresh, time.Minute, 4*time.Second)
		fresh.Stop()
		l := c.load()
		type move struct{ from, arrived, to time.Time }
		var moves []move
		for range rounds(2, 10) {
			route := lab.WatchRoute(c.ctx, dsn)
			c.leads(route, 20*time.Second, 0)
			from := time.Now()
			h := c.switchover()
			l.flowing(20)
			c.logIn()
			leads, arrived := route.Stop()
			if leads != h.To.Address {
				t.Fatalf("the route leads to %q, and %s is the primary", leads, h.To)
			}
			moves = append(moves, move{from, arrived, time.Now()})
			log, err := os.ReadFile(h.To.OutputFile())
			c.must(err)
			if !strings.Contains(string(log), "127.0.0.1:"+port+" (as ") {
				t.Errorf("%s: its worker has not asked the agent:\n%s", h.To, log)
			}
			c.asBefore()
			c.healthy()
		}
		result := l.stop()
		c.noErrors(result)
		for _, m := range moves {
			stall := result.StallBetween(m.from, m.to)
			late := stall.To.Sub(m.arrived)
			t.Logf("stall %.2f s; the route led to the new primary after %.2f s, clients went on %.2f s later", stall.Length().Seconds(),
				m.arrived.Sub(stall.From).Seconds(), late.Seconds())
			if limit := max(time.Second, 12*c.login()); late > limit {
				t.Errorf("clients waited %s longer than the route took, at most %s is claimed", late, limit)
			}
		}
	})
}
