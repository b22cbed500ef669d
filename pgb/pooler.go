package pgb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Pooler is one PgBouncer process. Its methods block until the console has answered or the context
// ends; they are not safe for use by several goroutines at once. The zero value is of no use: see
// [Resolve].
type Pooler struct {
	Name      string   // host:port or the pidfile; for logs and errors
	Databases []string // pause just these; nil means all
	Pidfile   string   // for signals when the console does not answer; may be empty (see [Resolve])
	Config    string   // its pgbouncer.ini as seen from here; may be empty

	config *pgconn.Config // nil: signals only
	work   *Console       // short statements
	spare  *Console       // logged in ahead of time, for the next PAUSE
	hold   []*Console     // one for each PAUSE that is under way
}

// pollInterval is how often the server connections are counted where the answer to PAUSE is no proof.
const pollInterval = 10 * time.Millisecond

// HasConsole reports whether an admin console is configured.
func (p *Pooler) HasConsole() bool { return p.config != nil }

// Open connects the console where it is not connected yet. Other methods do that by themselves; doing it
// before is for when time counts.
func (p *Pooler) Open(ctx context.Context) error {
	_, err := p.console(ctx)
	return err
}

// Prepare is Open for a pooler that will be paused: it also logs in on the connection that PAUSE will wait on.
func (p *Pooler) Prepare(ctx context.Context) error {
	if err := p.Open(ctx); err != nil || p.spare.Usable() {
		return err
	}
	spare, err := Connect(ctx, p.Name, p.config)
	if err == nil {
		p.spare = spare
	}
	return err
}

// Close ends the connections. A pause stands on.
func (p *Pooler) Close() {
	p.dropHold()
	for _, c := range []*Console{p.work, p.spare} {
		if c != nil {
			c.Close()
		}
	}
	p.work, p.spare = nil, nil
}

func (p *Pooler) dropHold() {
	for _, c := range p.hold {
		c.Close()
	}
	p.hold = nil
}

func (p *Pooler) console(ctx context.Context) (*Console, error) {
	if p.config == nil {
		return nil, &ConsoleError{Pooler: p.Name, Op: "connect", Err: ErrNoConsole}
	}
	if p.work.Usable() {
		return p.work, nil
	}
	c, err := Connect(ctx, p.Name, p.config)
	if err != nil {
		return nil, err
	}
	p.work = c
	return c, nil
}

// exec runs a short statement. A connection that was open before and has died meanwhile, say because the
// pooler was restarted, is replaced once.
func (p *Pooler) exec(ctx context.Context, statement string) (*Result, error) {
	old := p.work
	c, err := p.console(ctx)
	if err != nil {
		return nil, err
	}
	result, err := c.Exec(ctx, statement)
	if err != nil && c == old && c.dead != nil && ctx.Err() == nil {
		if c, err = p.console(ctx); err != nil {
			return nil, err
		}
		return c.Exec(ctx, statement)
	}
	return result, err
}

// Mark is put on the pooler: it sets server_login_retry so that it is practically zero and tells who
// holds the pooler (see [Mark]; Original is filled in here). It reports the mark that was there before, if
// any, and whether one could be put on: a value that no mark can carry is left alone.
func (p *Pooler) Mark(ctx context.Context, owner Owner, nonce int) (before *Mark, put bool, err error) {
	retry, before, err := p.loginRetry(ctx)
	if err != nil {
		return nil, false, err
	}
	original := retry
	if before != nil {
		original = before.Original
	}
	if !CanCarry(original) {
		return before, false, nil
	}
	mark := Mark{Original: original, Nonce: nonce, Owner: owner}
	return before, true, p.set(ctx, mark.value())
}

// Unmark puts back the setting that a mark replaced; without a mark it does nothing.
func (p *Pooler) Unmark(ctx context.Context) error {
	_, mark, err := p.loginRetry(ctx)
	if err != nil || mark == nil {
		return err
	}
	return p.set(ctx, formatSeconds(mark.Original))
}

// Holder is the mark that is on the pooler, nil for none: what State tells with it takes more statements.
func (p *Pooler) Holder(ctx context.Context) (*Mark, error) {
	_, mark, err := p.loginRetry(ctx)
	return mark, err
}

func (p *Pooler) set(ctx context.Context, seconds string) error {
	// The quotes are needed: without them 1.18 to 1.26 do not read a fraction.
	_, err := p.exec(ctx, "SET server_login_retry = '"+seconds+"'")
	return err
}

