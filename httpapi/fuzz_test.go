package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/member"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
)

// faults is a log of which only what tells of a panic is kept.
type faults struct {
	mu   sync.Mutex
	told []string
}

// Enabled: what net/http says of a panic is told at debug level.
func (l *faults) Enabled(context.Context, slog.Level) bool { return true }
func (l *faults) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *faults) WithGroup(string) slog.Handler            { return l }

func (l *faults) Handle(_ context.Context, r slog.Record) error {
	if !strings.Contains(r.Message, "panicked") && !strings.Contains(r.Message, "panic serving") {
		return nil
	}
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(l.told, text)
	return nil
}

// check fails for what was told since it was asked last.
func (l *faults) check(t testing.TB) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, text := range l.told {
		t.Errorf("the log has: %s", text)
	}
	l.told = nil
}

// serving is a server whose limits are set before it serves, with the log that it writes. It ends with the test, which fails if something
// panicked.
func serving(t testing.TB, f *fake, change func(*config.Config), limit func(*Server)) (*Server, *faults) {
	t.Helper()
	c := &config.Config{StateDir: t.TempDir(), Pause: config.Pause{Budget: time.Second, Lease: time.Second}}
	c.Serve = config.Serve{Listen: "127.0.0.1:0", TokensFile: t.TempDir() + "/tokens", Grace: time.Second}
	writeText(t, c.Serve.TokensFile, "operator operate "+operateToken+"\n")
	if change != nil {
		change(c)
	}
	log := &faults{}
	server, err := New(Options{Member: &member.Member{Config: c, Log: slog.New(log)}, Version: "test", Calls: f.calls()})
	if err != nil {
		t.Fatal(err)
	}
	limit(server)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		log.check(t)
	})
	return server, log
}

// FuzzRequests sends bytes over a connection, what was made of a request in all its parts and what is none: never a 500 or a panic, never a
// hang, never half an answer or none at all, never an error that is not a problem.
func FuzzRequests(f *testing.F) {
	server, log := serving(f, &fake{}, nil, func(s *Server) { s.bodyTimeout = 200 * time.Millisecond })
	address := server.Addr().String()

	auth := "Host: a\r\nAuthorization: Bearer " + operateToken + "\r\n"
	for _, x := range server.routes {
		f.Add([]byte(strings.ReplaceAll(x.pattern, "{id}", "0123456789abcdef") + " HTTP/1.1\r\n" + auth +
			"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"))
	}
	for _, text := range []string{
		"", "\r\n\r\n", "GET", "GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"POST /v1/pgbouncer/pause HTTP/1.1\r\n" + auth + "Content-Length: 99\r\n\r\n{",
		"POST /v1/pgbouncer/pause HTTP/1.1\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nTrailer: x\r\n\r\n",
		"POST /v1/pgbouncer/pause HTTP/1.1\r\n" + auth + "Content-Length: 14\r\n\r\n{\"lease\":\"-1\"}",
		"POST /v1/postgres/reload HTTP/1.1\r\n" + auth + "Content-Length: 39\r\n\r\n{\"configVersion\":\"99999999999999999999\"}",
		"POST /v1/pgbouncer/resume HTTP/1.1\r\n" + auth + "Idempotency-Key: \xff\r\nAccept: ;q=,;\r\nContent-Type: +;+\r\n\r\n",
		"GET /v1/operations/%00 HTTP/1.1\r\n" + auth + "Accept: a;b=c;d,e;\r\n\r\n",
		"GET /v1/status?%zz&;=& HTTP/1.0\r\n" + auth + "\r\n",
		"GET /v1/status HTTP/1.1\r\n" + auth + "\r\nGET /metrics HTTP/1.1\r\n" + auth + "\r\n",
		"GET /v1/status HTTP/1.1\r\n" + auth + "\r\nHEAD /v1/status HTTP/1.1\r\n" + auth + "\r\nGET /nosuch HTTP/1.1\r\n" + auth + "\r\n",
		"HEAD /v1/status HTTP/1.1\r\n" + auth + "Accept: image/png\r\n\r\n",
		"POST /v1/pgbouncer/resume HTTP/1.1\r\n" + auth + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}GET /healthz HTTP/1.1\r\n",
		"OPTIONS /v1/status HTTP/1.1\r\n" + auth + "Expect: 100-continue\r\n\r\n",
		"GET /v1/operations/x/events HTTP/1.1\r\n" + auth + "Last-Event-ID: 99999999999999999999\r\n\r\n",
		"CONNECT /v1/status HTTP/1.1\r\n" + auth + "\r\n",
		"GET //../v1/./status HTTP/1.1\r\n" + auth + "\r\n",
		"GET / HTTP/3.0\r\nHost: a\r\n\r\n",
		"0 * HTTP/1.0\n0000:\nEXpeCt:000000000000\n\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, request []byte) {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Skip(err) // out of ports
		}
		defer c.Close()
		defer log.check(t)
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = c.Write(request) // it may answer and close before it has all
		_ = c.(*net.TCPConn).CloseWrite()
		answers := bufio.NewReader(c)
		// More than one may follow: a request that is over may have another one behind it, and 100 Continue comes before the answer itself.
		for n := 0; ; n++ {
			// Closing is fine, also with a reset (of what it has not read), but for the first answer; it has to answer whatever it was
			// sent.
			if _, err := answers.Peek(1); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) || n == 0 && len(request) > 0 {
					t.Fatalf("no answer to %q: %v", request, err)
				}
				return
			}
			response, err := http.ReadResponse(answers, &http.Request{Method: methodOf(request)})
			if err != nil {
				t.Fatalf("a malformed answer to %q: %v", request, err)
			}
			// It cuts an answer short only where a handler panicked in the middle, at its end, and for who does not read.
			body, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if err != nil {
				t.Fatalf("half an answer to %q: %v: %d %v %s", request, err, response.StatusCode, response.Header, body)
			}
			switch {
			case response.StatusCode == http.StatusInternalServerError:
				t.Fatalf("%q: %s", request, body)
			case response.StatusCode >= 300 && response.StatusCode < 400:
				t.Fatalf("%q leads to %s", request, response.Header.Get("Location"))
			case response.StatusCode >= 400:
				checkProblem(t, request, response, body)
			}
			if bytes.Contains(request, []byte("HEAD")) {
				return // what follows may be an answer with or without a body, and this reader does not know
			}
		}
	})
}

// checkProblem: an error has a problem for its body, which tells the same as the status and is of a kind that there is.
func checkProblem(t *testing.T, request []byte, response *http.Response, body []byte) {
	t.Helper()
	if got := response.Header.Get("Content-Type"); got != api.ProblemType {
		t.Fatalf("%q: %d of the type %q: %s", request, response.StatusCode, got, body)
	}
	if bytes.Contains(body, []byte(operateToken)) {
		t.Fatalf("%q: the token is in %s", request, body)
	}
	if methodOf(request) == http.MethodHead {
		return // it has no body
	}
	var p api.Problem
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatalf("%q: %d: %v: %s", request, response.StatusCode, err, body)
	}
	known := slices.ContainsFunc(kinds(), func(k kind) bool { return k.uri() == p.Type && k.title == p.Title && k.class == p.Class })
	if p.Status != response.StatusCode || !strings.HasPrefix(p.Type, api.ProblemBase) || p.Title == "" || !known {
		t.Fatalf("%q: %d: %s", request, response.StatusCode, body)
	}
}

func methodOf(request []byte) string {
	method, _, _ := bytes.Cut(request, []byte(" "))
	return string(method)
}
