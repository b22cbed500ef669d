package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/postgres"
)

// RestartOptions are those of a restart of members.
type RestartOptions struct {
	// Members are those that are meant, by name; none: all of them. Pending and OlderThan leave out those that need no restart. Rolling
	// says that all are meant, where nothing else does.
	Members   []string `json:"members,omitempty"`
	Pending   bool     `json:"pending,omitempty"`   // only those with a pending restart
	OlderThan int      `json:"olderThan,omitempty"` // only those with a server older than this (170005); see [ParseVersion]
	Rolling   bool     `json:"rolling,omitempty"`

	KeepLeader   bool   `json:"keepLeader,omitempty"` // restart the primary where it is, no switchover
	Candidate    string `json:"candidate,omitempty"`  // for the switchover; "": the best one
	MaxReplayLag Limit  `json:"maxReplayLag,omitzero"`
	IfLagging    Policy `json:"ifLagging,omitempty"`

	// Targets are the members that were selected when the run began: [Select]. They stay so, whatever becomes of the cluster.
	Targets []string `json:"targets,omitempty"`
}

// Select returns the options with the members that are to be restarted, in no order. None is no error: there is nothing to do.
func (o RestartOptions) Select(v View) (RestartOptions, error) {
	if len(o.Members) == 0 && !o.Pending && o.OlderThan == 0 && !o.Rolling {
		return o, refuse(NothingSelected, "name members, or say --pending, --older-than VERSION or --rolling",
			"nothing says which members to restart")
	}
	for _, name := range o.Members {
		if _, ok := v.Member(name); !ok {
			return o, unknown(v, name)
		}
	}
	o.Targets = []string{}
	for _, m := range v.Members {
		if (len(o.Members) == 0 || slices.Contains(o.Members, m.Name)) && o.needs(m) {
			o.Targets = append(o.Targets, m.Name)
		}
	}
	return o, o.pairs(v)
}

// pairs refuses a selection that leaves out the primary where the parameters of a selected replica get smaller only after it.
func (o RestartOptions) pairs(v View) error {
	leader, ok := v.Leader()
	if !ok || slices.Contains(o.Targets, leader.Name) {
		return nil
	}
	for _, m := range v.Members {
		smaller := shrinking(m.Pending)
		if slices.Contains(o.Targets, m.Name) && len(smaller) > 0 && len(smaller) == len(m.Pending) &&
			slices.ContainsFunc(smaller, func(p string) bool { return shrinks(p, leader.Pending[p]) }) {
			return refuse(PrimaryFirst, "name "+leader.Name+" too",
				"%s of %s gets smaller, and a standby keeps the primary's value until that one has been restarted",
				strings.Join(smaller, ", "), m.Name)
		}
	}
	return nil
}

// needs reports whether a member that was not restarted yet is to be.
func (o RestartOptions) needs(m Member) bool {
	return (!o.Pending || m.PendingRestart) && (o.OlderThan == 0 || m.ServerVersion < o.OlderThan)
}

func (o RestartOptions) next(v View, done []Done) (Decision, error) {
	leader, err := v.open()
	if err != nil {
		return Decision{}, err
	}
	if o.Targets == nil {
		if o, err = o.Select(v); err != nil {
			return Decision{}, err
		}
	}
	h := history(done)
	v = v.believed(h)
	if wait := v.atWork(h); wait != nil {
		return Decision{Wait: wait}, nil
	}
	for _, name := range o.Targets {
		// A member's key in the DCS expires with its ttl, and comes back with the DCS.
		if _, ok := v.Member(name); !ok {
			return Decision{Wait: &Wait{name, name + " is no member of the cluster now"}}, nil
		}
	}
	for _, m := range v.replicas() {
		if o.due(m, h) && !(m.Reachable && (m.Up() || m.State == archiveRecovery)) {
			return Decision{}, refuse(MemberDown, "start it, or name the other members", "%s %s", m.Name, m.absent())
		}
	}
	primary := o.due(leader, h)
	shrink, grow := kinds(v, leader, o.Targets)
	primaryFirst := primary && shrink != "" && grow == ""
	var replicas []Member
	for _, m := range v.replicas() {
		if o.due(m, h) && !primaryFirst || o.again(m, h) {
			replicas = append(replicas, m)
		}
	}
	if primary && shrink != "" {
		// What waits for the primary only comes in the second pass.
		replicas = slices.DeleteFunc(replicas, func(m Member) bool {
			return len(m.Pending) > 0 && len(shrinking(m.Pending)) == len(m.Pending)
		})
	}
	if len(replicas) > 0 {
		return nextReplica(replicas, h), nil
	}
	if primary {
		return o.primary(v, leader, h, shrink, grow)
	}
	if h.turn(KindRestart, KindInPlace, KindSwitchover) < 0 {
		return Decision{Why: "no member needs a restart"}, nil
	}
	return Decision{Why: "all are restarted"}, nil
}

