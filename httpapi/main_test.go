package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/health"
	"github.com/pgbaton/pgbaton/maintenance"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/reload"

	"go.uber.org/goleak"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/operation"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"))
}

// Secrets of the tests. No output may have one: see output.
const (
	readToken    = "read-secret-0123456789"
	operateToken = "operate-secret-0123456789"
	gonePassword = "pooler-secret-0123456789"
)

// output is everything that a server under test has said, in its log and in its answers.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// noSecrets looks for what must not be there.
func noSecrets(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{readToken, operateToken, gonePassword} {
		if strings.Contains(text, secret) {
			t.Errorf("a secret is in the output: %q", secret)
		}
	}
}

// fake is package hooks for tests that need something that cannot be provoked, or a fleet that costs nothing.
type fake struct {
	mu     sync.Mutex
	pause  func(context.Context, pause.Options) pause.Report
	resume func(context.Context) pause.Report
	reload func(context.Context, reload.Options) reload.Report
	status func() health.Status
	asked  int           // for the status
	checks atomic.Int32  // that were made
	check  func()        // before one is
	limit  func(*Server) // before it serves

	// cluster is a run of planned maintenance.
	cluster func(context.Context, maintenance.Request, func(api.ClusterEvent)) api.ClusterReport
	spoiled *api.ClusterReport
}

func (f *fake) checked(context.Context, *member.Member) api.CheckReport {
	if f.check != nil {
		f.check()
	}
	f.checks.Add(1)
	return api.CheckReport{Member: "m1", Scope: "demo", Findings: []api.Finding{{ID: "no-poolers", Severity: api.SeverityError,
		Subject: "poolers", Found: "x", Why: "y", Change: "z", SeenFrom: []string{"m1"}}}, Members: []api.MemberCheck{{Member: "m1",
		Error: "x"}}}
}

func (f *fake) calls() operation.Calls {
	return operation.Calls{
		Pause: func(ctx context.Context, _ *member.Member, o pause.Options) pause.Report {
			if f.pause == nil {
				return pause.Report{Result: member.Result{Decision: "1 pooler(s) paused and drained"}, Until: time.Now().Add(o.Lease),
					Poolers: []api.PoolerReport{{Pooler: "p:6432", Done: "paused"}}}
			}
			return f.pause(ctx, o)
		},
		Resume: func(ctx context.Context, _ *member.Member) pause.Report {
			if f.resume == nil {
				return pause.Report{
					Result: member.Result{Decision: "1 pooler(s) are not paused"},
					Poolers: []api.PoolerReport{{Pooler: "p:6432",
						Done: "resumed"}},
				}
			}
			return f.resume(ctx)
		},
		Reload: func(ctx context.Context, _ *member.Member, o reload.Options) reload.Report {
			if f.reload == nil {
				return reload.Report{Result: member.Result{Decision: "reloaded and verified"}}
			}
			return f.reload(ctx, o)
		},
		Check: func(context.Context, *member.Member) api.CheckReport {
			return api.CheckReport{Member: "m1", Findings: []api.Finding{{ID: "no-poolers", Severity: api.SeverityError, Subject: "m1",
				Found: "none", Why: "nothing is paused", Change: "set poolers"}}}
		},
		Spoiled: func(context.Context, *member.Member, maintenance.Request) *api.ClusterReport { return f.spoiled },
		Maintain: func(ctx context.Context, _ *member.Member, q maintenance.Request, tell func(api.ClusterEvent)) api.ClusterReport {
			if f.cluster == nil {
				return api.ClusterReport{Run: q.ID, Kind: q.Kind, State: api.StepDone, Decision: "done", Steps: []api.StepReport{}}
			}
			return f.cluster(ctx, q, tell)
		},
		Status: func(context.Context, *member.Member) health.Status {
			f.mu.Lock()
			f.asked++
			f.mu.Unlock()
			if f.status == nil {
				return health.Status{Status: api.Status{Member: "m1", Poolers: []api.PoolerStatus{{Pooler: "p:6432", Paused: "no"}}}}
			}
			return f.status()
		},
	}
}

func (f *fake) times() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// service is a server under test and a client of it.
type service struct {
	t      *testing.T
	url    string
	server *Server
	config *config.Config
	out    *output
	client *http.Client
	token  string
	end    func() error // SIGTERM, and what Serve returned
}

