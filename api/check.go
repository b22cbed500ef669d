package api

// How bad a finding is.
const (
	// SeverityError is a handover that would be spoiled: clients get errors, wait until a time-out ends, or nothing is moved at all.
	SeverityError = "error"
	// SeverityWarning is something that costs a handover time, or that could not be looked at.
	SeverityWarning = "warning"
)

// CheckPath is where the HTTP mode answers a check of its member.
const CheckPath = "/v1/check"

// CheckReport is what a preflight has found.
type CheckReport struct {
	Member   string    `json:"member"` // that it was made on
	Scope    string    `json:"scope,omitempty"`
	OK       bool      `json:"ok"`       // no finding is an error
	Findings []Finding `json:"findings"` // the errors first
	// Members are those that were to be asked, this one first; only of a check of all.
	Members []MemberCheck `json:"members,omitempty"`
}

// MemberCheck is how the check of one member went.
type MemberCheck struct {
	Member string `json:"member"`
	OK     bool   `json:"ok"`              // it was made, and no finding of it is an error
	Error  string `json:"error,omitempty"` // why it was not made
}

// Finding is one thing that would spoil a handover, or make it slower.
type Finding struct {
	ID       string `json:"id"`                // stable; its section in docs/checks.md
	Severity string `json:"severity"`          // one of the Severity constants, always the same for an ID
	Subject  string `json:"subject,omitempty"` // the pooler, member, setting or file that it is about
	// SeenFrom are the members from which it was found; only of a check of all.
	SeenFrom []string `json:"seenFrom,omitempty"`
	Found    string   `json:"found"`
	Why      string   `json:"why"`
	Change   string   `json:"change,omitempty"` // what to do, as a command or a line where there is one
}
