package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/configversion"
	"github.com/pgbaton/pgbaton/hooks"
)

// contract drives one server until every declared answer of every route was given.
type contract struct {
	*api
	open     *api // a server without authentication
	ended    Operation
	slow     atomic.Bool
	entered  chan struct{} // a slow call has begun
	slowness chan struct{} // and may end
}

// fullStatus has every member that a status can have.
func fullStatus() hooks.Status {
	now, v := time.Now(), configversion.Version(42)
	return hooks.Status{Member: "m1", Scope: "demo", Server: hooks.ServerStatus{Role: "primary", Version: 170000, Started: now.Format(time.RFC3339)},
		Patroni:  hooks.PatroniStatus{HasLock: true, State: "running", Role: "primary", Version: "4.0.7", DCSLastSeen: now, TTLSeconds: 30, LoopWaitSeconds: 10},
		Poolers:  []hooks.PoolerStatus{{Pooler: "p:6432", Version: "1.24.1", Paused: "yes", PausedBy: "hand", Databases: []string{"a"}, Waiting: 1, MaxWaitSeconds: .5, Servers: 2}},
		Leases:   []hooks.LeaseStatus{{Owner: "hand", Since: now, Until: now.Add(time.Minute)}},
		Versions: []hooks.VersionReport{{Target: "pgbouncer", Source: "file", Seen: &v, OnDisk: &v, Applied: &v}, {Target: "postgres", Error: "not there"}},
		Handover: []hooks.HandoverEvent{{Time: now, Hook: "before_stop", Event: "released", TookSeconds: .1, Text: "done"}},
		Problems: []string{"one"}, Conditions: []hooks.Condition{{Type: "Ready", Status: "True", Reason: "AllAnswer", LastTransitionTime: now, ObservedVersion: "42"}}}
}

