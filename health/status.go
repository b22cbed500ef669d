package health

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/peer"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/reload"
	"github.com/pgbaton/pgbaton/state"
)

// Status is what [GetStatus] has found out: what is shown, and what only programs of ours need.
type Status struct {
	api.Status
	Invalid             bool // a problem is the configuration's: exit code 2
	WritableWithoutLock bool
	Unresolved          []string // the configured poolers of which no address is known, so they are not among Poolers; each with why
}

// Of asks everybody at once and blocks until all have answered, 3 s at most. What does not answer is part of the status.
func Of(ctx context.Context, m *member.Member) Status {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, member.StatusTimeout)
	defer cancel()
	s := Status{Status: api.Status{Member: member.Name(), ConfigFile: m.Config.File, StateDir: m.Config.StateDir}}
	var all sync.WaitGroup
	var health patroni.Health
	var dynamic patroni.Dynamic
	var identity postgres.Identity
	all.Go(func() { s.Server, identity = serverStatus(ctx, m) })
	all.Go(func() { s.Patroni, health, dynamic = patroniStatus(ctx, m) })
	all.Go(func() { s.Poolers, s.Unresolved = poolerStatus(ctx, m) })
	all.Go(func() { s.Versions = reload.Versions(ctx, m) })
	all.Wait()
	if health.Name != "" {
		s.Member = health.Name
	}
	s.Scope = health.Scope
	s.Problems = slices.Clone(s.Unresolved)
	s.Leases = pause.Leases(m)
	s.lastHandover(m)
	s.judge(m, health, dynamic, identity)
	s.conditions(m, caller.Err() == nil)
	return s
}

func serverStatus(ctx context.Context, m *member.Member) (api.ServerStatus, postgres.Identity) {
	server, err := m.Server()
	var identity postgres.Identity
	if err == nil {
		identity, err = member.Identify(ctx, server)
	}
	if err != nil {
		return api.ServerStatus{Role: "unknown", Error: err.Error()}, identity
	}
	status := api.ServerStatus{Role: "primary", Version: identity.ServerVersion, Started: identity.PostmasterStart.Format(time.RFC3339)}
	if identity.InRecovery {
		status.Role = "replica"
	}
	return status, identity
}

func patroniStatus(ctx context.Context, m *member.Member) (api.PatroniStatus, patroni.Health, patroni.Dynamic) {
	var health patroni.Health
	var dynamic patroni.Dynamic
	client, err := m.Patroni()
	if err == nil {
		health, err = client.Leader(ctx)
	}
	if err == nil {
		dynamic, err = client.Dynamic(ctx)
	}
	status := api.PatroniStatus{HasLock: health.HasLock, State: health.State, Role: health.Role, Version: health.Version,
		Maintenance: health.Maintenance, DCSLastSeen: health.DCSLastSeen,
		TTLSeconds: dynamic.TTL.Seconds(), LoopWaitSeconds: dynamic.LoopWait.Seconds()}
	if err != nil {
		status.Error = err.Error()
	}
	return status, health, dynamic
}

func poolerStatus(ctx context.Context, m *member.Member) ([]api.PoolerStatus, []string) {
	poolers, _, errs := m.Poolers(ctx, nil)
	defer member.CloseAll(poolers)
	var unresolved []string
	for _, err := range errs {
		unresolved = append(unresolved, err.Error())
	}
	status := make([]api.PoolerStatus, len(poolers))
	index := map[*pgb.Pooler]int{}
	for i, p := range poolers {
		index[p] = i
	}
	pgb.Each(poolers, func(p *pgb.Pooler) error {
		ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
		defer cancel()
		status[index[p]] = onePoolerStatus(ctx, p)
		return nil
	})
	return status, unresolved
}

