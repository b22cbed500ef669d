package member

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
)

// RouteProblems says which addresses of the route cannot be checked from this member, and why: a handover resumes the poolers without
// having seen where these lead. Each is a sentence for a person, the same address only once. It blocks for two times [LookTimeout] at
// most; poolers that do not answer are left out.
func (m *Member) RouteProblems(ctx context.Context, poolers []*pgb.Pooler) []string {
	local, err := m.Server()
	if err != nil {
		return nil // reported where the configuration is
	}
	if m.Config.Resume.Route != "" {
		server, err := postgres.Open(m.Config.Resume.Route)
		if err != nil {
			return nil
		}
		_, err = Identify(ctx, server.Once())
		return problemOf("resume.route", err)
	}
	var mu sync.Mutex
	var problems []string
	report := func(found ...string) {
		mu.Lock()
		defer mu.Unlock()
		for _, p := range found {
			if !slices.Contains(problems, p) {
				problems = append(problems, p)
			}
		}
	}
	pgb.Each(poolers, func(p *pgb.Pooler) error {
		if !p.HasConsole() {
			return nil
		}
		asking, cancel := context.WithTimeout(ctx, LookTimeout)
		defer cancel()
		databases, err := p.ShowDatabases(asking)
		if err != nil {
			return err
		}
		for _, d := range databases {
			for _, host := range hosts(d) {
				if (p.Databases == nil || slices.Contains(p.Databases, d.Name)) && (elsewhere(p, host) || isSocket(host) && elsewhere(p, "localhost")) {
					report(fmt.Sprintf("database %s of pooler %s leads to its own machine (%s): where it leads cannot be checked from here; "+
						"set resume.route", d.Name, p.Name, host))
				}
			}
		}
		var all sync.WaitGroup
		for _, to := range Destinations(p, databases, false) {
			all.Go(func() {
				_, err := to.Identify(ctx, local)
				report(problemOf(to.String(), err)...)
			})
		}
		all.Wait()
		return nil
	})
	slices.Sort(problems)
	return problems
}

// problemOf is what keeps an address from being checked. Nobody who listens there, and a server that is not ready, may do so at another
// time.
func problemOf(address string, err error) []string {
	switch {
	case postgres.LoginRefused(err):
		return []string{fmt.Sprintf("cannot log in at %s, so that handovers do not check where it leads: %v", address, err)}
	case postgres.Unreachable(err):
		return []string{fmt.Sprintf("%s cannot be reached from here, so that handovers do not check where it leads (set resume.route): %v",
			address, err)}
	}
	return nil
}
