package health

import (
	"context"
	"errors"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/peer"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/reload"
	"github.com/pgbaton/pgbaton/state"
)

// Status is what [Of] has found out: what is shown, and what only programs of ours need.
type Status struct {
	api.Status
	Invalid             bool `json:"-"` // a problem is the configuration's: exit code 2
	WritableWithoutLock bool `json:"-"`
	// Unresolved are the configured poolers of which no address is known, so they are not among Poolers; each with why.
	Unresolved []string `json:"-"`
}

// Of asks everybody at once and blocks until all have answered, 3 s at most. What does not answer is part of the status.
func Of(ctx context.Context, m *member.Member) Status {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, member.StatusTimeout)
	defer cancel()
	s := Status{Status: api.Status{Member: member.Name(), ConfigFile: m.Config.File, StateDir: m.Config.StateDir}}
	var all sync.WaitGroup
	var v view
	all.Go(func() { v = look(ctx, m) })
	all.Go(func() { s.Versions = reload.Versions(ctx, m) })
	all.Wait()
	s.show(v)
	var err error
	if s.Labels, err = m.Labels(); err != nil {
		s.Problems, s.Invalid = append(s.Problems, err.Error()), true
	}
	for _, f := range judge(v) {
		s.Problems = append(s.Problems, problem(f))
		s.Invalid = s.Invalid || slices.Contains([]string{"configuration", "state-directory", "pause-budget"}, f.ID)
	}
	s.lastHandover(m)
	s.WritableWithoutLock = v.writableWithoutLock()
	if _, err := m.Patroni(); err != nil {
		s.Invalid = true // the problem is named among those of the REST API
	}
	s.conditions(m, caller.Err() == nil)
	return s
}

// problem is a finding as a line of the status.
func problem(f api.Finding) string {
	line := f.Found
	if f.Change != "" {
		line += "; " + f.Change
	}
	return line + " [" + f.ID + "]"
}

// look asks everybody at once and blocks until all have answered, or ctx is done.
func look(ctx context.Context, m *member.Member) view {
	v := view{config: m.Config}
	var all sync.WaitGroup
	all.Go(func() { v.identity, v.serverErr = lookAtIdentity(ctx, m) })
	all.Go(func() { v.health, v.dynamic, v.patroniErr = lookAtPatroni(ctx, m) })
	all.Go(func() { v.poolers, v.unresolved = lookAtStates(ctx, m) })
	if m.Recheck != nil {
		all.Go(func() { v.recheck = m.Recheck() })
	}
	all.Wait()
	v.leases = pause.Leases(m) // after the poolers: the file of a pause that has just ended is gone by then
	return v
}

// show fills in what was seen.
func (s *Status) show(v view) {
	if name := v.name(); name != "" {
		s.Member = name
	}
	s.Scope = v.health.Scope
	s.Unresolved, s.Leases = v.unresolved, v.leases
	s.Poolers = make([]api.PoolerStatus, 0, len(v.poolers))
	for _, p := range v.poolers {
		s.Poolers = append(s.Poolers, p.status)
	}
	switch {
	case v.config.Apart():
		s.Server.Role = "none"
	case v.serverErr != nil:
		s.Server = api.ServerStatus{Role: "unknown", Error: v.serverErr.Error()}
	default:
		s.Server = api.ServerStatus{Role: "primary", Version: v.identity.ServerVersion,
			Started: v.identity.PostmasterStart.Format(time.RFC3339)}
		if v.identity.InRecovery {
			s.Server.Role = "replica"
		}
	}
	s.Patroni = api.PatroniStatus{HasLock: v.health.HasLock, State: v.health.State, Role: v.health.Role, Version: v.health.Version,
		Maintenance: v.health.Maintenance, DCSLastSeen: v.health.DCSLastSeen,
		TTLSeconds: v.dynamic.TTL.Seconds(), LoopWaitSeconds: v.dynamic.LoopWait.Seconds()}
	if v.patroniErr != nil {
		s.Patroni.Error = v.patroniErr.Error()
	}
}

// errNoMember stands where the server would be on a machine that has none (patroni.urls): serve beside a pooler.
var errNoMember = errors.New("there is no member on this machine")

func lookAtIdentity(ctx context.Context, m *member.Member) (postgres.Identity, error) {
	if m.Config.Apart() {
		return postgres.Identity{}, errNoMember
	}
	server, err := m.Server()
	if err != nil {
		return postgres.Identity{}, err
	}
	return member.Identify(ctx, server)
}

func lookAtPatroni(ctx context.Context, m *member.Member) (patroni.Health, patroni.Dynamic, error) {
	client, health, err := askPatroni(ctx, m)
	if err != nil {
		return patroni.Health{}, patroni.Dynamic{}, err
	}
	dynamic, err := client.Dynamic(ctx)
	return health, dynamic, err
}

// askPatroni asks this member's REST API, or on a machine without a member all of patroni.urls at once: the first that answers tells of the
// cluster.
func askPatroni(ctx context.Context, m *member.Member) (*patroni.Client, patroni.Health, error) {
	client, err := m.Patroni()
	if err != nil {
		return nil, patroni.Health{}, err
	}
	if !m.Config.Apart() {
		health, err := client.Leader(ctx)
		return client, health, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		client *patroni.Client
		health patroni.Health
		err    error
	}
	answers := make(chan answer, len(m.Config.Patroni.URLs))
	for _, address := range m.Config.Patroni.URLs {
		go func() {
			there, err := client.At(address)
			if err != nil {
				answers <- answer{err: err}
				return
			}
			health, err := there.Leader(ctx)
			answers <- answer{there, health, err}
		}()
	}
	var all []error
	for range m.Config.Patroni.URLs {
		if a := <-answers; a.err == nil {
			return a.client, a.health, nil
		} else {
			all = append(all, a.err)
		}
	}
	return nil, patroni.Health{}, errors.Join(all...)
}

func lookAtStates(ctx context.Context, m *member.Member) ([]poolerView, []string) {
	poolers, _, errs := m.Poolers(ctx, nil)
	defer member.CloseAll(poolers)
	var unresolved []string
	for _, err := range errs {
		unresolved = append(unresolved, err.Error())
	}
	views := make([]poolerView, len(poolers))
	index := map[*pgb.Pooler]int{}
	for i, p := range poolers {
		index[p] = i
	}
	pgb.Each(poolers, func(p *pgb.Pooler) error {
		ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
		defer cancel()
		views[index[p]] = lookAtState(ctx, p)
		return nil
	})
	return views, unresolved
}

func lookAtState(ctx context.Context, p *pgb.Pooler) poolerView {
	v := poolerView{status: api.PoolerStatus{Pooler: p.Name, Paused: "unknown"}, local: p.Local(), ours: p.Databases}
	s := &v.status
	if !p.HasConsole() {
		if err := p.Signal(func(*pgb.Process) error { return nil }); err != nil {
			s.Error = err.Error()
		}
		return v
	}
	state, err := p.State(ctx)
	if err != nil {
		s.Error = err.Error()
		// PgBouncer closes its sockets when it is told to shut down, and runs until its clients have gone (1.23 to 1.26).
		if p.Pidfile != "" && (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)) {
			v.ending = p.Signal(func(*pgb.Process) error { return nil }) == nil
		}
		return v
	}
	v.state = &state
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
	return v
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
