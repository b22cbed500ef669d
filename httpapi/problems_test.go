package httpapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/health"
	"github.com/pgbaton/pgbaton/pause"

	"github.com/pgbaton/pgbaton/api"
)

// TestProblemsPage holds docs/problems.md and the table of kinds together.
func TestProblemsPage(t *testing.T) {
	text, err := os.ReadFile("../docs/problems.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, m := range regexp.MustCompile("(?m)^## (.*)\n(.*)\\. Status (\\d+), class `(\\w+)`\\.$").FindAllStringSubmatch(string(text),
		-1) {
		listed = append(listed, fmt.Sprintf("%s|%s|%s|%s", m[1], m[2], m[3], m[4]))
	}
	var known []string
	for _, k := range kinds() {
		known = append(known, fmt.Sprintf("%s|%s|%d|%s", k.name, k.title, k.status, k.class))
	}
	slices.Sort(listed)
	slices.Sort(known)
	if !slices.Equal(listed, known) {
		t.Errorf("the page has\n%s\nthe program\n%s", strings.Join(listed, "\n"), strings.Join(known, "\n"))
	}
	if len(known) != len(slices.Compact(slices.Clone(known))) {
		t.Error("one of them twice")
	}
}

// TestEveryErrorIsAProblem drives the paths on which net/http, its mux or huma would answer with something else.
func TestEveryErrorIsAProblem(t *testing.T) {
	a := start(t, &fake{}, nil)
	for _, test := range []struct {
		method, path, body, header string
		status                     int
		problem                    string
	}{
		{"GET", "/", "", "", 404, "not-found"},
		{"GET", "/nosuch", "", "", 404, "not-found"},
		{"GET", "/v1/status/", "", "", 404, "not-found"},
		{"GET", "//v1/status", "", "", 404, "not-found"},
		{"GET", "/v1/../v1/status", "", "", 404, "not-found"},
		{"GET", "/docs", "", "", 404, "not-found"},
		{"GET", "/schemas/Problem", "", "", 404, "not-found"},
		{"GET", "/v1/operations/%2e%2e", "", "", 404, "not-found"},
		{"GET", "/v1/operations/%2F", "", "", 404, "not-found"},
		{"DELETE", "/v1/status", "", "", 405, "method-not-allowed"},
		{"GET", "/v1/pgbouncer/pause", "", "", 405, "method-not-allowed"},
		{"BREW", "/v1/status", "", "", 405, "method-not-allowed"},
		{"GET", "/v1/status", "", "Accept: text/html", 406, "not-acceptable"},
		{"GET", "/v1/status", "", "Accept: application/json;q=0, text/html", 406, "not-acceptable"},
		{"POST", "/v1/pgbouncer/pause", "{}", "Accept: image/png", 406, "not-acceptable"},
		{"POST", "/v1/pgbouncer/pause", "{}", "Content-Type: text/plain", 415, "unsupported-media-type"},
		{"POST", "/v1/pgbouncer/pause", "{}", "Content-Type: ;;;+", 415, "unsupported-media-type"},
		{"POST", "/v1/pgbouncer/pause", strings.Repeat("x", maxBody+1), "", 413, "content-too-large"},
		{"GET", "/v1/status", strings.Repeat("x", maxBody+1), "", 413, "content-too-large"},
		{"POST", "/v1/pgbouncer/pause", "[]", "", 422, "invalid-request"},
		{"POST", "/v1/pgbouncer/pause", `{"lease": 30}`, "", 422, "invalid-request"},
		{"POST", "/v1/postgres/reload", `{"configVersion": "new"}`, "", 422, "invalid-request"},
		{"POST", "/v1/postgres/reload", `{"configVersion": 42}`, "", 422, "invalid-request"},
		{"POST", "/v1/pgbouncer/pause", "{}", "Sec-Fetch-Site: cross-site", 403, "cross-origin"},
		{"POST", "/v1/pgbouncer/pause", "{}", "Origin: https://example.com", 403, "cross-origin"},
	} {
		got := a.do(test.method, test.path, test.body, strings.Split(test.header, "\x00")...)
		if got.status != test.status {
			t.Errorf("%s %s %s: %d %s", test.method, test.path, test.header, got.status, got.body)
			continue
		}
		p := got.problem(t)
		if p.Type != api.ProblemBase+test.problem || !strings.HasPrefix(p.Instance, "urn:pgbaton:request:") ||
			!strings.Contains(a.out.String(),
				p.Instance) {
			t.Errorf("%s %s: %+v", test.method, test.path, p)
		}
		if test.status == 405 && got.header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", test.method, test.path)
		}
	}
	for _, header := range []string{"Accept: */*", "Accept: application/*", "Accept: text/html, application/json;q=0.1", "Accept: "} {
		a.expect(a.do("GET", "/v1/status", "", header), 200, "")
	}
	if got := a.do("OPTIONS", "/v1/status", ""); got.status != 204 || got.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("%d %v", got.status, got.header)
	}
	if got := a.do("HEAD", "/v1/status", ""); got.status != 200 || len(got.body) != 0 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// raw sends bytes and reads the answer, or what there is of it until the connection ends.
