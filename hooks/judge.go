package hooks

import (
	"slices"
	"time"

	"github.com/pgbaton/pgbaton/postgres"
)

const (
	// routeGrace is for further addresses once one leads here, and where none is in question.
	routeGrace = 2 * time.Second
	// routeUnreachable is how long addresses are waited for of which none answers at all: an address that moves takes less, and where a
	// packet filter or a name of another network is in the way, nothing will be seen from here however long it takes.
	routeUnreachable = 10 * time.Second
)

// What [judge] goes by, as people read it.
const (
	ledHere      = "the route leads here"
	ledPartly    = "the route leads here, as far as it will"
	notChecked   = "cannot log in over the route, so it was not checked"
	notReachable = "no address of the route can be reached from here, so it was not checked: set resume.route"
	noneForUs    = "no address of the poolers is for writing to this cluster"
)

// judge decides whether the poolers may be resumed, from what was seen last at each address: waited is since the first look, led since an
// address led here for the first time, 0 for not yet. "" is not yet.
//
// An address for reading, one of another cluster, and one where we may not log in need not lead here. One that a pooler still has in its
// cache must, until that has expired. The others must, or have had their grace once one does.
func judge(seen []sight, waited, led time.Duration) string {
	open := slices.DeleteFunc(slices.Clone(seen), func(s sight) bool {
		return s == leadsHere || s == standsBy || s == otherSystem || s == notLetIn
	})
	all := func(of []sight, which sight) bool {
		return !slices.ContainsFunc(of, func(s sight) bool { return s != which })
	}
	here := slices.Contains(seen, leadsHere)
	switch {
	case slices.Contains(open, expires):
		return ""
	case len(open) == 0 && here:
		return ledHere
	case len(open) == 0 && all(seen, notLetIn):
		return notChecked
	case len(open) == 0 && waited >= routeGrace:
		return noneForUs
	case len(open) > 0 && here && led >= routeGrace && !slices.Contains(open, notSeen):
		return ledPartly
	case !here && all(open, noAnswer) && len(open) > 0 && waited >= routeUnreachable:
		return notReachable
	}
	return ""
}

// stoodBefore decides whether a standby was one already before this server became primary, so that it is not the old primary: whoever leads
// there leads to replicas for reading. since is how long the worker has been here; the worker is started after the promotion was sent.
//
// The old primary was stopped before that and runs again since, as a standby, for a shorter time. After a fast shutdown it has replayed
// nothing that it committed itself; and what it has replayed after a crash it has replayed since the promotion. Both clocks are
// compared with themselves only: up-time with a duration, and commit times of the one primary that wrote them.
//
// After a restart in place this server is the old primary itself: who runs for longer stood by.
func stoodBefore(theirs, ours postgres.Replay, since time.Duration, restarted bool) bool {
	if restarted {
		return theirs.Up > ours.Up
	}
	return theirs.Up >= since && !theirs.LastXact.IsZero() && !ours.LastXact.IsZero() && !theirs.LastXact.After(ours.LastXact)
}
