package hooks

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
)

// t0 is when the guard started; whole seconds, as Patroni tells them.
var t0 = time.Unix(1_800_000_000, 0)

// fresh is a primary with the lock, seen a second ago, ttl 30, loop_wait 10; the changes make the case.
func fresh(change ...func(*view)) view {
	v := view{
		now: t0.Add(time.Second), started: t0, local: rolePrimary,
		answered: true, health: patroni.Health{HasLock: true, State: "stopping", Role: "primary", DCSLastSeen: t0},
		ttl: 30 * time.Second, loopWait: 10 * time.Second,
		calledByPatroni: true, budget: 15 * time.Second, shutdownBudget: 5 * time.Second,
	}
	for _, c := range change {
		c(&v)
	}
	return v
}

// silent is a view of a Patroni that has never answered.
func silent(change ...func(*view)) view {
	v := fresh(change...)
	v.answered, v.health, v.ttl, v.loopWait = false, patroni.Health{}, 0, 0
	return v
}

func silentSince(d time.Duration, cause string) func(*view) {
	return func(v *view) { v.silentSince, v.silentCause = t0.Add(d), cause }
}

func TestDecide(t *testing.T) {
	const s = time.Second
	at := func(d time.Duration) time.Time { return t0.Add(d) }
	seen := func(d time.Duration) func(*view) { return func(v *view) { v.health.DCSLastSeen = t0.Add(d) } }
	now := func(d time.Duration) func(*view) { return func(v *view) { v.now = t0.Add(d) } }
	state := func(state string) func(*view) { return func(v *view) { v.health.State = state } }
	local := func(r role) func(*view) { return func(v *view) { v.local = r } }
	byHand := func(v *view) { v.calledByPatroni = false }
	lost := func(v *view) { v.health.HasLock = false }
	wait := func(v *view) { v.unlimited = true }
	unlocked := func(v *view) { v.health.ClusterUnlocked = true }
	told := func(d time.Duration) func(*view) { return func(v *view) { v.told = t0.Add(d) } }
	for _, c := range []struct {
		name   string
		view   view
		want   plan
		reason string // part of it
	}{
		{"replica", fresh(local(roleReplica)), plan{kind: proceed}, "in recovery"},
		{"replica that Patroni calls primary", fresh(local(roleReplica), state("running")), plan{kind: proceed}, "in recovery"},
		{"replica, Patroni silent", silent(local(roleReplica)), plan{kind: proceed}, "in recovery"},

		{"server silent, Patroni says primary", fresh(local(roleUnknown)), plan{kind: pauseAndWait, until: at(15 * s), patient: true,
			stop: true}, "fresh lock (state stopping): full budget"},
		{"server silent, Patroni 3 says master", fresh(local(roleUnknown), func(v *view) { v.health.Role = "master" }),
			plan{kind: pauseAndWait, until: at(15 * s), patient: true, stop: true}, "full budget"},
		{"server silent, promotion under way", fresh(local(roleUnknown), func(v *view) { v.health.Role = "promoted" }),
			plan{kind: pauseAndWait, until: at(15 * s), patient: true, stop: true}, "full budget"},
		{"server silent, Patroni says replica", fresh(local(roleUnknown), func(v *view) { v.health.Role = "replica" }),
			plan{kind: proceed}, "local server does not answer"},
		{"server silent, a standby cluster's leader", fresh(local(roleUnknown), func(v *view) { v.health.Role = "standby_leader" }),
			plan{kind: proceed}, "local server does not answer"},
		{"server silent, lock lost", fresh(local(roleUnknown), lost), plan{kind: proceed}, "local server does not answer"},
		{"server silent, Patroni too", silent(local(roleUnknown)), plan{kind: proceed}, "local server does not answer"},

		{"not answered yet", silent(), plan{kind: pauseAndWait, until: at(5 * s), stop: true}, "not answered yet: short budget"},
		{"not answered yet, by hand", silent(byHand), plan{kind: pauseAndWait, until: at(5 * s)}, "not answered yet: short budget"},
		{"connects, never answers: SIGTERM", silent(silentSince(0, "does not answer")), plan{kind: pauseAndWait, until: at(5 * s),
			stop: true}, "does not answer, it is shutting down or frozen: short budget"},
		{"unreachable", silent(silentSince(0, "cannot be reached (connection refused)")), plan{kind: pauseAndWait, until: at(5 * s),
			stop: true}, "cannot be reached (connection refused)"},
		{"unreachable, by hand: nothing is stopped", silent(byHand, silentSince(0, "cannot be reached")), plan{kind: pauseAndWait,
			until: at(5 * s)}, "short budget"},
		{"answers no more: 5 s from then", fresh(now(8*s), silentSince(7*s, "does not answer")), plan{kind: pauseAndWait,
			until: at(12 * s), stop: true}, "does not answer any more: short budget"},
		{"answers no more, late: the budget still counts", fresh(now(14*s), seen(9*s), silentSince(13*s, "does not answer")),
			plan{kind: pauseAndWait, until: at(15 * s), stop: true}, "any more"},
		{"answers no more, the lock ends first", fresh(now(8*s), seen(6*s), func(v *view) { v.ttl, v.loopWait = 8*s, s }, silentSince(7*s,
			"does not answer")), plan{kind: pauseAndWait, until: at(9 * s), stop: true}, "any more"},
		{"answers no more, sight too old by now", fresh(now(13*s), silentSince(7*s, "does not answer")), plan{kind: sendPause,
			until: at(13 * s)}, "has not seen the DCS for 13s (loop_wait 10s)"},
		{"short budget longer than the budget", silent(func(v *view) { v.budget = 2 * s }), plan{kind: pauseAndWait, until: at(5 * s),
			stop: true}, "short budget"},

		{"lock lost", fresh(lost), plan{kind: proceed}, "lock is lost"},
		{"lock lost, sight fresh, state restarting", fresh(lost, state("restarting")), plan{kind: proceed}, "lock is lost"},
		{"lock lost, by hand", fresh(lost, byHand), plan{kind: proceed}, "lock is lost"},
		{"lock lost, then silent", fresh(lost, silentSince(s, "does not answer")), plan{kind: proceed}, "lock is lost"},
		{"lock lost and the sight old", fresh(lost, now(20*s)), plan{kind: proceed}, "lock is lost"},

		{"running, by hand", fresh(byHand, state("running")), plan{kind: proceed, code: member.Refused},
			"is not stopping the server (state running)"},
		{"running, by hand, sight old", fresh(byHand, state("running"), now(20*s)), plan{kind: proceed, code: member.Refused},
			"pgbaton pause"},
		{"running, called by Patroni", fresh(state("running")), plan{kind: pauseAndWait, until: at(15 * s), patient: true},
			"state running"},
		{"stopping, by hand", fresh(byHand), plan{kind: pauseAndWait, until: at(15 * s), patient: true, stop: true}, "full budget"},
		{"restart", fresh(state("restarting")), plan{kind: pauseAndWait, until: at(15 * s), patient: true, stop: true, restart: true},
			"state restarting): full budget"},
		{"switchover", fresh(), plan{kind: pauseAndWait, until: at(15 * s), patient: true, stop: true}, "state stopping): full budget"},

		{"sight as old as it may be", fresh(now(12 * s)), plan{kind: pauseAndWait, until: at(15 * s), patient: true, stop: true},
			"full budget"},
		{"sight just too old", fresh(now(12*s + time.Nanosecond)), plan{kind: sendPause, until: at(12*s + time.Nanosecond)},
			"has not seen the DCS"},
		{"restart, DCS lost", fresh(state("restarting"), now(13*s)), plan{kind: sendPause, until: at(13 * s)}, "has not seen the DCS"},
		{"sight in the future (clock stepped)", fresh(seen(2 * s)), plan{kind: pauseAndWait, until: at(15 * s), patient: true,
			stop: true}, "full budget"},

		{"ttl not known", fresh(func(v *view) { v.ttl, v.loopWait = 0, 0 }), plan{kind: pauseAndWait, until: at(5 * s), stop: true},
			"does not tell how long its lock lasts: short budget"},
		{"ttl not known, seen long ago", fresh(func(v *view) { v.ttl, v.loopWait = 0, 0 }, seen(-12*s)), plan{kind: pauseAndWait,
			until: at(3 * s), stop: true}, "does not tell how long its lock lasts: short budget"},
		{"sight just lost", fresh(unlocked), plan{kind: sendPause, until: at(s)}, "lost sight of the DCS"},
		{"sight just lost in a restart", fresh(unlocked, state("restarting")), plan{kind: sendPause, until: at(s)},
			"lost sight of the DCS"},
		{"sight just lost, ttl not known", fresh(unlocked, func(v *view) { v.ttl, v.loopWait = 0, 0 }), plan{kind: sendPause,
			until: at(s)}, "lost sight of the DCS"},
		{"sight just lost, policy wait", fresh(unlocked, wait), plan{kind: sendPause, until: at(s)}, "lost sight of the DCS"},
		{"nobody holds the lock", fresh(unlocked, lost), plan{kind: proceed}, "lock is lost"},
		{"DCS never seen", fresh(func(v *view) { v.health.DCSLastSeen = time.Time{} }), plan{kind: pauseAndWait, until: at(5 * s),
			stop: true}, "does not tell"},
		{"budget longer than the lock", fresh(func(v *view) { v.budget = 60 * s }), plan{kind: pauseAndWait, until: at(25 * s),
			patient: true, stop: true}, "cut by the lock's end"},
		{"ttl 20, loop_wait 5, sight 7 s old", fresh(now(0), func(v *view) { v.ttl, v.loopWait = 20*s, 5*s }, seen(-7*s)),
			plan{kind: pauseAndWait, until: at(8 * s), patient: true, stop: true}, "full budget, cut by the lock's end"},
		{"ttl 20, loop_wait 10, sight 9 s old: the renewal may be 19 s old", fresh(now(0), func(v *view) { v.ttl = 20 * s }, seen(-9*s)),
			plan{kind: sendPause, until: at(0)}, "has not seen the DCS"},
		{"policy wait", fresh(wait), plan{kind: pauseAndWait, until: at(25 * s), patient: true, stop: true}, "as long as it does"},
		{"policy wait, the lock renewed meanwhile", fresh(wait, now(31*s), seen(30*s)), plan{kind: pauseAndWait, until: at(55 * s),
			patient: true, stop: true}, "as long as it does"},
		{"policy wait, silent: 5 s, not for ever", fresh(wait, now(2*s), silentSince(s, "does not answer")), plan{kind: pauseAndWait,
			until: at(6 * s), stop: true}, "any more"},
		{"told to end in a switchover", fresh(now(4*s), told(4*s)), plan{kind: pauseAndWait, until: at(7 * s), stop: true},
			"told to shut down"},
		{"told to end in a restart: no restart any more", fresh(state("restarting"), now(4*s), told(4*s)), plan{kind: pauseAndWait,
			until: at(7 * s), stop: true}, "told to shut down"},
		{"told to end, silent since", fresh(now(6*s), told(4*s), silentSince(5*s, "does not answer")), plan{kind: pauseAndWait,
			until: at(7 * s), stop: true}, "told to shut down"},
		{"told to end, the lock ends first", fresh(now(8*s), seen(6*s), func(v *view) { v.ttl, v.loopWait = 8*s, s }, told(7*s)),
			plan{kind: pauseAndWait, until: at(9 * s), stop: true}, "told to shut down"},
		{"told to end, the lock lost", fresh(told(4*s), lost), plan{kind: proceed}, "lock is lost"},
		{"a loop_wait that leaves little of the ttl", fresh(now(9*s), seen(0), func(v *view) { v.ttl, v.loopWait = 30*s, 18*s }),
			plan{kind: sendPause, until: at(9 * s)}, "has not seen the DCS"},
		{"policy wait, lock lost", fresh(wait, lost), plan{kind: proceed}, "lock is lost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := decide(c.view)
			if !strings.Contains(got.reason, c.reason) {
				t.Errorf("reason %q, want it to say %q", got.reason, c.reason)
			}
			if got.reason == "" || strings.HasSuffix(got.reason, ".") || strings.Contains(got.reason, "  ") {
				t.Errorf("reason %q is no clause", got.reason)
			}
			got.reason = ""
			if !got.until.Equal(c.want.until) {
				t.Errorf("until %v after the start, want %v", got.until.Sub(t0), c.want.until.Sub(t0))
			}
			// Whatever the budget, a hold that is known to be under a lock knows when that ends.
			lockEnd := time.Time{}
			if v := c.view; got.kind == pauseAndWait && v.answered && !v.health.DCSLastSeen.IsZero() {
				lockEnd = v.health.DCSLastSeen.Add(shortestTTL(v) - member.LockMargin)
			} else if got.kind == sendPause && !v.health.ClusterUnlocked { // the renewal may be a loop older than the sight
				lockEnd = v.health.DCSLastSeen.Add(v.ttl - v.loopWait - member.LockMargin)
			}
			if !got.lockEnd.Equal(lockEnd) {
				t.Errorf("lock ends %v, want %v", got.lockEnd, lockEnd)
			}
			got.lockEnd = time.Time{}
			got.until, c.want.until = time.Time{}, time.Time{}
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// shortestTTL is how long the lock lasts at least.
func shortestTTL(v view) time.Duration {
	if v.ttl > 0 {
		return v.ttl
	}
	return patroni.MinTTL
}

// anyView draws what the guard can know. Times are whole and half seconds around the limits.
func anyView(t *rapid.T) view {
	half := func(label string, from, to int) time.Duration {
		return time.Duration(rapid.IntRange(from*2, to*2).Draw(t, label)) * time.Second / 2
	}
	v := view{
		started: t0, now: t0.Add(half("now", 0, 60)),
		local:    rapid.SampledFrom([]role{roleUnknown, rolePrimary, rolePrimary, roleReplica}).Draw(t, "local"),
		answered: rapid.Bool().Draw(t, "answered"),
		budget:   half("budget", 0, 60), shutdownBudget: half("shutdownBudget", 0, 10),
		unlimited: rapid.Bool().Draw(t, "unlimited"), calledByPatroni: rapid.Bool().Draw(t, "calledByPatroni"),
	}
	if v.answered {
		v.health = patroni.Health{
			HasLock: rapid.SampledFrom([]bool{true, true, false}).Draw(t, "lock"), ClusterUnlocked: rapid.Bool().Draw(t, "unlocked"),
			State: rapid.SampledFrom([]string{"stopping", "restarting", "running", "unknown", "stopped"}).Draw(t, "state"),
			Role:  rapid.SampledFrom([]string{"primary", "master", "promoted", "replica", "standby_leader", "demoted"}).Draw(t, "role"),
		}
		if rapid.Bool().Draw(t, "told") {
			v.health.DCSLastSeen = t0.Add(half("seen", -30, 60))
		}
		if rapid.Bool().Draw(t, "configured") {
			v.ttl, v.loopWait = half("ttl", 1, 60), half("loopWait", 1, 15)
		}
	}
	if rapid.Bool().Draw(t, "silent") {
		v.silentSince, v.silentCause = t0.Add(half("since", 0, 60)), "does not answer"
	}
	return v
}

func TestDecideNeverOutlivesTheLock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := anyView(t)
		p := decide(v)
		known := v.answered && !v.health.DCSLastSeen.IsZero()
		if end := v.health.DCSLastSeen.Add(shortestTTL(v)); p.kind == pauseAndWait && known && p.until.After(end.Add(-member.LockMargin)) {
			t.Fatalf("until %s, the lock may end at %s: %s", p.until.Sub(t0), end.Sub(t0), p.reason)
		}
		if p.kind != proceed && v.local == roleReplica {
			t.Fatalf("a replica is held: %s", p.reason)
		}
		if p.kind != proceed && v.answered && !v.health.HasLock {
			t.Fatalf("the lock is lost, and the stop does not go on: %s", p.reason)
		}
		if p.kind == pauseAndWait && v.answered && v.health.ClusterUnlocked {
			t.Fatalf("Patroni sees no lock, and it is held: %s", p.reason)
		}
		if p.kind == pauseAndWait && known && v.ttl > 0 && v.now.Sub(v.health.DCSLastSeen) > v.loopWait+staleMargin {
			t.Fatalf("the DCS is lost, and held: %s", p.reason)
		}
		if p.stop && p.kind != pauseAndWait {
			t.Fatalf("the server may be stopped although nothing is held: %s", p.reason)
		}
		if p.stop && !v.calledByPatroni && !(v.answered && isStopping(v.health.State)) {
			t.Fatalf("nobody stops the server, and the guard would: %s", p.reason)
		}
		if p.patient && (!v.answered || !v.silentSince.IsZero()) {
			t.Fatalf("patient with a silent Patroni: %s", p.reason)
		}
		if !v.unlimited && p.kind == pauseAndWait && p.until.After(v.started.Add(max(v.budget, v.shutdownBudget))) {
			t.Fatalf("until %s is beyond the budgets: %s", p.until.Sub(t0), p.reason)
		}
		if p.reason == "" {
			t.Fatal("no reason")
		}
	})
}

func TestDecideTimeGivesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := anyView(t)
		before := decide(v)
		v.now = v.now.Add(time.Duration(rapid.IntRange(1, 60_000).Draw(t, "later")) * time.Millisecond)
		after := decide(v)
		if after.kind == pauseAndWait && before.kind != pauseAndWait {
			t.Fatalf("held after all: %q, then %q", before.reason, after.reason)
		}
		if after.kind == pauseAndWait && after.until.After(before.until) {
			t.Fatalf("until %s, then %s: %s", before.until.Sub(t0), after.until.Sub(t0), after.reason)
		}
	})
}
