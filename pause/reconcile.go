package pause

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"
)

// reconcileGrace is how much longer than its lease a pause is left alone: its keeper is the one to end it.
const reconcileGrace = 5 * time.Second

// Reconciler ends pauses that have outlived their lease: those whose keeper ended with its container, or never could reach the
// pooler. It acts on the member that is the writable primary and holds the leader lock, and nowhere else. What it knows of a pause is
// when it was first seen, so a pause lasts its lease longer at most after a restart of the process that reconciles.
type Reconciler struct {
	m             *member.Member
	resumeForeign bool
	log           *slog.Logger
	seen          map[string]sighting
}

// sighting is a pause as it was first seen.
type sighting struct {
	what  pauseKey
	since time.Time
	told  bool
}

// pauseKey tells one pause from another.
type pauseKey struct {
	marked bool
	owner  pgb.Owner
	nonce  int
	paused bool
	lost   bool // the mark was there before
}

// NewReconciler makes one; resumeForeign lets it also end, after a lease's time, a pause that pgbaton has not made.
func NewReconciler(m *member.Member, resumeForeign bool) *Reconciler {
	log := m.Log.With("hook", "reconcile", "member", member.Name())
	return &Reconciler{m: m, resumeForeign: resumeForeign, seen: map[string]sighting{}, log: log}
}

// Reconciled is what a round has found out about one pooler.
type Reconciled struct {
	Pooler string
	Done   string // "resumed", "put back", "reported"; "" when there was nothing to do
	Text   string
}

// verdict is what to do about a pause.
type verdict int

const (
	leaveAlone verdict = iota
	resumeIt
	putSettings // the setting only
	reportIt    // to a person
)

// ownLease is this member's own lease for the owner of a pause.
type ownLease struct {
	made  bool      // there is one with the pause's nonce: it was made here, all but surely
	until time.Time // its end; zero where it may be an earlier pause's (one nonce in ten is the same), so that this one gets its time anew
}

// overdue decides about a pause that was first seen so long ago. lease is the configured one.
func overdue(s pgb.State, seen, lease time.Duration, own ownLease, now time.Time, resumeForeign bool) (verdict, string) {
	until := own.until
	ours := s.Mark != nil && s.Mark.Owner != pgb.Foreign
	paused := s.PauseStands()
	foreign := func() (verdict, string) {
		switch {
		case !resumeForeign:
			return reportIt, "is paused, and not by pgbaton: RESUME in its admin console, or pgbaton resume"
		case seen < lease+reconcileGrace:
			return leaveAlone, ""
		}
		return resumeIt, "somebody else's pause had stood for longer than a lease"
	}
	switch {
	case s.Mark == nil && !paused:
		return leaveAlone, ""
	case s.Mark == nil:
		return foreign()
	case !until.IsZero() && now.Before(until.Add(reconcileGrace)):
		return leaveAlone, ""
	case ours && s.Mark.Owner == pgb.Hand && !own.made:
		// Made on another member, with a lease that only that member knows.
		if seen < lease+reconcileGrace {
			return leaveAlone, ""
		}
		return reportIt, "is paused by hand on another member for longer than the usual lease: its keeper ends it, or pgbaton resume"
	case until.IsZero() && seen < lease+reconcileGrace:
		return leaveAlone, ""
	case ours && s.PausedKnown && !paused:
		return putSettings, "settings of a pause that is over were put back"
	case ours:
		return resumeIt, "the pause by " + s.Mark.Owner.String() + " had outlived its lease"
	case paused:
		return foreign()
	}
	return putSettings, "settings of a pause that is over were put back"
}

// Round looks at every pooler once and does what is due. It blocks until all have answered, consoleTimeout at most for each. Where this
// member is not the writable primary with the lock it does nothing, and forgets what it has seen. The error is transient.
func (c *Reconciler) Round(ctx context.Context) ([]Reconciled, error) {
	if err := c.entitled(ctx); errors.Is(err, errNotPrimary) {
		clear(c.seen)
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoleUnknown, err) // and what was seen is still as old as it was
	}
	poolers, _, errs := c.m.Poolers(ctx, nil)
	defer member.CloseAll(poolers)
	poolers = c.m.SelectDatabases(ctx, c.log, poolers)
	var mu sync.Mutex
	var done []Reconciled
	errs = append(errs, pgb.Each(poolers, func(p *pgb.Pooler) error {
		if !p.HasConsole() {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
		defer cancel()
		state, err := member.StateOfPause(ctx, p)
		if err != nil {
			return err
		}
		mu.Lock()
		what, why, told, foreign := c.judge(p.Name, &state)
		mu.Unlock()
		r := Reconciled{Pooler: p.Name, Text: why}
		r.Done, err = c.do(ctx, p, foreign, what, why, told)
		mu.Lock()
		defer mu.Unlock()
		if r.Done == "resumed" || r.Done == "put back" {
			delete(c.seen, p.Name)
		}
		if r.Done != "" {
			done = append(done, r)
		}
		return err
	})...)
	err := errors.Join(errs...)
	if err == nil && !slices.ContainsFunc(poolers, func(p *pgb.Pooler) bool { return !p.HasConsole() }) {
		c.tidy()
	}
	return done, err
}

