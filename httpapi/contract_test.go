package httpapi

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/follow"
	"github.com/pgbaton/pgbaton/health"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/reload"

	"github.com/danielgtaylor/huma/v2"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/configversion"
	"github.com/pgbaton/pgbaton/operation"
)

// contract drives one server until every declared answer of every route was given.
type contract struct {
	*service
	open     *service // a server without authentication
	leaving  *service // a server that is ending, and waits for a pause that runs
	ended    api.Operation
	code     atomic.Int32 // of a resume
	slow     atomic.Bool
	entered  chan struct{} // a slow call has begun
	slowness chan struct{} // and may end
}

// fullStatus has every member that a status can have.
func fullStatus() health.Status {
	now, v := time.Now(), configversion.Version(42)
	return health.Status{Status: api.Status{Member: "m1", Scope: "demo", Server: api.ServerStatus{Role: "primary", Version: 170000,
		Started: now.Format(time.RFC3339)}, Patroni: api.PatroniStatus{
		HasLock:         true,
		State:           "running",
		Role:            "primary",
		Version:         "4.0.7",
		DCSLastSeen:     now,
		TTLSeconds:      30,
		LoopWaitSeconds: 10,
	}, Poolers: []api.PoolerStatus{{Pooler: "p:6432", Version: "1.24.1", Paused: "yes",
		PausedBy: "hand", Databases: []string{"a"}, Waiting: 1, MaxWaitSeconds: .5, Servers: 2}}, Leases: []api.LeaseStatus{{Owner: "hand",
		Since: now, Until: now.Add(time.Minute)}}, Versions: []api.VersionReport{{Target: "pgbouncer", Source: "file", Seen: &v, OnDisk: &v,
		Applied: &v}, {Target: "postgres", Error: "not there"}}, Handover: []api.HandoverEvent{{Time: now, Hook: "before_stop",
		Event: "released", TookSeconds: .1, Text: "done"}}, Problems: []string{"one"}, Conditions: []api.Condition{{Type: "Ready",
		Status: "True", Reason: "AllAnswer", LastTransitionTime: now, ObservedVersion: "42"}}}}
}

// request is what is sent to have a route do what it is for.
func (c *contract) request(op *huma.Operation) (path, body string) {
	if op.Method == "POST" {
		body = "{}"
	}
	if op.OperationID == "restartMembers" {
		body = `{"rolling":true}` // nothing says otherwise what to restart
	}
	return strings.ReplaceAll(op.Path, "{id}", c.ended.ID), body
}

// succeed sends what must be answered with that status, which is no error.
func (c *contract) succeed(op *huma.Operation, status int) answer {
	path, body := c.request(op)
	defer c.routes(follow.RouteOpen, true)()
	switch {
	case status == 204:
		return c.do(op.Method, path, "", "Last-Event-ID: 100000")
	case status == 202 && op.OperationID == "resumePoolers":
		c.server.resumeWait = time.Millisecond
		defer func() { c.server.resumeWait = 10 * time.Second }()
		c.slow.Store(true)
		got := c.do(op.Method, path, body)
		<-c.entered
		c.slow.Store(false)
		c.slowness <- struct{}{}
		c.until(got.operation(c.t).ID, api.Succeeded)
		return got
	}
	return c.do(op.Method, path, body)
}

// routes has load balancers told this until the function that it returns is called.
func (c *contract) routes(primary follow.Route, replica bool) (restore func()) {
	before, reads, looks := c.server.primaryRoute, c.server.replicaRoute, c.server.lookAlong
	c.server.primaryRoute = func() follow.Route { return primary }
	c.server.replicaRoute = func(context.Context) bool { return replica }
	c.server.lookAlong = func(context.Context, string, int) (api.RouteReport, error) {
		return api.RouteReport{Addresses: []api.RouteAddress{{Address: "127.0.0.1:5432", Looks: []api.RouteLook{
			{SystemID: "1", PostmasterStart: time.Now(), InRecovery: true, UpMicroseconds: 1, LastXact: time.Now()},
			{Failed: api.RouteRefused, Error: "nobody listens"}}}}}, nil
	}
	return func() { c.server.primaryRoute, c.server.replicaRoute, c.server.lookAlong = before, reads, looks }
}

