package httpapi

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// problemBase is where the types of problems are explained: each is a section of the page.
const problemBase = "https://github.com/pgbaton/pgbaton/blob/main/docs/problems.md#"

// Classes of problems.
const (
	classTransient  = "transient"  // try again later, with backoff
	classValidation = "validation" // change the request or the configuration
	classNotFound   = "notFound"   // there is no such thing
	classPermanent  = "permanent"  // trying again does not help: ask a person
)

// kind is one type of problem.
type kind struct {
	name   string
	status int
	class  string
	title  string
}

// Every problem that this server can answer or record. docs/problems.md has a section for each; a test holds them together.
var (
	malformedRequest     = kind{"malformed-request", 400, classValidation, "The request cannot be read"}
	unauthenticated      = kind{"unauthenticated", 401, classPermanent, "No valid credentials"}
	forbidden            = kind{"forbidden", 403, classPermanent, "Credentials without the scope"}
	crossOrigin          = kind{"cross-origin", 403, classPermanent, "A web page of another origin asked"}
	notFound             = kind{"not-found", 404, classNotFound, "No such path"}
	operationNotFound    = kind{"operation-not-found", 404, classNotFound, "No such operation"}
	methodNotAllowed     = kind{"method-not-allowed", 405, classValidation, "The path has no such method"}
	notAcceptable        = kind{"not-acceptable", 406, classValidation, "No form that the client accepts"}
	requestTimeout       = kind{"request-timeout", 408, classTransient, "The request did not arrive in time"}
	operationRunning     = kind{"operation-running", 409, classTransient, "Another operation runs"}
	operationForgotten   = kind{"operation-forgotten", 409, classPermanent, "The operation of this key is not kept any more"}
	invalidConfiguration = kind{"invalid-configuration", 409, classValidation, "The configuration does not allow it"}
	refused              = kind{"refused", 409, classPermanent, "A precondition is not met"}
	contentTooLarge      = kind{"content-too-large", 413, classValidation, "The body is too large"}
	unsupportedMedia     = kind{"unsupported-media-type", 415, classValidation, "The body is not JSON"}
	expectationFailed    = kind{"expectation-failed", 417, classValidation, "Unknown expectation"}
	misdirected          = kind{"misdirected-request", 421, classPermanent, "Not a name of this server"}
	invalidRequest       = kind{"invalid-request", 422, classValidation, "The request does not follow the schema"}
	keyReused            = kind{"idempotency-key-reused", 422, classValidation, "The key belongs to another request"}
	headerTooLarge       = kind{"header-too-large", 431, classValidation, "The header is too large"}
	internalError        = kind{"internal-error", 500, classPermanent, "A fault of pgbaton"}
	notImplemented       = kind{"not-implemented", 501, classPermanent, "Unknown transfer encoding"}
	overloaded           = kind{"overloaded", 503, classTransient, "Too many requests at a time"}
	shuttingDown         = kind{"shutting-down", 503, classTransient, "The server is ending"}
	notReady             = kind{"not-ready", 503, classTransient, "Not ready"}
	stateNotKept         = kind{"state-not-kept", 503, classTransient, "The state directory cannot be written"}
	notDrained           = kind{"not-drained", 503, classTransient, "Not drained in time"}
	poolerFailed         = kind{"pooler-failed", 503, classTransient, "A pooler did not do it"}
	interrupted          = kind{"interrupted", 503, classTransient, "The operation was interrupted"}
	unknownOutcome       = kind{"unknown-outcome", 503, classTransient, "The outcome is not known"}
	unsupportedVersion   = kind{"unsupported-http-version", 505, classPermanent, "Unknown version of HTTP"}
)

// kinds are all of them, for the tests and the document.
func kinds() []kind {
	return append([]kind{malformedRequest, unauthenticated, forbidden, crossOrigin, notFound, operationNotFound, methodNotAllowed,
		notAcceptable, requestTimeout, operationRunning, operationForgotten, invalidConfiguration, refused, contentTooLarge,
		unsupportedMedia, expectationFailed, misdirected, invalidRequest, keyReused, headerTooLarge, internalError, notImplemented,
		overloaded, shuttingDown, notReady, stateNotKept, notDrained, poolerFailed, interrupted, unknownOutcome, unsupportedVersion},
		reloadKinds()...)
}

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

	headers http.Header
	counted bool // in the metrics
}

// FieldError is one thing that is wrong with a request. What was sent is not repeated: it may be a secret in the wrong place.
type FieldError struct {
	Message  string `json:"message"`
	Location string `json:"location,omitempty" doc:"Such as body.timeout"`
}

const problemType = "application/problem+json"

func (k kind) uri() string { return problemBase + k.name }

func (k kind) problem(detail string) *Problem {
	return &Problem{Type: k.uri(), Title: k.title, Status: k.status, Detail: detail, Class: k.class}
}

// retryAfter says when to come back.
func (p *Problem) retryAfter(d time.Duration) *Problem {
	return p.header("Retry-After", strconv.Itoa(max(1, int((d+time.Second-1)/time.Second))))
}

func (p *Problem) header(name, value string) *Problem {
	if p.headers == nil {
		p.headers = http.Header{}
	}
	p.headers.Set(name, value)
	return p
}

// Error, GetStatus, GetHeaders and ContentType make it an error that a huma handler may return.
func (p *Problem) Error() string           { return p.Title + ": " + p.Detail }
func (p *Problem) GetStatus() int          { return p.Status }
func (p *Problem) GetHeaders() http.Header { return p.headers }
func (p *Problem) ContentType(string) string {
	return problemType
}

// write answers with it.
func (p *Problem) write(w http.ResponseWriter) {
	h := w.Header()
	for name, values := range p.headers {
		h[name] = values
	}
	h.Set("Content-Type", problemType)
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Length")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // who asked may have gone
}

// fromHuma makes a problem of what huma says about a request.
func fromHuma(e *huma.ErrorModel) *Problem {
	k := invalidRequest
	switch e.Status {
	case http.StatusBadRequest:
		k = malformedRequest
	case http.StatusUnsupportedMediaType:
		k = unsupportedMedia
	case http.StatusRequestEntityTooLarge:
		k = contentTooLarge
	case http.StatusRequestTimeout:
		k = requestTimeout
	case http.StatusUnprocessableEntity:
	default:
		if e.Status >= 500 {
			k = internalError
		}
	}
	p := k.problem(e.Detail)
	for _, detail := range e.Errors {
		if detail == nil {
			continue
		}
		message := detail.Message
		if k == unsupportedMedia {
			message = "send it with Content-Type: application/json"
		}
		p.Errors = append(p.Errors, FieldError{Message: clip(message, 200), Location: clip(detail.Location, 200)})
		if len(p.Errors) == 20 {
			break
		}
	}
	if k == internalError {
		p.Detail, p.Errors = "the log has more", nil
	}
	return p
}

// clip shortens a text for an answer or the log, and leaves no half of a letter.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	end := limit
	for end > 0 && s[end]&0xC0 == 0x80 {
		end--
	}
	return s[:end] + "..."
}
