package e2e_test

import (
	"fmt"
	"net/http"
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

// beside gives a case a cluster whose poolers stand on the members, with serve on each and HAProxy in front.
func beside(t *testing.T, suite, back string) (*cluster, map[string]*server) {
	t.Helper()
	c := newCluster(t)
	made := c.makeWith(lab.Options{Suite: suite, Beside: true}.Quick(), func() []string {
		return []string{c.besidePoolers(back), `serve: {listen: "${HOSTNAME}:8009"}`}
	})
	t.Cleanup(func() { c.end(made) })
	servers := c.serveEverywhere()
	c.eventually(10*time.Second, "the leader's pooler is open to clients", func() error { return c.routeIs(c.leader(), http.StatusOK) })
	c.eventually(10*time.Second, "HAProxy leads to the leader's pooler", func() error {
		conn, err := pgconn.Connect(c.ctx, c.Pooler().DSN())
		if err != nil {
			return err
		}
		return conn.Close(c.ctx)
	})
	return c, servers
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
// through it to the new leader, and new ones come to the new leader's. At the second switchover a pooler that forwards is held, too.
func TestFollow(t *testing.T) {
	oneSuite(t, "sid", func(t *testing.T, suite string) {
		c, _ := beside(t, suite, "idle")
		round := func() {
			h := c.switchover()
			c.eventually(10*time.Second, "the old leader's pooler takes no new clients", func() error {
				return firstError(c.routeIs(h.To, http.StatusOK), c.routeIs(h.From, http.StatusNotFound))
			})
		}
		stalls, result := c.handovers(rounds(2, 10), round)
		c.noErrors(result)
		t.Logf("poolers beside the servers: stalls %v", stalls)
		if worst := stalls[len(stalls)-1]; worst > 10*time.Second {
			t.Errorf("stall of %s: nearly the lease", worst)
		}
	})
}
