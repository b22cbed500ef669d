package httpapi

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/health"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/state"
)

// blind opens connections that ask again and again and read nothing, and returns when nothing more comes on any of them: the server waits
// for each.
func blind(t *testing.T, address, path string, n int) {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
	}}
	var all []*net.TCPConn
	for range n {
		c, err := dialer.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		all = append(all, c.(*net.TCPConn))
		go func() { _, _ = io.WriteString(c, strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n", 5000)) }()
	}
	waiting := func() (sum int) {
		for _, c := range all {
			raw, err := c.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			unread := 0
			_ = raw.Control(func(fd uintptr) { unread, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
			if unread == 0 {
				return 0
			}
			sum += unread
		}
		return sum
	}
	last, same := 0, 0
	eventually(t, "nobody reads", func() bool {
		now := waiting()
		if now == 0 || now != last {
			last, same = now, 0
			return false
		}
		same++
		return same > 20
	})
}

// soon fails when an answer does not come within 4 s: who waits for a client that does not read waits for 5 s.
func (a *service) soon(method, path string) {
	a.t.Helper()
	began := time.Now()
	got := a.do(method, path, "")
	if took := time.Since(began); got.status != 200 || took > 4*time.Second {
		a.t.Errorf("%s %s: %d after %s: %s", method, path, got.status, took, got.body)
	}
}

// TestBlindClients: who has no credentials and does not read shuts nobody out, neither from what needs some nor from what does not.
func TestBlindClients(t *testing.T) {
	a := start(t, &fake{status: fullStatus}, nil)
	address := a.server.Addr().String()
	blind(t, address, "/metrics", 8)
	blind(t, address, "/openapi.json", 256)
	a.soon("POST", "/v1/pgbouncer/resume")
	a.soon("GET", "/v1/status")
	a.soon("GET", "/metrics")
	a.soon("GET", "/healthz")
	a.soon("GET", "/openapi.yaml")
}

// TestNotReading: an answer that is open to all is given a time to be written, and that it was not is counted and logged.
func TestNotReading(t *testing.T) {
	a := start(t, &fake{status: fullStatus, limit: func(s *Server) { s.openTimeout = 300 * time.Millisecond }}, nil)
	blind(t, a.server.Addr().String(), "/openapi.json", 3)
	eventually(t, "they are dropped", func() bool {
		return value(string(a.do("GET", "/metrics", "").body), `pgbaton_http_connections_dropped_total{reason="not_reading"}`) == "3" &&
			a.server.listener.count() < 3
	})
	if log := a.out.String(); strings.Count(log, "its client does not read the answer") != 1 ||
		!strings.Contains(log, "reason=not_reading") {
		t.Errorf("%s", log)
	}
}

// TestIdleConnections: one too many takes the place of the one on which nothing has happened for longest, and that is counted and logged.
func TestIdleConnections(t *testing.T) {
	a := start(t, &fake{pause: held(nil), limit: func(s *Server) { s.headerTimeout, s.idleTimeout = time.Minute, time.Minute }}, nil)
	const healthz = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
	// The oldest has a request of a known caller that is being answered.
	stream := dial(t, a.server)
	path := a.do("POST", "/v1/pgbouncer/pause", "").operation(t).Path() + "/events"
	if _, err := io.WriteString(stream, "GET "+path+authorized+"\r\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is being answered", func() bool { return len(a.server.streams) == 1 })
	a.client.CloseIdleConnections()
	eventually(t, "one is open", func() bool { return a.server.listener.count() == 1 })
	var all []*net.TCPConn
	for range maxConns - 1 {
		all = append(all, dial(t, a.server))
	}
	eventually(t, "all are open", func() bool { return a.server.listener.count() == maxConns })
	if got := ask(t, all[0], bufio.NewReader(all[0]), healthz); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
	for range 3 {
		c := dial(t, a.server)
		if got := ask(t, c, bufio.NewReader(c), healthz); got.status != 200 {
			t.Errorf("a new one: %d %s", got.status, got.body)
		}
	}
	for _, c := range all[1:4] {
		closes(t, "the longest idle", c, time.Now(), 0)
	}
	if got := ask(t, all[0], bufio.NewReader(all[0]), healthz); got.status != 200 {
		t.Errorf("one that was used: %d %s", got.status, got.body)
	}
	a.soon("POST", "/v1/pgbouncer/resume")
	text := string(a.do("GET", "/metrics", "").body)
	if n := value(text, `pgbaton_http_connections_dropped_total{reason="idle"}`); n != "4" {
		t.Errorf("%s were counted", n)
	}
	if log := a.out.String(); strings.Count(log,
		"too many connections: the longest idle one was closed for a new one") != 1 {
		t.Errorf("%s", log)
	}
	// The stream was none of them: it goes on until the operation's end.
	response, err := http.ReadResponse(bufio.NewReader(stream), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	events, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(events), `"state":"failed"`) {
		t.Errorf("%v %s", err, events)
	}
	for _, c := range all {
		_ = c.Close()
	}
	a.client.CloseIdleConnections()
	eventually(t, "none is counted", func() bool { return a.server.listener.count() <= 4 })
}

// TestForeignNames: what a pooler or the journal calls something makes neither an endless number of series nor lines of its own, and ends
// nobody.
func TestForeignNames(t *testing.T) {
	evil := "p\xff\x1b[2J\n# TYPE x counter\nx 1" + strings.Repeat("y", 1<<20)
	a := start(t, &fake{status: func() health.Status {
		s := fullStatus()
		s.Poolers = append(s.Poolers, api.PoolerStatus{Pooler: evil, Paused: "no"})
		for i := range 2 * maxPoolers {
			s.Poolers = append(s.Poolers, api.PoolerStatus{Pooler: fmt.Sprintf("p%d:6432", i), Paused: "no"})
		}
		return s
	}}, nil)
	for i := range 50 {
		writeEntry(t, a.config.StateDir, state.Entry{Hook: "reload", Event: state.EventReloaded, Target: fmt.Sprintf("made up %d", i)})
	}
	text := ""
	eventually(t, "the journal is counted", func() bool {
		text = string(a.expect(a.do("GET", "/metrics", ""), 200, "").body)
		return value(text, `pgbaton_reloads_total{result="succeeded",target="other"}`) == "50"
	})
	if n := strings.Count(text, "\npgbaton_pooler_up{"); n != maxPoolers {
		t.Errorf("%d poolers have series", n)
	}
	if !strings.Contains(text, `pgbaton_pooler_up{pooler="p  [2J # TYPE x counter x 1yyyy`) {
		t.Error("the pooler with the odd name is not there")
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "x ") || strings.Contains(line, "\x1b") || strings.Contains(line, "\xff") || len(line) > 1000 {
			t.Errorf("%.200q", line)
		}
	}
}

// TestTokensPipe: a named pipe in the place of the token file keeps no removed token valid, and one at the start is an error.
func TestTokensPipe(t *testing.T) {
	a := start(t, &fake{}, nil)
	a.soon("GET", "/v1/operations")
	if err := os.Remove(a.config.Serve.TokensFile); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(a.config.Serve.TokensFile, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token is not valid any more", func() bool { return a.do("GET", "/v1/operations", "").status == 401 })
	a.expect(a.do("GET", "/readyz", ""), 503, "not-ready")
	if !strings.Contains(a.out.String(), "is a named pipe, not a regular file") {
		t.Error("nothing in the log")
	}
	if err := os.Remove(a.config.Serve.TokensFile); err != nil {
		t.Fatal(err)
	}
	writeText(t, a.config.Serve.TokensFile, "operator operate "+operateToken+"\n")
	eventually(t, "it is valid again", func() bool { return a.do("GET", "/v1/operations", "").status == 200 })

	// With a certificate, the one before stays in use.
	dir := t.TempDir()
	newAuthority(t, dir, "ca").issue("server")
	pipe := func(name string) {
		if err := errors.Join(os.Remove(dir+"/"+name), syscall.Mkfifo(dir+"/"+name, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	secured := start(t, &fake{}, func(c *config.Config, _ *Options) {
		c.Serve.CertFile, c.Serve.KeyFile = dir+"/server.crt", dir+"/server.key"
	})
	pipe("server.key")
	eventually(t, "it is told", func() bool { return strings.Contains(secured.out.String(), "is a named pipe, not a regular file") })
	c, err := tls.Dial("tcp", secured.server.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	began := time.Now()
	if _, err := New(Options{Member: &member.Member{Config: &config.Config{StateDir: t.TempDir(), Serve: secured.config.Serve},
		Log: testLog(t)}}); !config.IsInvalid(err) || time.Since(began) > 2*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

// count is how many connections are open.
func (l *listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}
