package e2e_test

import (
	"context"
	"fmt"
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
			c.must(p.WriteDatabases("; by hand\npostgres = host=" + c.leader().Address + " port=5432 ; and this stays\n"))
			_, _, err := p.Admin(c.ctx, "RELOAD")
			c.must(err)
			c.serveAt(p, "/callbacks/apart.yaml")
		}
		followed, result := c.handovers(rounds(3, 10), func() {
			h := c.switchover()
			for _, p := range c.Poolers() {
				c.eventually(10*time.Second, "the pooler's file names the new leader", func() error {
					text, err := os.ReadFile(p.DatabasesPath())
					if want := "; by hand\npostgres = host=" + h.To.Address + " port=5432 ; and this stays\n"; err == nil && string(text) != want {
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