// provoke sends what must be answered with that problem.
func (c *contract) provoke(op *huma.Operation, problem string) answer {
	path, body := c.request(op)
	kind := strings.TrimPrefix(op.Path, "/v1/")
	switch problem {
	case malformedRequest.name:
		if op.OperationID == "pausePoolers" || op.OperationID == "switchOver" {
			return c.do(op.Method, path, "{")
		}
		response, text := raw(c.t, c.server.Addr().String(),
			op.Method+" "+path+" HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "+operateToken+"\r\nContent-Length: 9\r\n\r\n{")
		return answer{response.StatusCode, response.Header, []byte(text)}
	case unauthenticated.name:
		return c.do(op.Method, path, body, "Authorization: Bearer nobody-knows-this")
	case forbidden.name:
		return c.do(op.Method, path, body, "Authorization: Bearer "+readToken)
	case crossOrigin.name:
		return c.do(op.Method, path, body, "Origin: https://example.com")
	case operationNotFound.name:
		return c.do(op.Method, strings.ReplaceAll(op.Path, "{id}", "0000000000000000"), "")
	case notAcceptable.name:
		return c.do(op.Method, path, body, "Accept: image/png")
	case requestTimeout.name:
		return c.dawdle(op.Method + " " + path)
	case operationRunning.name:
		c.slow.Store(true)
		held := c.do("POST", "/v1/pgbouncer/pause", "").operation(c.t)
		<-c.entered
		c.slow.Store(false)
		got := c.do(op.Method, path, body)
		c.slowness <- struct{}{}
		c.until(held.ID, api.Succeeded)
		return got
	case operationForgotten.name:
		return c.do(op.Method, path, body, "Idempotency-Key: "+problem+kind)
	case keyReused.name:
		return c.do(op.Method, path, body, "Idempotency-Key: "+problem+kind)
	case invalidConfiguration.name, poolerFailed.name:
		if op.OperationID == "getRoute" {
			return c.do(op.Method, path, "") // there is no pooler
		}
		c.code.Store(member.Failed)
		if problem == invalidConfiguration.name {
			c.code.Store(member.Invalid)
		}
		defer c.code.Store(member.Done)
		return c.do(op.Method, path, body)
	case interrupted.name, unknownOutcome.name:
		return c.do(op.Method, path, body, "Idempotency-Key: "+problem+kind)
	case contentTooLarge.name:
		return c.do(op.Method, path, strings.Repeat(" ", maxBody+1))
	case unsupportedMedia.name:
		return c.do(op.Method, path, body, "Content-Type: text/plain")
	case misdirected.name:
		return c.open.do(op.Method, path, body, "Host: example.com")
	case invalidRequest.name:
		if op.OperationID == "getRoute" {
			return c.do(op.Method, path+"?looks=99", "")
		}
		if op.Method == "GET" {
			return c.do(op.Method, path, "", "Last-Event-ID: -1")
		}
		return c.do(op.Method, path, body, "Idempotency-Key: "+strings.Repeat("x", 256))
	case internalError.name:
		mux := c.server.mux
		defer func() { c.server.mux = mux }()
		c.server.mux = http.NewServeMux()
		c.server.mux.HandleFunc(op.Method+" "+op.Path, func(http.ResponseWriter, *http.Request) { panic("a fault") })
		return c.do(op.Method, path, body)
	case overloaded.name:
		for _, places := range []chan struct{}{c.server.slots, c.server.reserved} {
			for range cap(places) {
				places <- struct{}{}
			}
			defer func() {
				for range cap(places) {
					<-places
				}
			}()
		}
		return c.do(op.Method, path, body)
	case routeForwards.name, routeDown.name, notAReplica.name:
		says := map[string]follow.Route{routeForwards.name: follow.RouteForwarded, routeDown.name: follow.RouteDown}[problem]
		defer c.routes(says, false)()
		return c.do(op.Method, path, body)
	case shuttingDown.name, notReady.name:
		return c.leaving.do(op.Method, path, body)
	case stateNotKept.name:
		rename := func(from, to string) {
			if err := os.Rename(from, to); err != nil {
				c.t.Fatal(err)
			}
		}
		rename(c.config.StateDir, c.config.StateDir+"-gone")
		defer rename(c.config.StateDir+"-gone", c.config.StateDir)
		return c.do(op.Method, path, body)
	}
	c.t.Errorf("%s %s: this test does not know how to provoke %s", op.Method, op.Path, problem)
	return c.do(op.Method, path, body)
}

