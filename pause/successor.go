package pause

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/routing"
	"github.com/pgbaton/pgbaton/state"
)

// workerTime is how long the worker of the new primary has until the keeper takes it for dead: from when the route led there, the worker
// waits 2 s at most for addresses that do not.
const workerTime = 3 * time.Second

// originTimeout is after which the keeper is ready also without the answer, which takes milliseconds.
const originTimeout = 100 * time.Millisecond

// origin is the server that a handover began on. A server of the same database cluster that writes a later timeline was promoted since.
type origin struct {
	SystemID string `json:"systemId"`
	Timeline int    `json:"timeline"`
}

func (o origin) known() bool { return o.SystemID != "" && o.Timeline > 0 }

// promotedSince reports whether a server takes writes and was promoted after the handover had begun on o.
func (o origin) promotedSince(there postgres.Identity) bool {
	return o.known() && !there.InRecovery && there.SystemID == o.SystemID && there.Timeline > o.Timeline
}

// learnOrigin asks for the server that the handover begins on, which still runs when the guard starts a keeper. It blocks for originTimeout
// at most; what is learnt later comes by k.learned.
func (k *keeper) learnOrigin(ctx context.Context) {
	if k.lease.Owner == pgb.Readers {
		k.learnMembers(ctx)
	}
	if k.lease.Owner != pgb.Guard || k.lease.Origin.known() {
		return
	}
	learned := make(chan origin, 1)
	k.learned = learned
	go func() { learned <- askOrigin(ctx, k.m) }()
	k.learnMembers(ctx)
	select {
	case k.lease.Origin = <-learned:
	case <-time.After(originTimeout):
	}
}

