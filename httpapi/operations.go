package httpapi

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/hooks"
)

// Kinds of operations: the paths that start them.
const (
	kindPause           = "pgbouncer/pause"
	kindResume          = "pgbouncer/resume"
	kindReloadPostgres  = "postgres/reload"
	kindReloadPgBouncer = "pgbouncer/reload"
)

// States of an operation.
const (
	statePending   = "pending" // written down, not begun
	stateRunning   = "running"
	stateSucceeded = "succeeded"
	stateFailed    = "failed"
	stateUnknown   = "unknown" // this server was killed at it, and it is being found out; or it cannot be found out
)

const (
	operationsFile    = "operations.json"
	maxOperations     = 100
	maxKeys           = 10000
	maxSteps          = 100
	maxStepText       = 300
	maxOperationsFile = 16 << 20
	keepFor           = 24 * time.Hour // an operation that has ended, and an Idempotency-Key
	stepsInterval     = 500 * time.Millisecond
	// restartGap is left between the steps that are on the disk and those of the next server: a reader may have seen some that are not.
	restartGap = 1000
)

// Operation is something that was asked for with a POST.
type Operation struct {
	ID      string           `json:"id"`
	Kind    string           `json:"kind" enum:"pgbouncer/pause,pgbouncer/resume,postgres/reload,pgbouncer/reload"`
	State   string           `json:"state" enum:"pending,running,succeeded,failed,unknown" doc:"unknown: the server was killed in the middle; it is being found out, and becomes succeeded or failed where that can be told"`
	Caller  string           `json:"caller" doc:"Name of the token or certificate"`
	Request OperationRequest `json:"request"`
	Created time.Time        `json:"created"`
	Started time.Time        `json:"started,omitzero"`
	Ended   time.Time        `json:"ended,omitzero" doc:"The state does not change any more"`
	Result  *Outcome         `json:"result,omitempty"`
	Problem *Problem         `json:"problem,omitempty" doc:"Why it failed, or is unknown"`
	Steps   []Step           `json:"steps" nullable:"false" doc:"The newest 100; in a list only the last one"`
}

// OperationRequest is what was asked for, defaults filled in where the server knows them.
type OperationRequest struct {
	Lease         string `json:"lease,omitempty" doc:"The pause ends by itself after this"`
	Timeout       string `json:"timeout,omitempty"`
	ConfigVersion string `json:"configVersion,omitempty"`
}

// Outcome is what the same command on the command line would have reported.
type Outcome struct {
	Code     int                  `json:"code" doc:"Exit code of the same command: 0 done, 1 failed, 2 configuration, 3 budget spent, 4 refused"`
	Decision string               `json:"decision"`
	Poolers  []hooks.PoolerReport `json:"poolers,omitempty"`
	Until    time.Time            `json:"until,omitzero" doc:"End of the lease"`
	Reload   *hooks.ReloadReport  `json:"reload,omitempty" doc:"The report of a reload"`
}

// Step is one thing that happened, or a change of the state.
type Step struct {
	ID     int       `json:"id" doc:"Goes up within an operation"`
	Time   time.Time `json:"time"`
	State  string    `json:"state,omitempty" enum:"pending,running,succeeded,failed,unknown" doc:"The state from now on, when it has changed"`
	Target string    `json:"target,omitempty"`
	Pooler string    `json:"pooler,omitempty"`
	Text   string    `json:"text"`
}

// over reports whether the state stays.
func (o Operation) over() bool { return !o.Ended.IsZero() }

func (o Operation) path() string { return "/v1/operations/" + o.ID }

// kept is an operation in the store.
type kept struct {
	Operation
	changed chan struct{}           // closed at the next change
	cancel  context.CancelCauseFunc // ends what runs; nil when nothing does
	done    chan struct{}           // closed when nothing runs any more
	gap     int                     // before the next step's id
}

// keyed is what an Idempotency-Key was used for.
type keyed struct {
	Caller    string    `json:"caller"`
	Key       string    `json:"key"` // its SHA-256: a key is the client's own business
	Request   string    `json:"request"`
	Operation string    `json:"operation"`
	Time      time.Time `json:"time"`
}

// store keeps operations, in memory and in a file. What it hands out are copies.
type store struct {
	path string
	log  *slog.Logger
	now  func() time.Time

	mu         sync.Mutex
	operations []*kept // oldest first
	keys       []keyed // oldest first
	dirty      bool

	saving sync.Mutex // one writer of the file
}

// savedState is the file.
type savedState struct {
	Operations []Operation `json:"operations"`
	Keys       []keyed     `json:"keys"`
}

