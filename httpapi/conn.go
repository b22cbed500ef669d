package httpapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/state"
)

// maxConns is how many connections may be open. One more takes the place of the one on which nothing has happened for longest.
const maxConns = 1024

// Why a connection was dropped, in the metrics.
const (
	droppedIdle   = "idle"        // a new one took its place
	droppedUnread = "not_reading" // an answer could not be written in time
)

const dropLogInterval = 10 * time.Second

// listener hands out connections on which net/http's own refusals are problems, too. It bounds how many there are: who has not said who
// they are makes room for who comes later, so that nobody without credentials can shut others out for longer than it takes to open a
// connection.
type listener struct {
	net.Listener
	tls     *tls.Config // nil without
	dropped func(reason, remote string, idle time.Duration)

	mu   sync.Mutex
	open map[*conn]bool
}

// Accept blocks until there is a connection. TLS is negotiated with its first read, within the time for the header.
func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, raw: raw, listener: l, since: time.Now()}
	if l.tls != nil {
		c.tls = tls.Server(raw, l.tls)
		c.Conn = c.tls
	}
	l.admit(c)
	return c, nil
}

// admit makes room for a connection where there is none. Of those that are kept there are fewer than may be open: maxRequests.
func (l *listener) admit(c *conn) {
	l.mu.Lock()
	var oldest *conn
	idle := time.Duration(0)
	if len(l.open) >= maxConns {
		for x := range l.open {
			if x.serving == 0 && (oldest == nil || x.since.Before(oldest.since)) {
				oldest = x
			}
		}
		if oldest != nil {
			idle = time.Since(oldest.since)
			delete(l.open, oldest)
		}
	}
	l.open[c] = true
	l.mu.Unlock()
	if oldest != nil {
		// Without a farewell of TLS, which would have to be written to who may not read.
		_ = oldest.raw.Close()
		l.dropped(droppedIdle, oldest.raw.RemoteAddr().String(), idle)
	}
}

// state is told by net/http when a request has come, and when it was answered.
func (l *listener) state(c net.Conn, _ http.ConnState) {
	if ours, ok := c.(*conn); ok {
		l.mu.Lock()
		ours.since = time.Now()
		l.mu.Unlock()
	}
}

// dropLog counts connections that were dropped, and logs the first, and then at most one line each 10 s for each reason.
type dropLog struct {
	log   *slog.Logger
	count func(reason string)

	mu     sync.Mutex
	logged map[string]time.Time
	since  map[string]int // the last line
}

func (d *dropLog) dropped(reason, remote string, idle time.Duration) {
	d.count(reason)
	d.mu.Lock()
	d.since[reason]++
	n, quiet := d.since[reason], time.Since(d.logged[reason]) < dropLogInterval
	if !quiet {
		d.logged[reason], d.since[reason] = time.Now(), 0
	}
	d.mu.Unlock()
	if quiet {
		return
	}
	log := d.log.With("reason", reason, "remote", remote, "dropped", n)
	if reason == droppedIdle {
		log.Warn("too many connections: the longest idle one was closed for a new one", "open", maxConns, "idle",
			idle.Round(time.Millisecond))
		return
	}
	log.Warn("a connection was closed: its client does not read the answer")
}

// conn rewrites the answers that net/http gives before any handler sees the request: they are text, and have no Date, by which they are
// known from ours. (Go 1.26, net/http/server.go: each is one Write.)
type conn struct {
	net.Conn
	raw      net.Conn
	tls      *tls.Conn
	listener *listener

	// With the listener's lock held.
	since   time.Time // something has happened last
	serving int       // requests of a known caller that are being answered: the connection is not closed for another one
}

func (c *conn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.open, c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

// serve keeps the connection until the function that it returns is called.
func (c *conn) serve() (done func()) {
	add := func(n int) {
		c.listener.mu.Lock()
		c.serving += n
		c.listener.mu.Unlock()
	}
	add(1)
	return func() { add(-1) }
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
		n, err := c.Conn.Write(b)
		c.unread(err)
		return n, err
	}
	if _, err := c.Conn.Write(answer); err != nil {
		c.unread(err)
		return 0, err
	}
	return len(b), nil
}

func (c *conn) unread(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.listener.dropped(droppedUnread, c.raw.RemoteAddr().String(), 0)
	}
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
			p.Detail = state.Clip(string(why), 100)
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

// withConn keeps a connection for its requests: net/http knows of its TLS only where the connection itself is a [tls.Conn].
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// connOf is a request's connection, nil where it did not come from a listener of ours.
func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

func tlsOf(ctx context.Context) *tls.ConnectionState {
	if c := connOf(ctx); c != nil && c.tls != nil {
		state := c.tls.ConnectionState()
		return &state
	}
	return nil
}