// tidy takes away the leases of this member that are over and that no pooler has the mark of: their keepers were killed, and their nonces
// are to be used again.
func (c *Reconciler) tidy() {
	for _, owner := range pgb.Owners() {
		l, ok := readLease(c.m, owner)
		if !ok || time.Now().Before(l.Until.Add(reconcileGrace)) {
			continue
		}
		stands := false
		for _, s := range c.seen {
			stands = stands || s.what.marked && s.what.owner == owner && s.what.nonce == l.Nonce
		}
		if !stands {
			EndLease(c.m, owner)
		}
	}
}

// ErrRoleUnknown says that this member could not find out whether it is to reconcile. Other errors of a round are those of single poolers.
var ErrRoleUnknown = errors.New("not known whether this member is the primary with the lock")

// errNotPrimary: another member reconciles.
var errNotPrimary = errors.New("not the writable primary with the leader lock")

func (c *Reconciler) entitled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, member.RestTimeout)
	defer cancel()
	primary, err := member.IsPrimary(ctx, c.m)
	if err != nil {
		return fmt.Errorf("local server: %w", err)
	}
	if !primary {
		return errNotPrimary
	}
	client, err := c.m.Patroni()
	if err != nil {
		return err
	}
	health, err := client.Leader(ctx)
	if err != nil {
		return err
	}
	if !health.HasLock || !health.Primary() {
		return errNotPrimary
	}
	return nil
}

// judge remembers since when a pause has been seen, and puts the mark into the state that a RELOAD has taken away; told says that a person
// was told of it already.
func (c *Reconciler) judge(pooler string, state *pgb.State) (what verdict, why string, told, foreign bool) {
	s, ok := c.seen[pooler]
	key := pauseKey{paused: state.PauseStands()}
	// A RELOAD takes the mark away and leaves the pause. It may be somebody else's that began meanwhile, so it gets its time anew.
	if state.Mark == nil && key.paused && s.what.marked && s.what.paused {
		key.lost = true
		state.Mark = &pgb.Mark{Owner: s.what.owner, Nonce: s.what.nonce}
	}
	if m := state.Mark; m != nil {
		key.marked, key.owner, key.nonce = true, m.Owner, m.Nonce
	}
	now := time.Now()
	if !ok || s.what != key {
		s = sighting{what: key, since: now}
	}
	var own ownLease
	if key.marked {
		l, ok := readLease(c.m, key.owner)
		if own.made = ok && l.Nonce == key.nonce; own.made && !l.Until.Before(s.since) {
			own.until = l.Until
		}
	}
	what, why = overdue(*state, now.Sub(s.since), c.m.Config.Pause.Lease, own, now, c.resumeForeign)
	told, s.told = s.told, s.told || what == reportIt
	c.seen[pooler] = s
	return what, why, told, state.Mark == nil || state.Mark.Owner == pgb.Foreign
}

// do does it, and says what was done also where that could not be done to the end.
func (c *Reconciler) do(ctx context.Context, p *pgb.Pooler, foreign bool, what verdict, why string, told bool) (done string, err error) {
	log := c.log.With("pooler", p.Name)
	event := state.EventPutBack
	switch what {
	case leaveAlone:
		return "", nil
	case reportIt:
		if !told {
			log.Warn(why)
		}
		return "reported", nil
	case resumeIt:
		resume := p.Resume
		event = state.EventLeaseExpired
		if foreign {
			resume, event = p.ResumeEverything, state.EventResumed // it had no lease
		}
		if _, err := resume(ctx); err != nil {
			return "", fmt.Errorf("pooler %s is paused for longer than its lease and cannot be resumed: %w", p.Name, err)
		}
		done = "resumed"
		err = p.Unmark(ctx)
	case putSettings:
		if err = p.Unmark(ctx); err != nil {
			return "", err
		}
		done = "put back"
	}
	log.Warn(why+": "+done, "done", done)
	c.m.Journal("reconcile", state.NewID()).Add(state.Entry{Event: event, Pooler: p.Name, Text: why})
	return done, err
}
