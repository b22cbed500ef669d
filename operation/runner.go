package operation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/health"
	"github.com/pgbaton/pgbaton/maintenance"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/reload"
	"github.com/pgbaton/pgbaton/state"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/api"
)

// Reasons for which an operation is ended.
var (
	errResumed = errors.New("a resume was requested")
	errEnding  = errors.New("the server is ending")
)

// cancelTimeout is for an operation to take itself back when the grace time is over.
const cancelTimeout = 10 * time.Second

// Options are what a Runner is made of. Member and Log are needed.
type Options struct {
	Member *member.Member
	Log    *slog.Logger
	Calls  Calls // for tests; the zero value is what the command line calls

	Entry   func(state.Entry) // told of what hooks of this member write to the journal, each entry once; may be nil
	Changed func()            // told when an operation has done what it does, before it ends; may be nil
	Ended   func(Operation)   // told of each that was begun and has ended; may be nil
}

// Calls are what operations do: the same functions as the command line's.
type Calls struct {
	Pause  func(context.Context, *member.Member, pause.Options) pause.Report
	Resume func(context.Context, *member.Member) pause.Report
	Reload func(context.Context, *member.Member, reload.Options) reload.Report
	Status func(context.Context, *member.Member) health.Status
	Check  func(context.Context, *member.Member) api.CheckReport

	// Of planned maintenance. Resume goes on with the run of this member that was cut off; stop is as in maintenance.Request.
	Spoiled   func(context.Context, *member.Member, maintenance.Request) *api.ClusterReport
	Maintain  func(context.Context, *member.Member, maintenance.Request, func(api.ClusterEvent)) api.ClusterReport
	ResumeRun func(ctx context.Context, m *member.Member, stop <-chan struct{}, tell func(api.ClusterEvent)) api.ClusterReport
	Recorded  func(m *member.Member, id string) (report api.ClusterReport, over, running bool, err error)
	Resumable func(*member.Member) (id string)
}

// Demand is who asks, and what is written down of what he asks for.
type Demand struct {
	Caller  string
	Request api.OperationRequest
	Key     string // the same key with the same body within 24 h is the same operation; "" without
	Body    []byte // the request as it came, to tell two from each other
}

// Runner runs operations of one state directory. Its methods may be called by several goroutines.
type Runner struct {
	member  *member.Member
	log     *slog.Logger
	calls   Calls
	changed func()
	ended   func(Operation)
	store   *store
	journal *state.Follower
	lock    *os.File

	work       context.Context // of operations; ends with the grace time
	endWork    context.CancelFunc
	background context.Context // of everything else; ends last
	endAll     context.CancelFunc

	life     sync.Mutex
	ending   bool           // no operation is begun any more
	stopped  chan struct{}  // closed with it: what goes on step by step ends after the present one
	running  sync.WaitGroup // operations
	others   sync.WaitGroup // what runs in the background
	resuming sync.Mutex
	closing  sync.Once
}

// Open takes the state directory and reads what an earlier process has left there. It blocks only for the disk. The error wraps [ErrBusy]
// where another process works with the directory. A Runner that was opened must be closed.
func Open(o Options) (*Runner, error) {
	r := &Runner{member: o.Member, log: o.Log, calls: o.Calls, changed: o.Changed, ended: o.Ended, stopped: make(chan struct{})}
	if r.calls.Pause == nil {
		r.calls.Pause = pause.Pause
	}
	if r.calls.Resume == nil {
		r.calls.Resume = pause.Resume
	}
	if r.calls.Reload == nil {
		r.calls.Reload = reload.Run
	}
	if r.calls.Status == nil {
		r.calls.Status = health.Of
	}
	r.calls.cluster()
	if r.changed == nil {
		r.changed = func() {}
	}
	if r.ended == nil {
		r.ended = func(Operation) {}
	}
	entry := o.Entry
	if entry == nil {
		entry = func(state.Entry) {}
	}
	dir := o.Member.Config.StateDir
	var err error
	if r.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	r.work, r.endWork = context.WithCancel(context.Background())
	r.background, r.endAll = context.WithCancel(context.Background())
	state.Sweep(dir)
	r.store = openStore(dir, judges(), r.log)
	r.store.member = o.Member.Name()
	r.journal = state.Dir{Path: dir, Log: r.log}.OpenFollower(entry)
	return r, nil
}

// lockDir keeps a second process from the same files. The lock ends with the process.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "serve.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", dir, ErrBusy)
		}
		return nil, err
	}
	return f, nil
}

