package pause

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/process"
	"github.com/pgbaton/pgbaton/state"
)

const (
	watchInterval = 500 * time.Millisecond // between looks at the poolers of a lease
	resumeInsists = 10 * time.Minute       // how long the keeper goes on at a pooler that does not answer
)

// Keep is the keeper: it reads leases from in, writes a line to ready when it is at its post, and blocks until the pause
// that it keeps is over or it has ended it. Signals that end other processes do not end this one: it is the last that
// knows of the pause.
func Keep(ctx context.Context, m *member.Member, in io.Reader, ready io.Writer) member.Result {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	ctx = context.WithoutCancel(ctx)
	decoder := json.NewDecoder(in)
	var first lease
	if err := decoder.Decode(&first); err != nil {
		return member.Result{Code: member.Invalid, Decision: "no lease on standard input: this command is for pgbaton itself"}
	}
	log := m.Log.With("hook", "keeper", "member", member.Name())
	k := &keeper{m: m, lease: first, journal: m.Journal("keeper", first.ID)}
	k.poolers, _, _ = m.Poolers(ctx, first.Book)
	defer member.CloseAll(k.poolers)
	k.over, k.told = make([]bool, len(k.poolers)), make([]bool, len(k.poolers))
	k.save()
	defer k.forget()
	if err := process.SayReady(ready); err != nil {
		return member.Result{Code: member.Failed, Decision: "the pauser has gone"}
	}

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
	for {
		if k.lease.Until.IsZero() {
			deadline.Stop()
		} else {
			deadline.Reset(time.Until(k.until))
		}
		select {
		case next, alive := <-told:
			if alive {
				k.lease, k.until = next, time.Now().Add(next.For)
				k.save()
				continue
			}
			told = nil // from now on it is up to us
			if k.lease.Until.IsZero() {
				return member.Result{Decision: "nothing was paused"}
			}
		case <-tick.C:
			if told != nil {
				continue
			}
			if k.watch(ctx) {
				log.Info("the pause is over", "lease", k.lease.ID)
				return member.Result{Decision: "the pause was ended by others"}
			}
			k.standIn(ctx)
		case <-deadline.C:
			return k.expire(ctx)
		}
	}
}

type keeper struct {
	m       *member.Member
	lease   lease
	until   time.Time // by the monotonic clock
	poolers []*pgb.Pooler
	over    []bool
	told    []bool // that it is over, in the journal
	journal *state.Journal

	saved   bool // the file was written
	back    int  // looks in a row that found the server restarted and writable
	stoodIn bool // the worker was started
}

// watch looks at every pooler and reports whether the pause is over on all of them.
func (k *keeper) watch(ctx context.Context) bool {
	k.each(func(i int, p *pgb.Pooler) {
		resumed := false
		if !p.HasConsole() {
			k.over[i] = !k.ours() // signals tell nothing; who resumes on this member takes the file away
		} else {
			ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
			defer cancel()
			state, err := p.State(ctx)
			if err != nil {
				k.over[i] = !k.ours() // whoever took the file away has seen it resumed
			} else {
				k.over[i] = leaseOver(state, k.lease.Owner, k.lease.Nonce)
				resumed = state.NotPaused() // its mark may stay on a little longer
			}
		}
		// Who has resumed may be another member, and write that into a journal of its own.
		if (k.over[i] || resumed) && !k.told[i] {
			k.told[i] = true
			k.journal.Add(state.Entry{Event: state.EventPauseOver, Pooler: p.Name, Took: time.Since(k.lease.Since)})
		}
	})
	for _, over := range k.over {
		if !over {
			return false
		}
	}
	return true
}

// standIn starts the worker when the server that was stopped is back and writable and no callback has started one. That is a restart
// in place where Patroni has no on_restart callback: the Zalando operator cannot set it.
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
	if k.back++; k.back < 3 {
		return // the callback is given a second
	}
	k.stoodIn = true
	log := k.m.Log.With("hook", "keeper", "member", member.Name(), "lease", k.lease.ID)
	log.Warn("the server is back as primary and no callback came: set postgresql.callbacks.on_restart and on_start; starting the worker in its place")
	if _, err := k.m.StartDetached(false, "", member.WorkCommand, "keeper", "primary", ""); err != nil {
		log.Error("cannot start the worker", "error", err)
	}
}

