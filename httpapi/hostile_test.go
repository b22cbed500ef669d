package httpapi

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// blind opens connections that ask again and again and read nothing, and returns when nothing more comes on any of them: the server waits for each.
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

// soon fails when an answer does not come within 2 s.
func (a *service) soon(method, path string) {
	a.t.Helper()
	began := time.Now()
	got := a.do(method, path, "")
	if took := time.Since(began); got.status != 200 || took > 2*time.Second {
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
	a := start(t, &fake{status: fullStatus}, nil)
	a.server.openTimeout = 300 * time.Millisecond
	blind(t, a.server.Addr().String(), "/openapi.json", 3)
	eventually(t, "they are dropped", func() bool {
		return value(string(a.do("GET", "/metrics", "").body), `pgbaton_http_connections_dropped_total{reason="not_reading"}`) == "3" && a.server.listener.count() < 3
	})
	if log := a.out.String(); strings.Count(log, "its client does not read the answer") != 1 || !strings.Contains(log, "reason=not_reading") {
		t.Errorf("%s", log)
	}
}

// TestIdleConnections: one too many takes the place of the one on which nothing has happened for longest, and that is counted and logged.
func TestIdleConnections(t *testing.T) {
	a := start(t, &fake{pause: held(nil)}, nil)
	a.server.headerTimeout, a.server.idleTimeout = time.Minute, time.Minute
	const health = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
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
	if got := ask(t, all[0], bufio.NewReader(all[0]), health); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
	for range 3 {
		c := dial(t, a.server)
		if got := ask(t, c, bufio.NewReader(c), health); got.status != 200 {
			t.Errorf("a new one: %d %s", got.status, got.body)
		}
	}
	for _, c := range all[1:4] {
		closes(t, "the longest idle", c, time.Now(), 0)
	}
	if got := ask(t, all[0], bufio.NewReader(all[0]), health); got.status != 200 {
		t.Errorf("one that was used: %d %s", got.status, got.body)
	}
	a.soon("POST", "/v1/pgbouncer/resume")
	text := string(a.do("GET", "/metrics", "").body)
	if n := value(text, `pgbaton_http_connections_dropped_total{reason="idle"}`); n != "4" {
		t.Errorf("%s were counted", n)
	}
	if log := a.out.String(); strings.Count(log, "too many connections: the one on which nothing has happened for longest was closed for a new one") != 1 {
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