// Start begins to look after the operations of before, and to follow the journal. It blocks only for the disk.
func (r *Runner) Start() {
	r.others.Go(func() { r.store.saveOften(r.background) })
	r.others.Go(func() { r.journal.Run(r.background) })
	r.recover(r.background)
}

// Stop begins no operation any more ([ErrEnding]) and blocks until none runs: for the grace time; then those that run are cancelled, and
// given 10 s to take themselves back.
func (r *Runner) Stop(grace time.Duration) {
	r.life.Lock()
	if !r.ending {
		r.ending = true
		close(r.stopped)
	}
	r.life.Unlock()
	if !waitFor(&r.running, grace) {
		r.log.Warn("the grace period is over: cancelling running operations")
		r.endWork()
		waitFor(&r.running, cancelTimeout)
	}
}

// Close ends what runs in the background, blocks until that is over, writes the operations down once more, and lets go of the state
// directory. An operation that runs goes on unless [Runner.Stop] came first.
func (r *Runner) Close() {
	r.closing.Do(func() {
		r.endWork()
		r.endAll()
		r.others.Wait()
		if err := r.store.save(); err != nil {
			r.log.Error("cannot store the operations; they are lost if serve restarts", "error", err)
		}
		_ = r.lock.Close()
	})
}

// Ending reports whether Stop was called.
func (r *Runner) Ending() bool {
	r.life.Lock()
	defer r.life.Unlock()
	return r.ending
}

// List is every operation that is kept, newest first, each with its last step only.
func (r *Runner) List() []Operation { return r.store.list() }

// Get is one operation, with a channel that is closed when it changes; ok is false where it is not kept.
func (r *Runner) Get(id string) (o Operation, changed <-chan struct{}, ok bool) {
	return r.store.get(id)
}

// Wait blocks until nothing is done for an operation any more, or the context ends, and returns it as it is then; ok is false where it is
// not kept.
func (r *Runner) Wait(ctx context.Context, id string) (o Operation, ok bool) {
	r.store.mu.Lock()
	k := r.store.find(id)
	r.store.mu.Unlock()
	if k == nil {
		return Operation{}, false
	}
	select {
	case <-k.done:
	case <-ctx.Done():
	}
	o, _, ok = r.Get(id)
	return o, ok
}

// ending is what an operation has come to.
type ending struct {
	state   string
	final   bool // else: look again
	outcome *api.Outcome
	failure *Failure
	text    string // of the last step
}

// launch begins an operation, or finds the one of the key. What runs outlives the call. The errors are [ErrEnding], [ErrKeyReused],
// [ErrForgotten], a [RunningError] or an [UnsavedError].
func (r *Runner) launch(kind string, anytime bool, d Demand, do func(context.Context, *kept) ending) (Operation, error) {
	r.life.Lock()
	defer r.life.Unlock()
	if r.ending {
		return Operation{}, ErrEnding
	}
	k, fresh, err := r.store.begin(kind, anytime, d)
	if unsaved, ok := errors.AsType[*UnsavedError](err); ok {
		r.log.Error("cannot store an operation, so it was not started", "error", unsaved.Err)
	}
	if err != nil {
		return Operation{}, err
	}
	if fresh {
		r.running.Go(func() { r.run(k, anytime, do) })
	}
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	return k.copy(), nil
}

func (r *Runner) run(k *kept, anytime bool, do func(context.Context, *kept) ending) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.work))
	defer cancel(nil)
	stop := context.AfterFunc(r.work, func() { cancel(errEnding) })
	defer stop()
	log := r.log.With("operation", k.ID, "kind", k.Kind, "caller", k.Caller)
	defer func() {
		if fault := recover(); fault != nil {
			log.Error("an operation panicked", "panic", fmt.Sprint(fault))
			r.store.settle(k, ending{state: api.Unknown, final: true, failure: &Failure{Name: Fault, Class: api.Permanent,
				Detail: "the log has more"},
				text: "a fault of pgbaton: see pgbaton status"})
		}
	}()
	if err := r.store.start(k, cancel); err != nil && !anytime {
		log.Error("cannot store an operation, so it was not started", "error", err)
		r.store.settle(k, ending{state: api.Failed, final: true, failure: &Failure{Name: NotKept, Class: api.Transient,
			Detail: "it was not begun"},
			text: "not begun: the state directory cannot be written"})
		return
	}
	log.Info("operation started")
	r.store.settle(k, do(ctx, k))
	if o, _, ok := r.store.get(k.ID); ok {
		log.Info("operation ends", "state", o.State, "took", time.Since(o.Started))
		r.ended(o)
	}
}

// waitFor reports whether all were done within the limit.
func waitFor(group *sync.WaitGroup, limit time.Duration) bool {
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