// openStore reads what an earlier server left. A file that cannot be read is put aside: operations that are forgotten are better than a
// server that does not start.
func openStore(dir string, log *slog.Logger) *store {
	s := &store{path: filepath.Join(dir, operationsFile), log: log, now: time.Now}
	var saved savedState
	text, err := readFile(s.path, maxOperationsFile)
	if errors.Is(err, os.ErrNotExist) {
		return s
	}
	if err == nil {
		decoder := json.NewDecoder(bytes.NewReader(text))
		if err = decoder.Decode(&saved); err == nil && decoder.More() {
			err = errors.New("something follows its end")
		}
	}
	if err != nil {
		log.Error("the operations of before cannot be read, they are put aside", "file", s.path, "error", err)
		_ = os.Rename(s.path, s.path+".broken")
		return s
	}
	for _, o := range saved.Operations {
		if err := o.check(); err != nil {
			log.Error("an operation of before cannot be used", "file", s.path, "error", err)
			continue
		}
		done := make(chan struct{})
		close(done)
		k := &kept{Operation: o, changed: make(chan struct{}), done: done}
		if !o.over() {
			k.gap = restartGap
		}
		s.operations = append(s.operations, k)
	}
	s.keys = saved.Keys
	s.forget()
	return s
}

// check finds what this server cannot have written.
func (o *Operation) check() error {
	switch {
	case !isID(o.ID):
		return errors.New("it has no id")
	case !slices.Contains([]string{kindPause, kindResume, kindReloadPostgres, kindReloadPgBouncer}, o.Kind):
		return fmt.Errorf("operation %s is of no known kind", o.ID)
	case !slices.Contains([]string{statePending, stateRunning, stateSucceeded, stateFailed, stateUnknown}, o.State):
		return fmt.Errorf("operation %s is in no known state", o.ID)
	case o.over() && (o.State == statePending || o.State == stateRunning), !o.over() && (o.State == stateSucceeded || o.State == stateFailed):
		return fmt.Errorf("operation %s contradicts itself", o.ID)
	case len(o.Steps) > maxSteps || o.Created.IsZero():
		return fmt.Errorf("operation %s is not as it was written", o.ID)
	}
	last := 0
	for _, step := range o.Steps {
		if step.ID <= last {
			return fmt.Errorf("the steps of operation %s are in disorder", o.ID)
		}
		last = step.ID
	}
	if o.Steps == nil {
		o.Steps = []Step{}
	}
	return nil
}

func newID() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails (crypto/rand, Go 1.24)
	return hex.EncodeToString(b)
}

func isID(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 8
}

// forget drops what need not be kept any more. What has not ended is kept.
func (s *store) forget() {
	oldest := s.now().Add(-keepFor)
	s.operations = slices.DeleteFunc(s.operations, func(k *kept) bool { return k.over() && k.Ended.Before(oldest) })
	for excess := len(s.operations) - maxOperations; excess > 0; excess-- {
		i := slices.IndexFunc(s.operations, func(k *kept) bool { return k.over() })
		if i < 0 {
			break
		}
		s.operations = slices.Delete(s.operations, i, i+1)
	}
	s.keys = slices.DeleteFunc(s.keys, func(k keyed) bool { return k.Time.Before(oldest) })
	if excess := len(s.keys) - maxKeys; excess > 0 {
		s.keys = slices.Delete(s.keys, 0, excess)
	}
}

// save writes the file and blocks until it is on the disk.
func (s *store) save() error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	saved := savedState{Operations: make([]Operation, 0, len(s.operations)), Keys: slices.Clone(s.keys)}
	for _, k := range s.operations {
		saved.Operations = append(saved.Operations, k.copy())
	}
	s.dirty = false
	s.mu.Unlock()
	err := hooks.WriteState(s.path, saved)
	if err != nil {
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
	}
	return err
}

// saveOften writes steps to the file, twice a second at most, until the context ends.
func (s *store) saveOften(ctx context.Context) {
	tick := time.NewTicker(stepsInterval)
	defer tick.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		dirty := s.dirty
		s.mu.Unlock()
		if !dirty {
			continue
		}
		err := s.save()
		if err != nil && !failed {
			s.log.Error("cannot write the operations; a restart of serve would not know them", "file", s.path, "error", err)
		}
		failed = err != nil
	}
}

func (k *kept) copy() Operation {
	o := k.Operation
	o.Steps = slices.Clone(o.Steps)
	if o.Steps == nil {
		o.Steps = []Step{}
	}
	return o
}

// list is every operation, newest first, each with its last step only: a hundred with all of theirs are megabytes.
func (s *store) list() []Operation {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	list := make([]Operation, 0, len(s.operations))
	for _, k := range slices.Backward(s.operations) {
		o := k.Operation
		o.Steps = slices.Clone(o.Steps[max(0, len(o.Steps)-1):])
		list = append(list, o)
	}
	return list
}

// get is one operation, with a channel that is closed when it changes.
func (s *store) get(id string) (o Operation, changed <-chan struct{}, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.find(id); k != nil {
		return k.copy(), k.changed, true
	}
	return Operation{}, nil, false
}

func (s *store) find(id string) *kept {
	for _, k := range s.operations {
		if k.ID == id {
			return k
		}
	}
	return nil
}

