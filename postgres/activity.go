package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/peer"
)

// ErrHidden says that other users' sessions are there which this user may not look at. It comes with
// what could be seen. The user needs the role pg_read_all_stats, or pg_monitor.
var ErrHidden = errors.New("postgres: this user cannot see other users' sessions; grant it pg_read_all_stats")

// row reads the columns of one row as text, in order.
type row struct {
	cols [][]byte
	err  error
}

func (r *row) text() string {
	v := r.cols[0]
	r.cols = r.cols[1:]
	return string(v)
}

// shown is text for people: names that clients and servers give themselves.
func (r *row) shown() string { return peer.Text(r.text()) }

func (r *row) bool() bool { return r.text() == "t" }

// int is 0 for a null.
func (r *row) int() int64 { return r.intOr(0) }

func (r *row) intOr(null int64) int64 {
	null1 := r.cols[0] == nil
	s := r.text()
	if null1 {
		return null
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("postgres: unexpected answer: %w", peer.Error(err))
	}
	return n
}

// time reads microseconds since the epoch; zero for a null.
func (r *row) time() time.Time {
	if r.cols[0] == nil {
		r.cols = r.cols[1:]
		return time.Time{}
	}
	return time.UnixMicro(r.int()).UTC()
}

func rows(results []*pgconn.Result, statement, columns int) ([]*row, error) {
	if len(results) <= statement {
		return nil, fmt.Errorf("postgres: %d results, %d expected", len(results), statement+1)
	}
	if err := results[statement].Err; err != nil {
		return nil, fmt.Errorf("postgres: %w", peer.Error(err))
	}
	out := make([]*row, 0, len(results[statement].Rows))
	for _, cols := range results[statement].Rows {
		if len(cols) != columns {
			return nil, fmt.Errorf("postgres: %d columns, %d expected", len(cols), columns)
		}
		out = append(out, &row{cols: cols})
	}
	return out, nil
}

// Identity is which server this is, and in which role.
type Identity struct {
	InRecovery      bool
	ReadOnly        bool      // transaction_read_only (always on in recovery) or default_transaction_read_only
	PostmasterStart time.Time // in microseconds, as the server has it; a crash of a backend does not change it
	SystemID        string    // of the database cluster, the same on all members; empty where this user may not ask
	ServerVersion   int       // 170005
	Timeline        int       // that is written now; 0 in recovery
}

// Writable reports whether a write would be accepted.
func (a Identity) Writable() bool { return !a.InRecovery && !a.ReadOnly }

// SameServer reports whether both are of the same running postmaster. Nothing is the same as a zero Identity.
func (a Identity) SameServer(b Identity) bool {
	return !a.PostmasterStart.IsZero() && a.PostmasterStart.Equal(b.PostmasterStart) &&
		(a.SystemID == "" || b.SystemID == "" || a.SystemID == b.SystemID)
}

// Identity asks in one round trip. It needs no privilege; without EXECUTE on pg_control_system() (everybody has
// it in 17 and 18) SystemID is empty.
func (c *Conn) Identity(ctx context.Context) (Identity, error) {
	// A function that may not be called fails the statement even in a branch that is not taken: it is a statement of
	// its own, and the last one.
	const sql = `select pg_is_in_recovery(),
 current_setting('transaction_read_only') = 'on' or current_setting('default_transaction_read_only') = 'on',
 (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint,
 current_setting('server_version_num'),
 case when not pg_is_in_recovery() then substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) end;
select system_identifier from pg_control_system()`
	results, err := c.query(ctx, sql)
	if err != nil && !(code(err) == "42501" && len(results) > 0) {
		return Identity{}, err
	}
	r, err := rows(results, 0, 5)
	if err != nil {
		return Identity{}, err
	}
	if len(r) != 1 {
		return Identity{}, fmt.Errorf("postgres: %d rows, 1 expected", len(r))
	}
	id := Identity{InRecovery: r[0].bool(), ReadOnly: r[0].bool(), PostmasterStart: r[0].time(), ServerVersion: int(r[0].int())}
	if hex := r[0].text(); hex != "" {
		tl, err := strconv.ParseUint(hex, 16, 32)
		if err != nil {
			return Identity{}, fmt.Errorf("postgres: timeline: %w", peer.Error(err))
		}
		id.Timeline = int(tl)
	}
	if r[0].err != nil {
		return Identity{}, r[0].err
	}
	if r, err := rows(results, 1, 1); err == nil && len(r) == 1 {
		id.SystemID = r[0].text()
	}
	return id, nil
}

