package operation

import (
	"bytes"
	"context"
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

	"github.com/pgbaton/pgbaton/state"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/file"
)

// What is kept.
const (
	MaxOperations = 100
	KeepFor       = 24 * time.Hour // an operation that has ended, and a key
)

const (
	operationsFile    = "operations.json"
	maxKeys           = 10000
	maxSteps          = 100
	maxOperationsFile = 16 << 20
	stepsInterval     = 500 * time.Millisecond
	// restartGap is left between the steps that are on the disk and those of the next process: a reader may have seen some that are not.
	restartGap = 1000
)

// kept is an operation in the store.
type kept struct {
	Operation
	changed chan struct{}           // closed at the next change
	cancel  context.CancelCauseFunc // ends what runs; nil when nothing does
	done    chan struct{}           // closed when nothing runs any more
	gap     int                     // before the next step's id
}

// keyed is what a key was used for.
type keyed struct {
	Caller    string    `json:"caller"`
	Key       string    `json:"key"` // its SHA-256: a key is the caller's own business
	Request   string    `json:"request"`
	Operation string    `json:"operation"`
	Time      time.Time `json:"time"`
}

// store keeps operations, in memory and in a file. What it hands out are copies.
type store struct {
	path   string
	member string // this one's name
	log    *slog.Logger
	now    func() time.Time
	limit  int // bytes of the file

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

// openStore reads what an earlier process left. A file that cannot be read is put aside: operations that are forgotten are better than a
// process that does not start.
func openStore(dir string, kinds map[string]judge, log *slog.Logger) *store {
	s := &store{limit: maxOperationsFile, path: filepath.Join(dir, operationsFile), log: log, now: time.Now}
	var saved savedState
	text, err := file.Read(s.path, maxOperationsFile)
	if errors.Is(err, os.ErrNotExist) {
		return s
	}
	if err == nil {
		decoder := json.NewDecoder(bytes.NewReader(text))
		if err = decoder.Decode(&saved); err == nil && decoder.More() {
			err = errors.New("there is data after the JSON document")
		}
	}
	if err != nil {
		log.Error("cannot read the stored operations; the file gets the suffix .broken", "file", s.path, "error", err)
		_ = os.Rename(s.path, s.path+".broken")
		return s
	}
	for _, o := range saved.Operations {
		if err := o.check(kinds); err != nil {
			log.Error("a stored operation is invalid and is dropped", "file", s.path, "error", err)
			continue
		}
		done := make(chan struct{})
		close(done)
		k := &kept{Operation: o, changed: make(chan struct{}), done: done}
		if !o.Over() {
			k.gap = restartGap
		}
		s.operations = append(s.operations, k)
	}
	s.keys = saved.Keys
	s.forget()
	return s
}

// forget drops what need not be kept any more. What has not ended is kept.
func (s *store) forget() {
	oldest := s.now().Add(-KeepFor)
	s.operations = slices.DeleteFunc(s.operations, func(k *kept) bool { return k.Over() && k.Ended.Before(oldest) })
	for excess := len(s.operations) - MaxOperations; excess > 0; excess-- {
		i := slices.IndexFunc(s.operations, func(k *kept) bool { return k.Over() })
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

// save writes the file and blocks until it is on the disk. What would not be read back is not written: the oldest that have ended are
// forgotten before.
func (s *store) save() error {
	s.saving.Lock()
	defer s.saving.Unlock()
	err := s.write()
	if err != nil {
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
	}
	return err
}

func (s *store) write() error {
	for {
		s.mu.Lock()
		saved := savedState{Operations: make([]Operation, 0, len(s.operations)), Keys: slices.Clone(s.keys)}
		for _, k := range s.operations {
			saved.Operations = append(saved.Operations, k.copy())
		}
		s.dirty = false
		s.mu.Unlock()
		content, err := json.Marshal(saved)
		if err != nil {
			return err
		}
		if len(content) < s.limit {
			return state.Write(s.path, json.RawMessage(content))
		}
		if !s.dropOldest() {
			return fmt.Errorf("%d bytes are more than can be read back", len(content))
		}
	}
}

// dropOldest forgets the oldest tenth of the operations that have ended, and reports whether there was one.
func (s *store) dropOldest() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.operations)/10 + 1
	before := len(s.operations)
	s.operations = slices.DeleteFunc(s.operations, func(k *kept) bool {
		if n > 0 && k.Over() {
			n--
			return true
		}
		return false
	})
	dropped := before - len(s.operations)
	if dropped > 0 {
		s.log.Warn("the operations file is too large: the oldest operations are dropped", "file", s.path, "forgotten", dropped)
	}
	return dropped > 0
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
			s.log.Error("cannot store the operations; they are lost if serve restarts", "file", s.path, "error", err)
		}
		failed = err != nil
	}
}