// believed is the view without the pending restarts that cannot be: a server that was started in this run has what is configured, but for
// what a standby keeps from its primary. Patroni may go on naming the parameters from before (4.0.7): a change of the dynamic configuration
// makes it look what waits for a restart, and it writes that down a second later, whatever has happened meanwhile.
func (v View) believed(h history) View {
	v.Members = slices.Clone(v.Members)
	leader, _ := v.Leader()
	turn := h.turn(KindInPlace)
	for i := range v.Members {
		m := &v.Members[i]
		if h.restarted(m.Name, 0) == 0 || len(m.Pending) == 0 {
			continue
		}
		kept := map[string]patroni.Change{}
		for _, p := range shrinking(m.Pending) {
			before := turn >= 0 && h.restarted(m.Name, turn) == 0 // the primary had the larger value then
			if before || turn < 0 && shrinks(p, leader.Pending[p]) {
				kept[p] = m.Pending[p]
			}
		}
		m.Pending, m.PendingRestart = kept, len(kept) > 0
	}
	return v
}

// due reports whether a target was not restarted in this run, and needs it.
func (o RestartOptions) due(m Member, h history) bool {
	return slices.Contains(o.Targets, m.Name) && h.restarted(m.Name, 0) == 0 && o.needs(m)
}

// again reports whether a replica that was restarted needs it once more, after the primary's turn: for parameters that get smaller. The
// start as a standby is an old primary's restart.
//
// Where it must be, it does not depend on Patroni's word: a change of the dynamic configuration while the server starts has Patroni forget
// what waits for a restart (4.0.7), and our own lock is such a change.
func (o RestartOptions) again(m Member, h history) bool {
	turn := h.turn(KindInPlace, KindSwitchover)
	if turn < 0 || !slices.Contains(o.Targets, m.Name) || h.restarted(m.Name, turn+1) > 0 || h.restarted(m.Name, 0) == 0 {
		return false
	}
	if h[turn].SecondPass {
		return true
	}
	if !m.PendingRestart {
		return false
	}
	if h[turn].Kind == KindSwitchover {
		return h[turn].Member == m.Name
	}
	return len(m.Pending) == 0 || len(shrinking(m.Pending)) > 0
}

// nextReplica is the restart of one of those that are due: who is furthest behind, so that the best candidates are the last ones.
func nextReplica(due []Member, h history) Decision {
	slices.SortFunc(due, func(a, b Member) int {
		asynchronous := func(m Member) int {
			if m.Synchronous() {
				return 1
			}
			return 0
		}
		return cmp.Or(
			cmp.Compare(b.replay()/caughtUp, a.replay()/caughtUp),
			cmp.Compare(asynchronous(a), asynchronous(b)),
			cmp.Compare(a.Name, b.Name),
		)
	})
	m := due[0]
	return Decision{Step: &Step{Kind: KindRestart, Member: m.Name, Why: whyReplica(m, h)}}
}

func whyReplica(m Member, h history) string {
	turn := h.turn(KindInPlace, KindSwitchover)
	var why string
	switch {
	case turn >= 0 && h[turn].Kind == KindSwitchover && h[turn].Member == m.Name:
		why = "the old primary: its start as a standby has left something"
	case turn >= 0 && h.restarted(m.Name, 0) > 0:
		why = "second pass, after the primary"
	case turn >= 0:
		why = "after the primary"
	default:
		why = "replicas first"
	}
	if m.replay() >= caughtUp && m.Replay.Known {
		why += ", " + size(m.Replay.Bytes) + " to replay"
	}
	if m.ReplayPaused {
		why += "; the restart ends the pause of its replay"
	}
	return why
}

