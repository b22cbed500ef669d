package pause

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
	"github.com/pgbaton/pgbaton/process"
	"github.com/pgbaton/pgbaton/routing"
	"github.com/pgbaton/pgbaton/state"
)

const (
	watchInterval = 500 * time.Millisecond // between looks at the poolers of a lease
	resumeInsists = 10 * time.Minute       // how long the keeper goes on at a pooler that does not answer
)

// Keep is the keeper: a process of its own that reads leases from in, the last of which counts, and writes a line to ready when it has
// begun. While the pauser lives, which is while in is open, it only waits for the end of the lease. After that it also looks at the
// poolers twice a second. It blocks until nothing of the pause stands, or until it has ended the pause itself: where the lease is over,
// or where the handover is done and nobody has resumed. Signals that end other processes do not end this one, nor does ctx: it is the
// last that knows of the pause.
func Keep(ctx context.Context, m *member.Member, in io.Reader, ready io.Writer) member.Result {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	ctx = context.WithoutCancel(ctx)
	decoder := json.NewDecoder(in)
	var first lease
	if err := decoder.Decode(&first); err != nil {
		return member.Result{Code: member.Invalid, Decision: "no lease on standard input: this command is for pgbaton itself"}
	}
	k := newKeeper(m, first)
	defer k.close()
	k.findAtFirst(ctx)
	k.learnOrigin(ctx)
	k.save()
	defer k.forget()
	// Who has taken up a lease for us may have given up waiting; the pause stands all the same.
	if err := process.SayReady(ready); err != nil && k.lease.Until.IsZero() {
		return member.Result{Code: member.Failed, Decision: "the pauser has ended"}
	}
	return k.run(ctx, decoder)
}

// keeper is one run of Keep.
type keeper struct {
	m       *member.Member
	log     *slog.Logger
	journal *state.Journal
	lease   lease
	until   time.Time // end of the lease by the monotonic clock

	poolers []*watched
	missing bool            // no pooler of the lease was found when the keeper began
	said    map[string]bool // what was logged and is not repeated

	file *state.Lock // on the lease's file; nil: none was written

	back      int  // looks in a row that found the server restarted and writable
	stoodIn   bool // the worker was started
	successor successor
	names     *routing.Names
	learned   <-chan origin // nil where it is not asked for

	moving sync.WaitGroup                 // poolers beside us to the new leader
	before atomic.Pointer[pgbini.Address] // see ledBefore
}

// watched is a pooler of the lease.
type watched struct {
	*pgb.Pooler
	later   bool // found since the pause was made, at another address
	listed  bool // its name still leads to it, as far as it is known
	over    bool // nothing of the pause stands there
	told    bool // that it is over, in the journal
	stands  bool // the last look has seen the pause
	resumed bool // a look has seen that it was ended
	judged  bool // of one that is later: whether to pause it with the others is decided
	held    bool // and it is, by this keeper
}

func newKeeper(m *member.Member, l lease) *keeper {
	now := time.Now()
	left := min(l.For, max(l.Until.Sub(now), 0)) // of a lease that was taken up: this process may have been slow to start
	return &keeper{m: m, lease: l, until: now.Add(left), journal: m.Journal("keeper", l.ID), said: map[string]bool{},
		names: routing.NewNames(), log: m.Log.With("hook", "keeper", "member", member.Name(), "lease", l.ID)}
}

func (k *keeper) close() {
	for _, p := range k.poolers {
		p.Close()
	}
}

