package pause

import (
	"context"
	"time"

	"github.com/pgbaton/pgbaton/follow"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/state"
)

// moveAgain is between tries to move a pooler that cannot be moved.
const moveAgain = 200 * time.Millisecond

// startMoving moves the poolers that stand beside us to the new leader, in the background, until ctx ends: the handover has begun on this
// member, so nobody else does it as soon.
func (k *keeper) startMoving(ctx context.Context) {
	if k.lease.Owner != pgb.Guard || k.m.DryRun {
		return
	}
	k.beside(follow.New, func(finder *follow.Finder, mover *follow.Mover, l lease) { k.move(ctx, finder, mover, l) })
}

// beside does something in the background with each pooler that stands beside us, and with the lease as it is now.
func (k *keeper) beside(moves func(*member.Member, *pgb.Pooler) *follow.Mover, do func(*follow.Finder, *follow.Mover, lease)) {
	finder := follow.NewFinder(k.m)
	for _, p := range k.poolers {
		if !k.m.Moves(p.Pooler) {
			continue
		}
		mover := moves(k.m, p.Pooler)
		l := k.lease
		k.moving.Go(func() {
			defer mover.Close()
			do(finder, mover, l)
		})
	}
}

// move blocks until the pooler leads to a member that was promoted since the handover began, and is resumed; or until ctx ends.
func (k *keeper) move(ctx context.Context, finder *follow.Finder, mover *follow.Mover, l lease) {
	said := ""
	began := time.Now()
	for ctx.Err() == nil {
		leader, err := finder.Successor(ctx, k.ledBefore(), postgres.Identity{})
		if err != nil || !l.Origin.promotedSince(leader.Identity) {
			member.Sleep(ctx, member.Pace(time.Since(began)))
			continue
		}
		err = k.moveTo(ctx, mover, leader, l)
		if err == nil || ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != said {
			said = text
			k.log.Error("the pooler cannot be moved to the new leader, trying again until the lease is over; "+
				"then its clients meet this member", "pooler", mover.Name, "leader", leader.Name, "error", err)
		}
		member.Sleep(ctx, moveAgain)
	}
}

func (k *keeper) moveTo(ctx context.Context, mover *follow.Mover, leader follow.Leader, l lease) error {
	ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	if _, err := mover.Move(ctx, mover.Target(leader)); err != nil {
		return err
	}
	return k.letGo(ctx, mover, l, "moved and resumed", "leader", leader.Name)
}

// letGo resumes a pooler that leads to where its clients can go on, unless the pause is over there.
func (k *keeper) letGo(ctx context.Context, mover *follow.Mover, l lease, said string, more ...any) error {
	p := &watched{Pooler: mover.Pooler, listed: true}
	s, err := p.State(ctx)
	if err != nil {
		return err
	}
	if p.isOver(s, l) {
		return nil
	}
	if s.Mark == nil || s.Mark.Owner != pgb.Foreign {
		if _, err := p.Resume(ctx); err != nil {
			return err
		}
		k.log.Info(said, append([]any{"pooler", p.Name}, more...)...)
		k.journal.Add(state.Entry{Event: state.EventResumed, Pooler: p.Name, Took: time.Since(l.Since)})
	}
	return p.Unmark(ctx)
}

// learnMembers finds out, in the background, who else can be asked for the leader: Patroni of this member may take no questions any more
// when that counts.
func (k *keeper) learnMembers(ctx context.Context) {
	for _, p := range k.poolers {
		if k.m.Moves(p.Pooler) {
			k.moving.Go(func() {
				if leader, err := follow.NewFinder(k.m).Learn(ctx); err == nil {
					k.before.Store(&leader)
				}
			})
			return
		}
	}
}

// ledBefore is where the server of the leader was when the keeper began; zero: not known.
func (k *keeper) ledBefore() pgbini.Address {
	if before := k.before.Load(); before != nil {
		return *before
	}
	return pgbini.Address{}
}