func onePoolerStatus(ctx context.Context, p *pgb.Pooler) api.PoolerStatus {
	s := api.PoolerStatus{Pooler: p.Name, Paused: "unknown"}
	if !p.HasConsole() {
		if err := p.Signal(func(*pgb.Process) error { return nil }); err != nil {
			s.Error = err.Error()
		}
		return s
	}
	state, err := p.State(ctx)
	if err != nil {
		s.Error = err.Error()
		return s
	}
	s.Version, s.Waiting, s.MaxWaitSeconds, s.Servers = state.Version, state.Waiting, state.MaxWait.Seconds(), state.Servers
	for _, name := range state.PausedDBs { // clients make up names where there is a "*" entry
		s.Databases = append(s.Databases, peer.Text(name))
	}
	if state.PausedKnown {
		s.Paused = "no"
		if state.Paused {
			s.Paused = "yes"
		}
	}
	if state.Mark != nil {
		s.PausedBy = state.Mark.Owner.String()
	}
	return s
}

// lastHandover keeps the entries of the last guard or worker.
func (s *Status) lastHandover(m *member.Member) {
	entries, err := state.ReadJournal(m.Config.StateDir, 1000)
	if err != nil {
		s.Problems = append(s.Problems, "journal: "+err.Error())
		return
	}
	last := ""
	for _, e := range entries {
		if e.Hook == "before_stop" || e.Hook == "on_role_change" {
			last = e.Handover
		}
	}
	for _, e := range entries {
		if e.Handover == last && last != "" {
			s.Handover = append(s.Handover, api.HandoverEvent{Time: e.Time, Hook: e.Hook, Event: e.Event, Pooler: e.Pooler,
				TookSeconds: e.Took.Seconds(), Code: e.Code, Text: e.Text})
		}
	}
}

// judge names what would spoil the next handover as far as it can be seen from here.
func (s *Status) judge(m *member.Member, health patroni.Health, dynamic patroni.Dynamic, identity postgres.Identity) {
	problem := func(format string, args ...any) { s.Problems = append(s.Problems, fmt.Sprintf(format, args...)) }
	if len(m.Config.Poolers) == 0 {
		problem("no poolers are configured: set poolers in the configuration file")
	}
	if m.Recheck != nil {
		if err := m.Recheck(); config.IsStateDir(err) {
			s.Invalid = true
			problem("no state directory, hooks go on without: leases and the journal are not kept, and serve does not start: %v", err)
		} else if err != nil {
			s.Invalid = true
			problem("the configuration is no longer usable, every hook exits with code 2 and pauses nothing: %v", err)
		}
	}
	if dynamic.TTL > 0 {
		if err := member.CheckTTL(m.Config.Pause.Budget, dynamic.TTL); err != nil {
			s.Invalid = true
			problem("%v", err)
		}
	}
	if _, err := m.Patroni(); err != nil {
		s.Invalid = true // the problem is named below
	}
	if s.Patroni.Error != "" {
		problem("Patroni's REST API: %s", s.Patroni.Error)
	}
	if s.Server.Error != "" {
		problem("local server: %s", s.Server.Error)
	}
	if s.Server.Error == "" && !identity.InRecovery && s.Patroni.Error == "" && !health.HasLock {
		s.WritableWithoutLock = true
		problem("this server is writable and Patroni does not hold the leader lock")
	}
	for _, l := range s.Leases {
		if l.KeeperGone && s.mayStand(l) {
			problem("the pause by %s has lost its keeper, nothing ends it at %s: serve and the next callback of this member take it up, "+
				"or pgbaton resume", l.Owner, l.Until.Local().Format(time.TimeOnly))
		}
	}
	for _, p := range s.Poolers {
		switch {
		case p.Error != "":
			problem("pooler %s: %s", p.Pooler, p.Error)
		case (p.Paused == "yes" || len(p.Databases) > 0) && p.PausedBy == "":
			problem("pooler %s is paused, and not by pgbaton: RESUME in its admin console, or pgbaton resume", p.Pooler)
		}
	}
}

// mayStand reports whether the pause of a lease may stand on a pooler. The file of one whose keeper was killed stays when it is over.
func (s *Status) mayStand(l api.LeaseStatus) bool {
	return len(s.Unresolved) > 0 || slices.ContainsFunc(s.Poolers, func(p api.PoolerStatus) bool {
		return p.Error != "" || p.PausedBy == l.Owner || p.PausedBy == "" && p.Paused != "no"
	})
}
