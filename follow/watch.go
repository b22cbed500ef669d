package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/state"
)

const (
	lookPooler  = 200 * time.Millisecond // between looks at the pooler
	lookLeader  = time.Second            // between looks for the leader: each has Patroni ask the DCS
	lookHurried = 150 * time.Millisecond // while clients wait in a pause, which the keeper, or the worker, sees the end of first
	lookFailing = 250 * time.Millisecond // while nobody is proven to lead
	// lingers is how long after a move a load balancer is told of the pooler as before. Pigsty's HAProxy needs 7 s to see that the leader's
	// own pooler is open (downinter 5s fastinter 1s rise 3), autobase's 6 s (inter 3s fastinter 1s rise 4), and we one to see who leads.
	lingers = 12 * time.Second
	// settled is how long after a move clients still count as moved: a load balancer hears of the end of lingers at its next check only.
	settled = 18 * time.Second
	// unseenFor is how long a pooler may not answer until load balancers are told that it is down.
	unseenFor = 3 * time.Second
)

// Watcher moves the poolers beside this member for as long as it runs, whoever plans it or nobody.
type Watcher struct {
	m      *member.Member
	finder *Finder
	log    *slog.Logger

	lingers, settled time.Duration // shorter in tests

	mu      sync.Mutex
	poolers map[int]*watched // by entry of the configuration
	looks   int
}

// NewWatcher is nil where this member moves no pooler.
func NewWatcher(m *member.Member) *Watcher {
	w := &Watcher{m: m, lingers: lingers, settled: settled, finder: NewFinder(m), poolers: map[int]*watched{},
		log: m.Log.With("hook", "follow", "member", member.Name())}
	for i, p := range m.Config.Poolers {
		if p.Follow != nil && !p.Follow.Elsewhere {
			x := &watched{w: w, config: p.Follow, memory: recall(m, p.Follow)}
			x.said = x.recalled()
			w.poolers[i] = x
		}
	}
	if len(w.poolers) == 0 {
		return nil
	}
	return w
}

// Run looks and moves until the context ends.
func (w *Watcher) Run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for entry, x := range w.poolers {
		all.Go(func() { x.run(ctx, entry) })
	}
}

// watched is one pooler.
type watched struct {
	w      *Watcher
	config *config.Follow
	mover  *Mover
	memory memory

	readers   *Mover            // of the entries for reading
	readersAt time.Time         // looked at last
	leader    Leader            // last proven
	looked    time.Time         // for it
	proven    bool              // at the last look
	guard     *pgb.Mark         // of a guard, at the last look
	since     time.Time         // it was first seen
	after     postgres.Identity // that led when it was first seen; zero: not known
	before    pgbini.Address    // of its server
	old       map[string]bool
	oldAt     time.Time // when old was taken; zero: not yet

	troubled time.Time // since then it cannot be looked at; zero: it can

	forwards bool // at the last look

	said    Route // under the watcher's lock; until the first look, what was remembered
	trouble string
}

func (x *watched) run(ctx context.Context, entry int) {
	for ctx.Err() == nil {
		err := x.step(ctx, entry)
		x.complain(ctx, err)
		switch {
		case x.guard != nil && time.Since(x.since) < x.w.m.Config.Pause.Lease:
			member.Sleep(ctx, lookHurried)
		default:
			member.Sleep(ctx, lookPooler)
		}
	}
	x.close()
}

func (x *watched) close() {
	if x.mover != nil {
		x.mover.Close()
		x.readers.Close()
		x.mover, x.readers = nil, nil
	}
}

// complain says what is wrong once, until it is something else.
func (x *watched) complain(ctx context.Context, err error) {
	x.w.mu.Lock()
	x.w.looks++
	x.w.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == x.trouble || ctx.Err() != nil {
		return
	}
	x.trouble = text
	if err != nil {
		x.w.log.Warn("the pooler is not moved for now", "file", x.config.File, "error", err)
	}
}

// open finds the pooler.
func (x *watched) open(ctx context.Context, entry int) error {
	if x.mover != nil {
		return nil
	}
	poolers, _, errs := x.w.m.Poolers(ctx, nil)
	defer member.CloseAll(poolers)
	for _, p := range poolers {
		if p.Entry != entry {
			continue
		}
		if x.mover != nil {
			x.close()
			return fmt.Errorf("poolers[%d] leads to several poolers, and follow is for one: write a socket or an address", entry)
		}
		x.mover, x.readers = New(x.w.m, p), NewReaders(x.w.m, p)
		x.mover.log = x.mover.log.With("hook", "follow", "member", member.Name())
	}
	if x.mover == nil {
		return errors.Join(append(errs, fmt.Errorf("poolers[%d] cannot be resolved", entry))...)
	}
	return nil
}

// step looks once and does what is due.
func (x *watched) step(ctx context.Context, entry int) error {
	ctx, cancel := context.WithTimeout(ctx, 3*member.ConsoleTimeout)
	defer cancel()
	if err := x.open(ctx, entry); err != nil {
		return x.unseen(err)
	}
	asking, stop := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer stop()
	mark, err := x.mover.Holder(asking)
	if err != nil {
		return x.unseen(err)
	}
	if mark == nil && x.guard != nil {
		if mark, err = x.lostMark(asking); err != nil {
			return x.unseen(err)
		}
	}
	entries, _, err := x.mover.Entries(asking)
	var problem *file.Problem
	switch {
	case errors.As(err, &problem):
		leader, _ := x.lookForLeader(ctx, mark)
		return x.unmovable(leader, err)
	case err != nil:
		return x.unseen(err)
	}
	x.troubled = time.Time{}
	v := view{local: x.mover.Local(), apart: x.w.m.Config.Apart()}
	v.to, v.one = Led(entries)
	var passed bool
	v.leader, passed = x.lookForLeader(ctx, mark)
	return errors.Join(x.act(ctx, v, mark, passed), x.readersBack(ctx, mark))
}

