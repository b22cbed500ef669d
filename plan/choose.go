package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// caughtUp is a replay lag that makes no difference between two candidates: it is replayed in a twentieth of a second.
const caughtUp = 1 << 20

// Choice is who is to be primary, and why the others are not.
type Choice struct {
	Candidate string
	Why       string
	// PassedOver are the reasons against the other members, the leader left out.
	PassedOver map[string]string
	// Wait is who would be the candidate once it has caught up, where nobody is now.
	Wait *Wait
}

// Wait is what a run has to wait for.
type Wait struct {
	Member string // "": no certain one
	For    string // as the end of a sentence: "m2 has 1.2GB to replay (at most 16MB)"
}

// verdict is what stands against a candidate.
type verdict struct {
	never  string // it does not get better by waiting
	notYet string
}

// fit says what stands against a member as candidate. What Patroni refuses (api.py, is_failover_possible; ha.py, failover_limitation,
// get_failover_candidates, is_lagging) is among it; the rest would be slow, or would lose something.
func (v View) fit(leader, m Member, limit Limit) verdict {
	behind, parameter := v.left(m)
	switch {
	case m.Name == leader.Name:
		return verdict{never: "is the primary"}
	case !m.Reachable:
		return verdict{never: "does not answer: its REST API is not reachable"}
	case m.NoFailover():
		return verdict{never: "has the tag nofailover"}
	case truthy(m.Tags["nostream"]):
		return verdict{never: "has the tag nostream, so it would not have the end of the WAL"}
	case m.WatchdogFailed:
		return verdict{never: "has no watchdog that works, and may not be primary without"}
	case v.Sync != SyncOff && !m.Synchronous():
		if !slices.ContainsFunc(v.Members, Member.Synchronous) && !truthy(m.Tags["nosync"]) {
			return verdict{notYet: "is not a synchronous standby yet"}
		}
		return verdict{never: "is no synchronous standby"}
	case m.Busy() || m.State == archiveRecovery:
		return verdict{notYet: "is " + m.State}
	case !m.Up():
		return verdict{never: "is " + m.State}
	case !m.Streaming():
		return verdict{notYet: "does not stream"}
	case larger(leader, m) != "":
		return verdict{never: "has a larger " + larger(leader, m) + " than the primary: restart it first"}
	case behind != "":
		return verdict{never: "has a larger " + parameter + " than " + behind + ": restart that one first"}
	case m.Timeline != leader.Timeline && m.Timeline != 0 && leader.Timeline != 0, v.CheckTimeline && m.Timeline == 0:
		return verdict{notYet: fmt.Sprintf("is on timeline %d, and the primary on %d", m.Timeline, leader.Timeline)}
	case !m.Receive.Known:
		return verdict{notYet: "has an unknown lag"}
	case m.Receive.Bytes > v.MaximumLag:
		return verdict{notYet: fmt.Sprintf("has %s to receive (maximum_lag_on_failover is %s)", size(m.Receive.Bytes), size(v.MaximumLag))}
	case m.ReplayPaused:
		return verdict{notYet: "has its replay paused (SELECT pg_wal_replay_resume() on it)"}
	case len(m.CatchUp) > 0:
		return verdict{notYet: "waits for logical slots to catch up: " + strings.Join(m.CatchUp, ", ")}
	}
	return verdict{notYet: limit.exceeds(m)}
}

