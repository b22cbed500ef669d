package hooks

import (
	"context"
	"errors"
	"time"

	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/follow"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
)

// routed are the poolers that lead to a route which somebody else moves.
func (w *worker) routed(poolers []*pgb.Pooler) []*pgb.Pooler {
	var routed []*pgb.Pooler
	for _, p := range poolers {
		if w.rt.Follow(p) == nil {
			routed = append(routed, p)
		}
	}
	return routed
}

// leadHere has a pooler lead to this member's server before it is resumed. Our own is moved. One beside another member is waited for, which
// moves it; ours is false where it is not paused by a guard, or not any more: then it is nobody's to resume. With an error it must not be
// resumed: its clients would meet a server that takes no writes.
func (w *worker) leadHere(ctx context.Context, p *pgb.Pooler) (ours bool, err error) {
	switch f := w.rt.Follow(p); {
	case f == nil:
		return true, nil
	case !f.Elsewhere:
		return true, w.moveOwn(ctx, p)
	}
	held := false
	for began := time.Now(); ; member.Sleep(ctx, member.Pace(time.Since(began))) {
		leads, paused, err := w.rt.LeadsHere(ctx, p, pgb.Guard, held)
		held = held || paused
		switch {
		case err == nil && !paused:
			return false, nil
		case err == nil && leads:
			return true, nil
		case ctx.Err() != nil && err != nil:
			return false, err
		case ctx.Err() != nil:
			return false, errors.New("it was not moved to this member: is pgbaton serve running beside it?")
		}
	}
}

// moveOwn moves the pooler beside us to the local server. Where nobody had paused it, its clients have met the old server.
func (w *worker) moveOwn(ctx context.Context, p *pgb.Pooler) error {
	mover := follow.New(w.rt, p)
	defer mover.Close()
	var moved, held bool
	err := member.Retry(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
		defer cancel()
		now, err := mover.Move(ctx, mover.Local())
		if moved = moved || now; err != nil || !moved {
			return err
		}
		s, err := mover.State(ctx) // a mark and a pause outlast a move
		if err != nil {
			return err
		}
		if held = s.Mark != nil || s.PauseStands(); held {
			return mover.Reconnect(ctx)
		}
		return nil
	}, func(err error) bool {
		var problem *file.Problem
		return member.IsPermanent(err) || errors.As(err, &problem)
	})
	if err != nil || !moved || held {
		return err
	}
	if err := mover.Hurry(ctx); err != nil { // it leads here, and that is what counts
		w.log.Warn("the pooler leads here, and may connect only after its server_login_retry", "pooler", p.Name, "error", err)
	}
	return nil
}
