package hooks

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
)

const (
	routeInterval = 5 * time.Millisecond  // between the looks that belong together
	routeRetry    = 50 * time.Millisecond // between one such round and the next
	whereToTries  = 10
	routeInARow   = 3 // looks that must lead here before it counts
	// As many where one has led elsewhere before: a proxy that takes both for the primary hands connections out in turn, and with
	// somebody else's in between, ours may all go to the same one (HAProxy 3.0 and 3.2 with inter 3s fall 3 rise 2).
	routeAfterAll         = 12
	routeAfterAllInterval = 15 * time.Millisecond
	routeGrace            = 2 * time.Second // for further addresses once one leads here
)

// route finds out when the addresses that the poolers use lead to this server.
type route struct {
	log  *slog.Logger
	here func() postgres.Identity // this server, as last seen
	to   []*waypoint
}

// waypoint is one address on the route.
type waypoint struct {
	name    string
	server  *postgres.Server
	mu      sync.Mutex
	arrived bool // it led here several times in a row
	wavered bool // it has led to another server of ours
	denied  bool // it cannot be told: we may not log in
	last    string
	said    map[string]bool
}

// routeOf is the configured route, or what the poolers say that they connect to.
func routeOf(ctx context.Context, rt *member.Member, log *slog.Logger, local *postgres.Server, poolers []*pgb.Pooler, here func() postgres.Identity) (*route, error) {
	r := &route{log: log, here: here}
	if rt.Config.Resume.Route != "" {
		server, err := postgres.Open(rt.Config.Resume.Route)
		if err != nil {
			return nil, err
		}
		r.to = []*waypoint{{name: "resume.route", server: server.Once(), said: map[string]bool{}}}
		return r, nil
	}
	seen := map[string]bool{}
	for _, p := range poolers {
		if !p.HasConsole() {
			continue
		}
		for _, d := range whereTo(ctx, p) {
			for _, address := range lookup(ctx, d.Host) {
				at := d
				at.Host = address
				if !seen[at.String()] {
					seen[at.String()] = true
					r.to = append(r.to, &waypoint{name: at.String(), server: at.Server(local), said: map[string]bool{}})
				}
			}
		}
	}
	return r, nil
}

// whereTo asks a pooler for its destinations, again for a moment when it names none: an entry of a "*" line is not listed while the
// pooler sorts out who uses it (1.18, 1.24).
func whereTo(ctx context.Context, p *pgb.Pooler) []member.Destination {
	for range whereToTries {
		databases, err := p.ShowDatabases(ctx)
		if err != nil {
			return nil // who cannot say where it connects to cannot be resumed either; that is reported there
		}
		if found := member.Destinations(p, databases, false); len(found) > 0 {
			return found
		}
		if state, err := p.State(ctx); err != nil || state.Waiting == 0 {
			return nil // nobody waits, so nobody goes astray
		}
		member.Sleep(ctx, routeRetry)
	}
	return nil
}

// lookup gives every address of a name: behind one, each proxy learns on its own where the primary is. A name that does not
// resolve now may in a moment, so it stands for itself.
func lookup(ctx context.Context, host string) []string {
	if net.ParseIP(host) != nil {
		return []string{host}
	}
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil || len(addresses) == 0 {
		return []string{host}
	}
	return addresses
}

// wait blocks until the route leads to this server: each address several times in a row, or one of them and the grace for the others
// is over (a database for reading may lead to replicas for good). It returns what it went by. An error says that the context ended
// first.
func (r *route) wait(ctx context.Context) (string, error) {
	if len(r.to) == 0 {
		return "no address of the route is known", nil
	}
	ctx, cancel := context.WithCancel(ctx)
	var looking sync.WaitGroup
	defer looking.Wait()
	defer cancel()
	news := make(chan struct{}, 1)
	for _, w := range r.to {
		looking.Go(func() { r.follow(ctx, w, news) })
	}
	var grace <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("the route does not lead here: %s", r.describe())
		case <-grace:
			return "the route leads here, as far as it will: " + r.describe(), nil
		case <-news:
		}
		arrived, denied := 0, 0
		for _, w := range r.to {
			w.mu.Lock()
			if w.arrived {
				arrived++
			} else if w.denied {
				denied++
			}
			w.mu.Unlock()
		}
		switch {
		case denied == len(r.to):
			return "cannot log in over the route, so it was not checked: " + r.describe(), nil
		case arrived+denied == len(r.to):
			return "the route leads here", nil
		case arrived > 0 && grace == nil:
			timer := time.NewTimer(routeGrace)
			defer timer.Stop()
			grace = timer.C
		}
	}
}

// follow looks again and again where one address leads, several times at once a moment apart: clients wait for it, and a look takes 20 ms.
func (r *route) follow(ctx context.Context, w *waypoint, news chan<- struct{}) {
	for ctx.Err() == nil {
		var all sync.WaitGroup
		var astray atomic.Bool
		looks, interval := routeInARow, routeInterval
		w.mu.Lock()
		if w.wavered {
			looks, interval = routeAfterAll, routeAfterAllInterval
		}
		w.mu.Unlock()
		for i := range looks {
			all.Go(func() {
				member.Sleep(ctx, time.Duration(i)*interval)
				if astray.Load() || !r.look(ctx, w) {
					astray.Store(true)
				}
			})
		}
		all.Wait()
		w.mu.Lock()
		w.arrived = !astray.Load()
		w.mu.Unlock()
		select {
		case news <- struct{}{}:
		default:
		}
		member.Sleep(ctx, routeRetry)
	}
}

// look reports whether the address leads here, this once.
func (r *route) look(ctx context.Context, w *waypoint) bool {
	there, err := member.Identify(ctx, w.server)
	here := r.here()
	leads := err == nil && there.SameServer(here)
	text := "leads here"
	switch {
	case err != nil:
		text = err.Error()
	case !leads && there.InRecovery:
		text = "leads to a replica"
	case !leads:
		text = "leads to another server"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.denied = postgres.Denied(err)
	w.wavered = w.wavered || err == nil && !leads && !here.PostmasterStart.IsZero()
	if text != w.last && ctx.Err() == nil {
		// A proxy that knows two primaries for a while answers in turn: that is said once.
		level := slog.LevelInfo
		if w.said[text] {
			level = slog.LevelDebug
		}
		w.said[text] = true
		r.log.Log(ctx, level, "route", "address", w.name, "now", text)
	}
	w.last = text
	return leads
}

func (r *route) describe() string {
	var parts []string
	for _, w := range r.to {
		w.mu.Lock()
		parts = append(parts, w.name+" "+w.last)
		w.mu.Unlock()
	}
	return strings.Join(parts, "; ")
}
