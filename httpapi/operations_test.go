package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/reload"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/operation"
)

// held is a pause that lasts until its context ends or it is let go.
func held(release <-chan struct{}) func(context.Context, pause.Options) pause.Report {
	return func(ctx context.Context, _ pause.Options) pause.Report {
		select {
		case <-ctx.Done():
			return pause.Report{Result: member.Result{Code: member.Failed, Decision: "everybody is resumed: context canceled"}}
		case <-release:
			return pause.Report{Result: member.Result{Decision: "1 pooler(s) paused and drained"}}
		}
	}
}

// savedState is the file of the operations.
type savedState struct {
	Operations []operation.Operation `json:"operations"`
	Keys       []savedKey            `json:"keys"`
}

type savedKey struct {
	Caller    string    `json:"caller"`
	Key       string    `json:"key"`
	Request   string    `json:"request"`
	Operation string    `json:"operation"`
	Time      time.Time `json:"time"`
}

func (s savedState) write(t *testing.T, dir string) {
	t.Helper()
	content, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	writeText(t, filepath.Join(dir, "operations.json"), string(content))
}

// onDisk are the operations that the next server would find.
func onDisk(t *testing.T, dir string) map[string]operation.Operation {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "operations.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var saved savedState
	if err := json.Unmarshal(text, &saved); err != nil {
		t.Fatal(err)
	}
	found := map[string]operation.Operation{}
	for _, o := range saved.Operations {
		found[o.ID] = o
	}
	return found
}

func TestOperation(t *testing.T) {
	a := start(t, &fake{}, nil)
	got := a.expect(a.do("POST", "/v1/pgbouncer/pause", `{"lease":"20s"}`), 202, "")
	o := got.operation(t)
	if got.header.Get("Location") != "/v1/operations/"+o.ID || o.Request.Lease != "20s" || o.Request.Timeout != "15s" ||
		o.Caller != "operator" {
		t.Errorf("%v %+v", got.header, o)
	}
	o = a.until(o.ID, api.Succeeded)
	if o.Result == nil || o.Result.Decision != "1 pooler(s) paused and drained" || o.Ended.IsZero() || len(o.Steps) != 3 {
		t.Errorf("%+v", o)
	}
	a.expect(a.do("POST", "/v1/pgbouncer/pause", ""), 202, "") // a body is not needed
	a.expect(a.do("POST", "/v1/pgbouncer/pause", `{"lease":"20"}`), 422, "invalid-request")
	a.expect(a.do("POST", "/v1/pgbouncer/pause", `{"lease":"48h"}`), 422, "invalid-request")
	a.expect(a.do("POST", "/v1/pgbouncer/pause", `{"leese":"20s"}`), 422, "invalid-request")
	a.expect(a.do("POST", "/v1/pgbouncer/pause", `{"lease":`), 400, "malformed-request")
	a.expect(a.do("GET", "/v1/operations/nosuch", ""), 404, "operation-not-found")
	var list api.OperationList
	if err := json.Unmarshal(a.do("GET", "/v1/operations", "").body, &list); err != nil || len(list.Operations) != 2 ||
		list.Operations[1].ID != o.ID || len(list.Operations[1].Steps) != 1 {
		t.Errorf("%v %+v", err, list)
	}
}

// TestOneAtATime: a second one is told where the first is. Resume is not refused; it ends a pause that is under way.
func TestOneAtATime(t *testing.T) {
	a := start(t, &fake{pause: held(nil)}, nil)
	o := a.do("POST", "/v1/pgbouncer/pause", "").operation(t)
	a.until(o.ID, api.Running)
	got := a.expect(a.do("POST", "/v1/postgres/reload", ""), 409, "operation-running")
	if got.header.Get("Location") != o.Path() || got.problem(t).Operation != o.Path() {
		t.Errorf("%v %s", got.header, got.body)
	}
	resumed := a.expect(a.do("POST", "/v1/pgbouncer/resume", ""), 200, "").operation(t)
	if resumed.State != api.Succeeded || resumed.Kind != api.KindResume {
		t.Errorf("%+v", resumed)
	}
	o = a.until(o.ID, api.Failed)
	if o.Problem == nil || o.Problem.Type != interrupted.uri() || !strings.Contains(o.Problem.Detail, "a resume was requested") {
		t.Errorf("%+v", o.Problem)
	}
	a.expect(a.do("POST", "/v1/postgres/reload", ""), 202, "")
}

