package member

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
	"github.com/pgbaton/pgbaton/postgres"
)

// Follow says that a pooler is moved to the leader, by this member or by another one; nil: it is not.
func (m *Member) Follow(p *pgb.Pooler) *config.Follow {
	if p.Entry < 0 || p.Entry >= len(m.Config.Poolers) {
		return nil
	}
	return m.Config.Poolers[p.Entry].Follow
}

// Moves reports whether a pooler is one that this member moves: it stands beside us.
func (m *Member) Moves(p *pgb.Pooler) bool {
	f := m.Follow(p)
	return f != nil && !f.Elsewhere
}

// withoutOwn leaves out those of the poolers of all members that are our own under another address: one configuration may serve all
// members. What our own pooler listens on tells, of addresses of this machine. It blocks for [ConsoleTimeout] at most; where our own does
// not answer all stay.
func (m *Member) withoutOwn(ctx context.Context, poolers []*pgb.Pooler) []*pgb.Pooler {
	elsewhere := func(p *pgb.Pooler) bool {
		f := m.Follow(p)
		return f != nil && f.Elsewhere && p.Local()
	}
	if !slices.ContainsFunc(poolers, elsewhere) {
		return poolers
	}
	ctx, cancel := context.WithTimeout(ctx, ConsoleTimeout)
	defer cancel()
	ours := map[*pgb.Pooler]bool{}
	for _, own := range poolers {
		if !m.Moves(own) {
			continue
		}
		settings, err := own.Settings(ctx)
		if err != nil {
			continue
		}
		for _, p := range poolers {
			ours[p] = ours[p] || elsewhere(p) && p.ListenedOnBy(settings)
		}
	}
	return slices.DeleteFunc(poolers, func(p *pgb.Pooler) bool {
		if ours[p] {
			p.Close()
		}
		return ours[p]
	})
}

// LeadingHere leaves out those poolers of other members that do not lead to this member's server: such a pooler leads to its own one, and
// has clients that read there, or none. One of which that cannot be found out stays. It blocks for [ConsoleTimeout] and [LookTimeout] at
// most.
func (m *Member) LeadingHere(ctx context.Context, log *slog.Logger, poolers []*pgb.Pooler) []*pgb.Pooler {
	leads := make([]bool, len(poolers))
	var all sync.WaitGroup
	for i, p := range poolers {
		if f := m.Follow(p); f == nil || !f.Elsewhere {
			leads[i] = true
			continue
		}
		all.Go(func() {
			var err error
			if leads[i], err = m.leadsHere(ctx, p); err != nil {
				log.Debug("cannot tell where the pooler leads", "pooler", p.Name, "error", err)
				leads[i] = true
			}
		})
	}
	all.Wait()
	var left []*pgb.Pooler
	for i, p := range poolers {
		if leads[i] {
			left = append(left, p)
		}
	}
	return left
}

// leadsHere reports whether one of a pooler's databases leads to this member's server. Sockets and loopback addresses are the pooler's own.
func (m *Member) leadsHere(ctx context.Context, p *pgb.Pooler) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, ConsoleTimeout)
	defer cancel()
	databases, err := p.ShowDatabases(ctx)
	if err != nil {
		return false, err
	}
	local, err := m.Server()
	if err != nil {
		return false, err
	}
	var destinations []Destination
	for _, to := range Destinations(p, databases, true) {
		if !IsLoopback(to.Host) {
			destinations = append(destinations, to)
		}
	}
	if len(destinations) == 0 {
		return false, nil
	}
	var all sync.WaitGroup
	var here postgres.Identity
	var unknown error
	all.Go(func() { here, unknown = Identify(ctx, local) })
	leads := leadsOf(ctx, destinations, local)
	all.Wait()
	if unknown != nil {
		return false, unknown
	}
	var errs []error
	for _, lead := range leads {
		if lead.Err == nil && lead.There.SameServer(here) {
			return true, nil
		}
		errs = append(errs, lead.Err)
	}
	return false, errors.Join(errs...) // it may be this one that was not seen
}

// ReadingHere are the poolers beside this member all of whose databases lead to its server: who uses them waits when it is restarted as a
// replica. One that forwards to the leader has those who write, who would wait for nothing, and is left alone; so is one that cannot be
// asked. It blocks for [ConsoleTimeout] and [LookTimeout] at most.
func (m *Member) ReadingHere(ctx context.Context, log *slog.Logger, poolers []*pgb.Pooler) []*pgb.Pooler {
	var reading []*pgb.Pooler
	for _, p := range poolers {
		if !m.Moves(p) {
			continue
		}
		databases, err := p.ShowDatabases(ctx)
		if err != nil {
			log.Warn("the pooler does not say where it leads: its readers are not held", "pooler", p.Name, "error", err)
			continue
		}
		if to := m.elsewhere(ctx, m.Follow(p), databases); to != "" {
			log.Info("the pooler leads to other servers, too: its readers are not held, as others would wait with them", "pooler", p.Name,
				"address", to)
			continue
		}
		reading = append(reading, p)
	}
	return reading
}

// elsewhere is an address of these databases that is not seen to be this member's server; "" where all are.
func (m *Member) elsewhere(ctx context.Context, f *config.Follow, databases []pgbini.Database) string {
	local, err := m.Server()
	if err != nil {
		return f.File
	}
	var here postgres.Identity
	seen := map[string]bool{}
	for _, d := range databases {
		for _, host := range hosts(d) {
			to := Destination{Host: host, Port: d.Port, Databases: []string{d.Target}}
			if host == f.LocalHost && d.Port == f.LocalPort || seen[to.String()] {
				continue
			}
			if isSocket(host) {
				return to.String()
			}
			if here.PostmasterStart.IsZero() {
				here, _ = Identify(ctx, local)
			}
			if there, err := to.Identify(ctx, local); err != nil || !there.SameServer(here) {
				return to.String()
			}
			seen[to.String()] = true
		}
	}
	return ""
}

// LeadsHere reports whether a pooler that was moved leads to this member's server now, and whether it has a pause by this owner; held says
// that it was seen to have one. Then a pause without a mark is the same one: RELOAD takes the mark away, and whoever moves the pooler was
// killed before he could put it back, or is about to. It blocks for [ConsoleTimeout] twice at most, and for [LookTimeout].
func (m *Member) LeadsHere(ctx context.Context, p *pgb.Pooler, owner pgb.Owner, held bool) (leads, paused bool, err error) {
	asking, cancel := context.WithTimeout(ctx, ConsoleTimeout)
	defer cancel()
	mark, err := p.Holder(asking)
	if err == nil && mark == nil && held {
		s, err := p.State(asking)
		if err != nil || s.Mark == nil && !s.PauseStands() {
			return false, false, err
		}
		mark = &pgb.Mark{Owner: owner}
		if s.Mark != nil {
			mark = s.Mark
		}
	}
	if err != nil || mark == nil || mark.Owner != owner {
		return false, false, err
	}
	leads, err = m.leadsHere(ctx, p)
	return leads, true, err
}