// usedKeys is what an earlier server has left: keys that were used, each named after the problem that it leads to and the kind that it is
// sent with.
func usedKeys() savedState {
	now := time.Now()
	sum := func(parts ...string) string {
		h := sha256.New()
		for _, p := range parts {
			fmt.Fprintf(h, "%d:%s", len(p), p)
		}
		return hex.EncodeToString(h.Sum(nil))
	}
	ended := func(id, state, name string) operation.Operation {
		return operation.Operation{ID: id, Kind: api.KindResume, State: state, Caller: "operator", Created: now, Started: now, Ended: now,
			Failure: &operation.Failure{Name: name, Class: api.Transient, Detail: "a server of before"}, Steps: []api.Step{}}
	}
	s := savedState{Operations: []operation.Operation{
		ended("0000000000000001", api.Failed, operation.Interrupted),
		ended("0000000000000002", api.Unknown, operation.UnknownOutcome),
	}}
	key := func(name, request, operation string) {
		s.Keys = append(s.Keys, savedKey{Caller: "operator", Key: sum(name), Request: request, Operation: operation, Time: now})
	}
	for kind, body := range map[string]string{api.KindPause: "{}", api.KindResume: "", api.KindReloadPostgres: "{}",
		api.KindReloadPgBouncer: "{}", api.KindCheck: "", api.KindSwitchover: "{}", api.KindRestart: `{"rolling":true}`} {
		key(operationForgotten.name+kind, sum(kind, body), "0000000000000000")
		key(keyReused.name+kind, sum(kind, "another body"), "0000000000000001")
	}
	key(interrupted.name+api.KindResume, sum(api.KindResume, ""), "0000000000000001")
	key(unknownOutcome.name+api.KindResume, sum(api.KindResume, ""), "0000000000000002")
	return s
}

// linger is what a slow call does.
func (c *contract) linger() {
	if c.slow.Load() {
		c.entered <- struct{}{}
		<-c.slowness
	}
}

// dawdle promises a body and does not send it.
func (c *contract) dawdle(request string) answer {
	c.t.Helper()
	before := c.server.bodyTimeout
	c.server.bodyTimeout = 20 * time.Millisecond
	defer func() { c.server.bodyTimeout = before }()
	conn, err := net.Dial("tcp", c.server.Addr().String())
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: 9\r\n\r\n{", request,
		operateToken); err != nil {
		c.t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, text}
}

// declaredByNone are the problems that no route declares, because a route is not where they come from.
func declaredByNone() []kind {
	return append([]kind{
		// Answered before there is a route.
		notFound, methodNotAllowed, expectationFailed, headerTooLarge, notImplemented, unsupportedVersion,
		// What has become of an operation: recorded with it, and not the answer to the request for it.
		notDrained, refused, maintenanceFailed, maintenanceTimeout, stopped,
	}, reloadKinds()...)
}

