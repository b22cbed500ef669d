package maintenance

import (
	"context"
	"fmt"
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
	poolers  []api.PoolerStatus
	problems []string
	// writable: the addresses that the poolers connect to, seen from here, lead to a server that takes writes. An address that only the
	// pooler can see, and a log-in that is refused, say nothing.
	writable answer
}

// lookAtRoutes asks every pooler whether it is paused, and logs in at the addresses that it connects to. It blocks for
// [member.ConsoleTimeout] and some more for the names.
func lookAtRoutes(ctx context.Context, m *member.Member) routes {
	all, _, errs := m.Poolers(ctx, nil)
	defer member.CloseAll(all)
	r := routes{writable: unknown}
	for _, err := range errs {
		r.problems = append(r.problems, err.Error())
	}
	local, _ := m.Server()
	var mu sync.Mutex
	pgb.Each(m.SelectDatabases(ctx, m.Log, all), func(p *pgb.Pooler) error {
		if !p.HasConsole() {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
		defer cancel()
		status, problems, writable := lookAtPooler(ctx, p, local)
		mu.Lock()
		defer mu.Unlock()
		r.poolers, r.problems = append(r.poolers, status), append(r.problems, problems...)
		if r.writable == unknown || writable == no {
			r.writable = writable
		}
		return nil
	})
	return r
}

func lookAtPooler(ctx context.Context, p *pgb.Pooler, local *postgres.Server) (s api.PoolerStatus, problems []string, writable answer) {
	s = api.PoolerStatus{Pooler: p.Name, Paused: string(unknown)}
	writable = unknown
	state, err := member.StateOfPause(ctx, p)
	if err != nil {
		s.Error = err.Error()
		return s, []string{fmt.Sprintf("pooler %s does not answer: %v", p.Name, err)}, unknown
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
		problems = append(problems, fmt.Sprintf("pooler %s is paused, by %s: pgbaton resume", p.Name, by))
	}
	if local == nil {
		return s, problems, unknown
	}
	for _, to := range member.Destinations(p, state.Databases, false) {
		there, err := to.Identify(ctx, local)
		switch {
		case err == nil && there.Writable():
			if writable == unknown {
				writable = yes
			}
		case err == nil:
			writable = no
			problems = append(problems, fmt.Sprintf("pooler %s leads to %s, which takes no writes", p.Name, to))
		case postgres.LoginRefused(err):
		default:
			writable = no
			problems = append(problems, fmt.Sprintf("pooler %s leads to %s, where no server answers: %v", p.Name, to, err))
		}
	}
	return s, problems, writable
}