func TestFailures(t *testing.T) {
	f := &fake{}
	a := start(t, f, nil)
	for _, test := range []struct {
		report pause.Report
		want   kind
		pooler string
	}{
		{pause.Report{Result: member.Result{Code: member.BudgetSpent, Decision: "not drained within 1s"}}, notDrained, ""},
		{pause.Report{Result: member.Result{Code: member.Invalid, Decision: "no poolers are configured"}}, invalidConfiguration, ""},
		{pause.Report{Result: member.Result{Code: member.Failed, Decision: "b:1: refused"}, Poolers: []api.PoolerReport{{Pooler: "a:1",
			Done: "resumed"}, {Pooler: "b:1", Done: "failed", Error: "refused"}}}, poolerFailed, "b:1"},
	} {
		f.pause = func(context.Context, pause.Options) pause.Report { return test.report }
		f.resume = func(context.Context) pause.Report { return test.report }
		o := a.until(a.do("POST", "/v1/pgbouncer/pause", "").operation(t).ID, api.Failed)
		if o.Problem.Type != test.want.uri() || o.Problem.Pooler != test.pooler || o.Result.Code != test.report.Code {
			t.Errorf("%+v", o.Problem)
		}
		// Resume answers with the problem itself: curl --fail must see it.
		got := a.expect(a.do("POST", "/v1/pgbouncer/resume", ""), test.want.status, test.want.name)
		if !strings.HasPrefix(got.header.Get("Location"), "/v1/operations/") || got.problem(t).Pooler != test.pooler {
			t.Errorf("%v %s", got.header, got.body)
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	a := start(t, &fake{}, nil)
	first := a.do("POST", "/v1/pgbouncer/pause", `{"lease":"20s"}`, "Idempotency-Key: k1").operation(t)
	a.until(first.ID, api.Succeeded)
	again := a.expect(a.do("POST", "/v1/pgbouncer/pause", `{"lease":"20s"}`, "Idempotency-Key: k1"), 202, "").operation(t)
	if again.ID != first.ID || again.State != api.Succeeded {
		t.Errorf("%+v", again)
	}
	a.expect(a.do("POST", "/v1/pgbouncer/pause", `{"lease":"21s"}`, "Idempotency-Key: k1"), 422, "idempotency-key-reused")
	a.expect(a.do("POST", "/v1/pgbouncer/resume", "", "Idempotency-Key: k1"), 422, "idempotency-key-reused")
	a.expect(a.do("POST", "/v1/pgbouncer/pause", "", "Idempotency-Key: "+strings.Repeat("k", 300)), 422, "invalid-request")
	if err := a.end(); err != nil {
		t.Fatal(err)
	}
	// Another server knows it, and another caller's key of the same name is another one.
	b := startWith(t, a.config, &fake{}, func(c *config.Config, _ *Options) {
		writeText(t, c.Serve.TokensFile, "operator operate "+operateToken+"\nother operate "+readToken+"\n")
	})
	again = b.do("POST", "/v1/pgbouncer/pause", `{"lease":"20s"}`, "Idempotency-Key: k1").operation(t)
	if again.ID != first.ID {
		t.Errorf("%+v", again)
	}
	b.token = readToken
	if o := b.do("POST", "/v1/pgbouncer/pause", `{"lease":"20s"}`, "Idempotency-Key: k1").operation(t); o.ID == first.ID {
		t.Error("the key of another caller")
	}
}

// TestBounds: of more than are kept the newest stay, and a key whose operation is gone is not used for a new one.
func TestBounds(t *testing.T) {
	a := start(t, &fake{}, nil)
	for i := range operation.MaxOperations + 3 {
		a.expect(a.do("POST", "/v1/pgbouncer/resume", "", fmt.Sprintf("Idempotency-Key: k%d", i)), 200, "")
	}
	if n := len(a.server.operations.List()); n != operation.MaxOperations {
		t.Errorf("%d are kept", n)
	}
	a.expect(a.do("POST", "/v1/pgbouncer/resume", "", "Idempotency-Key: k0"), 409, "operation-forgotten")
}

// TestUnwritable: what cannot be written down is not begun.
func TestUnwritable(t *testing.T) {
	paused := false
	a := start(t, &fake{pause: func(context.Context, pause.Options) pause.Report { paused = true; return pause.Report{} }}, nil)
	if err := os.Rename(a.config.StateDir, a.config.StateDir+"-gone"); err != nil {
		t.Fatal(err)
	}
	a.expect(a.do("POST", "/v1/pgbouncer/pause", ""), 503, "state-not-kept")
	if err := os.Rename(a.config.StateDir+"-gone", a.config.StateDir); err != nil {
		t.Fatal(err)
	}
	if paused || len(a.server.operations.List()) != 0 {
		t.Error("it was begun")
	}
}

// TestUnwritableResume: a full disk keeps nobody paused.
func TestUnwritableResume(t *testing.T) {
	a := start(t, &fake{}, nil)
	if err := os.Rename(a.config.StateDir, a.config.StateDir+"-gone"); err != nil {
		t.Fatal(err)
	}
	o := a.expect(a.do("POST", "/v1/pgbouncer/resume", ""), 200, "").operation(t)
	if o.State != api.Succeeded {
		t.Errorf("%+v", o)
	}
	if err := os.Rename(a.config.StateDir+"-gone", a.config.StateDir); err != nil {
		t.Fatal(err)
	}
	// And is written down as soon as that is possible.
	eventually(t, "it is kept", func() bool {
		return onDisk(t, a.config.StateDir)[o.ID].State == api.Succeeded
	})
}

// readEvents reads a stream to its end: ids and states.
func readEvents(t *testing.T, a *service, path string, headers ...string) (ids []string, text string) {
	t.Helper()
	got := a.do("GET", path, "", headers...)
	if got.status != 200 || got.header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v %s", got.status, got.header, got.body)
	}
	for line := range strings.Lines(string(got.body)) {
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			ids = append(ids, strings.TrimSpace(id))
		}
	}
	return ids, string(got.body)
}