// TestContract walks the document: every route, every declared status, of an error every problem that is declared for it, and every answer
// against its schema. There is no declared problem that cannot be provoked.
func TestContract(t *testing.T) {
	c := &contract{entered: make(chan struct{}), slowness: make(chan struct{})}
	f := &fake{status: fullStatus,
		pause: func(context.Context, pause.Options) pause.Report {
			c.linger()
			return pause.Report{Result: member.Result{Decision: "paused"}, Until: time.Now(), Poolers: []api.PoolerReport{{Pooler: "p:6432",
				Done: "paused"}}}
		},
		resume: func(context.Context) pause.Report {
			c.linger()
			return pause.Report{Result: member.Result{Code: int(c.code.Load()), Decision: "resumed, or not"}}
		},
		reload: func(_ context.Context, o reload.Options) reload.Report {
			v := configversion.Version(42)
			o.Progress(reload.Progress{Time: time.Now(), Target: o.Target, Pooler: "p:6432", Text: "RELOAD"})
			return reload.Report{Result: member.Result{Code: member.Failed, Decision: "version 43 did not arrive"},
				ReloadReport: api.ReloadReport{
					Problem: api.ProblemVersionTimeout,
					Poolers: []api.PoolerReload{
						{Pooler: "p:6432", Done: "failed", Error: "x", NotApplied: []api.SettingDifference{{Key: "a", Want: "1",
							Running: "2"}}},
					},
					Versions: []api.VersionReport{{Target: o.Target, Source: "file", Seen: &v}},
				}}
		}}
	f.cluster = fullCluster
	c.service = start(t, f, func(serve *config.Config, _ *Options) { usedKeys().write(t, serve.StateDir) })
	c.open = start(t, &fake{}, func(_ *config.Config, o *Options) { o.Member.Config.Serve.TokensFile = "" })
	release := make(chan struct{})
	c.leaving = start(t, &fake{pause: held(release)}, func(serve *config.Config, _ *Options) { serve.Serve.Grace = time.Minute })
	c.leaving.until(c.leaving.do("POST", "/v1/pgbouncer/pause", "").operation(t).ID, api.Running)
	gone := make(chan error, 1)
	go func() { gone <- c.leaving.end() }()
	t.Cleanup(func() {
		close(release)
		<-gone
	})
	eventually(t, "a server is ending", func() bool { return c.leaving.do("GET", "/readyz", "").status == 503 })
	failed := c.until(c.do("POST", "/v1/postgres/reload", `{"configVersion":"43"}`).operation(t).ID, api.Failed)
	if p := failed.Problem; p.ObservedVersion != "42" || p.Type != api.ProblemBase+"config-version-timeout" || p.Pooler != "p:6432" {
		t.Errorf("%+v", p)
	}
	c.ended = c.until(c.do("POST", "/v1/pgbouncer/pause", "").operation(t).ID, api.Succeeded)

	document := c.server.document
	// What is declared lets a later version add members; this one must have declared all of its own.
	for name, schema := range document.Components.Schemas.Map() {
		if slices.Contains([]string{"PauseBody", "ReloadBody", "SwitchoverBody", "RestartBody"}, name) {
			if schema.AdditionalProperties != false {
				t.Errorf("%s: a request may have any member", name)
			}
			continue
		}
		if schema.AdditionalProperties != nil {
			t.Errorf("%s: additionalProperties: %v", name, schema.AdditionalProperties)
		}
		if len(schema.Properties) > 0 {
			schema.AdditionalProperties = false
		}
	}
	answers := 0
	declared := map[string]bool{}
	for path, item := range document.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post} {
			if op == nil {
				continue
			}
			for status, response := range op.Responses {
				code, err := strconv.Atoi(status)
				if err != nil {
					t.Errorf("%s: declares %s", path, status)
					continue
				}
				problems := []string{""}
				if code >= 400 {
					problems = strings.Split(response.Description, "; ")
				}
				for _, problem := range problems {
					var got answer
					if problem == "" {
						got = c.succeed(op, code)
					} else {
						got = c.provoke(op, problem)
						declared[problem] = true
					}
					answers++
					if got.status != code {
						t.Errorf("%s %s %s: %d instead of %d: %s", op.Method, path, problem, got.status, code, got.body)
						continue
					}
					c.check(op, response, got, problem)
					eventually(t, "nothing runs", func() bool {
						return !slices.ContainsFunc(c.server.operations.List(), func(o operation.Operation) bool {
							return o.State == api.Pending ||
								o.State == api.Running
						})
					})
				}
			}
		}
	}
	if answers < 140 {
		t.Errorf("only %d answers were checked", answers)
	}
	for _, k := range kinds() {
		if none := slices.Contains(declaredByNone(), k); declared[k.name] == none {
			t.Errorf("%s: declared by a route: %v, expected: %v", k.name, declared[k.name], !none)
		}
	}

	// What is served is this document, whole in itself.
	text := string(c.expect(c.do("GET", "/openapi.json", ""), 200, "").body)
	if strings.Contains(text, `["array","null"]`) {
		t.Error("a list may be null")
	}
	var served struct {
		OpenAPI    string
		Paths      map[string]map[string]any
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal([]byte(text), &served); err != nil || served.OpenAPI != "3.1.0" || len(served.Paths) != len(document.Paths) {
		t.Errorf("%v %s", err, served.OpenAPI)
	}
	for _, m := range regexp.MustCompile(`"\$ref":"([^"]*)"`).FindAllStringSubmatch(text, -1) {
		name, ok := strings.CutPrefix(m[1], "#/components/schemas/")
		if _, known := served.Components.Schemas[name]; !ok || !known {
			t.Errorf("a reference to %s", m[1])
		}
	}
	for _, url := range regexp.MustCompile(`https?://[^"]*`).FindAllString(text, -1) {
		t.Errorf("the document leads elsewhere: %s", url)
	}
	for _, x := range c.server.routes {
		method, path, _ := strings.Cut(x.pattern, " ")
		if served.Paths[path][strings.ToLower(method)] == nil {
			t.Errorf("%s is not in the document", x.pattern)
		}
	}
	if yaml := c.do(
		"GET",
		"/openapi.yaml",
		"",
	); !strings.HasPrefix(string(yaml.body), "components:") ||
		!strings.Contains(string(yaml.body),
			"openapi: 3.1.0") {
		t.Errorf("%.200s", yaml.body)
	}
}

