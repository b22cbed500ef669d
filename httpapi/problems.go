package httpapi

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/operation"
	"github.com/pgbaton/pgbaton/state"
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
	malformedRequest     = kind{"malformed-request", 400, api.Validation, "The request cannot be read"}
	unauthenticated      = kind{"unauthenticated", 401, api.Permanent, "No valid credentials"}
	forbidden            = kind{"forbidden", 403, api.Permanent, "Credentials without the scope"}
	crossOrigin          = kind{"cross-origin", 403, api.Permanent, "A web page of another origin asked"}
	notFound             = kind{"not-found", 404, api.NotFound, "No such path"}
	operationNotFound    = kind{"operation-not-found", 404, api.NotFound, "No such operation"}
	methodNotAllowed     = kind{"method-not-allowed", 405, api.Validation, "The path has no such method"}
	notAcceptable        = kind{"not-acceptable", 406, api.Validation, "No form that the client accepts"}
	requestTimeout       = kind{"request-timeout", 408, api.Transient, "The request did not arrive in time"}
	operationRunning     = kind{"operation-running", 409, api.Transient, "Another operation runs"}
	operationForgotten   = kind{"operation-forgotten", 409, api.Permanent, "The operation of this key is not kept any more"}
	invalidConfiguration = kind{operation.InvalidConfiguration, 409, api.Validation, "The configuration does not allow it"}
	refused              = kind{operation.Refused, 409, api.Permanent, "A precondition is not met"}
	contentTooLarge      = kind{"content-too-large", 413, api.Validation, "The body is too large"}
	unsupportedMedia     = kind{"unsupported-media-type", 415, api.Validation, "The body is not JSON"}
	expectationFailed    = kind{"expectation-failed", 417, api.Validation, "Unknown expectation"}
	misdirected          = kind{"misdirected-request", 421, api.Permanent, "Not a name of this server"}
	invalidRequest       = kind{"invalid-request", 422, api.Validation, "The request does not follow the schema"}
	keyReused            = kind{"idempotency-key-reused", 422, api.Validation, "The key belongs to another request"}
	headerTooLarge       = kind{"header-too-large", 431, api.Validation, "The header is too large"}
	internalError        = kind{operation.Fault, 500, api.Permanent, "A fault of pgbaton"}
	notImplemented       = kind{"not-implemented", 501, api.Permanent, "Unknown transfer encoding"}
	overloaded           = kind{"overloaded", 503, api.Transient, "Too many requests at a time"}
	shuttingDown         = kind{"shutting-down", 503, api.Transient, "The server is ending"}
	notReady             = kind{"not-ready", 503, api.Transient, "Not ready"}
	stateNotKept         = kind{operation.NotKept, 503, api.Transient, "The state directory cannot be written"}
	notDrained           = kind{operation.NotDrained, 503, api.Transient, "Not drained in time"}
	poolerFailed         = kind{operation.PoolerFailed, 503, api.Transient, "A pooler did not do it"}
	interrupted          = kind{operation.Interrupted, 503, api.Transient, "The operation was interrupted"}
	unknownOutcome       = kind{operation.UnknownOutcome, 503, api.Transient, "The outcome is not known"}
	maintenanceFailed    = kind{operation.MaintenanceFailed, 500, api.Permanent, "Planned maintenance went wrong"}
	maintenanceTimeout   = kind{operation.MaintenanceTimeout, 503, api.Transient, "A step of planned maintenance took too long"}
	stopped              = kind{operation.Stopped, 503, api.Transient, "Stopped after a step"}
	unsupportedVersion   = kind{"unsupported-http-version", 505, api.Permanent, "Unknown version of HTTP"}
)

// kinds are all of them, for the tests and the document.
func kinds() []kind {
	return append([]kind{malformedRequest, unauthenticated, forbidden, crossOrigin, notFound, operationNotFound, methodNotAllowed,
		notAcceptable, requestTimeout, operationRunning, operationForgotten, invalidConfiguration, refused, contentTooLarge,
		unsupportedMedia, expectationFailed, misdirected, invalidRequest, keyReused, headerTooLarge, internalError, notImplemented,
		overloaded, shuttingDown, notReady, stateNotKept, notDrained, poolerFailed, interrupted, unknownOutcome, maintenanceFailed,
		maintenanceTimeout, stopped, unsupportedVersion},
		append(reloadKinds(), lbKinds()...)...)
}

// refusal is a problem that is answered to a request.
type refusal struct {
	api.Problem

	headers http.Header
	counted bool // in the metrics
}

func (k kind) uri() string { return api.ProblemBase + k.name }

func (k kind) problem(detail string) *refusal {
	return &refusal{Problem: api.Problem{Type: k.uri(), Title: k.title, Status: k.status, Detail: detail, Class: k.class}}
}

// failed is the problem of an operation that failed, or is unknown.
func failed(o operation.Operation) *api.Problem {
	if o.Failure == nil {
		return nil
	}
	what := internalError
	for _, k := range kinds() {
		if k.name == o.Failure.Name {
			what = k
		}
	}
	p := what.problem(o.Failure.Detail).Problem
	p.Class, p.Pooler, p.ObservedVersion, p.Operation = o.Failure.Class, o.Failure.Pooler, o.Failure.ObservedVersion, api.OperationPath(
		o.ID,
	)
	return &p
}

// noMore is for who asks for something while the server ends.
func noMore(what string) *refusal {
	return shuttingDown.problem("no " + what + " any more").retryAfter(5 * time.Second)
}

// retryAfter says when to come back.
func (p *refusal) retryAfter(d time.Duration) *refusal {
	return p.header("Retry-After", strconv.Itoa(max(1, int((d+time.Second-1)/time.Second))))
}

func (p *refusal) header(name, value string) *refusal {
	if p.headers == nil {
		p.headers = http.Header{}
	}
	p.headers.Set(name, value)
	return p
}

// GetStatus, GetHeaders and ContentType make it an error that a huma handler may return.
func (p *refusal) GetStatus() int          { return p.Status }
func (p *refusal) GetHeaders() http.Header { return p.headers }
func (p *refusal) ContentType(string) string {
	return api.ProblemType
}

// write answers with it.
func (p *refusal) write(w http.ResponseWriter) {
	h := w.Header()
	for name, values := range p.headers {
		h[name] = values
	}
	h.Set("Content-Type", api.ProblemType)
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Length")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // who asked may have gone
}

// fromHuma makes a problem of what huma says about a request.
func fromHuma(e *huma.ErrorModel) *refusal {
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
		p.Errors = append(p.Errors, api.FieldError{Message: state.Clip(message, 200), Location: state.Clip(detail.Location, 200)})
		if len(p.Errors) == 20 {
			break
		}
	}
	if k == internalError {
		p.Detail, p.Errors = "the log has more", nil
	}
	return p
}
