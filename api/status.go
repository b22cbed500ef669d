package api

import "time"

// Status is what this member can say about a handover: before, during and after.
type Status struct {
	Member   string          `json:"member"`
	Scope    string          `json:"scope,omitempty"`
	Server   ServerStatus    `json:"server"`
	Patroni  PatroniStatus   `json:"patroni"`
	Poolers  []PoolerStatus  `json:"poolers"`
	Leases   []LeaseStatus   `json:"leases,omitempty"`
	Versions []VersionReport `json:"versions,omitempty"`     // of the configuration, where one can be seen
	Handover []HandoverEvent `json:"lastHandover,omitempty"` // of the last one that this member took part in
	Problems []string        `json:"problems,omitempty"`     // what would spoil the next one, with what to change
	// Conditions are the status for programs, in the form that Kubernetes gives to its own.
	Conditions []Condition       `json:"conditions"`
	Labels     map[string]string `json:"labels,omitempty"`     // of this member, from serve.labels_file
	ConfigFile string            `json:"configFile,omitempty"` // another user, or a link elsewhere, may work with another one
	StateDir   string            `json:"stateDir,omitempty"`
}

// HandoverEvent is an entry of the journal.
type HandoverEvent struct {
	Time        time.Time `json:"time"`
	Hook        string    `json:"hook"`
	Event       string    `json:"event"`
	Pooler      string    `json:"pooler,omitempty"`
	TookSeconds float64   `json:"tookSeconds,omitempty"`
	Code        int       `json:"code,omitempty"`
	Text        string    `json:"text,omitempty"`
}

// ServerStatus is the local server's.
type ServerStatus struct {
	Role    string `json:"role"` // primary, replica, unknown; none: there is no member on this machine (patroni.urls)
	Version int    `json:"version,omitempty"`
	Started string `json:"started,omitempty"`
	Error   string `json:"error,omitempty"`
}

// PatroniStatus is what its REST API says.
type PatroniStatus struct {
	HasLock         bool      `json:"hasLock"`
	State           string    `json:"state,omitempty"`
	Role            string    `json:"role,omitempty"`
	Version         string    `json:"version,omitempty"`
	Maintenance     bool      `json:"maintenance,omitempty"`
	DCSLastSeen     time.Time `json:"dcsLastSeen,omitzero"`
	TTLSeconds      float64   `json:"ttlSeconds,omitempty"`
	LoopWaitSeconds float64   `json:"loopWaitSeconds,omitempty"`
	Error           string    `json:"error,omitempty"`
}

// PoolerStatus is one pooler's.
type PoolerStatus struct {
	Pooler         string   `json:"pooler"`
	Version        string   `json:"version,omitempty"`
	Paused         string   `json:"paused"`             // yes, no, unknown (1.18 cannot tell)
	PausedBy       string   `json:"pausedBy,omitempty"` // guard, hand, foreign
	Databases      []string `json:"pausedDatabases,omitempty"`
	Waiting        int      `json:"waitingClients"`
	MaxWaitSeconds float64  `json:"maxWaitSeconds,omitempty"` // of the client that waits longest
	Servers        int      `json:"serverConnections"`
	Error          string   `json:"error,omitempty"`
}

// LeaseStatus is a pause of this member that stands.
type LeaseStatus struct {
	Owner string    `json:"owner"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// KeeperGone says that the process that would end the pause was killed, or has ended with its container.
	KeeperGone bool `json:"keeperGone,omitempty"`
}

// Condition is one aspect of a status, in the form of Kubernetes' conditions.
type Condition struct {
	Type               string    `json:"type"`
	Status             string    `json:"status"` // True, False, Unknown
	Reason             string    `json:"reason"` // one word, for programs
	Message            string    `json:"message,omitempty"`
	LastTransitionTime time.Time `json:"lastTransitionTime"` // when Status last changed, as far as this member's state directory knows
	ObservedVersion    string    `json:"observedVersion,omitempty"`
}

// Types of conditions.
const (
	ConditionReady       = "Ready"                // a handover could begin now
	ConditionProgressing = "Progressing"          // one is under way, or a pause by hand stands
	ConditionDegraded    = "Degraded"             // something needs a person
	ConditionValid       = "ConfigurationValid"   // of pgbaton
	ConditionApplied     = "ConfigurationApplied" // of PostgreSQL and PgBouncer: what runs is what was asked for
)
