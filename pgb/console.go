package pgb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/pgbaton/pgbaton/peer"
)

// Console is one connection to the admin console of one PgBouncer process. It is not safe for use by
// several goroutines at once.
type Console struct {
	pooler  string
	version string
	secret  string // the password, which no error may repeat
	conn    net.Conn
	front   *pgproto3.Frontend
	dead    error // why it can no longer be used
	pending string
}

// maxRows bounds what is kept of one answer, besides the bytes ([peer.MaxAnswer]). A pooler of 100,000 clients shows as many in SHOW
// CLIENTS, which is never asked for here; SHOW SERVERS and SHOW POOLS stay far below.
const maxRows = 100_000

// Result is the answer to one statement.
type Result struct {
	Columns []string
	Rows    [][]string
	Tag     string // command tag: "PAUSE", "SHOW", …
}

// Get returns the column's value in a row, "" when this version has no such column. Columns move
// between versions, so they are read by name.
func (r *Result) Get(row int, column string) string {
	for i, name := range r.Columns {
		if name == column && i < len(r.Rows[row]) {
			return r.Rows[row][i]
		}
	}
	return ""
}

// Int is Get for a number; what is none counts as 0.
func (r *Result) Int(row int, column string) int {
	n, _ := strconv.Atoi(r.Get(row, column))
	return n
}

// Connect opens an admin console and blocks until it can take a statement or the context ends. name
// is the pooler's name for errors.
func Connect(ctx context.Context, name string, cfg *pgconn.Config) (*Console, error) {
	return connectAs(ctx, name, cfg, "pgbaton")
}

func connectAs(ctx context.Context, name string, cfg *pgconn.Config, application string) (*Console, error) {
	cfg = cfg.Copy()
	// PgBouncer refuses start-up parameters that it does not know; this one it shows in SHOW CLIENTS.
	cfg.RuntimeParams = map[string]string{"application_name": application}
	cfg.ValidateConnect, cfg.AfterConnect = nil, nil
	cfg.OnNotice = nil
	peer.Bound(cfg)
	// By another method whoever listens there would be shown the password, or what it can be guessed from. "none" is a server that
	// asks for none: it is shown nothing.
	if cfg.RequireAuth == "" && cfg.Password != "" && !strings.HasPrefix(cfg.Host, "/") && !strings.HasPrefix(cfg.Host, "@") {
		cfg.RequireAuth = "scram-sha-256,none"
	}
	pg, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, &ConsoleError{Pooler: name, Op: "connect", Err: connectCause(err, cfg.Password)}
	}
	hijacked, err := pg.Hijack()
	if err != nil {
		_ = pg.Conn().Close()
		return nil, &ConsoleError{Pooler: name, Op: "connect", Err: err}
	}
	return &Console{
		pooler:  name,
		version: peer.Text(hijacked.ParameterStatuses["server_version"], cfg.Password),
		secret:  cfg.Password,
		conn:    hijacked.Conn,
		// Not a new one: pgconn reads ahead in the background when a write took it 15 ms, and what it has got
		// is in there. Its SyncConn, which is meant for that, sends "-- ping", which the console refuses.
		front: hijacked.Frontend,
	}, nil
}

// connectCause drops pgconn's wrapping, which repeats user and database of the connection string; the
// pooler's name is told by the caller.
func connectCause(err error, secret string) error {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return newServerError(server.Code, server.Message, secret)
	}
	var limit *peer.LimitError
	if errors.As(err, &limit) {
		return limit
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	if errors.Is(err, context.Canceled) {
		return context.Canceled
	}
	if strings.Contains(err.Error(), "require_auth check failed") {
		return fmt.Errorf("%w: set auth_type = scram-sha-256 in PgBouncer, or add require_auth=md5 to the dsn", ErrAuthMethod)
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		err = connect.Unwrap()
	}
	return peer.Error(err, secret)
}

// Version is PgBouncer's own, as "1.24.1/bouncer".
func (c *Console) Version() string { return c.version }

// Exec sends one statement and blocks until its answer is complete or the context ends. In the latter
// case the connection is closed without a cancel request: what the statement started goes on.
func (c *Console) Exec(ctx context.Context, statement string) (*Result, error) {
	if err := c.Send(ctx, statement); err != nil {
		return nil, err
	}
	return c.Receive(ctx)
}

// Send sends a statement and returns as soon as it is on its way. Receive takes the answer.
func (c *Console) Send(ctx context.Context, statement string) error {
	if c.dead != nil {
		return c.fail(statement, c.dead)
	}
	if c.pending != "" {
		return c.fail(statement, fmt.Errorf("the answer to %s has not been read", c.pending))
	}
	stop := c.watch(ctx)
	defer stop()
	c.front.Send(&pgproto3.Query{String: statement})
	if err := c.front.Flush(); err != nil {
		return c.die(ctx, statement, err)
	}
	c.pending = statement
	return nil
}

// Receive blocks until the answer to the statement that was sent is complete, or the context ends.
func (c *Console) Receive(ctx context.Context) (*Result, error) {
	statement := c.pending
	if c.dead != nil {
		return nil, c.fail(statement, c.dead)
	}
	stop := c.watch(ctx)
	defer stop()
	result := &Result{}
	var failed error
	for {
		message, err := c.front.Receive()
		if err != nil {
			return nil, c.die(ctx, statement, peer.Error(err, c.secret))
		}
		switch m := message.(type) {
		case *pgproto3.RowDescription:
			result.Columns = result.Columns[:0]
			for _, f := range m.Fields {
				result.Columns = append(result.Columns, string(f.Name))
			}
		case *pgproto3.DataRow:
			if len(result.Rows) >= maxRows {
				return nil, c.die(ctx, statement, fmt.Errorf("more than %d rows", maxRows))
			}
			row := make([]string, len(m.Values))
			for i, v := range m.Values {
				row[i] = string(v)
			}
			result.Rows = append(result.Rows, row)
		case *pgproto3.CommandComplete:
			result.Tag = peer.Text(string(m.CommandTag))
		case *pgproto3.ErrorResponse:
			failed = serverError(m, c.secret)
			if m.Severity == "FATAL" {
				return nil, c.die(ctx, statement, failed)
			}
		case *pgproto3.ReadyForQuery:
			c.pending = ""
			if failed != nil {
				return nil, c.fail(statement, failed)
			}
			return result, nil
		}
	}
}

// Close ends the connection. A PAUSE that waits on it goes on to stand.
func (c *Console) Close() {
	if c.dead == nil {
		c.dead = net.ErrClosed
		_ = c.conn.SetDeadline(time.Now().Add(50 * time.Millisecond))
		c.front.Send(&pgproto3.Terminate{})
		_ = c.front.Flush()
	}
	_ = c.conn.Close()
}

// Usable reports whether the console can take a statement now.
func (c *Console) Usable() bool { return c != nil && c.dead == nil && c.pending == "" }

// watch makes the connection's reads and writes end with the context.
func (c *Console) watch(ctx context.Context) (stop func()) {
	_ = c.conn.SetDeadline(time.Time{})
	done := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		_ = c.conn.SetDeadline(time.Unix(1, 0))
		close(done)
	})
	return func() {
		if !cancel() {
			<-done // else it would end the next statement
		}
	}
}

func (c *Console) die(ctx context.Context, statement string, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	c.dead = err
	_ = c.conn.Close()
	return c.fail(statement, err)
}

func (c *Console) fail(statement string, err error) error {
	return &ConsoleError{Pooler: c.pooler, Op: statement, Err: err}
}
