package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/hooks"
)

// TestProblemsPage holds docs/problems.md and the table of kinds together.
func TestProblemsPage(t *testing.T) {
	text, err := os.ReadFile("../docs/problems.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, m := range regexp.MustCompile("(?m)^## (.*)\n(.*)\\. Status (\\d+), class `(\\w+)`\\.$").FindAllStringSubmatch(string(text), -1) {
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
		if p.Type != problemBase+test.problem || !strings.HasPrefix(p.Instance, "urn:pgbaton:request:") || !strings.Contains(a.out.String(), p.Instance) {
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
		"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 30<<10) + "\r\n\r\n":                              "431 header-too-large",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n":                                            "501 not-implemented",
		"POST /v1/pgbouncer/pause HTTP/1.1\r\n" + auth + "Expect: a miracle\r\nContent-Length: 2\r\n\r\n{}":        "417 expectation-failed",
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
				got += strings.TrimPrefix(answer{response.StatusCode, response.Header, []byte(body)}.problem(t).Type, problemBase)
			}
		}
		if got != want {
			t.Errorf("%.60q: %s, want %s: %s", request, got, want, body)
		}
	}
}

func TestPanic(t *testing.T) {
	a := start(t, &fake{status: func() hooks.Status { panic("bad " + "luck") }}, nil)
	got := a.expect(a.do("GET", "/v1/status", ""), 500, "internal-error")
	if strings.Contains(string(got.body), "luck") || !strings.Contains(a.out.String(), "luck") || !strings.Contains(a.out.String(), "status.go") {
		t.Errorf("%s", got.body)
	}
	a.expect(a.do("GET", "/healthz", ""), 200, "")
	a.expect(a.do("GET", "/metrics", ""), 200, "")
}

// TestPanicInOperation: its outcome is not known, and the server goes on.
func TestPanicInOperation(t *testing.T) {
	a := start(t, &fake{pause: func(context.Context, hooks.PauseOptions) hooks.Report { panic("bad luck") }}, nil)
	o := a.until(a.do("POST", "/v1/pgbouncer/pause", "").operation(t).ID, stateUnknown)
	if o.Problem.Type != internalError.uri() || o.Ended.IsZero() {
		t.Errorf("%+v", o)
	}
	a.expect(a.do("POST", "/v1/pgbouncer/resume", ""), 200, "")
}

// TestOverload: beyond the limit requests are told to come back, and /healthz answers all the same.
func TestOverload(t *testing.T) {
	release := make(chan struct{})
	a := start(t, &fake{status: func() hooks.Status { <-release; return hooks.Status{} }}, nil)
	done := make(chan int, maxRequests)
	for range maxRequests {
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
	eventually(t, "all are being answered", func() bool { return len(a.server.slots) == maxRequests })
	got := a.expect(a.do("GET", "/v1/operations", ""), 503, "overloaded")
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	a.expect(a.do("GET", "/healthz", ""), 200, "")
	close(release)
	for range maxRequests {
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
		if _, err := fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: 10\r\n\r\n{", path, operateToken); err != nil {
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

// TestRewrite: an answer of ours is left as it is.
func TestRewrite(t *testing.T) {
	for _, text := range []string{"", "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n",
		"HTTP/1.1 404 Not Found\r\nDate: x\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n", "HTTP/1.1 4", "data: HTTP/1.1 400"} {
		if got := rewrite([]byte(text)); got != nil {
			t.Errorf("%q: %s", text, got)
		}
	}
}
