package lab

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Route is the read-write address that the poolers use: an HAProxy of its own.
type Route struct {
	Address string // port 5432

	lab    *Lab
	c      *container
	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	delay time.Duration
	moves []RouteMove
}

// RouteMove says when a Service route was led to a member.
type RouteMove struct {
	At time.Time
	To string
}

const haproxyAdminPort = "9999"

// haproxyDefaults are for an HAProxy that finds the leader by its checks.
const haproxyDefaults = `defaults
  mode tcp
  log global
  timeout connect 4s
  timeout client 30m
  timeout server 30m
  timeout check 5s
`

func (l *Lab) startRoute(ctx context.Context) (*Route, error) {
	r := &Route{Address: l.address(5), lab: l, delay: l.opts.RouteDelay}
	s, err := l.container("route")
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "global\n  stats socket ipv4@%s:%s level admin\n  log stderr format raw local0 info\n", r.Address, haproxyAdminPort)
	switch l.opts.Route {
	case RouteService:
		fmt.Fprintf(&b, `defaults
  mode tcp
  retries 0
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen cluster
  bind %s:5432
  server primary %s:5432
`, r.Address, l.members[0].Address)
	case RouteHAProxy:
		fmt.Fprintf(&b, haproxyDefaults+`listen cluster
  bind %s:5432
  option httpchk GET /primary
  http-check expect status 200
  default-server %s
`, r.Address, l.opts.HAProxyCheck)
		for _, m := range l.members {
			fmt.Fprintf(&b, "  server %s %s:5432 check port 8008\n", m.Name, m.Address)
		}
	default:
		return nil, fmt.Errorf("no such RouteKind: %d", l.opts.Route)
	}
	etc := filepath.Join(l.dir, "etc-route")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(etc, "haproxy.cfg"), []byte(b.String()), 0o644); err != nil {
		return nil, err
	}
	s.binds = append(s.binds, bind{etc, "/etc/lab", true})
	s.argv = []string{"haproxy", "-db", "-f", "/etc/lab/haproxy.cfg"}
	if r.c, err = s.start(); err != nil {
		return nil, err
	}
	if err := Until(ctx, 20*time.Millisecond, "the route", func(context.Context) error {
		if !r.c.running() {
			return fmt.Errorf("haproxy has ended: %s", l.lastOutput("route"))
		}
		_, err := r.Runtime("show info")
		return err
	}); err != nil {
		r.c.kill()
		return nil, err
	}
	if l.opts.Route == RouteService {
		follow, cancel := context.WithCancel(context.Background())
		r.cancel, r.done = cancel, make(chan struct{})
		go r.follow(follow)
	}
	return r, nil
}

// Runtime sends one command to HAProxy's runtime API.
func (r *Route) Runtime(command string) (string, error) {
	conn, err := net.DialTimeout("tcp", r.Address+":"+haproxyAdminPort, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := fmt.Fprintf(conn, "%s\n", command); err != nil {
		return "", err
	}
	var answer strings.Builder
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		answer.WriteString(lines.Text() + "\n")
	}
	return strings.TrimSpace(answer.String()), lines.Err()
}

// follow leads the route to whoever has the leader key. A Service without a leader keeps its endpoint.
func (r *Route) follow(ctx context.Context) {
	defer close(r.done)
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	first := true
	var later sync.WaitGroup
	defer later.Wait()
	for ctx.Err() == nil {
		r.lab.etcd.watch(ctx, r.lab.key("leader"), func(name string) {
			m := r.lab.Member(name)
			if m == nil {
				return
			}
			r.mu.Lock()
			delay := r.delay
			r.mu.Unlock()
			if first {
				delay = 0 // the cluster's very first leader
			}
			first = false
			if delay == 0 {
				r.lead(m)
				return
			}
			later.Add(1)
			go func() {
				defer later.Done()
				timer := time.NewTimer(delay)
				defer timer.Stop()
				select {
				case <-timer.C:
					r.lead(m)
				case <-ctx.Done():
				}
			}()
		})
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
}

func (r *Route) lead(m *Member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.moves); n > 0 && r.moves[n-1].To == m.Name {
		return // the leader renews its key: no move
	}
	answer, err := r.Runtime(fmt.Sprintf("set server cluster/primary addr %s port 5432", m.Address))
	if err != nil {
		r.lab.opts.Logf("route to %s: %v", m.Name, err)
		return
	}
	r.lab.opts.Logf("route to %s: %s", m.Name, answer)
	r.moves = append(r.moves, RouteMove{time.Now(), m.Name})
}

// SetDelay changes by how much a Service route moves later than the leader key.
func (r *Route) SetDelay(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delay = d
}

// Moves lists when a Service route was led where.
func (r *Route) Moves() []RouteMove {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]RouteMove(nil), r.moves...)
}

// DSN is a connection string for the primary through the route, past the poolers.
func (r *Route) DSN() string {
	return fmt.Sprintf("postgres://postgres:%s@%s:5432/postgres?sslmode=disable", r.lab.SuperuserPassword, r.Address)
}

func (r *Route) stopFollowing() {
	if r.cancel != nil {
		r.cancel()
		<-r.done
	}
}
