package api

// How bad a finding is.
const (
	// SeverityError is a handover that would be spoiled: clients get errors, wait until a time-out ends, or nothing is moved at all.
	SeverityError = "error"
	// SeverityWarning is something that costs a handover time, or that could not be looked at.
	SeverityWarning = "warning"
)

// CheckReport is what a preflight has found.
type CheckReport struct {
	Member   string    `json:"member"` // that it was made on
	Scope    string    `json:"scope,omitempty"`
	OK       bool      `json:"ok"`       // no finding is an error
	Findings []Finding `json:"findings"` // the errors first
}

// Finding is one thing that would spoil a handover, or make it slower.
type Finding struct {
	ID       string `json:"id"`                // stable; its section in docs/checks.md
	Severity string `json:"severity"`          // one of the Severity constants, always the same for an ID
	Subject  string `json:"subject,omitempty"` // the pooler, member, setting or file that it is about
	Found    string `json:"found"`
	Why      string `json:"why"`
	Change   string `json:"change,omitempty"` // what to do, as a command or a line where there is one
}