// each calls do for the poolers where the pause may still stand, all at once.
func (k *keeper) each(do func(int, *pgb.Pooler)) {
	index := map[*pgb.Pooler]int{}
	var standing []*pgb.Pooler
	for i, p := range k.poolers {
		if names, ok := k.lease.Databases[p.Name]; ok {
			p.Databases = names
		}
		if !k.over[i] {
			index[p] = i
			standing = append(standing, p)
		}
	}
	pgb.Each(standing, func(p *pgb.Pooler) error {
		do(index[p], p)
		return nil
	})
}

// leaseOver decides whether the pause with this owner and nonce is over on a pooler. Another mark belongs to a later pause,
// which has a keeper of its own. No mark on a paused pooler is a pause of ours that saw a RELOAD. 1.18 cannot say whether it is
// paused: there only server connections prove that it is not, and RESUME at the end of the lease does no harm.
func leaseOver(s pgb.State, owner pgb.Owner, nonce int) bool {
	if s.Mark != nil {
		return s.Mark.Owner != owner && s.Mark.Owner != pgb.Foreign || s.Mark.Nonce != nonce
	}
	if !s.PausedKnown {
		return s.Servers > 0
	}
	return !s.Paused
}

// expire ends the pause where it still stands, and goes on at a pooler that does not answer.
func (k *keeper) expire(ctx context.Context) member.Result {
	log := k.m.Log.With("hook", "keeper", "member", member.Name(), "lease", k.lease.ID)
	ctx, cancel := context.WithTimeout(ctx, resumeInsists)
	defer cancel()
	failed := false
	k.each(func(i int, p *pgb.Pooler) {
		ended := false
		err := member.Retry(ctx, func() error {
			ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
			defer cancel()
			var err error
			ended, err = k.end(ctx, p)
			return err
		}, nil)
		if err != nil {
			failed = true
			log.Error("cannot resume: do it by hand (RESUME in its admin console)", "pooler", p.Name, "error", err)
			return
		}
		if !ended {
			return
		}
		k.journal.Add(state.Entry{Event: state.EventLeaseExpired, Pooler: p.Name, Took: time.Since(k.lease.Since)})
		log.Warn("the lease was over and nobody had resumed: resumed", "pooler", p.Name, "paused_for", time.Since(k.lease.Since).Round(time.Millisecond))
	})
	k.journal.Sync()
	if failed {
		return member.Result{Code: member.Failed, Decision: "a pooler could not be resumed when the lease was over"}
	}
	return member.Result{Decision: "the lease is over, nothing is paused by it"}
}

// end reports whether there was something to end.
func (k *keeper) end(ctx context.Context, p *pgb.Pooler) (bool, error) {
	if !p.HasConsole() {
		return true, p.Signal((*pgb.Process).Resume)
	}
	state, err := p.State(ctx)
	if err != nil {
		if p.Pidfile != "" && k.ours() {
			return true, p.Signal((*pgb.Process).Resume)
		}
		return false, err
	}
	if leaseOver(state, k.lease.Owner, k.lease.Nonce) {
		return false, nil
	}
	if state.NotPaused() {
		return false, p.Unmark(ctx) // somebody has resumed, and was killed before he could do this, or is about to do it
	}
	if state.Mark == nil || state.Mark.Owner != pgb.Foreign {
		if _, err := p.Resume(ctx); err != nil {
			return false, err
		}
	}
	return true, p.Unmark(ctx)
}

func (k *keeper) path() string {
	if k.m.Config.StateDir == "" {
		return ""
	}
	return filepath.Join(k.m.Config.StateDir, leaseFile(k.lease.Owner))
}

func (k *keeper) save() {
	if path := k.path(); path != "" && !k.lease.Until.IsZero() {
		if err := state.Write(path, k.lease); err != nil {
			k.m.Log.Warn("cannot write the lease; status will not show it", "error", err)
			return
		}
		k.saved = true
	}
}

// ours reports whether the file is there and no later lease has taken its place.
func (k *keeper) ours() bool {
	var there lease
	path := k.path()
	return path == "" || !k.saved || state.Read(path, &there) == nil && there.ID == k.lease.ID
}

func (k *keeper) forget() {
	if path := k.path(); path != "" && k.ours() {
		_ = os.Remove(path)
	}
}