// reloadProblemNames are the values of all constants api.Problem…, as they stand in the source: a new one must not be forgotten here.
func reloadProblemNames(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../api/reload.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		source, err := parser.ParseFile(gotoken.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(source, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || !strings.HasPrefix(spec.Names[0].Name, "Problem") || len(spec.Values) != 1 {
				return true
			}
			if literal, ok := spec.Values[0].(*ast.BasicLit); ok {
				name, err := strconv.Unquote(literal.Value)
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, name)
			}
			return true
		})
	}
	slices.Sort(names)
	return names
}

// TestReloadProblems: what each report of a reload becomes.
func TestReloadProblems(t *testing.T) {
	f := &fake{}
	a := start(t, f, nil)
	v := configversion.Version(42)
	one := []api.PoolerReload{{Pooler: "p:6432", Done: api.ReloadDone}, {Pooler: "q:6432", Done: api.ReloadFailed, Error: "refused"}}
	two := []api.PoolerReload{{Pooler: "p:6432", Done: api.ReloadFailed, Error: "refused"}, {Pooler: "q:6432", Done: api.ReloadFailed,
		Error: "refused"}}
	seen := []api.VersionReport{{Target: "pgbouncer", Source: "file", Error: "not there"}, {Target: "postgres", Source: "file", Seen: &v}}
	var named []string
	for _, test := range []struct {
		problem  string
		code     int
		poolers  []api.PoolerReload
		versions []api.VersionReport
		want     api.Problem
	}{
		{api.ProblemVersionTimeout, member.Failed, nil, seen, api.Problem{Type: "config-version-timeout", Status: 504, Class: api.Transient,
			ObservedVersion: "42"}},
		{api.ProblemVersionInvalid, member.Failed, nil, nil, api.Problem{Type: "config-version-invalid", Status: 409,
			Class: api.Validation}},
		{api.ProblemHandover, member.Failed, one, seen, api.Problem{Type: "handover-in-progress", Status: 409, Class: api.Transient,
			Pooler: "q:6432", ObservedVersion: "42"}},
		{api.ProblemNotApplied, member.Failed, one, seen, api.Problem{Type: "not-applied", Status: 409, Class: api.Validation,
			Pooler:          "q:6432",
			ObservedVersion: "42"}},
		{api.ProblemNotVerified, member.Failed, one, nil, api.Problem{Type: "not-verified", Status: 503, Class: api.Transient,
			Pooler: "q:6432"}},
		{api.ProblemUnreachable, member.Failed, two, seen, api.Problem{Type: "unreachable", Status: 503, Class: api.Transient,
			ObservedVersion: "42"}},
		{api.ProblemInvalidFile, member.Failed, one, nil, api.Problem{Type: "invalid-configuration-file", Status: 409,
			Class:  api.Validation,
			Pooler: "q:6432"}},
		// The name tells more than the code.
		{api.ProblemInvalidFile, member.Invalid, nil, nil, api.Problem{Type: "invalid-configuration-file", Status: 409,
			Class: api.Validation}},
		{"", member.Invalid, nil, nil, api.Problem{Type: "invalid-configuration", Status: 409, Class: api.Validation}},
		{"", member.Refused, one, seen, api.Problem{Type: "refused", Status: 409, Class: api.Permanent, Pooler: "q:6432",
			ObservedVersion: "42"}},
		{"", member.Failed, two, nil, api.Problem{Type: "reload-failed", Status: 503, Class: api.Transient}},
		{"of-a-later-version", member.Failed, one, seen, api.Problem{Type: "reload-failed", Status: 503, Class: api.Transient,
			Pooler:          "q:6432",
			ObservedVersion: "42"}},
	} {
		f.reload = func(context.Context, reload.Options) reload.Report {
			return reload.Report{Result: member.Result{Code: test.code, Class: test.want.Class, Decision: "why"},
				ReloadReport: api.ReloadReport{Problem: test.problem, Poolers: test.poolers, Versions: test.versions}}
		}
		o := a.until(a.do("POST", "/v1/pgbouncer/reload", "").operation(t).ID, api.Failed)
		got, want := *o.Problem, test.want
		want.Type, want.Detail, want.Operation = api.ProblemBase+want.Type, "why", o.Path()
		if got.Title == "" {
			t.Errorf("%s: no title", got.Type)
		}
		got.Title = ""
		if !reflect.DeepEqual(got, want) || o.Result.Code != test.code {
			t.Errorf("%q with code %d:\n%+v, want\n%+v", test.problem, test.code, got, want)
		}
		named = append(named, test.problem)
	}
	slices.Sort(named)
	named = slices.DeleteFunc(slices.Compact(named), func(name string) bool { return name == "" || name == "of-a-later-version" })
	if all := reloadProblemNames(t); !slices.Equal(named, all) {
		t.Errorf("api has %v, this table %v", all, named)
	}
}

