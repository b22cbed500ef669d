package hooks

import (
	"context"
	"fmt"

	"github.com/pgbaton/pgbaton/follow"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/pgb"
)

// decideReaders says whether the guard of a replica may hold it up for those who read there, through the pooler beside it. Nobody renews a
// lock by this server, so no lock limits it. Where the server does not come back by itself (Patroni shuts down, a reinit, a rewind),
// readers are held only if there is somewhere to take them: they could not do better than to connect elsewhere at once.
func decideReaders(v view) plan {
	h := v.health
	var why string
	switch {
	case v.answered && !isStopping(h.State) && !v.calledByPatroni:
		return plan{kind: proceed, reason: fmt.Sprintf("Patroni is not stopping this replica (state %s): nothing to hold", h.State)}
	case !v.told.IsZero():
		why = "Patroni is told to shut down"
	case !v.silentSince.IsZero():
		why = "Patroni " + v.silentCause + ", it is shutting down or frozen"
	case !v.answered:
		why = "Patroni has not answered yet"
	case !isRestart(v):
		why = fmt.Sprintf("Patroni stops this replica (state %s)", h.State)
	default:
		return plan{kind: pauseAndWait, until: v.started.Add(v.budget), patient: true, stop: true, restart: true,
			reason: "Patroni restarts this replica: its readers wait for it"}
	}
	if !v.elsewhere {
		return plan{kind: proceed, reason: why + ", and its readers cannot be taken elsewhere (follow.readers): nothing is held"}
	}
	return limited(v, why+", its readers are taken to another replica")
}

// holdsReaders fills in whether this replica has readers to hold.
func (g *guard) holdsReaders() {
	g.update(func(v *view) {
		for _, p := range g.m.Config.Poolers {
			if p.Follow != nil && !p.Follow.Elsewhere {
				v.readers = true
				v.elsewhere = v.elsewhere || len(p.Follow.Readers) > 0
			}
		}
	})
}

// ofReplica reports whether this guard holds the readers of a replica, not the clients of a primary.
func (g *guard) ofReplica() bool { return g.view.local == roleReplica }

// ours are those of the poolers that it holds.
func (g *guard) ours(ctx context.Context, poolers []*pgb.Pooler) []*pgb.Pooler {
	if g.ofReplica() {
		return g.m.ReadingHere(ctx, g.log, poolers)
	}
	return g.m.LeadingHere(ctx, g.log, g.m.SelectDatabases(ctx, g.log, poolers))
}

// owner is whose pause this guard makes.
func (g *guard) owner() pgb.Owner {
	if g.ofReplica() {
		return pgb.Readers
	}
	return pgb.Guard
}

// steps are those of the handover; of a replica's, those that hold its readers.
func (g *guard) steps() []step {
	drain := step{do: g.drain, undo: func(ctx context.Context) error { return g.fleet.Undo(ctx, true) }}
	if g.ofReplica() {
		return []step{{do: g.knowReplica}, drain, {do: g.takeReaders}, {do: g.stopServer}}
	}
	return []step{{do: g.knowServer}, {do: g.awaitStandby}, drain, {do: g.confirmStandby}, {do: g.stopServer}}
}

// knowReplica tells the keeper which server it is that will be gone, and finds out where readers can go if it does not come back by itself.
// It ends the guard where either is not known: nobody could tell when they may go on.
func (g *guard) knowReplica(ctx context.Context) *ending {
	here, err := g.identity(ctx)
	if err != nil {
		return &ending{Result: member.Result{Code: member.Failed,
			Decision: "nothing is paused: the local server does not tell when it was started: " + err.Error()}}
	}
	g.fleet.HoldsReaders(pause.Replica{SystemID: here.SystemID, Started: here.PostmasterStart},
		func() (restarts bool) { return g.plan().restart })
	if g.plan().restart {
		return nil
	}
	looking, cancel := g.whilePlanned(ctx)
	defer cancel()
	if g.readAt, err = follow.NewFinder(g.m).Replica(looking, here.SystemID, here.PostmasterStart); err != nil {
		return &ending{Result: member.Result{Decision: "its readers cannot be taken elsewhere, nothing is held: " + err.Error()}}
	}
	return nil
}

// takeReaders has those who read here go on at another replica, while they wait, where this one does not come back by itself. They go on in
// any case: waiting for nothing would be worse than to be cut.
func (g *guard) takeReaders(ctx context.Context) *ending {
	if g.readAt.Name == "" {
		return nil
	}
	for _, x := range g.fleet.Poolers {
		mover := follow.NewReaders(g.m, x.Pooler)
		if mover.Moves() {
			moving, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
			_, err := mover.Move(moving, g.readAt.Address)
			cancel()
			if err != nil {
				g.log.Error("its readers cannot be taken to another replica", "pooler", x.Name, "replica", g.readAt.Name, "error", err)
			}
		}
		mover.Close()
	}
	if err := g.fleet.Undo(ctx, true); err != nil {
		g.log.Error("cannot take back a pause", "error", err)
	}
	g.outcome.Decision += "; its readers go on at " + g.readAt.Name
	return nil
}
