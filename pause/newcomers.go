package pause

import (
	"context"
	"errors"
	"slices"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"
)

// holdNewcomers pauses poolers that have come since the pauser looked, while the pause of a handover stands: their clients would be told
// that the server is not there, and PgBouncer would tell them so again from its memory for server_login_retry. They are let go with the
// others. It blocks for [member.ConsoleTimeout] at most.
func (k *keeper) holdNewcomers(ctx context.Context) {
	if k.lease.Owner != pgb.Guard || !k.stands() {
		return
	}
	var came []*pgb.Pooler
	index := map[*pgb.Pooler]*watched{}
	for _, p := range k.poolers {
		if p.later && !p.judged && p.HasConsole() && k.m.Follow(p.Pooler) == nil {
			came = append(came, p.Pooler)
			index[p.Pooler] = p
		}
	}
	if len(came) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	pgb.Each(k.m.SelectDatabases(ctx, k.log, came), func(p *pgb.Pooler) error {
		k.holdNewcomer(ctx, index[p])
		return nil
	})
}

// stands reports whether the pause was seen to stand in this round, and nobody has begun to resume.
func (k *keeper) stands() bool {
	return slices.ContainsFunc(k.poolers, func(p *watched) bool { return !p.later && p.stands }) && !k.resumed()
}

// resumed reports whether a pooler of the lease was resumed, which is done for all at the same time, or nothing is left of any of them.
func (k *keeper) resumed() bool {
	return slices.ContainsFunc(k.poolers, func(p *watched) bool { return !p.later && p.resumed }) ||
		!k.missing && !slices.ContainsFunc(k.poolers, func(p *watched) bool { return !p.later && !p.over })
}

func (k *keeper) holdNewcomer(ctx context.Context, p *watched) {
	before, err := member.StateOfPause(ctx, p.Pooler)
	if err != nil {
		return // it may not be ready yet
	}
	p.judged = true
	if before.PauseStands() || before.Mark != nil {
		return // somebody's pause, or ours: the pooler has moved
	}
	// Without a mark nobody could tell later whose pause it is.
	_, put, err := p.Mark(ctx, k.lease.Owner, k.lease.Nonce)
	if err != nil || !put {
		k.log.Warn("a pooler has come during the handover and cannot be marked: its clients are not held", "pooler", p.Name, "error", err)
		return
	}
	p.held, p.over = true, false
	k.journal.Add(state.Entry{Event: state.EventPauseSent, Pooler: p.Name})
	_, err = p.Pause(ctx)
	var busy *pgb.NotDrainedError
	switch {
	case err == nil:
		k.log.Info("a pooler has come during the handover: it is paused with the others", "pooler", p.Name)
	case errors.As(err, &busy):
		// Clients work there, at a server that lives: whichever it is, they are not ours to stop.
		k.log.Warn("a pooler has come during the handover, and clients work on it: it is left alone", "pooler", p.Name)
		k.release(context.WithoutCancel(ctx), p)
	default:
		k.log.Warn("a pooler has come during the handover, and whether it is paused is not known", "pooler", p.Name, "error", err)
	}
}

// letNewcomersGo ends what holdNewcomers has done, when the others are resumed. The new primary's worker does the same for those that it
// knows of. It blocks for [member.ConsoleTimeout] at most.
func (k *keeper) letNewcomersGo(ctx context.Context) {
	if !k.resumed() {
		return
	}
	k.each(func(p *watched) {
		if p.held {
			k.release(ctx, p)
		}
	})
}

func (k *keeper) release(ctx context.Context, p *watched) {
	ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	ended, err := k.end(ctx, p)
	if err != nil {
		k.log.Warn("cannot resume, trying again until the lease is over", "pooler", p.Name, "error", err)
		return
	}
	p.held = false
	if ended {
		k.journal.Add(state.Entry{Event: state.EventResumed, Pooler: p.Name})
		k.log.Info("the pooler that had come during the handover is resumed", "pooler", p.Name)
	}
}