// TestResumeIsDeclared: it is the one operation that answers with 200 or 202.
func TestResumeIsDeclared(t *testing.T) {
	a := start(t, &fake{}, nil)
	for _, status := range []string{"200", "202"} {
		if r := a.server.document.Paths["/v1/pgbouncer/resume"].Post.Responses[status]; r == nil || r.Headers["Location"] == nil ||
			r.Content[jsonType] == nil {
			t.Errorf("%s: %+v", status, r)
		}
	}
}

// TestListsAreNotNull, also where nothing is in them.
func TestListsAreNotNull(t *testing.T) {
	a := start(t, &fake{status: func() health.Status { return health.Status{} }}, nil)
	o := a.do("POST", "/v1/pgbouncer/pause", "").operation(t)
	a.until(o.ID, api.Succeeded)
	for _, path := range []string{"/v1/status", "/v1/operations", o.Path()} {
		if got := a.expect(a.do("GET", path, ""), 200, ""); strings.Contains(string(got.body), "null") {
			t.Errorf("%s: %s", path, got.body)
		}
	}
}

// check validates an answer against its schema; of an error also that it is this problem.
func (c *contract) check(op *huma.Operation, response *huma.Response, got answer, problem string) {
	c.t.Helper()
	at := fmt.Sprintf("%s %s %d", op.Method, op.Path, got.status)
	contentType, _, _ := strings.Cut(got.header.Get("Content-Type"), ";")
	if len(response.Content) == 0 {
		if len(got.body) > 0 {
			c.t.Errorf("%s: a body: %s", at, got.body)
		}
		return
	}
	media := response.Content[contentType]
	if media == nil {
		c.t.Errorf("%s: the type %q is not declared", at, contentType)
		return
	}
	if got.status >= 400 {
		if name := strings.TrimPrefix(got.problem(c.t).Type, api.ProblemBase); name != problem {
			c.t.Errorf("%s: %s instead of %s", at, name, problem)
		}
	}
	if got.header.Get("Location") != "" && got.status < 400 && response.Headers["Location"] == nil {
		c.t.Errorf("%s: Location is not declared", at)
	}
	if got.status == 202 && !strings.HasPrefix(got.header.Get("Location"), "/v1/operations/") {
		c.t.Errorf("%s: Location %q", at, got.header.Get("Location"))
	}
	if media.Schema == nil || !strings.HasSuffix(contentType, "json") {
		return
	}
	var value any
	if err := json.Unmarshal(got.body, &value); err != nil {
		c.t.Errorf("%s: %v", at, err)
		return
	}
	result := &huma.ValidateResult{}
	huma.Validate(
		c.server.document.Components.Schemas,
		media.Schema,
		huma.NewPathBuffer([]byte{}, 0),
		huma.ModeReadFromServer,
		value,
		result,
	)
	for _, err := range result.Errors {
		c.t.Errorf("%s: %v\n%s", at, err, got.body)
	}
}
