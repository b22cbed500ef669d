package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/state"
)

const (
	lookPooler  = 200 * time.Millisecond // between looks at the pooler
	lookLeader  = time.Second            // between looks for the leader: each has Patroni ask the DCS
	lookHurried = 30 * time.Millisecond  // while clients wait in a pause
	lookFailing = 250 * time.Millisecond // while nobody is proven to lead
	// settled is how long after a move clients still count as moved: a load balancer hears of it at its next checks only.
	settled = 15 * time.Second
	// hurryFor is how long a pooler that was not paused connects again at once where it failed before (server_login_retry).
	hurryFor = 2 * time.Second
	// unseenFor is how long a pooler may not answer until load balancers are told that it is down.
	unseenFor = 3 * time.Second
)

// Watcher moves the poolers beside this member for as long as it runs, whoever plans it or nobody.
type Watcher struct {
	m      *member.Member
	finder *Finder
	log    *slog.Logger

	settled time.Duration // shorter in tests

	mu      sync.Mutex
	poolers map[int]*watched // by entry of the configuration
	looks   int
}

// NewWatcher is nil where this member moves no pooler.
func NewWatcher(m *member.Member) *Watcher {
	w := &Watcher{m: m, settled: settled, finder: NewFinder(m), log: m.Log.With("hook", "follow", "member", member.Name()),
		poolers: map[int]*watched{}}
	for i, p := range m.Config.Poolers {
		if p.Follow != nil && !p.Follow.Elsewhere {
			w.poolers[i] = &watched{w: w, config: p.Follow, memory: recall(m, p.Follow)}
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

// Route is what a load balancer is told of this member's pooler; where there are several, of the worst. It does not block: it is as of the
// last look, 0.2 s ago at most while the pooler answers.
func (w *Watcher) Route() Route {
	w.mu.Lock()
	defer w.mu.Unlock()
	open, forwarded := 0, 0
	for _, x := range w.poolers {
		switch x.said {
		case RouteOpen:
			open++
		case RouteForwarded:
			forwarded++
		}
	}
	switch {
	case open == len(w.poolers):
		return RouteOpen
	case open+forwarded == len(w.poolers):
		return RouteForwarded
	}
	return RouteDown
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
	old       map[string]bool
	oldAt     time.Time // when old was taken; zero: not yet

	troubled time.Time // since then it cannot be looked at; zero: it can

	said    Route // under the watcher's lock
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

// unseen is about a pooler that cannot be looked at. A load balancer cuts its clients when it is told that it is down, so one answer that
// is late does not say so.
func (x *watched) unseen(err error) error {
	if x.troubled.IsZero() {
		x.troubled = time.Now()
	}
	if time.Since(x.troubled) >= unseenFor {
		x.tell(RouteDown)
	}
	return err
}

// unmovable is about a pooler whose file cannot be written. Its clients are at the right place while this member leads, and where it was
// moved before; else they are to go and connect again.
func (x *watched) unmovable(leader *Leader, err error) error {
	x.w.mu.Lock()
	forwards := x.said == RouteForwarded
	x.w.mu.Unlock()
	switch {
	case leader != nil && leader.Here:
		x.troubled = time.Time{}
		x.tell(RouteOpen)
	case !forwards:
		return x.unseen(err)
	}
	return err
}

// lookForLeader looks where it is time to. It is nil where nobody is proven. passed says that it is not the one that a guard has paused the
// pooler for.
func (x *watched) lookForLeader(ctx context.Context, mark *pgb.Mark) (leader *Leader, passed bool) {
	guarded := mark != nil && mark.Owner == pgb.Guard
	switch {
	case !guarded:
		x.guard, x.after = nil, postgres.Identity{}
	case x.guard == nil || *x.guard != *mark:
		// The pause is over when the server that it is for has been stopped, and another run of it, or another server, leads.
		x.guard, x.since, x.after = mark, time.Now(), postgres.Identity{}
		if x.proven {
			x.after = x.leader.Identity
		}
	}
	if !guarded && time.Since(x.looked) < x.interval() {
		if x.proven {
			leader = &x.leader
		}
		return leader, false
	}
	x.looked = time.Now()
	l, err := x.w.finder.Leader(ctx, x.after)
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
	x.tell(v.route())
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
		x.tell(v.route())
		x.w.log.Info("moved", "pooler", x.mover.Name, "address", to.String(), "why", why, "leader", v.leader.Name)
		if moved && mark == nil && !back {
			return x.hurry(ctx)
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

// hurry has a pooler connect to its new server at once: without a pause clients have met the old one, and a pool that could not connect
// waits for server_login_retry before it tries again, also elsewhere (1.18 to 1.26). The mark is a guard's, so that it is put back
// whatever becomes of us.
func (x *watched) hurry(ctx context.Context) error {
	ours := rand.IntN(10)
	if _, _, err := x.mover.Mark(ctx, pgb.Guard, ours); err != nil {
		return err
	}
	err := x.mover.Reconnect(ctx)
	member.Sleep(ctx, hurryFor)
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), member.ConsoleTimeout)
	defer cancel()
	mark, looked := x.mover.Holder(short)
	if mark == nil || mark.Owner != pgb.Guard || mark.Nonce != ours { // a handover that has begun meanwhile has put on its own
		return errors.Join(err, looked)
	}
	return errors.Join(err, x.mover.Unmark(short))
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

// tell is for load balancers.
func (x *watched) tell(r Route) {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	x.said = r
}