func (k *kept) copy() Operation {
	o := k.Operation
	o.Steps = slices.Clone(o.Steps)
	if o.Steps == nil {
		o.Steps = []api.Step{}
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
		if k.State == api.Pending || k.State == api.Running {
			return k
		}
	}
	return nil
}

func sum(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// begin writes down an operation, or finds the one that a key stands for; fresh tells which. It blocks until it is on the disk: what cannot
// be kept is not begun, except what may be begun at any time. Errors are those of [Runner.Pause].
func (s *store) begin(kind string, anytime bool, d Demand) (k *kept, fresh bool, err error) {
	s.mu.Lock()
	s.forget()
	key, request := sum(d.Key), sum(kind, string(d.Body))
	if d.Key != "" {
		for _, x := range s.keys {
			if x.Caller != d.Caller || x.Key != key {
				continue
			}
			defer s.mu.Unlock()
			if x.Request != request {
				return nil, false, ErrKeyReused
			}
			if k := s.find(x.Operation); k != nil {
				return k, false, nil
			}
			return nil, false, ErrForgotten
		}
	}
	if other := s.running(); other != nil && !anytime {
		defer s.mu.Unlock()
		return nil, false, &RunningError{other.copy()}
	}
	k = &kept{changed: make(chan struct{}), done: make(chan struct{}),
		Operation: Operation{ID: newID(), Member: s.member, Kind: kind, Caller: d.Caller, Request: d.Request, Created: s.now().UTC()}}
	s.step(k, api.Step{State: api.Pending, Text: "asked for by " + d.Caller})
	s.operations = append(s.operations, k)
	if d.Key != "" {
		s.keys = append(s.keys, keyed{Caller: d.Caller, Key: key, Request: request, Operation: k.ID, Time: s.now().UTC()})
	}
	s.mu.Unlock()
	if err := s.save(); err != nil && anytime {
		s.log.Error("cannot store an operation; it starts anyway", "file", s.path, "operation", k.ID, "error", err)
	} else if err != nil {
		s.mu.Lock()
		s.operations = slices.DeleteFunc(s.operations, func(x *kept) bool { return x == k })
		s.keys = slices.DeleteFunc(s.keys, func(x keyed) bool { return x.Operation == k.ID })
		close(k.done)
		s.mu.Unlock()
		return nil, false, &UnsavedError{err}
	}
	return k, true, nil
}

// step adds one; with the lock held.
func (s *store) step(k *kept, step api.Step) {
	step.ID = 1
	if n := len(k.Steps); n > 0 {
		step.ID = k.Steps[n-1].ID + 1 + k.gap
		k.gap = 0
	}
	if step.Time.IsZero() {
		step.Time = s.now()
	}
	step.Time = step.Time.UTC()
	step.Text, step.Pooler, step.Target = state.Clip(step.Text, maxStepText), state.Clip(step.Pooler, maxStepText), state.Clip(step.Target,
		maxStepText)
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
func (s *store) progress(k *kept, step api.Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !k.Over() {
		s.step(k, step)
	}
}

// start says that it runs, and how to end it. It blocks until that is on the disk; if it cannot be, nothing may be begun, except at any
// time.
func (s *store) start(k *kept, cancel context.CancelCauseFunc) error {
	s.mu.Lock()
	k.cancel = cancel
	k.Started = s.now().UTC()
	s.step(k, api.Step{State: api.Running, Text: "started"})
	s.mu.Unlock()
	return s.save()
}

// ofRun says which run of planned maintenance it is. It blocks until that is on the disk.
func (s *store) ofRun(k *kept, run string) error {
	s.mu.Lock()
	k.Run = run
	s.dirty = true
	s.mu.Unlock()
	return s.save()
}

// settle says how it ended. An unknown outcome that may yet be found out has not ended. It blocks until that is on the disk.
func (s *store) settle(k *kept, e ending) {
	s.mu.Lock()
	if e.outcome != nil {
		k.Result = bounded(e.outcome)
	}
	if k.Failure = e.failure; k.Failure != nil {
		k.Failure.Detail, k.Failure.Pooler = state.Clip(k.Failure.Detail, maxDetail), state.Clip(k.Failure.Pooler, maxStepText)
	}
	if e.final {
		k.Ended = s.now().UTC()
	}
	s.step(k, api.Step{State: e.state, Text: e.text})
	k.cancel = nil
	select {
	case <-k.done:
	default:
		close(k.done)
	}
	s.mu.Unlock()
	if err := s.save(); err != nil {
		s.log.Error("cannot store the operations; the outcome is lost if serve restarts", "file", s.path, "error", err)
	}
}