func (k *keeper) run(ctx context.Context, decoder *json.Decoder) member.Result {
	moving, stop := context.WithCancel(ctx)
	defer k.moving.Wait()
	defer stop()
	begun := false
	told := make(chan lease)
	go func() {
		defer close(told)
		for {
			var next lease
			if decoder.Decode(&next) != nil {
				return
			}
			told <- next
		}
	}()
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	deadline := time.NewTimer(time.Hour)
	defer deadline.Stop()
	found := make(chan resolved, 1)
	finding := false
	for {
		if told == nil && !begun && (k.lease.Origin.known() || k.lease.Replica.known()) {
			begun = true
			k.startMoving(moving)
			k.startReading(moving)
		}
		if k.lease.Until.IsZero() {
			deadline.Stop()
		} else {
			deadline.Reset(time.Until(k.until))
		}
		select {
		case next, alive := <-told:
			if alive {
				next.Origin = k.lease.Origin
				k.lease, k.until = next, time.Now().Add(next.For)
				k.save()
				continue
			}
			told = nil // the pauser has ended
			if k.lease.Until.IsZero() {
				return member.Result{Decision: "nothing was paused"}
			}
		case k.lease.Origin = <-k.learned:
			k.save()
		case now := <-found:
			finding = false
			k.add(now)
		case <-tick.C:
			if told != nil {
				continue
			}
			if !finding { // a name service that does not answer holds nothing up
				finding = true
				go func() { found <- k.resolve(ctx) }()
			}
			if k.round(ctx) {
				k.log.Info("the pause is over")
				return member.Result{Decision: "the pause was ended by others"}
			}
		case <-deadline.C:
			if k.replaced() {
				return member.Result{Decision: "another keeper has the lease"}
			}
			return k.expire(ctx)
		}
	}
}

// round looks at everything once, and reports whether the pause is over. It does not block beyond the end of the lease.
func (k *keeper) round(ctx context.Context) (over bool) {
	ctx, cancel := context.WithDeadline(ctx, k.until)
	defer cancel()
	if k.replaced() || k.watch(ctx) {
		return true
	}
	k.letNewcomersGo(ctx)
	k.holdNewcomers(ctx)
	k.standIn(ctx)
	k.finish(ctx)
	return false
}

// standIn starts the worker when the server that was stopped is back and writable and neither the guard nor a callback has started one that
// still runs. That is a restart in place where Patroni has no on_restart callback: the Zalando operator cannot set it.
func (k *keeper) standIn(ctx context.Context) {
	if k.lease.Owner != pgb.Guard || k.stoodIn {
		return
	}
	local, err := k.m.Server()
	if err != nil {
		return
	}
	identity, err := member.Identify(ctx, local)
	if err != nil || identity.InRecovery || !identity.PostmasterStart.After(k.lease.Since) {
		k.back = 0
		return
	}
	if k.back++; k.back < 3 || k.workerRuns() {
		return // the callback is given a second
	}
	k.stoodIn = true
	k.log.Warn("the server is back as primary and no callback came: set postgresql.callbacks.on_restart and on_start; " +
		"starting the worker in its place")
	if _, err := k.m.StartDetached(false, "", member.WorkCommand, "keeper", "primary", ""); err != nil {
		k.log.Error("cannot start the worker", "error", err)
	}
}

// workerRuns reports whether a worker of this member runs: it waits for the route, and resumes.
func (k *keeper) workerRuns() bool {
	return k.m.Config.StateDir != "" && state.Locked(filepath.Join(k.m.Config.StateDir, member.WorkerLock))
}

func (k *keeper) path() string {
	if k.m.Config.StateDir == "" {
		return ""
	}
	return filepath.Join(k.m.Config.StateDir, leaseFile(k.lease.Owner))
}

// save writes the lease's file anew. It is locked for as long as this process lives.
func (k *keeper) save() {
	path := k.path()
	if path == "" || k.lease.Until.IsZero() {
		return
	}
	lock, err := state.WriteLocked(path, k.lease)
	if err != nil {
		k.log.Warn("cannot write the lease: status does not show it, and nobody takes it up where this process is killed", "error", err)
		return
	}
	k.file.Release() // of the file that this one has replaced
	k.file = lock
}

// ours reports whether the file is there and no later lease has taken its place.
func (k *keeper) ours() bool {
	path := k.path()
	return path == "" || k.file == nil || k.file.Names(path)
}

// replaced reports whether another keeper has the same lease: the guard has started it while this one was to take the lease up.
func (k *keeper) replaced() bool {
	var there lease
	return !k.ours() && state.Read(k.path(), &there) == nil && there.ID == k.lease.ID
}

func (k *keeper) forget() {
	if path := k.path(); path != "" && k.ours() {
		_ = os.Remove(path)
	}
	k.file.Release()
}
