package maintenance

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/peer"
)

// The cluster's lock is an entry for each run in Patroni's dynamic configuration:
//
//	pgbaton_run_ID: {member: m1, kind: cluster/restart, since: …, renewed: 3}
//
// Each has a key of its own at the top: whoever takes theirs out leaves nothing there. A key for all of them could only be taken out by one
// who takes somebody's entry out with it that has just been added.
//
// It is the one place of the DCS that Patroni's REST API can write for others and that it writes by compare-and-set (PATCH /config, see
// [patroni.Client.PatchConfig]), and all members see it. Everybody who wants the lock adds an entry of their own, and the answer shows who
// was there before: who sees nobody has it, anyone else takes their entry out again. Two at once see each other at worst, and then neither
// goes on. What a change of the key costs the members is a line in Patroni's log. While a restart is pending Patroni reloads the
// servers too, as it does at each change then (4.0.7, 4.1.5).
const (
	runPrefix = "pgbaton_run_" // and the run's id

	renewEvery = time.Minute
	// staleAfter is how long an entry must have been seen without a change before it is taken for one of a run that was killed.
	staleAfter = renewEvery + 15*time.Second
	// lockTimeout bounds one change of the key, with its repetitions: longer than Patroni's default retry_timeout (10 s) for the DCS.
	lockTimeout = 20 * time.Second
	maxRuns     = 100
)

// entry is one run in the cluster's configuration.
type entry struct {
	Member  string    `json:"member"`
	Kind    string    `json:"kind"`
	Since   time.Time `json:"since"`
	Renewed int       `json:"renewed"`
}

// lockedError says whose run has the cluster.
type lockedError struct {
	id string
	entry
	killed string // what to do if that run was killed
}

func (e *lockedError) Error() string {
	return fmt.Sprintf("run %s (%s) works on this cluster, from member %s, since %s; wait until it has ended; %s",
		e.id, e.Kind, e.Member, e.Since.Format(time.RFC3339), e.killed)
}

var errLockLost = errors.New("another run has taken the cluster over, or its entry was taken out of Patroni's configuration")

// clusterLock is our entry.
type clusterLock struct {
	client  *patroni.Client
	log     *slog.Logger
	id      string
	own     entry
	renewed atomic.Int64
	lost    atomic.Bool
}

// take adds our entry, and takes it out again where another run was there before, which is a [*lockedError], unless stale says of it that
// it may be taken over. It blocks for some multiples of [lockTimeout] at most.
func (l *clusterLock) take(ctx context.Context, stale func(id string, e entry) (take bool, killed string)) error {
	runs, err := l.patch(ctx, map[string]any{l.id: l.own})
	if err != nil {
		return errors.Join(err, l.release(ctx))
	}
	over := map[string]any{}
	for id, other := range runs {
		if id == l.id {
			continue
		}
		take, killed := stale(id, other)
		if !take {
			refused := &lockedError{id: id, entry: other, killed: killed}
			if err := l.release(ctx); err != nil {
				l.log.Warn("our entry could not be taken out of Patroni's configuration ("+runPrefix+l.id+")", "run", l.id, "error", err)
			}
			return refused
		}
		l.log.Warn("taking the cluster over from a run that was killed", "run", id, "member", other.Member, "since", other.Since)
		over[id] = nil
	}
	if len(over) == 0 {
		return nil
	}
	runs, err = l.patch(ctx, over)
	if err != nil {
		return errors.Join(err, l.release(ctx))
	}
	for id, other := range runs {
		if id != l.id { // it came while we took the other out, and saw us: it goes again
			return errors.Join(&lockedError{id: id, entry: other, killed: "start this again"}, l.release(ctx))
		}
	}
	return nil
}

// renew counts our entry on, and finds out whether it is still there. It blocks for [lockTimeout] at most. [errLockLost]: it is not.
func (l *clusterLock) renew(ctx context.Context) error {
	if l.lost.Load() {
		return errLockLost
	}
	// Only the count is sent: where the entry was taken out, the answer has one without a member.
	runs, err := l.patch(ctx, map[string]any{l.id: map[string]any{"renewed": l.renewed.Add(1)}})
	if err != nil {
		return err
	}
	if now := runs[l.id]; now.Member != l.own.Member || !now.Since.Equal(l.own.Since) {
		l.lost.Store(true)
		return errors.Join(errLockLost, l.release(ctx))
	}
	return nil
}

// keep renews until ctx is done.
func (l *clusterLock) keep(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := l.renew(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn("the cluster's lock could not be renewed", "run", l.id, "error", err)
		}
	}
}

// release takes our entry out, also where the context is over. It blocks for [lockTimeout] at most.
func (l *clusterLock) release(ctx context.Context) error {
	_, err := l.patch(context.WithoutCancel(ctx), map[string]any{l.id: nil})
	return err
}

// patch merges a change of the entries, by the ids of their runs, and returns those that are there then. It is repeated, as it does the
// same the second time: what became of a call that was cut is not known, and a 409 says that somebody else's came first.
func (l *clusterLock) patch(ctx context.Context, runs map[string]any) (map[string]entry, error) {
	change := map[string]any{}
	for id, value := range runs {
		change[runPrefix+id] = value
	}
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	var now map[string]entry
	err := member.Retry(ctx, func() error {
		all, err := l.client.PatchConfig(ctx, change)
		if err == nil {
			now, err = runsOf(all)
		}
		return err
	}, func(err error) bool { return patroni.Unauthorized(err) || errors.Is(err, errTooMany) })
	if err != nil {
		return nil, fmt.Errorf("the cluster's lock, in Patroni's configuration: %w", err)
	}
	return now, nil
}

var errTooMany = fmt.Errorf("more than %d runs are in Patroni's configuration (%s…): take out with patronictl edit-config what is left "+
	"of runs that have ended", maxRuns, runPrefix)

// runsOf reads the runs from the dynamic configuration. Entries that are none are runs all the same: of a later version, it may be.
func runsOf(all map[string]any) (map[string]entry, error) {
	runs := map[string]entry{}
	for key, value := range all {
		id, ours := strings.CutPrefix(key, runPrefix)
		if !ours {
			continue
		}
		if len(runs) == maxRuns {
			return nil, errTooMany
		}
		var e entry
		if text, err := json.Marshal(value); err == nil {
			_ = json.Unmarshal(text, &e)
		}
		e.Member, e.Kind = peer.Text(cmp.Or(e.Member, "unknown")), peer.Text(cmp.Or(e.Kind, "unknown"))
		runs[peer.Text(id)] = e
	}
	return runs, nil
}
