package hooks

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
)

// Status is what this member can say about a handover: before, during and after.
type Status struct {
	Member   string          `json:"member"`
	Scope    string          `json:"scope,omitempty"`
	Server   ServerStatus    `json:"server"`
	Patroni  PatroniStatus   `json:"patroni"`
	Poolers  []PoolerStatus  `json:"poolers"`
	Leases   []LeaseStatus   `json:"leases,omitempty"`
	Versions []VersionReport `json:"versions,omitempty"`     // of the configuration, where one can be seen
	Handover []HandoverEvent `json:"lastHandover,omitempty"` // of the last one that this member took part in
	Problems []string        `json:"problems,omitempty"`     // what would spoil the next one, with what to change
	// Conditions are the status for programs, in the form that Kubernetes gives to its own.
	Conditions []Condition `json:"conditions"`
	ConfigFile string      `json:"configFile,omitempty"` // another user, or a link elsewhere, may work with another one
	StateDir   string      `json:"stateDir,omitempty"`
	Invalid    bool        `json:"-"` // a problem is the configuration's: exit code 2

	WritableWithoutLock bool `json:"-"`
	// Unresolved are the configured poolers of which no address is known, so they are not among Poolers; each with why.
	Unresolved []string `json:"-"`
}

// HandoverEvent is an entry of the journal.
type HandoverEvent struct {
	Time        time.Time `json:"time"`
	Hook        string    `json:"hook"`
	Event       string    `json:"event"`
	Pooler      string    `json:"pooler,omitempty"`
	TookSeconds float64   `json:"tookSeconds,omitempty"`
	Code        int       `json:"code,omitempty"`
	Text        string    `json:"text,omitempty"`
}

// ServerStatus is the local server's.
type ServerStatus struct {
	Role    string `json:"role"` // primary, replica, unknown
	Version int    `json:"version,omitempty"`
	Started string `json:"started,omitempty"`
	Error   string `json:"error,omitempty"`
}

// PatroniStatus is what its REST API says.
type PatroniStatus struct {
	HasLock         bool      `json:"hasLock"`
	State           string    `json:"state,omitempty"`
	Role            string    `json:"role,omitempty"`
	Version         string    `json:"version,omitempty"`
	Maintenance     bool      `json:"maintenance,omitempty"`
	DCSLastSeen     time.Time `json:"dcsLastSeen,omitzero"`
	TTLSeconds      float64   `json:"ttlSeconds,omitempty"`
	LoopWaitSeconds float64   `json:"loopWaitSeconds,omitempty"`
	Error           string    `json:"error,omitempty"`
}

// PoolerStatus is one pooler's.
type PoolerStatus struct {
	Pooler         string   `json:"pooler"`
	Version        string   `json:"version,omitempty"`
	Paused         string   `json:"paused"`             // yes, no, unknown (1.18 cannot tell)
	PausedBy       string   `json:"pausedBy,omitempty"` // guard, hand, foreign
	Databases      []string `json:"pausedDatabases,omitempty"`
	Waiting        int      `json:"waitingClients"`
	MaxWaitSeconds float64  `json:"maxWaitSeconds,omitempty"` // of the client that waits longest
	Servers        int      `json:"serverConnections"`
	Error          string   `json:"error,omitempty"`
}

