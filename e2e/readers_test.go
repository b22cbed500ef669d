package e2e_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// readers are clients of one pooler that read all the time, each on a session that must never be cut.
type readers struct {
	c     *cluster
	began time.Time
	stop  chan struct{}
	all   sync.WaitGroup

	mu      sync.Mutex
	answers [][]time.Time
	errors  []string
	at      string // the server that answered last
}

// read starts readers of a pooler and returns when each has been answered.
func (c *cluster) read(p *lab.Pooler, clients int) *readers {
	c.t.Helper()
	r := &readers{c: c, began: time.Now(), stop: make(chan struct{}), answers: make([][]time.Time, clients)}
	dsn := fmt.Sprintf("postgres://postgres:%s@%s:6432/readers?sslmode=disable", c.SuperuserPassword, p.Address)
	for i := range clients {
		conn, err := pgconn.Connect(c.ctx, dsn)
		c.must(err)
		r.all.Go(func() {
			defer func() { _ = conn.Close(c.ctx) }()
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-r.stop:
					return
				case <-tick.C:
				}
				results, err := conn.Exec(c.ctx, "select host(inet_server_addr()), count(*) from pg_class").ReadAll()
				r.mu.Lock()
				if err != nil {
					r.errors = append(r.errors, err.Error())
					r.mu.Unlock()
					return // a session that was cut stays so
				}
				r.answers[i] = append(r.answers[i], time.Now())
				r.at = string(results[0].Rows[0][0])
				r.mu.Unlock()
			}
		})
	}
	r.flowing(5)
	return r
}

// flowing waits until each has been answered so many times more.
func (r *readers) flowing(n int) {
	r.c.t.Helper()
	r.mu.Lock()
	target := make([]int, len(r.answers))
	for i, a := range r.answers {
		target[i] = len(a) + n
	}
	r.mu.Unlock()
	r.c.eventually(60*time.Second, "readers are answered", func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		for i, a := range r.answers {
			if len(a) < target[i] && len(r.errors) == 0 {
				return fmt.Errorf("reader %d waits", i)
			}
		}
		return nil
	})
}

// server is where they were answered last; "" is the member's own, over its socket.
func (r *readers) server() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at
}

// since is the longest that one of them has waited since a moment.
func (r *readers) since(from time.Time) (longest time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, answers := range r.answers {
		last := from
		for _, at := range answers {
			if at.After(from) {
				longest = max(longest, at.Sub(last))
				last = at
			}
		}
	}
	return longest
}

// end stops them and fails the test where one saw an error.
func (r *readers) end() {
	r.c.t.Helper()
	close(r.stop)
	r.all.Wait()
	if len(r.errors) > 0 {
		r.c.t.Errorf("readers saw %d errors: %v", len(r.errors), r.errors)
	}
}

// TestReaders: a replica is restarted under those who read on the pooler beside it; then its service is stopped, and they are taken to
// another replica until it is there again. Their sessions live through all of it.
func TestReaders(t *testing.T) {
	oneSuite(t, "sid", func(t *testing.T, suite string) {
		c := newCluster(t)
		made := c.makeWith(lab.Options{Suite: suite, Beside: true, Front: documentedFront}.Quick(), func() []string {
			poolers := strings.Replace(c.besidePoolers("idle"), "      back: idle", "      back: idle\n      readers: [readers]", 1)
			return []string{poolers, `serve: {listen: "${HOSTNAME}:8009"}`}
		})
		t.Cleanup(func() { c.end(made) })
		c.serveEverywhere()
		leader := c.leader()
		var replica *lab.Member
		var pooler *lab.Pooler
		for i, m := range c.Members() {
			if m != leader {
				replica, pooler = m, c.Poolers()[i]
			}
		}
		r := c.read(pooler, 4)
		for range rounds(3, 10) {
			began := time.Now()
			c.must(replica.RestartPostgres(c.ctx))
			r.flowing(10)
			stall, alone := r.since(began), c.restarts(replica, began)
			c.logIn()
			t.Logf("restart of a replica: its readers waited %s, PostgreSQL alone took %v", stall, alone)
			if len(alone) != 1 {
				t.Fatalf("PostgreSQL's log has %d restarts", len(alone))
			}
			// Where Patroni and PostgreSQL alone took longer, the machine was busy.
			if limit := max(c.limit(time.Second), 2*alone[0]); stall > limit {
				t.Errorf("a stall of %s, at most %s is claimed", stall, limit)
			}
			c.asBefore()
			c.healthy()
		}

		c.must(replica.Term(c.ctx))
		r.flowing(10)
		at := r.server()
		c.asBefore()
		for _, m := range c.Members() {
			if m.Address == at && (m == replica || m == leader) || at == "" {
				t.Errorf("the readers of %s, which is stopped, are at %q (leader %s)", replica, at, leader)
			}
		}
		c.must(replica.Start())
		c.healthy()
		c.serve(replica)
		c.eventually(20*time.Second, "the readers are at their own replica again", func() error {
			if at := r.server(); at != "" {
				return fmt.Errorf("they are at %s", at)
			}
			return nil
		})
		r.end()
		c.asBefore()
	})
}
