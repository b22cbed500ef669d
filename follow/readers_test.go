package follow_test

import (
	"strings"
	"testing"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/follow"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

// readers moves the entries for reading of the node's pooler.
func (n *node) readers(t *testing.T) *follow.Mover {
	t.Helper()
	return n.moverBy(t, follow.NewReaders)
}

// The entries for reading were led to another replica: they stay there while this member's server is down, and go back when it is there.
// The entries for writing are not touched by either.
func TestWatchReadersBack(t *testing.T) {
	t.Parallel()
	p := newPair(t, config.BackNever, 0, func(f *config.Follow) { f.Readers = []string{"postgres_ro"} })
	p.routeBecomes(t, follow.RouteOpen)
	before := p.text(t)
	p.pg.Stop()
	elsewhere := pgbini.Address{Host: p.other.Addr, Port: p.other.Port}
	if moved, err := p.readers(t).Move(t.Context(), elsewhere); err != nil || !moved {
		t.Fatal(moved, err)
	}
	at := connect(t, p.pooler.DSN("postgres", "postgres_ro"))
	p.looked(t, 15, func() {
		if strings.Contains(p.text(t), "postgres_ro = host="+p.pg.Addr) {
			t.Fatal("led to a server that is down")
		}
	})
	if s := server(t, at); !strings.HasPrefix(s, p.other.Addr) {
		t.Errorf("a reader is at %s", s)
	}
	if err := p.pg.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	membertest.Eventually(t, "the entries are as they were", func() bool { return p.text(t) == before })
	membertest.Eventually(t, "the reader is there, too", func() bool { return strings.HasPrefix(server(t, at), p.pg.Addr) })
}

// A pooler on a machine without a member: a guard elsewhere has paused it, another member is promoted, and it is moved and resumed. A load
// balancer is never told that it is not the leader's.
func TestWatchApart(t *testing.T) {
	t.Parallel()
	p := newPair(t, config.BackNever, 0, func(f *config.Follow) { f.LocalHost, f.LocalPort = "", 0 }, func(c *config.Config) {
		c.Patroni.URLs = []string{"http://127.0.0.1:1", c.Patroni.URL} // one of them is down
		c.Patroni.URL = "http://127.0.0.1:1"
		// There is no server; who logs in elsewhere is known.
		c.Postgres = "host=" + c.StateDir + " user=postgres dbname=postgres sslmode=disable password=" + single.Password
	})
	p.routeBecomes(t, follow.RouteOpen)
	at := connect(t, p.pooler.DSN("postgres", "postgres"))
	if s := server(t, at); !strings.HasPrefix(s, p.pg.Addr) {
		t.Fatalf("it leads to %s", s)
	}
	p.looked(t, 10, func() {}) // it has seen who leads
	membertest.Abandoned(t, p.Member, pgb.Guard)
	p.looked(t, 5, func() {})
	if !membertest.StateOf(t, p.pooler).Paused {
		t.Fatal("resumed while the old leader still leads")
	}
	p.pg.Stop()
	p.promote(t)
	if s := server(t, at); !strings.HasPrefix(s, p.other.Addr) {
		t.Errorf("a client that has waited is at %s", s)
	}
	membertest.Eventually(t, "nothing is left of the pause", func() bool {
		s := membertest.StateOf(t, p.pooler)
		return !s.Paused && s.Mark == nil
	})
	if strings.Contains(p.text(t), "postgres = host="+p.pg.Addr) || !strings.Contains(p.text(t), "postgres_ro = host="+p.pg.Addr) {
		t.Errorf("the file says\n%s", p.text(t))
	}
	if r := p.watcher.Route(); r != follow.RouteOpen {
		t.Errorf("a load balancer is told: %s", r)
	}
}
