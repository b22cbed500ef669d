package pgb

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

// State is what a pooler says about itself.
type State struct {
	Version     string // "1.24.1/bouncer"
	Paused      bool   // globally, or one of our databases
	PausedKnown bool   // false: this version cannot tell (1.18 has no SHOW STATE)
	Mark        *Mark  // nil: not held by pgbaton
	LoginRetry  time.Duration
	Waiting     int // clients that wait for a server connection
	Servers     int // server connections
	MaxWait     time.Duration
	PausedDBs   []string // databases that are paused on their own

	Settings  []pgbini.Setting  // SHOW CONFIG
	Databases []pgbini.Database // SHOW DATABASES
}

// Setting is a value of SHOW CONFIG; "" where this version does not have it.
func (s State) Setting(key string) string {
	for _, setting := range s.Settings {
		if setting.Key == key {
			return setting.Value
		}
	}
	return ""
}

// LooksPaused is a guess for versions that cannot tell: clients wait and there is no server connection.
func (s State) LooksPaused() bool {
	if s.PausedKnown {
		return s.Paused
	}
	return s.Waiting > 0 && s.Servers == 0 && s.MaxWait > 0
}

// PauseStands reports whether a pause is in force on the pooler, of everything or of single databases, as far as it can be told: where
// this version cannot say, by [State.LooksPaused].
func (s State) PauseStands() bool { return s.LooksPaused() || len(s.PausedDBs) > 0 }

// NotPaused reports whether the pooler, or our databases of it, are known not to be paused.
func (s State) NotPaused() bool { return s.PausedKnown && !s.Paused }

// State asks the console for all of it.
func (p *Pooler) State(ctx context.Context) (State, error) {
	var s State
	var err error
	if s.Settings, err = p.Settings(ctx); err != nil {
		return s, err
	}
	if s.LoginRetry, s.Mark, err = p.readLoginRetry(s.Settings); err != nil {
		return s, err
	}
	s.Version = p.work.Version()
	pools, err := p.exec(ctx, "SHOW POOLS")
	if err != nil {
		return s, err
	}
	s.Waiting = p.countPools(pools, "cl_waiting")
	s.Servers = p.countPools(pools, "sv_")
	s.MaxWait = p.maxWait(pools)
	databases, err := p.ShowDatabases(ctx)
	if err != nil {
		return s, err
	}
	s.Databases = databases
	for _, d := range databases {
		if d.Paused {
			s.PausedDBs = append(s.PausedDBs, d.Name)
		}
	}
	if p.Databases != nil {
		p.pausedOf(databases, &s)
		return s, nil
	}
	return s, p.pauseState(ctx, &s)
}

// pausedOf fills in whether the databases that a pause stops are paused.
func (p *Pooler) pausedOf(databases []pgbini.Database, s *State) {
	// An entry of a "*" line that nobody has used for a moment is not listed, paused or not (1.18, 1.24, 1.26).
	s.PausedKnown = true
	for _, name := range p.Databases {
		i := slices.IndexFunc(databases, func(d pgbini.Database) bool { return d.Name == name })
		s.PausedKnown = s.PausedKnown && i >= 0
		s.Paused = s.Paused || i >= 0 && databases[i].Paused
	}
	s.PausedKnown = s.PausedKnown || s.Paused
}

// ShowDatabases lists them.
func (p *Pooler) ShowDatabases(ctx context.Context) ([]pgbini.Database, error) {
	result, err := p.exec(ctx, "SHOW DATABASES")
	if err != nil {
		return nil, err
	}
	var databases []pgbini.Database
	for row := range result.Rows {
		name := result.Get(row, "name")
		if name == pgbini.AdminDatabase {
			continue
		}
		port, _ := strconv.ParseUint(result.Get(row, "port"), 10, 16)
		firstOf := func(columns ...string) int { // -1: there is none of them
			for _, c := range columns {
				if slices.Contains(result.Columns, c) {
					return result.Int(row, c)
				}
			}
			return -1
		}
		databases = append(databases, pgbini.Database{
			Name:   name,
			Target: result.Get(row, "database"),
			Host:   result.Get(row, "host"),
			Port:   uint16(port),
			Paused: result.Int(row, "paused") != 0,

			Disabled:       result.Int(row, "disabled") != 0,
			ForceUser:      result.Get(row, "force_user"),
			PoolMode:       result.Get(row, "pool_mode"),
			PoolSize:       result.Int(row, "pool_size"),
			MinPoolSize:    result.Int(row, "min_pool_size"),
			ReservePool:    firstOf("reserve_pool_size", "reserve_pool"), // the latter in 1.18
			MaxConns:       result.Int(row, "max_connections"),
			MaxClients:     firstOf("max_client_connections"),
			ServerLifetime: firstOf("server_lifetime"),
			LoadBalance:    result.Get(row, "load_balance_hosts"),
		})
	}
	return databases, nil
}