func raw(t testing.TB, address, request string) (*http.Response, string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	// The server may answer, and close, before it has all of it.
	_, _ = io.WriteString(c, request)
	_ = c.(*net.TCPConn).CloseWrite()
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response, string(body)
}

// TestBeforeAnyHandler: net/http's own answers are problems, too.
func TestBeforeAnyHandler(t *testing.T) {
	a := start(t, &fake{}, nil)
	address := a.server.Addr().String()
	auth := "Host: localhost\r\nAuthorization: Bearer " + operateToken + "\r\n"
	for request, want := range map[string]string{
		"GET / HTTP/1.1\r\n\r\n":                      "400 malformed-request",
		"GET /\r\n\r\n":                               "400 malformed-request",
		"\x16\x03\x01\x02\x00\r\n\r\n":                "400 malformed-request",
		"GET / HTTP/3.0\r\nHost: a\r\n\r\n":           "505 unsupported-http-version",
		"GET / HTTP/1.1\r\nHost: a\r\nA b: c\r\n\r\n": "400 malformed-request",
		"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 30<<10) + "\r\n\r\n": "431 header-too-large",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n":               "501 not-implemented",
		"POST /v1/pgbouncer/pause HTTP/1.1\r\n" + auth +
			"Expect: a miracle\r\nContent-Length: 2\r\n\r\n{}": "417 expectation-failed",
		"POST /v1/pgbouncer/pause HTTP/1.1\r\n" + auth + "Content-Length: 20\r\n\r\n{}":                            "400 malformed-request",
		"POST /v1/pgbouncer/pause HTTP/1.1\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n": "400 malformed-request",
		"CONNECT localhost:1 HTTP/1.1\r\n" + auth + "\r\n":                                                         "404 not-found",
		"OPTIONS * HTTP/1.1\r\n" + auth + "\r\n":                                                                   "404 not-found",
		"GET http://elsewhere/v1/status HTTP/1.1\r\n" + auth + "\r\n":                                              "200 ",
		"POST /v1/pgbouncer/resume HTTP/1.0\r\n" + auth + "\r\n":                                                   "200 ",
	} {
		response, body := raw(t, address, request)
		got := "none"
		if response != nil {
			got = fmt.Sprintf("%d ", response.StatusCode)
			if response.StatusCode >= 400 {
				got += strings.TrimPrefix(answer{response.StatusCode, response.Header, []byte(body)}.problem(t).Type, api.ProblemBase)
			}
		}
		if got != want {
			t.Errorf("%.60q: %s, want %s: %s", request, got, want, body)
		}
	}
}

func TestPanic(t *testing.T) {
	a := start(t, &fake{status: func() health.Status { panic("bad " + "luck") }}, nil)
	got := a.expect(a.do("GET", "/v1/status", ""), 500, "internal-error")
	if strings.Contains(string(got.body), "luck") || !strings.Contains(a.out.String(), "luck") || !strings.Contains(a.out.String(),
		"status.go") {
		t.Errorf("%s", got.body)
	}
	a.expect(a.do("GET", "/healthz", ""), 200, "")
	a.expect(a.do("GET", "/metrics", ""), 200, "")
}