// Replay is how a server has come to the data that it has.
type Replay struct {
	Up time.Duration // since the postmaster was started, by the server's own clock
	// LastXact is the commit time, by the clock of the primary that wrote it, of the last transaction replayed since then; zero: none.
	LastXact time.Time
}

// Replay asks how long the server runs and what it has replayed meanwhile. A promotion leaves that as it was.
func (c *Conn) Replay(ctx context.Context) (Replay, error) {
	results, err := c.query(ctx, `select (extract(epoch from clock_timestamp() - pg_postmaster_start_time()) * 1000000)::bigint,
 (extract(epoch from pg_last_xact_replay_timestamp()) * 1000000)::bigint`)
	if err != nil {
		return Replay{}, err
	}
	r, err := rows(results, 0, 2)
	if err != nil || len(r) != 1 {
		return Replay{}, errors.Join(err, errors.New("postgres: no answer to pg_last_xact_replay_timestamp()"))
	}
	replay := Replay{Up: time.Duration(r[0].int()) * time.Microsecond, LastXact: r[0].time()}
	return replay, r[0].err
}

// Direct reports whether a server process itself is at the other end, and not a pooler in front of it: a pooler gives its clients another
// process id than the server's (PgBouncer 1.18 to 1.26: a random one).
func (c *Conn) Direct(ctx context.Context) (bool, error) {
	results, err := c.query(ctx, "select pg_backend_pid()")
	if err != nil {
		return false, err
	}
	r, err := rows(results, 0, 1)
	if err != nil || len(r) != 1 {
		return false, errors.Join(err, errors.New("postgres: no answer to pg_backend_pid()"))
	}
	return r[0].int() == int64(c.pg.PID()), r[0].err
}

// InRecovery asks pg_is_in_recovery().
func (c *Conn) InRecovery(ctx context.Context) (bool, error) {
	results, err := c.query(ctx, "select pg_is_in_recovery()")
	if err != nil {
		return false, err
	}
	r, err := rows(results, 0, 1)
	if err != nil || len(r) != 1 {
		return false, errors.Join(err, errors.New("postgres: no answer to pg_is_in_recovery()"))
	}
	return r[0].bool(), nil
}

// Transaction is an open transaction of a client's session.
type Transaction struct {
	PID          int32
	User         string
	Database     string
	Application  string
	Client       string // address and port; "" on the Unix socket
	State        string // "active", "idle in transaction", "idle in transaction (aborted)", …
	Start        time.Time
	Age          time.Duration // by the server's clock
	BackendStart time.Time     // with PID: the session, for Terminate
}

const sessions = `select pid, coalesce(usename, ''), coalesce(datname, ''), coalesce(application_name, ''),
 coalesce(host(client_addr) || ':' || client_port, ''), coalesce(state, ''),
 (extract(epoch from xact_start) * 1000000)::bigint,
 greatest(0, (extract(epoch from clock_timestamp() - xact_start) * 1000000)::bigint),
 (extract(epoch from backend_start) * 1000000)::bigint
from pg_stat_activity
where backend_type = 'client backend' and pid <> pg_backend_pid()
order by xact_start, pid;
select not pg_has_role('pg_read_all_stats', 'usage') and exists (select from pg_stat_activity
 where usesysid is not null and datid is not null and backend_type is null)`

// sessions returns all client backends but our own. Those that are in no transaction have no Start.
func (c *Conn) sessions(ctx context.Context) ([]Transaction, error) {
	results, err := c.query(ctx, sessions)
	if err != nil {
		return nil, err
	}
	all, err := rows(results, 0, 9)
	if err != nil {
		return nil, err
	}
	out := make([]Transaction, 0, len(all))
	for _, r := range all {
		t := Transaction{PID: int32(r.int()), User: r.shown(), Database: r.shown(), Application: r.shown(),
			Client: r.shown(), State: r.shown(), Start: r.time(), Age: time.Duration(r.int()) * time.Microsecond, BackendStart: r.time()}
		if r.err != nil {
			return nil, r.err
		}
		out = append(out, t)
	}
	hidden, err := rows(results, 1, 1)
	if err != nil {
		return nil, err
	}
	if len(hidden) == 1 && hidden[0].bool() {
		return out, ErrHidden
	}
	return out, nil
}

// OpenTransactions returns the open transactions of client sessions, the oldest first, without our own. A
// prepared transaction (two-phase) is not among them: it has no session, and a restart does not end it.
// [ErrHidden] comes with those that could be seen.
func (c *Conn) OpenTransactions(ctx context.Context) ([]Transaction, error) {
	all, err := c.sessions(ctx)
	var open []Transaction
	for _, t := range all {
		if !t.Start.IsZero() {
			open = append(open, t)
		}
	}
	return open, err
}

