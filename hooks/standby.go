package hooks

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/postgres"
)

// standbyView is all that is known of who may be promoted when this server has stopped.
type standbyView struct {
	now time.Time
	// members of the cluster as Patroni tells them; nil while it has not.
	cluster *patroni.Cluster
	self    string // what Patroni calls this member; empty: whoever is the leader
	// recorded is what an earlier hook saw; it counts while Patroni does not tell.
	recorded clusterRecord

	replication postgres.Replication
	// after: what a successor must have made durable, in bytes of WAL; 0: nothing yet.
	after int64
}

// standby is the judgement on it.
type standby struct {
	kind   standbyKind
	name   string   // of the one that is ready
	missed []string // members that may be promoted and do not stream
	reason string   // why the others do not count, for a log
}

type standbyKind int

const (
	nobodyElse standbyKind = iota // nobody else may be promoted, as far as is known: there is nothing to lose to him
	notReady                      // somebody may be, and nobody who may has all of the WAL
	ready                         // one streams, and has made durable what he must
)

// judgeStandbys says whether a member that may be promoted has what this server has written. Patroni promotes whoever is within
// maximum_lag_on_failover and has more than the others that it can ask (ha.py, 4.0.7 and 4.1.5), so one is enough; where the switchover
// has a named candidate it must be that one, and in synchronous mode a synchronous standby.
func judgeStandbys(v standbyView) standby {
	if v.cluster == nil {
		return judgeUnknown(v)
	}
	fit := fitMembers(v)
	if len(fit) == 0 {
		return standby{kind: nobodyElse, reason: "no other member may be promoted"}
	}
	result := standby{kind: notReady}
	var reasons []string
	for _, m := range fit {
		through := upstream(m, v.cluster.Members)
		s, found := sender(v.replication, through)
		switch {
		case !found:
			result.missed = append(result.missed, m.Name)
			reasons = append(reasons, fmt.Sprintf("%s (%s) does not stream", m.Name, m.State))
		case s.State != "streaming":
			reasons = append(reasons, fmt.Sprintf("%s is not caught up (%s)", m.Name, s.State))
		case s.Flushed < v.after:
			reasons = append(reasons, fmt.Sprintf("%s lags %d bytes behind", m.Name, v.after-s.Flushed))
		case s.Flushed < 0:
			reasons = append(reasons, m.Name+" has not reported its WAL position")
		default:
			return standby{kind: ready, name: m.Name}
		}
	}
	result.reason = strings.Join(reasons, "; ")
	return result
}

// judgeUnknown goes by the server alone: Patroni does not tell who the members are, as after SIGTERM. Whoever streams counts, except
// programs that store WAL. That somebody could be promoted is known from slots, or from an earlier hook.
func judgeUnknown(v standbyView) standby {
	slots := slices.DeleteFunc(slices.Clone(v.replication.Slots), func(name string) bool {
		return slices.Contains(v.recorded.OtherSlots, name)
	})
	var reasons []string
	for _, s := range v.replication.Senders {
		stores := strings.HasPrefix(s.Application, "pg_") || slices.Contains(v.recorded.OtherSlots, slotName(s.Application))
		if stores || s.State != "streaming" && s.State != "catchup" {
			continue
		}
		if s.State == "streaming" && s.Flushed >= max(0, v.after) {
			return standby{kind: ready, name: s.Application}
		}
		reasons = append(reasons, fmt.Sprintf("%s is not caught up (%s)", s.Application, s.State))
	}
	if len(reasons) == 0 && len(v.recorded.Others) == 0 && len(slots) == 0 {
		return standby{kind: nobodyElse, reason: "no other member is known"}
	}
	result := standby{kind: notReady}
	for _, name := range v.recorded.Others {
		if _, streams := sender(v.replication, name); !streams {
			result.missed = append(result.missed, name)
			reasons = append(reasons, name+" does not stream")
		}
	}
	if len(reasons) == 0 {
		reasons = append(reasons, "no standby streams; slots are there for "+strings.Join(slots, ", "))
	}
	result.reason = strings.Join(reasons, "; ")
	return result
}

// fitMembers are those that may be promoted when this one has stopped.
func fitMembers(v standbyView) []patroni.Member {
	candidate := candidateOf(v)
	var fit, synchronous []patroni.Member
	for _, m := range v.cluster.Members {
		if m.Name == v.self || m.Leader() || candidate != "" && m.Name != candidate || !runs(m) || !promotable(m.Tags) {
			continue
		}
		fit = append(fit, m)
		if m.Role == "sync_standby" || m.Role == "quorum_standby" {
			synchronous = append(synchronous, m)
		}
	}
	if len(synchronous) > 0 {
		return synchronous
	}
	return fit
}

// runs: the member's server does, by what it wrote in its last loop.
func runs(m patroni.Member) bool {
	return slices.Contains([]string{"running", "streaming", "in archive recovery", "starting"}, m.State)
}

// promotable: a member's tags do not forbid it (tags.py, 4.0.7 and 4.1.5). One that does not stream at all by its tags is not waited for.
func promotable(tags map[string]any) bool {
	if truth(tags["nostream"]) {
		return false
	}
	if no, set := tags["nofailover"]; set && no != nil {
		return !truth(no)
	}
	priority, set := tags["failover_priority"].(float64)
	return !set || priority > 0
}

// truth of a tag: a boolean, as a rule.
func truth(tag any) bool {
	switch t := tag.(type) {
	case bool:
		return t
	case string:
		return slices.Contains([]string{"true", "on", "yes", "1"}, strings.ToLower(t))
	case float64:
		return t != 0
	}
	return false
}

// upstream is the member that a cascading standby gets its WAL from and that streams from this server, or the member itself.
func upstream(m patroni.Member, members []patroni.Member) string {
	name := m.Name
	for range members { // tags may go round in a circle
		i := slices.IndexFunc(members, func(m patroni.Member) bool { return m.Name == name })
		if i < 0 {
			break
		}
		from, _ := members[i].Tags["replicatefrom"].(string)
		j := slices.IndexFunc(members, func(m patroni.Member) bool { return m.Name == from })
		if j < 0 || members[j].Leader() {
			break // not there: Patroni has it stream from the leader
		}
		name = from
	}
	return name
}

// sender is what is sent to an application; where that is several things, what it streams.
func sender(r postgres.Replication, application string) (found postgres.Sender, ok bool) {
	for _, s := range r.Senders {
		if s.Application == application && (!ok || s.State == "streaming") {
			found, ok = s, true
		}
	}
	return found, ok
}

// scheduledFor is how far from its time a scheduled switchover still may be the one that is under way: Patroni begins it up to a loop
// before and drops it 1.5 loops after (ha.py, should_run_scheduled_action).
const scheduledFor = time.Minute

// candidateOf is who a scheduled switchover is to promote, where it says so. Of one that is not scheduled Patroni's REST API does not tell
// (api.py and utils.py, 4.0.7 and 4.1.5): the name is in the DCS only.
func candidateOf(v standbyView) string {
	s := v.cluster.ScheduledSwitchover
	if s == nil || s.To == "" || s.From != "" && v.self != "" && s.From != v.self || v.now.Sub(s.At).Abs() > scheduledFor {
		return ""
	}
	return s.To
}