// provoke sends what must be answered with that status.
func (c *contract) provoke(op *huma.Operation, status int) answer {
	path := strings.ReplaceAll(op.Path, "{id}", c.ended.ID)
	body := ""
	if op.Method == "POST" {
		body = "{}"
	}
	switch status {
	case 204:
		return c.do(op.Method, path, "", "Last-Event-ID: 100000")
	case 202:
		if op.OperationID == "resumePoolers" {
			c.server.resumeWait = time.Millisecond
			defer func() { c.server.resumeWait = 10 * time.Second }()
			c.slow.Store(true)
			got := c.do(op.Method, path, body)
			<-c.entered
			c.slow.Store(false)
			c.slowness <- struct{}{}
			c.until(got.operation(c.t).ID, stateSucceeded)
			return got
		}
	case 400:
		if op.OperationID == "resumePoolers" {
			response, text := raw(c.t, c.server.Addr().String(), "POST "+path+" HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "+operateToken+"\r\nContent-Length: 9\r\n\r\n{")
			return answer{response.StatusCode, response.Header, []byte(text)}
		}
		return c.do(op.Method, path, "{")
	case 401:
		return c.do(op.Method, path, body, "Authorization: Bearer nobody-knows-this")
	case 403:
		return c.do(op.Method, path, body, "Authorization: Bearer "+readToken)
	case 404:
		return c.do(op.Method, strings.ReplaceAll(op.Path, "{id}", "0000000000000000"), "")
	case 406:
		return c.do(op.Method, path, body, "Accept: image/png")
	case 408:
		return c.dawdle(op.Method + " " + path)
	case 409:
		if op.OperationID == "resumePoolers" {
			s := c.server.store
			s.mu.Lock()
			s.keys = append(s.keys, keyed{Caller: "operator", Key: sum("forgotten"), Request: sum(kindResume, ""), Operation: "0000000000000000", Time: time.Now()})
			s.mu.Unlock()
			return c.do(op.Method, path, body, "Idempotency-Key: forgotten")
		}
		c.slow.Store(true)
		held := c.do("POST", "/v1/pgbouncer/pause", "").operation(c.t)
		<-c.entered
		c.slow.Store(false)
		got := c.do(op.Method, path, body)
		c.slowness <- struct{}{}
		c.until(held.ID, stateSucceeded)
		return got
	case 413:
		return c.do(op.Method, path, strings.Repeat(" ", maxBody+1))
	case 415:
		return c.do(op.Method, path, body, "Content-Type: text/plain")
	case 421:
		return c.open.do(op.Method, path, body, "Host: example.com")
	case 422:
		if op.Method == "GET" {
			return c.do(op.Method, path, "", "Last-Event-ID: -1")
		}
		return c.do(op.Method, path, body, "Idempotency-Key: "+strings.Repeat("x", 256))
	case 500:
		mux := c.server.mux
		defer func() { c.server.mux = mux }()
		c.server.mux = http.NewServeMux()
		c.server.mux.HandleFunc(op.Method+" "+op.Path, func(http.ResponseWriter, *http.Request) { panic("a fault") })
		return c.do(op.Method, path, body)
	case 503:
		for range maxRequests {
			c.server.slots <- struct{}{}
		}
		defer func() {
			for range maxRequests {
				<-c.server.slots
			}
		}()
		return c.do(op.Method, path, body)
	}
	return c.do(op.Method, path, body)
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
	if _, err := fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: 9\r\n\r\n{", request, operateToken); err != nil {
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

// TestContract walks the document: every route, every declared status, and every answer against its schema.
func TestContract(t *testing.T) {
	c := &contract{entered: make(chan struct{}), slowness: make(chan struct{})}
	f := &fake{status: fullStatus,
		pause: func(context.Context, hooks.PauseOptions) hooks.Report {
			c.linger()
			return hooks.Report{Result: hooks.Result{Decision: "paused"}, Until: time.Now(), Poolers: []hooks.PoolerReport{{Pooler: "p:6432", Done: "paused"}}}
		},
		resume: func(context.Context) hooks.Report {
			c.linger()
			return hooks.Report{Result: hooks.Result{Decision: "resumed"}}
		},
		reload: func(_ context.Context, o hooks.ReloadOptions) hooks.ReloadReport {
			v := configversion.Version(42)
			o.Progress(hooks.Step{Time: time.Now(), Target: o.Target, Pooler: "p:6432", Text: "RELOAD"})
			return hooks.ReloadReport{Result: hooks.Result{Code: hooks.Failed, Decision: "version 43 did not arrive"}, Problem: hooks.ProblemVersionTimeout,
				Poolers:  []hooks.PoolerReload{{Pooler: "p:6432", Done: "failed", Error: "x", NotApplied: []hooks.SettingDifference{{Key: "a", Want: "1", Running: "2"}}}},
				Versions: []hooks.VersionReport{{Target: o.Target, Source: "file", Seen: &v}}}
		}}
	c.api = start(t, f, nil)
	c.open = start(t, &fake{}, func(_ *config.Config, o *Options) { o.Runtime.Config.Serve.TokensFile = "" })
	failed := c.until(c.do("POST", "/v1/postgres/reload", `{"configVersion":"43"}`).operation(t).ID, stateFailed)
	if p := failed.Problem; p.ObservedVersion != "42" || p.Type != problemBase+"config-version-timeout" || p.Pooler != "p:6432" {
		t.Errorf("%+v", p)
	}
	c.ended = c.until(c.do("POST", "/v1/pgbouncer/pause", "").operation(t).ID, stateSucceeded)

	document := c.server.document
	// What is declared lets a later version add members; this one must have declared all of its own.
	for name, schema := range document.Components.Schemas.Map() {
		if name == "PauseBody" || name == "ReloadBody" {
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
				got := c.provoke(op, code)
				answers++
				if got.status != code {
					t.Errorf("%s %s: %d instead of %d: %s", op.Method, path, got.status, code, got.body)
					continue
				}
				c.check(op, response, got)
				if op.OperationID == "pausePoolers" || op.OperationID == "reloadPostgres" || op.OperationID == "reloadPoolers" {
					eventually(t, "nothing runs", func() bool {
						c.server.store.mu.Lock()
						defer c.server.store.mu.Unlock()
						return c.server.store.running() == nil
					})
				}
			}
		}
	}
	if answers < 100 {
		t.Errorf("only %d answers were checked", answers)
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
	if yaml := c.do("GET", "/openapi.yaml", ""); !strings.HasPrefix(string(yaml.body), "components:") && !strings.Contains(string(yaml.body), "openapi: 3.1.0") {
		t.Errorf("%.200s", yaml.body)
	}
}

// TestResumeIsDeclared: it is the one operation that answers with 200 or 202.
func TestResumeIsDeclared(t *testing.T) {
	a := start(t, &fake{}, nil)
	for _, status := range []string{"200", "202"} {
		if r := a.server.document.Paths["/v1/pgbouncer/resume"].Post.Responses[status]; r == nil || r.Headers["Location"] == nil || r.Content[jsonType] == nil {
			t.Errorf("%s: %+v", status, r)
		}
	}
}

// TestListsAreNotNull, also where nothing is in them.
func TestListsAreNotNull(t *testing.T) {
	a := start(t, &fake{status: func() hooks.Status { return hooks.Status{} }}, nil)
	o := a.do("POST", "/v1/pgbouncer/pause", "").operation(t)
	a.until(o.ID, stateSucceeded)
	for _, path := range []string{"/v1/status", "/v1/operations", o.path()} {
		if got := a.expect(a.do("GET", path, ""), 200, ""); strings.Contains(string(got.body), "null") {
			t.Errorf("%s: %s", path, got.body)
		}
	}
}

// check validates an answer against its schema.
func (c *contract) check(op *huma.Operation, response *huma.Response, got answer) {
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
		p := got.problem(c.t)
		names := strings.Split(response.Description, "; ")
		if name := strings.TrimPrefix(p.Type, problemBase); !slices.Contains(names, name) {
			c.t.Errorf("%s: %s is none of %v", at, name, names)
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
	huma.Validate(c.server.document.Components.Schemas, media.Schema, huma.NewPathBuffer([]byte{}, 0), huma.ModeReadFromServer, value, result)
	for _, err := range result.Errors {
		c.t.Errorf("%s: %v\n%s", at, err, got.body)
	}
}