func TestEvents(t *testing.T) {
	release := make(chan struct{})
	a := start(t, &fake{pause: held(release)}, nil)
	a.server.heartbeat = 20 * time.Millisecond
	o := a.do("POST", "/v1/pgbouncer/pause", "").operation(t)
	path := o.Path() + "/events"
	// One reader is there from the beginning.
	r, err := http.NewRequest("GET", a.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+readToken)
	response, err := a.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	seen := ""
	for lines.Scan() {
		seen += lines.Text() + "\n"
		if strings.Contains(seen, `"state":"running"`) && strings.Contains(seen, ": still here") && release != nil {
			close(release)
			release = nil
		}
	}
	if !strings.Contains(seen, `"state":"succeeded"`) {
		t.Errorf("%s", seen)
	}
	ids, _ := readEvents(t, a, path)
	if fmt.Sprint(ids) != "[1 2 3]" {
		t.Errorf("%v", ids)
	}
	ids, text := readEvents(t, a, path, "Last-Event-ID: 2")
	if fmt.Sprint(ids) != "[3]" {
		t.Errorf("%v %s", ids, text)
	}
	a.expect(a.do("GET", path, "", "Last-Event-ID: 3"), 204, "")
	a.expect(a.do("GET", path, "", "Last-Event-ID: x"), 422, "invalid-request")
	a.expect(a.do("GET", "/v1/operations/x/events", ""), 404, "operation-not-found")
	a.expect(a.do("HEAD", path, ""), 200, "")
}