// TestPanicInOperation: its outcome is not known, and the server goes on.
func TestPanicInOperation(t *testing.T) {
	a := start(t, &fake{pause: func(context.Context, pause.Options) pause.Report { panic("bad luck") }}, nil)
	o := a.until(a.do("POST", "/v1/pgbouncer/pause", "").operation(t).ID, api.Unknown)
	if o.Problem.Type != internalError.uri() || o.Ended.IsZero() {
		t.Errorf("%+v", o)
	}
	a.expect(a.do("POST", "/v1/pgbouncer/resume", ""), 200, "")
}

// TestOverload: beyond the limit requests are told to come back, and /healthz answers all the same.
func TestOverload(t *testing.T) {
	release := make(chan struct{})
	a := start(t, &fake{status: func() health.Status { <-release; return health.Status{} }}, nil)
	most := maxRequests - reservedRequests
	done := make(chan int, most)
	for range most {
		go func() {
			r, _ := http.NewRequest("GET", a.url+"/v1/status", nil)
			r.Header.Set("Authorization", "Bearer "+readToken)
			response, err := a.client.Do(r)
			if err != nil {
				done <- 0
				return
			}
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			done <- response.StatusCode
		}()
	}
	eventually(t, "all are being answered", func() bool { return len(a.server.slots) == most })
	got := a.expect(a.do("GET", "/v1/operations", ""), 503, "overloaded")
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	for _, path := range []string{"/healthz", "/readyz", "/openapi.json"} {
		a.expect(a.do("GET", path, ""), 200, "")
	}
	// Who may only read cannot shut out who has to end a pause.
	a.expect(a.do("POST", "/v1/pgbouncer/resume", ""), 200, "")
	close(release)
	for range most {
		if status := <-done; status != 200 {
			t.Errorf("%d", status)
		}
	}
}

// TestSlowBody: who does not send what he has promised is told so, and does not keep a place.
func TestSlowBody(t *testing.T) {
	a := start(t, &fake{}, nil)
	a.server.bodyTimeout = 50 * time.Millisecond
	for _, path := range []string{"POST /v1/pgbouncer/pause", "GET /v1/status"} {
		c, err := net.Dial("tcp", a.server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: 10\r\n\r\n{", path,
			operateToken); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		if p := (answer{response.StatusCode, response.Header, body}).problem(t); p.Type != requestTimeout.uri() {
			t.Errorf("%s: %+v", path, p)
		}
	}
}

// dial opens a connection on which everything must be over within 20 s.
func dial(t *testing.T, s *Server) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// ask sends a request, whole or not, and reads an answer to its end.
func ask(t *testing.T, c net.Conn, r *bufio.Reader, request string) answer {
	t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.Close { // net/http takes the header away
		response.Header.Set("Connection", "close")
	}
	return answer{response.StatusCode, response.Header, body}
}

const authorized = " HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + operateToken + "\r\n"

// TestLimits: those of docs/api.md, and those that net/http is given.
func TestLimits(t *testing.T) {
	serving(t, &fake{}, nil, func(s *Server) {
		if s.headerTimeout != 5*time.Second || s.bodyTimeout != 10*time.Second || s.writeTimeout != time.Minute ||
			s.idleTimeout != time.Minute {
			t.Errorf("header %s, body %s, write %s, idle %s", s.headerTimeout, s.bodyTimeout, s.writeTimeout, s.idleTimeout)
		}
	})
	if maxConns != 1024 || maxRequests != 256 || reservedRequests != 32 || openTimeout != 5*time.Second || maxStreams != 64 ||
		maxBody != 64<<10 || maxHeader != 16<<10 {
		t.Error("other numbers than in docs/api.md")
	}
}

// closes reads until the server closes, which it must not do before the limit, and after it with nothing said. What is longer than 5 s is
// another limit, or none.
func closes(t *testing.T, what string, r io.Reader, began time.Time, limit time.Duration) {
	t.Helper()
	got, err := io.ReadAll(r)
	if took := time.Since(began); err != nil || len(got) > 0 || took < limit || took > 5*time.Second {
		t.Errorf("%s: closed after %s: %v %s", what, took, err, got)
	}
}

// TestSlowHeader: who does not send a header in time is not answered but cut off, as net/http does it.
func TestSlowHeader(t *testing.T) {
	const limit = 200 * time.Millisecond
	s, _ := serving(t, &fake{}, nil, func(s *Server) { s.headerTimeout = limit })
	for what, sent := range map[string]string{"nothing": "", "a line": "GET /healthz HTTP/1.1\r\n",
		"half a header": "GET /healthz HTTP/1.1\r\nHost: a\r\nX: "} {
		began := time.Now()
		c := dial(t, s)
		if _, err := io.WriteString(c, sent); err != nil {
			t.Fatal(err)
		}
		closes(t, what, c, began, limit)
	}
	// What came of a first line is taken for all of it. (Go 1.26, net/textproto: ReadLine forgets why there is no more.)
	began := time.Now()
	c := dial(t, s)
	r := bufio.NewReader(c)
	got := ask(t, c, r, "GET /hea")
	if p := got.problem(t); p.Type != malformedRequest.uri() || got.header.Get("Connection") != "close" {
		t.Errorf("%+v %v", p, got.header)
	}
	closes(t, "half a line", r, began, limit)

	// The second of a connection has as long.
	c = dial(t, s)
	r = bufio.NewReader(c)
	if got := ask(t, c, r, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
	began = time.Now()
	if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: a\r\n"); err != nil {
		t.Fatal(err)
	}
	closes(t, "half of the second header", r, began, limit)

	// Each byte of a header that comes byte by byte comes in time, and all of it does not.
	began = time.Now()
	c = dial(t, s)
	ended := make(chan error, 1)
	go func() {
		got, err := io.ReadAll(c)
		if len(got) > 0 {
			err = fmt.Errorf("answered: %s", got)
		}
		ended <- err
	}()
	if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: a\r\nX: "); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(limit / 20)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_, _ = c.Write([]byte("x")) // it may just have been closed
			continue
		case err := <-ended:
			// A reset, where a byte came after the end.
			if took := time.Since(began); err != nil && !errors.Is(err, syscall.ECONNRESET) || took < limit || took > 5*time.Second {
				t.Errorf("byte by byte: closed after %s: %v", took, err)
			}
		}
		break
	}
}

