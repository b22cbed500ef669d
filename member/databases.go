package member

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
	"github.com/pgbaton/pgbaton/postgres"
)

// LookTimeout is for one look where an address leads.
const LookTimeout = time.Second

// Destination is an address that poolers connect to.
type Destination struct {
	Host      string // a name or an IP address
	Port      uint16
	Databases []string // on the server, of those entries that lead there
}

func (d Destination) String() string { return net.JoinHostPort(d.Host, strconv.Itoa(int(d.Port))) }

// Servers are the ways to log in there with the local server's user: into the local server's own database first, which exists on every
// member, then into those that the pooler uses. ip is the address to dial where Host is a name; it may be empty.
func (d Destination) Servers(local *postgres.Server, ip string) []*postgres.Server {
	to := postgres.Address{Host: d.Host, IP: ip, Port: d.Port}
	if strings.HasPrefix(d.Host, "/") {
		to.Host, to.Socket = "", d.Host
	}
	servers := []*postgres.Server{local.At(to)}
	for _, name := range d.Databases {
		to.Database = name
		servers = append(servers, local.At(to))
	}
	return servers
}

// Identify says who is there. What the server answers to a login is an answer about this login: another database is tried. It blocks for
// [LookTimeout] at most.
func (d Destination) Identify(ctx context.Context, local *postgres.Server) (postgres.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, LookTimeout)
	defer cancel()
	var identity postgres.Identity
	var err error
	for _, server := range d.Servers(local, "") {
		if identity, err = Identify(ctx, server); !postgres.LoginRefused(err) {
			break
		}
	}
	return identity, err
}

// Destinations are the distinct addresses of a pooler's databases that a pause stops. Socket directories, and loopback
// addresses of a pooler elsewhere, mean another machine than ours and are left out.
func Destinations(p *pgb.Pooler, databases []pgbini.Database, all bool) []Destination {
	taken := slices.DeleteFunc(slices.Clone(databases), func(d pgbini.Database) bool {
		return !all && p.Databases != nil && !slices.Contains(p.Databases, d.Name)
	})
	return AddDestinations(nil, taken, func(host string) bool { return !isSocket(host) && !elsewhere(p, host) })
}

// Lead is where one address of a pooler's databases leads.
type Lead struct {
	To    Destination
	There postgres.Identity
	Err   error
}

// Leads logs in at all the [Destinations] of a pooler at the same time. It blocks for [LookTimeout] at most.
func Leads(ctx context.Context, p *pgb.Pooler, databases []pgbini.Database, local *postgres.Server) []Lead {
	return leadsOf(ctx, Destinations(p, databases, false), local)
}

func leadsOf(ctx context.Context, destinations []Destination, local *postgres.Server) []Lead {
	leads := make([]Lead, len(destinations))
	var all sync.WaitGroup
	for i, to := range destinations {
		all.Go(func() {
			there, err := to.Identify(ctx, local)
			leads[i] = Lead{to, there, err}
		})
	}
	all.Wait()
	return leads
}

// ServerOf is the server of a member, at the address that it has written into the DCS, with the user of our own.
func ServerOf(local *postgres.Server, x patroni.Member) (*postgres.Server, error) {
	if x.Host == "" || x.Port <= 0 || x.Port > math.MaxUint16 {
		return nil, fmt.Errorf("the address of member %s is not known", x.Name)
	}
	return local.At(postgres.Address{Host: x.Host, Port: uint16(x.Port)}), nil
}

// hosts are those of an entry, each for itself.
func hosts(d pgbini.Database) []string {
	all := strings.Split(d.Host, ",")
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	return all
}

func isSocket(host string) bool {
	return host == "" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@")
}

// IsLoopback reports whether a host is this machine's loopback as people write it. Other addresses of 127.0.0.0/8 are taken at their word:
// people give them to services.
func IsLoopback(host string) bool { return host == "localhost" || host == "127.0.0.1" || host == "::1" }

