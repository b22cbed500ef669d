package routing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/peer"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
)

// destinationsAge is how old what the poolers have said may be, where one of the addresses is asked for.
const destinationsAge = time.Second

// Looker looks where the poolers beside us lead: the addresses that they name, and no others. It is safe for use by several
// goroutines.
type Looker struct {
	m *member.Member

	mu    sync.Mutex
	found []member.Destination
	at    time.Time
}

// NewLooker makes one; it asks nobody.
func NewLooker(m *member.Member) *Looker { return &Looker{m: m} }

// Look looks, with so many connections to each address that are open at the same time, as a proxy that knows several servers hands them out
// in turn; with none it lists the addresses. address is one of them, "" is all. It blocks for [member.ConsoleTimeout] and
// [member.LookTimeout] at most. The error says that no pooler could be asked.
func (r *Looker) Look(ctx context.Context, address string, looks int) (api.RouteReport, error) {
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
			all.Go(func() { fill(ctx, to, local, seen) })
		}
	}
	all.Wait()
	return report, nil
}

// destinations asks the poolers, unless they have said it just now and that will do.
func (r *Looker) destinations(ctx context.Context, known bool) ([]member.Destination, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known && time.Since(r.at) < destinationsAge {
		return r.found, nil
	}
	found, err := destinationsBeside(ctx, r.m)
	if err == nil {
		r.found, r.at = found, time.Now()
	}
	return found, err
}

// destinationsBeside are where the poolers beside us lead, sockets and loopback addresses too.
func destinationsBeside(ctx context.Context, m *member.Member) ([]member.Destination, error) {
	ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	poolers, _, errs := m.Poolers(ctx, nil)
	defer member.CloseAll(poolers)
	var mu sync.Mutex
	var found []member.Destination
	errs = append(errs, pgb.Each(poolers, func(p *pgb.Pooler) error {
		if f := m.Follow(p); f != nil && f.Elsewhere || !p.HasConsole() {
			return nil
		}
		databases, err := p.ShowDatabases(ctx)
		mu.Lock()
		defer mu.Unlock()
		found = member.AddDestinations(found, databases, func(string) bool { return true })
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

// fill fills in the looks. With a login that is refused another database is tried, at once for all of them.
func fill(ctx context.Context, to member.Destination, local *postgres.Server, looks []api.RouteLook) {
	for _, server := range to.Servers(local, "") {
		conns := AtOnce(ctx, len(looks), Apart, func(i int) (conn *postgres.Conn, enough bool) {
			conn, looks[i] = tell(ctx, server)
			return conn, false
		})
		CloseAll(conns)
		if !slices.ContainsFunc(looks, func(l api.RouteLook) bool { return l.Failed == api.RouteLogin }) {
			return
		}
	}
}

// tell looks once, and says what it has seen as the wire has it.
func tell(ctx context.Context, server *postgres.Server) (*postgres.Conn, api.RouteLook) {
	ctx, cancel := context.WithTimeout(ctx, member.LookTimeout)
	defer cancel()
	conn, there, err := Once(ctx, server)
	l := api.RouteLook{SystemID: there.SystemID, PostmasterStart: there.PostmasterStart, InRecovery: there.InRecovery, Failed: Failed(err)}
	if err != nil {
		l.Error = peer.Text(err.Error())
	} else if there.InRecovery {
		if replay, err := conn.Replay(ctx); err == nil {
			l.UpMicroseconds, l.LastXact = replay.Up.Microseconds(), replay.LastXact
		}
	}
	return conn, l
}