func (p *Pooler) loginRetry(ctx context.Context) (time.Duration, *Mark, error) {
	result, err := p.exec(ctx, "SHOW CONFIG")
	if err != nil {
		return 0, nil, err
	}
	for i := range result.Rows {
		if result.Get(i, "key") != "server_login_retry" {
			continue
		}
		value := result.Get(i, "value")
		retry, err := parseSeconds(value)
		if err != nil {
			return 0, nil, &ConsoleError{Pooler: p.Name, Op: "SHOW CONFIG: server_login_retry", Err: err}
		}
		if m, ok := parseMark(value); ok {
			return retry, &m, nil
		}
		return retry, nil, nil
	}
	return 0, nil, &ConsoleError{Pooler: p.Name, Op: "SHOW CONFIG", Err: errors.New("no server_login_retry in the answer")}
}

// PauseOutcome is what is known of a pause that stands.
type PauseOutcome struct {
	// Already: everything was paused before we came. PgBouncer tells that of a global pause only; of single
	// databases State tells it, before.
	Already bool
}

// Pause sends PAUSE and blocks until every server connection is closed. When the context ends first it
// returns a [*NotDrainedError] and the pause stands: Resume takes it back. Any other error means that it is
// not known whether the pooler is paused.
func (p *Pooler) Pause(ctx context.Context) (PauseOutcome, error) {
	var outcome PauseOutcome
	if err := p.SendPause(ctx); err != nil {
		return outcome, err
	}
	proven, err := p.pauseAnswers(ctx, &outcome)
	if err != nil {
		return outcome, err
	}
	if proven {
		return outcome, nil
	}
	return outcome, p.waitDrained(ctx)
}

// SendPause puts PAUSE on its way and returns without waiting for the answer.
func (p *Pooler) SendPause(ctx context.Context) error {
	p.dropHold()
	for _, statement := range p.statements("PAUSE") {
		c, err := p.holdConsole(ctx)
		if err != nil {
			return err
		}
		p.hold = append(p.hold, c)
		if err := c.Send(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pooler) holdConsole(ctx context.Context) (*Console, error) {
	if p.config == nil {
		return nil, &ConsoleError{Pooler: p.Name, Op: "connect", Err: ErrNoConsole}
	}
	if c := p.spare; c.Usable() {
		p.spare = nil
		return c, nil
	}
	return Connect(ctx, p.Name, p.config)
}

// pauseAnswers reads the answers to the PAUSEs. Only the tag PAUSE from all of them proves that the pooler
// is drained.
func (p *Pooler) pauseAnswers(ctx context.Context, outcome *PauseOutcome) (proven bool, err error) {
	proven = true
	for _, c := range p.hold {
		result, err := c.Receive(ctx)
		switch {
		case errors.Is(err, ErrAlreadyPaused):
			outcome.Already, proven = true, false
		case err != nil && ctx.Err() != nil:
			return false, p.notDrained(ctx, -1)
		case err != nil:
			return false, err
		case result.Tag != "PAUSE":
			proven = false
		}
	}
	return proven, nil
}

// notDrained tells how many connections are in the way; the caller's time is over, so it takes a little of its own, and what was seen last where
// that does not do.
func (p *Pooler) notDrained(ctx context.Context, last int) error {
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), 200*time.Millisecond)
	defer cancel()
	active, err := p.ServerConnections(short)
	if err != nil {
		active = last
	}
	return &NotDrainedError{Pooler: p.Name, Active: active}
}

