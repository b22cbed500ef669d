package api

import "strings"

// ProblemBase is where the types of problems are explained: each is a section of the page.
const ProblemBase = "https://github.com/pgbaton/pgbaton/blob/main/docs/problems.md#"

// ProblemType is the media type of a problem.
const ProblemType = "application/problem+json"

// Classes of problems.
const (
	Transient  = "transient"  // try again later, with backoff
	Validation = "validation" // change the request or the configuration
	NotFound   = "notFound"   // there is no such thing
	Permanent  = "permanent"  // trying again does not help: ask a person
)

// Problem is an error as RFC 9457 has it, and with what an operator decides by.
type Problem struct {
	Type            string       `json:"type" format:"uri" doc:"Stable; leads to the explanation"`
	Title           string       `json:"title" doc:"The same for every problem of this type"`
	Status          int          `json:"status" doc:"HTTP status"`
	Detail          string       `json:"detail,omitempty" doc:"What happened this time"`
	Instance        string       `json:"instance,omitempty" format:"uri" doc:"Names this occurrence; the log has the same"`
	Class           string       `json:"class" enum:"transient,validation,notFound,permanent" doc:"transient: try again with backoff; validation: change the request or the configuration; notFound; permanent: ask a person"`
	Pooler          string       `json:"pooler,omitempty" doc:"The pooler that it is about"`
	ObservedVersion string       `json:"observedVersion,omitempty" doc:"The configuration version that was seen last"`
	Operation       string       `json:"operation,omitempty" doc:"Path of the operation that it is about"`
	Errors          []FieldError `json:"errors,omitempty" doc:"What is wrong, and where"`
}

// FieldError is one thing that is wrong with a request. What was sent is not repeated: it may be a secret in the wrong place.
type FieldError struct {
	Message  string `json:"message"`
	Location string `json:"location,omitempty" doc:"Such as body.timeout"`
}

// Error is the title and what happened this time.
func (p *Problem) Error() string { return p.Title + ": " + p.Detail }

// Name is the stable name of the problem's type, such as "operation-running".
func (p *Problem) Name() string { return strings.TrimPrefix(p.Type, ProblemBase) }
