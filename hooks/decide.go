package hooks

import (
	"fmt"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
)

// Role of the local server, as it says itself.
type role int

const (
	roleUnknown role = iota // it does not answer
	rolePrimary
	roleReplica // in recovery
)

// view is all that is known when a decision is taken.
type view struct {
	now     time.Time
	started time.Time // of the guard

	local role

	// Patroni's REST API. health is its last answer; silentSince is when the first question that got none since then was
	// asked, zero while answers come.
	answered    bool
	asked       time.Time // when the question was asked whose answer this is
	health      patroni.Health
	silentSince time.Time
	silentCause string // "does not answer", "refuses connections"
	// From GET /config; zero while unknown.
	ttl, loopWait time.Duration
	cluster       *patroni.Cluster // from GET /cluster; nil while unknown. Nothing is decided by it here: see standby.go

	readers   bool // a pooler beside this member leads to it, also where it is a replica
	elsewhere bool // and may be led to another replica

	calledByPatroni bool      // Patroni is an ancestor of this process
	told            time.Time // when Patroni told this guard to end; zero: it has not

	budget, shutdownBudget time.Duration
	unlimited              bool // policy wait: only the lock limits
}

// kind is what the guard may do.
type kind int

const (
	proceed      kind = iota // the stop goes on: no pooler is touched, a pause of ours is taken back
	pauseAndWait             // pause the poolers and wait for their clients until the plan's end
	sendPause                // send PAUSE, wait for nothing
)

// plan is a decision.
type plan struct {
	kind    kind
	until   time.Time // the budget's end: then the policy decides
	lockEnd time.Time // whatever is going on, the guard is over by then; zero: not known
	patient bool      // there is time to wait for long transactions while clients work
	stop    bool      // the stop is certain and the lock not in doubt: the guard may stop the drained server
	restart bool      // Patroni starts the same server again; nobody is promoted
	code    int       // exit code for kind proceed
	reason  string
}

const (
	// staleMargin is what a sight of the DCS may be older than loop_wait before it counts as lost: Patroni looks once in
	// loop_wait and tells whole seconds.
	staleMargin = 2 * time.Second
	// toldBudget is what a guard still takes that Patroni has told to end. Patroni does so when it is told to shut down in the middle
	// of a switchover or restart, stops the server all the same, and kills the guard after 10 s (AsyncExecutor.cancel, 4.0.7, 4.1.5).
	toldBudget = 3 * time.Second
)

// decide says whether the guard may hold a stop up, and until when. The cases are those of a stop in Patroni 3.0.3 to 4.1:
// restart and switchover renew the lock while the guard runs, nothing else does, and a guard that outlives
// the lock makes two writable primaries.
func decide(v view) plan {
	if v.local == roleReplica {
		if v.readers {
			return decideReaders(v)
		}
		return plan{kind: proceed, reason: "the server is in recovery: nothing to hold"}
	}
	if v.local == roleUnknown && !(v.answered && v.health.HasLock && patroni.IsPrimaryRole(v.health.Role)) {
		return plan{
			kind:   proceed,
			reason: "the local server does not answer and Patroni does not say that it is the primary: nothing to hold",
		}
	}
	if !v.answered {
		return decideSilent(v)
	}
	h := v.health
	if !h.HasLock {
		return plan{kind: proceed,
			reason: "the leader lock is lost, another member may be primary: the stop goes on at once, no pooler is touched"}
	}
	if !isStopping(h.State) && !v.calledByPatroni {
		return plan{
			kind: proceed,
			code: member.Refused,
			reason: fmt.Sprintf(
				"Patroni is not stopping the server (state %s): nothing to hold; to pause by hand use 'pgbaton pause'",
				h.State,
			),
		}
	}
	if h.ClusterUnlocked {
		// It thinks that its lock still lasts, and sees none: its last look into the DCS failed (that empties what it knows), or the key is
		// gone.
		return plan{kind: sendPause, until: v.now,
			reason: "Patroni has lost sight of the DCS: the lock is not renewed, PAUSE is sent and not waited for"}
	}
	if h.DCSLastSeen.IsZero() {
		return limited(v, "Patroni does not tell how long its lock lasts")
	}
	if v.ttl <= 0 {
		return limited(v, "Patroni does not tell how long its lock lasts").endingBy(h.DCSLastSeen.Add(patroni.MinTTL - member.LockMargin))
	}
	// A sight of the DCS is no renewal of the lock: that may be one loop older.
	lasts := v.ttl - v.loopWait - member.LockMargin
	if age := v.now.Sub(h.DCSLastSeen); age > min(v.loopWait+staleMargin, lasts) {
		return plan{kind: sendPause, until: v.now, lockEnd: h.DCSLastSeen.Add(lasts), reason: fmt.Sprintf(
			"Patroni has not seen the DCS for %s (loop_wait %s): the lock is not renewed, PAUSE is sent and not waited for",
			age.Round(time.Second), v.loopWait)}
	}
	lockEnd := h.DCSLastSeen.Add(v.ttl - member.LockMargin)
	if !v.told.IsZero() || !v.silentSince.IsZero() {
		why := "Patroni " + v.silentCause + " any more"
		if !v.told.IsZero() {
			why = "Patroni is told to shut down meanwhile"
		}
		return limited(v, why).endingBy(lockEnd)
	}
	p := plan{kind: pauseAndWait, until: v.started.Add(v.budget), lockEnd: lockEnd, patient: true,
		stop: isStopping(h.State), restart: isRestart(v),
		reason: fmt.Sprintf("Patroni holds a fresh lock (state %s): full budget", h.State)}
	if v.unlimited {
		p.until = lockEnd
		p.reason = fmt.Sprintf("Patroni holds a fresh lock (state %s): as long as it does", h.State)
	}
	if lockEnd.Before(p.until) {
		p.until = lockEnd
		p.reason += ", cut by the lock's end"
	}
	return p
}

func decideSilent(v view) plan {
	if !v.told.IsZero() {
		return limited(v, "Patroni is told to shut down")
	}
	if v.silentSince.IsZero() {
		return limited(v, "Patroni has not answered yet")
	}
	return limited(v, "Patroni "+v.silentCause+", it is shutting down or frozen")
}

// limited is the short budget. It counts from the guard's start, or from when Patroni fell silent.
func limited(v view, why string) plan {
	from := v.started
	if v.answered && v.silentSince.After(from) {
		from = v.silentSince
	}
	until := earlier(from.Add(v.shutdownBudget), v.started.Add(max(v.budget, v.shutdownBudget)))
	if !v.told.IsZero() {
		until = v.told.Add(min(v.shutdownBudget, toldBudget))
	}
	return plan{
		kind:    pauseAndWait,
		until:   until,
		stop:    v.calledByPatroni || v.answered && isStopping(v.health.State),
		restart: isRestart(v),
		reason:  why + ": short budget",
	}
}

// endingBy is the plan under a lock that ends then.
func (p plan) endingBy(lockEnd time.Time) plan {
	p.until, p.lockEnd = earlier(p.until, lockEnd), lockEnd
	return p
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// isRestart: as long as Patroni answers, and does not shut down meanwhile.
func isRestart(v view) bool {
	return v.answered && v.health.State == "restarting" && v.silentSince.IsZero() && v.told.IsZero()
}

// isStopping: Patroni sets the state before it runs before_stop (3.0.3 to 4.1).
func isStopping(state string) bool { return state == "stopping" || state == "restarting" }