// elsewhere reports whether a host of a pooler's configuration is the pooler's own loopback and the pooler is not on this
// machine.
func elsewhere(p *pgb.Pooler, host string) bool {
	if !IsLoopback(host) {
		return false
	}
	pooler, _, err := net.SplitHostPort(p.Name)
	if err != nil {
		return false // a socket: here
	}
	ip := net.ParseIP(pooler)
	return ip != nil && !ip.IsLoopback()
}

// SelectDatabases fills in, for poolers with `databases: auto`, those that lead to this cluster, and returns the poolers that have any; the
// others are none of ours and must be left alone: their list is empty and not nil. When it cannot be found out all are paused: a stall is
// better than an error.
func (m *Member) SelectDatabases(ctx context.Context, log *slog.Logger, poolers []*pgb.Pooler) []*pgb.Pooler {
	automatic := false
	for _, p := range m.Config.Poolers {
		automatic = automatic || p.Databases.Auto
	}
	if !automatic {
		return poolers
	}
	ctx, cancel := context.WithTimeout(ctx, LookTimeout)
	defer cancel()
	local, err := m.Server()
	if err != nil {
		return poolers
	}
	here, err := Identify(ctx, local)
	if err != nil || here.SystemID == "" {
		log.Warn("databases: auto cannot tell which lead to this cluster: all are paused", "error", err)
		return poolers
	}
	// Each for itself: one that does not answer leaves the others theirs.
	pgb.Each(poolers, func(p *pgb.Pooler) error {
		if p.Databases != nil || !p.HasConsole() {
			return nil
		}
		databases, err := p.ShowDatabases(ctx)
		if err != nil {
			return err // attach reports it
		}
		destinations := Destinations(p, databases, true)
		ours := make([]bool, len(destinations))
		var all sync.WaitGroup
		for i, to := range destinations {
			all.Go(func() {
				there, err := to.Identify(ctx, local)
				ours[i] = err != nil || there.SystemID == "" || there.SystemID == here.SystemID
			})
		}
		all.Wait()
		names, every := []string{}, true
		for _, d := range databases {
			leads := slices.ContainsFunc(hosts(d), func(host string) bool {
				i := slices.IndexFunc(destinations, func(to Destination) bool { return to.Host == host && to.Port == d.Port })
				return i < 0 || ours[i]
			})
			if leads {
				names = append(names, d.Name)
			}
			every = every && leads
		}
		if !every {
			p.Databases = names
		}
		return nil
	})
	var used []*pgb.Pooler
	for _, p := range poolers {
		if p.Databases != nil && len(p.Databases) == 0 {
			log.Info("no database of this pooler leads to this cluster: it is left alone", "pooler", p.Name)
			continue
		}
		used = append(used, p)
	}
	return used
}

// StateOfPause is what a pooler says about itself. Where [Member.SelectDatabases] could not find out which databases are ours, and single
// ones are paused under a mark, the pause is of those: to resume everything would leave them paused, and take the mark from their keeper.
func StateOfPause(ctx context.Context, p *pgb.Pooler) (pgb.State, error) {
	state, err := p.State(ctx)
	if err != nil || p.Databases != nil || state.Mark == nil || state.Paused || len(state.PausedDBs) == 0 {
		return state, err
	}
	p.Databases = state.PausedDBs
	return p.State(ctx)
}

// Identify asks a server who it is. It blocks for [LookTimeout] at most.
func Identify(ctx context.Context, server *postgres.Server) (postgres.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, LookTimeout)
	defer cancel()
	conn, err := server.Connect(ctx)
	if err != nil {
		return postgres.Identity{}, err
	}
	defer conn.Close()
	return conn.Identity(ctx)
}

// IsPrimary reports whether the local server says that it is not in recovery. It blocks for a second at most.
func IsPrimary(ctx context.Context, m *Member) (bool, error) {
	local, err := m.Server()
	if err != nil {
		return false, err
	}
	identity, err := Identify(ctx, local)
	return err == nil && !identity.InRecovery, err
}

// AddDestinations adds the addresses of databases that are taken and not there yet.
func AddDestinations(found []Destination, databases []pgbini.Database, take func(host string) bool) []Destination {
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