// lostMark is the mark of a guard that is not on the pooler any more, where its pause is: RELOAD has taken it off, and who moves the pooler
// was killed before he could put it back.
func (x *watched) lostMark(ctx context.Context) (*pgb.Mark, error) {
	s, err := x.mover.State(ctx)
	if err != nil || s.Mark != nil || !s.PauseStands() {
		return s.Mark, err
	}
	return x.guard, nil
}

// lookForLeader looks where it is time to. It is nil where nobody is proven. passed says that it is not the one that a guard has paused the
// pooler for.
func (x *watched) lookForLeader(ctx context.Context, mark *pgb.Mark) (leader *Leader, passed bool) {
	guarded := mark != nil && mark.Owner == pgb.Guard
	switch {
	case !guarded:
		x.guard, x.after, x.before = nil, postgres.Identity{}, pgbini.Address{}
	case x.guard == nil || *x.guard != *mark:
		// The pause is over when the server that it is for has been stopped, and another run of it, or another server, leads.
		x.guard, x.since, x.after, x.before = mark, time.Now(), postgres.Identity{}, pgbini.Address{}
		if x.proven {
			x.after, x.before = x.leader.Identity, x.leader.Address
		}
	}
	if !guarded && time.Since(x.looked) < x.interval() {
		if x.proven {
			leader = &x.leader
		}
		return leader, false
	}
	x.looked = time.Now()
	l, err := x.w.finder.Successor(ctx, x.before, x.after)
	x.proven = err == nil || guarded && x.proven
	if err == nil {
		x.leader, leader = l, &l
	} else if !guarded {
		x.w.log.Debug("no leader", "error", err)
	}
	return leader, !x.after.PostmasterStart.IsZero()
}

func (x *watched) interval() time.Duration {
	if x.proven {
		return lookLeader
	}
	return lookFailing
}

// act decides, and moves. passed says that a leader in v is not the one that the pooler was paused for.
func (x *watched) act(ctx context.Context, v view, mark *pgb.Mark, passed bool) error {
	if v.leader != nil && v.leader.Here {
		x.remember(memory{Led: true})
	} else if v.forwards() && (!x.memory.Led || x.memory.Moved.IsZero()) {
		x.remember(memory{Led: true, Moved: time.Now()}) // by the keeper of a handover, say
	}
	v.led = x.memory.Led
	if v.forwards() && v.leader != nil && !v.leader.Here {
		var err error
		if v.backDue, err = x.backDue(ctx); err != nil {
			return err
		}
	} else {
		x.old, x.oldAt = nil, time.Time{}
	}
	x.tellOf(v)
	to, move, why := decide(v)
	guarded := mark != nil && mark.Owner == pgb.Guard
	if move {
		moved, err := x.mover.Move(ctx, to)
		if err != nil {
			return err
		}
		back := to == v.local && !v.leader.Here
		if back {
			x.remember(memory{})
		} else if to != v.local && x.memory.Moved.IsZero() {
			x.remember(memory{Led: true, Moved: time.Now()})
		}
		v.to, v.one, v.led = to, true, x.memory.Led
		x.tellOf(v)
		x.w.log.Info("moved", "pooler", x.mover.Name, "address", to.String(), "why", why, "leader", v.leader.Name)
		if moved && mark == nil && !back {
			return x.mover.Hurry(ctx)
		}
	}
	switch {
	case guarded && v.leader != nil && (move || passed):
		return x.resume(ctx)
	case guarded && time.Since(x.since) > x.w.m.Config.Pause.Lease:
		return x.takeOff(ctx)
	}
	return nil
}

// takeOff takes off a mark that has outlived the lease of every pause that it can be of: who put it on was killed. A pause that is there is
// not ours to end; the keeper of its lease insists.
func (x *watched) takeOff(ctx context.Context) error {
	s, err := x.mover.State(ctx)
	if err != nil || !s.NotPaused() {
		return err
	}
	x.w.log.Warn("a setting was left lowered by a process that was killed, put back", "pooler", x.mover.Name,
		"server_login_retry", x.guard.Original)
	return x.mover.Unmark(ctx)
}

// resume ends a guard's pause on a pooler that leads to where it is to lead.
func (x *watched) resume(ctx context.Context) error {
	if _, err := x.mover.Resume(ctx); err != nil {
		return err
	}
	x.w.log.Info("resumed", "pooler", x.mover.Name)
	x.w.m.Journal("follow", state.NewID()).Add(state.Entry{Event: state.EventResumed, Pooler: x.mover.Name})
	return x.mover.Unmark(ctx)
}

// backDue reports whether a pooler that forwards may lead to its own server again.
func (x *watched) backDue(ctx context.Context) (bool, error) {
	switch since := time.Since(x.memory.Moved); {
	case x.config.Back == config.BackNever:
		return false, nil
	case x.config.Back == config.BackDuration:
		return since >= x.config.BackAfter, nil
	case since < x.w.settled:
		return false, nil
	}
	clients, err := x.mover.Clients(ctx)
	if err != nil {
		return false, err
	}
	now := map[string]bool{}
	for _, c := range clients {
		if x.mover.serves(c.Database) {
			now[c.Address] = true
		}
	}
	if x.oldAt.IsZero() {
		x.old, x.oldAt = now, time.Now()
	}
	for address := range x.old {
		if !now[address] {
			delete(x.old, address)
		}
	}
	return len(x.old) == 0, nil
}
