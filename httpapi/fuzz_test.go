package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/hooks"
)

// FuzzRequests sends bytes over a connection, what was made of a request in all its parts and what is none: never a 500, never a hang, never an
// error that is not a problem.
func FuzzRequests(f *testing.F) {
	c := &config.Config{StateDir: f.TempDir(), Pause: config.Pause{Budget: time.Second, Lease: time.Second}}
	c.Serve = config.Serve{Listen: "127.0.0.1:0", TokensFile: f.TempDir() + "/tokens", Grace: time.Second}
	writeText(f, c.Serve.TokensFile, "operator operate "+operateToken+"\n")
	server, err := New(Options{Runtime: &hooks.Runtime{Config: c, Log: slog.New(slog.DiscardHandler)}, Version: "test", Calls: new(fake).calls()})
	if err != nil {
		f.Fatal(err)
	}
	server.bodyTimeout = 200 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	f.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			f.Error(err)
		}
	})
	address := server.Addr().String()

	auth := "Host: a\r\nAuthorization: Bearer " + operateToken + "\r\n"
	for _, x := range server.routes {
		f.Add([]byte(strings.ReplaceAll(x.pattern, "{id}", "0123456789abcdef") + " HTTP/1.1\r\n" + auth + "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"))
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
		"OPTIONS /v1/status HTTP/1.1\r\n" + auth + "Expect: 100-continue\r\n\r\n",
		"GET /v1/operations/x/events HTTP/1.1\r\n" + auth + "Last-Event-ID: 99999999999999999999\r\n\r\n",
		"CONNECT /v1/status HTTP/1.1\r\n" + auth + "\r\n",
		"GET //../v1/./status HTTP/1.1\r\n" + auth + "\r\n",
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
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = c.Write(request) // it may answer and close before it has all
		_ = c.(*net.TCPConn).CloseWrite()
		answers := bufio.NewReader(c)
		for {
			response, err := http.ReadResponse(answers, &http.Request{Method: methodOf(request)})
			if err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("no answer to %q", request)
				}
				return // it has closed the connection
			}
			body, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("half an answer to %q", request)
			}
			switch {
			case response.StatusCode == http.StatusInternalServerError:
				t.Fatalf("%q: %s", request, body)
			case response.StatusCode >= 300 && response.StatusCode < 400:
				t.Fatalf("%q leads to %s", request, response.Header.Get("Location"))
			case response.StatusCode >= 400 && response.Header.Get("Content-Type") != problemType:
				t.Fatalf("%q: %d %v %s", request, response.StatusCode, response.Header, body)
			case response.StatusCode >= 400 && bytes.Contains(body, []byte(operateToken)):
				t.Fatalf("%q: the token is in %s", request, body)
			}
			if methodOf(request) == "HEAD" {
				return // what follows may be an answer with a body, and this reader does not know
			}
		}
	})
}

func methodOf(request []byte) string {
	method, _, _ := bytes.Cut(request, []byte(" "))
	return string(method)
}