// TestIdle: a connection on which nothing is asked any more is closed; so is one on which a request hardly begins.
func TestIdle(t *testing.T) {
	const limit = 200 * time.Millisecond
	s, _ := serving(t, &fake{}, nil, func(s *Server) { s.idleTimeout, s.headerTimeout = limit, time.Minute })
	for what, more := range map[string]string{"nothing more": "", "two bytes more": "GE"} {
		c := dial(t, s)
		r := bufio.NewReader(c)
		began := time.Now()
		if got := ask(t, c, r, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"+more); got.status != 200 || got.header.Get("Connection") != "" {
			t.Errorf("%s: %d %v", what, got.status, got.header)
		}
		closes(t, what, r, began, limit)
	}
}

// TestSlowReader: who asks and does not read keeps no place among the requests, and what he reads in the end does not look whole.
func TestSlowReader(t *testing.T) {
	const size = 16 << 20 // more than all buffers on the way
	f := &fake{status: func() health.Status {
		return health.Status{Status: api.Status{Problems: []string{strings.Repeat("x", size)}}}
	}}
	written := make(chan error, 1)
	slots := 0
	for what, limit := range map[string]func(*Server){
		"an answer": func(*Server) {},
		// An answer of any size may come too late altogether where the machine is busy; this one begins in time.
		"an answer without end": func(s *Server) {
			s.mux = http.NewServeMux()
			s.mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
				slots = len(s.slots)
				for {
					if _, err := io.WriteString(w, strings.Repeat("x", 64<<10)); err != nil {
						written <- err
						return
					}
				}
			})
		},
	} {
		s, _ := serving(t, f, nil, func(s *Server) {
			s.writeTimeout = 300 * time.Millisecond
			limit(s)
		})
		c := dial(t, s)
		if _, err := io.WriteString(c, "GET /v1/status"+authorized+"\r\n"); err != nil {
			t.Fatal(err)
		}
		endless := what != "an answer"
		if endless {
			if err := <-written; !errors.Is(err, os.ErrDeadlineExceeded) || slots != 1 {
				t.Errorf("%v, with %d slots taken", err, slots)
			}
		}
		eventually(t, "it was asked for", func() bool { return endless || f.times() > 0 })
		eventually(t, "the slot is free", func() bool { return len(s.slots) == 0 })
		response, err := http.ReadResponse(bufio.NewReader(c), nil)
		var n int64
		if err == nil {
			n, err = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
		}
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) || endless && n == 0 || !endless && n >= size {
			t.Errorf("%s: %d bytes could be read: %v", what, n, err)
		}
	}
}

