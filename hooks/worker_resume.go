package hooks

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"
)

// resume resumes every pooler, each for itself: one that does not answer holds nobody else up.
func (w *worker) resume(whole context.Context, poolers []*pgb.Pooler) member.Result {
	// The whole time-out may have gone into waiting; a resume gets some of its own. A later event ends it: what comes then may be a
	// pause, and this must not take it back.
	ctx, cancel := context.WithTimeout(whole, max(w.rt.Config.Resume.Timeout/2, member.ConsoleTimeout))
	defer cancel()
	var mu sync.Mutex
	resumed := 0
	errs := pgb.Each(poolers, func(p *pgb.Pooler) error {
		ours, err := w.leadHere(ctx, p)
		if err != nil || !ours {
			return err
		}
		was, err := w.resumeOne(ctx, p)
		if was {
			mu.Lock()
			resumed++
			mu.Unlock()
		}
		return err
	})
	if whole.Err() != nil {
		return member.Result{
			Code:     member.Failed,
			Decision: fmt.Sprintf("stopped by a later event: %d pooler(s) resumed, the rest is for that", resumed),
		}
	}
	failed, away := 0, 0
	for i, err := range errs {
		switch {
		case err == nil:
		case member.NobodyListens(err) && !w.answered[poolers[i]]:
			away++
			w.log.Warn("the pooler takes no connections: it does not run, or it shuts down (after SIGTERM PgBouncer takes none, and waits "+
				"for its clients). There was nothing to resume as far as can be seen; where its clients hang, end its process",
				"pooler", poolers[i].Name, "error", err)
		default:
			failed++
			w.log.Error(
				"cannot resume: do it by hand (RESUME in its admin console); its lease ends the pause otherwise",
				"pooler",
				poolers[i].Name,
				"error",
				err,
			)
		}
	}
	if failed > 0 {
		return member.Result{Code: member.Failed, Decision: fmt.Sprintf("%d pooler(s) resumed, %d could not be", resumed, failed)}
	}
	pause.EndLease(w.rt, pgb.Guard)
	decision := fmt.Sprintf("%d pooler(s) resumed, %d were not paused", resumed, len(poolers)-resumed-away)
	if away > 0 {
		decision += fmt.Sprintf(", %d take no connections", away)
	}
	return member.Result{Decision: decision}
}

// refusedFor is how long a pooler may refuse connections until it is left to itself: one that is started anew is back by then.
const refusedFor = 5 * time.Second

// givesUp tells, from one error after the other, when no repetition will help with a pooler.
func givesUp() func(error) bool {
	var since time.Time
	return func(err error) bool {
		switch {
		case !member.NobodyListens(err):
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		}
		return member.IsPermanent(err) || !since.IsZero() && time.Since(since) >= refusedFor
	}
}

func (w *worker) resumeOne(ctx context.Context, p *pgb.Pooler) (was bool, err error) {
	if !p.HasConsole() {
		return true, p.Signal((*pgb.Process).Resume)
	}
	var found pgb.State
	err = member.Retry(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
		defer cancel()
		var err error
		if found, err = member.StateOfPause(ctx, p); err != nil {
			return err
		}
		if found.Mark != nil && found.Mark.Owner != pgb.Guard {
			w.log.Warn("left paused: it is not the guard's pause", "pooler", p.Name, "owner", found.Mark.Owner)
			return nil
		}
		resumed, err := p.Resume(ctx)
		was = was || resumed
		return err
	}, givesUp())
	if err != nil {
		if p.Pidfile != "" {
			w.log.Warn("the console does not answer, resuming with a signal", "pooler", p.Name, "error", err)
			return true, p.Signal((*pgb.Process).Resume)
		}
		return was, err
	}
	if was {
		w.log.Info("resumed", "pooler", p.Name)
		w.journal.Add(state.Entry{Event: state.EventResumed, Pooler: p.Name})
	}
	// Also where nothing was paused: after a failover that nobody planned, a pool may have caught the old primary as a replica and
	// would keep it for server_lifetime.
	w.verify(ctx, p)
	if found.Mark == nil || found.Mark.Owner == pgb.Hand || found.Mark.Owner == pgb.Readers {
		return was, nil
	}
	err = member.Retry(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
		defer cancel()
		return p.Unmark(ctx)
	}, member.IsPermanent)
	if err == nil {
		w.journal.Add(state.Entry{Event: state.EventPutBack, Pooler: p.Name})
	}
	return was, err
}
