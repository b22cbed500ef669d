package config

import (
	"errors"

	"github.com/pgbaton/pgbaton/file"
)

// Error is a configuration that cannot be used: what is wrong, where, and what to write instead.
// A command that meets one ends with exit code 2. Its text never holds a password. Name is the key, dotted as in the file, or
// the flag or variable that the value came from; File is "" for flags, environment and defaults.
type Error file.Problem

// Error is one line: file, line, key, problem, hint, each where there is one.
func (e *Error) Error() string { return file.Problem(*e).String() }

// Unwrap is the cause, such as fs.ErrNotExist of a file that is not there.
func (e *Error) Unwrap() error { return e.Err }

// IsInvalid reports whether err is, or wraps, a configuration that cannot be used.
func IsInvalid(err error) bool {
	var e *Error
	return errors.As(err, &e)
}
