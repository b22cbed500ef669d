package plan

import (
	"fmt"
	"slices"
	"time"
)

// Kinds of steps.
const (
	KindRestart    = "restart"          // of a replica
	KindInPlace    = "restart-in-place" // of the primary, behind the pause of the poolers
	KindSwitchover = "switchover"
)

// Step is one thing to do. Only one member is at work in it.
type Step struct {
	Kind      string `json:"kind"`
	Member    string `json:"member"`              // that is restarted, or that is primary before the switchover
	Candidate string `json:"candidate,omitempty"` // of a switchover
	Why       string `json:"why,omitempty"`
	// SecondPass: who was restarted before this restart of the primary is to be restarted once more after it, because it has kept a larger
	// value from the primary of then.
	SecondPass bool `json:"secondPass,omitempty"`
}

// Outcome is what has become of a step that was begun.
type Outcome string

// Outcomes of steps.
const (
	OutcomeDone    Outcome = "done"
	OutcomeFailed  Outcome = "failed"  // it was found that nothing has changed, or the member has not come back
	OutcomeUnknown Outcome = "unknown" // it was not found out
)

// Done is a step that was begun in this run.
type Done struct {
	Step
	Outcome Outcome `json:"outcome"`
	// Started is when the member's postmaster had been started, as it was before the step; zero: not known. One that was started later has
	// been restarted: that is how the outcome of a step that was cut off is found out.
	Started time.Time `json:"started,omitzero"`
	// Timeline is that of the primary before the step; 0: not known. Patroni begins a new one whenever it promotes: a primary that is on a
	// later one than before a switchover that failed has been away, and has come back.
	Timeline int `json:"timeline,omitempty"`
}

// Decision is what to do now: a step, or to wait and look anew, or, with neither, nothing more.
type Decision struct {
	Step   *Step
	Wait   *Wait
	Choice Choice // how the candidate of a switchover was chosen, or that somebody is waited for
	Why    string // there is nothing to do, or nothing more
}

// Options are those of a run: [SwitchoverOptions] or [RestartOptions].
type Options interface {
	next(v View, done []Done) (Decision, error)
}

// Next decides what comes after what was done. v is the cluster as it is now. An error is a [*Refusal].
//
// Whoever waits does so for as long as a step may take, and looks anew.
func Next(v View, done []Done, o Options) (Decision, error) {
	for _, d := range done {
		if d.Outcome == OutcomeUnknown {
			return Decision{}, refuse(UnsettledStep, "look at patronictl list, and let this run be resumed when the members answer",
				"it is not known what became of the %s of %s", d.Kind, d.Member)
		}
	}
	return o.next(v, done)
}

// history is what a run has done so far.
type history []Done

// switched reports whether there was a switchover: also one that has failed after it had moved the leader away, wherever it is now.
func (h history) switched(leader Member) bool {
	return slices.ContainsFunc(h, func(d Done) bool {
		return d.Kind == KindSwitchover && (d.Outcome == OutcomeDone || d.Member != leader.Name || d.cameBack(leader))
	})
}

// cameBack reports whether a switchover that failed has moved the leader, and the old one is it again.
func (d Done) cameBack(leader Member) bool {
	failed := d.Kind == KindSwitchover && d.Outcome == OutcomeFailed && d.Member == leader.Name
	return failed && d.Timeline > 0 && leader.Timeline > d.Timeline
}

// turn is the place of the last time that the primary's turn was done, in one of the ways; -1: not yet.
func (h history) turn(kinds ...string) int {
	last := -1
	for i, d := range h {
		for _, kind := range kinds {
			if d.Kind == kind && d.Outcome == OutcomeDone {
				last = i
			}
		}
	}
	return last
}

// restarted is how often a member was stopped and started from a place on: a switchover does that to the old primary.
func (h history) restarted(name string, from int) int {
	n := 0
	for _, d := range h[from:] {
		if d.Member == name && d.Outcome == OutcomeDone {
			n++
		}
	}
	return n
}

// atWork is a member that somebody has to wait for before the next step: one that is on its way up or down, or one that a step of this
// run has left and that is not back.
func (v View) atWork(h history) *Wait {
	for _, m := range v.Members {
		if m.Busy() {
			return &Wait{m.Name, m.Name + " is " + m.State}
		}
		switch back := m.Up() && m.Reachable; {
		case back:
		case m.Leader(), h.restarted(m.Name, 0) > 0:
			return &Wait{m.Name, m.Name + " " + m.absent()}
		}
	}
	return nil
}

// absent is how a member that is not up is not.
func (m Member) absent() string {
	if !m.Reachable {
		return "does not answer: its REST API is not reachable"
	}
	return "is " + m.State
}

// Policy is what to do when nobody can be primary before something has caught up.
type Policy string

// Policies. The zero value is PolicyWait.
const (
	PolicyWait    Policy = "wait"
	PolicyInPlace Policy = "in-place" // restart the primary where it is
	PolicyRefuse  Policy = "refuse"
)

// SwitchoverOptions are those of a planned switchover.
type SwitchoverOptions struct {
	Candidate string `json:"candidate,omitempty"` // "": the best one
	// From: there is something to do only where this member is the primary; "": whoever it is.
	From         string `json:"from,omitempty"`
	MaxReplayLag Limit  `json:"maxReplayLag,omitzero"`
	IfLagging    Policy `json:"ifLagging,omitempty"` // not PolicyInPlace
}

func (o SwitchoverOptions) next(v View, done []Done) (Decision, error) {
	if o.IfLagging == PolicyInPlace {
		return Decision{}, refuse(InvalidOptions, "wait, or refuse", "a switchover has nothing that could be done in place")
	}
	leader, err := v.open()
	if err != nil {
		return Decision{}, err
	}
	if wait := v.atWork(done); wait != nil {
		return Decision{Wait: wait}, nil
	}
	switch {
	case slices.ContainsFunc(done, func(d Done) bool { return d.cameBack(leader) }):
		return Decision{}, refuse(SwitchedBack, "look at Patroni's logs for why, and start a new switchover",
			"the switchover has failed, %s is primary again, and a run does not try it twice", leader.Name)
	case history(done).switched(leader):
		return Decision{Why: leader.Name + " is the primary"}, nil
	case o.Candidate == leader.Name:
		return Decision{Why: leader.Name + " is the primary already"}, nil
	case o.From != "" && o.From != leader.Name:
		if _, ok := v.Member(o.From); !ok {
			return Decision{}, unknown(v, o.From)
		}
		return Decision{Why: fmt.Sprintf("%s is not the primary, %s is", o.From, leader.Name)}, nil
	}
	c, err := Choose(v, o.Candidate, o.MaxReplayLag)
	if err != nil {
		return Decision{Choice: c}, err
	}
	if c.Wait != nil {
		return o.IfLagging.wait(c)
	}
	return Decision{Choice: c, Step: &Step{Kind: KindSwitchover, Member: leader.Name, Candidate: c.Candidate, Why: c.Why}}, nil
}

// wait is what a policy other than PolicyInPlace makes of a candidate that has to catch up.
func (p Policy) wait(c Choice) (Decision, error) {
	if p == PolicyRefuse {
		return Decision{Choice: c}, refuse(ReplicaLagging, "let it catch up, allow more with --max-replay-lag, or name another policy",
			"no member can be primary yet: %s", c.Wait.For)
	}
	return Decision{Choice: c, Wait: c.Wait}, nil
}
