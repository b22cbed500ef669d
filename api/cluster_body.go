package api

// KindCheck is the operation that looks for what would spoil a handover, on every member.
const KindCheck = "cluster/check"

// SwitchoverBody is the body of a POST for a switchover. It goes as [RestartBody] says.
type SwitchoverBody struct {
	Candidate  string `json:"candidate,omitempty" maxLength:"200" doc:"The member that is to be the primary; default: the one that is fit best"`
	Prefer     string `json:"prefer,omitempty" maxLength:"400" example:"controller-revision-hash" doc:"Of those that are fit, rather a member with this label (NAME=VALUE), or whose label differs from the primary's (NAME)"`
	At         string `json:"at,omitempty" maxLength:"40" example:"2026-12-01T03:00:00Z" doc:"RFC 3339; Patroni does it then, and the operation lasts until it is done"`
	FromHere   bool   `json:"fromHere,omitempty" doc:"Only if the member of this server is the primary; else there is nothing to do"`
	Resume     bool   `json:"resume,omitempty" doc:"Go on with the run of this member that was cut off; nothing else may be given"`
	SkipChecks bool   `json:"skipChecks,omitempty" doc:"Go on where a check has found what would spoil the handover"`

	MaxReplayLag   string `json:"maxReplayLag,omitempty" maxLength:"40" example:"16MB" doc:"How far the candidate may be behind with its replay: a size or a time"`
	IfLagging      string `json:"ifLagging,omitempty" enum:"wait,refuse" doc:"What to do when it is further behind; default wait"`
	MaxTransaction string `json:"maxTransaction,omitempty" maxLength:"40" example:"30s" doc:"Wait until no transaction on the member of a step is older; default: they are not looked at"`
	StepTimeout    string `json:"stepTimeout,omitempty" maxLength:"40" example:"10m" doc:"Longest time of one step with its waits, 24h at most; default 10m"`
}

// RestartBody is the body of a POST for a restart. One of members, pending, olderThan and rolling is needed, or resume.
type RestartBody struct {
	Members    []string `json:"members,omitempty" maxItems:"100" nullable:"false" doc:"Only these; default: all that the rest says"`
	Pending    bool     `json:"pending,omitempty" doc:"Those that have a pending restart"`
	OlderThan  string   `json:"olderThan,omitempty" maxLength:"20" example:"17.6" doc:"Those whose server is older than this version of PostgreSQL"`
	Rolling    bool     `json:"rolling,omitempty" doc:"All"`
	Resume     bool     `json:"resume,omitempty" doc:"Go on with the run of this member that was cut off; nothing else may be given"`
	SkipChecks bool     `json:"skipChecks,omitempty" doc:"Go on where a check has found what would spoil the handover"`

	KeepLeader bool   `json:"keepLeader,omitempty" doc:"Restart the primary in place, without a switchover"`
	Candidate  string `json:"candidate,omitempty" maxLength:"200" doc:"The member that is to be the primary; default: the one that is fit best"`

	MaxReplayLag   string `json:"maxReplayLag,omitempty" maxLength:"40" example:"16MB" doc:"How far the candidate may be behind with its replay: a size or a time"`
	IfLagging      string `json:"ifLagging,omitempty" enum:"wait,in-place,refuse" doc:"What to do when it is further behind; default wait"`
	MaxTransaction string `json:"maxTransaction,omitempty" maxLength:"40" example:"30s" doc:"Wait until no transaction on the member of a step is older; default: they are not looked at"`
	StepTimeout    string `json:"stepTimeout,omitempty" maxLength:"40" example:"10m" doc:"Longest time of one step with its waits, 24h at most; default 10m"`
	WarmUp         string `json:"warmUp,omitempty" enum:"autoprewarm" doc:"What to wait for after each restart. Programs only on the command line"`
}
