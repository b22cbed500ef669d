package pgb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

// Pooler is one PgBouncer process. Its methods block until the console has answered or the context
// ends; they are not safe for use by several goroutines at once. The zero value is of no use: see
// [Resolve].
type Pooler struct {
	Name      string   // host:port or the pidfile; for logs and errors
	Databases []string // pause just these; nil means all
	Pidfile   string   // for signals when the console does not answer; may be empty (see [Resolve])
	Config    string   // its pgbouncer.ini as seen from here; may be empty
	Entry     int      // of the [Spec] that it was made from, the first one where there are several

	config *pgconn.Config // nil: signals only
	behind string         // the name and port that the address was looked up for; "" for an address that stands for itself
	second *Pooler        // of a name of which only the first address counts: its first one of the other family (see [OnePerProcess])
	work   *Console       // short statements
	spare  *Console       // logged in ahead of time, for the next PAUSE
	hold   []*Console     // one for each PAUSE that is under way
}

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

// Another is the same pooler with connections of its own, to look at it while a method of this one blocks.
func (p *Pooler) Another() *Pooler {
	return &Pooler{Name: p.Name, Databases: slices.Clone(p.Databases), Pidfile: p.Pidfile, Config: p.Config, Entry: p.Entry,
		config: p.config}
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
	settings, err := p.Settings(ctx)
	if err != nil {
		return 0, nil, err
	}
	return p.readLoginRetry(settings)
}

func (p *Pooler) readLoginRetry(settings []pgbini.Setting) (time.Duration, *Mark, error) {
	for _, setting := range settings {
		if setting.Key != "server_login_retry" {
			continue
		}
		retry, err := parseSeconds(setting.Value)
		if err != nil {
			return 0, nil, &ConsoleError{Pooler: p.Name, Op: "SHOW CONFIG: server_login_retry", Err: err}
		}
		if m, ok := parseMark(setting.Value); ok {
			return retry, &m, nil
		}
		return retry, nil, nil
	}
	return 0, nil, &ConsoleError{Pooler: p.Name, Op: "SHOW CONFIG", Err: errors.New("no server_login_retry in the answer")}
}

// MayPause asks whether the console's user is one of admin_users, and may so pause: a user of stats_users may only look. It sets one
// setting to the value that it has (SET, which PgBouncer 1.18 to 1.26 refuses to others before it looks at it). It is not
// server_login_retry, where a guard may put its mark at this moment. The error is that of the console, or a [*ServerError].
func (p *Pooler) MayPause(ctx context.Context) error {
	const harmless = "log_stats"
	settings, err := p.Settings(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(settings, func(s pgbini.Setting) bool { return s.Key == harmless })
	if i < 0 || !isNumber(settings[i].Value) {
		return &ConsoleError{Pooler: p.Name, Op: "SHOW CONFIG", Err: errors.New("no " + harmless + " in the answer")}
	}
	_, err = p.exec(ctx, "SET "+harmless+" = '"+settings[i].Value+"'")
	return err
}

// UserPoolModes are the users that have a pool_mode of their own, which counts before the database's (SHOW USERS, 1.18 to 1.26).
func (p *Pooler) UserPoolModes(ctx context.Context) (map[string]string, error) {
	result, err := p.exec(ctx, "SHOW USERS")
	if err != nil {
		return nil, err
	}
	modes := map[string]string{}
	for row := range result.Rows {
		if mode := result.Get(row, "pool_mode"); mode != "" {
			modes[result.Get(row, "name")] = mode
		}
	}
	return modes, nil
}

// Peers is how many other processes its [peers] name (SHOW PEERS, 1.19 and later; 0 before): a client's cancel request goes to any of them
// and a PAUSE only to this one. It blocks until the console has answered or the context ends.
func (p *Pooler) Peers(ctx context.Context) (int, error) {
	settings, err := p.exec(ctx, "SHOW CONFIG")
	if err != nil {
		return 0, err
	}
	own := ""
	for row := range settings.Rows {
		if settings.Get(row, "key") == "peer_id" {
			own = settings.Get(row, "value")
		}
	}
	if own == "" || own == "0" {
		return 0, nil
	}
	peers, err := p.exec(ctx, "SHOW PEERS")
	if err != nil {
		return 0, err
	}
	others := 0
	for row := range peers.Rows {
		if peers.Get(row, "peer_id") != own {
			others++
		}
	}
	return others, nil
}

func isNumber(s string) bool {
	_, err := strconv.Atoi(s)
	return err == nil
}

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

// Signal sends a signal to the process that the pidfile names, after checking that it is a pgbouncer.
func (p *Pooler) Signal(send func(*Process) error) error {
	process, err := OpenPidfile(p.Pidfile)
	if err != nil {
		return fmt.Errorf("pooler %s: %w", p.Name, err)
	}
	defer process.Close()
	return send(process)
}