// running is what keeps others from being started.
func (s *store) running() *kept {
	for _, k := range s.operations {
		if k.State == statePending || k.State == stateRunning {
			return k
		}
	}
	return nil
}

// errUnsaved says that the file cannot be written.
type errUnsaved struct{ error }

// demand is a POST.
type demand struct {
	kind    string
	request OperationRequest
	caller  string
	key     string // Idempotency-Key, "" without
	body    []byte
	anytime bool // also while another operation runs, and when nothing can be written
}

func sum(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// begin writes down an operation, or finds the one that an Idempotency-Key stands for; fresh tells which. It blocks until it is on the disk:
// what cannot be kept is not begun, except what may be begun at any time.
func (s *store) begin(d demand) (k *kept, fresh bool, err error) {
	s.mu.Lock()
	s.forget()
	key, request := sum(d.key), sum(d.kind, string(d.body))
	if d.key != "" {
		for _, x := range s.keys {
			if x.Caller != d.caller || x.Key != key {
				continue
			}
			defer s.mu.Unlock()
			if x.Request != request {
				return nil, false, keyReused.problem("this Idempotency-Key was used within 24 h for another path or body")
			}
			if k := s.find(x.Operation); k != nil {
				return k, false, nil
			}
			return nil, false, operationForgotten.problem("this Idempotency-Key was used within 24 h, and its operation is not among the newest any more")
		}
	}
	if other := s.running(); other != nil && !d.anytime {
		defer s.mu.Unlock()
		p := operationRunning.problem(fmt.Sprintf("%s is %s", other.Kind, other.State)).header("Location", other.path()).retryAfter(2 * time.Second)
		p.Operation = other.path()
		return nil, false, p
	}
	k = &kept{changed: make(chan struct{}), done: make(chan struct{}),
		Operation: Operation{ID: newID(), Kind: d.kind, Caller: d.caller, Request: d.request, Created: s.now().UTC()}}
	s.step(k, Step{State: statePending, Text: "asked for by " + d.caller})
	s.operations = append(s.operations, k)
	if d.key != "" {
		s.keys = append(s.keys, keyed{Caller: d.caller, Key: key, Request: request, Operation: k.ID, Time: s.now().UTC()})
	}
	s.mu.Unlock()
	if err := s.save(); err != nil && d.anytime {
		s.log.Error("an operation could not be written down; it is begun all the same", "file", s.path, "operation", k.ID, "error", err)
	} else if err != nil {
		s.mu.Lock()
		s.operations = slices.DeleteFunc(s.operations, func(x *kept) bool { return x == k })
		s.keys = slices.DeleteFunc(s.keys, func(x keyed) bool { return x.Operation == k.ID })
		close(k.done)
		s.mu.Unlock()
		return nil, false, errUnsaved{err}
	}
	return k, true, nil
}

// step adds one; with the lock held.
func (s *store) step(k *kept, step Step) {
	step.ID = 1
	if n := len(k.Steps); n > 0 {
		step.ID = k.Steps[n-1].ID + 1 + k.gap
		k.gap = 0
	}
	if step.Time.IsZero() {
		step.Time = s.now()
	}
	step.Time = step.Time.UTC()
	step.Text = clip(step.Text, maxStepText)
	if step.State != "" {
		k.State = step.State
	}
	if len(k.Steps) >= maxSteps {
		k.Steps = slices.Delete(k.Steps, 1, 2) // the first tells who asked
	}
	k.Steps = append(k.Steps, step)
	s.dirty = true
	close(k.changed)
	k.changed = make(chan struct{})
}

// progress adds a step to what runs.
func (s *store) progress(k *kept, step Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !k.over() {
		s.step(k, step)
	}
}

// start says that it runs, and how to end it. It blocks until that is on the disk; if it cannot be, nothing may be begun, except at any time.
func (s *store) start(k *kept, cancel context.CancelCauseFunc) error {
	s.mu.Lock()
	k.cancel = cancel
	k.Started = s.now().UTC()
	s.step(k, Step{State: stateRunning, Text: "started"})
	s.mu.Unlock()
	return s.save()
}

// settle says how it ended. An unknown outcome that may yet be found out has not ended. It blocks until that is on the disk.
func (s *store) settle(k *kept, state string, outcome *Outcome, problem *Problem, text string, final bool) {
	s.mu.Lock()
	if outcome != nil {
		k.Result = outcome
	}
	k.Problem = problem
	if problem != nil {
		problem.Operation, problem.headers = k.path(), nil
	}
	if final {
		k.Ended = s.now().UTC()
	}
	s.step(k, Step{State: state, Text: text})
	k.cancel = nil
	select {
	case <-k.done:
	default:
		close(k.done)
	}
	s.mu.Unlock()
	if err := s.save(); err != nil {
		s.log.Error("cannot write the operations; a restart of serve would not know the outcome", "file", s.path, "error", err)
	}
}