// Choose says who is to be primary: wanted, or where that is "" the best of those that can be. Synchronous standbys come first, then who
// is preferred, then who has nothing left to replay, then the higher failover_priority, then who has least to replay.
//
// The error is a [*Refusal] where nobody can be, or the wanted one never can. Where somebody could be once it has caught up, Choice.Wait
// says who and the candidate is empty; so it is for a wanted one. A candidate beyond limit is one that has to catch up.
func Choose(v View, wanted string, limit Limit) (Choice, error) {
	leader, err := v.open()
	if err != nil {
		return Choice{}, err
	}
	c := Choice{PassedOver: map[string]string{}}
	var fit, waits []Member
	for _, m := range v.replicas() {
		switch against := v.fit(leader, m, limit); {
		case against.never != "":
			c.PassedOver[m.Name] = against.never
		case against.notYet != "":
			c.PassedOver[m.Name] = against.notYet
			waits = append(waits, m)
		default:
			fit = append(fit, m)
		}
	}
	byRank := func(a, b Member) int { return rank(a, b) }
	slices.SortFunc(fit, byRank)
	slices.SortFunc(waits, byRank)
	if wanted != "" {
		return c.of(v, leader, wanted, fit, waits)
	}
	switch {
	case len(fit) > 0:
		c.Candidate = fit[0].Name
		c.Why = why(fit[0])
		for _, m := range fit[1:] {
			c.PassedOver[m.Name] = "would do, " + c.Candidate + " comes first"
		}
		return c, nil
	case len(waits) > 0:
		c.Wait = &Wait{waits[0].Name, waits[0].Name + " " + c.PassedOver[waits[0].Name]}
		return c, nil
	case len(c.PassedOver) == 0:
		return c, refuse(NoCandidate, "add a replica", "%s is the only member", leader.Name)
	}
	return c, refuse(NoCandidate, "mend one of them: patronictl list", "no member can be primary: %s", c.reasons())
}

// of is the choice of a wanted member.
func (c Choice) of(v View, leader Member, wanted string, fit, waits []Member) (Choice, error) {
	is := func(m Member) bool { return m.Name == wanted }
	if _, ok := v.Member(wanted); !ok {
		return c, unknown(v, wanted)
	}
	for _, m := range fit {
		if !is(m) {
			c.PassedOver[m.Name] = "would do, " + wanted + " was asked for"
		}
	}
	switch {
	case wanted == leader.Name:
		return c, refuse(CandidateUnfit, "name another member, or none", "%s is the primary already", wanted)
	case slices.ContainsFunc(fit, is):
		c.Candidate, c.Why = wanted, "asked for"
	case slices.ContainsFunc(waits, is):
		c.Wait = &Wait{wanted, wanted + " " + c.PassedOver[wanted]}
	default:
		return c, refuse(CandidateUnfit, "mend it, or name another member, or none", "%s %s", wanted, c.PassedOver[wanted])
	}
	return c, nil
}

func unknown(v View, name string) error {
	var names []string
	for _, m := range v.Members {
		names = append(names, m.Name)
	}
	slices.Sort(names)
	return refuse(UnknownMember, "name one of "+strings.Join(names, ", "), "there is no member %s", name)
}

func (c Choice) reasons() string {
	var all []string
	for name, why := range c.PassedOver {
		all = append(all, name+" "+why)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// rank is negative where a is the better candidate.
func rank(a, b Member) int {
	first := func(x bool) int {
		if x {
			return 0
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(first(a.Synchronous()), first(b.Synchronous())),
		cmp.Compare(first(!a.ReplayPaused), first(!b.ReplayPaused)),
		cmp.Compare(first(a.Preferred), first(b.Preferred)),
		cmp.Compare(max(a.replay(), caughtUp), max(b.replay(), caughtUp)),
		cmp.Compare(b.FailoverPriority(), a.FailoverPriority()),
		cmp.Compare(a.replay(), b.replay()),
		cmp.Compare(a.Name, b.Name),
	)
}

// replay is how much it has to replay; where that is not known, to receive.
func (m Member) replay() int64 {
	switch {
	case m.Replay.Known:
		return m.Replay.Bytes
	case m.Receive.Known:
		return m.Receive.Bytes
	}
	return 1 << 62
}

func why(m Member) string {
	s := "least to replay"
	if m.Replay.Known {
		s += ": " + size(m.Replay.Bytes)
	}
	if m.Synchronous() {
		s = "synchronous standby, " + s
	}
	if m.Preferred {
		s = "preferred, " + s
	}
	return s
}
