package httpapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/pgbaton/pgbaton/api"
)

// maxConns is how many connections may be open; further ones are closed at once.
const maxConns = 1024

// listener hands out connections on which net/http's own refusals are problems, too.
type listener struct {
	net.Listener
	tls   *tls.Config // nil without
	count atomic.Int64
}

// Accept blocks until there is a connection. TLS is negotiated with its first read, within the time for the header.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.count.Add(1) > maxConns {
			l.count.Add(-1)
			_ = raw.Close()
			continue
		}
		c := &conn{Conn: raw, closed: func() { l.count.Add(-1) }}
		if l.tls != nil {
			c.tls = tls.Server(raw, l.tls)
			c.Conn = c.tls
		}
		return c, nil
	}
}

// conn rewrites the answers that net/http gives before any handler sees the request: they are text, and have no Date, by which they are
// known from ours. (Go 1.26, net/http/server.go: each is one Write.)
type conn struct {
	net.Conn
	tls    *tls.Conn
	once   sync.Once
	closed func()
}

func (c *conn) Close() error {
	c.once.Do(c.closed)
	return c.Conn.Close()
}

// CloseWrite is what net/http calls before it closes a connection on which the client still sends.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

const ownHeaders = "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"

func (c *conn) Write(b []byte) (int, error) {
	answer := rewrite(b)
	if answer == nil {
		return c.Conn.Write(b)
	}
	if _, err := c.Conn.Write(answer); err != nil {
		return 0, err
	}
	return len(b), nil
}

// rewrite is the problem in place of an answer of net/http itself, nil for all others.
func rewrite(b []byte) []byte {
	// The version is the client's: HTTP/1.0 in an answer to such a one.
	rest, ok := bytes.CutPrefix(b, []byte("HTTP/1."))
	if !ok || len(rest) < 5 || rest[1] != ' ' {
		return nil
	}
	rest = rest[2:]
	status, err := strconv.Atoi(string(rest[:3]))
	if err != nil || status < 400 {
		return nil
	}
	line, _, _ := bytes.Cut(rest, []byte("\r\n"))
	if status != http.StatusExpectationFailed && !bytes.HasPrefix(rest[len(line):], []byte(ownHeaders)) {
		return nil
	}
	var p *refusal
	switch status {
	case http.StatusExpectationFailed:
		p = expectationFailed.problem("only Expect: 100-continue is known")
	case http.StatusRequestHeaderFieldsTooLarge:
		p = headerTooLarge.problem(fmt.Sprintf("the header may have %d KiB", maxHeader>>10))
	case http.StatusNotImplemented:
		p = notImplemented.problem("send the body with Content-Length, or chunked")
	case http.StatusHTTPVersionNotSupported:
		p = unsupportedVersion.problem("use HTTP/1.1")
	default:
		p = malformedRequest.problem("it is not HTTP as RFC 9112 has it")
		if _, why, ok := bytes.Cut(line, []byte(": ")); ok {
			p.Detail = clip(string(why), 100)
		}
		p.Status = status
	}
	body, err := json.Marshal(p)
	if err != nil {
		return nil
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, http.StatusText(status), api.ProblemType, len(body), body)
}

type connKey struct{}

// withConn keeps a connection's TLS for its requests: net/http knows of it only where the connection itself is a [tls.Conn].
func withConn(ctx context.Context, c net.Conn) context.Context {
	if ours, ok := c.(*conn); ok && ours.tls != nil {
		return context.WithValue(ctx, connKey{}, ours.tls)
	}
	return ctx
}

func tlsOf(ctx context.Context) *tls.ConnectionState {
	if c, ok := ctx.Value(connKey{}).(*tls.Conn); ok {
		state := c.ConnectionState()
		return &state
	}
	return nil
}
