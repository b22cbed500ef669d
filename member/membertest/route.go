package membertest

import (
	"io"
	"net"
	"strconv"
	"sync"
	"testing"

	"github.com/pgbaton/pgbaton/e2e/single"
)

// Route is an address that leads to one server or another, as a Service of Kubernetes does: connections that exist stay where they are.
type Route struct {
	Addr string
	Port uint16

	mu sync.Mutex
	to string
}

// NewRoute listens on loopback until the test ends.
func NewRoute(t *testing.T, to *single.Postgres) *Route {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(l.Addr().String())
	n, _ := strconv.Atoi(port)
	r := &Route{Addr: host, Port: uint16(n)}
	r.Lead(to)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { r.forward(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return r
}

// Lead leads new connections to a server from now on; nil: nobody answers.
func (r *Route) Lead(to *single.Postgres) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = ""
	if to != nil {
		r.to = net.JoinHostPort(to.Addr, strconv.Itoa(int(to.Port)))
	}
}

func (r *Route) forward(client net.Conn) {
	defer client.Close()
	r.mu.Lock()
	to := r.to
	r.mu.Unlock()
	if to == "" {
		return
	}
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	var all sync.WaitGroup
	all.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	_, _ = io.Copy(client, server)
	_ = client.Close()
	all.Wait()
}
