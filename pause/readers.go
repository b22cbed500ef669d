package pause

import (
	"context"
	"time"

	"github.com/pgbaton/pgbaton/follow"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
)

// Replica is the server whose readers wait in a pause.
type Replica struct {
	SystemID string    `json:"systemId,omitempty"`
	Started  time.Time `json:"started,omitzero"` // its postmaster: another one is the server that is back
	Restarts bool      `json:"restarts,omitempty"`
}

func (r Replica) known() bool { return !r.Started.IsZero() }

// HoldsReaders says that the pause is for those who read at this replica. restarts is asked at each attempt whether Patroni starts the
// server again by itself.
func (f *Fleet) HoldsReaders(r Replica, restarts func() bool) { f.replica, f.restarts = r, restarts }

const (
	// replicaPart of the lease is how long readers wait for a replica that is restarted, before they are taken to another one.
	replicaPart = 3
	// elsewhereFor is how long another replica is looked for, where the server does not come back by itself. Then the readers are let go:
	// they meet what they would have met without us.
	elsewhereFor = 3 * time.Second
)

// startReading has those who read at this replica go on, in the background, until ctx ends.
func (k *keeper) startReading(ctx context.Context) {
	if k.lease.Owner != pgb.Readers || k.m.DryRun {
		return
	}
	k.beside(follow.NewReaders, func(finder *follow.Finder, mover *follow.Mover, l lease) { k.read(ctx, finder, mover, l) })
}

// read blocks until the server is back and the pooler is resumed; or the pooler leads to another replica and is resumed; or ctx ends.
func (k *keeper) read(ctx context.Context, finder *follow.Finder, mover *follow.Mover, l lease) {
	said := ""
	complain := func(err error) {
		if text := err.Error(); text != said && ctx.Err() == nil {
			said = text
			k.log.Warn("the readers of this replica wait on", "pooler", mover.Name, "error", err)
		}
	}
	began, tried := time.Now(), time.Time{}
	for ctx.Err() == nil {
		waited := time.Since(began)
		switch {
		case k.replicaIsBack(ctx, l.Replica):
			err := k.letReadersGo(ctx, mover, l, "the replica is back, its readers go on")
			if err == nil {
				return
			}
			complain(err)
		case mover.Moves() && waited >= l.Replica.patience(l.For) && time.Since(tried) >= moveAgain:
			tried = time.Now()
			err := k.readElsewhere(ctx, finder, mover, l)
			if err == nil {
				return
			}
			complain(err)
		}
		if waited >= l.Replica.patience(l.For)+elsewhereFor && !(l.Replica.Restarts && mover.Moves()) {
			if err := k.letReadersGo(ctx, mover, l, "the replica is not back in time, its readers are let go"); err == nil {
				return
			}
		}
		member.Sleep(ctx, member.Pace(waited))
	}
}

// patience is how long readers wait for the server.
func (r Replica) patience(lease time.Duration) time.Duration {
	if r.Restarts {
		return lease / replicaPart
	}
	return 0
}

// replicaIsBack reports whether another run of the server takes questions.
func (k *keeper) replicaIsBack(ctx context.Context, r Replica) bool {
	local, err := k.m.Server()
	if err != nil {
		return false
	}
	here, err := member.Identify(ctx, local)
	return err == nil && !here.PostmasterStart.Equal(r.Started)
}

func (k *keeper) readElsewhere(ctx context.Context, finder *follow.Finder, mover *follow.Mover, l lease) error {
	replica, err := finder.Replica(ctx, l.Replica.SystemID, l.Replica.Started)
	if err != nil {
		return err
	}
	moving, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	if _, err := mover.Move(moving, replica.Address); err != nil {
		return err
	}
	return k.letReadersGo(ctx, mover, l, "the readers of this replica go on at another one", "replica", replica.Name)
}

func (k *keeper) letReadersGo(ctx context.Context, mover *follow.Mover, l lease, said string, more ...any) error {
	ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	return k.letGo(ctx, mover, l, said, more...)
}
