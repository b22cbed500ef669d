package config

import (
	"errors"
	"slices"
	"strings"

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

// Errors are several.
type Errors []*Error

// Error is all of them in one line.
func (e Errors) Error() string {
	texts := make([]string, len(e))
	for i, one := range e {
		texts[i] = one.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap is each of them.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, one := range e {
		out[i] = one
	}
	return out
}

// ErrStateDir is wrapped by what is wrong with the state directory and nothing else: the rest of the configuration can be used, without
// leases and journal.
var ErrStateDir = errors.New("state directory cannot be used")

// IsStateDir reports whether nothing is wrong but the state directory ([ErrStateDir]).
func IsStateDir(err error) bool {
	if all, ok := errors.AsType[Errors](err); ok {
		return !slices.ContainsFunc(all, func(e *Error) bool { return !errors.Is(e, ErrStateDir) })
	}
	return errors.Is(err, ErrStateDir)
}

// IsInvalid reports whether err is, or wraps, a configuration that cannot be used.
func IsInvalid(err error) bool {
	_, ok := errors.AsType[*Error](err)
	return ok
}

func asError(err error) *Error {
	if p, ok := errors.AsType[*file.Problem](err); ok {
		return (*Error)(p)
	}
	return &Error{Problem: err.Error(), Err: err}
}
