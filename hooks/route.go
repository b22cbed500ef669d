package hooks

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/routing"
)

const (
	routeAsk          = 250 * time.Millisecond // between questions to the poolers where they connect to
	routeUnlisted     = 50 * time.Millisecond  // between them where a database that clients wait for is not listed
	routeUnlistedMost = 5 * time.Second        // from the start; it takes a moment, and on a busy machine a second
	routeAnswer       = time.Second            // for a pooler's answer; who takes longer is asked again after routeSilent
	routeSilent       = 5 * time.Second        // a pooler that did not answer is not asked again for so long
)

// route finds out when the addresses that the poolers use lead to this server. One goroutine uses it.
type route struct {
	log     *slog.Logger
	local   *postgres.Server
	here    func() postgres.Identity // this server, as last seen
	names   *routing.Names
	began   time.Time
	in      string // the event that this server is primary after
	poolers []*pgb.Pooler
	fixed   bool // resume.route: nobody is asked

	to        map[string]*waypoint
	news      chan struct{}
	following sync.WaitGroup // goroutines that look, and that close connections

	agents agents

	silent   map[*pgb.Pooler]time.Time            // since when a pooler does not answer
	listed   map[*pgb.Pooler][]member.Destination // what it has said last
	unlisted map[*pgb.Pooler]string               // a database that clients wait for and that the pooler does not list
}

// routeOf is the configured route, or what the poolers say that they connect to. It asks nobody yet. action is Patroni's.
func routeOf(rt *member.Member, log *slog.Logger, local *postgres.Server, poolers []*pgb.Pooler, here func() postgres.Identity,
	action string) (*route, error) {
	r := &route{log: log, local: local, here: here, names: routing.NewNames(), began: time.Now(), in: action, poolers: poolers,
		to: map[string]*waypoint{}, news: make(chan struct{}, 1), silent: map[*pgb.Pooler]time.Time{},
		listed: map[*pgb.Pooler][]member.Destination{}, unlisted: map[*pgb.Pooler]string{}}
	if rt.Config.Resume.Route != "" {
		server, err := postgres.Open(rt.Config.Resume.Route)
		if err != nil {
			return nil, err
		}
		const name = "resume.route"
		r.fixed, r.to[name] = true, newWaypoint(name, []*postgres.Server{server.Once()})
		return r, nil
	}
	r.openAgents(rt)
	return r, nil
}

// wait blocks until the route leads to this server, as [judge] has it, and returns what it went by. The poolers are asked again and
// again where they connect to, and a last time before it returns: somebody else may change that meanwhile. An error says that the
// context ended first. Connections may be open for a moment longer, until [route.finish] returns.
func (r *route) wait(ctx context.Context) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if r.fixed {
		for _, w := range r.to {
			r.start(ctx, w)
		}
	}
	r.discover(ctx)
	ask := time.NewTicker(routeAsk)
	defer ask.Stop()
	var led time.Time // since when an address leads here
	for {
		if len(r.to) == 0 && len(r.unlisted) == 0 {
			return "no address of the route is known", nil
		}
		if len(r.unlisted) == 0 {
			select {
			case <-ctx.Done():
			case <-r.news:
			case <-ask.C:
				r.discover(ctx)
			}
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("the route does not lead here: %s", r.describe())
		}
		if len(r.unlisted) > 0 {
			member.Sleep(ctx, routeUnlisted)
			r.discover(ctx)
			continue
		}
		sights := r.sights()
		if led.IsZero() && slices.Contains(sights, leadsHere) {
			led = time.Now()
		}
		if judge(sights, time.Since(r.began), since(led)) == "" {
			continue
		}
		r.discover(ctx) // what is new counts as not seen
		if why := judge(r.sights(), time.Since(r.began), since(led)); why != "" && len(r.unlisted) == 0 && ctx.Err() == nil {
			if why != ledHere {
				why += ": " + r.describe()
			}
			return why, nil
		}
	}
}

// finish blocks until the last connection is closed, 0.1 s at most after [route.wait] has returned.
func (r *route) finish() {
	r.following.Wait()
	r.agents.close()
}

