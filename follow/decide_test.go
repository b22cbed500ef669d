package follow

import (
	"log/slog"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

func TestDecide(t *testing.T) {
	local := pgbini.Address{Host: "/run/postgresql", Port: 5432}
	m2, m3 := pgbini.Address{Host: "10.0.0.2", Port: 5432}, pgbini.Address{Host: "10.0.0.3", Port: 5432}
	here, there := &Leader{Here: true, Address: pgbini.Address{Host: "10.0.0.1", Port: 5432}}, &Leader{Address: m2}
	for _, c := range []struct {
		name  string
		view  view
		to    pgbini.Address // where it leads then
		move  bool
		route Route // before that
	}{
		{"this member leads", view{to: local, one: true, leader: here, led: true}, local, false, RouteOpen},
		{"a replica", view{to: local, one: true, leader: there}, local, false, RouteDown},
		{"nobody leads, this member did", view{to: local, one: true, led: true}, local, false, RouteOpen},
		{"nobody leads, and it never did", view{to: local, one: true}, local, false, RouteDown},
		{"another one leads now", view{to: local, one: true, leader: there, led: true}, m2, true, RouteOpen},
		{"it forwards", view{to: m2, one: true, leader: there, led: true}, m2, false, RouteForwarded},
		{"it was moved just now", view{to: m2, one: true, leader: there, led: true, lingers: true}, m2, false, RouteOpen},
		{"it forwards to one that leads no more", view{to: m3, one: true, leader: there, led: true}, m2, true, RouteForwarded},
		{"it forwards, and nobody leads", view{to: m2, one: true, led: true}, m2, false, RouteForwarded},
		{"it forwards, this member leads again", view{to: m2, one: true, leader: here, led: true}, local, true, RouteForwarded},
		{"it forwards, serve was started just now", view{to: m3, one: true, leader: there}, m2, true, RouteForwarded},
		{"its clients have gone", view{to: m2, one: true, leader: there, led: true, backDue: true}, local, true, RouteForwarded},
		{"its clients have gone, nobody leads", view{to: m2, one: true, led: true, backDue: true}, m2, false, RouteForwarded},
		{"half of the entries, by hand", view{to: m2, leader: there, led: true}, m2, true, RouteForwarded},
		{"half of the entries, and this member leads", view{to: local, leader: here, led: true}, local, true, RouteForwarded},
		{"apart, it leads to the leader", view{apart: true, to: m2, one: true, leader: there}, m2, false, RouteOpen},
		{"apart, another one leads now", view{apart: true, to: m3, one: true, leader: there}, m2, true, RouteOpen},
		{"apart, nobody leads", view{apart: true, to: m3, one: true}, m3, false, RouteOpen},
	} {
		if c.view.local = local; c.view.apart {
			c.view.local = pgbini.Address{}
		}
		to, move, why := decide(c.view)
		if to != c.to || move != c.move || why == "" {
			t.Errorf("%s: %v %v %q", c.name, to, move, why)
		}
		if got := c.view.route(); got != c.route {
			t.Errorf("%s: a load balancer is told %q", c.name, got)
		}
	}
}

// A serve that is started anew says of the pooler what it said, until it has looked: HAProxy cuts everybody when it hears "down" once more.
func TestRouteBeforeTheFirstLook(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		memory memory
		apart  bool
		want   Route
	}{
		{"never led", memory{}, false, RouteDown},
		{"led", memory{Led: true}, false, RouteOpen},
		{"forwards since just now", memory{Led: true, Moved: time.Now()}, false, RouteOpen},
		{"forwards", memory{Led: true, Moved: time.Now().Add(-time.Hour)}, false, RouteForwarded},
		{"apart", memory{}, true, RouteOpen},
	} {
		conf := &config.Config{StateDir: t.TempDir(), Poolers: []config.Pooler{{Follow: &config.Follow{File: "/etc/pgbouncer/databases.ini"}}}}
		if c.apart {
			conf.Patroni.URLs = []string{"http://127.0.0.1:1"}
		}
		m := &member.Member{Config: conf, Log: slog.New(slog.DiscardHandler)}
		NewWatcher(m).poolers[0].remember(c.memory)
		if got := NewWatcher(m).Route(); got != c.want {
			t.Errorf("%s: a load balancer is told %q, not %q", c.name, got, c.want)
		}
	}
}