func (p *Pooler) waitDrained(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	last := -1
	for {
		active, err := p.ServerConnections(ctx)
		if err == nil {
			last = active
		}
		switch {
		case err == nil && active == 0:
			return nil
		case ctx.Err() != nil:
			return p.notDrained(ctx, last)
		case err != nil:
			return err
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
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

// countPools adds up the columns with a prefix: sv_active, sv_active_cancel, sv_being_canceled, sv_idle,
// sv_used, sv_tested, sv_login (1.18 to 1.26), or cl_waiting.
func (p *Pooler) countPools(pools *Result, prefix string) int {
	total := 0
	for row := range pools.Rows {
		if name := pools.Get(row, "database"); name == adminDatabase || !p.stops(name) {
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

const adminDatabase = "pgbouncer"

func (p *Pooler) stops(database string) bool {
	return p.Databases == nil || slices.Contains(p.Databases, database)
}

func (p *Pooler) statements(verb string) []string {
	if p.Databases == nil {
		return []string{verb}
	}
	statements := make([]string, 0, len(p.Databases))
	for _, name := range p.Databases {
		statements = append(statements, verb+" "+quoteIdentifier(name))
	}
	return statements
}

func quoteIdentifier(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// resumeRounds bounds how often Resume looks again for a PAUSE that was on its way when it came.
const resumeRounds = 5

// Resume ends the pause that Pause makes, and blocks until the pooler says that it is over. It reports
// whether there was one. A PAUSE of this Pooler that is still under way is abandoned: its answer will not come.
//
// A PAUSE that the pooler has not read yet would come after the RESUME and stand, so Resume looks again
// until it has seen the pooler not paused.
func (p *Pooler) Resume(ctx context.Context) (was bool, err error) {
	p.dropHold()
	for round := range resumeRounds {
		resumed := false
		for _, statement := range p.statements("RESUME") {
			switch _, err := p.exec(ctx, statement); {
			case err == nil:
				resumed, was = true, true
			case !errors.Is(err, ErrNotPaused) && !noSuchDatabase(err):
				return was, err
			}
		}
		state, err := p.State(ctx)
		if err != nil {
			return was, err
		}
		switch {
		case state.PausedKnown && !state.Paused:
			return was, nil
		case !state.PausedKnown && !resumed && round > 0:
			// 1.18: RESUME found nothing to do, which says the same; but not the first one, which may have
			// overtaken a PAUSE.
			return was, nil
		}
	}
	return was, fmt.Errorf("pooler %s: still paused after %d times RESUME: somebody else pauses it", p.Name, resumeRounds)
}

// noSuchDatabase is the answer to RESUME db when the pooler does not list it: an entry of a "*" line that is not
// in use, as after a restart. Nothing of it is paused, and the next one may be.
func noSuchDatabase(err error) bool {
	var refused *ServerError
	return errors.As(err, &refused) && strings.HasPrefix(refused.Message, "no such database")
}

// ResumeEverything is Resume for a global pause and for every single database that is paused, whoever did it.
func (p *Pooler) ResumeEverything(ctx context.Context) (was bool, err error) {
	mine := p.Databases
	defer func() { p.Databases = mine }()
	p.Databases = nil
	if was, err = p.Resume(ctx); err != nil {
		return was, err
	}
	databases, err := p.ShowDatabases(ctx)
	if err != nil {
		return was, err
	}
	names := slices.Clone(mine) // a paused one need not be listed
	for _, d := range databases {
		if d.Paused && !slices.Contains(names, d.Name) {
			names = append(names, d.Name)
		}
	}
	for _, name := range names {
		switch _, err := p.exec(ctx, "RESUME "+quoteIdentifier(name)); {
		case err == nil:
			was = true
		case !errors.Is(err, ErrNotPaused) && !noSuchDatabase(err):
			return was, err
		}
	}
	return was, nil
}

// Reconnect makes the pooler replace its server connections as they become free. No client sees it.
func (p *Pooler) Reconnect(ctx context.Context) error {
	for _, statement := range p.statements("RECONNECT") {
		if _, err := p.exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

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
}

// LooksPaused is a guess for versions that cannot tell: clients wait and there is no server connection.
func (s State) LooksPaused() bool {
	if s.PausedKnown {
		return s.Paused
	}
	return s.Waiting > 0 && s.Servers == 0 && s.MaxWait > 0
}

// State asks the console for all of it.
func (p *Pooler) State(ctx context.Context) (State, error) {
	var s State
	var err error
	if s.LoginRetry, s.Mark, err = p.loginRetry(ctx); err != nil {
		return s, err
	}
	s.Version = p.work.Version()
	pools, err := p.exec(ctx, "SHOW POOLS")
	if err != nil {
		return s, err
	}
	s.Waiting = p.countPools(pools, "cl_waiting")
	s.Servers = p.countPools(pools, "sv_")
	for row := range pools.Rows {
		wait := time.Duration(pools.Int(row, "maxwait"))*time.Second + time.Duration(pools.Int(row, "maxwait_us"))*time.Microsecond
		s.MaxWait = max(s.MaxWait, wait)
	}
	databases, err := p.ShowDatabases(ctx)
	if err != nil {
		return s, err
	}
	for _, d := range databases {
		if d.Paused {
			s.PausedDBs = append(s.PausedDBs, d.Name)
		}
	}
	if p.Databases != nil {
		// An entry of a "*" line that nobody has used for a moment is not listed, paused or not (1.18, 1.24, 1.26).
		s.PausedKnown = true
		for _, name := range p.Databases {
			i := slices.IndexFunc(databases, func(d Database) bool { return d.Name == name })
			s.PausedKnown = s.PausedKnown && i >= 0
			s.Paused = s.Paused || i >= 0 && databases[i].Paused
		}
		s.PausedKnown = s.PausedKnown || s.Paused
		return s, nil
	}
	result, err := p.exec(ctx, "SHOW STATE")
	var refused *ServerError
	if errors.As(err, &refused) {
		return s, nil // before 1.19 there is no such statement
	}
	if err != nil {
		return s, err
	}
	for row := range result.Rows {
		if result.Get(row, "key") == "paused" {
			s.Paused, s.PausedKnown = result.Get(row, "value") == "yes", true
		}
	}
	return s, nil
}

// Database is a line of SHOW DATABASES, without the admin console itself. Entries that come from a "*" line
// are listed once they have been used.
type Database struct {
	Name   string
	Target string // its name on the server
	Host   string // as configured: a name, an address, a socket directory, or several with commas; "" for the default socket
	Port   uint16
	Paused bool

	Disabled bool
	// What is in force; where the entry says nothing, that is the pooler's own setting.
	ForceUser      string // "": the client's
	PoolMode       string // "": the pooler's, or the user's
	PoolSize       int
	MinPoolSize    int
	ReservePool    int
	MaxConns       int    // server connections; 0: no limit
	MaxClients     int    // 0: no limit; -1: this version does not show it (1.18)
	ServerLifetime int    // seconds; -1: this version does not show it (1.18)
	LoadBalance    string // of several hosts: "round-robin", "disable" (1.24 and later)
}

// ShowDatabases lists them.
func (p *Pooler) ShowDatabases(ctx context.Context) ([]Database, error) {
	result, err := p.exec(ctx, "SHOW DATABASES")
	if err != nil {
		return nil, err
	}
	var databases []Database
	for row := range result.Rows {
		name := result.Get(row, "name")
		if name == adminDatabase {
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
		databases = append(databases, Database{
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
	Database  string
	State     string
	RemotePID int32 // of the backend at the other end; 0 while it is not known
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
			Database:  result.Get(row, "database"),
			State:     result.Get(row, "state"),
			RemotePID: int32(result.Int(row, "remote_pid")),
		}); p.stops(s.Database) {
			servers = append(servers, s)
		}
	}
	return servers, nil
}

// Signal sends a signal to the process that the pidfile names, after checking that it is a pgbouncer.
func (p *Pooler) Signal(send func(*Process) error) error {
	process, err := OpenPidfile(p.Pidfile)
	if err != nil {
		return fmt.Errorf("pooler %s: %w", p.Name, err)
	}
	defer process.Close()
	return send(process)
}

// Spec is a configured entry before names are resolved.
type Spec struct {
	DSN       string
	Password  string // overrides what the DSN and pgpass say
	First     bool   // only the first address behind the name, not all of them
	Databases []string
	Pidfile   string
	Config    string
}

// Resolver looks up a host name; net.DefaultResolver.LookupHost is one.
type Resolver func(ctx context.Context, host string) ([]string, error)

// Resolve turns entries into poolers: one for each host and port of the DSN and each address behind the
// host's name. Socket directories and addresses stand for themselves. It returns what it could resolve, and
// one error for each host that it could not.
//
// A pidfile is one process's. Where several poolers have the same one, those of other hosts lose it: a signal for them would go
// to this host's process, and take it out of another's hands.
func Resolve(ctx context.Context, specs []Spec, lookup Resolver) ([]*Pooler, []error) {
	var poolers []*Pooler
	var errs []error
	seen := map[string]*Pooler{}
	sharers := map[string]int{} // of a pidfile
	for i, spec := range specs {
		if spec.DSN == "" {
			poolers = append(poolers, &Pooler{Name: spec.Pidfile, Pidfile: spec.Pidfile, Config: spec.Config, Databases: spec.Databases})
			continue
		}
		base, err := pgconn.ParseConfig(spec.DSN)
		if err != nil {
			// pgconn's text repeats the connection string.
			errs = append(errs, fmt.Errorf("poolers[%d].dsn: not a connection string", i))
			continue
		}
		if spec.Password != "" {
			base.Password = spec.Password
		}
		for _, target := range targets(base) {
			addresses := []string{target.Host}
			if !isLiteral(target.Host) {
				if addresses, err = lookup(ctx, target.Host); err != nil {
					errs = append(errs, fmt.Errorf("pooler %s: %w", target.Host, err))
					sharers[spec.Pidfile]++
					continue
				}
				if spec.First && len(addresses) > 1 {
					addresses = addresses[:1]
				}
			}
			for _, address := range addresses {
				cfg := atAddress(target, address)
				p := &Pooler{Name: poolerName(address, cfg.Port), config: cfg, Databases: spec.Databases, Pidfile: spec.Pidfile, Config: spec.Config}
				if same := seen[p.Name]; same != nil {
					same.merge(p)
					continue
				}
				seen[p.Name] = p
				poolers = append(poolers, p)
			}
		}
	}
	for _, p := range poolers {
		sharers[p.Pidfile]++
	}
	for _, p := range poolers {
		if p.Pidfile != "" && sharers[p.Pidfile] > 1 && !p.Local() {
			p.Pidfile = ""
		}
	}
	return poolers, errs
}

// merge adds what another entry says of the same process.
func (p *Pooler) merge(other *Pooler) {
	if p.Databases == nil || other.Databases == nil {
		p.Databases = nil
	} else {
		for _, name := range other.Databases {
			if !slices.Contains(p.Databases, name) {
				p.Databases = append(slices.Clone(p.Databases), name)
			}
		}
	}
	if p.Pidfile == "" {
		p.Pidfile = other.Pidfile
	}
	if p.Config == "" {
		p.Config = other.Config
	}
}

// targets splits a connection string with several hosts into one configuration for each. pgconn keeps
// the further hosts, and the same host without TLS, as fallbacks; here only the latter are.
func targets(base *pgconn.Config) []*pgconn.Config {
	type key struct {
		host string
		port uint16
	}
	var order []key
	ways := map[key][]*pgconn.FallbackConfig{}
	add := func(f *pgconn.FallbackConfig) {
		k := key{f.Host, f.Port}
		if ways[k] == nil {
			order = append(order, k)
		}
		ways[k] = append(ways[k], f)
	}
	add(&pgconn.FallbackConfig{Host: base.Host, Port: base.Port, TLSConfig: base.TLSConfig})
	for _, f := range base.Fallbacks {
		add(f)
	}
	var configs []*pgconn.Config
	for _, k := range order {
		cfg := base.Copy()
		cfg.Host, cfg.Port, cfg.TLSConfig = k.host, k.port, ways[k][0].TLSConfig
		cfg.Fallbacks = ways[k][1:]
		configs = append(configs, cfg)
	}
	return configs
}

// atAddress makes the configuration dial one address; TLS goes on to verify the name.
func atAddress(target *pgconn.Config, address string) *pgconn.Config {
	cfg := target.Copy()
	cfg.Host = address
	cfg.Fallbacks = make([]*pgconn.FallbackConfig, 0, len(target.Fallbacks))
	for _, f := range target.Fallbacks {
		cfg.Fallbacks = append(cfg.Fallbacks, &pgconn.FallbackConfig{Host: address, Port: f.Port, TLSConfig: f.TLSConfig})
	}
	return cfg
}

func isLiteral(host string) bool {
	return strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || net.ParseIP(host) != nil
}

func poolerName(address string, port uint16) string {
	if strings.HasPrefix(address, "/") || strings.HasPrefix(address, "@") {
		return address + "/.s.PGSQL." + strconv.Itoa(int(port))
	}
	return net.JoinHostPort(address, strconv.Itoa(int(port)))
}

// Each calls do for every pooler at the same time and blocks until all have returned. The errors are in
// the poolers' order, nil where there was none.
func Each(poolers []*Pooler, do func(*Pooler) error) []error {
	errs := make([]error, len(poolers))
	var all sync.WaitGroup
	for i, p := range poolers {
		all.Go(func() { errs[i] = do(p) })
	}
	all.Wait()
	return errs
}