// TestManyReaders: streams are bounded, and a reader that goes away makes room.
func TestManyReaders(t *testing.T) {
	a := start(t, &fake{pause: held(nil)}, nil)
	path := a.do("POST", "/v1/pgbouncer/pause", "").operation(t).Path() + "/events"
	ctx, cancel := context.WithCancel(t.Context())
	for range maxStreams {
		r, err := http.NewRequestWithContext(ctx, "GET", a.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+readToken)
		response, err := a.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
	}
	a.expect(a.do("GET", path, ""), 503, "overloaded")
	cancel()
	eventually(t, "streams are given up", func() bool { return len(a.server.streams) == 0 })
}

// TestGraceful: at the end nothing is begun any more, what runs is given its time, streams end.
func TestGraceful(t *testing.T) {
	release := make(chan struct{})
	a := start(t, &fake{pause: held(release)}, func(c *config.Config, _ *Options) { c.Serve.Grace = 20 * time.Second })
	o := a.do("POST", "/v1/pgbouncer/pause", "").operation(t)
	ended := make(chan error, 1)
	go func() { ended <- a.end() }()
	// Looked for with what changes nothing: a resume that comes before the end has begun is taken, and ends the pause that this test holds.
	eventually(t, "nothing is begun any more", func() bool { return a.do("GET", "/readyz", "").status == 503 })
	a.expect(a.do("POST", "/v1/pgbouncer/resume", ""), 503, "shutting-down")
	a.expect(a.do("GET", "/readyz", ""), 503, "not-ready")
	a.expect(a.do("GET", "/healthz", ""), 200, "")
	close(release)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got := onDisk(t, a.config.StateDir)[o.ID]; got.State != api.Succeeded {
		t.Errorf("%+v", got)
	}
}

// TestGraceOver: what does not end in the grace time is cancelled, and says so.
func TestGraceOver(t *testing.T) {
	a := start(t, &fake{pause: held(nil), reload: func(ctx context.Context, _ reload.Options) reload.Report {
		<-ctx.Done()
		return reload.Report{Result: member.Result{Code: member.Failed, Decision: "context canceled"}}
	}}, func(c *config.Config, _ *Options) { c.Serve.Grace = 50 * time.Millisecond })
	o := a.do("POST", "/v1/pgbouncer/pause", "").operation(t)
	a.until(o.ID, api.Running)
	if err := a.end(); err != nil {
		t.Fatal(err)
	}
	if got := onDisk(t, a.config.StateDir)[o.ID]; got.State != api.Failed || got.Failure.Name != operation.Interrupted {
		t.Errorf("%+v", got)
	}
}

// TestHugeError: what a pooler says is cut before it is kept, so that the next server knows the operation and its key.
func TestHugeError(t *testing.T) {
	const size = 20 << 20
	huge := strings.Repeat("x", size)
	report := pause.Report{Result: member.Result{Code: member.Failed, Decision: huge}, Poolers: []api.PoolerReport{{Pooler: "p:6432",
		Done: "failed", Error: huge}}}
	a := start(t, &fake{pause: func(context.Context, pause.Options) pause.Report { return report }}, nil)
	o := a.do("POST", "/v1/pgbouncer/pause", "", "Idempotency-Key: once").operation(t)
	eventually(t, "it has failed", func() bool { return a.do("GET", "/v1/operations/"+o.ID, "").operation(t).State == api.Failed })
	if err := a.end(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(a.config.StateDir, "operations.json"))
	if err != nil || info.Size() > 1<<20 {
		t.Errorf("%v: %d bytes", err, info.Size())
	}
	b := startWith(t, a.config, &fake{}, nil)
	got := b.expect(b.do("GET", "/v1/operations/"+o.ID, ""), 200, "").operation(t)
	if got.Result == nil || len(got.Result.Poolers) != 1 || !strings.HasPrefix(got.Result.Poolers[0].Error, "xxx") || got.Problem == nil ||
		len(got.Problem.Detail) > 3000 {
		t.Errorf("%+v", got)
	}
	if again := b.do("POST", "/v1/pgbouncer/pause", "", "Idempotency-Key: once").operation(t); again.ID != o.ID {
		t.Errorf("the key is forgotten: %+v", again)
	}
}