// primary is the primary's turn.
func (o RestartOptions) primary(v View, leader Member, h history, shrink, grow string) (Decision, error) {
	inPlace := func(c Choice, why string) (Decision, error) {
		if name, parameter := v.left(Member{}); name != "" {
			return Decision{}, refuse(ReplicasFirst, "name "+name+" too, or restart all with --pending",
				"%s of %s would be larger than on %s, which waits for a restart: its replay would stop", parameter, leader.Name, name)
		}
		return Decision{Choice: c, Step: &Step{Kind: KindInPlace, Member: leader.Name, Why: why}}, nil
	}
	switch {
	case shrink != "" && grow != "":
		d, err := inPlace(Choice{}, fmt.Sprintf("after the replicas because of %s, before their second pass because of %s", grow, shrink))
		if d.Step != nil {
			d.Step.SecondPass = true
		}
		return d, err
	case shrink != "":
		return inPlace(Choice{}, "the primary first: "+shrink+" gets smaller")
	case o.KeepLeader:
		return inPlace(Choice{}, "it is to stay the primary")
	case h.switched(leader):
		return inPlace(Choice{}, "there was a switchover in this run already")
	}
	c, err := Choose(v, o.Candidate, o.MaxReplayLag)
	switch {
	case err != nil && o.Candidate != "":
		return Decision{Choice: c}, err
	case err != nil:
		return inPlace(c, found(err))
	case c.Wait != nil && o.IfLagging == PolicyInPlace:
		return inPlace(c, "no member can be primary yet: "+c.Wait.For)
	case c.Wait != nil:
		return o.IfLagging.wait(c)
	}
	return Decision{Choice: c, Step: &Step{Kind: KindSwitchover, Member: leader.Name, Candidate: c.Candidate,
		Why: c.Why + "; " + leader.Name + " is started anew as a standby"}}, nil
}

func found(err error) string {
	if r, ok := err.(*Refusal); ok {
		return r.Found
	}
	return err.Error()
}

// left is a replica that would have a smaller value than its primary after the primary's turn, and of which parameter; "" where there is
// none. The primary has its new values then, or it is the candidate with those that it has now.
func (v View) left(candidate Member) (name, parameter string) {
	for _, m := range v.replicas() {
		if m.Name == candidate.Name || !m.Up() {
			continue
		}
		for _, p := range postgres.StandbyParameters() {
			if grows(p, m.Pending[p]) && (candidate.Name == "" || !grows(p, candidate.Pending[p])) {
				return m.Name, p
			}
		}
	}
	return "", ""
}

// larger is a parameter of which a replica has a larger value than the primary, because it was not restarted since that one was; "" where
// there is none. As primary it would stop the replay of all others.
func larger(leader, m Member) string {
	for _, p := range shrinking(m.Pending) {
		if !shrinks(p, leader.Pending[p]) {
			return p
		}
	}
	return ""
}

// kinds names a parameter that gets smaller on the primary, and one that gets larger on it or on a replica that is still to be restarted,
// of those that a standby must not have smaller than its primary; "" where there is none. Where it is not known what waits, it is both.
func kinds(v View, leader Member, targets []string) (shrink, grow string) {
	const unknown = "a parameter that Patroni does not name"
	if leader.PendingRestart && len(leader.Pending) == 0 {
		return unknown, unknown
	}
	for _, p := range shrinking(leader.Pending) {
		shrink = p
	}
	for _, m := range v.Members {
		for _, p := range postgres.StandbyParameters() {
			if grows(p, m.Pending[p]) && (m.Leader() || slices.Contains(targets, m.Name)) {
				grow = p
			}
		}
	}
	return shrink, grow
}

// shrinking names the parameters of a pending restart that get smaller and that a standby must not have smaller than its primary.
func shrinking(pending map[string]patroni.Change) []string {
	var names []string
	for _, p := range postgres.StandbyParameters() {
		if shrinks(p, pending[p]) {
			names = append(names, p)
		}
	}
	return names
}

func shrinks(parameter string, c patroni.Change) bool { return compare(parameter, c) < 0 }
func grows(parameter string, c patroni.Change) bool   { return compare(parameter, c) > 0 }

// compare is negative where a parameter of those that matter for the order gets smaller.
func compare(parameter string, c patroni.Change) int {
	before, err := strconv.Atoi(c.Old)
	after, err2 := strconv.Atoi(c.New)
	if err != nil || err2 != nil || !slices.Contains(postgres.StandbyParameters(), parameter) {
		return 0
	}
	return cmp.Compare(after, before)
}