// ServerConn is a line of SHOW SERVERS.
type ServerConn struct {
	Database    string
	User        string
	State       string
	RemotePID   int32 // of the backend at the other end; 0 while it is not known
	Replication bool  // a client replicates over it (1.23 and later)
	Kept        bool  // its client keeps it outside of a transaction: known from HeldServers
}

// ClientConn is a line of SHOW CLIENTS.
type ClientConn struct {
	Database string
	Address  string // of its end of the connection, and what the pooler calls it: no two have the same at a time
}

// Clients lists the clients of the pooler, those of its console as well.
func (p *Pooler) Clients(ctx context.Context) ([]ClientConn, error) {
	result, err := p.exec(ctx, "SHOW CLIENTS")
	if err != nil {
		return nil, err
	}
	var clients []ClientConn
	for row := range result.Rows {
		var address []string
		for _, column := range []string{"addr", "port", "ptr", "connect_time"} {
			address = append(address, result.Get(row, column))
		}
		clients = append(clients, ClientConn{Database: result.Get(row, "database"), Address: strings.Join(address, " ")})
	}
	return clients, nil
}

// Servers lists the server connections of the databases that a pause of this pooler stops.
func (p *Pooler) Servers(ctx context.Context) ([]ServerConn, error) {
	result, err := p.exec(ctx, "SHOW SERVERS")
	if err != nil {
		return nil, err
	}
	var servers []ServerConn
	for row := range result.Rows {
		if s := (ServerConn{
			Database:    result.Get(row, "database"),
			User:        result.Get(row, "user"),
			State:       result.Get(row, "state"),
			RemotePID:   int32(result.Int(row, "remote_pid")),
			Replication: result.Get(row, "replication") != "" && result.Get(row, "replication") != "none",
		}); p.stops(s.Database) {
			servers = append(servers, s)
		}
	}
	return servers, nil
}

// HeldServers is [Pooler.Servers] with what a pause cannot free filled in: [ServerConn.Kept].
func (p *Pooler) HeldServers(ctx context.Context) ([]ServerConn, error) {
	pools, err := p.exec(ctx, "SHOW POOLS")
	if err != nil {
		return nil, err
	}
	session := map[[2]string]bool{} // by database and user; the mode is the one that counts, of the database, the user or the default
	for row := range pools.Rows {
		session[[2]string{pools.Get(row, "database"), pools.Get(row, "user")}] = pools.Get(row, "pool_mode") == "session"
	}
	servers, err := p.Servers(ctx)
	for i := range servers {
		s := &servers[i]
		s.Kept = session[[2]string{s.Database, s.User}] || s.Replication
	}
	return servers, err
}

// ServerConnections counts the server connections of the databases that a pause of this pooler stops, in
// whatever state. Paused and drained means none.
func (p *Pooler) ServerConnections(ctx context.Context) (int, error) {
	pools, err := p.exec(ctx, "SHOW POOLS")
	if err != nil {
		return 0, err
	}
	return p.countPools(pools, "sv_"), nil
}

// WaitingDatabases are the databases that a pause of this pooler stops and that clients wait for. SHOW DATABASES does not list them all: an
// entry of a "*" line may be missing for a moment (1.18, 1.24).
func (p *Pooler) WaitingDatabases(ctx context.Context) ([]string, error) {
	pools, err := p.exec(ctx, "SHOW POOLS")
	if err != nil {
		return nil, err
	}
	var names []string
	for row := range pools.Rows {
		name := pools.Get(row, "database")
		if name != pgbini.AdminDatabase && p.stops(name) && pools.Int(row, "cl_waiting") > 0 && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// countPools adds up the columns with a prefix: sv_active, sv_active_cancel, sv_being_canceled, sv_idle,
// sv_used, sv_tested, sv_login (1.18 to 1.26), or cl_waiting.
func (p *Pooler) countPools(pools *Result, prefix string) int {
	total := 0
	for row := range pools.Rows {
		if name := pools.Get(row, "database"); name == pgbini.AdminDatabase || !p.stops(name) {
			continue
		}
		for _, column := range pools.Columns {
			if strings.HasPrefix(column, prefix) {
				total += pools.Int(row, column)
			}
		}
	}
	return total
}
