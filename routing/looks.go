// Package routing looks where the addresses lead that poolers connect to: which addresses they are, as a pooler goes by them, and which
// server is behind one, where that may be several.
package routing

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/postgres"
)

// How often an address is looked at until what it shows counts. The connections are open at the same time: a proxy that knows several
// servers hands connections out in turn, and shows them.
const (
	InARow = 3
	// AfterAll is as many where the address has led elsewhere before: with somebody else's connections in between, a proxy that takes two
	// servers for the primary may send a few of ours to the same one (HAProxy 3.0 and 3.2 with inter 3s fall 3 rise 2).
	AfterAll = 12
	Apart    = 15 * time.Millisecond // between those
)

// AtOnce calls look n times, each so much later than the one before, without waiting for the one before, and returns the connections,
// which stay open; nil for a look that has none. Where a look is enough, those that have not begun are left out. It blocks until all have
// returned.
func AtOnce(ctx context.Context, n int, apart time.Duration, look func(i int) (conn *postgres.Conn, enough bool)) []*postgres.Conn {
	conns := make([]*postgres.Conn, n)
	var decided atomic.Bool
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			member.Sleep(ctx, time.Duration(i)*apart)
			if decided.Load() || ctx.Err() != nil {
				return
			}
			conn, enough := look(i)
			conns[i] = conn
			if enough {
				decided.Store(true)
			}
		})
	}
	all.Wait()
	return conns
}

// CloseAll closes connections, all at once: a good-bye takes a round trip.
func CloseAll(conns []*postgres.Conn) {
	var all sync.WaitGroup
	for _, c := range conns {
		if c != nil {
			all.Go(c.Close)
		}
	}
	all.Wait()
}

// Once makes one connection and asks who is there. The connection stays open where there is one, also with an error.
func Once(ctx context.Context, server *postgres.Server) (conn *postgres.Conn, there postgres.Identity, err error) {
	if conn, err = server.Connect(ctx); err == nil {
		there, err = conn.Identity(ctx)
	}
	return conn, there, err
}

// Failed is the kind of a look's error, as [api.RouteLook] has it: "" where there is none.
func Failed(err error) string {
	switch {
	case err == nil:
		return ""
	case postgres.LoginRefused(err):
		return api.RouteLogin
	case postgres.Unreachable(err):
		return api.RouteSilent
	}
	return api.RouteRefused
}