func since(t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return time.Since(t)
}

// start looks where an address leads from now on.
func (r *route) start(ctx context.Context, w *waypoint) {
	ctx, w.stop = context.WithCancel(ctx)
	r.following.Go(func() { r.follow(ctx, w) })
}

// discover asks every pooler where it connects to, and starts and stops looking accordingly.
func (r *route) discover(ctx context.Context) {
	if r.fixed {
		return
	}
	var mu sync.Mutex
	now := map[string]*waypoint{}
	fresh := map[string]bool{} // not from a cache alone
	round := r.names.Round()
	pgb.Each(r.poolers, func(p *pgb.Pooler) error {
		if r.byAgent(ctx, p, discovery{now, fresh}, &mu) {
			return nil
		}
		mu.Lock()
		silent := time.Since(r.silent[p]) < routeSilent
		mu.Unlock()
		if !p.HasConsole() {
			return nil
		}
		var destinations []member.Destination
		var cache map[string]pgb.DNSHost
		var unlisted string
		var err error
		if !silent {
			destinations, cache, unlisted, err = ask(ctx, p)
		}
		mu.Lock()
		defer mu.Unlock()
		delete(r.unlisted, p)
		if unlisted != "" && time.Since(r.began) < routeUnlistedMost {
			r.unlisted[p] = unlisted
		}
		if err != nil {
			r.silent[p] = time.Now() // who cannot say where it connects to cannot be resumed either; that is reported there
		}
		if len(destinations) == 0 || unlisted != "" {
			destinations = append(destinations, r.listed[p]...)
		}
		r.listed[p] = destinations
		for _, d := range destinations {
			for _, a := range round.Addresses(ctx, p.Name, d.Host, cache) {
				ip := a.IP
				key := d.Host + " " + ip + " " + d.String()
				fresh[key] = fresh[key] || !a.Cached
				if w := r.to[key]; w != nil {
					now[key] = w
				} else if now[key] == nil {
					name := d.String()
					if ip != "" {
						name = member.Destination{Host: ip, Port: d.Port}.String()
					}
					now[key] = newWaypoint(name, d.Servers(r.local, ip))
				}
			}
		}
		return nil
	})
	if ctx.Err() != nil {
		return
	}
	known := r.to
	r.to = now
	for key, w := range now {
		w.setCached(!fresh[key])
	}
	for key, w := range known {
		if now[key] == nil && w.stop != nil {
			w.stop()
		}
	}
	for _, w := range now {
		if w.stop == nil {
			r.start(ctx, w)
		}
	}
}

// ask is one pooler's own account of where it connects to, with the host names that it has in its cache. unlisted is a database that
// clients wait for and that it does not list at the moment (an entry of a "*" line, 1.18 and 1.24): where that leads is not known yet.
func ask(ctx context.Context, p *pgb.Pooler) (destinations []member.Destination, cache map[string]pgb.DNSHost, unlisted string, err error) {
	ctx, cancel := context.WithTimeout(ctx, routeAnswer)
	defer cancel()
	databases, err := p.ShowDatabases(ctx)
	if err != nil {
		return nil, nil, "", err
	}
	waiting, err := p.WaitingDatabases(ctx)
	if err != nil {
		return nil, nil, "", err
	}
	for _, name := range waiting {
		if !slices.ContainsFunc(databases, func(d pgbini.Database) bool { return d.Name == name }) {
			unlisted = name
		}
	}
	destinations = member.Destinations(p, databases, false)
	if slices.ContainsFunc(destinations, func(d member.Destination) bool { return net.ParseIP(d.Host) == nil }) {
		cache, err = p.DNSHosts(ctx)
	}
	return destinations, cache, unlisted, err
}

func (r *route) sights() []sight {
	sights := make([]sight, 0, len(r.to))
	for _, w := range r.to {
		sights = append(sights, w.sight())
	}
	return sights
}

func (r *route) describe() string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(r.to)) {
		parts = append(parts, r.to[key].String())
	}
	return strings.Join(parts, "; ")
}