// askOrigin asks the local server, and Patroni where that has stopped already. The zero value is not known. It blocks for some seconds at
// most.
func askOrigin(ctx context.Context, m *member.Member) origin {
	if local, err := m.Server(); err == nil {
		if here, err := member.Identify(ctx, local); err == nil && !here.InRecovery {
			return origin{SystemID: here.SystemID, Timeline: here.Timeline}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, member.RestTimeout)
	defer cancel()
	client, err := m.Patroni()
	if err != nil {
		return origin{}
	}
	health, err := client.Leader(ctx)
	if err != nil || !health.HasLock {
		return origin{}
	}
	return origin{SystemID: health.SystemID, Timeline: health.Timeline}
}

// finish ends the pause of a handover that is done except for that: another member has been promoted and is the leader, takes writes, and
// the addresses that the poolers connect to have led to it for longer than its worker would need. Without a worker (it was killed, or its
// callback has never come) clients would wait for the end of the lease. Where the old primary is still the one that takes writes, or
// nobody is, nothing is done here. It blocks for some seconds at most.
func (k *keeper) finish(ctx context.Context) {
	if k.lease.Owner != pgb.Guard || !k.lease.Origin.known() {
		return
	}
	looks := k.lookAlongRoute(ctx)
	if !k.successor.established(looks, time.Now()) || !k.isLeader(ctx, k.successor.server) {
		return
	}
	k.each(func(p *watched) {
		if k.m.Follow(p.Pooler) != nil {
			return // who moves it resumes it
		}
		ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
		defer cancel()
		ended, err := k.end(ctx, p)
		if err != nil {
			k.log.Warn("cannot resume, trying again until the lease is over", "pooler", p.Name, "error", err)
			return
		}
		if ended {
			k.journal.Add(state.Entry{Event: state.EventResumed, Pooler: p.Name, Took: time.Since(k.lease.Since)})
			k.log.Warn("the new primary takes writes, the route leads there, and its worker has not resumed: resumed", "pooler", p.Name)
		}
	})
}

// isLeader reports whether the server at the end of the route is the one that Patroni calls the leader: a copy of the cluster that was
// promoted for itself, which a pooler may lead to as well, has the same system identifier and a later timeline, too.
func (k *keeper) isLeader(ctx context.Context, server postgres.Identity) bool {
	ctx, cancel := context.WithTimeout(ctx, member.RestTimeout)
	defer cancel()
	client, err := k.m.Patroni()
	if err != nil {
		return false
	}
	cluster, err := client.Cluster(ctx)
	if err != nil {
		k.sayOnce("Patroni does not say who is the leader: the lease ends the pause where no worker does", "error", err)
		return false
	}
	leader, ok := cluster.Leader()
	local, err := k.m.Server()
	if !ok || err != nil {
		return false
	}
	its, err := member.ServerOf(local, leader)
	if err != nil {
		return false
	}
	there, err := member.Identify(ctx, its)
	return err == nil && there.SameServer(server)
}

// addressLooks is where one address of the route has led, several times in a row.
type addressLooks struct {
	address string
	to      postgres.Identity // zero where it led to no promoted server
	must    bool              // a pooler goes there until its cache has expired
	strayed bool              // not all looks led to the same promoted server, but one did
}

// successor is the new primary as far as the keeper can see it over the poolers' route.
type successor struct {
	server  postgres.Identity
	since   time.Time       // since when addresses lead there without a break; zero: none does
	leads   map[string]bool // addresses that do
	strayed bool            // an address led elsewhere once it had led there
}

// established takes in one round of looks and reports whether the route has led to one promoted server for long enough. An address that has
// never led there is not waited for: a database for reading may lead to replicas for good. One that only a pooler's cache still has is.
func (s *successor) established(looks []addressLooks, now time.Time) bool {
	broken := false
	leading := map[string]bool{}
	for _, l := range looks {
		switch {
		case l.strayed:
			broken = true
		case l.to.PostmasterStart.IsZero():
			broken = broken || l.must || s.leads[l.address]
		case !s.server.PostmasterStart.IsZero() && !l.to.SameServer(s.server): // of an earlier round, or of another address
			broken = true
		default:
			leading[l.address] = true
			s.server = l.to
		}
	}
	if broken || len(leading) == 0 {
		*s = successor{strayed: s.strayed || broken}
		return false
	}
	if s.since.IsZero() {
		s.since = now
	}
	s.leads = leading
	return now.Sub(s.since) >= workerTime
}

// lookAlongRoute connects where the poolers connect to, to each address several times in a row. It blocks for about a second at most
// longer than the consoles do.
func (k *keeper) lookAlongRoute(ctx context.Context) []addressLooks {
	route := k.route(ctx)
	looks := make([]addressLooks, 0, len(route))
	var mu sync.Mutex
	var all sync.WaitGroup
	for address, w := range route {
		all.Go(func() {
			l := k.lookAt(ctx, address, w.server)
			l.must = w.cached
			mu.Lock()
			defer mu.Unlock()
			looks = append(looks, l)
		})
	}
	all.Wait()
	return looks
}

// waypoint is one address of the route.
type waypoint struct {
	server *postgres.Server
	cached bool // the name has moved on, and a pooler still has this address in its cache
}

// route is the addresses by which the poolers whose pause stands reach the primary.
func (k *keeper) route(ctx context.Context) map[string]waypoint {
	route := map[string]waypoint{}
	if dsn := k.m.Config.Resume.Route; dsn != "" {
		if server, err := postgres.Open(dsn); err == nil {
			route["resume.route"] = waypoint{server: server.Once()}
		}
		return route
	}
	local, err := k.m.Server()
	if err != nil {
		return route
	}
	var mu sync.Mutex
	round := k.names.Round()
	k.each(func(p *watched) {
		if !p.HasConsole() || k.m.Follow(p.Pooler) != nil {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
		defer cancel()
		databases, err := p.ShowDatabases(ctx)
		if err != nil {
			return
		}
		for _, to := range member.Destinations(p.Pooler, databases, false) {
			var cache map[string]pgb.DNSHost
			if net.ParseIP(to.Host) == nil {
				cache, _ = p.DNSHosts(ctx) // without it, what the name has now
			}
			addresses := round.Addresses(ctx, p.Name, to.Host, cache)
			mu.Lock()
			for _, a := range addresses {
				key := net.JoinHostPort(cmp.Or(a.IP, to.Host), strconv.Itoa(int(to.Port)))
				w, known := route[key]
				w.server, w.cached = to.Servers(local, a.IP)[0], a.Cached && (!known || w.cached)
				route[key] = w
			}
			mu.Unlock()
		}
	})
	return route
}

// lookAt looks several times, at once: see [routing.AtOnce].
func (k *keeper) lookAt(ctx context.Context, address string, server *postgres.Server) addressLooks {
	count := routing.InARow
	if k.successor.strayed {
		count = routing.AfterAll
	}
	seen := make([]postgres.Identity, count) // zero where there is no promoted server
	conns := routing.AtOnce(ctx, count, routing.Apart, func(i int) (conn *postgres.Conn, enough bool) {
		ctx, cancel := context.WithTimeout(ctx, member.LookTimeout)
		defer cancel()
		conn, there, err := routing.Once(ctx, server)
		if err == nil && k.lease.Origin.promotedSince(there) {
			seen[i] = there
		}
		return conn, false
	})
	routing.CloseAll(conns)
	return looksOf(address, seen)
}

// looksOf is what looks at an address come to.
func looksOf(address string, seen []postgres.Identity) addressLooks {
	l := addressLooks{address: address}
	for _, there := range seen {
		if !there.PostmasterStart.IsZero() {
			l.to = there
		}
	}
	if slices.ContainsFunc(seen, func(there postgres.Identity) bool { return !there.SameServer(l.to) }) {
		l.strayed = !l.to.PostmasterStart.IsZero()
		l.to = postgres.Identity{}
	}
	return l
}