// Backend is a client's session.
type Backend struct {
	User, Database, Application string
	Client                      string // address and port; "" on the Unix socket
	State                       string
	XactStart                   time.Time // zero outside of a transaction
	BackendStart                time.Time
}

// ClientBackends returns the sessions of clients by process id, without our own. PgBouncer shows the same ids in SHOW
// SERVERS (remote_pid). [ErrHidden] comes with those that could be seen.
func (c *Conn) ClientBackends(ctx context.Context) (map[int32]Backend, error) {
	all, err := c.sessions(ctx)
	if all == nil {
		return nil, err
	}
	m := make(map[int32]Backend, len(all))
	for _, t := range all {
		m[t.PID] = Backend{User: t.User, Database: t.Database, Application: t.Application, Client: t.Client, State: t.State,
			XactStart: t.Start, BackendStart: t.BackendStart}
	}
	return m, err
}

// OpenSessions returns who is connected by process id, and whether he is in a transaction: clients, and those that replicate through a
// pooler (replication=database). Sessions that this user may not see are not among them.
func (c *Conn) OpenSessions(ctx context.Context) (map[int32]bool, error) {
	results, err := c.query(ctx, `select pid, xact_start is not null from pg_stat_activity
 where backend_type in ('client backend', 'walsender') and pid <> pg_backend_pid()`)
	if err != nil {
		return nil, err
	}
	all, err := rows(results, 0, 2)
	if err != nil {
		return nil, err
	}
	open := make(map[int32]bool, len(all))
	for _, r := range all {
		pid := int32(r.int())
		open[pid] = r.bool()
		if r.err != nil {
			return nil, r.err
		}
	}
	return open, nil
}

// Terminate ends a client's session if it is still the one that began at backendStart, and reports whether the
// signal was sent; it does not wait for the end. It needs the session's own role, or pg_signal_backend, and for
// a superuser's session a superuser.
func (c *Conn) Terminate(ctx context.Context, pid int32, backendStart time.Time) (bool, error) {
	if backendStart.IsZero() {
		return false, errors.New("postgres: terminate: the session's start is not known")
	}
	results, err := c.query(ctx, fmt.Sprintf(`select pg_terminate_backend(pid) from pg_stat_activity
 where pid = %d and backend_type = 'client backend' and backend_start = '%s'::timestamptz`,
		pid, backendStart.UTC().Format("2006-01-02 15:04:05.000000+00")))
	if err != nil {
		return false, err
	}
	r, err := rows(results, 0, 1)
	if err != nil {
		return false, err
	}
	return len(r) == 1 && r[0].bool(), nil
}

// Standby is a WAL receiver that this server sends to.
type Standby struct {
	Application string // a Patroni member's name
	Client      string // address; "" on the Unix socket
	State       string // "streaming", "catchup", "startup", "backup", "stopping"
	SyncState   string // "async", "potential", "sync", "quorum"
	Flush       int64  // bytes that it has not made durable yet; -1: not known
	Replay      int64  // bytes that it has not replayed yet; -1: not known
}

// Lags returns pg_stat_replication, against the position that this server writes at (in recovery: has
// received). [ErrHidden] comes with names only.
func (c *Conn) Lags(ctx context.Context) ([]Standby, error) {
	const sql = `with here as (select case when pg_is_in_recovery() then pg_last_wal_receive_lsn() else pg_current_wal_lsn() end as lsn)
select application_name, coalesce(host(client_addr), ''), coalesce(state, ''), coalesce(sync_state, ''),
 greatest(0, pg_wal_lsn_diff(here.lsn, flush_lsn))::bigint, greatest(0, pg_wal_lsn_diff(here.lsn, replay_lsn))::bigint,
 flush_lsn is null, replay_lsn is null, not pg_has_role('pg_read_all_stats', 'usage')
from pg_stat_replication, here order by application_name, pid`
	results, err := c.query(ctx, sql)
	if err != nil {
		return nil, err
	}
	all, err := rows(results, 0, 9)
	if err != nil {
		return nil, err
	}
	var out []Standby
	hidden := false
	for _, r := range all {
		s := Standby{Application: r.shown(), Client: r.shown(), State: r.shown(), SyncState: r.shown(),
			Flush: r.intOr(-1), Replay: r.intOr(-1)}
		if r.bool() { // greatest() passes over a null
			s.Flush = -1
		}
		if r.bool() {
			s.Replay = -1
		}
		hidden = hidden || r.bool() && s.State == ""
		if r.err != nil {
			return nil, r.err
		}
		out = append(out, s)
	}
	if hidden {
		return out, ErrHidden
	}
	return out, nil
}
