package api

import "time"

// Kinds of runs of planned maintenance: the paths that start them, behind /v1/.
const (
	KindSwitchover = "cluster/switchover"
	KindRestart    = "cluster/restart"
)

// States of a run and of a step of it.
const (
	StepPlanned = "planned" // of a step: not begun
	StepRunning = "running"
	StepDone    = "done"
	StepSkipped = "skipped" // of a step: it was no longer needed when its turn came
	StepFailed  = "failed"
	StepUnknown = "unknown" // what became of it could not be found out
	StepStopped = "stopped" // of a run: asked to stop, after the step that it was at; of a step: not begun any more
)

// ClusterEvent is one thing that happens in a run of planned maintenance. Events come in order.
type ClusterEvent struct {
	Time  time.Time `json:"time"`
	Run   string    `json:"run"`
	Event string    `json:"event" enum:"plan,step,live,note,end"`
	// Step is the number of the step that this is about, from 1; 0: none.
	Step int `json:"step,omitempty"`
	// Text is the event as a sentence.
	Text string `json:"text,omitempty"`
	// Plan is what is done and left to do, of events plan and step: as it is from now on. What follows the present step is a forecast: the
	// cluster is looked at anew before each.
	Plan []StepReport `json:"plan,omitempty"`
	Live *LiveReport  `json:"live,omitempty"` // of event live
}

// Events of a run.
const (
	EventPlan = "plan" // the plan is known, or has changed
	EventStep = "step" // a step begins or ends: its state in the plan has changed
	EventLive = "live" // how it stands; about once a second while a step waits, not kept
	EventNote = "note" // something worth a line in a log
	EventEnd  = "end"  // the last look: the report's decision
)

// LiveReport is how a step stands.
type LiveReport struct {
	Member     string  `json:"member,omitempty"`   // that is waited for
	Waits      string  `json:"waits,omitempty"`    // what for
	LagBytes   int64   `json:"lagBytes,omitempty"` // that the member has not replayed
	Paused     int     `json:"pausedPoolers"`      // poolers that say so
	Waiting    int     `json:"waitingClients"`     // now
	Unanswered int     `json:"unansweredConsoles"` // poolers that cannot be counted
	MaxWait    float64 `json:"maxWaitSeconds"`     // of the client that waits longest
}

// StepReport is one step of a plan, and what it cost the clients.
type StepReport struct {
	Number    int    `json:"number"` // from 1
	Kind      string `json:"kind"`   // restart, switchover, restart-in-place
	Member    string `json:"member"`
	Candidate string `json:"candidate,omitempty"` // of a switchover: who is to be primary, and from its end who is
	Why       string `json:"why,omitempty"`
	State     string `json:"state"`

	Began       time.Time `json:"began,omitzero"`
	TookSeconds float64   `json:"tookSeconds,omitempty"`
	Text        string    `json:"text,omitempty"` // what became of it
	Cost        *Cost     `json:"cost,omitempty"`
}

// Cost is what a step cost the clients, by the poolers' own figures.
type Cost struct {
	// StallSeconds is the longest time that a client has waited for a server: PgBouncer's maxwait, or for how long clients waited for a
	// paused pooler, the highest that was seen. The poolers are asked five times a second.
	StallSeconds float64 `json:"stallSeconds"`
	Waiting      int     `json:"waitingClients"` // the most that waited at one time
	// PausedSeconds is for how long a pooler was seen paused.
	PausedSeconds float64 `json:"pausedSeconds"`
	// Errors are clients that poolers disconnected while the step ran, as far as it can be told from their figures: those whose number fell
	// and who were waiting. -1: not known.
	Errors int `json:"errors"`
	Gaps   int `json:"gaps,omitempty"` // looks that no pooler answered in time: what was between them was not seen
}

// ClusterReport is how a run of planned maintenance ended.
type ClusterReport struct {
	Run    string `json:"run"`
	Kind   string `json:"kind"`
	Member string `json:"member"` // that it was run from
	Scope  string `json:"scope,omitempty"`
	State  string `json:"state"`
	Code   int    `json:"code"` // 0 done, 1 failed, 2 configuration, 3 time spent, 4 refused
	// Refusal is the stable id of what refused it, of code 4.
	Refusal  string       `json:"refusal,omitempty"`
	Decision string       `json:"decision"` // the last line; from a look at the cluster, never from an answer
	Steps    []StepReport `json:"steps" nullable:"false"`
	Began    time.Time    `json:"began,omitzero"`
	// TookSeconds is for the whole run.
	TookSeconds float64     `json:"tookSeconds,omitempty"`
	After       *Aftermath  `json:"after,omitempty"` // the last look; nil: nothing was begun
	Choice      *ChoiceMade `json:"choice,omitempty"`
}

// ChoiceMade is how a candidate was chosen.
type ChoiceMade struct {
	Candidate  string            `json:"candidate,omitempty"`
	Why        string            `json:"why,omitempty"`
	PassedOver map[string]string `json:"passedOver,omitempty"` // member → reason
}

// Aftermath is what the last look at a cluster saw. OK is true where all of it is as it should be.
type Aftermath struct {
	OK        bool           `json:"ok"`
	Primary   string         `json:"primary,omitempty"`
	Timeline  int            `json:"timeline,omitempty"`
	Members   []MemberReport `json:"members,omitempty"`
	Poolers   []PoolerStatus `json:"poolers,omitempty"`
	Writable  string         `json:"writable"` // through the poolers: yes, no, unknown
	Problems  []string       `json:"problems,omitempty"`
	LockTaken bool           `json:"lockTaken,omitempty"` // our entry still stands in the cluster's configuration
}

// MemberReport is one member as the last look saw it.
type MemberReport struct {
	Name     string `json:"name"`
	Role     string `json:"role"`
	State    string `json:"state"`
	Timeline int    `json:"timeline,omitempty"`
	LagBytes int64  `json:"lagBytes,omitempty"`
	Pending  bool   `json:"pendingRestart,omitempty"`
}
