package httpapi

import (
	"context"
	"errors"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/pgbaton/pgbaton/api"
)

const (
	jsonType    = "application/json"
	maxLease    = 24 * time.Hour
	maxPauseFor = time.Hour
)

type healthOutput struct {
	Body struct {
		Status string `json:"status" enum:"ok"`
	}
}

type statusOutput struct {
	Age  int `header:"Age" doc:"Seconds since it was asked"`
	Body api.StatusAnswer
}

// PostInput is the header of every POST. (Exported, or huma does not look into it.)
type PostInput struct {
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"255" doc:"The same key with the same body within 24 h is the same operation. Keys of different callers are different"`
}

type pauseInput struct {
	PostInput
	Body *api.PauseBody
}

type reloadInput struct {
	PostInput
	Body *api.ReloadBody
}

type operationOutput struct {
	Status   int
	Location string `header:"Location" doc:"Of the operation"`
	Body     api.Operation
}

type operationInput struct {
	ID string `path:"id" doc:"Of the operation"`
}

type listOutput struct {
	Body api.OperationList
}

// register makes the routes and the document.
func (s *Server) register(version string) error {
	s.mux = http.NewServeMux()
	document := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{Title: "pgbaton", Version: version, Description: "Planned maintenance of Patroni clusters behind PgBouncer. " +
			"Every error is a problem (RFC 9457); its type leads to an explanation."},
		Components: &huma.Components{
			Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
			SecuritySchemes: map[string]*huma.SecurityScheme{
				"token":       {Type: "http", Scheme: "bearer", Description: "A line of serve.tokens_file"},
				"certificate": {Type: "mutualTLS", Description: "Of the authority serve.client_ca_file"},
			},
		},
	}
	s.document = document
	routes := humago.New(s.mux, huma.Config{
		OpenAPI: document, Formats: huma.DefaultFormats, DefaultFormat: jsonType,
		// huma's own errors become ours here, and nothing global is changed for it.
		Transformers: []huma.Transformer{func(ctx huma.Context, _ string, v any) (any, error) {
			p, isOurs := v.(*refusal)
			if e, ok := v.(*huma.ErrorModel); ok {
				p, isOurs = fromHuma(e), true
				if e.Status >= 500 {
					s.log.Error("a request could not be handled", "instance", instanceOf(ctx.Context()), "detail", e.Detail)
				}
			}
			if !isOurs {
				return v, nil
			}
			u := ctx.URL()
			told := *p
			s.told(ctx.Context(), ctx.Method(), u.Path, instanceOf(ctx.Context()), &told)
			return &told, nil
		}},
	})
	problem := document.Components.Schemas.Schema(reflect.TypeFor[api.Problem](), true, "Problem")

	open := []kind{notAcceptable, contentTooLarge, misdirected, internalError}
	get := append([]kind{overloaded}, open...)
	read := append(
		[]kind{malformedRequest, unauthenticated, requestTimeout},
		get...) // the first and last of a body, which none of them needs
	post := append([]kind{malformedRequest, unauthenticated, forbidden, crossOrigin, requestTimeout, invalidRequest, keyReused,
		operationForgotten,
		shuttingDown, stateNotKept}, get...)
	body := append([]kind{unsupportedMedia, operationRunning}, post...)

	add(s, routes, problem, huma.Operation{OperationID: "getHealth", Method: "GET", Path: "/healthz", Summary: "The process answers"},
		openToAll, open,
		func(context.Context, *struct{}) (*healthOutput, error) {
			out := &healthOutput{}
			out.Body.Status = "ok"
			return out, nil
		})
	add(s, routes, problem, huma.Operation{OperationID: "getReadiness", Method: "GET", Path: "/readyz", Summary: "Operations are taken"},
		openToAll, append([]kind{notReady}, open...), s.ready)
	s.lbRoutes(routes, problem, open)
	add(s, routes, problem, huma.Operation{OperationID: "getStatus", Method: "GET", Path: "/v1/status",
		Summary:     "Member, role, lock, poolers, versions, conditions, last handover",
		Description: "May be a second old; observedAt tells."}, toRead, read, s.getStatus)
	add(s, routes, problem, huma.Operation{OperationID: "getCheck", Method: "GET", Path: api.CheckPath,
		Summary:     "What pgbaton check finds on this member",
		Description: "Takes 4 s at most. May be some seconds old."}, toRead, read, s.getCheck)
	add(s, routes, problem, huma.Operation{OperationID: "getRoute", Method: "GET", Path: api.RoutePath,
		Summary: "Where the poolers beside this server lead, seen from here"},
		toRead, append([]kind{poolerFailed, invalidRequest}, read...), s.getRoute)
	add(s, routes, problem, huma.Operation{OperationID: "pausePoolers", Method: "POST", Path: "/v1/pgbouncer/pause", DefaultStatus: 202,
		Summary: "Pause the poolers, for as long as the lease"},
		toOperate, body, func(ctx context.Context, in *pauseInput) (*operationOutput, error) {
			o, request, err := s.pauseRequest(in.Body)
			if err != nil {
				return nil, err
			}
			accepted, err := s.operations.Pause(demand(ctx, in.IdempotencyKey, request), o)
			return s.accepted(accepted, err)
		})
	add(
		s,
		routes,
		problem,
		huma.Operation{
			OperationID:   "resumePoolers",
			Method:        "POST",
			Path:          "/v1/pgbouncer/resume",
			DefaultStatus: 200,
			Summary:       "Resume the poolers, whoever paused them",
			Description: "Never refused for another operation: a pause that is under way is ended first. Answers when it is done; " +
				"with 202 if that takes longer than 30 s. A body is not looked at.",
		},
		toOperate,
		append([]kind{poolerFailed, invalidConfiguration, interrupted, unknownOutcome}, without(post, stateNotKept)...),
		s.postResume,
	)
	for _, x := range []struct{ id, kind, target, summary string }{
		{"reloadPostgres", api.KindReloadPostgres, api.TargetPostgres, "Reload PostgreSQL's configuration, and verify that it was applied"},
		{"reloadPoolers", api.KindReloadPgBouncer, api.TargetPgBouncer,
			"Reload the poolers' configuration, and verify that it was applied"},
	} {
		add(
			s,
			routes,
			problem,
			huma.Operation{OperationID: x.id, Method: "POST", Path: "/v1/" + x.kind, DefaultStatus: 202, Summary: x.summary},
			toOperate,
			body,
			func(ctx context.Context, in *reloadInput) (*operationOutput, error) {
				if in.Body == nil {
					in.Body = &api.ReloadBody{}
				}
				o, request, err := reloadRequest(x.target, *in.Body)
				if err != nil {
					return nil, err
				}
				accepted, err := s.operations.Reload(demand(ctx, in.IdempotencyKey, request), o)
				return s.accepted(accepted, err)
			},
		)
	}
	s.registerCluster(routes, problem, post, body)
	add(s, routes, problem, huma.Operation{OperationID: "listOperations", Method: "GET", Path: "/v1/operations",
		Summary: "Operations, newest first"}, toRead, read,
		func(context.Context, *struct{}) (*listOutput, error) {
			kept := s.operations.List()
			list := make([]api.Operation, 0, len(kept))
			for _, o := range kept {
				list = append(list, wire(o))
			}
			return &listOutput{Body: api.OperationList{Operations: list}}, nil
		})
	add(
		s,
		routes,
		problem,
		huma.Operation{OperationID: "getOperation", Method: "GET", Path: "/v1/operations/{id}", Summary: "One operation"},
		toRead,
		append([]kind{operationNotFound}, read...),
		func(_ context.Context, in *operationInput) (*struct{ Body api.Operation }, error) {
			o, _, ok := s.operations.Get(in.ID)
			if !ok {
				return nil, s.noOperation()
			}
			return &struct{ Body api.Operation }{wire(o)}, nil
		},
	)
	stream := huma.Operation{OperationID: "watchOperation", Method: "GET", Path: "/v1/operations/{id}/events",
		Summary:     "Steps of an operation as server-sent events",
		Description: "Each event is a step, with its id; the stream ends when the operation has. Last-Event-ID goes on behind that one.",
		Responses: map[string]*huma.Response{
			"200": {Description: "Events named step, data: a Step",
				Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: "string"}}}},
			"204": {Description: "The operation has ended, and nothing follows Last-Event-ID"},
		}}
	add(s, routes, problem, stream, toRead, append([]kind{operationNotFound, invalidRequest}, read...), s.events)

	// What huma has put there for its own errors, which never get out.
	delete(document.Components.Schemas.Map(), "ErrorModel")
	delete(document.Components.Schemas.Map(), "ErrorDetail")

	resumed := document.Paths["/v1/pgbouncer/resume"].Post.Responses
	resumed["202"] = &huma.Response{Description: "Accepted: not done within 30 s, and goes on", Headers: resumed["200"].Headers,
		Content: resumed["200"].Content}
	relaxAnswers(document)

	s.plain(document, problem, "getMetrics", "/metrics", "Metrics for Prometheus", []string{"text/plain", "application/openmetrics-text"},
		open, http.HandlerFunc(s.scrape))
	serve := func(contentType string, text *[]byte) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			_, _ = w.Write(*text) // who asked may have gone
		})
	}
	var asJSON, asYAML []byte
	s.plain(document, problem, "getDocument", "/openapi.json", "This document", []string{jsonType, "application/openapi+json"}, open,
		serve(jsonType, &asJSON))
	s.plain(
		document,
		problem,
		"getDocumentYAML",
		"/openapi.yaml",
		"This document",
		[]string{"application/yaml", "application/openapi+yaml"},
		open,
		serve("application/yaml", &asYAML),
	)
	var err error
	if asJSON, err = document.MarshalJSON(); err != nil {
		return err
	}
	asYAML, err = document.YAML()
	return err
}

// relaxAnswers says of everything that is not the body of a request what huma does not: a list is never null, and a member that a client
// does not know may be added by a later version.
func relaxAnswers(document *huma.OpenAPI) {
	requests := map[*huma.Schema]bool{}
	for _, item := range document.Paths {
		if item.Post == nil || item.Post.RequestBody == nil {
			continue
		}
		for _, media := range item.Post.RequestBody.Content {
			requests[document.Components.Schemas.SchemaFromRef(media.Schema.Ref)] = true
		}
	}
	var relax func(*huma.Schema)
	relax = func(schema *huma.Schema) {
		if schema == nil {
			return
		}
		if schema.Type == huma.TypeArray {
			schema.Nullable = false
		}
		if schema.AdditionalProperties == false {
			schema.AdditionalProperties = nil
		}
		for _, property := range schema.Properties {
			relax(property)
		}
		relax(schema.Items)
	}
	for _, schema := range document.Components.Schemas.Map() {
		if !requests[schema] {
			relax(schema)
		}
	}
}

func without(kinds []kind, k kind) []kind {
	return slices.DeleteFunc(slices.Clone(kinds), func(x kind) bool { return x == k })
}

// responses declares what problems a route has.
func responses(into map[string]*huma.Response, problem *huma.Schema, kinds []kind) {
	for _, k := range kinds {
		status := strconv.Itoa(k.status)
		if into[status] == nil {
			into[status] = &huma.Response{Content: map[string]*huma.MediaType{api.ProblemType: {Schema: problem}}}
		} else {
			into[status].Description += "; "
		}
		into[status].Description += k.name
	}
}

var security = []map[string][]string{{"token": {}}, {"certificate": {}}}

// add registers a route with everything that is the same for all.
func add[I, O any](s *Server, routes huma.API, problem *huma.Schema, op huma.Operation, a access, problems []kind,
	handler func(context.Context, *I) (*O, error)) {
	produces := []string{jsonType}
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	} else {
		produces = []string{"text/event-stream"}
	}
	responses(op.Responses, problem, problems)
	if a != openToAll {
		op.Security = security
	}
	op.MaxBodyBytes = maxBody + 2 // the body has been read, and is shorter
	op.BodyReadTimeout = -1
	s.routes = append(s.routes, route{pattern: op.Method + " " + op.Path, access: a, produces: produces})
	huma.Register(routes, op, handler)
}

// plain registers a handler that is not huma's.
func (s *Server) plain(document *huma.OpenAPI, problem *huma.Schema, id, path, summary string, produces []string, problems []kind,
	handler http.Handler) {
	content := map[string]*huma.MediaType{}
	for _, p := range produces {
		content[p] = &huma.MediaType{}
	}
	op := &huma.Operation{OperationID: id, Method: "GET", Path: path, Summary: summary,
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: content}}}
	responses(op.Responses, problem, problems)
	document.AddOperation(op)
	s.routes = append(s.routes, route{pattern: "GET " + path, produces: produces})
	s.mux.Handle("GET "+path, handler)
}

func (s *Server) ready(context.Context, *struct{}) (*healthOutput, error) {
	if s.operations.Ending() {
		return nil, notReady.problem("the server is ending").retryAfter(5 * time.Second)
	}
	if s.guard.wrong() != "" { // the log says what
		return nil, notReady.problem("a file with tokens, certificates or keys cannot be used as it is; the log has more").
			retryAfter(5 * time.Second)
	}
	out := &healthOutput{}
	out.Body.Status = "ok"
	return out, nil
}

func (s *Server) getStatus(context.Context, *struct{}) (*statusOutput, error) {
	// Not until the client's end, which may be of its half of the connection only; the status takes 3 s at most.
	status, at, err := s.status.get(s.background, statusAge)
	switch {
	case errors.Is(err, errFault):
		return nil, internalError.problem("the log has more")
	case err != nil:
		return nil, noMore("status")
	}
	// Declared as lists that are never null; those that may be left out are.
	if status.Poolers == nil {
		status.Poolers = []api.PoolerStatus{}
	}
	if status.Conditions == nil {
		status.Conditions = []api.Condition{}
	}
	return &statusOutput{Age: int(math.Max(0, time.Since(at).Seconds())), Body: api.StatusAnswer{Status: status.Status,
		ObservedAt: at.UTC()}}, nil
}
