package member

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/peer"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
	"github.com/pgbaton/pgbaton/postgres"
)

const (
	destinationsAge = time.Second           // of what the poolers have said, where one of the addresses is asked for
	looksApart      = 15 * time.Millisecond // between the looks at one address
)

// RouteLooker looks where the poolers beside us lead: the addresses that they name, and no others. It is safe for use by several
// goroutines.
type RouteLooker struct {
	m *Member

	mu    sync.Mutex
	found []Destination
	at    time.Time
}

// NewRouteLooker makes one; it asks nobody.
func NewRouteLooker(m *Member) *RouteLooker { return &RouteLooker{m: m} }

// Look looks, with so many connections to each address that are open at the same time, as a proxy that knows several servers hands them out
// in turn; with none it lists the addresses. address is one of them, "" is all. It blocks for [ConsoleTimeout] and [LookTimeout] at most.
// The error says that no pooler could be asked.
func (r *RouteLooker) Look(ctx context.Context, address string, looks int) (api.RouteReport, error) {
	local, err := r.m.Server()
	if err != nil {
		return api.RouteReport{}, err
	}
	found, err := r.destinations(ctx, address != "")
	if err != nil {
		return api.RouteReport{}, err
	}
	report := api.RouteReport{Addresses: []api.RouteAddress{}}
	var all sync.WaitGroup
	for _, to := range found {
		if address == "" || to.String() == address {
			seen := make([]api.RouteLook, min(looks, api.MaxRouteLooks))
			report.Addresses = append(report.Addresses, api.RouteAddress{Address: to.String(), Looks: seen})
			all.Go(func() { to.look(ctx, local, seen) })
		}
	}
	all.Wait()
	return report, nil
}

// destinations asks the poolers, unless they have said it just now and that will do.
func (r *RouteLooker) destinations(ctx context.Context, known bool) ([]Destination, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known && time.Since(r.at) < destinationsAge {
		return r.found, nil
	}
	found, err := r.m.destinationsBeside(ctx)
	if err == nil {
		r.found, r.at = found, time.Now()
	}
	return found, err
}

// destinationsBeside are where the poolers beside us lead, sockets and loopback addresses too.
func (m *Member) destinationsBeside(ctx context.Context) ([]Destination, error) {
	ctx, cancel := context.WithTimeout(ctx, ConsoleTimeout)
	defer cancel()
	poolers, _, errs := m.Poolers(ctx, nil)
	defer CloseAll(poolers)
	var mu sync.Mutex
	var found []Destination
	errs = append(errs, pgb.Each(poolers, func(p *pgb.Pooler) error {
		if f := m.Follow(p); f != nil && f.Elsewhere || !p.HasConsole() {
			return nil
		}
		databases, err := p.ShowDatabases(ctx)
		mu.Lock()
		defer mu.Unlock()
		found = addDestinations(found, databases, func(string) bool { return true })
		return err
	})...)
	if len(found) == 0 {
		return nil, errors.Join(append([]error{errors.New("no pooler here tells where it leads")}, errs...)...)
	}
	if len(found) > api.MaxRouteAddresses {
		return nil, fmt.Errorf("the poolers here lead to more than %d addresses", api.MaxRouteAddresses)
	}
	return found, nil
}

// look fills in the looks. With a login that is refused another database is tried, at once for all of them.
func (d Destination) look(ctx context.Context, local *postgres.Server, looks []api.RouteLook) {
	for _, server := range d.Servers(local, "") {
		conns := make([]*postgres.Conn, len(looks))
		var all sync.WaitGroup
		for i := range looks {
			all.Go(func() {
				Sleep(ctx, time.Duration(i)*looksApart)
				conns[i], looks[i] = lookOnce(ctx, server)
			})
		}
		all.Wait()
		for _, c := range conns {
			if c != nil {
				all.Go(c.Close) // a good-bye takes a round trip
			}
		}
		all.Wait()
		if !slices.ContainsFunc(looks, func(l api.RouteLook) bool { return l.Failed == api.RouteLogin }) {
			return
		}
	}
}

// lookOnce makes one connection, and leaves it open. It blocks for LookTimeout at most.
func lookOnce(ctx context.Context, server *postgres.Server) (*postgres.Conn, api.RouteLook) {
	ctx, cancel := context.WithTimeout(ctx, LookTimeout)
	defer cancel()
	conn, err := server.Connect(ctx)
	var there postgres.Identity
	if err == nil {
		there, err = conn.Identity(ctx)
	}
	l := api.RouteLook{SystemID: there.SystemID, PostmasterStart: there.PostmasterStart, InRecovery: there.InRecovery,
		Failed: LookFailed(err)}
	if err != nil {
		l.Error = peer.Text(err.Error())
	} else if there.InRecovery {
		if replay, err := conn.Replay(ctx); err == nil {
			l.UpMicroseconds, l.LastXact = replay.Up.Microseconds(), replay.LastXact
		}
	}
	return conn, l
}

// LookFailed is the kind of a look's error, as [api.RouteLook] has it: "" where there is none.
func LookFailed(err error) string {
	switch {
	case err == nil:
		return ""
	case postgres.LoginRefused(err):
		return api.RouteLogin
	case postgres.Unreachable(err):
		return api.RouteSilent
	}
	return api.RouteRefused
}

// addDestinations adds the addresses of databases that are taken and not there yet.
func addDestinations(found []Destination, databases []pgbini.Database, take func(host string) bool) []Destination {
	for _, d := range databases {
		for _, host := range hosts(d) {
			if !take(host) {
				continue
			}
			i := slices.IndexFunc(found, func(f Destination) bool { return f.Host == host && f.Port == d.Port })
			if i < 0 {
				i = len(found)
				found = append(found, Destination{Host: host, Port: d.Port})
			}
			if !slices.Contains(found[i].Databases, d.Target) {
				found[i].Databases = append(found[i].Databases, d.Target)
			}
		}
	}
	return found
}
