package member

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
	"github.com/pgbaton/pgbaton/postgres"
)

// routeTimeout is for one look where an address leads.
const routeTimeout = time.Second

// Destination is an address that poolers connect to.
type Destination struct {
	Host     string
	port     uint16
	database string
}

func (d Destination) String() string { return net.JoinHostPort(d.Host, strconv.Itoa(int(d.port))) }

// Server is how we connect there ourselves: with the local server's credentials.
func (d Destination) Server(local *postgres.Server) *postgres.Server {
	return local.At(postgres.Address{Host: d.Host, Port: d.port, Database: d.database})
}

// Destinations are the distinct addresses of a pooler's databases that a pause stops. Socket directories, and loopback
// addresses of a pooler elsewhere, mean another machine than ours and are left out.
func Destinations(p *pgb.Pooler, databases []pgbini.Database, all bool) []Destination {
	var found []Destination
	for _, d := range databases {
		if !all && p.Databases != nil && !slices.Contains(p.Databases, d.Name) {
			continue
		}
		for _, host := range strings.Split(d.Host, ",") {
			to := Destination{Host: strings.TrimSpace(host), port: d.Port, database: d.Target}
			if to.Host == "" || strings.HasPrefix(to.Host, "/") || strings.HasPrefix(to.Host, "@") || elsewhere(p, to.Host) {
				continue
			}
			if !slices.ContainsFunc(found, func(f Destination) bool { return f.Host == to.Host && f.port == to.port }) {
				found = append(found, to)
			}
		}
	}
	return found
}

// elsewhere reports whether a host of a pooler's configuration is the pooler's own loopback and the pooler is not on this
// machine. (Addresses out of 127.0.0.0/8 other than 127.0.0.1 are taken at their word: people give them to services.)
func elsewhere(p *pgb.Pooler, host string) bool {
	if host != "localhost" && host != "127.0.0.1" && host != "::1" {
		return false
	}
	pooler, _, err := net.SplitHostPort(p.Name)
	if err != nil {
		return false // a socket: here
	}
	ip := net.ParseIP(pooler)
	return ip != nil && !ip.IsLoopback()
}

// SelectDatabases fills in, for poolers with `databases: auto`, those that lead to this cluster. When that cannot be found
// out all are paused: a stall is better than an error.
func (m *Member) SelectDatabases(ctx context.Context, log *slog.Logger, poolers []*pgb.Pooler) {
	automatic := false
	for _, p := range m.Config.Poolers {
		automatic = automatic || p.Databases.Auto
	}
	if !automatic {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, routeTimeout)
	defer cancel()
	local, err := m.Server()
	if err != nil {
		return
	}
	here, err := Identify(ctx, local)
	if err != nil || here.SystemID == "" {
		log.Warn("databases: auto cannot tell which lead to this cluster: all are paused", "error", err)
		return
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
		ours := map[string]bool{}
		for _, to := range Destinations(p, databases, true) {
			there, err := Identify(ctx, to.Server(local))
			ours[to.String()] = err != nil || there.SystemID == here.SystemID
		}
		var names []string
		all := true
		for _, d := range databases {
			if lead, known := ours[Destination{Host: d.Host, port: d.Port}.String()]; lead || !known {
				names = append(names, d.Name)
			} else {
				all = false
			}
		}
		if !all {
			p.Databases = names
		}
		return nil
	})
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

func Identify(ctx context.Context, server *postgres.Server) (postgres.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, routeTimeout)
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
