package config

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Error is a configuration that cannot be used: what is wrong, where, and what to write instead.
// A command that meets one ends with exit code 2. Its text never holds a password.
type Error struct {
	File    string // the file it was read from; "" for flags, environment and defaults
	Line    int    // 0 when it has none
	Key     string // dotted, as in the file; or the flag or variable it came from
	Problem string
	Hint    string // what to do about it; a question is shown in brackets
	Err     error  // the cause, when there is one
}

// Error is one line: file, line, key, problem, hint, each where there is one.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d", e.Line)
		}
		b.WriteString(": ")
	}
	// "unknown key "pause.bugdet"" names it already.
	if e.Key != "" && !strings.Contains(e.Problem, `"`+e.Key+`"`) && !strings.HasPrefix(e.Problem, e.Key+" ") {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Problem)
	switch {
	case strings.HasSuffix(e.Hint, "?"):
		b.WriteString(" (" + e.Hint + ")")
	case e.Hint != "":
		b.WriteString(": " + e.Hint)
	}
	return b.String()
}

// Unwrap is the cause, such as fs.ErrNotExist of a file that is not there.
func (e *Error) Unwrap() error { return e.Err }

// IsInvalid reports whether err is, or wraps, a configuration that cannot be used.
func IsInvalid(err error) bool {
	var e *Error
	return errors.As(err, &e)
}

// ttlReserve is how long before the leader lock can expire a guard must be gone: another member
// may be primary the moment it does.
const ttlReserve = 5 * time.Second

// CheckTTL says whether a guard may wait for budget when Patroni's leader lock lives for ttl.
// The error is an *Error that says what to change.
func CheckTTL(budget, ttl time.Duration) error {
	longest := ttl - ttlReserve
	if budget <= longest {
		return nil
	}
	return &Error{
		Key: "pause.budget",
		Problem: fmt.Sprintf("pause.budget %s is longer than Patroni's ttl allows: ttl %s less %s = %s; lower pause.budget or raise ttl (patronictl edit-config)",
			budget, ttl, ttlReserve, longest),
	}
}
