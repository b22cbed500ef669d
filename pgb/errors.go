package pgb

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/pgbaton/pgbaton/peer"
)

var (
	// ErrAlreadyPaused is PgBouncer's answer to PAUSE when a pause stands already. It says
	// nothing about transactions that still run.
	ErrAlreadyPaused = errors.New("already paused")
	// ErrNotPaused is its answer to RESUME when nothing is paused.
	ErrNotPaused = errors.New("not paused")
	// ErrNoConsole says that a pooler has no admin console configured: it takes signals only.
	ErrNoConsole = errors.New("no admin console configured")
	// ErrAuthMethod says that a console asks for the password in a way that require_auth does not allow.
	ErrAuthMethod = errors.New("the console asks for the password by another method than require_auth allows " +
		"(scram-sha-256 where the dsn does not say)")
	// ErrNotPgBouncer says that the process behind a pidfile is something else. It was not signalled.
	ErrNotPgBouncer = errors.New("not a pgbouncer process")
	// ErrForeignPidfile says that a pidfile is of another user than the process that it names. It was not signalled.
	ErrForeignPidfile = errors.New("the pidfile belongs to another user; its process was not signalled")
	// ErrNoHandler says that a process would die of the signal, having no handler for it. It was not sent.
	ErrNoHandler = errors.New("the process has no handler for the signal")
)

// NotDrainedError says that a pooler was told to pause and server connections were still in use when
// the time was up. The pause stands until somebody resumes.
type NotDrainedError struct {
	Pooler string
	Active int // server connections that were still open; -1 when the pooler could not say
}

func (e *NotDrainedError) Error() string {
	if e.Active < 0 {
		return fmt.Sprintf("pooler %s: PAUSE not answered in time", e.Pooler)
	}
	return fmt.Sprintf("pooler %s: %d server connection(s) still in use when the time for PAUSE was up", e.Pooler, e.Active)
}

// ConsoleError is a failure of one pooler's admin console, with what was being done.
type ConsoleError struct {
	Pooler string // address, no secrets
	Op     string // "connect" or the statement
	Err    error
}

func (e *ConsoleError) Error() string {
	return fmt.Sprintf("pooler %s: %s: %v", e.Pooler, peer.Text(e.Op), e.Err) // a statement may name a database that clients have made up
}

func (e *ConsoleError) Unwrap() error { return e.Err }

// CodeBadFile is the SQLSTATE of a RELOAD whose file PgBouncer refuses, 1.25 and later.
const CodeBadFile = "F0000"

// ServerError is an ErrorResponse of PgBouncer, or of what answers in its place.
type ServerError struct {
	Code    string // SQLSTATE; PgBouncer uses 08P01 for nearly everything
	Message string // one line, see [peer.Text]
}

func (e *ServerError) Error() string { return e.Message }

func newServerError(code, message, secret string) *ServerError {
	return &ServerError{Code: peer.Text(code, secret), Message: peer.Text(message, secret)}
}

// serverError gives the errors that have a meaning of their own their own value. The texts differ:
// 1.18 to 1.25 say "already suspended/paused" and "pooler is not paused/suspended", 1.26 says
// "already paused" and "pooler is not paused"; a database says "database X is not paused".
func serverError(m *pgproto3.ErrorResponse, secret string) error {
	switch {
	case strings.HasPrefix(m.Message, "already "):
		return ErrAlreadyPaused
	case strings.Contains(m.Message, "is not paused"):
		return ErrNotPaused
	}
	return newServerError(m.Code, m.Message, secret)
}
