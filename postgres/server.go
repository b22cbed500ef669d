package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/peer"
)

// closeTimeout bounds the good-bye on a connection. Nobody waits for an answer to it.
const closeTimeout = 100 * time.Millisecond

// longAgo as a deadline ends a read or write at once.
var longAgo = time.Unix(1, 0)

// Server is where a server is and how to log in. It is safe for concurrent use.
type Server struct {
	config    *pgconn.Config
	elsewhere *elsewhere
	single    bool         // of At and Once: one Connect makes one connection
	plain     *atomic.Bool // of At and Once: the server has refused logins with TLS, and sslmode=prefer goes without
	err       error        // of At, returned by Connect
}

// Open parses the connection string; it does not connect. Its errors never show the string, because
// a password in one that does not parse cannot be told from the rest.
func Open(connString string) (*Server, error) {
	config, err := pgconn.ParseConfig(connString)
	if err != nil {
		return nil, parseError(err)
	}
	return &Server{config: config, elsewhere: parseElsewhere(connString)}, nil
}

func parseError(err error) error {
	const help = "it looks like postgres://USER@HOST:5432/DATABASE or host=/var/run/postgresql user=USER dbname=DATABASE"
	// The file that a setting names is worth telling, and it is no secret.
	var path *fs.PathError
	if errors.As(err, &path) {
		return fmt.Errorf("postgres: connection string: %w", path)
	}
	text := err.Error()
	for _, part := range []string{"invalid port", "invalid connect_timeout", "failed to configure TLS", "failed to read service",
		"invalid sslcertmode", "sslmode is invalid", "unknown target_session_attrs"} {
		if strings.Contains(text, part) {
			return fmt.Errorf("postgres: the connection string does not parse (%s); %s", part, help)
		}
	}
	return fmt.Errorf("postgres: the connection string does not parse; %s", help)
}

// String is for logs: user, address and database.
func (s *Server) String() string {
	c := s.config
	return fmt.Sprintf("%s@%s/%s", c.User, net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), c.Database)
}

// Conn is one connection. It is for one goroutine at a time.
type Conn struct {
	pg  *pgconn.PgConn
	raw net.Conn // below TLS

	secret string // the password, which no error may repeat
}

// failed is an error of pgconn's as a person may see it: the server's part of it is one short line (see [peer.Text]).
func (c *Conn) failed(err error) error { return peer.Error(fmt.Errorf("postgres: %w", err), c.secret) }

// Connect logs in as application "pgbaton". It blocks until it is in or ctx is done.
func (s *Server) Connect(ctx context.Context) (*Conn, error) {
	if s.err != nil {
		return nil, s.err
	}
	c := &Conn{}
	config := s.config.Copy()
	config.RuntimeParams["application_name"] = "pgbaton"
	// pgconn dials again to send a cancel request when a context ends during a statement, and keeps
	// that up for 15 s. Nothing of ours is worth cancelling.
	dial := config.DialFunc
	if s.single {
		dial = dialUntilAnswered(dial)
	}
	// It may do so from a goroutine of its own while the login goes on, or after it has failed.
	var over, reached atomic.Bool
	defer over.Store(true)
	config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if over.Load() {
			return nil, errors.New("no cancel requests")
		}
		raw, err := dial(ctx, network, addr)
		if err == nil {
			reached.Store(true)
		}
		return raw, err
	}
	peer.Bound(config)
	c.secret = config.Password
	preferred := s.negotiation(config)
	pg, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		if preferred && code(err) == "28000" {
			s.plain.Store(true) // pg_hba.conf may let in without TLS only: the next look shows it
		}
		if !reached.Load() && !NotRunning(err) {
			err = &unreachable{err}
		}
		return nil, c.failed(err)
	}
	c.pg, c.raw = pg, belowTLS(pg.Conn())
	return c, nil
}

func belowTLS(c net.Conn) net.Conn {
	if secure, ok := c.(*tls.Conn); ok {
		return secure.NetConn()
	}
	return c
}

// negotiation says how TLS comes about, and reports whether a refusal may be about TLS alone.
func (s *Server) negotiation(config *pgconn.Config) (preferred bool) {
	if !s.single {
		inOneConnection(config, true)
		return false
	}
	if s.plain.Load() && len(config.Fallbacks) == 1 && config.Fallbacks[0].TLSConfig == nil {
		config.TLSConfig, config.Fallbacks = nil, nil
	}
	return inOneConnection(config, false)
}

// Close says good-bye and closes the connection; it waits 0.1 s at most. It may be called twice.
func (c *Conn) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = c.pg.Close(ctx)
	_ = c.raw.Close()
}

// RemoteAddr is the address as it was reached, for logs: "127.0.0.1:5432" or the socket's path.
func (c *Conn) RemoteAddr() string { return c.raw.RemoteAddr().String() }

// maxResults is how many statements one round trip has at most.
const maxResults = 16

// query runs statements in one round trip and returns the rows of each one that succeeded.
func (c *Conn) query(ctx context.Context, sql string) ([]*pgconn.Result, error) {
	results, err := c.read(c.pg.Exec(ctx, sql))
	if err != nil {
		if c.pg.IsClosed() {
			_ = c.raw.Close() // or pgconn drains it for 15 s
		}
		err = c.failed(err)
	}
	return results, err
}

func (c *Conn) read(answers *pgconn.MultiResultReader) ([]*pgconn.Result, error) {
	var results []*pgconn.Result
	for answers.NextResult() {
		if len(results) == maxResults {
			_ = c.raw.Close() // the rest is not waited for
			_ = answers.Close()
			return results, &peer.LimitError{What: "answer", Limit: maxResults, Unit: "results"}
		}
		results = append(results, answers.ResultReader().Read())
	}
	return results, answers.Close()
}

// NotRunning reports whether nobody listens there: connection refused, or no socket.
func NotRunning(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}

// Lost reports whether the connection ended under the statement, or before it: the server went away, or a context
// ended earlier. Whether the statement was done is not known.
func Lost(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed) || errors.Is(err, pgconn.ErrConnClosed)
}

// unreachable is an error of [Server.Connect] that came before anybody at the address had answered.
type unreachable struct{ error }

func (u *unreachable) Unwrap() error { return u.error }

// Unreachable reports whether nobody at the address has answered at all: a name that does not resolve, no route, a packet filter. A
// refused connection is an answer.
func Unreachable(err error) bool {
	var u *unreachable
	return errors.As(err, &u)
}

// LoginRefused reports whether the server has answered and did not let this user into this database: besides [Denied], the database does
// not exist (3D000) or takes no connections (55000).
func LoginRefused(err error) bool {
	return Denied(err) || code(err) == "3D000" || code(err) == "55000"
}

// Denied reports whether a password, pg_hba.conf, the way to log in (require_auth) or a missing privilege is in the way.
func Denied(err error) bool {
	switch code(err) {
	case "28P01", "28000", "42501":
		return true
	}
	var grant *GrantError
	return errors.As(err, &grant) || wrongMethod(err)
}

// wrongMethod reports whether the server asked for another way to log in than require_auth allows. pgconn has no type for it.
func wrongMethod(err error) bool {
	return err != nil && strings.Contains(err.Error(), "require_auth check failed")
}

// Timeout reports whether the context's deadline, or connect_timeout, ended it.
func Timeout(err error) bool {
	return pgconn.Timeout(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}