// LeaseStatus is a pause of this member that stands.
type LeaseStatus struct {
	Owner string    `json:"owner"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
}

const statusTimeout = 3 * time.Second

// GetStatus asks everybody at once and blocks until all have answered, 3 s at most. What does not answer is part of the status.
func GetStatus(ctx context.Context, rt *Runtime) Status {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	s := Status{Member: member(), ConfigFile: rt.Config.File, StateDir: rt.Config.StateDir}
	var all sync.WaitGroup
	var health patroni.Health
	var dynamic patroni.Dynamic
	var identity postgres.Identity
	all.Go(func() { s.Server, identity = rt.serverStatus(ctx) })
	all.Go(func() { s.Patroni, health, dynamic = rt.patroniStatus(ctx) })
	all.Go(func() { s.Poolers, s.Unresolved = rt.poolerStatus(ctx) })
	all.Go(func() { s.Versions = rt.versions(ctx) })
	all.Wait()
	if health.Name != "" {
		s.Member = health.Name
	}
	s.Scope = health.Scope
	s.Problems = slices.Clone(s.Unresolved)
	s.leases(rt)
	s.lastHandover(rt)
	s.judge(rt, health, dynamic, identity)
	s.conditions(rt, caller.Err() == nil)
	return s
}

func (rt *Runtime) serverStatus(ctx context.Context) (ServerStatus, postgres.Identity) {
	server, err := rt.localServer()
	var identity postgres.Identity
	if err == nil {
		identity, err = identify(ctx, server)
	}
	if err != nil {
		return ServerStatus{Role: "unknown", Error: err.Error()}, identity
	}
	status := ServerStatus{Role: "primary", Version: identity.ServerVersion, Started: identity.PostmasterStart.Format(time.RFC3339)}
	if identity.InRecovery {
		status.Role = "replica"
	}
	return status, identity
}

func (rt *Runtime) patroniStatus(ctx context.Context) (PatroniStatus, patroni.Health, patroni.Dynamic) {
	var health patroni.Health
	var dynamic patroni.Dynamic
	client, err := rt.patroniClient()
	if err == nil {
		health, err = client.Leader(ctx)
	}
	if err == nil {
		dynamic, err = client.Dynamic(ctx)
	}
	status := PatroniStatus{HasLock: health.HasLock, State: health.State, Role: health.Role, Version: health.Version,
		Maintenance: health.Maintenance, DCSLastSeen: health.DCSLastSeen,
		TTLSeconds: dynamic.TTL.Seconds(), LoopWaitSeconds: dynamic.LoopWait.Seconds()}
	if err != nil {
		status.Error = err.Error()
	}
	return status, health, dynamic
}

func (rt *Runtime) poolerStatus(ctx context.Context) ([]PoolerStatus, []string) {
	poolers, _, errs := rt.fleet(ctx, nil)
	defer closeAll(poolers)
	var unresolved []string
	for _, err := range errs {
		unresolved = append(unresolved, err.Error())
	}
	status := make([]PoolerStatus, len(poolers))
	index := map[*pgb.Pooler]int{}
	for i, p := range poolers {
		index[p] = i
	}
	pgb.Each(poolers, func(p *pgb.Pooler) error {
		ctx, cancel := context.WithTimeout(ctx, consoleTimeout)
		defer cancel()
		status[index[p]] = onePoolerStatus(ctx, p)
		return nil
	})
	return status, unresolved
}

func onePoolerStatus(ctx context.Context, p *pgb.Pooler) PoolerStatus {
	s := PoolerStatus{Pooler: p.Name, Paused: "unknown"}
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
	s.Version, s.Waiting, s.MaxWaitSeconds, s.Servers, s.Databases = state.Version, state.Waiting, state.MaxWait.Seconds(), state.Servers, state.PausedDBs
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

func (s *Status) leases(rt *Runtime) {
	if rt.Config.StateDir == "" {
		return
	}
	for _, owner := range []pgb.Owner{pgb.Guard, pgb.Hand} {
		var order leaseOrder
		if readState(filepath.Join(rt.Config.StateDir, leaseFile(owner)), &order) == nil {
			s.Leases = append(s.Leases, LeaseStatus{Owner: owner.String(), Since: order.Since, Until: order.Until})
		}
	}
}

// lastHandover keeps the entries of the last guard or worker.
func (s *Status) lastHandover(rt *Runtime) {
	entries, err := ReadJournal(rt.Config.StateDir, 1000)
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
			s.Handover = append(s.Handover, HandoverEvent{Time: e.Time, Hook: e.Hook, Event: e.Event, Pooler: e.Pooler,
				TookSeconds: e.Took.Seconds(), Code: e.Code, Text: e.Text})
		}
	}
}

// judge names what would spoil the next handover as far as it can be seen from here.
func (s *Status) judge(rt *Runtime, health patroni.Health, dynamic patroni.Dynamic, identity postgres.Identity) {
	problem := func(format string, args ...any) { s.Problems = append(s.Problems, fmt.Sprintf(format, args...)) }
	if len(rt.Config.Poolers) == 0 {
		problem("no poolers are configured: set poolers in the configuration file")
	}
	if dynamic.TTL > 0 {
		if err := config.CheckTTL(rt.Config.Pause.Budget, dynamic.TTL); err != nil {
			s.Invalid = true
			problem("%v", err)
		}
	}
	if _, err := rt.patroniClient(); err != nil {
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
	for _, p := range s.Poolers {
		switch {
		case p.Error != "":
			problem("pooler %s: %s", p.Pooler, p.Error)
		case (p.Paused == "yes" || len(p.Databases) > 0) && p.PausedBy == "":
			problem("pooler %s is paused, and not by pgbaton: RESUME in its admin console, or pgbaton resume", p.Pooler)
		}
	}
}
