package pause

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"
)

// takeUpInterval is between looks for leases without a keeper: two files are opened.
const takeUpInterval = 2 * time.Second

// TakeUp starts a new keeper for each lease of this member whose keeper has ended before the pause: it was killed, or its container has
// ended. The new one goes on where the other was, and ends at once what is overdue. It blocks until the new keepers are ready, 1 s at
// most for each; without such a lease it takes microseconds. Without a state directory nothing is known of any lease.
func TakeUp(m *member.Member) { newTaker(m).round() }

// TakeUpWhile does the same at once and then every two seconds, until ctx ends.
func TakeUpWhile(ctx context.Context, m *member.Member) {
	t := newTaker(m)
	tick := time.NewTicker(takeUpInterval)
	defer tick.Stop()
	for {
		t.round()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// taker takes up leases.
type taker struct {
	m    *member.Member
	done map[string]bool // by ID: a keeper that cannot write its file would be taken for one that is gone, again and again
}

func newTaker(m *member.Member) *taker { return &taker{m: m, done: map[string]bool{}} }

func (t *taker) round() {
	if t.m.Config.StateDir == "" || t.m.DryRun {
		return
	}
	for _, owner := range pgb.Owners() {
		t.takeUp(owner)
	}
}

func (t *taker) takeUp(owner pgb.Owner) {
	log := t.m.Log.With("hook", "keeper", "member", member.Name())
	path := filepath.Join(t.m.Config.StateDir, leaseFile(owner))
	var l lease
	// Held until the new keeper has put a file of its own in the place of this one, so that nobody else takes it up as well.
	claim, err := state.Claim(path, &l)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, state.ErrBusy) {
		return
	}
	defer claim.Release()
	now := time.Now()
	if err == nil && (l.Owner != owner || l.Until.IsZero()) {
		err = errors.New("not a lease")
	}
	switch {
	case err != nil && t.done[path]:
		return
	case err != nil:
		t.done[path] = true
		log.Warn("cannot read a lease, it is left", "file", path, "error", err)
		return
	case t.done[l.ID]:
		return
	}
	overdue := now.Sub(l.Until)
	l.For = l.remaining(now, t.m.Config.Pause.Lease)
	l.Until = now.Add(l.For)
	keeper, err := startKeeper(t.m, false, l)
	if err != nil {
		// On a busy machine it may only be slow: then it goes on without us.
		log.Error("the keeper of a pause was gone, and no other is ready: pgbaton resume ends the pause", "lease", l.ID, "error", err)
		return
	}
	t.done[l.ID] = true
	keeper.leave()
	t.m.Journal("keeper", l.ID).Add(state.Entry{Event: state.EventTakenUp, Took: now.Sub(l.Since)})
	log.Warn("the keeper of a pause was gone before the pause: another has taken up its lease",
		"lease", l.ID, "by", owner, "overdue", max(overdue, 0).Round(time.Millisecond), "until", l.Until.Format(time.RFC3339))
}

// remaining is how long a pause may still last. One that is long overdue may be over, with a later one of another member in its place
// that has the same mark by chance (one in ten): it gets the time of a usual lease, in which a later pause ends.
func (l lease) remaining(now time.Time, usual time.Duration) time.Duration {
	switch left := l.Until.Sub(now); {
	case left > 0:
		return min(left, l.For) // a clock that was set back makes no pause longer
	case -left <= resumeInsists:
		return 0
	}
	return usual
}
