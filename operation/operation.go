package operation

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"crypto/rand"

	"github.com/pgbaton/pgbaton/api"
)

// Operation is something that was asked for. Kinds and states are those of package api.
type Operation struct {
	ID      string               `json:"id"`
	Member  string               `json:"member"` // that took it
	Kind    string               `json:"kind"`
	Run     string               `json:"run,omitempty"` // of planned maintenance: its id, also in the name of its file
	State   string               `json:"state"`
	Caller  string               `json:"caller"`
	Request api.OperationRequest `json:"request"`
	Created time.Time            `json:"created"`
	Started time.Time            `json:"started,omitzero"`
	Ended   time.Time            `json:"ended,omitzero"` // the state does not change any more
	Result  *api.Outcome         `json:"result,omitempty"`
	Failure *Failure             `json:"failure,omitempty"` // why it failed, or is unknown
	Steps   []api.Step           `json:"steps"`             // the newest maxSteps, and the first
}

// Failure is why an operation failed, or is unknown.
type Failure struct {
	Name            string `json:"name"`  // stable, for programs: one of the constants below, or api.Problem…
	Class           string `json:"class"` // what to do about it: a class of package api
	Detail          string `json:"detail"`
	Pooler          string `json:"pooler,omitempty"`          // the one that failed, when it is one
	ObservedVersion string `json:"observedVersion,omitempty"` // of the configuration, the last that a reload has seen
}

// Names of failures, besides those that package api has for what stops a reload.
const (
	Interrupted          = "interrupted"           // ended before its end
	UnknownOutcome       = "unknown-outcome"       // it cannot be told what it came to, or not yet
	NotDrained           = "not-drained"           // a pause was taken back because transactions ran too long
	PoolerFailed         = "pooler-failed"         // a pooler did not do it
	InvalidConfiguration = "invalid-configuration" // of pgbaton
	Refused              = "refused"               // a precondition is not met
	MaintenanceFailed    = "maintenance-failed"    // a run of planned maintenance went wrong
	MaintenanceTimeout   = "maintenance-timeout"   // a step of it has waited for as long as it may
	Stopped              = "stopped"               // a run of it ended after a step, because the server did
	ReloadFailed         = "reload-failed"         // for a reason that has no name of its own
	NotKept              = "state-not-kept"        // it could not be written down, and was not begun
	Fault                = "internal-error"        // of pgbaton
)

// Over reports whether the state stays as it is.
func (o Operation) Over() bool { return !o.Ended.IsZero() }

// What keeps an operation from being begun.
var (
	ErrBusy      = errors.New("another pgbaton serve works with this state directory")
	ErrEnding    = errors.New("serve is shutting down: no operation is started any more")
	ErrKeyReused = errors.New("this key was used within 24 h for another kind of operation or another request")
	ErrForgotten = errors.New("this key was used within 24 h, and its operation is not among the newest any more")
)

// RunningError says that another operation runs.
type RunningError struct{ Operation Operation }

func (e *RunningError) Error() string { return e.Operation.Kind + " is " + e.Operation.State }

// UnsavedError says that the operation could not be written down, so it was not begun.
type UnsavedError struct{ Err error }

func (e *UnsavedError) Error() string { return "the operation was not begun: " + e.Err.Error() }

// Unwrap is what the disk said.
func (e *UnsavedError) Unwrap() error { return e.Err }

func newID() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails (crypto/rand, Go 1.24)
	return hex.EncodeToString(b)
}

func isID(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 8
}

// check finds what no Runner can have written.
func (o *Operation) check(kinds map[string]judge) error {
	switch {
	case !isID(o.ID):
		return errors.New("it has no id")
	case kinds[o.Kind] == nil:
		return fmt.Errorf("operation %s is of no known kind", o.ID)
	case !slices.Contains([]string{api.Pending, api.Running, api.Succeeded, api.Failed, api.Unknown}, o.State):
		return fmt.Errorf("operation %s is in no known state", o.ID)
	case o.Over() && (o.State == api.Pending || o.State == api.Running), !o.Over() && (o.State == api.Succeeded || o.State == api.Failed):
		return fmt.Errorf("operation %s is inconsistent", o.ID)
	case len(o.Steps) > maxSteps || o.Created.IsZero():
		return fmt.Errorf("operation %s has too many steps or no time of creation", o.ID)
	}
	last := 0
	for _, step := range o.Steps {
		if step.ID <= last {
			return fmt.Errorf("the steps of operation %s are out of order", o.ID)
		}
		last = step.ID
	}
	if o.Steps == nil {
		o.Steps = []api.Step{}
	}
	return nil
}
