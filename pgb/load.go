package pgb

import (
	"context"
	"errors"
	"time"

	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

// Load is what a pooler's clients go through at a moment: of the databases that a pause stops.
type Load struct {
	Waiting int           // clients that wait for a server connection
	Clients int           // that are connected, those too
	MaxWait time.Duration // of the one that waits longest
	Paused  bool          // as far as it can be told: see [State.LooksPaused]
}

// Load asks for less than [Pooler.State]: SHOW POOLS, and SHOW STATE or SHOW DATABASES. A console answers both within milliseconds.
func (p *Pooler) Load(ctx context.Context) (Load, error) {
	pools, err := p.exec(ctx, "SHOW POOLS")
	if err != nil {
		return Load{}, err
	}
	s := State{Waiting: p.countPools(pools, "cl_waiting"), Servers: p.countPools(pools, "sv_"), MaxWait: p.maxWait(pools)}
	if err := p.pauseState(ctx, &s); err != nil {
		return Load{}, err
	}
	return Load{Waiting: s.Waiting, Clients: p.countPools(pools, "cl_"), MaxWait: s.MaxWait, Paused: s.LooksPaused()}, nil
}

// maxWait is how long the client waits that waits longest.
func (p *Pooler) maxWait(pools *Result) time.Duration {
	longest := time.Duration(0)
	for row := range pools.Rows {
		if name := pools.Get(row, "database"); name == pgbini.AdminDatabase || !p.stops(name) {
			continue
		}
		longest = max(longest,
			time.Duration(pools.Int(row, "maxwait"))*time.Second+time.Duration(pools.Int(row, "maxwait_us"))*time.Microsecond)
	}
	return longest
}

// pauseState fills in whether it is paused.
func (p *Pooler) pauseState(ctx context.Context, s *State) error {
	if p.Databases != nil {
		databases, err := p.ShowDatabases(ctx)
		if err == nil {
			p.pausedOf(databases, s)
		}
		return err
	}
	result, err := p.exec(ctx, "SHOW STATE")
	var refused *ServerError
	if errors.As(err, &refused) {
		return nil // before 1.19 there is no such statement
	}
	if err != nil {
		return err
	}
	for row := range result.Rows {
		if result.Get(row, "key") == "paused" {
			s.Paused, s.PausedKnown = result.Get(row, "value") == "yes", true
		}
	}
	return nil
}
