package api

import (
	"time"
)

// Kinds of operations: the paths that start them, behind /v1/.
const (
	KindPause           = "pgbouncer/pause"
	KindResume          = "pgbouncer/resume"
	KindReloadPostgres  = "postgres/reload"
	KindReloadPgBouncer = "pgbouncer/reload"
)

// States of an operation.
const (
	Pending   = "pending" // written down, not begun
	Running   = "running"
	Succeeded = "succeeded"
	Failed    = "failed"
	Unknown   = "unknown" // its server was killed meanwhile, and the outcome is being found out; or it cannot be found out
)

// Operation is something that was asked for with a POST.
type Operation struct {
	ID      string           `json:"id"`
	Member  string           `json:"member" doc:"The member whose server took it; the servers of other members do not know it"`
	Kind    string           `json:"kind" enum:"pgbouncer/pause,pgbouncer/resume,postgres/reload,pgbouncer/reload,cluster/check,cluster/switchover,cluster/restart"`
	Run     string           `json:"run,omitempty" doc:"The run of planned maintenance, as the log and the cluster's lock name it"`
	State   string           `json:"state" enum:"pending,running,succeeded,failed,unknown" doc:"unknown: serve was killed while the operation ran; it becomes succeeded or failed when its outcome is known"`
	Caller  string           `json:"caller" doc:"Name of the token or certificate"`
	Request OperationRequest `json:"request"`
	Created time.Time        `json:"created"`
	Started time.Time        `json:"started,omitzero"`
	Ended   time.Time        `json:"ended,omitzero" doc:"The state does not change any more"`
	Result  *Outcome         `json:"result,omitempty"`
	Problem *Problem         `json:"problem,omitempty" doc:"Why it failed, or is unknown"`
	Steps   []Step           `json:"steps" nullable:"false" doc:"The newest 100; in a list only the last one"`
}

// Over reports whether the state stays as it is.
func (o Operation) Over() bool { return !o.Ended.IsZero() }

// Path is where the operation is on its server.
func (o Operation) Path() string { return OperationPath(o.ID) }

// OperationPath is where the operation with an id is on its server.
func OperationPath(id string) string { return "/v1/operations/" + id }

// OperationRequest is what was asked for, defaults filled in where the server knows them.
type OperationRequest struct {
	Lease         string `json:"lease,omitempty" doc:"The pause ends by itself after this"`
	Timeout       string `json:"timeout,omitempty"`
	ConfigVersion string `json:"configVersion,omitempty"`

	Switchover *SwitchoverBody `json:"switchover,omitempty"`
	Restart    *RestartBody    `json:"restart,omitempty"`
}

// Outcome is what the same command on the command line would have reported.
type Outcome struct {
	Code     int            `json:"code" doc:"Exit code of the same command: 0 done, 1 failed, 2 configuration, 3 budget spent, 4 refused"`
	Decision string         `json:"decision"`
	Poolers  []PoolerReport `json:"poolers,omitempty"`
	Until    time.Time      `json:"until,omitzero" doc:"End of the lease"`
	Reload   *ReloadReport  `json:"reload,omitempty" doc:"The report of a reload"`
	Cluster  *ClusterReport `json:"cluster,omitempty" doc:"The report of a switchover or restart"`
	Check    *CheckReport   `json:"check,omitempty" doc:"What a check has found"`
}

// Step is one thing that happened, or a change of the state.
type Step struct {
	ID     int       `json:"id" doc:"Goes up within an operation"`
	Time   time.Time `json:"time"`
	State  string    `json:"state,omitempty" enum:"pending,running,succeeded,failed,unknown" doc:"The state from now on, when it has changed"`
	Target string    `json:"target,omitempty"`
	Pooler string    `json:"pooler,omitempty"`
	Text   string    `json:"text"`
}

// OperationList is what is kept: the newest 100, those that have ended for 24 h.
type OperationList struct {
	Operations []Operation `json:"operations" nullable:"false" doc:"Newest first"`
}

// PauseBody is the body of a POST that pauses.
type PauseBody struct {
	Lease   string `json:"lease,omitempty" example:"30s" maxLength:"40" doc:"The pause ends by itself after this; default pause.lease, 24h at most"`
	Timeout string `json:"timeout,omitempty" example:"15s" maxLength:"40" doc:"Longest wait until drained; then all are resumed; default pause.budget, 1h at most"`
}

// ReloadBody is the body of a POST that reloads.
type ReloadBody struct {
	ConfigVersion string `json:"configVersion,omitempty" example:"42" maxLength:"40" doc:"Wait until the configuration has this version, or a newer one"`
	Timeout       string `json:"timeout,omitempty" example:"30s" maxLength:"40" doc:"Longest wait for the version, and for the end of a handover; default 2m, 1h at most"`
}

// StatusAnswer is what pgbaton status shows, and when that was so: an answer may be a second old, so that many clients are no burden to the
// poolers.
type StatusAnswer struct {
	Status
	ObservedAt time.Time `json:"observedAt"`
}