// start makes a server with a token file and, unless change says otherwise, fakes.
func start(t *testing.T, f *fake, change func(*config.Config, *Options)) *service {
	t.Helper()
	dir := t.TempDir()
	c := &config.Config{StateDir: filepath.Join(dir, "state"), Pause: config.Pause{Budget: 15 * time.Second, Attempt: 2 * time.Second,
		OnTimeout: config.OnTimeoutHold, Lease: 30 * time.Second, ShutdownBudget: 5 * time.Second}}
	c.Serve = config.Serve{Listen: "127.0.0.1:0", TokensFile: filepath.Join(dir, "tokens"), ClientScope: config.ScopeOperate,
		Grace: 500 * time.Millisecond}
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeText(t, c.Serve.TokensFile, "viewer read "+readToken+"\noperator operate "+operateToken+"\n")
	return startWith(t, c, f, change)
}

func startWith(t *testing.T, c *config.Config, f *fake, change func(*config.Config, *Options)) *service {
	t.Helper()
	out := &output{}
	log := slog.New(slog.NewTextHandler(io.MultiWriter(out, t.Output()), &slog.HandlerOptions{Level: slog.LevelDebug}))
	o := Options{Member: &member.Member{Config: c, Log: log}, Version: "test"}
	if f != nil {
		o.Calls = f.calls()
		o.Check = f.checked
	}
	if change != nil {
		change(c, &o)
	}
	server, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if f != nil && f.limit != nil {
		f.limit(server)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	transport := &http.Transport{MaxIdleConnsPerHost: 300}
	a := &service{t: t, url: "http://" + server.Addr().String(), server: server, config: c, out: out, token: operateToken,
		client: &http.Client{Transport: transport, Timeout: 30 * time.Second, CheckRedirect: func(*http.Request,
			[]*http.Request) error {
			return http.ErrUseLastResponse
		}}}
	var once sync.Once
	var result error
	a.end = func() error {
		once.Do(func() {
			cancel()
			result = <-served
			transport.CloseIdleConnections()
		})
		return result
	}
	t.Cleanup(func() {
		if err := a.end(); err != nil {
			t.Errorf("Serve: %v", err)
		}
		noSecrets(t, out.String())
	})
	return a
}

func writeText(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// answer is a response, read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) problem(t testing.TB) api.Problem {
	t.Helper()
	var p api.Problem
	if got := a.header.Get("Content-Type"); got != api.ProblemType {
		t.Fatalf("%d has the type %q: %s", a.status, got, a.body)
	}
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	if p.Status != a.status || p.Title == "" || p.Class == "" || !strings.HasPrefix(p.Type, api.ProblemBase) {
		t.Errorf("%d: %+v", a.status, p)
	}
	return p
}

// into reads the body as JSON.
func (a answer) into(t testing.TB, value any) {
	t.Helper()
	if err := json.Unmarshal(a.body, value); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
}

func (a answer) operation(t testing.TB) api.Operation {
	t.Helper()
	var o api.Operation
	if err := json.Unmarshal(a.body, &o); err != nil || o.ID == "" {
		t.Fatalf("%v: %d %s", err, a.status, a.body)
	}
	return o
}

// do sends a request. Headers are "Name: value".
func (a *service) do(method, path, body string, headers ...string) answer {
	a.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequest(method, a.url+path, reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.token != "" {
		r.Header.Set("Authorization", "Bearer "+a.token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, ok := strings.Cut(h, ": ")
		if !ok {
			continue
		}
		if name == "Host" {
			r.Host = value
		}
		r.Header.Set(name, value)
	}
	response, err := a.client.Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	fmt.Fprintf(a.out, "%d %v %s\n", response.StatusCode, response.Header, text)
	return answer{response.StatusCode, response.Header, text}
}

// expect checks a status, and of an error its problem.
func (a *service) expect(got answer, status int, problem string) answer {
	a.t.Helper()
	if got.status != status {
		a.t.Fatalf("status %d, want %d: %s", got.status, status, got.body)
	}
	if problem != "" {
		if p := got.problem(a.t); p.Type != api.ProblemBase+problem {
			a.t.Errorf("problem %s, want %s: %s", p.Type, problem, p.Detail)
		}
	}
	return got
}

// until waits for an operation to be in one of the states.
func (a *service) until(id string, states ...string) api.Operation {
	a.t.Helper()
	var o api.Operation
	eventually(a.t, "operation "+id+" is "+strings.Join(states, " or "), func() bool {
		o = a.do("GET", "/v1/operations/"+id, "").operation(a.t)
		return strings.Contains(" "+strings.Join(states, " ")+" ", " "+o.State+" ")
	})
	return o
}

// eventually waits for a condition, for as long as a test may reasonably wait.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 15 s: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