// TestLongStream: what is longer than an answer may take is no event stream's end.
func TestLongStream(t *testing.T) {
	const limit = 200 * time.Millisecond
	release := make(chan struct{})
	s, _ := serving(t, &fake{pause: held(release)}, nil, func(s *Server) { s.writeTimeout, s.heartbeat = limit, limit/10 })
	c := dial(t, s)
	r := bufio.NewReader(c)
	path := ask(t, c, r, "POST /v1/pgbouncer/pause"+authorized+"\r\n").operation(t).Path()
	began := time.Now()
	if _, err := io.WriteString(c, "GET "+path+"/events"+authorized+"\r\n"); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	last, released := "", false
	for lines.Scan() {
		if !released && lines.Text() == ": still here" && time.Since(began) > 2*limit {
			close(release)
			released = true
		}
		if strings.HasPrefix(lines.Text(), "data: ") {
			last = lines.Text()
		}
	}
	if err := lines.Err(); err != nil || !released || !strings.Contains(last, `"state":"succeeded"`) {
		t.Errorf("released: %v, %v, %s", released, err, last)
	}
	if !released {
		close(release)
	}
}

// TestChunkedBody: the limit of a body that does not tell its length beforehand. It is told as soon as it is passed, not when the body
// ends.
func TestChunkedBody(t *testing.T) {
	s, _ := serving(t, &fake{}, nil, func(s *Server) { s.bodyTimeout = time.Minute })
	chunked := authorized + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
	chunks := func(size int) string {
		var text strings.Builder
		w := httputil.NewChunkedWriter(&text)
		body := "{}" + strings.Repeat(" ", size-2)
		for part := range slices.Chunk([]byte(body), 5000) {
			_, _ = w.Write(part)
		}
		return text.String()
	}
	for _, test := range []struct {
		request, body string
		status        int
	}{
		{"POST /v1/pgbouncer/pause", chunks(maxBody) + "0\r\n\r\n", 202},
		{"POST /v1/pgbouncer/resume", chunks(maxBody) + "0\r\n\r\n", 200},
		{"GET /v1/status", chunks(maxBody) + "0\r\n\r\n", 200},
		{"POST /v1/pgbouncer/pause", chunks(maxBody + 1), 413},
		{"POST /v1/pgbouncer/resume", chunks(maxBody + 1), 413},
		{"GET /v1/status", chunks(maxBody + 1), 413},
		// No body is looked at here.
		{"GET /healthz", chunks(maxBody + 1), 200},
		{"GET /metrics", chunks(10), 200},
	} {
		c := dial(t, s)
		got := ask(t, c, bufio.NewReader(c), test.request+chunked+test.body)
		if got.status != test.status {
			t.Errorf("%s: %d instead of %d: %s", test.request, got.status, test.status, got.body)
		}
		if got.status == 413 {
			if p := got.problem(t); p.Type != contentTooLarge.uri() || got.header.Get("Connection") != "close" {
				t.Errorf("%s: %+v %v", test.request, p, got.header)
			}
		}
		_ = c.Close()
	}

	// One that never ends is answered all the same, and its connection is closed.
	c := dial(t, s)
	if _, err := io.WriteString(c, "POST /v1/pgbouncer/pause"+chunked); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() {
		for {
			if _, err := io.WriteString(c, chunks(4<<10)); err != nil {
				written <- err
				return
			}
		}
	}()
	if p := ask(t, c, bufio.NewReader(c), "").problem(t); p.Type != contentTooLarge.uri() {
		t.Errorf("%+v", p)
	}
	if err := <-written; errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection stays open")
	}
}

// TestRewrite: an answer of ours is left as it is.
func TestRewrite(t *testing.T) {
	for _, text := range []string{"", "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n",
		"HTTP/1.1 404 Not Found\r\nDate: x\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n", "HTTP/1.1 4",
		"data: HTTP/1.1 400"} {
		if got := rewrite([]byte(text)); got != nil {
			t.Errorf("%q: %s", text, got)
		}
	}
}
