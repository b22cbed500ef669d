package plan

import "fmt"

// Ids of refusals. They are stable: docs/maintenance-order.md has them all.
const (
	MaintenanceMode     = "maintenance-mode"
	SwitchoverScheduled = "switchover-scheduled"
	NoLeader            = "no-leader"
	StandbyCluster      = "standby-cluster"
	UnknownMember       = "unknown-member"
	NothingSelected     = "nothing-selected"
	MemberDown          = "member-down"
	NoCandidate         = "no-candidate"
	CandidateUnfit      = "candidate-unfit"
	ReplicaLagging      = "replica-lagging"
	ReplicasFirst       = "replicas-first"
	PrimaryFirst        = "primary-first"
	UnsettledStep       = "unsettled-step"
	SwitchedBack        = "switched-back"
	InvalidOptions      = "invalid-options"
)

// Refusal is why a cluster is left as it is. Whoever gets one goes no further; what was done before stays done.
type Refusal struct {
	ID     string // one of the constants
	Found  string
	Change string // what to do about it
}

// Error says what was found, and what to do.
func (r *Refusal) Error() string { return r.Found + ": " + r.Change }

func refuse(id, change, found string, args ...any) error {
	return &Refusal{ID: id, Found: fmt.Sprintf(found, args...), Change: change}
}
