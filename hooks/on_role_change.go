package hooks

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/pgb"
)

// Event is what Patroni appends to a callback: the action, the role and the scope. All are empty when a person calls.
type Event struct {
	Action string // on_start, on_stop, on_restart, on_role_change
	Role   string // primary or master, replica, demoted, standby_leader, …
	Scope  string

	// Stopped is when the server was started that the guard is stopping, as the server tells it: the worker waits for another one. Zero:
	// whichever runs.
	Stopped time.Time
}

// restartAction is the action of a worker that the guard starts when Patroni restarts the server in place: Patroni looks once a second
// whether the server is up, and calls on_restart only then (4.0.7, 4.1.5).
const restartAction = "restart"

// OnRoleChange is the callback, for all four actions: a restart of the primary fires on_restart and never on_role_change, a cluster
// that starts fires on_start (Patroni 3.0.3 to 4.1). For a primary it starts the worker and returns at once; for any other
// role it stops one that is still at it. Without a role the local server is asked.
func OnRoleChange(ctx context.Context, rt *member.Member, ev Event) member.Result {
	defer pause.TakeUp(rt)
	log := rt.Log.With("hook", "on_role_change", "member", member.Name(), "action", ev.Action, "role", ev.Role)
	primary := patroni.IsPrimaryRole(ev.Role)
	if ev.Role == "" {
		var err error
		if primary, err = member.IsPrimary(ctx, rt); err != nil {
			return member.Result{Code: member.Failed, Decision: "no role given and the local server does not answer: " + err.Error()}
		}
	}
	// on_stop of a primary: the server is down, nobody can be let through to it.
	if !primary || ev.Action == "on_stop" {
		stopWorker(rt)
		if ev.Role == standbyLeader && ev.Action != "on_stop" {
			return endForStandbyLeader(ctx, rt, log)
		}
		if ev.Role == "replica" && ev.Action != "on_stop" && !rt.DryRun {
			makeOwnSlot(ctx, rt, log)
		}
		return member.Result{Decision: "not a running primary: nothing to resume here"}
	}
	if len(rt.Config.Poolers) == 0 {
		return member.Result{Code: member.Invalid, Decision: "no poolers are configured (set poolers in pgbaton.yaml): nothing to resume"}
	}
	if ev.Action == "on_restart" || ev.Action == "on_start" {
		if pid, ok := workerOf(rt, restartAction); ok {
			return member.Result{Decision: fmt.Sprintf("the worker that the guard has started (process %d) is resuming", pid)}
		}
	}
	if rt.DryRun {
		return member.Result{Decision: "would start the worker that resumes when the server is writable and the route leads here"}
	}
	stopWorker(rt)
	// Patroni kills this hook only to run the next callback (3.0.3 to 4.1), which stops or replaces a worker in any case.
	worker, err := rt.StartOwn(member.WorkCommand, ev.Action, ev.Role, ev.Scope)
	if err != nil {
		// Better late and in danger of being killed than not at all.
		log.Error("cannot start the worker, doing its work here", "error", err)
		return Work(ctx, rt, ev, nil)
	}
	log.Info("worker started", "pid", worker.PID)
	return member.Result{Decision: "the worker is started"}
}

// standbyLeader is the role of a leader that follows another cluster. It takes no writes.
const standbyLeader = "standby_leader"

// endForStandbyLeader ends the pause of a primary that has become a standby leader: nobody of this cluster will take writes, so nobody else
// would resume, and waiting helps no client.
func endForStandbyLeader(ctx context.Context, rt *member.Member, log *slog.Logger) member.Result {
	if rt.DryRun {
		return member.Result{Decision: "would end the pause of a guard of this member: a standby leader takes no writes"}
	}
	ended, err := pause.EndOwn(ctx, rt, log, pgb.Guard)
	switch {
	case err != nil:
		log.Error("cannot resume: the lease ends the pause", "error", err)
		return member.Result{
			Code:     member.Failed,
			Decision: "this cluster follows another one now, and a pause of the guard could not be ended: " + err.Error(),
		}
	case ended == 0:
		return member.Result{Decision: "a standby leader takes no writes: nothing to resume here"}
	}
	log.Warn("this cluster follows another one now and takes no writes: the pause has no reason any more, resumed", "poolers", ended)
	return member.Result{Decision: fmt.Sprintf("this cluster follows another one now: %d pooler(s) resumed", ended)}
}
