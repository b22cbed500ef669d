package maintenance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
)

// answer is yes, no, or not known.
type answer string

const (
	yes     answer = "yes"
	no      answer = "no"
	unknown answer = "unknown"
)

// routes is what one look at the poolers says.
type routes struct {
	poolers []api.PoolerStatus
	// faults are what is not as it should be, by what it is about: "POOLER paused", "POOLER silent", "POOLER ADDRESS" where that takes no
	// writes, or "names".
	faults map[string]string
	// leads are the addresses that the poolers connect to, "POOLER ADDRESS", seen from here: whether a server that takes writes is there.
	// An address that only the pooler can see, and a log-in that is refused, say nothing.
	leads map[string]answer
}

func newRoutes() routes { return routes{faults: map[string]string{}, leads: map[string]answer{}} }

// theRoute is the key of resume.route.
const theRoute = "resume.route"

// lookAtRoutes asks every pooler whether it is paused, and logs in at the addresses that it connects to, and at resume.route. It blocks for
// [member.ConsoleTimeout] and some more for the names.
func lookAtRoutes(ctx context.Context, m *member.Member) routes {
	all, _, errs := m.Poolers(ctx, nil)
	defer member.CloseAll(all)
	r := newRoutes()
	if err := errors.Join(errs...); err != nil {
		r.faults["names"] = err.Error()
	}
	local, _ := m.Server()
	var mu sync.Mutex
	add := func(one routes) {
		mu.Lock()
		defer mu.Unlock()
		r.poolers = append(r.poolers, one.poolers...)
		maps.Copy(r.faults, one.faults)
		maps.Copy(r.leads, one.leads)
	}
	pgb.Each(m.SelectDatabases(ctx, m.Log, all), func(p *pgb.Pooler) error {
		if p.HasConsole() {
			ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
			defer cancel()
			add(lookAtPooler(ctx, p, local))
		}
		return nil
	})
	if dsn := m.Config.Resume.Route; dsn != "" {
		if server, err := postgres.Open(dsn); err == nil {
			one := newRoutes()
			there, err := member.Identify(ctx, server.Once())
			one.lead(theRoute, "resume.route", there, err)
			add(one)
		}
	}
	return r
}

func lookAtPooler(ctx context.Context, p *pgb.Pooler, local *postgres.Server) routes {
	r := newRoutes()
	s := api.PoolerStatus{Pooler: p.Name, Paused: string(unknown)}
	state, err := member.StateOfPause(ctx, p)
	if err != nil {
		s.Error = err.Error()
		r.faults[p.Name+" silent"] = fmt.Sprintf("pooler %s does not answer: %v", p.Name, err)
		r.poolers = append(r.poolers, s)
		return r
	}
	s.Version, s.Waiting, s.MaxWaitSeconds, s.Servers = state.Version, state.Waiting, state.MaxWait.Seconds(), state.Servers
	if state.PausedKnown {
		s.Paused = string(no)
	}
	if state.PauseStands() {
		s.Paused = string(yes)
		by := "somebody else"
		if state.Mark != nil {
			s.PausedBy = state.Mark.Owner.String()
			by = "pgbaton (" + s.PausedBy + ")"
		}
		r.faults[p.Name+" paused"] = fmt.Sprintf("pooler %s is paused, by %s: pgbaton resume", p.Name, by)
	}
	r.poolers = append(r.poolers, s)
	if local == nil {
		return r
	}
	for _, lead := range member.Leads(ctx, p, state.Databases, local) {
		r.lead(p.Name+" "+lead.To.String(), fmt.Sprintf("pooler %s leads to %s", p.Name, lead.To), lead.There, lead.Err)
	}
	return r
}

// lead fills in where one address leads.
func (r routes) lead(key, what string, there postgres.Identity, err error) {
	switch {
	case err == nil && there.Writable():
		r.leads[key] = yes
	case err == nil:
		r.leads[key], r.faults[key] = no, what+", which takes no writes"
	case !postgres.LoginRefused(err):
		r.leads[key], r.faults[key] = no, fmt.Sprintf("%s, where no server answers: %v", what, err)
	}
}

// before is what a cluster and its poolers were like before anything was done, as far as it matters at the end.
type before struct {
	Timeline int      `json:"timeline,omitempty"` // of the primary
	Members  []string `json:"members,omitempty"`
	Down     []string `json:"down,omitempty"`     // standbys that did not answer, or did not stream
	Writable []string `json:"writable,omitempty"` // the addresses that led to a server that takes writes
	Faults   []string `json:"faults,omitempty"`   // what was not as it should be
}

func (s *scene) before(r routes) before {
	var b before
	for _, p := range s.Members {
		b.Members = append(b.Members, p.Name)
		switch {
		case p.Leader():
			b.Timeline = p.Timeline
		case !p.Reachable || !p.Up():
			b.Down = append(b.Down, p.Name)
		}
	}
	for key, is := range r.leads {
		if is == yes {
			b.Writable = append(b.Writable, key)
		}
	}
	b.Faults = slices.Collect(maps.Keys(r.faults))
	return b
}

// after says what is not as it should be and was before, or leads no longer where it has led; and whether all that has led to a server that
// takes writes does so now. Other addresses lead to standbys, or to other clusters.
func (r routes) after(b before) (problems []string, writable answer) {
	writable = unknown
	for _, key := range b.Writable {
		if is := r.leads[key]; is == no || writable == unknown && is != "" {
			writable = is
		}
	}
	for key, text := range r.faults {
		if _, address := r.leads[key]; address && !slices.Contains(b.Writable, key) {
			continue
		}
		if !slices.Contains(b.Faults, key) {
			problems = append(problems, text)
		}
	}
	slices.Sort(problems)
	return problems, writable
}
